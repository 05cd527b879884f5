package index

import (
	"context"
	"database/sql"
	"math"
	"time"

	"sigtrail/monitor"
)

// A Candidate is an unbound leaf whose certificate claims a publisher of a project:
// what it signs may be a file to come, another package of the same repository, an
// upload to TestPyPI, or a run that failed. The leaf is proven to be in the log; the
// certificate is not kept and has not been checked.
type Candidate struct {
	Log       monitor.Log
	Index     uint64 // in the tree
	Publisher Publisher
	Seen      time.Time // by us

	// SignedAt is in a v1 log the integrated time, zero where the log has not
	// signed it; in a v2 log what the certificate says of when it was issued.
	SignedAt time.Time
}

// candidatesOf finds leaves by the publishers that PyPI's provenance names for a
// project, or that are pinned. A name in a certificate of somebody else's entry is
// not enough: then anybody could make candidates of a project.
const candidatesOf = `WITH used AS (
		SELECT publisher_id AS id FROM pins WHERE project_id = ?1 AND state <> 'rejected'
		UNION SELECT g.publisher_id FROM files f JOIN bindings b ON b.file_id = f.id AND b.evidence = 'provenance'
			JOIN entries e ON e.id = b.entry_id AND e.trust = '' JOIN signers g ON g.id = e.signer_id WHERE f.project_id = ?1),
	known AS (SELECT DISTINCT issuer, repository_id, identity FROM publishers WHERE id IN used AND repository_id || identity <> '')
	SELECT ` + logColumns + `, u.idx, u.signed_at, u.seen, c.issuer, c.repository, c.repository_id, c.owner, c.owner_id, c.workflow, c.environment, c.identity
	FROM known k JOIN claimed_publishers c ON c.repository_id = k.repository_id AND c.identity = k.identity AND c.issuer = k.issuer
		JOIN unbound u ON u.claimed = c.id JOIN logs l ON l.id = u.log_id
	WHERE coalesce(u.signed_at, u.seen) < ?2 AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.log_id = u.log_id AND e.idx = u.idx)
	ORDER BY coalesce(u.signed_at, u.seen) DESC, u.log_id, u.idx DESC LIMIT ?3`

// Candidates returns the newest of the unbound leaves of a project's publishers,
// compared by issuer and numeric repository id, or by issuer and identity; with a
// time, only what was signed before it. The project is one of an index, "" for PyPI.
// They are forgotten like all unbound leaves (Expire).
func (s *Store) Candidates(ctx context.Context, index, project string, before time.Time, limit int) (candidates []Candidate, more bool, err error) {
	var id int64
	switch err := s.db.QueryRowContext(ctx, `SELECT p.id FROM projects p JOIN indexes i ON i.id = p.index_id WHERE i.name = ? AND p.name = ?`, orPyPI(index), project).Scan(&id); {
	case err == sql.ErrNoRows:
		return nil, false, nil
	case err != nil:
		return nil, false, s.fail("reading a project", err)
	}
	until := int64(math.MaxInt64)
	if !before.IsZero() {
		until = before.Unix()
	}
	err = s.each(ctx, candidatesOf, []any{id, until, limit + 1}, func(scan scan) error {
		var r logRow
		var c Candidate
		var signed, seen sql.NullInt64
		p := &c.Publisher
		if err := scan(append(r.dest(), &c.Index, &signed, &seen, &p.Issuer, &p.Repository, &p.RepositoryID, &p.Owner, &p.OwnerID, &p.Workflow, &p.Environment, &p.Identity)...); err != nil {
			return err
		}
		c.Seen = time.Unix(seen.Int64, 0).UTC()
		if signed.Valid {
			c.SignedAt = time.Unix(signed.Int64, 0).UTC()
		}
		var err error
		c.Log, err = r.value()
		candidates = append(candidates, c)
		return err
	})
	if err != nil {
		return nil, false, s.fail("reading candidates", err)
	}
	if len(candidates) > limit {
		return candidates[:limit], true, nil
	}
	return candidates, false, nil
}
