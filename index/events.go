package index

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// An EventKind says what happened on a package index. The words are PyPI's.
type EventKind string

const (
	EventFileListed EventKind = "file-listed"
	// EventRemoved: a file is no longer listed. Cause says by whose doing, once the
	// journal has said so.
	EventRemoved EventKind = "removed"
	// EventHidden: a file is not listed because its release is quarantined. Files of
	// a quarantined project have no event of their own.
	EventHidden EventKind = "hidden"
	// EventRestored: a file that was removed or hidden is listed again.
	EventRestored EventKind = "restored"

	EventYanked     EventKind = "yanked"              // after: the reason, maybe empty
	EventUnyanked   EventKind = "unyanked"            // before: the reason
	EventYankReason EventKind = "yank-reason-changed" // before, after

	EventURL        EventKind = "url-changed"
	EventSize       EventKind = "size-changed" // bytes
	EventUploadTime EventKind = "upload-time-changed"
	EventVersion    EventKind = "version-changed" // the index spells it another way
	// EventSHA256: a file of a name that another file had; before and after are
	// digests. PyPI promises that this does not happen.
	EventSHA256 EventKind = "sha256-changed"

	EventProvenanceNamed EventKind = "provenance-named" // after: its address; before: another one
	EventProvenanceSeen  EventKind = "provenance-seen"  // after: SHA-256 of the object
	// EventProvenanceChanged: another object than the one before, which are kept both.
	EventProvenanceChanged EventKind = "provenance-changed"
	// EventProvenanceWithdrawn: of a listed file, the listing names none any more, or
	// the integrity API does not find what the listing names.
	EventProvenanceWithdrawn EventKind = "provenance-withdrawn"

	EventStatus            EventKind = "status-changed" // of the project (PEP 792)
	EventQuarantined       EventKind = "quarantined"
	EventQuarantineCleared EventKind = "quarantine-cleared"

	EventReleaseRemoved           EventKind = "release-removed"
	EventReleaseQuarantined       EventKind = "release-quarantined"
	EventReleaseQuarantineCleared EventKind = "release-quarantine-cleared"

	EventProjectRemoved      EventKind = "project-removed"
	EventProjectCreatedAgain EventKind = "project-created-again" // Roles tells whose it is now
)

// EventSource is the part of the index's interface that showed an event.
type EventSource string

const (
	FromListing   EventSource = "listing"   // simple JSON
	FromJournal   EventSource = "journal"   // XML-RPC changelog
	FromIntegrity EventSource = "integrity" // PEP 740
)

// A PyPIEvent is a change that a package index showed. Its times are of our clock;
// the index's own, which nothing signs, is in Cause.
type PyPIEvent struct {
	N       int64  // grows within the project, in the order in which events were learned
	Index   string // name of the package index; "": PyPI
	Project string
	Version string // "": about the whole project
	FileID  FileID // 0: about a release or the project
	File    string
	SHA256  [32]byte // of File
	Kind    EventKind
	At      time.Time // of the answer that showed it
	First   time.Time // of an earlier answer that showed it too, where one was not enough; else zero
	Source  EventSource
	Serial  int64   // of the listing or journal row that showed it; 0: it had none
	Before  *string // nil: says nothing here
	After   *string
	Cause   *JournalRow // the journal's own words for it; nil: it has none, or not yet
}

// pypiEvent is an event to be stored.
type pypiEvent struct {
	file          FileID
	version       *string // nil: the file's
	kind          EventKind
	at, first     time.Time
	source        EventSource
	serial, since int64
	before, after *string
	journal       int64 // 0: none
}

// record adds an event to a project's.
func (t *tx) record(project int64, e pypiEvent) error {
	_, err := t.exec(`INSERT INTO pypi_events (project_id, n, file_id, version, kind, at, first, source, serial, since, before, after, journal)
		VALUES (?1, 1 + coalesce((SELECT max(n) FROM pypi_events WHERE project_id = ?1), 0), nullif(?2, 0), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, nullif(?12, 0))`,
		project, int64(e.file), e.version, string(e.kind), e.at.UnixMicro(), micros(e.first), string(e.source), e.serial, e.since, e.before, e.after, e.journal)
	if err != nil {
		return fmt.Errorf("event %s: %w", e.kind, err)
	}
	return nil
}

// EventQuery says which events of a project are asked for. Project is required.
type EventQuery struct {
	Index    string    // "": PyPI
	Project  string    // PEP 503
	File     FileID    // 0: all, with those about releases and the project
	From, To time.Time // by At, To not included; zero: no bound
	After    int64     // only those with a larger N: goes on after the last one read
	Limit    int       // 0: 1000
}

// Events hands out a project's events in the order in which they were learned.
func (s *Store) Events(ctx context.Context, q EventQuery, each func(PyPIEvent) error) error {
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	from, to := int64(-1<<63), int64(1<<63-1)
	if !q.From.IsZero() {
		from = q.From.UnixMicro()
	}
	if !q.To.IsZero() {
		to = q.To.UnixMicro()
	}
	err := s.each(ctx, `SELECT e.n, coalesce(e.version, f.version, ''), coalesce(f.id, 0), coalesce(f.filename, ''), f.sha256, e.kind, e.at, e.first, e.source, e.serial, e.before, e.after,
			j.serial, j.name, j.version, j.at, j.action
		FROM indexes i JOIN projects p ON p.index_id = i.id JOIN pypi_events e ON e.project_id = p.id
		LEFT JOIN files f ON f.id = e.file_id LEFT JOIN journal j ON j.index_id = i.id AND j.serial = e.journal
		WHERE i.name = ? AND p.name = ? AND e.n > ? AND (? = 0 OR e.file_id = ?) AND e.at >= ? AND e.at < ? ORDER BY e.n LIMIT ?`,
		[]any{orPyPI(q.Index), q.Project, q.After, int64(q.File), int64(q.File), from, to, q.Limit}, func(scan scan) error {
			e := PyPIEvent{Index: q.Index, Project: q.Project}
			var r eventRow
			if err := scan(&e.N, &e.Version, &e.FileID, &e.File, &r.sha256, &e.Kind, &r.at, &r.first, &e.Source, &e.Serial, &r.before, &r.after,
				&r.serial, &r.name, &r.version, &r.when, &r.action); err != nil {
				return err
			}
			if err := r.fill(&e); err != nil {
				return err
			}
			return each(e)
		})
	if err != nil {
		return s.fail("reading the events of "+q.Project, err)
	}
	return nil
}

// eventRow is what of an event may be NULL.
type eventRow struct {
	sha256                []byte
	at, first             sql.NullInt64
	before, after         sql.NullString
	serial, when          sql.NullInt64
	name, version, action sql.NullString
}

func (r *eventRow) fill(e *PyPIEvent) (err error) {
	if e.FileID != 0 {
		if e.SHA256, err = hashOf(r.sha256); err != nil {
			return err
		}
	}
	e.At, e.First, e.Before, e.After = timeOf(r.at), timeOf(r.first), text(r.before), text(r.after)
	if r.serial.Valid {
		e.Cause = &JournalRow{Serial: r.serial.Int64, Project: e.Project, Name: r.name.String, Version: text(r.version), At: timeOf(r.when), Action: r.action.String}
	}
	return nil
}

func text(s sql.NullString) *string {
	if !s.Valid {
		return nil
	}
	return &s.String
}

// given is nil for "", which before and after do not store.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// String is what happened, for people. What it quotes has to be escaped by whoever
// prints it.
func (e PyPIEvent) String() string {
	s := strings.ReplaceAll(string(e.Kind), "-", " ")
	switch {
	case e.Before != nil && e.After != nil:
		s += fmt.Sprintf(": %q, before %q", *e.After, *e.Before)
	case e.After != nil:
		s += fmt.Sprintf(": %q", *e.After)
	case e.Before != nil:
		s += fmt.Sprintf(", before %q", *e.Before)
	}
	return s
}
