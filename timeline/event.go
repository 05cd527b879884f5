// Package timeline puts what is known about a release in order. Every event names
// the clock that its time comes from; clocks are compared, never merged: inside
// one log, the index decides the order.
package timeline

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigtrail/index"
	"sigtrail/monitor"
)

// Clocks, by whose word a time is known.
const (
	ClockCertificate = "certificate" // the certificate authority's, signed
	ClockLog         = "log"         // v1 signed entry timestamp, verified
	ClockPyPI        = "PyPI"        // nothing signs it
	ClockOurs        = "sigtrail"    // when the monitor saw it
	// ClockSeen is our own clock at an answer of the package index. It happened before.
	ClockSeen = ClockPyPI + seenByUs
	ClockNone = "none" // no clock: bounds only

	seenByUs = ", seen"
)

// An Event is one thing that happened, as JSON lines give it (sigtrail.event/1).
type Event struct {
	Schema string     `json:"schema"`
	At     *time.Time `json:"at,omitempty"`     // absent: only bounds are known
	After  *time.Time `json:"after,omitempty"`  // not before
	Before *time.Time `json:"before,omitempty"` // not after
	Clock  string     `json:"clock"`
	Kind   string     `json:"kind"`
	Text   string     `json:"text"`

	PackageIndex string `json:"package_index,omitempty"` // by its configured name; absent: PyPI

	Project string `json:"project,omitempty"`
	Version string `json:"version,omitempty"`
	File    string `json:"file,omitempty"`

	Log       string           `json:"log,omitempty"`
	Index     *uint64          `json:"index,omitempty"`        // in the tree
	Global    *uint64          `json:"global_index,omitempty"` // what links use
	Evidence  []index.Evidence `json:"evidence,omitempty"`
	Publisher *index.Publisher `json:"publisher,omitempty"`
	Expected  *bool            `json:"expected,omitempty"` // a pin knows the publisher
	Trusted   *bool            `json:"trusted,omitempty"`  // the certificate leads to the trusted root
	Severity  string           `json:"severity,omitempty"`
	Note      string           `json:"note,omitempty"`

	order time.Time // where it stands: At, or the bound that is known
}

func at(t time.Time) *time.Time { t = t.UTC().Truncate(time.Millisecond); return &t }

// gather collects the events of files, unordered.
func gather(ctx context.Context, store *index.Store, files []index.File) ([]Event, error) {
	var events []Event
	pins := make(map[string][]index.Pin)
	for _, f := range files {
		from := len(events)
		project := index.Qualified(f.Index, f.Project)
		if _, ok := pins[project]; !ok {
			var err error
			if pins[project], err = store.Pins(ctx, f.Index, f.Project); err != nil {
				return nil, err
			}
		}
		state, fetched, err := store.ProvenanceOf(ctx, f.ID)
		if err != nil {
			return nil, err
		}
		events = append(events, fileEvents(f, state, fetched)...)
		if state == index.ProvenancePresent {
			e, err := verdictEvent(ctx, store, f, fetched)
			if err != nil {
				return nil, err
			}
			events = append(events, e)
		}
		signatures, err := store.Signatures(ctx, f.ID)
		if err != nil {
			return nil, err
		}
		issued := make(map[[32]byte]bool) // one certificate may be logged in several places
		for _, b := range signatures {
			more := signatureEvents(f, b, pins[project])
			if s := b[0].Entry.Signer; s != nil {
				if issued[s.Fingerprint] {
					more = more[1:]
				}
				issued[s.Fingerprint] = true
			}
			events = append(events, more...)
		}
		on(f.Index, events[from:])
	}
	more, err := seenEvents(ctx, store, files)
	if err != nil {
		return nil, err
	}
	events = append(events, more...)
	more, err = projectEvents(ctx, store, files)
	return append(events, more...), err
}

// on says which package index events are of. Its own times have its own clock.
func on(name string, events []Event) {
	for i := range events {
		e := &events[i]
		e.PackageIndex = name
		switch {
		case name == "":
		case e.Clock == ClockPyPI:
			e.Clock = name
		case e.Clock == ClockSeen:
			e.Clock = name + seenByUs
		}
	}
}

func fileEvents(f index.File, state index.ProvenanceState, fetched time.Time) []Event {
	event := func(t time.Time, clock, kind, text string) Event {
		return Event{At: at(t), Clock: clock, Kind: kind, Text: text, Project: f.Project, Version: f.Version, File: f.Name}
	}
	var out []Event
	provenance := "without provenance"
	if f.ProvenanceURL != "" {
		provenance = "with provenance"
	}
	if !f.Uploaded.IsZero() {
		out = append(out, event(f.Uploaded, ClockPyPI, "uploaded", "uploaded "+provenance))
	}
	switch state {
	case index.ProvenancePending, index.ProvenanceRefused, index.ProvenanceUnreadable:
		if !fetched.IsZero() {
			out = append(out, event(fetched, ClockOurs, "provenance", "provenance: "+string(state)))
		}
	}
	return out
}

// signatureEvents are the events of one entry bound to a file.
func signatureEvents(f index.File, bindings []index.Binding, pins []index.Pin) []Event {
	e := bindings[0].Entry
	idx, global := e.Leaf.Index, e.Log.Global(e.Leaf.Index)
	base := Event{Project: f.Project, Version: f.Version, File: f.Name}
	for _, b := range bindings {
		base.Evidence = append(base.Evidence, b.Evidence)
	}
	who := "a bare key"
	if e.Signer != nil {
		p := e.Signer.Publisher()
		trusted, known := e.Trust == "", false
		for _, pin := range pins {
			known = known || pin.Publisher.Same(p) && (pin.State == index.PinLearned || pin.State == index.PinApproved)
		}
		base.Publisher, base.Trusted, base.Expected = &p, &trusted, &known
		who = p.String()
		if len(pins) == 0 {
			base.Expected = nil
		}
		switch {
		case !trusted:
			base.Note = "certificate not trusted: " + e.Trust
		case bindings[0].Evidence == index.BySubject:
			base.Note = "candidate: only the search index names this entry"
		case bindings[0].Signature != "" && bindings[0].Evidence == index.ByStatement:
			base.Note = "signature: " + bindings[0].Signature
		case len(pins) > 0 && !known:
			base.Note = "not a pinned publisher"
		}
	}
	var out []Event
	if e.Signer != nil {
		c := base
		c.At, c.Clock, c.Kind, c.Text = at(e.Signer.NotBefore), ClockCertificate, "certificate-issued", "certificate issued to "+who
		out = append(out, c)
	}
	logged := base
	logged.Log, logged.Index, logged.Global, logged.Kind = e.Log.Origin, &idx, &global, "logged"
	logged.Text = fmt.Sprintf("entry %d, signed by %s", global, who)
	switch {
	case e.SETValid:
		logged.At, logged.Clock = at(time.Unix(e.Leaf.IntegratedTime, 0)), ClockLog
	default:
		logged.Clock = ClockNone
		logged.Before = at(e.Head.Seen)
		if e.Signer != nil {
			logged.After = at(e.Signer.NotBefore)
		}
		if e.Log.API == monitor.V1 {
			logged.Note = strings.Trim(logged.Note+"; the log's time does not verify", "; ")
		}
	}
	covered := base
	covered.At, covered.Clock, covered.Kind, covered.Log, covered.Index, covered.Global, covered.Note = at(e.Head.Seen), ClockOurs, "covered", e.Log.Origin, &idx, &global, ""
	covered.Text = fmt.Sprintf("entry %d first covered by a head that we saw, size %d", global, e.Head.Size)
	return append(out, logged, covered)
}

// projectEvents are journal rows and alerts about the projects and versions of the
// files.
func projectEvents(ctx context.Context, store *index.Store, files []index.File) ([]Event, error) {
	type project struct{ index, name string }
	versions := make(map[project][]string)
	for _, f := range files {
		p := project{f.Index, f.Project}
		versions[p] = append(versions[p], f.Version)
	}
	var out []Event
	for p, selected := range versions {
		from := len(out)
		rows, err := store.Journal(ctx, p.index, p.name)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			e := Event{At: at(r.At), Clock: ClockPyPI, Kind: "journal", Text: "journal: " + r.Action, Project: p.name}
			if r.Version != nil {
				if !slices.Contains(selected, *r.Version) {
					continue
				}
				e.Version = *r.Version
			}
			out = append(out, e)
		}
		alerts, err := store.Alerts(ctx, p.index, p.name)
		if err != nil {
			return nil, err
		}
		for _, a := range alerts {
			if a.Version == "" || slices.Contains(selected, a.Version) {
				out = append(out, alertEvent(a))
			}
		}
		candidates, _, err := store.Candidates(ctx, p.index, p.name, time.Time{}, maxCandidates)
		if err != nil {
			return nil, err
		}
		for _, c := range candidates {
			out = append(out, candidateEvent(p.name, c))
		}
		on(p.index, out[from:])
	}
	return out, nil
}

// maxCandidates bounds the candidates shown of a project: one repository may sign
// many packages. The newest are shown.
const maxCandidates = 50

// candidateEvent is an entry of a publisher of the project that no file is known for.
func candidateEvent(project string, c index.Candidate) Event {
	global := c.Log.Global(c.Index)
	e := Event{Kind: "candidate", Project: project, Log: c.Log.Origin, Index: &c.Index, Global: &global,
		Text:     fmt.Sprintf("candidate: entry %d over no known file, its certificate (not checked) says %s", global, c.Publisher),
		Evidence: []index.Evidence{index.ByPublisher}, Publisher: &c.Publisher}
	switch {
	case c.SignedAt.IsZero():
		e.Clock, e.Before = ClockNone, at(c.Seen)
	case c.Log.API == monitor.V1:
		e.At, e.Clock = at(c.SignedAt), ClockLog
	default:
		e.Clock, e.After, e.Before = ClockNone, at(c.SignedAt), at(c.Seen)
	}
	return e
}

func alertEvent(a index.Alert) Event {
	var body struct {
		Title   string   `json:"title"`
		Lacking []string `json:"lacking"`
	}
	text, note := "alert "+a.Rule, ""
	if json.Unmarshal(a.Body, &body) == nil && body.Title != "" {
		text += ": " + body.Title
	}
	if len(body.Lacking) > 0 {
		note = "judged without " + strings.Join(body.Lacking, "; ")
	}
	return Event{Note: note, At: at(a.Raised), Clock: ClockOurs, Kind: "alert", Text: text, Project: a.Project, Version: a.Version, Severity: a.Severity}
}

// sortEvents orders by time across clocks. Logged events of one log stay in the
// order of their indexes, whatever their times say; where a time contradicts the
// index, the event says so.
func sortEvents(events []Event) {
	for i := range events {
		e := &events[i]
		e.Schema = "sigtrail.event/1"
		switch {
		case e.At != nil:
			e.order = *e.At
		case e.After != nil:
			e.order = *e.After
		case e.Before != nil:
			e.order = *e.Before
		}
	}
	raiseToIndexOrder(events)
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(a.order.Compare(b.order), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Log, b.Log), cmp.Compare(number(a.Index), number(b.Index)))
	})
}

// raiseToIndexOrder lets no logged event stand before one of a smaller index in
// the same log.
func raiseToIndexOrder(events []Event) {
	var logged []*Event
	for i := range events {
		if events[i].Kind == "logged" {
			logged = append(logged, &events[i])
		}
	}
	slices.SortFunc(logged, func(a, b *Event) int {
		return cmp.Or(cmp.Compare(a.Log, b.Log), cmp.Compare(*a.Index, *b.Index))
	})
	for i := 1; i < len(logged); i++ {
		before, e := logged[i-1], logged[i]
		if before.Log == e.Log && e.order.Before(before.order) {
			e.order = before.order
			if e.At != nil && before.At != nil {
				e.Note = strings.TrimPrefix(e.Note+"; its time is before that of a smaller index", "; ")
			}
		}
	}
}

// rank orders what happened at the same moment as it must have happened.
func rank(e Event) int {
	kind := e.Kind
	if strings.HasSuffix(e.Clock, seenByUs) {
		kind = "seen"
	}
	return slices.Index([]string{"certificate-issued", "logged", "candidate", "journal", "uploaded", "covered", "seen", "provenance", "alert"}, kind)
}

func number(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}
