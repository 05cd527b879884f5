package index

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"sigtrail/monitor"
)

func openBeside(t testing.TB, path string) *Store {
	t.Helper()
	s, err := OpenBeside(t.Context(), path, Options{Trust: &fakeTrust{}, Now: func() time.Time { return storeEpoch.Add(time.Hour) }})
	ok(t, err)
	t.Cleanup(func() { ok(t, s.Close()) })
	return s
}

var otherLog = monitor.Log{Origin: "other.example", KeyID: monitor.Hash{2}, API: monitor.V2, URL: "https://other.example/api/v2/"}

func TestOpenBesideWrongFiles(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.db")
	if _, err := OpenBeside(t.Context(), missing, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no database: %v", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Error("it was made")
	}
	text := filepath.Join(dir, "text")
	ok(t, os.WriteFile(text, []byte(strings.Repeat("not a database ", 500)), 0o600))
	if _, err := OpenBeside(t.Context(), text, Options{}); err == nil {
		t.Error("a text was opened")
	}
	older := filepath.Join(dir, "older.db")
	s := openAt(t, older, Options{})
	ok(t, s.write(t.Context(), "going back", func(t *tx) error {
		_, err := t.exec(`DELETE FROM goose_db_version WHERE version_id > 1`)
		return err
	}))
	ok(t, s.Close())
	if _, err := OpenBeside(t.Context(), older, Options{}); !errors.Is(err, ErrSchema) {
		t.Errorf("an older schema: %v", err)
	}
}

// Whichever of the two stores a file or reads its leaf, and in whichever order,
// the leaf is bound.
func TestBesideShareFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	daemon := openAt(t, path, Options{})
	ok(t, daemon.SetLookupServers(t.Context(), []string{"https://v1.example"}, nil))
	beside := openBeside(t, path)
	sg := newSigning(t, "o/r")
	mine, theirs := begin(t, daemon, testLog), begin(t, beside, otherLog)
	want := 0
	for i, c := range []struct{ lists, reads *Store }{{daemon, beside}, {beside, daemon}, {beside, beside}, {daemon, daemon}, {beside, daemon}} {
		tr := mine
		if c.reads == beside {
			tr = theirs
		}
		before, after := aFile(fmt.Sprintf("before%d", i), "1"), aFile(fmt.Sprintf("after%d", i), "1")
		listFiles(t, c.lists, before.Project, 1, before)
		ok(t, c.reads.Commit(t.Context(), tr.batch(t, sg.noise(i), sg.attest(t, before))))
		b := tr.batch(t, sg.attest(t, after))
		ok(t, c.reads.Commit(t.Context(), b))
		listFiles(t, c.lists, after.Project, 1, after)
		wants, err := daemon.Wanted(t.Context(), tr.log.Origin, 10)
		ok(t, err)
		if len(wants) != 1 || wants[0].Log.Origin != tr.log.Origin || wants[0].Index != b.From.Next {
			t.Errorf("case %d: wanted after a file came later: %+v", i, wants)
		}
		ok(t, c.lists.CommitFound(t.Context(), proven(b, 0), 0))
		want += 2
	}
	if n := countRows(t, daemon, `SELECT count(DISTINCT file_id) FROM bindings WHERE evidence = 'statement' AND signature = ''`); n != want {
		t.Errorf("%d files bound, want %d", n, want)
	}
	if n := countRows(t, daemon, `SELECT count(*) FROM lookups WHERE server = 'https://v1.example'`); n != want {
		t.Errorf("%d look-ups for %d files", n, want)
	}
	expectCounts(t, daemon)
}

// expectCounts compares what is counted along with what is there.
func expectCounts(t *testing.T, s *Store) {
	t.Helper()
	rows, counted := countRows(t, s, `SELECT count(*) FROM unbound`), countRows(t, s, `SELECT CAST(value AS INTEGER) FROM settings WHERE key = ?`, unboundCount)
	if rows != counted {
		t.Errorf("%d unbound rows, %d counted", rows, counted)
	}
}

// Two stores at full speed: no leaf of a file is overlooked, whoever was first.
func TestBesideAtOnce(t *testing.T) {
	const files, batches = 60, 60
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	daemon := openAt(t, path, Options{})
	beside := openBeside(t, path)
	sg := newSigning(t, "o/r")
	trees := []*tree{begin(t, daemon, testLog), begin(t, beside, otherLog)}
	stores := []*Store{daemon, beside}
	var wg sync.WaitGroup
	for w := range stores {
		wg.Go(func() {
			for i := range files {
				f := aFile(fmt.Sprintf("p%d-%d", w, i), "1")
				if _, err := stores[w].PyPI().SaveListing(t.Context(), Listing{Project: f.Project, Serial: 1, Status: "active", Files: []File{f}, Fetched: storeEpoch}); err != nil {
					t.Error(err)
				}
			}
		})
		var prepared []monitor.Batch
		for i := range batches {
			prepared = append(prepared, trees[w].batch(t, sg.attest(t, aFile(fmt.Sprintf("p0-%d", i), "1")), sg.noise(i), sg.attest(t, aFile(fmt.Sprintf("p1-%d", i), "1"))))
		}
		wg.Go(func() {
			for _, b := range prepared {
				if err := stores[w].Commit(t.Context(), b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// What came before its file is wanted, all else is bound.
	for i, s := range stores {
		wanted := countRows(t, s, `SELECT count(*) FROM wanted`)
		bound := countRows(t, s, `SELECT count(*) FROM bindings WHERE evidence = 'statement'`)
		if wanted+bound != 2*2*files {
			t.Errorf("store %d: %d bound and %d wanted of %d", i, bound, wanted, 2*2*files)
		}
		expectCounts(t, s)
	}
	for _, tr := range trees {
		if n := countRows(t, daemon, `SELECT count(*) FROM coverage c JOIN logs l ON l.id = c.log_id WHERE l.origin = ? AND first = 0 AND past = ?`, tr.log.Origin, int(tr.pos.Next)); n != 1 {
			t.Errorf("coverage of %s is not [0, %d)", tr.log.Origin, tr.pos.Next)
		}
	}
}

// Once a newer monitor has migrated the database, nothing is written any more.
func TestBesideMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	daemon := openAt(t, path, Options{})
	beside := openBeside(t, path)
	ok(t, beside.SetSetting(t.Context(), "k", "v"))
	ok(t, daemon.write(t.Context(), "migrating", func(t *tx) error {
		_, err := t.exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`)
		return err
	}))
	if err := beside.SetSetting(t.Context(), "k", "w"); !errors.Is(err, ErrSchema) {
		t.Errorf("a write after a migration: %v", err)
	}
	if v, _, err := daemon.Setting(t.Context(), "k"); v != "v" || err != nil {
		t.Errorf("setting %q %v", v, err)
	}
}

// between is a store in which somebody else acts just before a head is kept.
type between struct {
	*Store
	act func()
}

func (b *between) SaveHead(ctx context.Context, l monitor.Log, h, ours monitor.Head) error {
	if act := b.act; act != nil {
		b.act = nil
		act()
	}
	return b.Store.SaveHead(ctx, l, h, ours)
}

// A log that shows one tree to the monitor and another to a command beside it, at
// the same moment, is caught by the slower of the two.
func TestBesideFork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	daemon := openAt(t, path, Options{})
	beside := openBeside(t, path)
	secret, public, err := note.GenerateKey(rand.Reader, testLog.Origin)
	ok(t, err)
	signer, err := note.NewSigner(secret)
	ok(t, err)
	verifier, err := note.NewVerifier(public)
	ok(t, err)
	sign := func(leaf string) []byte {
		h := headAt(t, testLog, (&tree{log: testLog}).batch(t, []byte(leaf)).To)
		signed, err := note.Sign(&note.Note{Text: h.Text}, signer)
		ok(t, err)
		return signed
	}
	keeper := func(s monitor.Store) *monitor.Keeper {
		return &monitor.Keeper{Store: s, Log: slog.New(slog.DiscardHandler), Now: time.Now, Metrics: monitor.NewMetrics(prometheus.NewRegistry(), time.Now)}
	}
	served := monitor.Served{Log: testLog, Verifier: []note.Verifier{verifier}}
	slow := &between{Store: daemon, act: func() {
		if _, err := keeper(beside).Check(t.Context(), served, sign("b")); err != nil {
			t.Errorf("the first head: %v", err)
		}
	}}
	_, err = keeper(slow).Check(t.Context(), served, sign("a"))
	if c := (*monitor.Contradiction)(nil); !errors.As(err, &c) || c.Kind != monitor.Equivocation {
		t.Errorf("the second head: %v", err)
	}
	if n := countRows(t, daemon, `SELECT count(*) FROM heads WHERE verified = 1`); n != 1 {
		t.Errorf("%d verified heads", n)
	}
}

// writeForever is what the two processes of TestBesideKill run until they are
// killed: each goes on with a log of its own, lists files, and says so.
func writeForever(t *testing.T, path, role string) {
	s, l := (*Store)(nil), testLog
	if role == "beside" {
		s, l = openBeside(t, path), otherLog
	} else {
		s = openAt(t, path, Options{})
	}
	pos, found, err := s.Position(t.Context(), l)
	ok(t, err)
	if !found {
		ok(t, s.Begin(t.Context(), l, monitor.Position{}))
	}
	tr := &tree{log: l, pos: pos}
	sg := newSigning(t, "o/r")
	for {
		n := int(tr.pos.Next)
		var leaves [][]byte
		for i := range 20 {
			leaves = append(leaves, sg.noise(n+i))
		}
		f := aFile(fmt.Sprintf("%s%d", role, n), "1")
		leaves[0] = sg.attest(t, f)
		if n%40 == 0 {
			listFiles(t, s, f.Project, 1, f)
		}
		ok(t, s.Commit(t.Context(), tr.batch(t, leaves...)))
		if n%40 != 0 {
			listFiles(t, s, f.Project, 1, f)
		}
		fmt.Println("committed", tr.pos.Next)
	}
}

// Kill -9 of either process, at any moment, harms neither what the other does nor
// what is stored.
func TestBesideKill(t *testing.T) {
	if path := os.Getenv("SIGTRAIL_TEST_BESIDE_PATH"); path != "" {
		writeForever(t, path, os.Getenv("SIGTRAIL_TEST_BESIDE_ROLE"))
		return
	}
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	ok(t, openAt(t, path, Options{}).Close())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	start := func(role string) (said func() uint64, kill func()) {
		child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestBesideKill$", "-test.count=1")
		child.Env = append(os.Environ(), "SIGTRAIL_TEST_BESIDE_PATH="+path, "SIGTRAIL_TEST_BESIDE_ROLE="+role)
		out, err := child.StdoutPipe()
		ok(t, err)
		ok(t, child.Start())
		return func() (n uint64) {
				if _, err := fmt.Fscanf(out, "committed %d\n", &n); err != nil {
					t.Fatalf("%s stopped by itself: %v", role, err)
				}
				return n
			}, func() {
				ok(t, child.Process.Kill())
				_ = child.Wait()
			}
	}
	daemonSaid, killDaemon := start("daemon")
	besideSaid, killBeside := start("beside")
	for range 4 {
		for range 4 {
			daemonSaid()
			besideSaid()
		}
		killBeside()
		daemonSaid()
		daemonSaid()
		besideSaid, killBeside = start("beside")
		besideSaid()
		killDaemon()
		besideSaid()
		besideSaid()
		daemonSaid, killDaemon = start("daemon")
		daemonSaid()
	}
	daemon, beside := daemonSaid(), besideSaid()
	killDaemon()
	killBeside()

	s := openAt(t, path, Options{})
	leaves := 0
	for l, said := range map[*monitor.Log]uint64{&testLog: daemon, &otherLog: beside} {
		pos, _, err := s.Position(t.Context(), *l)
		ok(t, err)
		leaves += int(pos.Next)
		if _, err := pos.Root(); err != nil || pos.Next < said || pos.Next%20 != 0 {
			t.Errorf("%s: position %d after %d was reported (%v)", l.Origin, pos.Next, said, err)
		}
		if n := countRows(t, s, `SELECT count(*) FROM coverage c JOIN logs l ON l.id = c.log_id WHERE l.origin = ? AND first = 0 AND past = ?`, l.Origin, int(pos.Next)); n != 1 {
			t.Errorf("%s: coverage is not [0, %d)", l.Origin, pos.Next)
		}
	}
	if n := countRows(t, s, `SELECT count(*) FROM unbound`) + countRows(t, s, `SELECT count(*) FROM entries`); n != leaves {
		t.Errorf("%d rows for %d leaves", n, leaves)
	}
	if n := countRows(t, s, `SELECT count(*) FROM files WHERE id NOT IN (SELECT file_id FROM bindings) AND id NOT IN
		(SELECT x.file_id FROM expected x JOIN unbound u ON u.digest = x.prefix JOIN wanted w ON w.log_id = u.log_id AND w.idx = u.idx)`); n > 2 {
		t.Errorf("%d files are neither bound nor wanted; one at most may lack its leaf in each log", n)
	}
	expectCounts(t, s)
	if n := countRows(t, s, `SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'`); n != 0 {
		t.Error("the database is damaged")
	}
}
