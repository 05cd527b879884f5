package index

import (
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// ErrFull reports that the disk, or a limit on the database, left no room. What
// was being written is not there; nothing else is lost.
var ErrFull = errors.New("no room left to write")

// fail says what was being done, to which file, and what a person can do about it.
func (s *Store) fail(doing string, err error) error { return failure(s.path, doing, err) }

func failure(path, doing string, err error) error {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: database %s: %w", doing, path, err)
	}
	switch e.Code {
	case sqlite3.ErrFull:
		return fmt.Errorf("%s: database %s: %w: %w; make room on its disk, nothing but this write is lost and it will be tried again", doing, path, ErrFull, err)
	case sqlite3.ErrNotADB:
		return fmt.Errorf("%s: %s: %w; it exists and is no SQLite database, choose another path", doing, path, err)
	case sqlite3.ErrCorrupt:
		return fmt.Errorf("%s: database %s: %w; look what is left with \"monitor db check FILE\" and restore a backup", doing, path, err)
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		return fmt.Errorf("%s: database %s: %w; another program holds it for writing, end that program", doing, path, err)
	case sqlite3.ErrCantOpen:
		return fmt.Errorf("%s: database %s: %w; check that it exists, or that its folder exists and may be written to", doing, path, err)
	case sqlite3.ErrReadonly, sqlite3.ErrPerm, sqlite3.ErrAuth:
		return fmt.Errorf("%s: database %s: %w; check the owner and mode of the file, of its -wal and -shm, and of their folder", doing, path, err)
	case sqlite3.ErrIoErr:
		return fmt.Errorf("%s: database %s: %w; the disk failed, look at the system's log", doing, path, err)
	}
	return fmt.Errorf("%s: database %s: %w", doing, path, err)
}
