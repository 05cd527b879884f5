package index

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
)

const journalSerial = "journal_serial"

// SaveJournal stores lines of PyPI's changelog, and that it has been read up to
// and with upTo: no lines and a serial set where the reading begins.
func (s *Store) SaveJournal(ctx context.Context, rows []JournalRow, upTo int64) error {
	return s.write(ctx, "storing journal lines", func(t *tx) error {
		for _, r := range rows {
			version := sql.NullString{}
			if r.Version != nil {
				version = sql.NullString{String: *r.Version, Valid: true}
			}
			if _, err := t.exec(`INSERT OR IGNORE INTO journal (serial, project, name, version, at, action) VALUES (?, ?, ?, ?, ?, ?)`,
				r.Serial, r.Project, r.Name, version, r.At.UnixMicro(), r.Action); err != nil {
				return fmt.Errorf("line %d: %w", r.Serial, err)
			}
		}
		_, err := t.exec(`INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value
			WHERE CAST(excluded.value AS INTEGER) > CAST(value AS INTEGER)`, journalSerial, strconv.FormatInt(upTo, 10))
		return err
	})
}

// Serial returns up to where the changelog has been read, false if never.
func (s *Store) Serial(ctx context.Context) (int64, bool, error) {
	value, ok, err := s.Setting(ctx, journalSerial)
	if err != nil || !ok {
		return 0, false, err
	}
	serial, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, false, s.fail("reading the journal's serial", err)
	}
	return serial, true, nil
}
