package index

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

// killedReader is what a child process runs until it is killed: it reads listings and
// journal rows as they come, and says so after each.
func killedReader(t *testing.T, path string) {
	s := openAt(t, path, Options{})
	serial, _, err := s.PyPI().ListingSerial(t.Context(), "p")
	ok(t, err)
	for n := serial + 1; ; n++ {
		ok(t, s.PyPI().SaveJournal(t.Context(), []JournalRow{{Serial: n, Project: "p", Name: "p", At: storeEpoch, Action: "remove project"}}, n))
		listFiles(t, s, "p", n, listedAt(n)...)
		fmt.Println("saved", n)
	}
}

// listedAt are the files of a listing: they come, go, are yanked, and move.
func listedAt(serial int64) (files []File) {
	for i := range int64(6) {
		f := aFile("p", fmt.Sprint(i))
		if (serial+i)%3 == 0 {
			f.Yanked = new(string)
		}
		f.URL += fmt.Sprintf("?%d", serial/(i+1))
		if (serial+i)%4 != 0 {
			files = append(files, f)
		}
	}
	return files
}

// After kill -9 at any moment, what is stored is what the events say, and a listing
// that is read again adds none.
func TestKillEvents(t *testing.T) {
	if path := os.Getenv("SIGTRAIL_TEST_KILLED_READER"); path != "" {
		killedReader(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	for round := range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKillEvents$", "-test.count=1")
		child.Env = append(os.Environ(), "SIGTRAIL_TEST_KILLED_READER="+path)
		out, err := child.StdoutPipe()
		ok(t, err)
		ok(t, child.Start())
		said := int64(0)
		for range 3 + 5*round {
			if _, err := fmt.Fscanf(out, "saved %d\n", &said); err != nil {
				t.Fatalf("the reader stopped by itself: %v", err)
			}
		}
		ok(t, child.Process.Kill())
		_ = child.Wait()
		cancel()

		s := openAt(t, path, Options{})
		serial, _, err := s.PyPI().ListingSerial(t.Context(), "p")
		ok(t, err)
		if serial < said {
			t.Errorf("serial %d after %d was reported", serial, said)
		}
		before := checkEvents(t, s, serial)
		listFiles(t, s, "p", serial, listedAt(serial)...)
		if after := checkEvents(t, s, serial); after != before {
			t.Errorf("the same listing again: %d events became %d", before, after)
		}
		ok(t, s.Close())
	}
}

// checkEvents plays the events of p and holds what comes of them against the files of
// the listing. It returns how many there are.
func checkEvents(t *testing.T, s *Store, serial int64) (n int64) {
	t.Helper()
	type state struct {
		Listed, Yanked bool
		URL            string
	}
	played, want := map[string]state{}, map[string]state{}
	ok(t, s.Events(t.Context(), EventQuery{Project: "p", Limit: 1 << 20}, func(e PyPIEvent) error {
		if n++; e.N != n {
			t.Errorf("event %d after %d", e.N, n-1)
		}
		f := played[e.File]
		switch e.Kind {
		case EventFileListed, EventRestored:
			f.Listed = true
		case EventRemoved:
			f.Listed = false
			if e.Cause == nil || e.Cause.Serial != e.Serial {
				t.Errorf("removed at %d without the row of that serial", e.Serial)
			}
		case EventYanked:
			f.Yanked = true
		case EventUnyanked:
			f.Yanked = false
		case EventURL:
			f.URL = *e.After
		}
		if e.FileID != 0 {
			played[e.File] = f
		}
		return nil
	}))
	for name, f := range storedFiles(t, s, "p") {
		st := state{Listed: f.Gone.IsZero(), Yanked: f.Yanked != nil, URL: f.URL}
		if played[name].URL == "" {
			st.URL = "" // it has not moved
		}
		want[name] = st
	}
	if diff := cmp.Diff(want, played); diff != "" {
		t.Errorf("at %d (-stored +events):\n%s", serial, diff)
	}
	for _, f := range listedAt(serial) {
		if got := want[f.Name]; !got.Listed || got.Yanked != (f.Yanked != nil) {
			t.Errorf("at %d %s is stored as %+v", serial, f.Name, got)
		}
	}
	return n
}
