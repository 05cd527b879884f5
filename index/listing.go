package index

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// secondLook is how far apart two looks have to be for the second to count. An
// index gives old copies of its answers for some seconds after a change.
const secondLook = time.Minute

// SaveListing stores what the index lists of a project, and every change in it as an
// event, in one transaction. It returns the files that are new here.
//
// A listing older than the stored one is a stale cache's and changes nothing. One of
// the same serial that says something else is of an index that contradicts itself:
// its new files are kept at once, the rest counts when it says the same again, a
// minute later. Without serials the same holds for files that are missing. Files of a
// quarantined project or release are hidden, which is no removal.
func (c *Catalogue) SaveListing(ctx context.Context, l Listing) (fresh []File, err error) {
	err = c.s.write(ctx, "storing the files of "+l.Project, func(t *tx) error {
		fresh = nil
		p, err := t.project(c.id, l.Project, l.Fetched)
		if err != nil {
			return err
		}
		if l.Serial != 0 && l.Serial < p.serial {
			c.s.log.DebugContext(ctx, "ignoring a stale listing", "index", orPyPI(c.name), "project", l.Project, "serial", l.Serial, "stored", p.serial)
			return nil
		}
		s := &sighting{catalogue: c, t: t, project: p, listing: l, since: p.serial, sure: l.Removed || l.Serial > p.serial}
		t.then(func() { c.s.turns.tell(p.id) })
		fresh, err = s.save()
		return err
	})
	if err != nil {
		return nil, err
	}
	return fresh, nil
}

// A sighting is a listing on its way into the tables.
type sighting struct {
	catalogue *Catalogue
	t         *tx
	project   projectRow
	listing   Listing
	first     time.Time // of the look before that showed the same; zero: none
	sure      bool      // what is missing is missing: no second look is needed
	since     int64     // serial of the oldest listing that is compared with
	reasons   []reason
}

// difference is what a listing says otherwise than the tables.
type difference struct {
	fresh    []File
	replaced map[fileKey]File // of fresh files: another file that had the name
	changed  []change
	missing  []File // neither listed nor gone
	lost     int    // of missing, those that were listed before
	unlisted map[FileID]unlistedRow
	status   string // the new one
	restated bool   // the status changes
}

type change struct{ old, new File }

// unlistedRow is a file that the last listing lacked already.
type unlistedRow struct {
	first  time.Time
	since  int64
	hidden bool
}

func (s *sighting) save() ([]File, error) {
	d, err := s.compare()
	if err != nil {
		return nil, err
	}
	exists, said, err := s.t.existence(s.project.id)
	if err != nil {
		return nil, err
	}
	if !s.sure && s.listing.Serial != 0 && (len(d.changed) > 0 || d.lost > 0 || d.restated) {
		if s.first, s.sure, err = s.secondLook(); err != nil {
			return nil, err
		}
		if !s.sure {
			return s.add(d)
		}
	}
	if _, err := s.t.exec(`DELETE FROM listing_doubts WHERE project_id = ?`, s.project.id); err != nil {
		return nil, err
	}
	switch removed := exists == EventProjectRemoved; {
	case s.listing.Removed && !removed:
		err = s.event(File{}, pypiEvent{version: new(string), kind: EventProjectRemoved})
	case removed && len(s.listing.Files) > 0 && (s.listing.Serial == 0 || s.listing.Serial > said):
		err = s.event(File{}, pypiEvent{version: new(string), kind: EventProjectCreatedAgain})
	}
	if err != nil {
		return nil, err
	}
	fresh, err := s.add(d)
	if err != nil {
		return nil, err
	}
	for _, ch := range d.changed {
		if err := s.change(ch, d); err != nil {
			return nil, fmt.Errorf("file %s: %w", ch.new.Name, err)
		}
	}
	for _, f := range d.missing {
		if err := s.missing(f, d); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Name, err)
		}
	}
	if d.restated {
		if err := s.event(File{}, pypiEvent{version: new(string), kind: EventStatus, before: given(s.project.status), after: given(d.status)}); err != nil {
			return nil, err
		}
	}
	_, err = s.t.exec(`UPDATE projects SET serial = max(serial, ?), status = ?, listed = coalesce(listed, ?) WHERE id = ?`,
		s.listing.Serial, d.status, sql.NullInt64{Int64: s.listing.Fetched.UnixMicro(), Valid: !s.hidden()}, s.project.id)
	return fresh, err
}

// hidden reports whether the list is empty because the project is quarantined.
func (s *sighting) hidden() bool {
	return s.listing.Status == "quarantined" && len(s.listing.Files) == 0
}

// compare holds the listing against what is stored.
func (s *sighting) compare() (d difference, err error) {
	d.status = s.listing.Status
	if s.listing.Removed {
		d.status = s.project.status
	}
	// No status means active (PEP 792).
	d.restated = cmp.Or(d.status, "active") != cmp.Or(s.project.status, "active")
	if s.hidden() {
		return d, nil
	}
	stored, err := s.t.files(s.project.id)
	if err != nil {
		return d, err
	}
	if d.unlisted, err = s.t.unlisted(s.project.id); err != nil {
		return d, err
	}
	for _, u := range d.unlisted {
		s.since = min(s.since, u.since)
	}
	d.replaced = make(map[fileKey]File)
	named := make(map[string]File, len(stored))
	for _, f := range stored {
		if other, ok := named[f.Name]; !ok || f.ID > other.ID {
			named[f.Name] = f
		}
	}
	listed := make(map[fileKey]bool, len(s.listing.Files))
	for _, f := range s.listing.Files {
		key := fileKey{f.Name, f.SHA256}
		if listed[key] {
			continue
		}
		listed[key] = true
		f.Index, f.Project = s.catalogue.name, s.listing.Project
		old, ok := stored[key]
		if !ok {
			if other, ok := named[f.Name]; ok {
				d.replaced[key] = other
			}
			d.fresh = append(d.fresh, f)
			continue
		}
		if f.Uploaded.IsZero() {
			f.Uploaded = old.Uploaded // once known, it stays known
		}
		if _, away := d.unlisted[old.ID]; away || !old.same(f) {
			d.changed = append(d.changed, change{old, f})
		}
	}
	for key, f := range stored {
		if listed[key] || !f.Gone.IsZero() {
			continue
		}
		d.missing = append(d.missing, f)
		if !d.unlisted[f.ID].hidden {
			d.lost++
		}
	}
	slices.SortFunc(d.missing, func(a, b File) int { return cmp.Compare(a.ID, b.ID) })
	return d, nil
}

// same reports whether nothing changes about a stored file that is listed as g.
func (f File) same(g File) bool {
	return f.Version == g.Version && f.Size == g.Size && f.Uploaded.UnixMicro() == g.Uploaded.UnixMicro() && f.URL == g.URL &&
		f.ProvenanceURL == g.ProvenanceURL && equal(f.Yanked, g.Yanked) && f.Gone.IsZero()
}

func equal(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func (t *tx) unlisted(project int64) (map[FileID]unlistedRow, error) {
	rows := make(map[FileID]unlistedRow)
	err := t.each(`SELECT file_id, first, since, hidden FROM unlisted WHERE project_id = ?`, []any{project}, func(scan scan) error {
		var id FileID
		var u unlistedRow
		var first int64
		err := scan(&id, &first, &u.since, &u.hidden)
		u.first = time.UnixMicro(first).UTC()
		rows[id] = u
		return err
	})
	return rows, err
}

// secondLook reports whether a listing that should not differ says for the second
// time what it says, and since when. If not, it makes a note of the first.
func (s *sighting) secondLook() (first time.Time, sure bool, err error) {
	digest, err := s.listing.digest()
	if err != nil {
		return first, false, err
	}
	at := s.listing.Fetched
	var noted []byte
	var micros, looks int64
	switch err := s.t.get(`SELECT digest, first, looks FROM listing_doubts WHERE project_id = ?`, []any{s.project.id}, &noted, &micros, &looks); {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return first, false, err
	case string(noted) == string(digest[:]):
		first = time.UnixMicro(micros).UTC()
		return first, at.Sub(first) >= secondLook, nil
	}
	// One that says something else each time is asked less and less.
	pause := min(secondLook<<min(looks, 10), time.Hour)
	_, err = s.t.exec(`INSERT INTO listing_doubts (project_id, digest, first, looks, due) VALUES (?, ?, ?, 1, ?)
		ON CONFLICT (project_id) DO UPDATE SET digest = excluded.digest, first = excluded.first, looks = looks + 1, due = excluded.due`,
		s.project.id, digest[:], at.UnixMicro(), at.Add(pause).UnixMicro())
	return first, false, err
}

// digest is of all that a listing says, whatever the order of its files.
func (l Listing) digest() ([32]byte, error) {
	files := slices.Clone(l.Files)
	slices.SortFunc(files, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.SHA256[:], b.SHA256[:]))
	})
	text, err := json.Marshal(Listing{Project: l.Project, Serial: l.Serial, Status: l.Status, Removed: l.Removed, Files: files})
	return sha256.Sum256(text), err
}

// SecondLook is when a project's listing is to be read again, and not out of a cache
// (no If-None-Match with its tag), because what it said last has to be seen a second
// time; the zero time if it has not.
func (c *Catalogue) SecondLook(ctx context.Context, project string) (time.Time, error) {
	var due sql.NullInt64
	err := c.s.db.QueryRowContext(ctx, `SELECT min(due) FROM (
			SELECT d.due FROM listing_doubts d JOIN projects p ON p.id = d.project_id WHERE p.index_id = ?1 AND p.name = ?2
			UNION ALL SELECT min(u.first) + ?3 FROM unlisted u JOIN projects p ON p.id = u.project_id WHERE p.index_id = ?1 AND p.name = ?2 AND u.hidden = 0)`,
		c.id, project, secondLook.Microseconds()).Scan(&due)
	if err != nil {
		return time.Time{}, c.s.fail("reading whether a listing is in doubt", err)
	}
	return timeOf(due), nil
}

// event records what this listing shows of a file, or of the project.
func (s *sighting) event(f File, e pypiEvent) (err error) {
	e.file = f.ID
	e.at, e.source, e.serial = s.listing.Fetched, FromListing, s.listing.Serial
	if e.since == 0 {
		e.since = s.project.serial
	}
	if e.first.IsZero() {
		e.first = s.first
	}
	if e.journal == 0 {
		if e.journal, err = s.why(claim{e.kind, f.Version, f.Name, e.before, e.after}, e.since); err != nil {
			return err
		}
	}
	return s.t.record(s.project.id, e)
}

// add stores the files that are new.
func (s *sighting) add(d difference) (fresh []File, err error) {
	for _, f := range d.fresh {
		f.FirstSeen, f.FirstListing, f.Gone = s.listing.Fetched, !s.project.listed, time.Time{}
		if f.ID, err = s.catalogue.s.addFile(s.t, s.project.id, f); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Name, err)
		}
		if err := s.event(f, pypiEvent{kind: EventFileListed}); err != nil {
			return nil, err
		}
		if other, ok := d.replaced[fileKey{f.Name, f.SHA256}]; ok {
			before, after := fmt.Sprintf("%x", other.SHA256), fmt.Sprintf("%x", f.SHA256)
			if err := s.event(f, pypiEvent{kind: EventSHA256, before: &before, after: &after}); err != nil {
				return nil, err
			}
		}
		if err := s.told(File{Version: f.Version, Size: f.Size, URL: f.URL, Uploaded: f.Uploaded}, f); err != nil {
			return nil, err
		}
		fresh = append(fresh, f)
	}
	return fresh, nil
}

// change writes what a listing says otherwise of a stored file.
func (s *sighting) change(ch change, d difference) error {
	old, f := ch.old, ch.new
	f.ID = old.ID
	away, unlisted := d.unlisted[old.ID]
	if unlisted {
		if _, err := s.t.exec(`DELETE FROM unlisted WHERE project_id = ? AND file_id = ?`, s.project.id, int64(old.ID)); err != nil {
			return err
		}
	}
	if !old.Gone.IsZero() || away.hidden {
		if err := s.event(f, pypiEvent{kind: EventRestored}); err != nil {
			return err
		}
	}
	if old.same(f) {
		return nil
	}
	if _, err := s.t.exec(`UPDATE files SET version = ?, size = ?, uploaded = ?, url = ?, provenance_url = ?, yanked = ?, gone = NULL WHERE id = ?`,
		f.Version, f.Size, micros(f.Uploaded), f.URL, null(f.ProvenanceURL), f.Yanked, old.ID); err != nil {
		return err
	}
	if err := s.told(old, f); err != nil {
		return err
	}
	if old.ProvenanceURL == f.ProvenanceURL && old.Gone.IsZero() {
		return nil
	}
	return s.t.askAgain(f, s.listing.Fetched)
}

// told records what is said otherwise of a file.
func (s *sighting) told(old, f File) error {
	type text struct {
		kind          EventKind
		before, after *string
	}
	var all []text
	switch {
	case old.Yanked == nil && f.Yanked != nil:
		all = append(all, text{EventYanked, nil, f.Yanked})
	case old.Yanked != nil && f.Yanked == nil:
		all = append(all, text{EventUnyanked, old.Yanked, nil})
	case !equal(old.Yanked, f.Yanked):
		all = append(all, text{EventYankReason, old.Yanked, f.Yanked})
	}
	differ := func(kind EventKind, before, after string) {
		if before != after {
			all = append(all, text{kind, given(before), given(after)})
		}
	}
	differ(EventVersion, old.Version, f.Version)
	differ(EventURL, old.URL, f.URL)
	differ(EventSize, strconv.FormatInt(old.Size, 10), strconv.FormatInt(f.Size, 10))
	differ(EventUploadTime, stamp(old.Uploaded), stamp(f.Uploaded))
	if f.ProvenanceURL == "" {
		differ(EventProvenanceWithdrawn, old.ProvenanceURL, "")
	} else {
		differ(EventProvenanceNamed, old.ProvenanceURL, f.ProvenanceURL)
	}
	for _, x := range all {
		if err := s.event(f, pypiEvent{kind: x.kind, before: x.before, after: x.after}); err != nil {
			return err
		}
	}
	return nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// missing dates the absence of a stored file from the list.
func (s *sighting) missing(f File, d difference) error {
	u, before := d.unlisted[f.ID]
	if !before {
		u = unlistedRow{first: s.listing.Fetched, since: s.project.serial}
		if !s.first.IsZero() {
			u.first = s.first
		}
	}
	removal, quarantined, err := s.absence(f, u.since)
	if err != nil {
		return err
	}
	sure := s.sure || s.listing.Fetched.Sub(u.first) >= secondLook
	switch {
	case removal == 0 && quarantined != 0:
		if u.hidden {
			return nil
		}
		if err := s.event(f, pypiEvent{kind: EventHidden, since: u.since, journal: quarantined}); err != nil {
			return err
		}
		return s.t.setUnlisted(s.project.id, f.ID, u, true)
	case removal == 0 && !sure:
		if before {
			return nil
		}
		return s.t.setUnlisted(s.project.id, f.ID, u, false)
	}
	e := pypiEvent{kind: EventRemoved, since: u.since, journal: removal}
	if u.first.Before(s.listing.Fetched) {
		e.first = u.first
	}
	if err := s.event(f, e); err != nil {
		return err
	}
	if _, err := s.t.exec(`DELETE FROM unlisted WHERE project_id = ? AND file_id = ?`, s.project.id, int64(f.ID)); err != nil {
		return err
	}
	_, err = s.t.exec(`UPDATE files SET gone = ? WHERE id = ?`, u.first.UnixMicro(), int64(f.ID))
	return err
}

func (t *tx) setUnlisted(project int64, f FileID, u unlistedRow, hidden bool) error {
	_, err := t.exec(`INSERT INTO unlisted (project_id, file_id, first, since, hidden) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (project_id, file_id) DO UPDATE SET hidden = excluded.hidden`, project, int64(f), u.first.UnixMicro(), u.since, hidden)
	return err
}

// existence returns the last that was said about whether a project is there, and the
// serial of that.
func (t *tx) existence(project int64) (kind EventKind, serial int64, err error) {
	err = t.get(`SELECT kind, serial FROM pypi_events WHERE project_id = ? AND `+explainable+` AND kind IN ('project-removed', 'project-created-again')
		ORDER BY serial DESC, n DESC LIMIT 1`, []any{project}, &kind, &serial)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, nil
	}
	return kind, serial, err
}
