package index

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// SaveJournal stores lines of the index's changelog, and that it has been read up to
// and with upTo: no lines and a serial set where the reading begins.
func (c *Catalogue) SaveJournal(ctx context.Context, rows []JournalRow, upTo int64) error {
	return c.s.write(ctx, "storing journal lines", func(t *tx) error { return t.saveJournal(c.id, rows, upTo, c.s.now()) })
}

func (t *tx) saveJournal(index int64, rows []JournalRow, upTo int64, now time.Time) error {
	for _, r := range rows {
		version := sql.NullString{}
		if r.Version != nil {
			version = sql.NullString{String: *r.Version, Valid: true}
		}
		added, err := t.exec(`INSERT OR IGNORE INTO journal (index_id, serial, project, name, version, at, action) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			index, r.Serial, r.Project, r.Name, version, r.At.UnixMicro(), r.Action)
		if err == nil && added > 0 {
			err = t.tell(index, r, now)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", r.Serial, err)
		}
	}
	_, err := t.exec(`UPDATE indexes SET serial = max(coalesce(serial, ?1), ?1) WHERE id = ?2`, upTo, index)
	return err
}

// Serial returns up to where the changelog has been read, false if never.
func (c *Catalogue) Serial(ctx context.Context) (int64, bool, error) {
	var serial sql.NullInt64
	if err := c.s.db.QueryRowContext(ctx, `SELECT serial FROM indexes WHERE id = ?`, c.id).Scan(&serial); err != nil {
		return 0, false, c.s.fail("reading the journal's serial", err)
	}
	return serial.Int64, serial.Valid, nil
}
