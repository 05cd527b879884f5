package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrDamaged reports that a copy does not hold what its original should.
var ErrDamaged = errors.New("the database is damaged")

// Backup copies a database, of one moment, to a file that does not exist yet: beside a
// running monitor too, which goes on writing meanwhile. The copy is written to
// TO.part, checked as Check does, and only then given its name. What is left of a
// backup that was killed is that .part, which the next one replaces. progress is told
// each step. ErrDamaged.
func Backup(ctx context.Context, path, to string, progress func(string)) (err error) {
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(fmt.Errorf("backup to %s: it exists; choose another name or remove it", to), err)
	}
	part := to + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("backup to %s: removing what an earlier one left: %w", to, err)
	}
	// Made first, so that nobody else can read it: SQLite would ask the umask.
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("backup to %s: %w", to, err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	if err := copyInto(ctx, path, part, progress); err != nil {
		return failure(path, "copying to "+part, err)
	}
	damage, err := Check(ctx, part, func(step string) { progress("checking the copy: " + step) })
	if err != nil {
		return err
	}
	if damage != nil {
		return fmt.Errorf("backup to %s: %w, nothing is kept of it: %s", to, ErrDamaged, strings.Join(damage, "; "))
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("backup to %s: %w", to, err)
	}
	if err := os.Rename(part, to); err != nil {
		return fmt.Errorf("backup to %s: %w", to, err)
	}
	return syncFolder(filepath.Dir(to))
}

// copyInto has SQLite write the rows of one read transaction to another file, packed.
// Copying pages instead would begin again with each commit of the monitor's.
func copyInto(ctx context.Context, path, part string, progress func(string)) error {
	s, err := OpenReadOnly(ctx, path)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite3", dsn(path, url.Values{"mode": {"ro"}, "_busy_timeout": {"10000"}}))
	if err != nil {
		return err
	}
	defer db.Close()
	done := make(chan struct{})
	defer close(done)
	go tellSize(part, done, progress)
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, part)
	return err
}

// tellSize says now and then how far a copy is.
func tellSize(part string, done <-chan struct{}, progress func(string)) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			if info, err := os.Stat(part); err == nil {
				progress(fmt.Sprintf("copied %d MiB", info.Size()>>20))
			}
		}
	}
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Vacuum writes a database anew, without the room that deleted rows have left, and
// returns its size in bytes before and after. Nobody can write meanwhile, so that a
// monitor must not be running: ErrInUse. It needs room on the disk for the database
// once more, and leaves it as it was if it fails.
func Vacuum(ctx context.Context, path string) (before, after int64, err error) {
	if _, err := os.Stat(path); err != nil {
		return 0, 0, fmt.Errorf("%w; give the path of the monitor's database", err)
	}
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	size := func() (n int64) {
		if err == nil {
			err = s.writer.conn.QueryRowContext(ctx, `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`).Scan(&n)
		}
		return n
	}
	before = size()
	if err == nil {
		_, err = s.writer.conn.ExecContext(ctx, `VACUUM`)
	}
	after = size()
	if err != nil {
		return before, after, s.fail("vacuum", err)
	}
	return before, after, s.checkpoint(ctx)
}
