package index

import (
	"context"
	"database/sql"
	"time"

	"sigtrail/monitor"
)

var _ monitor.ShownStore = (*Store)(nil)

// shownAtMost bounds what one source can have kept: it may show heads of logs that
// nobody follows, or that nobody has signed, for years.
const shownAtMost = 1000

// Show implements monitor.ShownStore. Of each source the newest shownAtMost stay.
func (s *Store) Show(ctx context.Context, heads []monitor.Shown) error {
	if len(heads) == 0 {
		return nil
	}
	return s.write(ctx, "keeping heads from elsewhere", func(t *tx) error {
		if err := t.show(heads); err != nil {
			return err
		}
		sources := make(map[string]bool)
		for _, h := range heads {
			if sources[h.Source] {
				continue
			}
			sources[h.Source] = true
			if _, err := t.exec(`DELETE FROM elsewhere WHERE source = ?1 AND id <= (SELECT id FROM elsewhere WHERE source = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, h.Source, shownAtMost); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *tx) show(heads []monitor.Shown) error {
	for _, h := range heads {
		origin, text, err := monitor.ReadNote(h.Note)
		if err != nil {
			continue // nothing that a log could have signed
		}
		if _, err := t.exec(`INSERT INTO elsewhere (note, source, seen, next) SELECT ?1, ?2, ?3, ?3
			WHERE NOT EXISTS (SELECT 1 FROM heads h JOIN logs l ON l.id = h.log_id WHERE l.origin = ?4 AND h.text = ?5 AND h.verified = 1)
			ON CONFLICT (note) DO NOTHING`, h.Note, h.Source, h.Seen.UnixMicro(), origin, text); err != nil {
			return err
		}
	}
	return nil
}

// ShownDue implements monitor.ShownStore.
func (s *Store) ShownDue(ctx context.Context, now time.Time, limit int) ([]monitor.Shown, error) {
	var due []monitor.Shown
	err := s.each(ctx, `SELECT id, note, source, seen, tries FROM elsewhere WHERE next <= ? ORDER BY next, id LIMIT ?`, []any{now.UnixMicro(), limit}, func(scan scan) error {
		var h monitor.Shown
		var seen sql.NullInt64
		err := scan(&h.ID, &h.Note, &h.Source, &seen, &h.Tries)
		h.Seen = timeOf(seen)
		due = append(due, h)
		return err
	})
	if err != nil {
		return nil, s.fail("reading which heads are to be compared", err)
	}
	return due, nil
}

// Compared implements monitor.ShownStore.
func (s *Store) Compared(ctx context.Context, h monitor.Shown) error {
	return s.write(ctx, "forgetting a head that has been compared", func(t *tx) error {
		_, err := t.exec(`DELETE FROM elsewhere WHERE id = ?`, h.ID)
		return err
	})
}

// NotCompared implements monitor.ShownStore.
func (s *Store) NotCompared(ctx context.Context, h monitor.Shown, why string, again time.Time) error {
	return s.write(ctx, "keeping why a head cannot be compared", func(t *tx) error {
		_, err := t.exec(`UPDATE elsewhere SET tries = tries + 1, next = ?, error = ? WHERE id = ?`, micros(again), why, h.ID)
		return err
	})
}

// ShownCount is how many heads from elsewhere wait to be compared, and how many
// never will be because the log has not signed them.
func (s *Store) ShownCount(ctx context.Context) (waiting, unsigned int, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT count(next), count(*) - count(next) FROM elsewhere`).Scan(&waiting, &unsigned)
	if err != nil {
		return 0, 0, s.fail("counting heads from elsewhere", err)
	}
	return waiting, unsigned, nil
}
