package index

import (
	"context"
	"database/sql"
	"time"
)

// A Span is how long a publisher has signed files of a project: by certificates that
// lead to the trusted root, for entries that PyPI's provenance names or whose
// signature verifies over the file's statement or bytes.
type Span struct {
	Index     string // "": PyPI
	Project   string
	Publisher Publisher

	SignedFirst, SignedLast time.Time // begin of the first and the last certificate: the authority's clock
	SeenFirst, SeenLast     time.Time // when the first and the last such entry was indexed: our clock
}

const (
	insertSpans = `INSERT INTO project_publishers (project_id, publisher_id, signed_first, signed_last, seen_first, seen_last)
		SELECT f.project_id, g.publisher_id, min(g.not_before), max(g.not_before), min(e.seen), max(e.seen)
		FROM entries e JOIN bindings b ON b.entry_id = e.id JOIN files f ON f.id = b.file_id JOIN signers g ON g.id = e.signer_id
		WHERE g.not_before IS NOT NULL AND ` + vouched
	widenSpans = ` GROUP BY f.project_id, g.publisher_id ON CONFLICT (project_id, publisher_id) DO UPDATE SET
		signed_first = min(signed_first, excluded.signed_first), signed_last = max(signed_last, excluded.signed_last),
		seen_first = min(seen_first, excluded.seen_first), seen_last = max(seen_last, excluded.seen_last)`
)

// widen extends the spans that an entry belongs to. Doing it again changes nothing.
func (t *tx) widen(entry EntryID) error {
	_, err := t.exec(insertSpans+` AND e.id = ?`+widenSpans, int64(entry))
	return err
}

// ProjectSpans returns the publishers of a project of an index, "" for PyPI, the first
// to sign first.
func (s *Store) ProjectSpans(ctx context.Context, index, project string) ([]Span, error) {
	return s.spans(ctx, `p.index_id = (SELECT id FROM indexes WHERE name = ?) AND p.name = ? ORDER BY s.signed_first, s.publisher_id`, orPyPI(index), project)
}

// PublisherSpans returns the projects that a repository has signed for under an
// issuer, by its numeric id, whatever its names and workflows were.
func (s *Store) PublisherSpans(ctx context.Context, issuer, repositoryID string) ([]Span, error) {
	return s.spans(ctx, `u.issuer = ? AND u.repository_id = ? ORDER BY p.name, p.index_id, s.signed_first, s.publisher_id`, issuer, repositoryID)
}

func (s *Store) spans(ctx context.Context, where string, args ...any) ([]Span, error) {
	var all []Span
	err := s.each(ctx, `SELECT `+indexName+`, p.name, u.issuer, u.repository, u.repository_id, u.owner, u.owner_id, u.workflow, u.environment, u.identity,
			s.signed_first, s.signed_last, s.seen_first, s.seen_last
		FROM project_publishers s JOIN projects p ON p.id = s.project_id JOIN publishers u ON u.id = s.publisher_id WHERE `+where, args, func(scan scan) error {
		var v Span
		var times [4]sql.NullInt64
		u := &v.Publisher
		err := scan(&v.Index, &v.Project, &u.Issuer, &u.Repository, &u.RepositoryID, &u.Owner, &u.OwnerID, &u.Workflow, &u.Environment, &u.Identity,
			&times[0], &times[1], &times[2], &times[3])
		v.SignedFirst, v.SignedLast, v.SeenFirst, v.SeenLast = timeOf(times[0]), timeOf(times[1]), timeOf(times[2]), timeOf(times[3])
		all = append(all, v)
		return err
	})
	if err != nil {
		return nil, s.fail("reading the spans of publishers", err)
	}
	return all, nil
}

// fillSpans is migration 12: what migration 11 made room for, out of the
// certificates.
func fillSpans(ctx context.Context, tx *sql.Tx) error {
	type begin struct{ id, at int64 }
	for after := int64(0); ; {
		rows, err := tx.QueryContext(ctx, `SELECT id, der FROM signers WHERE id > ? ORDER BY id LIMIT 1000`, after)
		if err != nil {
			return err
		}
		read := 0
		var begins []begin
		if err := drain(rows, func(scan scan) error {
			read++
			var cert []byte
			if err := scan(&after, &cert); err != nil {
				return err
			}
			if signer, err := ParseSigner(cert); err == nil {
				begins = append(begins, begin{after, signer.NotBefore.UnixMicro()})
			}
			return nil
		}); err != nil {
			return err
		}
		for _, b := range begins {
			if _, err := tx.ExecContext(ctx, `UPDATE signers SET not_before = ? WHERE id = ?`, b.at, b.id); err != nil {
				return err
			}
		}
		if read == 0 {
			break
		}
	}
	_, err := tx.ExecContext(ctx, insertSpans+widenSpans)
	return err
}
