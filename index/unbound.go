package index

import (
	"bytes"
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"
)

// A leaf that concerns no known file and could concern one that comes is kept as a
// row of some 75 bytes: six bytes of its digest, its place in the log, the publisher
// that its certificate claims, and when. When the file appears, the leaf is fetched
// and proven again. Some never are: uploads to TestPyPI and failed runs sign too.

// unboundCount is the setting that counts the table unbound, which is too large to
// count at each scrape. It moves in the transactions that change the table, so that
// it holds whichever process they are of.
const unboundCount = "unbound_count"

func (t *tx) addUnbound(n int64) error {
	if n == 0 {
		return nil
	}
	_, err := t.exec(`UPDATE settings SET value = CAST(value AS INTEGER) + ? WHERE key = '`+unboundCount+`'`, n)
	return err
}

// countUnbound counts once, in databases that have no count yet.
func (s *Store) countUnbound(ctx context.Context) error {
	if _, ok, err := s.Setting(ctx, unboundCount); err != nil || ok {
		return err
	}
	return s.write(ctx, "counting what is unbound", func(t *tx) error {
		_, err := t.exec(`INSERT OR IGNORE INTO settings (key, value) SELECT '` + unboundCount + `', count(*) FROM unbound`)
		return err
	})
}

// Unbound counts the unbound leaves.
func (s *Store) Unbound(ctx context.Context) (int64, error) {
	var n int64
	err := s.db.QueryRowContext(ctx, `SELECT coalesce((SELECT CAST(value AS INTEGER) FROM settings WHERE key = '`+unboundCount+`'), 0)`).Scan(&n)
	if err != nil {
		return 0, s.fail("counting what is unbound", err)
	}
	return n, nil
}

// freeChunk is how many rows go into one statement: most of what a row costs is
// the way into SQLite and back.
const freeChunk = 64

const insertUnbound = `INSERT OR IGNORE INTO unbound (digest, log_id, idx, claimed, signed_at, seen) VALUES (?, ?, ?, ?, ?, ?)`

var insertFree = map[int]string{
	1:         insertUnbound,
	freeChunk: insertUnbound + strings.Repeat(`, (?, ?, ?, ?, ?, ?)`, freeChunk-1),
}

// saveFree stores leaves for files to come, in the order of the index over them.
func (s *Store) saveFree(t *tx, free []freeLeaf, log int64) error {
	slices.SortFunc(free, func(a, b freeLeaf) int { return bytes.Compare(a.digest[:], b.digest[:]) })
	seen := s.now().Unix()
	added := int64(0)
	ids := make(map[*claimed]any)
	args := make([]any, 0, 6*freeChunk)
	for len(free) > 0 {
		n := 1
		if len(free) >= freeChunk {
			n = freeChunk
		}
		args = args[:0]
		for i := range n {
			f := &free[i]
			id, ok := ids[f.claimed]
			if !ok {
				var err error
				if id, err = s.claimedID(t, f.claimed); err != nil {
					return err
				}
				ids[f.claimed] = id
			}
			args = append(args, f.digest[:], log, int64(f.index), id, sql.NullInt64{Int64: f.signedAt, Valid: f.signedAt != 0}, seen)
		}
		k, err := t.exec(insertFree[n], args...)
		if err != nil {
			return err
		}
		added += k
		free = free[n:]
	}
	return t.addUnbound(added)
}

// wantUnbound asks for the leaves that were there before the file that expects the
// digest.
func (t *tx) wantUnbound(digest [32]byte) error {
	_, err := t.exec(`INSERT OR IGNORE INTO wanted (log_id, idx) SELECT log_id, idx FROM unbound WHERE digest = ?`, digest[:prefixBytes])
	return err
}

// noLongerUnbound forgets the row of a leaf that has become bound.
func (t *tx) noLongerUnbound(digest []byte, log int64, index uint64) error {
	if len(digest) < prefixBytes {
		return nil
	}
	n, err := t.exec(`DELETE FROM unbound WHERE digest = ? AND log_id = ? AND idx = ?`, digest[:prefixBytes], log, int64(index))
	if err != nil {
		return err
	}
	return t.addUnbound(-n)
}

// expireChunk is how many rows one transaction of Expire looks at, for which other
// writers wait: some tens of milliseconds.
const expireChunk = 500

// Expire forgets unbound leaves that were seen before a time, some at once, and
// returns how many those were and whether there may be more. A file that appears
// later than that is bound by look-up only.
func (s *Store) Expire(ctx context.Context, before time.Time) (expired int, more bool, err error) {
	err = s.write(ctx, "forgetting old unbound leaves", func(t *tx) error {
		// Ids grow with time. Where the clock was set back in between, rows
		// wait for those before them.
		n, err := t.exec(`DELETE FROM unbound WHERE id IN (SELECT id FROM (SELECT id, seen FROM unbound ORDER BY id LIMIT ?) WHERE seen < ?)`, expireChunk, before.Unix())
		if err != nil {
			return err
		}
		expired, more = int(n), n == expireChunk
		t.then(func() { s.metrics.expired.Add(float64(n)) })
		return t.addUnbound(-n)
	})
	return expired, more, err
}

// ExpireClaims forgets the publishers that no unbound leaf claims any more, among
// the next ones after an id, and returns after which to go on; 0: that was all.
func (s *Store) ExpireClaims(ctx context.Context, after int64) (next int64, err error) {
	err = s.write(ctx, "forgetting publishers that no unbound leaf claims", func(t *tx) error {
		var n int
		if err := t.get(`SELECT count(*), coalesce(max(id), 0) FROM (SELECT id FROM claimed_publishers WHERE id > ? ORDER BY id LIMIT ?)`, []any{after, expireChunk}, &n, &next); err != nil || n == 0 {
			return err
		}
		gone, err := t.exec(`DELETE FROM claimed_publishers WHERE id > ? AND id <= ? AND NOT EXISTS (SELECT 1 FROM unbound WHERE claimed = claimed_publishers.id)`, after, next)
		if gone > 0 {
			t.then(func() { s.claims.gen++ })
		}
		if n < expireChunk {
			next = 0
		}
		return err
	})
	return next, err
}
