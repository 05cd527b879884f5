package index

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// A FileState is a file with how its provenance and its entries stand.
type FileState struct {
	File
	Provenance ProvenanceState
	Fetched    time.Time // zero: never
	Tries      int
	Error      string // why it is pending, refused or unreadable
	Publishers []TrustedPublisher
	Entries    int // bound to it
}

const fileStateColumns = fileColumns + `, v.state, v.fetched, v.tries, v.error, (SELECT count(DISTINCT b.entry_id) FROM bindings b WHERE b.file_id = f.id)`

func (s *Store) fileStates(ctx context.Context, rest string, args ...any) ([]FileState, error) {
	var files []FileState
	err := s.each(ctx, `SELECT `+fileStateColumns+` FROM files f JOIN projects p ON p.id = f.project_id JOIN provenance v ON v.file_id = f.id `+rest, args, func(scan scan) error {
		var r fileRow
		var f FileState
		var fetched sql.NullInt64
		if err := scan(append(r.dest(), &f.Provenance, &fetched, &f.Tries, &f.Error, &f.Entries)...); err != nil {
			return err
		}
		var err error
		f.File, err = r.value()
		f.Fetched = timeOf(fetched)
		files = append(files, f)
		return err
	})
	for i := range files {
		if err != nil {
			break
		}
		err = s.each(ctx, `SELECT DISTINCT publisher FROM provenance_leaves WHERE file_id = ? ORDER BY publisher`, []any{int64(files[i].ID)}, func(scan scan) error {
			var object string
			err := scan(&object)
			files[i].Publishers = append(files[i].Publishers, ReadTrustedPublisher(object))
			return err
		})
	}
	if err != nil {
		return nil, s.fail("reading files", err)
	}
	return files, nil
}

// A FileKey says where a page of a project's files begins: after this one. Two files
// of one name have other contents.
type FileKey struct {
	Name   string
	SHA256 [32]byte
}

// FileStates returns a page of the files of a project of an index, "" for PyPI, in the
// order of their names: those after a key, at most limit; of one version unless that is
// "".
func (s *Store) FileStates(ctx context.Context, index, project, version string, after FileKey, limit int) ([]FileState, error) {
	return s.fileStates(ctx, `WHERE p.index_id = (SELECT id FROM indexes WHERE name = ?1) AND p.name = ?2 AND (f.filename, f.sha256) > (?3, ?4) AND ?5 IN ('', f.version)
		ORDER BY f.filename, f.sha256 LIMIT ?6`, orPyPI(index), project, after.Name, after.SHA256[:], version, limit)
}

// FilesOf returns every file with a SHA-256: the same bytes may be there under several
// names and in several indexes. At most limit, by their names.
func (s *Store) FilesOf(ctx context.Context, sha256 [32]byte, limit int) ([]FileState, error) {
	return s.fileStates(ctx, `WHERE f.sha256 = ? ORDER BY f.filename, p.index_id LIMIT ?`, sha256[:], limit)
}

// ProvenanceBody returns a file's provenance object byte for byte; nil if none is kept.
func (s *Store) ProvenanceBody(ctx context.Context, file FileID) ([]byte, error) {
	var body []byte
	err := s.db.QueryRowContext(ctx, `SELECT body FROM provenance WHERE file_id = ?`, int64(file)).Scan(&body)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, s.fail("reading a provenance", err)
	}
	return body, nil
}

// An AlertKey says where a page of alerts begins: before this one. The zero value is
// the beginning.
type AlertKey struct {
	Raised int64 // microseconds
	ID     string
}

// AlertPage returns the alerts about a project of an index, "" for PyPI, or all of them
// for project "", the newest first: those before a key, at most limit.
func (s *Store) AlertPage(ctx context.Context, index, project string, before AlertKey, limit int) ([]Alert, error) {
	var page []Alert
	err := s.each(ctx, `SELECT `+alertColumns+` FROM (SELECT id FROM alerts WHERE (?1 = '' OR project = ?1 AND index_name = ?2) AND (?3 = 0 OR (raised, id) < (?3, ?4))
			ORDER BY raised DESC, id DESC LIMIT ?5) k JOIN alerts a ON a.id = k.id ORDER BY a.raised DESC, a.id DESC`, []any{project, index, before.Raised, before.ID, limit}, func(scan scan) error {
		var a Alert
		var raised sql.NullInt64
		if err := scan(alertDest(&a, &raised)...); err != nil {
			return err
		}
		a.Raised = timeOf(raised)
		page = append(page, a)
		return nil
	})
	if err != nil {
		return nil, s.fail("reading alerts", err)
	}
	return page, nil
}

// RecentJournal returns the newest journal rows about a project of an index, "" for
// PyPI, the newest first: of roles alone, or all.
func (s *Store) RecentJournal(ctx context.Context, index, project string, roles bool, limit int) ([]JournalRow, error) {
	var rows []JournalRow
	err := s.each(ctx, `SELECT j.serial, j.name, j.version, j.at, j.action FROM journal j WHERE j.project = ?1 AND j.index_id = (SELECT id FROM indexes WHERE name = ?2)
		AND (NOT ?3 OR j.version IS NULL AND (j.action LIKE 'add %' OR j.action LIKE 'remove %' OR j.action LIKE 'accepted %' OR j.action LIKE '%invite %') AND j.action <> 'remove project')
		ORDER BY j.serial DESC LIMIT ?4`, []any{project, orPyPI(index), roles, limit}, func(scan scan) error {
		r := JournalRow{Project: project}
		var version sql.NullString
		var at sql.NullInt64
		err := scan(&r.Serial, &r.Name, &version, &at, &r.Action)
		if version.Valid {
			r.Version = &version.String
		}
		r.At = timeOf(at)
		rows = append(rows, r)
		return err
	})
	if err != nil {
		return nil, s.fail("reading the journal", err)
	}
	return rows, nil
}
