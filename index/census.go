package index

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// A Named is a project as the list of all of an index's projects names it.
type Named struct {
	Project string // PEP 503
	Serial  int64  // of its newest change; 0: not given
}

// Enlist has projects watched, and those of them read of which no listing is stored
// that is as new as its serial.
func (c *Catalogue) Enlist(ctx context.Context, projects []Named) error {
	now := c.s.now().UnixMicro()
	return c.s.write(ctx, "enlisting projects", func(t *tx) error {
		for _, p := range projects {
			if _, err := t.exec(`INSERT OR IGNORE INTO watched (index_id, project) VALUES (?, ?)`, c.id, p.Project); err != nil {
				return err
			}
			if _, err := t.exec(`INSERT INTO listing_work (index_id, project, serial, why, state, since, next) SELECT ?1, ?2, ?3, 'bootstrap', 'due', ?4, ?4
				WHERE NOT EXISTS (SELECT 1 FROM projects WHERE index_id = ?1 AND name = ?2 AND listed IS NOT NULL AND serial >= ?3)
				ON CONFLICT (index_id, project) DO UPDATE SET serial = max(serial, excluded.serial)`, c.id, p.Project, p.Serial, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// Enlisted takes in that the list of all projects has been read whole.
func (c *Catalogue) Enlisted(ctx context.Context) error {
	return c.s.write(ctx, "taking in the list of all projects", func(t *tx) error {
		_, err := t.exec(`INSERT INTO readings (index_id, census) VALUES (?1, ?2) ON CONFLICT (index_id) DO UPDATE SET census = ?2`, c.id, c.s.now().UnixMicro())
		return err
	})
}

// Census is when the list of all projects had been read whole; the zero time if it has
// not since every project is watched.
func (c *Catalogue) Census(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	err := c.s.db.QueryRowContext(ctx, `SELECT census FROM readings WHERE index_id = ?`, c.id).Scan(&at)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, c.s.fail("reading when all projects were listed", err)
	}
	return timeOf(at), nil
}

// A PastJournal is the reading of rows from before the journal was followed.
type PastJournal struct {
	From, Next, End int64 // serials; the rows beyond Next up to and with End are to be read
}

// PastJournal returns how far the older journal has been read, false if that was never
// begun.
func (c *Catalogue) PastJournal(ctx context.Context) (p PastJournal, ok bool, err error) {
	err = c.s.db.QueryRowContext(ctx, `SELECT past_from, past_next, past_end FROM readings WHERE index_id = ? AND past_from IS NOT NULL`, c.id).Scan(&p.From, &p.Next, &p.End)
	if errors.Is(err, sql.ErrNoRows) {
		return p, false, nil
	}
	if err != nil {
		return p, false, c.s.fail("reading how far the older journal was read", err)
	}
	return p, true, nil
}

// SavePastJournal stores those rows of the older journal that concern a watched
// project, and moves on how far it has been read, unless that was moved meanwhile. The
// rows make no work: listings show what has come of them.
func (c *Catalogue) SavePastJournal(ctx context.Context, rows []JournalRow, before, after PastJournal, all bool) (kept int, err error) {
	begun := before != PastJournal{}
	err = c.s.write(ctx, "storing older journal lines", func(t *tx) error {
		mine, err := t.watchedRows(c.id, rows, all)
		if err != nil {
			return err
		}
		kept = len(mine)
		if err := t.saveJournal(c.id, mine, 0, c.s.now()); err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO readings (index_id, past_from, past_next, past_end) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT (index_id) DO UPDATE SET past_from = ?2, past_next = ?3, past_end = ?4 WHERE past_next IS ?5 AND past_end IS ?6`, c.id, after.From, after.Next, after.End,
			sql.NullInt64{Int64: before.Next, Valid: begun}, sql.NullInt64{Int64: before.End, Valid: begun})
		return err
	})
	return kept, err
}
