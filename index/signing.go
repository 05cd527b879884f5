package index

import (
	"context"
	"database/sql"
	"time"
)

// A Signing is what a publisher has signed: entries under certificates that lead to
// the trusted root, on evidence that no third party can make up (see Span). Of a
// publisher that has signed nothing like that, sums and times are zero.
type Signing struct {
	ID        int64 // in this database
	Publisher Publisher
	Projects  int
	Entries   int

	SignedFirst, SignedLast time.Time // begin of the first and the last certificate: the authority's clock
	SeenFirst, SeenLast     time.Time // when the first and the last such entry was indexed: our clock
}

// signingColumns are those that signingRow wants, of publishers u and their spans s,
// but for the number of entries, which is last.
const signingColumns = `u.id, u.issuer, u.repository, u.repository_id, u.owner, u.owner_id, u.workflow, u.environment, u.identity,
	count(s.project_id), min(s.signed_first), max(s.signed_last), min(s.seen_first), max(s.seen_last)`

// vouched is, in SQL, what makes a binding b of an entry e evidence that its signer has
// signed the file: the rest anybody can make up.
const vouched = `e.trust = '' AND (b.evidence = 'provenance' OR b.evidence IN ('statement', 'artifact') AND b.signature = '')`

// signedEntries counts the entries of publisher u.
const signedEntries = `(SELECT count(*) FROM signers g JOIN entries e ON e.signer_id = g.id WHERE g.publisher_id = u.id AND EXISTS (SELECT 1 FROM bindings b WHERE b.entry_id = e.id AND ` + vouched + `))`

type signingRow struct {
	v     Signing
	times [4]sql.NullInt64
}

func (r *signingRow) dest() []any {
	u := &r.v.Publisher
	d := []any{&r.v.ID, &u.Issuer, &u.Repository, &u.RepositoryID, &u.Owner, &u.OwnerID, &u.Workflow, &u.Environment, &u.Identity, &r.v.Projects}
	for i := range r.times {
		d = append(d, &r.times[i])
	}
	return append(d, &r.v.Entries)
}

func (r *signingRow) value() Signing {
	v := r.v
	v.SignedFirst, v.SignedLast, v.SeenFirst, v.SeenLast = timeOf(r.times[0]), timeOf(r.times[1]), timeOf(r.times[2]), timeOf(r.times[3])
	return v
}

func (s *Store) signings(ctx context.Context, query string, args ...any) ([]Signing, error) {
	var all []Signing
	err := s.each(ctx, query, args, func(scan scan) error {
		var r signingRow
		err := scan(r.dest()...)
		all = append(all, r.value())
		return err
	})
	return all, err
}

// ProjectSignings returns the publishers that have signed files of a project of an
// index, "" for PyPI, the first to sign first and at most limit: what they have signed
// of this project.
func (s *Store) ProjectSignings(ctx context.Context, index, project string, limit int) ([]Signing, error) {
	all, err := s.signings(ctx, `WITH mine AS (SELECT id FROM projects WHERE index_id = (SELECT id FROM indexes WHERE name = ?1) AND name = ?2),
		signed AS (SELECT g.publisher_id, count(DISTINCT e.id) AS entries FROM files f JOIN bindings b ON b.file_id = f.id JOIN entries e ON e.id = b.entry_id JOIN signers g ON g.id = e.signer_id
			WHERE f.project_id = (SELECT id FROM mine) AND `+vouched+` GROUP BY g.publisher_id)
		SELECT `+signingColumns+`, coalesce(max(d.entries), 0) FROM project_publishers s JOIN publishers u ON u.id = s.publisher_id LEFT JOIN signed d ON d.publisher_id = u.id
		WHERE s.project_id = (SELECT id FROM mine) GROUP BY u.id ORDER BY min(s.signed_first), u.id LIMIT ?3`, orPyPI(index), project, limit)
	if err != nil {
		return nil, s.fail("reading the publishers of a project", err)
	}
	return all, nil
}

// Signings returns a page of the publishers with an id beyond after that a selector
// names, at most limit: part of a repository, owner, issuer or identity in any case, a
// numeric id, or a project that they have signed for. "" names all.
func (s *Store) Signings(ctx context.Context, selector string, after int64, limit int) ([]Signing, error) {
	// First the page, then its sums: nothing is summed that is not shown.
	all, err := s.signings(ctx, `WITH page AS MATERIALIZED (SELECT * FROM publishers u WHERE u.id > ?2 AND (?1 = '' OR
			instr(lower(u.repository || char(10) || u.owner || char(10) || u.issuer || char(10) || u.identity), lower(?1)) OR ?1 IN (u.repository_id, u.owner_id) OR
			u.id IN (SELECT s.publisher_id FROM projects p JOIN project_publishers s ON s.project_id = p.id WHERE p.name = ?1)) ORDER BY u.id LIMIT ?3)
		SELECT `+signingColumns+`, `+signedEntries+` FROM page u LEFT JOIN project_publishers s ON s.publisher_id = u.id GROUP BY u.id ORDER BY u.id`, selector, after, limit)
	if err != nil {
		return nil, s.fail("reading publishers", err)
	}
	return all, nil
}

// SigningOf returns what one publisher has signed; false if there is none of that id.
func (s *Store) SigningOf(ctx context.Context, id int64) (Signing, bool, error) {
	all, err := s.signings(ctx, `SELECT `+signingColumns+`, `+signedEntries+` FROM publishers u LEFT JOIN project_publishers s ON s.publisher_id = u.id WHERE u.id = ? GROUP BY u.id`, id)
	if err != nil {
		return Signing{}, false, s.fail("reading a publisher", err)
	}
	if len(all) == 0 {
		return Signing{}, false, nil
	}
	return all[0], true, nil
}

// ProjectsOf returns the projects that a publisher has signed for, as Qualified names
// them, in order and at most limit.
func (s *Store) ProjectsOf(ctx context.Context, publisher int64, limit int) ([]string, error) {
	var names []string
	err := s.each(ctx, `SELECT `+indexName+`, p.name FROM project_publishers s JOIN projects p ON p.id = s.project_id WHERE s.publisher_id = ? ORDER BY p.name, p.index_id LIMIT ?`, []any{publisher, limit}, func(scan scan) error {
		var index, name string
		err := scan(&index, &name)
		names = append(names, Qualified(index, name))
		return err
	})
	if err != nil {
		return nil, s.fail("reading the projects of a publisher", err)
	}
	return names, nil
}
