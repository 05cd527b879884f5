package index

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sigtrail/monitor"
)

// killedWriter is what a child process runs until it is killed: it goes on from
// the stored position, commits small batches, and says so after each.
func killedWriter(t *testing.T, path string) {
	s := openAt(t, path, Options{})
	pos, found, err := s.Position(t.Context(), testLog)
	ok(t, err)
	if !found {
		ok(t, s.Begin(t.Context(), testLog, monitor.Position{}))
	}
	tr := &tree{log: testLog, pos: pos}
	sg := newSigning(t, "o/r")
	for {
		n := int(tr.pos.Next)
		var leaves [][]byte
		for i := range 50 {
			leaves = append(leaves, sg.noise(n+i))
		}
		leaves[0] = sg.attest(t, aFile("p", "1"))
		ok(t, s.Commit(t.Context(), tr.batch(t, leaves...)))
		fmt.Println("committed", tr.pos.Next)
	}
}

// After kill -9 at any moment, the position, the coverage and the rows agree.
func TestKill(t *testing.T) {
	if path := os.Getenv("SIGTRAIL_TEST_KILLED_WRITER"); path != "" {
		killedWriter(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	s := openAt(t, path, Options{})
	listFiles(t, s, "p", 1, aFile("p", "1"))
	ok(t, s.Close())
	last := uint64(0)
	for round := range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		child.Env = append(os.Environ(), "SIGTRAIL_TEST_KILLED_WRITER="+path)
		out, err := child.StdoutPipe()
		ok(t, err)
		ok(t, child.Start())
		said := uint64(0)
		for range 3 + 2*round {
			if _, err := fmt.Fscanf(out, "committed %d\n", &said); err != nil {
				t.Fatalf("the writer stopped by itself: %v", err)
			}
		}
		ok(t, child.Process.Kill())
		_ = child.Wait()
		cancel()

		s := openAt(t, path, Options{})
		pos, _, err := s.Position(t.Context(), testLog)
		ok(t, err)
		n := int(pos.Next)
		if pos.Next < said || pos.Next <= last || n%50 != 0 {
			t.Errorf("position %d after %d was reported", pos.Next, said)
		}
		if k := countRows(t, s, `SELECT count(*) FROM coverage WHERE first = 0 AND past = ?`, n); k != 1 {
			t.Errorf("coverage is not [0, %d)", n)
		}
		if k := countRows(t, s, `SELECT count(*) FROM unbound`) + countRows(t, s, `SELECT count(*) FROM entries`); k != n {
			t.Errorf("%d rows for %d leaves", k, n)
		}
		if k := countRows(t, s, `SELECT count(*) FROM bindings`); k != n/50 {
			t.Errorf("%d bindings for %d batches", k, n/50)
		}
		if root, err := pos.Root(); err != nil {
			t.Errorf("the range does not fold: %v %s", err, root)
		}
		last = pos.Next
		ok(t, s.Close())
	}
}
