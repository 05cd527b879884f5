package index

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"
)

// Selection says which files are asked for. Just one way of naming them is set.
type Selection struct {
	Project  string // PEP 503
	Index    string // of the project; "": PyPI
	Filename string
	SHA256   []byte
}

// Files returns the selected files, by upload time. A file name and a digest select on
// every index.
func (s *Store) Files(ctx context.Context, by Selection) ([]File, error) {
	where, args := `p.name = ? AND p.index_id = (SELECT id FROM indexes WHERE name = ?)`, []any{by.Project, orPyPI(by.Index)}
	switch {
	case by.Filename != "":
		where, args = `f.filename = ?`, []any{by.Filename}
	case by.SHA256 != nil:
		where, args = `f.sha256 = ?`, []any{by.SHA256}
	}
	var files []File
	err := s.each(ctx, `SELECT `+fileColumns+` FROM files f JOIN projects p ON p.id = f.project_id WHERE `+where+`
		ORDER BY coalesce(f.uploaded, f.first_seen), f.id`, args, appendFile(&files))
	if err != nil {
		return nil, s.fail("reading files", err)
	}
	return files, nil
}

// Signatures returns every entry bound to a file with all its evidence, entries in
// the order of their logs, the strongest evidence of each first.
func (s *Store) Signatures(ctx context.Context, file FileID) ([][]Binding, error) {
	var ids []EntryID
	err := s.each(ctx, `SELECT DISTINCT e.id FROM bindings b JOIN entries e ON e.id = b.entry_id WHERE b.file_id = ? ORDER BY e.log_id, e.idx`, []any{int64(file)}, func(scan scan) error {
		var id EntryID
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, s.fail("reading the entries of a file", err)
	}
	var out [][]Binding
	for _, id := range ids {
		b, err := s.pairBindings(ctx, file, id)
		if err != nil {
			return nil, s.fail("reading the bindings of a file", err)
		}
		out = append(out, b)
	}
	slices.SortStableFunc(out, func(a, b []Binding) int {
		return cmp.Or(cmp.Compare(a[0].Entry.Log.Origin, b[0].Entry.Log.Origin), cmp.Compare(a[0].Entry.Leaf.Index, b[0].Entry.Leaf.Index))
	})
	return out, nil
}

// Pins returns the publishers on record for a project of an index, "" for PyPI.
func (s *Store) Pins(ctx context.Context, index, project string) ([]Pin, error) {
	var id int64
	switch err := s.db.QueryRowContext(ctx, `SELECT p.id FROM projects p JOIN indexes i ON i.id = p.index_id WHERE i.name = ? AND p.name = ?`, orPyPI(index), project).Scan(&id); {
	case err == sql.ErrNoRows:
		return nil, nil
	case err != nil:
		return nil, s.fail("reading a project", err)
	}
	pins, err := s.pins(ctx, projectID{id: id, index: index, name: project})
	if err != nil {
		return nil, s.fail("reading pins", err)
	}
	return pins, nil
}

// Journal returns the journal rows of an index, "" for PyPI, about a project, oldest
// first.
func (s *Store) Journal(ctx context.Context, index, project string) (rows []JournalRow, err error) {
	err = s.eachJournal(ctx, index, project, func(r JournalRow) error {
		rows = append(rows, r)
		return nil
	})
	return rows, err
}

// eachJournal reads by project (+j.index_id): by the primary key it would read all of an
// index.
func (s *Store) eachJournal(ctx context.Context, index, project string, each func(JournalRow) error) error {
	err := s.each(ctx, `SELECT j.serial, j.name, j.version, j.at, j.action FROM journal j JOIN indexes i ON i.id = +j.index_id WHERE i.name = ? AND j.project = ? ORDER BY j.serial`, []any{orPyPI(index), project}, func(scan scan) error {
		r := JournalRow{Project: project}
		var version sql.NullString
		var at sql.NullInt64
		if err := scan(&r.Serial, &r.Name, &version, &at, &r.Action); err != nil {
			return err
		}
		r.Version, r.At = text(version), timeOf(at)
		return each(r)
	})
	if err != nil {
		return s.fail("reading the journal", err)
	}
	return nil
}

// ProvenanceOf returns what PyPI answered about a file's provenance and when.
func (s *Store) ProvenanceOf(ctx context.Context, file FileID) (ProvenanceState, time.Time, error) {
	var state ProvenanceState
	var fetched sql.NullInt64
	err := s.db.QueryRowContext(ctx, `SELECT state, fetched FROM provenance WHERE file_id = ?`, int64(file)).Scan(&state, &fetched)
	if err != nil {
		return "", time.Time{}, s.fail("reading the state of a provenance", err)
	}
	return state, timeOf(fetched), nil
}
