package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

// scan runs monitor scan --json and checks its exit code.
func (w *world) scan(want int, args ...string) (r scanReport, stderr string) {
	w.Helper()
	var stdout, said bytes.Buffer
	got := Main(w.Context(), append([]string{"--config", w.config, "scan", "--json"}, args...), &stdout, &said)
	if got != want {
		w.Fatalf("monitor scan %q: exit code %d, want %d\n%s", args, got, want, said.String())
	}
	if got == exitFine {
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			w.Fatal(err)
		}
	}
	return r, said.String()
}

func (r scanReport) indexes() []uint64 {
	var out []uint64
	for _, f := range r.Finds {
		out = append(out, f.Index)
	}
	return out
}

// db asks the database, which the daemon may have open.
func (w *world) db(query string) []string {
	w.Helper()
	db := must(sql.Open("sqlite3", "file:"+filepath.Join(w.dir, "sigtrail.db")+"?mode=ro&_busy_timeout=10000"))
	defer db.Close()
	return w.query(db, query)
}

const coverageQuery = `SELECT l.origin, c.first, c.past FROM coverage c JOIN logs l ON l.id = c.log_id ORDER BY 1, 2`

// fill logs n files of some project to both logs, from index 0 on, signed by
// people and repositories in turn.
func (w *world) fill(n int) []lab.Signed {
	w.Helper()
	var out []lab.Signed
	for i := range n {
		id := lab.Identity(sampleRepo)
		switch i % 5 {
		case 3:
			id = lab.GitHub{Owner: "pypa", Repo: "sampleproject-extra", RepoID: "99", OwnerID: "5678"}
		case 4:
			id = lab.Email{Address: "somebody@example.com"}
		}
		s, _ := w.sign(fmt.Sprintf("other_%d-1.%d.tar.gz", i%2, i), id)
		w.lab.V2.Log(s)
		out = append(out, s)
	}
	return out
}

// names of both logs, and the v1 tree.
var scanned = map[monitor.API]string{monitor.V1: lab.V1Host, monitor.V2: lab.V2Origin}

func TestScanRange(t *testing.T) {
	for api, name := range scanned {
		t.Run(string(api), func(t *testing.T) {
			w := newWorld(t, "follow: none")
			w.fill(40)
			r, _ := w.scan(exitFine, name, "--from", "7", "--to", "31")
			if r.From != 7 || r.To != 31 || r.Found != 0 || r.API != api {
				t.Errorf("report: %+v", r)
			}
			want := fmt.Sprintf("%s 7 31", r.Log)
			if got := w.db(coverageQuery); len(got) != 1 || got[0] != want {
				t.Errorf("coverage %q, want %q", got, want)
			}
			w.scan(exitFine, name, "--from", "31", "--to", "33")
			w.scan(exitFine, name, "--to", "2")
			w.scan(exitFine, name, "--from", "38")
			w.scan(exitFine, name, "--from", "5", "--to", "5") // nothing is fine
			if got, want := len(w.db(coverageQuery)), 3; got != want {
				t.Errorf("%d ranges covered, want %d: %v", got, want, w.db(coverageQuery))
			}
			w.scan(exitFine, name)
			if got := w.db(coverageQuery); len(got) != 1 || got[0] != r.Log+" 0 40" {
				t.Errorf("coverage after a whole scan: %q", got)
			}
			if got := w.db(`SELECT count(*) FROM logs WHERE next IS NOT NULL`); got[0] != "0" {
				t.Error("a scan has set the position of a tail")
			}
		})
	}
}

// What is selected is found among what concerns other projects, whether the
// database or PyPI knows the files.
func TestScanFor(t *testing.T) {
	w := newWorld(t, "follow: none")
	all := w.fill(25)
	upload := func(i int, version string) {
		w.lab.PyPI.Upload(lab.Upload{Project: fmt.Sprintf("other-%d", i%2), Version: version, Filename: all[i].Filename, SHA256: all[i].SHA256})
	}
	for _, i := range []int{3, 5, 7, 8} {
		upload(i, fmt.Sprintf("1.%d", i))
	}
	test := lab.NewPyPI(time.Now)
	server := httptest.NewServer(test)
	t.Cleanup(server.Close)
	test.SetBase(server.URL)
	test.Upload(lab.Upload{Project: "other-1", Version: "2", Filename: all[11].Filename, SHA256: all[11].SHA256})
	w.config = w.write("sigtrail.yaml", string(must(os.ReadFile(w.config)))+fmt.Sprintf("indexes: [{name: testpypi, url: %q}]\n", server.URL))
	must(w.lab.V1.LogFile(all[5].SHA256, []byte("some signature"), all[5].Cert))
	email := []uint64{4, 9, 14, 19}
	for _, c := range []struct {
		selector string
		want     []uint64
	}{
		{"other-1", []uint64{3, 5, 7, 25}},
		{"Other_1==1.5", []uint64{5, 25}},
		{"testpypi/Other_1", []uint64{11}},
		{all[8].Filename, []uint64{8}},
		{fmt.Sprintf("%x", all[5].SHA256), []uint64{25}},
		{"somebody@example.com", append(slices.Clone(email), 24)},
		{"https://github.com/PyPA/sampleproject-extra", []uint64{3, 8, 13, 18, 23}},
		{"github.com/pypa/sampleproject-extra/.github/workflows/release.yml", []uint64{3, 8, 13, 18, 23}},
		{"github.com/pypa/sample", nil},
		{"github.com/nobody", nil},
	} {
		t.Run(c.selector, func(t *testing.T) {
			w.T = t
			r, _ := w.scan(exitFine, lab.V1Host, "--for", c.selector)
			if d := cmp.Diff(c.want, r.indexes()); d != "" || r.Found != uint64(len(c.want)) {
				t.Errorf("found %d (-want +got): %s", r.Found, d)
			}
			for _, f := range r.Finds {
				if f.Time == nil || f.Clock != "log" || f.Trust != "" || f.Signer == "" || f.Leaf == "" {
					t.Errorf("find %+v", f)
				}
			}
		})
	}
	w.T = t
	r, _ := w.scan(exitFine, lab.V1Host, "--for", "other-1==1.5")
	if len(r.Finds) != 2 || r.Finds[0].About[0].Evidence != "statement" || r.Finds[0].About[0].Signature != "" ||
		r.Finds[1].About[0].Evidence != "artifact" || r.Finds[1].About[0].Signature == "" {
		t.Errorf("evidence: %+v", r.Finds)
	}
	if r, _ := w.scan(exitFine, lab.V1Host, "--for", fmt.Sprintf("%x", all[5].SHA256)); !strings.Contains(r.Note, "name is not known") {
		t.Errorf("a file without a name: note %q", r.Note)
	}
	if got := w.db(`SELECT count(*) FROM files`); got[0] != "0" {
		t.Error("files of PyPI were stored")
	}
	w.scan(exitCould, lab.V1Host, "--for", "no-such-project")

	var table bytes.Buffer
	if code := Main(t.Context(), []string{"--config", w.config, "scan", lab.V1Host, "--for", "other-1"}, &table, t.Output()); code != exitFine {
		t.Fatalf("exit code %d", code)
	}
	for _, want := range []string{"26 entries proven and indexed, 0 to 25", "other-1: 4 of them match", "ENTRY", all[5].Filename + " (statement)", "github.com/pypa/sampleproject-extra"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
}

func TestScanUsage(t *testing.T) {
	w := newWorld(t, "follow: none")
	w.fill(3)
	w.lab.V1.Rotate()
	w.fill(3)
	r, _ := w.scan(exitFine, lab.V1Host, "--from", "4", "--to", "5") // the index says which shard
	tree := strings.TrimPrefix(r.Log, lab.V1Host+" - ")
	if got := w.db(coverageQuery); len(got) != 1 || got[0] != r.Log+" 1 2" {
		t.Errorf("coverage %q", got)
	}
	for _, name := range []string{tree, r.Log} {
		if got, _ := w.scan(exitFine, name); got.From != 3 || got.To != 6 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, c := range []struct {
		say  string
		args []string
	}{
		{"any of the logs", []string{lab.V1Host}},
		{"no log is called", []string{"rekor.example"}},
		{"no log is called", []string{"12345"}},
		{"--from \"yesterday\"", []string{tree, "--from", "yesterday"}},
		{"7 is none of them", []string{tree, "--to", "7"}},
		{"2 is none of them", []string{tree, "--from", "2"}},
		{"is behind", []string{tree, "--from", "5", "--to", "4"}},
		{"--rate is negative", []string{tree, "--rate=-1"}},
		{"leave out", []string{tree, "--resume", "--from", "4"}},
		{"is unfinished", []string{tree, "--resume"}},
		{"no spaces", []string{tree, "--for", "github.com/a b"}},
		{"accepts 1 arg", nil},
	} {
		if _, stderr := w.scan(exitUsage, c.args...); !strings.Contains(stderr, c.say) {
			t.Errorf("%q: %s", c.args, stderr)
		}
	}
	w.lab.V2Faults.Status("", -1, 404, "")
	w.scan(exitCould, lab.V2Origin)
}

// A v1 server is asked no more often than it is allowed to be.
func TestScanRate(t *testing.T) {
	w := newWorld(t, "follow: none")
	w.fill(100)
	before, began := w.lab.V1Faults.Requests(), time.Now()
	w.scan(exitFine, lab.V1Host, "--rate", "5")
	asked, took := w.lab.V1Faults.Requests()-before, time.Since(began)
	if asked < 10 || took < time.Duration(asked-5)*time.Second/5 {
		t.Errorf("%d requests in %s at 5 a second", asked, took)
	}
}

// A log that lies within the range is convicted, nothing of the lie is indexed, and
// once it is honest the same command goes on.
func TestScanLies(t *testing.T) {
	for api, name := range scanned {
		t.Run(string(api), func(t *testing.T) {
			w := newWorld(t, "follow: none")
			w.narrow(10)
			w.fill(40)
			bad := liar(w.lab.V1.Active())
			if api == monitor.V2 {
				bad = w.lab.V2
			}
			bad.FlipLeaf(25)
			for range 2 {
				w.scan(exitConvicts, name, "--from", "5")
				if got := w.db(coverageQuery); len(got) != 1 || !strings.HasSuffix(got[0], " 5 20") {
					t.Fatalf("coverage %q", got)
				}
			}
			if got := w.db(`SELECT kind FROM contradictions`); len(got) != 1 || got[0] != monitor.Inconsistent {
				t.Errorf("evidence: %v", got)
			}
			bad.Honest()
			_, said := w.scan(exitFine, name, "--from", "5")
			if got := w.db(coverageQuery); len(got) != 1 || !strings.HasSuffix(got[0], " 5 40") || !strings.Contains(said, "going on") {
				t.Errorf("coverage %q", got)
			}
			bad.ForkAt(2)
			w.scan(exitConvicts, name)
		})
	}
}

// narrow sets the batch of both logs.
func (w *world) narrow(batch int) {
	w.Helper()
	text := string(must(os.ReadFile(w.config)))
	text = strings.ReplaceAll(text, "follow: none", fmt.Sprintf("follow: none, batch: %d", batch))
	text = strings.ReplaceAll(text, "follow: tail, start: 0", fmt.Sprintf("follow: tail, start: 0, batch: %d", batch))
	w.config = w.write("sigtrail.yaml", text)
}

// A server that fails for a while is waited for; one that goes on failing ends the
// scan, which goes on behind its last batch.
func TestScanFaults(t *testing.T) {
	w := newWorld(t, "follow: none")
	w.narrow(10)
	w.fill(40)
	w.lab.V1Faults.Pass("/api/v1/log/entries/retrieve", 1)
	w.lab.V1Faults.Status("/api/v1/log/entries/retrieve", 2, 404, "") // not repeated by the reader
	_, said := w.scan(exitFine, lab.V1Host)
	if !strings.Contains(said, "will try again") {
		t.Errorf("said: %s", said)
	}
	w.lab.V1Faults.Pass("/api/v1/log/entries/retrieve", 2)
	w.lab.V1Faults.Edit("/api/v1/log/entries/retrieve", -1, lab.LeaveOut(23))
	_, said = w.scan(exitCould, lab.V1Host, "--from", "3")
	if !strings.Contains(said, "goes on at entry 23") {
		t.Errorf("said: %s", said)
	}
	w.lab.V1Faults.Clear()
	_, said = w.scan(exitFine, lab.V1Host, "--resume")
	if !strings.Contains(said, "going on with a scan") || !strings.Contains(said, "next=23") {
		t.Errorf("said: %s", said)
	}
}

// Killed with -9 again and again, then run to its end, a scan leaves what one
// without interruption leaves, and reads nothing twice that was stored.
func TestScanKill(t *testing.T) {
	for api, name := range scanned {
		t.Run(string(api), func(t *testing.T) {
			w := newWorld(t, "follow: none")
			w.narrow(10)
			w.fill(300)
			args := []string{name, "--from", "4", "--to", "297", "--for", "somebody@example.com"}
			whole, _ := w.scan(exitFine, args...)
			tables := []string{coverageQuery, `SELECT idx, hex(digest) FROM unbound ORDER BY 1, 2`, `SELECT scan_id, idx, hex(body) FROM scan_finds ORDER BY 1, 2`,
				`SELECT first, past, next, hex(range), found, finished IS NULL FROM scans`}
			var want [][]string
			for _, q := range tables {
				want = append(want, w.db(q))
			}
			for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
				if err := os.Remove(filepath.Join(w.dir, "sigtrail.db"+suffix)); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			w.lab.V1Faults.Latency(5 * time.Millisecond)
			w.lab.V2Faults.Latency(5 * time.Millisecond)
			last := 0
			for range 5 {
				last = w.killScan(last, args...)
			}
			got, said := w.scan(exitFine, args...)
			if !strings.Contains(said, "going on with a scan") {
				t.Errorf("said: %s", said)
			}
			if d := cmp.Diff(whole.Finds, got.Finds); d != "" || len(got.Finds) != 59 || got.Found != 59 {
				t.Errorf("%d found, reports differ: %s", got.Found, d)
			}
			for i, q := range tables {
				if d := cmp.Diff(want[i], w.db(q)); d != "" {
					t.Errorf("rows differ (-whole +killed):\n%.1000s", d)
				}
			}
		})
	}
}

// killScan starts a scan, kills it once it has committed more than last leaves, and
// returns how far it had come.
func (w *world) killScan(last int, args ...string) int {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), must(os.Executable()), append([]string{"--config", w.config, "scan"}, args...)...)
	cmd.Env = append(os.Environ(), childVar+"=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		select {
		case err := <-done:
			w.Fatalf("the scan ended before it was killed: %v\n%s", err, said.String())
		case <-time.After(2 * time.Millisecond):
		}
		if _, err := os.Stat(filepath.Join(w.dir, "sigtrail.db")); err != nil {
			continue
		}
		if next := w.next(); next > last {
			cmd.Process.Kill()
			<-done
			return w.next()
		}
	}
	w.Fatal("the scan does not get on")
	return 0
}

// next is how far the one scan has come, 0 while there is none.
func (w *world) next() int {
	db := must(sql.Open("sqlite3", "file:"+filepath.Join(w.dir, "sigtrail.db")+"?mode=ro&_busy_timeout=10000"))
	defer db.Close()
	n := 0
	_ = db.QueryRow(`SELECT next FROM scans`).Scan(&n) // no such table yet, or no row
	return n
}

// A scan in another process, while the daemon tails the same logs and files appear:
// what both leave is what the daemon alone leaves.
func TestScanBesideDaemon(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	w.narrow(16)
	w.fill(200)
	ctx, cancel := context.WithCancel(t.Context())
	d := must(newDaemon(ctx, must(loadConfig(w.config)), slog.New(slog.NewTextHandler(w.Output(), nil))))
	defer d.close()
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	evil := sampleRepo
	evil.Owner, evil.RepoID = "evil", "666"
	for i, signer := range []lab.GitHub{sampleRepo, sampleRepo, sampleRepo, evil} {
		w.release(fmt.Sprintf("1.%d", i), signer)
		for _, name := range scanned {
			cmd := exec.CommandContext(ctx, must(os.Executable()), "--config", w.config, "scan", name, "--from", fmt.Sprint(20*i), "--for", "sampleproject")
			cmd.Env = append(os.Environ(), childVar+"=1")
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "proven and indexed") {
				t.Fatalf("scan %d of %s: %v\n%s", i, name, err, out)
			}
		}
		w.fill(10)
	}
	v1, v2 := int(w.lab.V1.Active().Size()), int(w.lab.V2.Size())
	want := fmt.Sprintf("%s 0 %d, %s - 1193050959916656506 0 %d", lab.V2Origin, v2, lab.V1Host, v1)
	waitFor(t, "the tails to catch up", func() bool {
		p, err := d.store.Progress(ctx)
		return err == nil && p.Files == 4 && p.Waiting == 0 && strings.Join(w.db(coverageQuery), ", ") == want
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	rows := func() map[string][]string {
		out := make(map[string][]string)
		for name, query := range rowQueries {
			if name != "alerts" { // alone, all of it is past when it is first seen
				out[name] = w.db(query + ` ORDER BY 1, 2, 3`)
			}
		}
		return out
	}
	got := rows()
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if err := os.Remove(filepath.Join(w.dir, "sigtrail.db"+suffix)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	w.once(exitFine)
	if diff := cmp.Diff(rows(), got); diff != "" {
		t.Errorf("rows differ (-alone +beside):\n%.2000s", diff)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for ", what)
		}
	}
}

// A scan that is interrupted by a signal says where it goes on.
func TestScanInterrupted(t *testing.T) {
	w := newWorld(t, "follow: none")
	w.narrow(10)
	w.fill(60)
	w.lab.V2Faults.Latency(20 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	var said bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- Main(ctx, []string{"--config", w.config, "scan", lab.V2Origin}, io.Discard, &said)
	}()
	waitFor(t, "a batch", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, "sigtrail.db"))
		return err == nil && w.next() >= 20
	})
	cancel()
	if got := <-code; got != exitCould || !strings.Contains(said.String(), "interrupted; the same command, or --resume, goes on at entry ") {
		t.Errorf("exit code %d: %s", got, said.String())
	}
	next := w.next()
	if next >= 60 {
		t.Fatal("it was through before")
	}
	w.lab.V2Faults.Clear()
	if _, said := w.scan(exitFine, lab.V2Origin); !strings.Contains(said, fmt.Sprintf("next=%d", next)) {
		t.Errorf("said: %s", said)
	}
}

// Without a terminal a scan says now and then how far it has come, how fast it is
// and what is left; what an earlier run read does not make it look faster.
func TestScanProgress(t *testing.T) {
	var said bytes.Buffer
	c := index.Scan{ID: 1, Range: monitor.Range{From: 100, To: 1100}, Next: 600}
	p := newScanProgress(&said, slog.New(slog.NewTextHandler(&said, nil)), monitor.Log{Origin: "log.example", FirstGlobal: 5000}, c)
	p.advanced(610)
	if said.Len() > 0 {
		t.Errorf("said too early: %s", said.String())
	}
	p.began, p.spoken = p.began.Add(-100*time.Second), p.spoken.Add(-scanLogEvery)
	p.advanced(700)
	p.advanced(710)
	p.end()
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `log=log.example next=5700 entries=100 of=500 "per second"=`) || !regexp.MustCompile(` left=[67]m`).MatchString(got) {
		t.Errorf("said: %s", got)
	}
}
