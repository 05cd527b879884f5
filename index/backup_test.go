package index

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A backup is taken while the monitor writes, and holds one moment: as many rows as
// its position says.
func TestBackupWhileWriting(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "a.db"), filepath.Join(dir, "copy.db")
	s := openAt(t, path, Options{})
	tr := begin(t, s, testLog)
	sg := newSigning(t, "o/r")
	stop, stopped := make(chan struct{}), make(chan error)
	written := make(chan struct{}, 1)
	go func() {
		for n := 0; ; n += 10 {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			var leaves [][]byte
			for i := range 10 {
				leaves = append(leaves, sg.noise(n+i))
			}
			if err := s.Commit(t.Context(), tr.batch(t, leaves...)); err != nil {
				stopped <- err
				return
			}
			select {
			case written <- struct{}{}:
			default:
			}
		}
	}()
	<-written
	ok(t, os.WriteFile(to+".part", []byte("left by a backup that was killed"), 0o600))
	ok(t, Backup(t.Context(), path, to, quiet))
	<-written // it still writes
	close(stop)
	ok(t, <-stopped)
	if _, err := os.Stat(to + ".part"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the part is still there: %v", err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info.Mode(), err)
	}
	c := openAt(t, to, Options{})
	pos, _, err := c.Position(t.Context(), testLog)
	ok(t, err)
	if n := countRows(t, c, `SELECT count(*) FROM unbound`); pos.Next == 0 || n != int(pos.Next) {
		t.Errorf("%d rows at position %d", n, pos.Next)
	}
	// The copy is a database to go on with.
	next := tree{log: testLog, pos: pos}
	ok(t, c.Commit(t.Context(), next.batch(t, sg.noise(-1))))
	if err := Backup(t.Context(), path, to, quiet); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("over an older backup: %v", err)
	}
}

func TestBackupOfDamage(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "a.db"), filepath.Join(dir, "copy.db")
	s := aStore(t, path)
	_, err := s.writer.conn.ExecContext(t.Context(), `UPDATE signers SET fingerprint = zeroblob(32)`)
	ok(t, err)
	if err := Backup(t.Context(), path, to, quiet); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "fingerprint") {
		t.Errorf("a backup of a damaged database: %v", err)
	}
	left, err := filepath.Glob(to + "*")
	ok(t, err)
	if len(left) != 0 {
		t.Errorf("it leaves %v", left)
	}
}

func TestVacuum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := aStore(t, path)
	if _, _, err := Vacuum(t.Context(), path); !errors.Is(err, ErrInUse) {
		t.Fatalf("beside a monitor: %v", err)
	}
	_, err := s.writer.conn.ExecContext(t.Context(), `DELETE FROM unbound; UPDATE settings SET value = 0 WHERE key = '`+unboundCount+`'`)
	ok(t, err)
	ok(t, s.Close())
	before, after, err := Vacuum(t.Context(), path)
	ok(t, err)
	info, err := os.Stat(path)
	ok(t, err)
	if after >= before || info.Size() != after {
		t.Errorf("%d bytes have become %d, and the file is of %d", before, after, info.Size())
	}
	if damage, err := Check(t.Context(), path, quiet); damage != nil || err != nil {
		t.Errorf("%q, %v", damage, err)
	}
}
