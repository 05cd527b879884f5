// Package api answers questions about the index: the same answers, field by field,
// for the commands and over HTTP. It reads and never writes. Every answer is bounded:
// lists come in pages, and where a list could be taken for all that there is, the answer
// says how far the logs were looked at.
//
// Hashes are lower-case hex. Times are RFC 3339 in UTC and name the clock that they
// come from, because clocks differ in who could have set them. Ids and cursors are
// opaque, and mean nothing outside of the database that gave them.
package api

import (
	"encoding/json"
	"time"

	"sigtrail/index"
	"sigtrail/timeline"
)

// A Time is a moment by a clock: timeline.ClockCertificate and so on.
type Time struct {
	At    time.Time `json:"at"`
	Clock string    `json:"clock"`
}

func by(clock string, t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{t.UTC(), clock}
}

// A Span is the first and the last of something, by one clock.
type Span struct {
	Clock string    `json:"clock"`
	Of    string    `json:"of"` // what the clock dates
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Extent is how far was looked at what an answer rests on.
type Extent struct {
	Logs    []LogExtent   `json:"logs"`
	Indexes []IndexExtent `json:"indexes"`
}

// LogExtent is how far one log was looked at. Indexes are those of the tree.
type LogExtent struct {
	Origin   string  `json:"origin"`
	Size     uint64  `json:"head_size"`           // leaves of the newest verified head
	Seen     *Time   `json:"head_seen,omitempty"` // absent: no head was verified yet
	How      string  `json:"how"`                 // "read": whole, from read_from; "looked-up": only what was asked for
	From     *uint64 `json:"read_from,omitempty"`
	To       *uint64 `json:"read_to,omitempty"` // not included
	Conflict bool    `json:"contradicts_itself"`
}

// IndexExtent is how far the journal of a package index was read.
type IndexExtent struct {
	Name   string `json:"name"`
	Serial *int64 `json:"journal_serial,omitempty"` // absent: its journal was never read
}

// Projects is a page of projects (sigtrail.projects/1).
type Projects struct {
	Schema   string    `json:"schema"`
	Projects []Project `json:"projects"`
	Next     string    `json:"next,omitempty"`
	Extent   Extent    `json:"coverage"`
}

// Project sums up one project.
type Project struct {
	Index      string         `json:"index"`
	Name       string         `json:"name"`             // PEP 503
	Status     string         `json:"status,omitempty"` // PEP 792, as served
	Listed     *Time          `json:"listed,omitempty"` // first whole file list; absent: none was read yet
	FirstSeen  *Time          `json:"first_seen"`
	Changed    *Time          `json:"changed,omitempty"` // when we last saw a file appear or disappear
	Serial     int64          `json:"serial"`            // of the newest listing, 0: not given
	Files      int            `json:"files"`             // listed now
	Gone       int            `json:"files_gone"`
	Releases   int            `json:"releases"` // that ever were listed
	Latest     *Release       `json:"latest,omitempty"`
	Publishers int            `json:"publishers"`
	Pins       map[string]int `json:"pins"` // how many in each state
	Missing    Missing        `json:"missing"`
	Unjudged   int            `json:"unjudged"` // entries and files that the rules have yet to see
	Alerts     int            `json:"alerts"`
}

// Missing counts what is not bound yet, by the reason.
type Missing struct {
	Pending    int `json:"provenance_pending"`
	Refused    int `json:"provenance_refused"`
	Leaves     int `json:"leaves"`
	Unanswered int `json:"look_ups_unanswered"`
}

// Release is how one release stands. Counts are of the files that are still listed or,
// if it was removed whole, of those that were.
type Release struct {
	Version    string                   `json:"version"`
	First      Time                     `json:"first"` // upload of its first file
	States     []index.StandingWord     `json:"states"`
	Files      int                      `json:"files"`
	Attested   int                      `json:"attested"`
	Pending    int                      `json:"pending"` // named and not fetched, refused ones among them
	Refused    int                      `json:"refused"`
	Unreadable int                      `json:"unreadable"`
	Yanked     int                      `json:"yanked"`
	Gone       int                      `json:"files_gone"`
	Removed    bool                     `json:"removed"`
	Publishers []index.TrustedPublisher `json:"publishers"`
	Compared   string                   `json:"compared_with,omitempty"` // the attested release that lost and changed refer to
}

// ProjectDetail is what there is to know of a project (sigtrail.project/1).
type ProjectDetail struct {
	Schema     string       `json:"schema"`
	Project    Project      `json:"project"`
	Releases   []Release    `json:"releases"`       // the newest first
	Next       string       `json:"next,omitempty"` // cursor of the releases
	Publishers []Publisher  `json:"publishers"`
	Pins       []Pin        `json:"pins"`
	Unbound    []Unbound    `json:"unbound"` // the first of them; missing has the number
	Roles      []JournalRow `json:"roles"`   // what the journal says of them, the newest first
	Journal    []JournalRow `json:"journal"` // the newest rows, the newest first
	Extent     Extent       `json:"coverage"`
}

// Releases is a page of a project's releases, the newest first (sigtrail.releases/1).
type Releases struct {
	Schema   string    `json:"schema"`
	Index    string    `json:"index"`
	Project  string    `json:"project"`
	Releases []Release `json:"releases"`
	Next     string    `json:"next,omitempty"`
	Extent   Extent    `json:"coverage"`
}

// Pin is a publisher expected for a project.
type Pin struct {
	Publisher index.Publisher `json:"publisher"`
	State     string          `json:"state"`
	How       string          `json:"how"`
	Made      Time            `json:"made"`
}

// Unbound is one thing that is missing before a file's entries are known, and why.
type Unbound struct {
	Why     string `json:"why"`
	File    string `json:"file"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Where   string `json:"where,omitempty"`        // origin of the log, or the server
	Global  *int64 `json:"global_index,omitempty"` // of the leaf
	Tries   int    `json:"tries,omitempty"`
	Error   string `json:"error,omitempty"`
	Next    *Time  `json:"next_try,omitempty"`
}

// JournalRow is a row of an index's journal.
type JournalRow struct {
	Serial  int64  `json:"serial"`
	At      Time   `json:"time"`
	Version string `json:"version,omitempty"`
	Action  string `json:"action"`
}

// Files is a page of a project's files by their names (sigtrail.files/1).
type Files struct {
	Schema  string `json:"schema"`
	Index   string `json:"index"`
	Project string `json:"project"`
	Files   []File `json:"files"`
	Next    string `json:"next,omitempty"`
	Extent  Extent `json:"coverage"`
}

// File is one distribution.
type File struct {
	Index      string     `json:"index"`
	Project    string     `json:"project"`
	Version    string     `json:"version"`
	Name       string     `json:"filename"`
	SHA256     string     `json:"sha256"`
	Size       int64      `json:"size"`
	URL        string     `json:"url"`
	Uploaded   *Time      `json:"uploaded,omitempty"` // absent: not given
	FirstSeen  *Time      `json:"first_seen"`
	Gone       *Time      `json:"gone,omitempty"`   // first missing from the list; absent: listed
	Yanked     *string    `json:"yanked,omitempty"` // the reason, maybe empty; absent: no
	Provenance Provenance `json:"provenance"`
	Entries    int        `json:"entries"` // bound to it
}

// Provenance is how the provenance of a file stands.
type Provenance struct {
	State      index.ProvenanceState    `json:"state"`
	Fetched    *Time                    `json:"fetched,omitempty"`
	Tries      int                      `json:"tries"`
	Error      string                   `json:"error,omitempty"`
	Publishers []index.TrustedPublisher `json:"publishers"`
}

// FileDetail is everything about the files of one digest (sigtrail.file/1).
type FileDetail struct {
	Schema  string        `json:"schema"`
	Files   []FileLookups `json:"files"`
	Entries []Entry       `json:"entries"`        // the first of those bound to them
	Next    string        `json:"next,omitempty"` // for /entries?hash=
	Extent  Extent        `json:"coverage"`
}

// FileLookups is a file with what its provenance names and what was asked about it.
type FileLookups struct {
	File
	Leaves  []Leaf   `json:"leaves"`
	Lookups []Lookup `json:"look_ups"`
}

// Leaf is a log entry that a provenance object names.
type Leaf struct {
	LogKey    string             `json:"log_key_id"`
	Global    uint64             `json:"global_index"`
	Hash      string             `json:"leaf_hash"`
	Predicate string             `json:"predicate_type"`
	Presence  index.LeafPresence `json:"presence"`
}

// Lookup is what a server was asked about a file. That it found nothing proves
// nothing.
type Lookup struct {
	Server   string `json:"server"`
	Answered int    `json:"answered"`
	Asked    *Time  `json:"asked,omitempty"`
	Found    int    `json:"found"`
	Error    string `json:"error,omitempty"`
}

// Entries is a page of entries (sigtrail.entries/1).
type Entries struct {
	Schema  string  `json:"schema"`
	Entries []Entry `json:"entries"`
	Next    string  `json:"next,omitempty"`
	Extent  Extent  `json:"coverage"`
}

// Entry is a proven log entry that is bound to files.
type Entry struct {
	Origin      string           `json:"log"`
	Index       uint64           `json:"index"` // in the tree
	Global      uint64           `json:"global_index"`
	LeafHash    string           `json:"leaf_hash"`
	Kind        string           `json:"kind"`
	Issued      *Time            `json:"certificate_issued,omitempty"`
	Logged      *Time            `json:"logged,omitempty"` // the log's signed time; absent: it has none that verifies
	Covered     *Time            `json:"covered"`          // when we saw the head that it was proven under
	Trusted     bool             `json:"trusted"`          // the certificate leads to the trusted root
	Distrust    string           `json:"not_trusted_because,omitempty"`
	PublisherID string           `json:"publisher_id,omitempty"`
	Publisher   *index.Publisher `json:"publisher,omitempty"` // what the certificate says; a claim unless trusted
	Run         string           `json:"run,omitempty"`
	Commit      string           `json:"commit,omitempty"`
	Files       []Binding        `json:"files"`
}

// Binding ties an entry to a file on one kind of evidence.
type Binding struct {
	Index     string         `json:"index"`
	Project   string         `json:"project"`
	Version   string         `json:"version"`
	File      string         `json:"filename"`
	SHA256    string         `json:"sha256"`
	Evidence  index.Evidence `json:"evidence"`
	Form      string         `json:"form,omitempty"`
	Signature string         `json:"signature"` // "verified"; else why not
}

// Publishers is a page of publishers (sigtrail.publishers/1).
type Publishers struct {
	Schema     string      `json:"schema"`
	Publishers []Publisher `json:"publishers"`
	Next       string      `json:"next,omitempty"`
	Extent     Extent      `json:"coverage"`
}

// Publisher is a publisher with what it has signed: entries under trusted certificates,
// on evidence that no third party can make up.
type Publisher struct {
	ID        string          `json:"id"`
	Publisher index.Publisher `json:"publisher"`
	Projects  int             `json:"projects"` // how many
	Names     []string        `json:"project_names,omitempty"`
	Entries   int             `json:"entries"`
	Spans     []Span          `json:"spans"`
}

// PublisherDetail is one publisher (sigtrail.publisher/1).
type PublisherDetail struct {
	Schema    string    `json:"schema"`
	Publisher Publisher `json:"publisher"`
	Extent    Extent    `json:"coverage"`
}

// Alerts is a page of alerts, the newest first (sigtrail.alerts/1).
type Alerts struct {
	Schema string  `json:"schema"`
	Alerts []Alert `json:"alerts"`
	Next   string  `json:"next,omitempty"`
}

// Alert is an alert as it was delivered.
type Alert struct {
	ID       string          `json:"id"`
	Rule     string          `json:"rule"`
	Severity string          `json:"severity"`
	Index    string          `json:"index,omitempty"` // absent: about a log
	Project  string          `json:"project,omitempty"`
	Version  string          `json:"version,omitempty"`
	Raised   Time            `json:"raised"`
	Body     json.RawMessage `json:"alert"` // sigtrail.alert/1
}

// Coverage is how far everything was looked at (sigtrail.api-coverage/1).
type Coverage struct {
	Schema  string        `json:"schema"`
	At      Time          `json:"time"`
	Logs    []LogCoverage `json:"logs"`
	Indexes []IndexExtent `json:"indexes"`
	Lookups []Server      `json:"look_ups"`
}

// LogCoverage is how much of a log is proven and indexed.
type LogCoverage struct {
	LogExtent
	Covered uint64      `json:"covered_entries"`
	Ranges  int         `json:"ranges"`  // in all
	Newest  [][2]uint64 `json:"covered"` // the last ones, [first, past)
}

// Server is how the look-ups on a v1 server stand.
type Server struct {
	Server     string `json:"server"`
	Unanswered int    `json:"unanswered"`
	Empty      int    `json:"asked_nothing_found_unverifiable"`
	Found      int    `json:"found"`
	Due        int    `json:"due"`
	Failing    *Time  `json:"failing,omitempty"` // since then it has answered nothing
	Error      string `json:"error,omitempty"`
}

var clockOf = struct{ certificate, log, index, ours string }{timeline.ClockCertificate, timeline.ClockLog, timeline.ClockPyPI, timeline.ClockOurs}
