package index

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// ErrInUse reports that another monitor writes to the database.
var ErrInUse = errors.New("another monitor is using it")

// A fileLock keeps a second monitor off a database. SQLite's own locks would let
// both write in turn, and each would take the other's work for its own. The
// kernel drops the lock when its holder dies, however it dies.
type fileLock struct{ f *os.File }

func lockFile(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w; check that its folder exists and may be written to", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		return nil, fmt.Errorf("%w (process %s, lock %s); end it, or give this one another database", ErrInUse, strings.TrimSpace(string(holder[:n])), path)
	}
	// Who holds it, for the message above. It decides nothing, so failing to
	// write it matters to nobody.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return &fileLock{f}, nil
}

// release leaves the file: to remove it would race with the next holder.
func (l *fileLock) release() error { return l.f.Close() }
