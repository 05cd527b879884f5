package index

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"time"
)

// A TrustedRoot is a trusted_root.json that was once in use.
type TrustedRoot struct {
	SHA256              string // of Body, hex
	Body                string // byte for byte
	Source              string // where it came from
	FirstSeen, LastSeen time.Time
}

// SaveTrustedRoot keeps a trusted root, or notes that it was had again.
func (s *Store) SaveTrustedRoot(ctx context.Context, body []byte, source string, at time.Time) error {
	sum := sha256.Sum256(body)
	return s.write(ctx, "keeping the trusted root", func(t *tx) error {
		_, err := t.exec(`INSERT INTO trusted_roots (sha256, body, source, first_seen, last_seen) VALUES (?1, ?2, ?3, ?4, ?4)
			ON CONFLICT (sha256) DO UPDATE SET source = excluded.source, last_seen = excluded.last_seen, first_seen = iif(first_seen = 0, excluded.first_seen, first_seen)`,
			hex.EncodeToString(sum[:]), string(body), source, at.UnixMicro())
		return err
	})
}

// TrustedRoots are all that were kept, the one that was had last at the end.
func (s *Store) TrustedRoots(ctx context.Context) ([]TrustedRoot, error) {
	var roots []TrustedRoot
	err := s.each(ctx, `SELECT sha256, body, source, first_seen, last_seen FROM trusted_roots ORDER BY last_seen, first_seen`, nil, func(scan scan) error {
		var r TrustedRoot
		var first, last sql.NullInt64
		err := scan(&r.SHA256, &r.Body, &r.Source, &first, &last)
		r.FirstSeen, r.LastSeen = timeOf(first), timeOf(last)
		roots = append(roots, r)
		return err
	})
	if err != nil {
		return nil, s.fail("reading the trusted roots", err)
	}
	return roots, nil
}

// TrustedRootAt is the root from a source that was in use at a time: the last one that
// was first had by then.
func (s *Store) TrustedRootAt(ctx context.Context, source string, at time.Time) (r TrustedRoot, ok bool, err error) {
	var first, last sql.NullInt64
	err = s.db.QueryRowContext(ctx, `SELECT sha256, body, source, first_seen, last_seen FROM trusted_roots WHERE source = ? AND first_seen <= ? ORDER BY first_seen DESC LIMIT 1`,
		source, at.UnixMicro()).Scan(&r.SHA256, &r.Body, &r.Source, &first, &last)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return r, false, nil
	case err != nil:
		return r, false, s.fail("reading a trusted root", err)
	}
	r.FirstSeen, r.LastSeen = timeOf(first), timeOf(last)
	return r, true, nil
}

// Fresh reports whether no log has been followed yet.
func (s *Store) Fresh(ctx context.Context) (bool, error) {
	var followed bool
	if err := s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM heads)`).Scan(&followed); err != nil {
		return false, s.fail("reading whether any log is followed", err)
	}
	return !followed, nil
}
