package alerts

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
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

// An Alert is what a receiver gets, as JSON. Members are only ever added.
type Alert struct {
	Schema   string   `json:"schema"` // sigtrail.alert/1
	ID       string   `json:"id"`     // stable: the same finding has the same id
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`
	Reason   string   `json:"reason"` // one sentence
	Next     string   `json:"next"`   // what to do

	Project string `json:"project,omitempty"`
	Version string `json:"version,omitempty"`
	Files   []File `json:"files,omitempty"`

	Log      *LogRef   `json:"log,omitempty"`
	Seen     *Seen     `json:"seen,omitempty"`
	Expected []string  `json:"expected,omitempty"`
	Evidence string    `json:"evidence,omitempty"` // statement, provenance, artifact
	Times    []Time    `json:"times,omitempty"`
	Heads    *Heads    `json:"heads,omitempty"` // rules about logs
	Raised   time.Time `json:"raised"`
}

// File is a distribution that the alert is about.
type File struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// LogRef is a place in a log.
type LogRef struct {
	Origin string `json:"origin"`
	Index  uint64 `json:"index"`        // in the tree
	Global uint64 `json:"global_index"` // what links and people use
	Link   string `json:"link"`
}

// Seen is what the certificate says.
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

// Heads are both sides of a contradiction, byte for byte.
type Heads struct {
	KeyID  string `json:"key_id"`
	Ours   string `json:"ours"`
	Theirs string `json:"theirs"`
	Detail string `json:"detail"`
}

// alertID makes the id from what makes a finding itself. Each part is preceded by
// its length, so that no two tuples run together.
func alertID(parts ...string) string {
	h := sha256.New()
	for _, p := range append([]string{"sigtrail.alert/1"}, parts...) {
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
	return index.Alert{ID: a.ID, Rule: a.Rule, Severity: string(a.Severity), Project: a.Project, Version: a.Version, Raised: a.Raised, Body: body}, nil
}

// link is a page or an address where the entry can be looked at. The public v1
// instance has a search page; elsewhere it is the log's own read address.
func link(l monitor.Log, idx uint64) string {
	base := strings.TrimSuffix(l.URL, "/")
	switch {
	case strings.HasPrefix(l.Origin, "rekor.sigstore.dev - "):
		return fmt.Sprintf("https://search.sigstore.dev/?logIndex=%d", l.Global(idx))
	case l.API == monitor.V1:
		return fmt.Sprintf("%s/api/v1/log/entries?logIndex=%d", base, l.Global(idx))
	}
	return fmt.Sprintf("%s/tile/entries/%s#%d", base, tilePath(idx/256), idx%256)
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
	return &LogRef{Origin: s.Log.Origin, Index: s.Leaf.Index, Global: s.Log.Global(s.Leaf.Index), Link: link(s.Log, s.Leaf.Index)}
}

func seen(s *index.Signer) *Seen {
	return &Seen{Publisher: s.Publisher(), SAN: s.SAN, Ref: s.Get(index.ExtSourceRepositoryRef), Commit: s.Get(index.ExtSourceRepositoryDigest),
		Trigger: s.Get(index.ExtBuildTrigger), Runner: s.Get(index.ExtRunnerEnvironment), Run: s.Get(index.ExtRunInvocationURI),
		NotBefore: s.NotBefore, NotAfter: s.NotAfter}
}

func times(f *index.File, s index.Stored) []Time {
	var t []Time
	if s.Signer != nil {
		t = append(t, Time{"certificate issued", "certificate authority", s.Signer.NotBefore})
	}
	if s.SETValid {
		t = append(t, Time{"logged", "log (signed entry timestamp)", time.Unix(s.Leaf.IntegratedTime, 0).UTC()})
	}
	t = append(t, Time{"covered by a head that we saw", "sigtrail", s.Head.Seen.UTC()})
	if !f.Uploaded.IsZero() {
		t = append(t, Time{"uploaded", "PyPI", f.Uploaded})
	}
	return t
}
