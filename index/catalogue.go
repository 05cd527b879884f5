package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// PyPI is the name of the package index that is always there. Where a name says
// which index something belongs to, "" is PyPI.
const PyPI = "pypi"

// A Catalogue is what one package index publishes: its journal, its projects, their
// files and provenance. The same name in two catalogues is two projects.
type Catalogue struct {
	s    *Store
	id   int64
	name string // "" for PyPI
}

// PyPI returns PyPI's own catalogue.
func (s *Store) PyPI() *Catalogue { return &Catalogue{s: s} }

// Catalogue returns the catalogue of a package index, made if it is new. What is kept
// goes by the name; the URL, without secrets, is where the index was last read.
func (s *Store) Catalogue(ctx context.Context, name, url string) (*Catalogue, error) {
	c := &Catalogue{s: s}
	if name != "" && name != PyPI {
		c.name = name
	}
	err := s.db.QueryRowContext(ctx, `SELECT id FROM indexes WHERE name = ? AND url = ?`, orPyPI(c.name), url).Scan(&c.id)
	if err == nil {
		return c, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return nil, s.fail("reading a package index", err)
	}
	err = s.write(ctx, "keeping a package index", func(t *tx) error {
		return t.get(`INSERT INTO indexes (name, url) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET url = excluded.url RETURNING id`,
			[]any{orPyPI(c.name), url}, &c.id)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// IndexesOf lists the names of the indexes, "" for PyPI, that know a project.
func (s *Store) IndexesOf(ctx context.Context, project string) ([]string, error) {
	var names []string
	err := s.each(ctx, `SELECT `+indexName+` FROM projects p WHERE p.name = ? ORDER BY p.index_id`, []any{project}, func(scan scan) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	})
	if err != nil {
		return nil, s.fail("reading which indexes know a project", err)
	}
	return names, nil
}

// An OtherIndex is a package index beside PyPI, whether or not it is still configured.
type OtherIndex struct {
	Name     string
	URL      string // last read at, without secrets
	Serial   *int64 // up to which its journal has been read; nil: never, it may have none
	Projects int
	Files    int // ever listed
}

// OtherIndexes lists the package indexes beside PyPI by their names.
func (s *Store) OtherIndexes(ctx context.Context) ([]OtherIndex, error) {
	var out []OtherIndex
	err := s.each(ctx, `SELECT i.name, i.url, i.serial,
			(SELECT count(*) FROM projects p WHERE p.index_id = i.id),
			(SELECT count(*) FROM projects p JOIN files f ON f.project_id = p.id WHERE p.index_id = i.id)
		FROM indexes i WHERE i.id <> 0 ORDER BY i.name`, nil, func(scan scan) error {
		var x OtherIndex
		var serial sql.NullInt64
		err := scan(&x.Name, &x.URL, &serial, &x.Projects, &x.Files)
		if serial.Valid {
			x.Serial = &serial.Int64
		}
		out = append(out, x)
		return err
	})
	if err != nil {
		return nil, s.fail("reading the package indexes", err)
	}
	return out, nil
}

// Name is the index's name, "" for PyPI.
func (c *Catalogue) Name() string { return c.name }

// Qualified names a project of an index, "" for PyPI, as people and policies write it:
// sampleproject, testpypi/sampleproject. No name of a project holds a slash.
func Qualified(index, project string) string {
	if index == "" {
		return project
	}
	return index + "/" + project
}

// orPyPI is the name under which an index is stored.
func orPyPI(name string) string {
	if name == "" {
		return PyPI
	}
	return name
}

// indexName is, in SQL, the name of the index of projects p as File.Index has it.
const indexName = `CASE p.index_id WHEN 0 THEN '' ELSE (SELECT i.name FROM indexes i WHERE i.id = p.index_id) END`

// project returns what is stored of a project, made if it is new.
func (t *tx) project(index int64, name string, seen time.Time) (projectRow, error) {
	var p projectRow
	if name == "" {
		return p, errors.New("a project without a name")
	}
	if _, err := t.exec(`INSERT OR IGNORE INTO projects (index_id, name, first_seen) VALUES (?, ?, ?)`, index, name, seen.UnixMicro()); err != nil {
		return p, err
	}
	err := t.get(`SELECT id, serial, status, listed IS NOT NULL FROM projects WHERE index_id = ? AND name = ?`, []any{index, name}, &p.id, &p.serial, &p.status, &p.listed)
	return p, err
}

// index returns the number of an index by its name.
func (t *tx) index(name string) (id int64, err error) {
	if name == "" {
		return 0, nil
	}
	if err := t.get(`SELECT id FROM indexes WHERE name = ?`, []any{name}, &id); err != nil {
		return 0, fmt.Errorf("package index %q: %w", name, err)
	}
	return id, nil
}
