package index

import (
	"context"
	"database/sql"
	"errors"
)

// Setting returns a value kept under a key, false if there is none.
func (s *Store) Setting(ctx context.Context, key string) (string, bool, error) {
	var value string
	err := s.db.QueryRowContext(ctx, `SELECT value FROM settings WHERE key = ?`, key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, s.fail("reading a setting", err)
	}
	return value, true, nil
}

// SetSetting keeps a value under a key.
func (s *Store) SetSetting(ctx context.Context, key, value string) error {
	return s.write(ctx, "keeping a setting", func(t *tx) error { return t.set(key, value) })
}

func (t *tx) set(key, value string) error {
	_, err := t.exec(`INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
	return err
}
