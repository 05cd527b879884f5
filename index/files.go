package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"sigtrail/monitor"
)

const fileColumns = `f.id, ` + indexName + `, p.name, f.version, f.filename, f.sha256, f.size, f.uploaded, f.url, f.provenance_url, f.yanked, f.first_seen, f.gone, f.first_listing`

// A fileRow collects fileColumns, of files f and projects p.
type fileRow struct {
	f                     File
	sha256                []byte
	uploaded, first, gone sql.NullInt64
	provenance, yanked    sql.NullString
}

func (r *fileRow) dest() []any {
	return []any{&r.f.ID, &r.f.Index, &r.f.Project, &r.f.Version, &r.f.Name, &r.sha256, &r.f.Size, &r.uploaded, &r.f.URL, &r.provenance, &r.yanked, &r.first, &r.gone, &r.f.FirstListing}
}

func (r *fileRow) value() (File, error) {
	f := r.f
	sum, err := hashOf(r.sha256)
	f.SHA256 = sum
	f.Uploaded, f.FirstSeen, f.Gone = timeOf(r.uploaded), timeOf(r.first), timeOf(r.gone)
	f.ProvenanceURL = r.provenance.String
	if r.yanked.Valid {
		reason := r.yanked.String
		f.Yanked = &reason
	}
	return f, err
}

// appendFile takes in rows of fileColumns.
func appendFile(files *[]File) func(scan) error {
	return func(scan scan) error {
		var r fileRow
		if err := scan(r.dest()...); err != nil {
			return err
		}
		f, err := r.value()
		*files = append(*files, f)
		return err
	}
}

// A projectRow is what is stored of a project before a listing.
type projectRow struct {
	id     int64
	serial int64
	status string
	listed bool
}

// ListingSerial returns the serial of the newest listing stored of a project,
// and whether a whole list of its files has ever been stored.
func (c *Catalogue) ListingSerial(ctx context.Context, project string) (serial int64, listed bool, err error) {
	err = c.s.db.QueryRowContext(ctx, `SELECT serial, listed IS NOT NULL FROM projects WHERE index_id = ? AND name = ?`, c.id, project).Scan(&serial, &listed)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, c.s.fail("reading a project's serial", err)
	}
	return serial, listed, nil
}

type fileKey struct {
	name   string
	sha256 [32]byte
}

func (t *tx) files(project int64) (map[fileKey]File, error) {
	files := make(map[fileKey]File)
	err := t.each(`SELECT `+fileColumns+` FROM files f JOIN projects p ON p.id = f.project_id WHERE f.project_id = ?`, []any{project}, func(scan scan) error {
		var r fileRow
		if err := scan(r.dest()...); err != nil {
			return err
		}
		f, err := r.value()
		files[fileKey{f.Name, f.SHA256}] = f
		return err
	})
	return files, err
}

// addFile stores a new file with everything that waits for it: its provenance,
// its look-ups, and the leaves that were indexed before it appeared.
func (s *Store) addFile(t *tx, project int64, f File) (FileID, error) {
	row, err := t.nextID("files", project)
	if err != nil {
		return 0, err
	}
	id := FileID(row)
	if _, err := t.exec(`INSERT INTO files (id, project_id, version, filename, sha256, size, uploaded, url, provenance_url, yanked, first_seen, first_listing) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		row, project, f.Version, f.Name, f.SHA256[:], f.Size, micros(f.Uploaded), f.URL, null(f.ProvenanceURL), f.Yanked, f.FirstSeen.UnixMicro(), f.FirstListing); err != nil {
		return 0, err
	}
	state := ProvenanceAbsent
	if f.ProvenanceURL != "" {
		state = ProvenancePending
	}
	if _, err := t.exec(`INSERT INTO provenance (file_id, state, next) VALUES (?, ?, ?)`, id, string(state), f.FirstSeen.UnixMicro()); err != nil {
		return 0, err
	}
	if _, err := t.exec(`INSERT OR IGNORE INTO lookups (file_id, server, next) SELECT ?, value, ? FROM json_each((SELECT value FROM settings WHERE key = '`+lookupServers+`'))`, id, f.FirstSeen.UnixMicro()); err != nil {
		return 0, err
	}
	if _, err := t.exec(`UPDATE projects SET identities = 1 WHERE id = ? AND identities = 0`, project); err != nil {
		return 0, err
	}
	f.ID = id
	return id, s.expect(t, f)
}

// expect stores the digests by which leaves of a file are known, and joins the
// leaves that were there first.
func (s *Store) expect(t *tx, f File) error {
	for _, template := range templates {
		if !template.expects(f.Uploaded) {
			continue
		}
		for _, x := range template.digests(f.Name, f.SHA256) {
			if err := s.expectDigest(t, match{file: f.ID, form: x.Form, name: f.Name, sha256: f.SHA256}, x.Digest); err != nil {
				return err
			}
		}
	}
	return s.expectDigest(t, match{file: f.ID, form: artifact, name: f.Name, sha256: f.SHA256}, f.SHA256)
}

// expectDigest stores a digest that the match is by, and binds the entries that hold it.
func (s *Store) expectDigest(t *tx, m match, digest [32]byte) error {
	if m.form != artifact { // files_by_sha256 has that
		if _, err := t.exec(`INSERT OR IGNORE INTO expected (prefix, file_id) VALUES (?, ?)`, digest[:prefixBytes], int64(m.file)); err != nil {
			return err
		}
	}
	t.grown = true
	t.then(func() { s.watch.add(digest) })
	if err := t.wantUnbound(digest); err != nil {
		return err
	}
	return s.joinStored(t, m, digest)
}

// storedByDigest finds, for a digest and the files that expect it (byForm), the entries
// that hold it: those bound to one of the files by that digest (the same bytes under
// two names), and those bound on other grounds.
const storedByDigest = `SELECT p.entry_id FROM json_each(?2) x JOIN pairs p ON p.file_id = x.value ->> 0 JOIN binding_forms m ON m.id = p.form_id AND m.name = x.value ->> 1
	UNION ALL SELECT entry_id FROM leaves WHERE digest IS NOT NULL AND substr(digest, 1, 8) = substr(?1, 1, 8) AND digest = ?1`

// byForm is the second argument of storedByDigest.
func byForm(matches []match) (string, error) {
	pairs := make([][2]any, len(matches))
	for i, m := range matches {
		pairs[i] = [2]any{m.file, m.stored()}
	}
	text, err := json.Marshal(pairs)
	return string(text), err
}

// joinStored binds entries that were stored for other files and hold a digest of this
// one too.
func (s *Store) joinStored(t *tx, m match, digest [32]byte) error {
	expecting, err := matches(digest, func(args []any, f func(scan) error) error { return t.each(filesByDigest, args, f) })
	if err != nil {
		return err
	}
	files, err := byForm(expecting)
	if err != nil {
		return err
	}
	var entries []EntryID
	if err := t.each(storedByDigest, []any{digest[:], files}, func(scan scan) error {
		var id EntryID
		err := scan(&id)
		entries = append(entries, id)
		return err
	}); err != nil {
		return err
	}
	slices.Sort(entries)
	for _, id := range slices.Compact(entries) {
		var r leafRow
		if err := t.get(`SELECT `+leafColumns+` FROM entries e`+leafTables+` WHERE e.id = ?`, []any{int64(id)}, r.dest()...); err != nil {
			return err
		}
		leaf, _, err := r.leaf()
		if err != nil {
			return fmt.Errorf("entry %d: %w", id, err)
		}
		e, err := Decode(leaf)
		if err != nil {
			continue // bound by its provenance alone
		}
		if b, ok := m.propose(e); ok {
			if err := s.bind(t, id, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// Wanted returns leaves of one server's logs, by their origin or that of all its
// shards, to fetch, prove and hand to CommitFound, because a file has appeared that
// they concern. Which ones is drawn by lot: leaves that are never served must not
// stand in the way of those that are.
func (s *Store) Wanted(ctx context.Context, origin string, limit int) ([]Want, error) {
	var wants []Want
	err := s.each(ctx, `SELECT `+logColumns+`, w.idx FROM
		(SELECT log_id, idx FROM wanted WHERE log_id IN (SELECT id FROM logs WHERE origin = ?1 OR substr(origin, 1, length(?1) + 3) = ?1 || ' - ') ORDER BY random() LIMIT ?2) w
		JOIN logs l ON l.id = w.log_id ORDER BY w.log_id, w.idx`, []any{origin, limit}, func(scan scan) error {
		var r logRow
		var w Want
		if err := scan(append(r.dest(), &w.Index)...); err != nil {
			return err
		}
		var err error
		w.Log, err = r.value()
		wants = append(wants, w)
		return err
	})
	if err != nil {
		return nil, s.fail("reading the wanted leaves", err)
	}
	return wants, nil
}

// Unwant gives up on a wanted leaf.
func (s *Store) Unwant(ctx context.Context, w Want) error {
	return s.write(ctx, "giving up a wanted leaf", func(t *tx) error {
		return t.unwant(w.Log, w.Index)
	})
}

func (t *tx) unwant(l monitor.Log, index uint64) error {
	_, err := t.exec(`DELETE FROM wanted WHERE idx = ? AND log_id = (SELECT id FROM logs WHERE origin = ? AND key_id = ?)`, int64(index), l.Origin, l.KeyID[:])
	return err
}
