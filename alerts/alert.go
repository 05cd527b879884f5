package alerts

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"sigtrail/index"
	"sigtrail/monitor"
)

// Severity of a finding.
type Severity string

const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
)

// Schema names the form of Alert. Members are only ever added to it.
const Schema = "sigtrail.alert/1"

// An Alert is what a receiver gets, as JSON. Texts from certificates, logs and
// PyPI are kept as they are: who shows them to people has to escape them.
type Alert struct {
	Schema   string   `json:"schema"` // Schema
	ID       string   `json:"id"`     // stable: the same finding has the same id
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`
	Reason   string   `json:"reason"` // one sentence
	Next     string   `json:"next"`   // what to do

	Index   string `json:"index,omitempty"` // of packages, by its configured name; absent: PyPI
	Project string `json:"project,omitempty"`
	Version string `json:"version,omitempty"`
	Files   []File `json:"files,omitempty"`

	Log       *LogRef   `json:"log,omitempty"`
	Seen      *Seen     `json:"seen,omitempty"`
	Expected  []string  `json:"expected,omitempty"`
	Evidence  string    `json:"evidence,omitempty"`  // index.Evidence: what ties the entry to the file
	Condition string    `json:"condition,omitempty"` // provenance-invalid: what of the attestation failed
	Times     []Time    `json:"times,omitempty"`
	Heads     *Heads    `json:"heads,omitempty"`   // rules about logs
	Lacking   []string  `json:"lacking,omitempty"` // what was waited for in vain before judging
	Raised    time.Time `json:"raised"`
}

// File is a distribution that the alert is about.
type File struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// LogRef is a place in a log; without indexes, the log itself.
type LogRef struct {
	Origin string  `json:"origin"`
	Index  *uint64 `json:"index,omitempty"`        // in the tree
	Global *uint64 `json:"global_index,omitempty"` // what links and people use: over all shards of a v1 instance
	Link   string  `json:"link"`                   // for a browser or curl
}

// Seen is what the certificate says, the publisher's members among its own. What
// the certificate lacks is left out.
type Seen struct {
	index.Publisher
	SAN       string    `json:"san"`
	Ref       string    `json:"ref,omitempty"`
	Commit    string    `json:"commit,omitempty"`
	Trigger   string    `json:"trigger,omitempty"`
	Runner    string    `json:"runner,omitempty"`
	Run       string    `json:"run,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Time is a moment with the clock that gave it.
type Time struct {
	What  string    `json:"what"`
	Clock string    `json:"clock"`
	At    time.Time `json:"at"`
}

// Heads are both sides of a contradiction.
type Heads struct {
	KeyID  string   `json:"key_id"`          // of the log, hex
	Ours   string   `json:"ours"`            // signed note, verified earlier; "": none
	Theirs string   `json:"theirs"`          // as served now; the rule says what of it verified
	Proof  []string `json:"proof,omitempty"` // hashes of the proof that failed, hex
}

// alertID makes the id from what makes a finding itself. Each part is preceded by
// its length, so that no two tuples run together.
func alertID(parts ...string) string {
	h := sha256.New()
	for _, p := range append([]string{Schema}, parts...) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write([]byte(p))
	}
	return "sa_" + hex.EncodeToString(h.Sum(nil)[:20])
}

// stored is the alert as the index keeps it.
func (a Alert) stored() (index.Alert, error) {
	body, err := json.Marshal(a)
	if err != nil {
		return index.Alert{}, fmt.Errorf("alert %s: %w", a.ID, err)
	}
	return index.Alert{ID: a.ID, Rule: a.Rule, Severity: string(a.Severity), Index: a.Index, Project: a.Project, Version: a.Version, Raised: a.Raised, Body: body}, nil
}

// link is a page or an address where the entry can be looked at. The public v1
// instance has a search page; elsewhere it is the log's own read address.
func link(l monitor.Log, idx uint64) string {
	base := strings.TrimSuffix(address(l), "/")
	switch {
	case l.API == monitor.V1 && strings.HasPrefix(l.Origin, "rekor.sigstore.dev - "):
		return fmt.Sprintf("https://search.sigstore.dev/?logIndex=%d", l.Global(idx))
	case l.API == monitor.V1:
		return fmt.Sprintf("%s/api/v1/log/entries?logIndex=%d", base, l.Global(idx))
	}
	return fmt.Sprintf("%s/tile/entries/%s#%d", base, tilePath(idx/256), idx%256)
}

// address is the log's read address without what may be secret in it.
func address(l monitor.Log) string {
	u, err := url.Parse(l.URL)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// tilePath writes a tile's number in groups of three digits (C2SP tlog-tiles).
func tilePath(n uint64) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	return s
}

func logRef(s index.Stored) *LogRef {
	global := s.Log.Global(s.Leaf.Index)
	return &LogRef{Origin: s.Log.Origin, Index: &s.Leaf.Index, Global: &global, Link: link(s.Log, s.Leaf.Index)}
}

// lacking says which look-ups a finding was made without.
func lacking(c index.Case) []string {
	var texts []string
	for _, u := range c.Lacking {
		texts = append(texts, fmt.Sprintf("look-up on %s, which has not answered since %s", u.Server, u.Since.UTC().Format(time.RFC3339)))
	}
	return texts
}

// shower is, for people, the index that shows a file.
func shower(f *index.File) string {
	if f.Index == "" {
		return "PyPI"
	}
	return f.Index
}

// on makes a finding about a file the finding of the file's index: the same about two
// indexes is two. PyPI's keep the ids that they have always had.
func (a *Alert) on(f *index.File) {
	if f == nil || f.Index == "" {
		return
	}
	a.Index, a.ID, a.Title = f.Index, alertID("index", f.Index, a.ID), f.Index+": "+a.Title
}

func file(f *index.File) File { return File{f.Name, hex.EncodeToString(f.SHA256[:])} }

func seen(s *index.Signer) *Seen {
	return &Seen{Publisher: s.Publisher(), SAN: s.SAN, Ref: s.Get(index.ExtSourceRepositoryRef), Commit: s.Get(index.ExtSourceRepositoryDigest),
		Trigger: s.Get(index.ExtBuildTrigger), Runner: s.Get(index.ExtRunnerEnvironment), Run: s.Get(index.ExtRunInvocationURI),
		NotBefore: s.NotBefore.UTC(), NotAfter: s.NotAfter.UTC()}
}

// clock says whose time a certificate's begin is.
func clock(s index.Stored) string {
	if s.Trust == "" {
		return "certificate authority"
	}
	return "certificate, not trusted"
}

func times(f *index.File, s index.Stored) []Time {
	var t []Time
	if s.Signer != nil {
		t = append(t, Time{"certificate issued", clock(s), s.Signer.NotBefore.UTC()})
	}
	if s.SETValid {
		t = append(t, Time{"logged", "log (signed entry timestamp)", time.Unix(s.Leaf.IntegratedTime, 0).UTC()})
	}
	t = append(t, Time{"covered by a head that we saw", "sigtrail", s.Head.Seen.UTC()})
	return append(t, uploaded(f)...)
}

func uploaded(f *index.File) []Time {
	if f.Uploaded.IsZero() {
		return nil
	}
	return []Time{{"uploaded", shower(f), f.Uploaded.UTC()}}
}
