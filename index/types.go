package index

import (
	"context"
	"crypto/x509"
	"time"

	"sigtrail/monitor"
)

// DigestKind says what an entry's digest is the digest of, because that decides
// which rebuilt bytes it can be compared with.
type DigestKind string

const (
	// DigestPayload is SHA-256 of a DSSE payload (v1 dsse and intoto, v2 dsse).
	DigestPayload DigestKind = "payload"
	// DigestData is a hashedrekord's digest of what was signed: the file itself
	// or, in v2, the PAE of an attestation. The leaf does not say which.
	DigestData DigestKind = "data"
)

// An Entry is a decoded leaf of a kind that can concern a PyPI file.
type Entry struct {
	Kind      string // "dsse/0.0.1", "hashedrekord/0.0.2", …
	Digest    []byte // raw bytes; nil where the leaf has none (old intoto 0.0.1)
	DigestOf  DigestKind
	Algorithm string // "sha256", "sha384", "sha512"
	Signature []byte // raw signature bytes; nil where the leaf keeps none (intoto 0.0.1)
	Cert      []byte // DER of the first certificate; nil for a bare public key
	Key       []byte // DER SPKI of a bare public key; nil for a certificate
}

// Row ids mean nothing outside the database they come from.
type (
	FileID  int64
	EntryID int64
)

// Evidence says on what a binding rests.
type Evidence string

const (
	// ByStatement: the publish statement rebuilt from (filename, sha256) has the
	// entry's hash and, when Binding.Signature is empty, the entry's signature
	// verifies over the rebuilt bytes. When it is not, anybody may have logged it.
	ByStatement Evidence = "statement"
	// ByProvenance: PyPI's provenance object contains this very leaf.
	ByProvenance Evidence = "provenance"
	// ByArtifact: a hashedrekord over the file's own SHA-256.
	ByArtifact Evidence = "artifact"
	// BySubject: an attestation of another kind (SLSA provenance, say) whose
	// subject has the file's SHA-256: as its statement in the file's provenance
	// says or, without more, the log's search index.
	BySubject Evidence = "subject"
	// ByPublisher: the certificate claims a publisher of the project, and nothing
	// ties the entry to a file. It makes a Candidate, never a Binding.
	ByPublisher Evidence = "publisher"
)

// Trust judges certificates and timestamps against the trusted root.
type Trust interface {
	// Chain returns nil when cert leads to a certificate authority of the
	// trusted root that was valid at that time, for code signing, with a
	// signed certificate timestamp where the root names certificate logs.
	// It is called for bound entries only: it costs a millisecond.
	Chain(cert *x509.Certificate, at time.Time) error
	// SET returns nil when a v1 leaf's signed entry timestamp verifies under
	// the log's key. It is called for every v1 leaf.
	SET(l monitor.Log, leaf monitor.Leaf) error
}

// A Stored entry is a proven entry with the clocks that go with it.
type Stored struct {
	ID     EntryID
	Log    monitor.Log
	Leaf   monitor.Leaf
	Hash   monitor.Hash
	Entry  Entry
	Signer *Signer // nil for a bare key or a certificate that does not parse

	// SETValid says that Leaf.IntegratedTime is a signed claim of the log.
	SETValid bool
	// Trust is "" when the certificate leads to the trusted root at the
	// entry's time, else why not. Without it a signer is only a claim.
	Trust string

	Head  monitor.Head   // the first verified head seen here that covers it
	Proof []monitor.Hash // inclusion under Head; nil for tailed entries (their whole range was proven)
	Seen  time.Time
}

// A Binding ties an entry to a file on one kind of evidence.
type Binding struct {
	Entry     Stored
	Evidence  Evidence
	Form      string // template and digest it was found by: "P1/payload", "P1/pae", "artifact"; "" where none
	Signature string // "": verifies over the rebuilt bytes, or PyPI's attestation holds; else why not
}

// A File is one distribution as PyPI listed it.
type File struct {
	ID            FileID
	Index         string // name of the package index; "": PyPI
	Project       string // PEP 503
	Version       string
	Name          string
	SHA256        [32]byte
	Size          int64
	Uploaded      time.Time // zero: not given
	URL           string
	ProvenanceURL string  // "": PyPI names none
	Yanked        *string // nil: no; else the reason
	FirstSeen     time.Time
	Gone          time.Time // zero: still listed
	FirstListing  bool      // was there when the project was first read
}

// A Listing is a project's simple JSON (PEP 691) at one moment.
type Listing struct {
	Project string // PEP 503
	Serial  int64  // X-PyPI-Last-Serial; 0: not given
	Status  string // PEP 792; "": not given
	Files   []File
	Fetched time.Time

	// Removed: the index has no such project any more, for certain: there are no Files
	// and no Status. Serial is that of the journal row that says so, 0: there is no journal.
	Removed bool
}

// ProvenanceState is what PyPI answers about a file's provenance.
type ProvenanceState string

const (
	ProvenancePending    ProvenanceState = "pending"    // named, not fetched yet
	ProvenancePresent    ProvenanceState = "present"    // fetched and parsed
	ProvenanceAbsent     ProvenanceState = "absent"     // PyPI names none, or answers 404
	ProvenanceRefused    ProvenanceState = "refused"    // 403: attestations switched off for now
	ProvenanceUnreadable ProvenanceState = "unreadable" // fetched, does not parse
)

// A Provenance is PyPI's answer for one file.
type Provenance struct {
	State   ProvenanceState
	Body    []byte // as served; nil without an object
	Fetched time.Time
	Leaves  []ProvenanceLeaf
	Attests []Attested // nil: not known
	Heads   [][]byte   // signed heads that the object brings
	Error   string     // why it is pending, refused or unreadable
	Retry   time.Time  // when to ask again; zero: not
}

// A ProvenanceLeaf is a log entry that a provenance object names and contains.
type ProvenanceLeaf struct {
	KeyID     monitor.Hash // of the log
	Global    uint64       // v1: index over all shards
	Hash      monitor.Hash // leaf hash of the canonicalized body inside the object
	Predicate string       // predicate type of the statement
	Publisher string       // PyPI's publisher object, JSON as served
}

// An Attested is a statement that a provenance object holds, and the leaf of a log
// that the object has for it.
type Attested struct {
	Statement []byte // as signed
	Leaf      []byte
}

// A JournalRow is one line of PyPI's changelog, kept verbatim.
type JournalRow struct {
	Serial  int64
	Project string // PEP 503 form of Name
	Name    string
	Version *string
	At      time.Time
	Action  string
}

// PinState is where an expected publisher stands.
type PinState string

const (
	PinLearned  PinState = "learned"
	PinApproved PinState = "approved"
	PinRejected PinState = "rejected"
	PinExpired  PinState = "expired"
)

// A Pin is a publisher expected for a project.
type Pin struct {
	Index     string // name of the package index; "": PyPI
	Project   string
	Publisher Publisher
	State     PinState
	How       string // one sentence: where it comes from
	Made      time.Time
}

// A Release sums up what PyPI lists for one version.
type Release struct {
	Version  string
	First    time.Time // first upload
	Files    int
	Attested int // files with a provenance object
}

// A Case is one fact for the rules, with the history they need to judge it. Its
// subject is just one of these: a contradiction; an entry bound to a file; the verdicts
// on a file's provenance; log entries that its provenance names and that are not in
// their log; a file as such.
type Case struct {
	Contradiction *monitor.Contradiction

	File       *File
	Provenance ProvenanceState
	Bindings   []Binding            // of one entry to File, strongest first
	Verdicts   []AttestationVerdict // on File's provenance object, at least one of them invalid
	Missing    []MissingLeaf

	Pins     []Pin
	Releases []Release    // of the project, oldest first, File's own included
	Lacking  []Unanswered // v1 servers that files of the project could not be looked up on
	Shown    []string     // other indexes that show an entry by the same publisher as attestation of the very same file; "": PyPI

	id caseID
}

// Unanswered is a v1 server that has answered no look-up since a time.
type Unanswered struct {
	Server string
	Since  time.Time
}

// An Alert as stored. Body is what is delivered.
type Alert struct {
	ID       string
	Rule     string
	Severity string
	Index    string // name of the package index; "": PyPI, or about a log
	Project  string
	Version  string
	Raised   time.Time
	Body     []byte // JSON
}

// A Delivery is an alert on its way to one sink.
type Delivery struct {
	Alert Alert
	Sink  string
	Tries int
}

// Verdict is what the rules made of a Case. It is written in one transaction
// with the mark that the case has been judged.
type Verdict struct {
	Pins   []Pin   // to add; a publisher that has a pin already keeps it
	Alerts []Alert // an id that exists already is left alone and not delivered again
	Sinks  []string
}

// A Lookup is a file that a v1 server should be asked about.
type Lookup struct {
	File   File
	Server string
	Step   int // how many times it has been answered
	Leaves []ProvenanceLeaf
}

// A Want is a leaf to fetch and prove because its file has appeared.
type Want struct {
	Log   monitor.Log
	Index uint64
}

// LogStatus is how far one log is verified and indexed.
type LogStatus struct {
	Log        monitor.Log
	Head       monitor.Head    // newest verified
	Coverage   []monitor.Range // proven and indexed, in order, never touching
	Next       *uint64         // the tail's position; nil: not tailed
	Began      uint64          // where the tail began; only with Next
	ClosedSize *uint64         // leaves of a log that has ended; nil: open
	Habit      monitor.Habit
	Checked    time.Time // when the log last showed a verified head
	Conflict   bool      // it has contradicted itself
	Waiting    time.Time // when the log first showed the leaf that the tail reads next; zero: nothing to read
}

// Gaps are what the coverage of a tailed log lacks between where the tail began and
// where it is. Of a log that is not tailed everything outside of Coverage is unread,
// and no gap.
func (s LogStatus) Gaps() []monitor.Range {
	if s.Next == nil {
		return nil
	}
	var gaps []monitor.Range
	at := s.Began
	for _, r := range s.Coverage {
		if from := min(r.From, *s.Next); from > at {
			gaps = append(gaps, monitor.Range{From: at, To: from})
		}
		at = max(at, r.To)
	}
	if *s.Next > at {
		gaps = append(gaps, monitor.Range{From: at, To: *s.Next})
	}
	return gaps
}

// Covered is how many leaves are proven and indexed.
func (s LogStatus) Covered() uint64 {
	n := uint64(0)
	for _, r := range s.Coverage {
		n += r.To - r.From
	}
	return n
}

// Judge is what the rules ask of the store.
type Judge interface {
	Cases(ctx context.Context, ready func(project string) bool, limit, most int) ([]Case, error)
	Decide(ctx context.Context, c Case, v Verdict) (raised []Alert, err error)
}
