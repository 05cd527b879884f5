package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"time"
)

// An Overview sums up one project.
type Overview struct {
	Index      string // "": PyPI
	Project    string // PEP 503
	Serial     int64  // of the newest listing stored
	Status     string // PEP 792, as served; "": not given
	FirstSeen  time.Time
	Listed     time.Time // first whole file list; zero: none yet
	Changed    time.Time // when we last saw a file appear or disappear; zero: never
	Pins       map[PinState]int
	Publishers int // with a trusted certificate and good evidence
	Unjudged   int // entries and files that the rules have yet to see
	Alerts     int
	Missing    Missing
	Standings  []Standing // releases, the oldest first

	id int64
}

// Missing counts what is not bound yet, by the reason.
type Missing struct {
	Pending    int // provenance that is named and not fetched
	Refused    int // provenance that the index refuses for now (403)
	Leaves     int // log entries that provenance names and that are not indexed
	Unanswered int // look-ups that no server has answered
}

// Sum is how many there are in all.
func (m Missing) Sum() int { return m.Pending + m.Refused + m.Leaves + m.Unanswered }

// A ProjectKey says where a page of projects begins. The zero value is the beginning.
type ProjectKey struct {
	Index   int64  // number of the index in this database
	Project string // the last one of the page before
}

// Overviews returns a page of the projects of an index, or of all indexes for nil, in
// the order of their names, and where the next page begins; nil: that was the last.
func (s *Store) Overviews(ctx context.Context, index *string, after ProjectKey, limit int) ([]Overview, *ProjectKey, error) {
	last := int64(math.MaxInt64)
	if index != nil {
		err := s.db.QueryRowContext(ctx, `SELECT id FROM indexes WHERE name = ?`, orPyPI(*index)).Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, nil, nil
		}
		if err != nil {
			return nil, nil, s.fail("reading a package index", err)
		}
		if after.Index < last {
			after = ProjectKey{Index: last}
		}
	}
	var page []Overview
	var keys []ProjectKey
	err := s.each(ctx, `SELECT p.index_id, `+overviewColumns+` FROM projects p WHERE (p.index_id, p.name) > (?, ?) AND p.index_id <= ? ORDER BY p.index_id, p.name LIMIT ?`,
		[]any{after.Index, after.Project, last, limit + 1}, func(scan scan) error {
			var r overviewRow
			var key ProjectKey
			if err := scan(append([]any{&key.Index}, r.dest()...)...); err != nil {
				return err
			}
			o := r.value()
			key.Project = o.Project
			page, keys = append(page, o), append(keys, key)
			return nil
		})
	var next *ProjectKey
	if len(page) > limit {
		page, next = page[:limit], &keys[limit-1]
	}
	for i := range page {
		if err != nil {
			break
		}
		err = s.complete(ctx, &page[i])
	}
	if err != nil {
		return nil, nil, s.fail("reading projects", err)
	}
	return page, next, nil
}

// Overview returns the overview of one project of an index, "" for PyPI; false if
// it is not watched.
func (s *Store) Overview(ctx context.Context, index, project string) (Overview, bool, error) {
	var r overviewRow
	err := s.db.QueryRowContext(ctx, `SELECT `+overviewColumns+` FROM projects p WHERE p.index_id = (SELECT id FROM indexes WHERE name = ?) AND p.name = ?`, orPyPI(index), project).Scan(r.dest()...)
	if errors.Is(err, sql.ErrNoRows) {
		return Overview{}, false, nil
	}
	o := r.value()
	if err == nil {
		err = s.complete(ctx, &o)
	}
	if err != nil {
		return Overview{}, false, s.fail("reading a project", err)
	}
	return o, true, nil
}

// SimilarProjects returns names of watched projects that begin like a name.
func (s *Store) SimilarProjects(ctx context.Context, name string, limit int) ([]string, error) {
	var names []string
	err := s.each(ctx, `SELECT DISTINCT name FROM projects WHERE name >= ?1 AND name < ?1 || char(0x10ffff) ORDER BY name LIMIT ?2`, []any{name, limit}, func(scan scan) error {
		var n string
		err := scan(&n)
		names = append(names, n)
		return err
	})
	if err != nil {
		return nil, s.fail("looking for a project's name", err)
	}
	return names, nil
}

// overviewColumns are those that overviewRow wants, of projects p.
const overviewColumns = `p.id, ` + indexName + `, p.name, p.serial, p.status, p.first_seen, p.listed,
	(SELECT max(max(f.first_seen, coalesce(f.gone, 0))) FROM files f WHERE f.project_id = p.id),
	(SELECT json_group_array(n.state) FROM pins n WHERE n.project_id = p.id),
	(SELECT count(*) FROM project_publishers s WHERE s.project_id = p.id),
	(SELECT count(*) FROM files f JOIN unjudged u ON u.file_id = f.id WHERE f.project_id = p.id AND u.early = 0) + (SELECT count(*) FROM files f WHERE f.project_id = p.id AND f.judged = 0),
	(SELECT count(*) FROM alerts a WHERE a.project = p.name AND a.index_name = ` + indexName + `)`

// An overviewRow collects overviewColumns.
type overviewRow struct {
	o                      Overview
	first, listed, changed sql.NullInt64
	pins                   string
}

func (r *overviewRow) dest() []any {
	return []any{&r.o.id, &r.o.Index, &r.o.Project, &r.o.Serial, &r.o.Status, &r.first, &r.listed, &r.changed, &r.pins, &r.o.Publishers, &r.o.Unjudged, &r.o.Alerts}
}

func (r *overviewRow) value() Overview {
	o := r.o
	o.FirstSeen, o.Listed, o.Changed = timeOf(r.first), timeOf(r.listed), timeOf(r.changed)
	var states []PinState
	_ = json.Unmarshal([]byte(r.pins), &states) // SQLite made it
	o.Pins = make(map[PinState]int)
	for _, p := range states {
		o.Pins[p]++
	}
	return o
}

// complete adds what takes more than one row.
func (s *Store) complete(ctx context.Context, o *Overview) (err error) {
	if o.Standings, err = s.standings(ctx, o.id); err != nil {
		return err
	}
	return s.db.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM files f JOIN provenance v ON v.file_id = f.id WHERE f.project_id = ?1 AND v.state = 'pending'),
		(SELECT count(*) FROM files f JOIN provenance v ON v.file_id = f.id WHERE f.project_id = ?1 AND v.state = 'refused'),
		(SELECT count(*) FROM files f JOIN provenance_leaves v ON v.file_id = f.id WHERE f.project_id = ?1 AND `+notIndexed+`),
		(SELECT count(*) FROM files f JOIN lookups k ON k.file_id = f.id WHERE f.project_id = ?1 AND k.step = 0)`, o.id).
		Scan(&o.Missing.Pending, &o.Missing.Refused, &o.Missing.Leaves, &o.Missing.Unanswered)
}

// notIndexed is, in SQL, whether the log entry that provenance leaf v names is not
// among the proven ones.
const notIndexed = `NOT EXISTS (SELECT 1 FROM entries e JOIN logs l ON l.id = e.log_id WHERE substr(e.leaf_hash, 1, 8) = substr(v.leaf_hash, 1, 8) AND e.leaf_hash = v.leaf_hash AND l.key_id = v.key_id)`

// standings reads the releases of a project. One row a file: the largest project of
// PyPI has some tens of thousands.
func (s *Store) standings(ctx context.Context, project int64) ([]Standing, error) {
	var files []StandingFile
	err := s.each(ctx, `SELECT f.version, coalesce(f.uploaded, f.first_seen), f.gone IS NOT NULL, f.yanked IS NOT NULL, v.state,
		(SELECT json_group_array(DISTINCT l.publisher) FROM provenance_leaves l WHERE l.file_id = f.id)
		FROM files f JOIN provenance v ON v.file_id = f.id WHERE f.project_id = ? ORDER BY f.id`, []any{project}, func(scan scan) error {
		var f StandingFile
		var at sql.NullInt64
		var publishers []byte
		if err := scan(&f.Version, &at, &f.Gone, &f.Yanked, &f.Provenance, &publishers); err != nil {
			return err
		}
		f.At = timeOf(at)
		files = append(files, f)
		return json.Unmarshal(publishers, &files[len(files)-1].Publishers)
	})
	return Standings(files), err
}
