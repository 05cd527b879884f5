package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"sigtrail/monitor"
)

// A Scan is a range of one log that somebody had read.
type Scan struct {
	ID       int64
	Log      monitor.Log
	Given    string        // range and selector as asked for; the same again is the same scan
	Bounds   string        // how the range was found, for people
	Range    monitor.Range // in the tree
	Next     uint64        // leaves of the range before this are proven and indexed
	Found    uint64        // leaves that match the selector
	Started  time.Time
	Finished time.Time // zero: not yet
}

// Scans returns the scans of a log, the newest first.
func (s *Store) Scans(ctx context.Context, l monitor.Log) ([]Scan, error) {
	var scans []Scan
	err := s.each(ctx, `SELECT c.id, c.given, c.bounds, c.first, c.past, c.next, c.found, c.started, c.finished
		FROM scans c JOIN logs l ON l.id = c.log_id WHERE l.origin = ? AND l.key_id = ? ORDER BY c.started DESC, c.id DESC`,
		[]any{l.Origin, l.KeyID[:]}, func(scan scan) error {
			c := Scan{Log: l}
			var started, finished sql.NullInt64
			err := scan(&c.ID, &c.Given, &c.Bounds, &c.Range.From, &c.Range.To, &c.Next, &c.Found, &started, &finished)
			c.Started, c.Finished = timeOf(started), timeOf(finished)
			scans = append(scans, c)
			return err
		})
	if err != nil {
		return nil, s.fail("reading the scans", err)
	}
	return scans, nil
}

// A Scanning is the store of whoever reads for a scan: what is committed to it is
// indexed as from a tail, but moves the scan and not the tail.
type Scanning struct {
	*Store
	Scan  Scan                                  // ID, Next, Found, Started and Finished are set here
	Match func(monitor.Leaf, monitor.Hash) bool // leaves to keep as found; nil: none
}

var _ monitor.Store = (*Scanning)(nil)

// Position is how far the scan has come; false before Begin.
func (s *Scanning) Position(ctx context.Context, _ monitor.Log) (monitor.Position, bool, error) {
	if s.Scan.ID == 0 {
		return monitor.Position{}, false, nil
	}
	p := monitor.Position{}
	var hashes []byte
	err := s.db.QueryRowContext(ctx, `SELECT next, range FROM scans WHERE id = ?`, s.Scan.ID).Scan(&p.Next, &hashes)
	var bad error
	p.Range, bad = split(hashes)
	if err = errors.Join(err, bad); err != nil {
		return monitor.Position{}, false, s.fail("loading how far a scan has come", err)
	}
	return p, true, nil
}

// Begin keeps a new scan, at its first leaf. One with the same Given that is
// finished makes room for it; ErrConflict if it is not.
func (s *Scanning) Begin(ctx context.Context, l monitor.Log, p monitor.Position) error {
	r := s.Scan.Range
	if p.Next != r.From || r.From > r.To || r.To > math.MaxInt64 {
		return fmt.Errorf("log %q: a scan of leaves %d to %d that begins at %d", l.Origin, r.From, r.To, p.Next)
	}
	started := s.now()
	var id int64
	err := s.write(ctx, "beginning a scan", func(t *tx) error {
		log, err := t.logID(l)
		if err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM scan_finds WHERE scan_id IN (SELECT id FROM scans WHERE log_id = ? AND given = ? AND finished IS NOT NULL)`, log, s.Scan.Given); err != nil {
			return err
		}
		var finished any
		if r.From == r.To {
			finished = started.UnixMicro()
		}
		err = t.get(`INSERT INTO scans (log_id, given, bounds, first, past, next, range, started, finished) VALUES (?1, ?2, ?3, ?4, ?5, ?4, ?6, ?7, ?8)
			ON CONFLICT (log_id, given) DO UPDATE SET bounds = excluded.bounds, first = excluded.first, past = excluded.past, next = excluded.next,
				range = excluded.range, found = 0, started = excluded.started, finished = excluded.finished
				WHERE finished IS NOT NULL
			RETURNING id`, []any{log, s.Scan.Given, s.Scan.Bounds, int64(r.From), int64(r.To), join(p.Range), started.UnixMicro(), finished}, &id)
		if errors.Is(err, sql.ErrNoRows) {
			return monitor.ErrConflict
		}
		return err
	})
	if err != nil {
		return err
	}
	s.Scan.ID, s.Scan.Log, s.Scan.Next, s.Scan.Found, s.Scan.Started = id, l, p.Next, 0, started
	if r.From == r.To {
		s.Scan.Finished = started
	}
	return nil
}

// maxFinds bounds the leaves kept of one scan. Anybody can log as many as they like
// that name somebody else; the rest are counted.
const maxFinds = 10_000

// Commit implements monitor.Store.
func (s *Scanning) Commit(ctx context.Context, b monitor.Batch) error {
	if err := whole(b); err != nil {
		return err
	}
	var finds []monitor.Leaf
	for i := range b.Leaves {
		if s.Match != nil && s.Match(b.Leaves[i], b.Hashes[i]) {
			finds = append(finds, b.Leaves[i])
		}
	}
	var finished any
	now := s.now()
	if b.To.Next == s.Scan.Range.To {
		finished = now.UnixMicro()
	}
	err := s.index(ctx, "indexing leaves of a scan", b.Log, func() (*sifting, error) {
		return s.sift(b.Log, b.Leaves, b.Hashes)
	}, func(t *tx, w *sifting) error {
		log, err := t.logID(b.Log)
		if err != nil {
			return err
		}
		n, err := t.exec(`UPDATE scans SET next = ?, range = ?, found = found + ?, finished = ? WHERE id = ? AND next = ? AND range = ?`,
			int64(b.To.Next), join(b.To.Range), len(finds), finished, s.Scan.ID, int64(b.From.Next), join(b.From.Range))
		if err != nil {
			return err
		}
		if n == 0 {
			return monitor.ErrConflict
		}
		for _, f := range finds {
			if _, err := t.exec(`INSERT INTO scan_finds (scan_id, idx, body, integrated, set_sig) SELECT ?1, ?2, ?3, ?4, ?5
				WHERE (SELECT found FROM scans WHERE id = ?1) <= ?6`, s.Scan.ID, int64(f.Index), blob(f.Data), f.IntegratedTime, f.SET, maxFinds); err != nil {
				return err
			}
		}
		if err := t.cover(log, b.From.Next, b.To.Next); err != nil {
			return err
		}
		return s.save(t, w, log, b.Head, nil)
	})
	if err != nil {
		return err
	}
	s.Scan.Next, s.Scan.Found = b.To.Next, s.Scan.Found+uint64(len(finds))
	if finished != nil {
		s.Scan.Finished = now
	}
	return nil
}

// Finds calls each for every leaf that was kept of a scan, in the order of the log.
func (s *Store) Finds(ctx context.Context, c Scan, each func(Stored) error) error {
	err := s.each(ctx, `SELECT idx, body, integrated, set_sig FROM scan_finds WHERE scan_id = ? ORDER BY idx`, []any{c.ID}, func(scan scan) error {
		f := found{}
		if err := scan(&f.leaf.Index, &f.leaf.Data, &f.leaf.IntegratedTime, &f.leaf.SET); err != nil {
			return err
		}
		f.hash = monitor.HashLeaf(f.leaf.Data)
		f.entry, f.kind = decode(f.leaf.Data)
		f.setValid = s.timeSigned(c.Log, f.leaf)
		s.examine(&f)
		return each(Stored{Log: c.Log, Leaf: f.leaf, Hash: f.hash, Entry: f.entry, Signer: f.signer, SETValid: f.setValid, Trust: f.trust})
	})
	if err != nil {
		return s.fail("reading what a scan has found", err)
	}
	return nil
}

// HeadsAround returns the largest verified head that was seen before a time, and
// the first not smaller than it that the log itself showed from then on. Zero where
// there is none.
func (s *Store) HeadsAround(ctx context.Context, l monitor.Log, at time.Time) (before, after monitor.Head, err error) {
	before, _, err = s.head(ctx, l, "loading a head of before a time", `SELECT `+headColumns+` FROM heads h JOIN logs l ON l.id = h.log_id
		WHERE l.origin = ? AND l.key_id = ? AND h.verified = 1 AND h.seen < ? ORDER BY h.size DESC LIMIT 1`, at.UnixMicro())
	if err != nil {
		return before, after, err
	}
	after, _, err = s.head(ctx, l, "loading a head of after a time", `SELECT `+headColumns+` FROM heads h JOIN logs l ON l.id = h.log_id
		WHERE l.origin = ? AND l.key_id = ? AND h.verified = 1 AND h.source = '' AND h.seen >= ? AND h.size >= ? ORDER BY h.seen, h.size LIMIT 1`, at.UnixMicro(), int64(before.Size))
	return before, after, err
}
