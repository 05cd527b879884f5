package index

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// OpenBeside opens a database for writing while a monitor may be doing the same:
// for commands that add what they read or decide. It never makes or migrates the
// file, and every write waits for its turn for up to ten seconds. What the monitor
// keeps in memory of the tables it reads again when this store has added to them.
// ErrSchema, ErrForeign; an error that is os.ErrNotExist.
func OpenBeside(ctx context.Context, path string, o Options) (_ *Store, err error) {
	s := newStore(path, o)
	s.beside = true
	defer func() {
		if err != nil {
			err = errors.Join(failure(path, "opening beside a monitor", err), s.close())
		}
	}()
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w; give the path of the monitor's database", err)
	}
	if s.writer, err = openWriter(ctx, path, true); err != nil {
		return nil, err
	}
	return s, s.begin(ctx, o)
}

// watchGrowth is the setting that counts the transactions, of any process, that
// have added to what leaves are held against.
const watchGrowth = "watch_growth"

const selectGrowth = `SELECT coalesce((SELECT CAST(value AS INTEGER) FROM settings WHERE key = '` + watchGrowth + `'), 0)`

// catchUp is the beginning of every transaction, when nobody else can write. What
// another process has added since the last one is taken up; once a newer monitor
// has migrated the database, nothing is written any more.
func (s *Store) catchUp(t *tx) error {
	if s.beside {
		return t.sameSchema()
	}
	var growth uint64
	if err := t.get(selectGrowth, nil, &growth); err != nil || growth == s.growth {
		return err
	}
	if err := s.watch.load(t.each); err != nil {
		return fmt.Errorf("loading the expected digests that another process has stored: %w", err)
	}
	s.growth = growth
	return nil
}

// countGrowth is the end of every transaction.
func (s *Store) countGrowth(t *tx) error {
	if !t.grown {
		return nil
	}
	t.then(func() { s.growth++ })
	_, err := t.exec(`INSERT INTO settings (key, value) VALUES ('` + watchGrowth + `', 1) ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1`)
	return err
}

// generation moves whenever files were added that a sifting has not seen.
func (s *Store) generation(ctx context.Context) (uint64, error) {
	if !s.beside {
		return s.watch.generation(), nil // catchUp has moved it
	}
	var growth uint64
	err := s.db.QueryRowContext(ctx, selectGrowth).Scan(&growth)
	return growth, err
}

// sameSchema refuses to write once a newer monitor has migrated the database.
func (t *tx) sameSchema() error {
	var have int64
	if err := t.get(`SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied = 1`, nil, &have); err != nil {
		return err
	}
	if have != t.w.schema {
		return fmt.Errorf("%w: it has become schema %d and was %d when it was opened; start this command again from the sigtrail that migrated it", ErrSchema, have, t.w.schema)
	}
	return nil
}
