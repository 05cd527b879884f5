package api

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigtrail/index"
)

// How much one answer holds, at most.
const (
	DefaultLimit = 100
	MaxLimit     = 500

	maxNames    = 20  // of projects beside each publisher
	maxUnbound  = 100 // beside a project
	maxJournal  = 20
	maxSignings = 100
	maxCopies   = 20  // files of one digest
	maxRanges   = 100 // of each log
)

// A Reader answers from a store.
type Reader struct {
	Store *index.Store
	Now   func() time.Time // nil: time.Now
}

// ErrNotFound reports that there is nothing of that name or id.
var ErrNotFound = errors.New("not found")

// ErrAsked reports a question that cannot be answered as it was put.
var ErrAsked = errors.New("cannot be asked")

// A Page says which part of a list is meant. The zero value is the beginning.
type Page struct {
	Limit int    // 0: DefaultLimit
	After string // Next of the page before
}

func (p Page) limit() (int, error) {
	if p.Limit == 0 {
		return DefaultLimit, nil
	}
	if p.Limit < 1 || p.Limit > MaxLimit {
		return 0, fmt.Errorf("%w: limit %d is not from 1 to %d", ErrAsked, p.Limit, MaxLimit)
	}
	return p.Limit, nil
}

// begin is where a page begins, read into the parts of a cursor, and how long it is.
func (p Page) begin(parts ...any) (int, error) {
	limit, err := p.limit()
	if err == nil && p.After != "" {
		err = readCursor(p.After, parts...)
	}
	return limit, err
}

// cut takes the one row too many off a page that was asked for with limit+1 rows.
func cut[T any](rows []T, limit int, cursor func(last T) string) ([]T, string) {
	if len(rows) <= limit {
		return rows, ""
	}
	return rows[:limit], cursor(rows[limit-1])
}

// indexNamed is the name of a package index for people.
func indexNamed(name string) string {
	if name == "" {
		return index.PyPI
	}
	return name
}

func indexStored(name string) string {
	if name == index.PyPI {
		return ""
	}
	return name
}

func (r Reader) extent(ctx context.Context) (Extent, error) {
	x := Extent{Logs: []LogExtent{}, Indexes: []IndexExtent{}}
	logs, err := r.Store.LogExtents(ctx)
	if err != nil {
		return x, err
	}
	for _, l := range logs {
		x.Logs = append(x.Logs, newLogExtent(l))
	}
	indexes, err := r.Store.IndexExtents(ctx)
	for _, i := range indexes {
		x.Indexes = append(x.Indexes, IndexExtent{indexNamed(i.Name), i.Serial})
	}
	return x, err
}

func newLogExtent(l index.LogExtent) LogExtent {
	x := LogExtent{Origin: l.Log.Origin, Size: l.Size, Seen: by(clockOf.ours, l.Seen), How: "looked-up", Conflict: l.Conflict}
	if l.Next != nil {
		x.How, x.From, x.To = "read", &l.Began, l.Next
	}
	return x
}

// Projects returns a page of the projects of an index, or of all of them for "".
func (r Reader) Projects(ctx context.Context, of string, p Page) (Projects, error) {
	a := Projects{Schema: "sigtrail.projects/1", Projects: []Project{}}
	var after index.ProjectKey
	limit, err := p.begin(&after.Index, &after.Project)
	if err != nil {
		return a, err
	}
	var only *string
	if of != "" {
		name := indexStored(of)
		only = &name
	}
	page, next, err := r.Store.Overviews(ctx, only, after, limit)
	if err != nil {
		return a, err
	}
	for _, o := range page {
		a.Projects = append(a.Projects, newProject(o))
	}
	if next != nil {
		a.Next = cursor(next.Index, next.Project)
	}
	a.Extent, err = r.extent(ctx)
	return a, err
}

func newProject(o index.Overview) Project {
	p := Project{Index: indexNamed(o.Index), Name: o.Project, Status: o.Status, Listed: by(clockOf.ours, o.Listed), FirstSeen: by(clockOf.ours, o.FirstSeen), Changed: by(clockOf.ours, o.Changed),
		Serial: o.Serial, Releases: len(o.Standings), Publishers: o.Publishers, Pins: make(map[string]int), Missing: Missing(o.Missing), Unjudged: o.Unjudged, Alerts: o.Alerts}
	for state, n := range o.Pins {
		p.Pins[string(state)] = n
	}
	for _, s := range o.Standings {
		p.Gone += s.Gone
		if !s.Removed {
			p.Files += s.Files
		}
	}
	if n := len(o.Standings); n > 0 {
		latest := newRelease(o.Standings[n-1])
		p.Latest = &latest
	}
	return p
}

func newRelease(s index.Standing) Release {
	return Release{Version: s.Version, First: Time{s.First.UTC(), clockOf.index}, States: s.Words, Files: s.Files, Attested: s.Attested, Pending: s.Pending, Refused: s.Refused,
		Unreadable: s.Unreadable, Yanked: s.Yanked, Gone: s.Gone, Removed: s.Removed, Publishers: listed(s.Publishers), Compared: s.Compared}
}

// listed is a list that JSON shows as one even when it is empty.
func listed[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

// overview finds a project of an index.
func (r Reader) overview(ctx context.Context, of, name string) (index.Overview, error) {
	o, ok, err := r.Store.Overview(ctx, indexStored(of), name)
	if err == nil && !ok {
		return o, r.unknown(ctx, of, name)
	}
	return o, err
}

// unknown says that a project is not watched, and what may have been meant.
func (r Reader) unknown(ctx context.Context, of, name string) error {
	// Who has mistyped a name has usually got its beginning right.
	for n := min(len(name), 4); n >= 1; n-- {
		similar, err := r.Store.SimilarProjects(ctx, name[:n], 5)
		if err != nil {
			return err
		}
		if len(similar) > 0 {
			return fmt.Errorf("%w: project %q of %s is not watched; did you mean %s?", ErrNotFound, name, indexNamed(indexStored(of)), strings.Join(similar, ", "))
		}
	}
	return fmt.Errorf("%w: project %q of %s is not watched", ErrNotFound, name, indexNamed(indexStored(of)))
}

// Project returns what there is to know of a project (PEP 503) of an index, "" for
// PyPI: releases in pages, the first part of everything else.
func (r Reader) Project(ctx context.Context, of, name string, p Page) (ProjectDetail, error) {
	a := ProjectDetail{Schema: "sigtrail.project/1", Pins: []Pin{}, Publishers: []Publisher{}, Unbound: []Unbound{}}
	o, err := r.overview(ctx, of, name)
	if err != nil {
		return a, err
	}
	a.Project = newProject(o)
	if a.Releases, a.Next, err = releases(o, p); err != nil {
		return a, err
	}
	signings, err := r.Store.ProjectSignings(ctx, o.Index, o.Project, maxSignings)
	if err != nil {
		return a, err
	}
	for _, s := range signings {
		a.Publishers = append(a.Publishers, newPublisher(s))
	}
	pins, err := r.Store.Pins(ctx, o.Index, o.Project)
	if err != nil {
		return a, err
	}
	for _, p := range pins {
		a.Pins = append(a.Pins, Pin{p.Publisher, string(p.State), p.How, Time{p.Made.UTC(), clockOf.ours}})
	}
	unresolved, err := r.Store.Unresolved(ctx, o.Index, o.Project, maxUnbound)
	if err != nil {
		return a, err
	}
	for _, u := range unresolved {
		a.Unbound = append(a.Unbound, Unbound{string(u.Kind), u.File, u.Version, hex.EncodeToString(u.SHA256[:]), u.Where, u.Global, u.Tries, u.Error, by(clockOf.ours, u.Next)})
	}
	if a.Roles, err = r.journal(ctx, o, true); err != nil {
		return a, err
	}
	if a.Journal, err = r.journal(ctx, o, false); err != nil {
		return a, err
	}
	a.Extent, err = r.extent(ctx)
	return a, err
}

func (r Reader) journal(ctx context.Context, o index.Overview, roles bool) ([]JournalRow, error) {
	out := []JournalRow{}
	rows, err := r.Store.RecentJournal(ctx, o.Index, o.Project, roles, maxJournal)
	for _, j := range rows {
		row := JournalRow{Serial: j.Serial, At: Time{j.At.UTC(), clockOf.index}, Action: j.Action}
		if j.Version != nil {
			row.Version = *j.Version
		}
		out = append(out, row)
	}
	return out, err
}

// releases is a page of a project's releases, the newest first.
func releases(o index.Overview, p Page) ([]Release, string, error) {
	var at int64
	var version string
	limit, err := p.begin(&at, &version)
	if err != nil {
		return nil, "", err
	}
	out := []Release{}
	for _, s := range slices.Backward(o.Standings) {
		// Beyond the cursor: older, or as old and named before it.
		if first := s.First.UnixMicro(); p.After != "" && (first > at || first == at && s.Version >= version) {
			continue
		}
		out = append(out, newRelease(s))
		if len(out) > limit {
			break
		}
	}
	out, next := cut(out, limit, func(last Release) string { return cursor(last.First.At.UnixMicro(), last.Version) })
	return out, next, nil
}

// Releases returns a page of a project's releases.
func (r Reader) Releases(ctx context.Context, of, name string, p Page) (Releases, error) {
	a := Releases{Schema: "sigtrail.releases/1"}
	o, err := r.overview(ctx, of, name)
	if err != nil {
		return a, err
	}
	a.Index, a.Project = indexNamed(o.Index), o.Project
	if a.Releases, a.Next, err = releases(o, p); err != nil {
		return a, err
	}
	a.Extent, err = r.extent(ctx)
	return a, err
}

func publisherID(id int64) string { return "p" + strconv.FormatInt(id, 10) }

func newPublisher(s index.Signing) Publisher {
	p := Publisher{ID: publisherID(s.ID), Publisher: s.Publisher, Projects: s.Projects, Entries: s.Entries, Spans: []Span{}}
	for _, span := range []Span{
		{clockOf.certificate, "certificate-issued", s.SignedFirst, s.SignedLast},
		{clockOf.ours, "first-seen", s.SeenFirst, s.SeenLast},
	} {
		if !span.First.IsZero() {
			p.Spans = append(p.Spans, span)
		}
	}
	return p
}

// Publishers returns a page of the publishers that a selector names (index.Store.Signings).
func (r Reader) Publishers(ctx context.Context, selector string, p Page) (Publishers, error) {
	a := Publishers{Schema: "sigtrail.publishers/1", Publishers: []Publisher{}}
	var after int64
	limit, err := p.begin(&after)
	if err == nil && len(selector) > maxText {
		err = fmt.Errorf("%w: a selector has at most %d bytes", ErrAsked, maxText)
	}
	if err != nil {
		return a, err
	}
	all, err := r.Store.Signings(ctx, selector, after, limit+1)
	if err != nil {
		return a, err
	}
	all, a.Next = cut(all, limit, func(last index.Signing) string { return cursor(last.ID) })
	for _, s := range all {
		p, err := r.named(ctx, s)
		if err != nil {
			return a, err
		}
		a.Publishers = append(a.Publishers, p)
	}
	a.Extent, err = r.extent(ctx)
	return a, err
}

// named is a publisher with the names of its projects.
func (r Reader) named(ctx context.Context, s index.Signing) (Publisher, error) {
	p := newPublisher(s)
	var err error
	p.Names, err = r.Store.ProjectsOf(ctx, s.ID, maxNames)
	return p, err
}

// Publisher returns one publisher.
func (r Reader) Publisher(ctx context.Context, id string) (PublisherDetail, error) {
	a := PublisherDetail{Schema: "sigtrail.publisher/1"}
	n, err := readPublisherID(id)
	if err != nil {
		return a, err
	}
	s, ok, err := r.Store.SigningOf(ctx, n)
	if err != nil {
		return a, err
	}
	if !ok {
		return a, fmt.Errorf("%w: no publisher %q", ErrNotFound, id)
	}
	if a.Publisher, err = r.named(ctx, s); err != nil {
		return a, err
	}
	a.Extent, err = r.extent(ctx)
	return a, err
}

func readPublisherID(id string) (int64, error) {
	digits, ok := strings.CutPrefix(id, "p")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || publisherID(n) != id {
		return 0, fmt.Errorf("%w: %q is no publisher's id", ErrAsked, id)
	}
	return n, nil
}
