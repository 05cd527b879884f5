package index

import (
	"context"
	"database/sql"
	"time"

	"sigtrail/monitor"
)

// A LogExtent is how far one log has been looked at, in few numbers whatever its
// history.
type LogExtent struct {
	Log      monitor.Log
	Size     uint64    // of the newest verified head
	Seen     time.Time // of that head, our clock; zero: no head yet
	Began    uint64    // of the tail; with Next
	Next     *uint64   // the tail's position; nil: entries are looked up only
	Conflict bool      // it has contradicted itself
}

// LogExtents says how far each log has been looked at, by origin.
func (s *Store) LogExtents(ctx context.Context) ([]LogExtent, error) {
	var all []LogExtent
	err := s.each(ctx, `SELECT `+logColumns+`, coalesce(h.size, 0), h.seen, coalesce(l.began, 0), l.next,
		EXISTS (SELECT 1 FROM contradictions c WHERE c.log_id = l.id AND c.kind NOT IN ('`+monitor.Stalled+`', '`+monitor.CoverageGap+`'))
		FROM logs l LEFT JOIN heads h ON h.id = (SELECT id FROM heads WHERE log_id = l.id AND verified = 1 ORDER BY size DESC, id LIMIT 1) ORDER BY l.origin, l.id`, nil, func(scan scan) error {
		var r logRow
		var x LogExtent
		var seen, next sql.NullInt64
		if err := scan(append(r.dest(), &x.Size, &seen, &x.Began, &next, &x.Conflict)...); err != nil {
			return err
		}
		x.Seen = timeOf(seen)
		if next.Valid {
			n := uint64(next.Int64)
			x.Next = &n
		}
		var err error
		x.Log, err = r.value()
		all = append(all, x)
		return err
	})
	if err != nil {
		return nil, s.fail("reading how far the logs were looked at", err)
	}
	return all, nil
}

// CoveredRanges returns the newest proven and indexed ranges of a log, in order and at
// most limit, and how many ranges and leaves there are in all.
func (s *Store) CoveredRanges(ctx context.Context, l monitor.Log, limit int) (newest []monitor.Range, ranges int, leaves uint64, err error) {
	const of = ` FROM coverage WHERE log_id = (SELECT id FROM logs WHERE origin = ? AND key_id = ?)`
	if err := s.db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(past - first), 0)`+of, l.Origin, l.KeyID[:]).Scan(&ranges, &leaves); err != nil {
		return nil, 0, 0, s.fail("counting what is covered of a log", err)
	}
	err = s.each(ctx, `SELECT first, past FROM (SELECT first, past`+of+` ORDER BY first DESC LIMIT ?) ORDER BY first`, []any{l.Origin, l.KeyID[:], limit}, func(scan scan) error {
		var r monitor.Range
		err := scan(&r.From, &r.To)
		newest = append(newest, r)
		return err
	})
	if err != nil {
		return nil, 0, 0, s.fail("reading what is covered of a log", err)
	}
	return newest, ranges, leaves, nil
}
