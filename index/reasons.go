package index

import (
	"database/sql"
	"strings"
	"time"

	version "github.com/aquasecurity/go-pep440-version"
)

// explainable says, in SQL, which events the journal may give a reason for; the
// index of that name goes by the same words.
const explainable = `kind IN ('removed', 'restored', 'yanked', 'unyanked', 'yank-reason-changed', 'status-changed', 'project-removed', 'project-created-again')`

const (
	actionRemoveFile     = "remove file "
	actionRemoveRelease  = "remove release"
	actionRemoveProject  = "remove project"
	actionCreate         = "create"
	actionHideRelease    = "release quarantined"
	actionShowRelease    = "release quarantine cleared"
	actionHideProject    = "project quarantined"
	actionShowProject    = "project quarantine cleared"
	actionYankRelease    = "yank release"
	actionUnyankRelease  = "unyank release"
	reasonsInSQL         = `(action IN ('remove release', 'remove project', 'create', 'release quarantined', 'release quarantine cleared', 'project quarantined', 'project quarantine cleared', 'yank release', 'unyank release') OR substr(action, 1, 12) = 'remove file ')`
	quarantineOfReleases = `action IN ('release quarantined', 'release quarantine cleared')`
)

// said is the event that a journal row makes by itself.
var said = map[string]EventKind{
	actionRemoveRelease: EventReleaseRemoved,
	actionHideRelease:   EventReleaseQuarantined,
	actionShowRelease:   EventReleaseQuarantineCleared,
	actionHideProject:   EventQuarantined,
	actionShowProject:   EventQuarantineCleared,
	actionRemoveProject: EventProjectRemoved,
	actionCreate:        EventProjectCreatedAgain,
}

// A reason is a journal row that can say why something is as a listing shows it.
type reason struct {
	serial  int64
	version string
	action  string
}

// A claim is an event that looks for its reason.
type claim struct {
	kind          EventKind
	version, file string
	before, after *string
}

func (r reason) explains(c claim) bool {
	switch c.kind {
	case EventRemoved:
		return r.removes(c.version, c.file)
	case EventRestored:
		return r.action == actionShowRelease && sameVersion(r.version, c.version)
	case EventYanked, EventYankReason:
		return r.action == actionYankRelease && sameVersion(r.version, c.version)
	case EventUnyanked:
		return r.action == actionUnyankRelease && sameVersion(r.version, c.version)
	case EventStatus:
		return r.action == actionHideProject && c.after != nil && *c.after == "quarantined" ||
			r.action == actionShowProject && c.before != nil && *c.before == "quarantined"
	case EventProjectRemoved:
		return r.action == actionRemoveProject
	case EventProjectCreatedAgain:
		return r.action == actionCreate
	}
	return false
}

// removes reports whether the row is about the removal of a file.
func (r reason) removes(version, file string) bool {
	return r.action == actionRemoveProject || r.action == actionRemoveRelease && sameVersion(r.version, version) ||
		file != "" && r.action == actionRemoveFile+file
}

// sameVersion compares as PEP 440 does, and letter by letter what is no version.
func sameVersion(a, b string) bool {
	if a == b {
		return true
	}
	va, errA := version.Parse(a)
	vb, errB := version.Parse(b)
	return errA == nil && errB == nil && va.Equal(vb)
}

// lookUp reads the journal rows that can explain this listing, once.
func (s *sighting) lookUp() ([]reason, error) {
	if s.reasons != nil || s.listing.Serial == 0 {
		return s.reasons, nil // without a serial there is no order between the two
	}
	s.reasons = []reason{}
	// +index_id: by project. By the primary key it would read what all others did.
	err := s.t.each(`SELECT serial, coalesce(version, ''), action FROM journal
		WHERE project = ? AND +index_id = ? AND serial <= ? AND (serial > ? OR `+quarantineOfReleases+`) AND `+reasonsInSQL+` ORDER BY serial`,
		[]any{s.listing.Project, s.catalogue.id, s.listing.Serial, s.since}, func(scan scan) error {
			var r reason
			err := scan(&r.serial, &r.version, &r.action)
			s.reasons = append(s.reasons, r)
			return err
		})
	return s.reasons, err
}

// why returns the serial of the newest row since the listing before that explains an
// event, 0 if there is none yet.
func (s *sighting) why(c claim, since int64) (serial int64, err error) {
	rows, err := s.lookUp()
	for _, r := range rows {
		if r.serial > since && r.explains(c) {
			serial = r.serial
		}
	}
	return serial, err
}

// absence returns the serial of the row that removes a file, the first one, and of the
// one by which its release is quarantined; each 0 if there is none.
func (s *sighting) absence(f File, since int64) (removal, quarantine int64, err error) {
	rows, err := s.lookUp()
	for _, r := range rows {
		switch {
		case r.serial > since && removal == 0 && r.removes(f.Version, f.Name):
			removal = r.serial
		case r.action == actionHideRelease && sameVersion(r.version, f.Version):
			quarantine = r.serial
		case r.action == actionShowRelease && sameVersion(r.version, f.Version):
			quarantine = 0
		}
	}
	return removal, quarantine, err
}

// tell makes an event of a journal row that is new here, and gives their reason to
// events that a listing showed before the row came.
func (t *tx) tell(index int64, row JournalRow, now time.Time) error {
	kind, says := said[row.Action]
	if !says && row.Action != actionYankRelease && row.Action != actionUnyankRelease && !strings.HasPrefix(row.Action, actionRemoveFile) {
		return nil
	}
	r := reason{serial: row.Serial, action: row.Action}
	if row.Version != nil {
		r.version = *row.Version
	}
	if row.Action == actionCreate {
		// A name's first owner says nothing.
		var again bool
		if err := t.get(`SELECT EXISTS (SELECT 1 FROM journal WHERE project = ? AND +index_id = ? AND serial < ? AND action = '`+actionRemoveProject+`')`,
			[]any{row.Project, index, row.Serial}, &again); err != nil || !again {
			return err
		}
	}
	p, err := t.project(index, row.Project, now)
	if err != nil {
		return err
	}
	explained, err := t.explain(p, r)
	if err != nil {
		return err
	}
	if err := t.removeHidden(p, r, now.UnixMicro()); err != nil {
		return err
	}
	e := pypiEvent{version: &r.version, kind: kind, at: now, source: FromJournal, serial: row.Serial, journal: row.Serial}
	if file, ok := strings.CutPrefix(row.Action, actionRemoveFile); ok {
		// A file that came and went between two listings.
		var known bool
		if err := t.get(`SELECT EXISTS (SELECT 1 FROM files WHERE project_id = ? AND filename = ?)`, []any{p.id, file}, &known); err != nil || known {
			return err
		}
		e.kind, e.before, says = EventRemoved, &file, true
	}
	if !says || explained && (kind == EventProjectRemoved || kind == EventProjectCreatedAgain) {
		return nil
	}
	return t.record(p.id, e)
}

// explain gives a row to the events that it explains. It reports whether one of them
// says the same as the row's own event would.
func (t *tx) explain(p projectRow, r reason) (same bool, err error) {
	type open struct {
		claim
		n, since, first int64
		file            FileID
		journal         sql.NullInt64
	}
	var events []open
	err = t.each(`SELECT e.n, e.since, coalesce(e.first, e.at), coalesce(e.file_id, 0), e.journal, e.kind, coalesce(e.version, f.version, ''), coalesce(f.filename, ''), e.before, e.after
		FROM pypi_events e LEFT JOIN files f ON f.id = e.file_id WHERE e.project_id = ? AND e.`+explainable+` AND e.serial >= ? AND e.since < ? AND e.source = 'listing'`,
		[]any{p.id, r.serial, r.serial}, func(scan scan) error {
			var e open
			var before, after sql.NullString
			err := scan(&e.n, &e.since, &e.first, &e.file, &e.journal, &e.kind, &e.version, &e.claim.file, &before, &after)
			e.before, e.after = text(before), text(after)
			events = append(events, e)
			return err
		})
	if err != nil {
		return false, err
	}
	for _, e := range events {
		if hides := r.action == actionHideRelease && e.kind == EventRemoved && !e.journal.Valid && sameVersion(r.version, e.version); hides {
			if err := t.hide(p.id, e.n, e.file, unlistedRow{first: timeOf(sql.NullInt64{Int64: e.first, Valid: true}), since: e.since}, r.serial); err != nil {
				return false, err
			}
			continue
		}
		if !r.explains(e.claim) {
			continue
		}
		same = same || said[r.action] == e.kind
		// A file is removed once; of the other things the last one holds.
		if e.journal.Valid && (e.kind == EventRemoved) == (e.journal.Int64 < r.serial) {
			continue
		}
		if _, err := t.exec(`UPDATE pypi_events SET journal = ? WHERE project_id = ? AND n = ?`, r.serial, p.id, e.n); err != nil {
			return false, err
		}
	}
	return same, nil
}

// hide turns what looked like a removal into what it was: a quarantined release.
func (t *tx) hide(project, n int64, file FileID, u unlistedRow, serial int64) error {
	if _, err := t.exec(`UPDATE pypi_events SET kind = 'hidden', journal = ? WHERE project_id = ? AND n = ?`, serial, project, n); err != nil {
		return err
	}
	// Unless it has been listed again since.
	changed, err := t.exec(`UPDATE files SET gone = NULL WHERE id = ? AND gone = ?`, int64(file), u.first.UnixMicro())
	if err != nil || changed == 0 {
		return err
	}
	return t.setUnlisted(project, file, u, true)
}

// removeHidden removes files that a listing as new as the row has found hidden, for
// nothing will be seen to change when they are removed.
func (t *tx) removeHidden(p projectRow, r reason, now int64) error {
	if r.serial > p.serial || r.action != actionRemoveProject && r.action != actionRemoveRelease && !strings.HasPrefix(r.action, actionRemoveFile) {
		return nil
	}
	type hidden struct {
		id            FileID
		first, since  int64
		name, version string
	}
	var files []hidden
	err := t.each(`SELECT f.id, u.first, u.since, f.filename, f.version FROM unlisted u JOIN files f ON f.id = u.file_id WHERE u.project_id = ? AND u.hidden = 1`, []any{p.id}, func(scan scan) error {
		var h hidden
		err := scan(&h.id, &h.first, &h.since, &h.name, &h.version)
		if r.serial > h.since && r.removes(h.version, h.name) {
			files = append(files, h)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, h := range files {
		at := timeOf(sql.NullInt64{Int64: now, Valid: true})
		if err := t.record(p.id, pypiEvent{file: h.id, kind: EventRemoved, at: at, source: FromJournal, serial: r.serial, since: h.since, journal: r.serial}); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM unlisted WHERE project_id = ? AND file_id = ?`, p.id, int64(h.id)); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE files SET gone = ? WHERE id = ?`, now, int64(h.id)); err != nil {
			return err
		}
	}
	return nil
}
