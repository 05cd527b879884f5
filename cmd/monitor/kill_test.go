package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/internal/lab"
)

// childVar makes the test binary run the command instead of the tests.
const childVar = "SIGTRAIL_TEST_CHILD"

// Killed at 30 random moments of a catch-up with 20,000 leaves, then run to its
// end, the monitor leaves what a run without interruption leaves, and no alert has
// been delivered under two ids.
func TestKill(t *testing.T) {
	const leaves = 20_000
	kills := 30
	if testing.Short() {
		kills = 5
	}
	w := newWorld(t, "follow: head")
	if _, err := w.lab.Generate(lab.GenerateOptions{Leaves: leaves, Bound: 100, PerCert: 20}); err != nil {
		t.Fatal(err)
	}
	text := string(must(os.ReadFile(w.config)))
	text = strings.Replace(text, "start: 0}", "start: 0, batch: 256}", 1)
	text = strings.Replace(text, "projects: [SampleProject]", "rate: 1000, projects: [bench00000, bench00001, bench00002]", 1)
	w.write("policy.yaml", policyFor("bench00000", "bench00001", "bench00002"))
	w.config = w.write("sigtrail.yaml", text+"policy: policy.yaml\n")

	w.once(exitFindings)
	whole := w.rows()
	for name, rows := range whole {
		if len(rows) == 0 {
			t.Fatalf("no rows in %s", name)
		}
	}
	alerted := len(w.got())
	if alerted != 30 {
		t.Fatalf("%d alerts, want one for each of 30 releases", alerted)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if err := os.Remove(filepath.Join(w.dir, "sigtrail.db"+suffix)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	w.mu.Lock()
	w.received = nil
	w.mu.Unlock()

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w.killMany(kills, rand.New(rand.NewPCG(seed, 0)))
	code := Main(t.Context(), []string{"--config", w.config, "--once"}, io.Discard, t.Output())
	if code != exitFine && code != exitFindings {
		t.Fatalf("the last run: exit code %d", code)
	}
	if d := cmp.Diff(whole, w.rows()); d != "" {
		t.Errorf("rows differ from those of an uninterrupted run (-whole +killed):\n%.2000s", d)
	}
	ids := make(map[string]string)
	for _, a := range w.got() {
		about := a.Rule + a.Project + a.Version
		if id, ok := ids[about]; ok && id != a.ID {
			t.Errorf("%s delivered as %s and as %s", about, id, a.ID)
		}
		ids[about] = a.ID
	}
	if len(ids) != alerted {
		t.Errorf("%d different alerts delivered, want %d", len(ids), alerted)
	}
}

func policyFor(projects ...string) string {
	var b strings.Builder
	b.WriteString("projects:\n")
	for _, p := range projects {
		fmt.Fprintf(&b, "  %s: {attestations: optional, publishers: [{repository: github.com/pypa/%s}]}\n", p, p)
	}
	return b.String()
}

// killMany starts the command again and again and kills it after growing, random
// times, so that the kills spread over the whole catch-up.
func (w *world) killMany(kills int, r *rand.Rand) {
	w.Helper()
	limit := 100 * time.Millisecond
	for killed := 0; killed < kills; {
		cmd := exec.CommandContext(w.Context(), must(os.Executable()), "--config", w.config, "--once")
		cmd.Env = append(os.Environ(), childVar+"=1")
		if err := cmd.Start(); err != nil {
			w.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done: // it was through before its time: start over from an empty database
			for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
				if err := os.Remove(filepath.Join(w.dir, "sigtrail.db"+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
					w.Fatal(err)
				}
			}
		case <-time.After(time.Duration(r.Int64N(int64(limit)))):
			cmd.Process.Kill()
			<-done
			killed++
			limit += 20 * time.Millisecond
		}
	}
}

// rowQueries are what two databases must agree in.
var rowQueries = map[string]string{
	"logs":     `SELECT origin, next, hex(range) FROM logs`,
	"entries":  `SELECT l.origin, e.idx, hex(e.leaf_hash), e.trust FROM entries e JOIN logs l ON l.id = e.log_id`,
	"coverage": `SELECT l.origin, c.first, c.past FROM coverage c JOIN logs l ON l.id = c.log_id`,
	"unbound":  `SELECT hex(u.digest), l.origin, u.idx FROM unbound u JOIN logs l ON l.id = u.log_id`,
	"bindings": `SELECT f.filename, l.origin, e.idx, b.evidence, b.form, b.signature FROM bindings b JOIN files f ON f.id = b.file_id JOIN entries e ON e.id = b.entry_id JOIN logs l ON l.id = e.log_id`,
	"alerts":   `SELECT id, rule, project, version FROM alerts`,
}

// rows is what the database says of the log, without row ids and first sights.
func (w *world) rows() map[string][]string {
	w.Helper()
	db := must(sql.Open("sqlite3", "file:"+filepath.Join(w.dir, "sigtrail.db")+"?mode=ro"))
	defer db.Close()
	out := make(map[string][]string)
	for name, query := range rowQueries {
		out[name] = w.query(db, query+` ORDER BY 1, 2, 3`)
	}
	return out
}

func (w *world) query(db *sql.DB, query string) []string {
	w.Helper()
	r := must(db.QueryContext(w.Context(), query))
	defer r.Close()
	columns := must(r.Columns())
	var out []string
	for r.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := r.Scan(values...); err != nil {
			w.Fatal(err)
		}
		texts := make([]string, len(values))
		for i, v := range values {
			texts[i] = fmt.Sprint(*v.(*any))
		}
		out = append(out, strings.Join(texts, " "))
	}
	if err := r.Err(); err != nil {
		w.Fatal(err)
	}
	return out
}
