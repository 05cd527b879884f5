package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

func TestOpenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c%20#.db") // characters that mean something in a SQLite address
	s := openAt(t, path, Options{})
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("a second monitor: %v", err)
	}
	ok(t, s.SetSetting(t.Context(), "k", "v"))
	ok(t, s.Close())
	s = openAt(t, path, Options{})
	if v, found, err := s.Setting(t.Context(), "k"); v != "v" || !found || err != nil {
		t.Errorf("setting after reopening: %q %v %v", v, found, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestOpenWrongFiles(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	ok(t, os.WriteFile(text, []byte(strings.Repeat("not a database ", 500)), 0o600))
	other := filepath.Join(dir, "other.db")
	db, err := sql.Open("sqlite3", other)
	ok(t, err)
	_, err = db.Exec(`CREATE TABLE moz_places (id INTEGER)`)
	ok(t, err)
	ok(t, db.Close())
	newer := filepath.Join(dir, "newer.db")
	ok(t, openAt(t, newer, Options{}).Close())
	older := filepath.Join(dir, "older.db")
	ok(t, openAt(t, older, Options{}).Close())
	for path, version := range map[string]int{newer: 999, older: 0} {
		db, err := sql.Open("sqlite3", path)
		ok(t, err)
		_, err = db.Exec(`UPDATE goose_db_version SET version_id = ? WHERE version_id > 0`, version)
		ok(t, err)
		ok(t, db.Close())
	}
	for _, c := range []struct {
		path     string
		readOnly bool
		is       error
		says     string
	}{
		{text, false, nil, "no SQLite database"},
		{text, true, nil, "no SQLite database"},
		{other, false, ErrForeign, "another path"},
		{other, true, ErrForeign, "monitor's database"},
		{newer, false, ErrSchema, "newer sigtrail"},
		{newer, true, ErrSchema, "newer sigtrail"},
		{older, true, ErrSchema, "run monitor on it once"},
		{filepath.Join(dir, "absent.db"), true, os.ErrNotExist, "give the path"},
		{filepath.Join(dir, "no", "folder.db"), false, os.ErrNotExist, "folder exists"},
	} {
		open := func() (*Store, error) { return Open(t.Context(), c.path, Options{}) }
		if c.readOnly {
			open = func() (*Store, error) { return OpenReadOnly(t.Context(), c.path) }
		}
		s, err := open()
		if err == nil {
			s.Close()
		}
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s (read-only %v): %v", filepath.Base(c.path), c.readOnly, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "absent.db")); err == nil {
		t.Error("reading made a database")
	}
}

func TestReadOnlyWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	w := openAt(t, path, Options{})
	tr := begin(t, w, testLog)
	sg := newSigning(t, "o/r")
	ok(t, w.Commit(t.Context(), tr.batch(t, sg.noise(1))))

	r, err := OpenReadOnly(t.Context(), path)
	ok(t, err)
	defer r.Close()
	ok(t, w.Commit(t.Context(), tr.batch(t, sg.noise(2))))
	pos, _, err := r.Position(t.Context(), testLog)
	if err != nil || pos.Next != 2 {
		t.Errorf("a reader sees position %d, %v", pos.Next, err)
	}
	if err := r.SetSetting(t.Context(), "k", "v"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("writing through a reader: %v", err)
	}
	// In the middle of a transaction: the reader neither waits nor sees it.
	ok(t, w.write(t.Context(), "test", func(x *tx) error {
		if err := x.set("half", "done"); err != nil {
			return err
		}
		_, found, err := r.Setting(t.Context(), "half")
		if found || err != nil {
			t.Errorf("a reader sees an uncommitted row: %v %v", found, err)
		}
		return nil
	}))
}

func TestReadOnlyCopy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sigtrail.db")
	w := openAt(t, path, Options{})
	ok(t, w.SetSetting(t.Context(), "k", "v"))
	ok(t, w.Close())
	copied, err := os.ReadFile(path)
	ok(t, err)
	folder := filepath.Join(dir, "evidence")
	ok(t, os.Mkdir(folder, 0o700))
	ok(t, os.WriteFile(filepath.Join(folder, "copy.db"), copied, 0o400))
	ok(t, os.Chmod(folder, 0o500))
	t.Cleanup(func() { _ = os.Chmod(folder, 0o700) })
	r, err := OpenReadOnly(t.Context(), filepath.Join(folder, "copy.db"))
	ok(t, err)
	defer r.Close()
	if v, _, err := r.Setting(t.Context(), "k"); v != "v" || err != nil {
		t.Errorf("%q %v", v, err)
	}
}

func TestTransactionsAreWhole(t *testing.T) {
	s := openTest(t, Options{})
	boom := errors.New("boom")
	called := false
	err := s.write(t.Context(), "test", func(x *tx) error {
		x.then(func() { called = true })
		if err := x.set("a", "1"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	if _, found, _ := s.Setting(t.Context(), "a"); found || called {
		t.Errorf("a failed transaction left something: row %v, call %v", found, called)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.SetSetting(ctx, "a", "1"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	ok(t, s.SetSetting(t.Context(), "a", "1"))
}

func TestFullDisk(t *testing.T) {
	s := openTest(t, Options{})
	tr := begin(t, s, testLog)
	sg := newSigning(t, "o/r")
	pages := countRows(t, s, `PRAGMA page_count`)
	limit := func(n int) {
		var now int
		ok(t, s.writer.conn.QueryRowContext(t.Context(), fmt.Sprintf(`PRAGMA max_page_count = %d`, n)).Scan(&now))
	}
	limit(pages)
	var leaves [][]byte
	for i := range 2000 {
		leaves = append(leaves, sg.noise(i))
	}
	b := tr.batch(t, leaves...)
	err := s.Commit(t.Context(), b)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("a full disk: %v", err)
	}
	if pos, _, err := s.Position(t.Context(), testLog); pos.Next != 0 || err != nil {
		t.Errorf("the position moved to %d, %v", pos.Next, err)
	}
	limit(1 << 20)
	ok(t, s.Commit(t.Context(), b))
	if n := countRows(t, s, `SELECT count(*) FROM unbound`); n != 2000 {
		t.Errorf("%d unbound leaves", n)
	}
}

func TestHeads(t *testing.T) {
	s := openTest(t, Options{})
	if _, found, err := s.Latest(t.Context(), testLog); found || err != nil {
		t.Errorf("a head of nothing: %v", err)
	}
	tr := &tree{log: testLog}
	tr.batch(t, []byte("a"))
	small := headAt(t, testLog, tr.pos)
	tr.batch(t, []byte("b"))
	large := headAt(t, testLog, tr.pos)
	ok(t, s.SaveHead(t.Context(), testLog, large, monitor.Head{}))
	ok(t, s.SaveHead(t.Context(), testLog, small, large))
	resigned := small
	resigned.Note = []byte("signed again")
	ok(t, s.SaveHead(t.Context(), testLog, resigned, large))
	if got, found, err := s.Latest(t.Context(), testLog); !found || err != nil || cmp.Diff(large, got) != "" {
		t.Errorf("latest: %v %s", err, cmp.Diff(large, got))
	}
	if got, found, err := s.HeadAt(t.Context(), testLog, 1); !found || err != nil || cmp.Diff(small, got) != "" {
		t.Errorf("by size: %v %s", err, cmp.Diff(small, got))
	}
	other := testLog
	other.KeyID = monitor.Hash{2}
	if _, found, err := s.Latest(t.Context(), other); found || err != nil {
		t.Errorf("another key is another log: %v", err)
	}
}

func TestContradictions(t *testing.T) {
	s := openTest(t, Options{})
	tr := &tree{log: testLog}
	tr.batch(t, []byte("a"))
	ours := headAt(t, testLog, tr.pos)
	ok(t, s.SaveHead(t.Context(), testLog, ours, monitor.Head{}))
	theirs := headAt(t, testLog, (&tree{log: testLog}).batch(t, []byte("x")).To)
	c := monitor.Contradiction{Kind: monitor.Equivocation, Log: testLog, Ours: ours, Theirs: theirs, Subject: "1", Detail: "two roots", Proof: []monitor.Hash{{5}}, At: storeEpoch}
	ok(t, s.Contradict(t.Context(), c))
	again := c
	again.Theirs.Note = []byte("the same text signed afresh")
	ok(t, s.Contradict(t.Context(), again))
	if n := countRows(t, s, `SELECT count(*) FROM contradictions`); n != 1 {
		t.Errorf("%d contradictions on record", n)
	}
	if got, _, _ := s.HeadAt(t.Context(), testLog, 1); got.Root != ours.Root {
		t.Error("the other side of a contradiction was taken for verified")
	}
	cases := allCases(t, s)
	if len(cases) != 1 || cases[0].Contradiction == nil {
		t.Fatalf("cases: %+v", cases)
	}
	got := cases[0].Contradiction
	if got.Kind != c.Kind || got.Detail != c.Detail || cmp.Diff(got.Proof, c.Proof) != "" || string(got.Ours.Note) != string(ours.Note) || string(got.Theirs.Note) != string(theirs.Note) {
		t.Errorf("contradiction came back as %+v", got)
	}
	if _, err := s.Decide(t.Context(), cases[0], Verdict{}); err != nil {
		t.Error(err)
	}
	if n := len(allCases(t, s)); n != 0 {
		t.Errorf("%d cases after the verdict", n)
	}
	statuses, err := s.LogStatuses(t.Context())
	if err != nil || len(statuses) != 1 || !statuses[0].Conflict {
		t.Errorf("status: %+v %v", statuses, err)
	}
}

// What was one side of a contradiction may turn out to be true: a replica lagged.
func TestContradictedHeadVerifiedLater(t *testing.T) {
	s := openTest(t, Options{})
	tr := &tree{log: testLog}
	tr.batch(t, []byte("a"))
	h := headAt(t, testLog, tr.pos)
	forged := h
	forged.Note = []byte("by another key")
	ok(t, s.Contradict(t.Context(), monitor.Contradiction{Kind: monitor.KeyChanged, Log: testLog, Theirs: forged, Subject: "0", At: storeEpoch}))
	if _, found, _ := s.Latest(t.Context(), testLog); found {
		t.Fatal("an unverified head is the latest")
	}
	ok(t, s.SaveHead(t.Context(), testLog, h, monitor.Head{}))
	if got, _, err := s.Latest(t.Context(), testLog); err != nil || string(got.Note) != string(h.Note) {
		t.Errorf("latest: %q %v", got.Note, err)
	}
}

func TestPositionConflict(t *testing.T) {
	s := openTest(t, Options{})
	tr := begin(t, s, testLog)
	if err := s.Begin(t.Context(), testLog, monitor.Position{}); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("a second begin: %v", err)
	}
	sg := newSigning(t, "o/r")
	b := tr.batch(t, sg.noise(1), sg.noise(2))
	ok(t, s.Commit(t.Context(), b))
	if err := s.Commit(t.Context(), b); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("the same batch twice: %v", err)
	}
	if n := countRows(t, s, `SELECT count(*) FROM unbound`); n != 2 {
		t.Errorf("%d unbound rows", n)
	}
	forked := tr.batch(t, sg.noise(3))
	forked.From.Range = []monitor.Hash{{7}}
	if err := s.Commit(t.Context(), forked); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("the same size with other hashes: %v", err)
	}
	short := b
	short.Leaves = short.Leaves[:1]
	if err := s.Commit(t.Context(), short); err == nil {
		t.Error("a batch that lacks a leaf was committed")
	}
}

// A gap and what says so are one: a position that was moved by somebody else leaves
// neither.
func TestSkip(t *testing.T) {
	s := openTest(t, Options{})
	tr := begin(t, s, testLog)
	from := tr.pos
	to := tr.batch(t, []byte("a"), []byte("b")).To
	gap := monitor.Contradiction{Kind: monitor.CoverageGap, Log: testLog, Subject: "0 to 2", Detail: "skipped", At: storeEpoch}
	ok(t, s.Skip(t.Context(), testLog, from, to, gap))
	gap.Subject = "again"
	if err := s.Skip(t.Context(), testLog, from, to, gap); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("a second skip from the same position: %v", err)
	}
	if cases := allCases(t, s); len(cases) != 1 || cases[0].Contradiction.Subject != "0 to 2" {
		t.Errorf("on record: %+v, want the first gap", cases)
	}
	if got, _, err := s.Position(t.Context(), testLog); err != nil || got.Next != 2 {
		t.Errorf("position %d, %v", got.Next, err)
	}
	if statuses, err := s.LogStatuses(t.Context()); err != nil || len(statuses) != 1 || statuses[0].Conflict {
		t.Errorf("status: %+v, %v; a gap accuses nobody", statuses, err)
	}
}

func TestCoverageAgainstPlainSet(t *testing.T) {
	s := openTest(t, Options{})
	rnd := rand.New(rand.NewPCG(1, 2))
	var log int64
	ok(t, s.write(t.Context(), "test", func(x *tx) (err error) { log, err = x.logID(testLog); return err }))
	plain := map[uint64]bool{}
	for round := range 400 {
		first := rnd.Uint64N(200)
		past := first + rnd.Uint64N(1+uint64(round)%20)
		ok(t, s.write(t.Context(), "test", func(x *tx) error { return x.cover(log, first, past) }))
		for i := first; i < past; i++ {
			plain[i] = true
		}
		var want []monitor.Range
		for i := uint64(0); i < 300; i++ {
			switch {
			case !plain[i]:
			case len(want) > 0 && want[len(want)-1].To == i:
				want[len(want)-1].To++
			default:
				want = append(want, monitor.Range{From: i, To: i + 1})
			}
		}
		st, err := s.LogStatuses(t.Context())
		ok(t, err)
		if diff := cmp.Diff(want, st[0].Coverage); diff != "" {
			t.Fatalf("after adding [%d, %d): %s", first, past, diff)
		}
	}
}
