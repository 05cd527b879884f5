package index

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"sigtrail/monitor"
)

func scanning(s *Store, given string, from, to uint64) *Scanning {
	return &Scanning{Store: s, Scan: Scan{Log: testLog, Given: given, Range: monitor.Range{From: from, To: to}}, Match: func(monitor.Leaf, monitor.Hash) bool { return true }}
}

// Two commands that run the same scan do not both count what one of them has read,
// and a scan moves no tail.
func TestScanConflict(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	daemon := openAt(t, path, Options{})
	sg := newSigning(t, "o/r")
	tr := begin(t, daemon, testLog)
	before := tr.pos
	b := tr.batch(t, sg.noise(1), sg.noise(2))
	rest := tr.batch(t, sg.noise(3))

	first := scanning(openBeside(t, path), "{}", 0, 3)
	ok(t, first.Begin(t.Context(), testLog, monitor.Position{}))
	if err := scanning(daemon, "{}", 0, 3).Begin(t.Context(), testLog, monitor.Position{}); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("the same scan begun twice: %v", err)
	}
	scans, err := daemon.Scans(t.Context(), testLog)
	ok(t, err)
	second := &Scanning{Store: daemon, Scan: scans[0], Match: first.Match}
	ok(t, first.Commit(t.Context(), b))
	if err := second.Commit(t.Context(), b); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("the same batch twice: %v", err)
	}
	if pos, _, err := second.Position(t.Context(), testLog); pos.Next != 2 || err != nil {
		t.Errorf("position %d %v", pos.Next, err)
	}
	if pos, _, err := daemon.Position(t.Context(), testLog); pos.Next != before.Next || err != nil {
		t.Errorf("the tail is at %d", pos.Next)
	}
	ok(t, second.Commit(t.Context(), rest))
	scans, err = daemon.Scans(t.Context(), testLog)
	if err != nil || len(scans) != 1 || scans[0].Finished.IsZero() || scans[0].Found != 3 || scans[0].Next != 3 {
		t.Errorf("scans: %+v %v", scans, err)
	}
	ok(t, daemon.Commit(t.Context(), b)) // the tail comes by later
	if n := countRows(t, daemon, `SELECT count(*) FROM coverage WHERE first = 0 AND past = 3`); n != 1 {
		t.Error("coverage is not [0, 3)")
	}
	if n := countRows(t, daemon, `SELECT count(*) FROM unbound`); n != 3 {
		t.Errorf("%d unbound rows of 3 leaves", n)
	}
	expectCounts(t, daemon)

	// Finished, it can be run again, from the start.
	again := scanning(daemon, "{}", 0, 3)
	ok(t, again.Begin(t.Context(), testLog, monitor.Position{}))
	if n := countRows(t, daemon, `SELECT count(*) FROM scan_finds`); n != 0 || again.Scan.Next != 0 || !again.Scan.Finished.IsZero() {
		t.Errorf("%d finds of before, %+v", n, again.Scan)
	}
}

// A log full of entries that match fills no disk: the first are kept, all are counted.
func TestScanFindsBounded(t *testing.T) {
	s := openTest(t, Options{})
	const batch = maxFinds/2 - 1
	tr := &tree{log: testLog}
	c := scanning(s, "{}", 0, 4*batch)
	ok(t, c.Begin(t.Context(), testLog, tr.pos))
	for range 4 {
		var leaves [][]byte
		for range batch {
			leaves = append(leaves, []byte("a leaf"))
		}
		ok(t, c.Commit(t.Context(), tr.batch(t, leaves...)))
	}
	kept := 0
	ok(t, s.Finds(t.Context(), c.Scan, func(Stored) error { kept++; return nil }))
	if c.Scan.Found != 4*batch || kept != 2*batch {
		t.Errorf("%d found, %d kept", c.Scan.Found, kept)
	}
}

func TestHeadsAround(t *testing.T) {
	s := openTest(t, Options{})
	tr := &tree{log: testLog}
	ours := monitor.Head{}
	for i := range 4 {
		tr.batch(t, []byte{byte(i)})
		h := headAt(t, testLog, tr.pos)
		h.Seen = storeEpoch.Add(time.Duration(i) * time.Hour)
		if i == 2 {
			h.Source = "somebody else"
		}
		ok(t, s.SaveHead(t.Context(), testLog, h, ours))
		ours = h
	}
	for _, c := range []struct {
		after         time.Duration
		before, later uint64
	}{
		{-time.Minute, 0, 1},
		{0, 0, 1},
		{time.Minute, 1, 2},
		{90 * time.Minute, 2, 4}, // what somebody else shows says nothing of when
		{3 * time.Hour, 3, 4},
		{4 * time.Hour, 4, 0},
	} {
		before, after, err := s.HeadsAround(t.Context(), testLog, storeEpoch.Add(c.after))
		if err != nil || before.Size != c.before || after.Size != c.later {
			t.Errorf("%s: %d and %d, want %d and %d (%v)", c.after, before.Size, after.Size, c.before, c.later, err)
		}
	}
}
