package main

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

// secret is the password in every address of a faultWorld. It may show up nowhere.
const secret = "hunter2secret"

// An outcome is what became of monitor --once.
type outcome struct {
	code    int
	err     string
	metrics string
}

// try is once with a look inside.
func (w *faultWorld) try() outcome {
	w.Helper()
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(io.MultiWriter(&logged, w.Output()), &slog.HandlerOptions{Level: slog.LevelDebug}))
	d := must(newDaemon(w.Context(), must(loadConfig(w.config)), log))
	defer d.close()
	d.readers = w.readers
	d.keeper.Patience = time.Millisecond
	code, err := d.once(w.Context())
	page := httptest.NewRecorder()
	promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	o := outcome{code, fmt.Sprint(err), page.Body.String()}
	w.keepsSecret("log", logged.String())
	w.keepsSecret("error", o.err)
	w.keepsSecret("metrics", o.metrics)
	return o
}

func (w *faultWorld) keepsSecret(what, text string) {
	w.Helper()
	for _, s := range []string{secret, base64.StdEncoding.EncodeToString([]byte("reader:" + secret))} {
		if i := strings.Index(text, s); i >= 0 {
			w.Errorf("the %s has a password: …%s", what, text[max(0, i-200):i])
		}
	}
}

// sum adds up a metric over all its series with those labels: name, value, name, …
func sum(metrics, name string, labels ...string) (total float64) {
	for line := range strings.Lines(metrics) {
		series, number, _ := strings.Cut(strings.TrimSpace(line), "} ")
		has := strings.HasPrefix(series, name+"{")
		for i := 0; i < len(labels); i += 2 {
			has = has && strings.Contains(series, fmt.Sprintf("%s=%q", labels[i], labels[i+1]))
		}
		if has {
			total += must(strconv.ParseFloat(number, 64))
		}
	}
	return total
}

// A place is what can be spoilt of a log.
type place struct {
	api   monitor.API
	name  string
	path  string
	first int    // requests there that still succeed
	good  uint64 // leaves are indexed up to a multiple of this; 0: none
}

var places = []place{
	{monitor.V1, "head", "/api/v1/log", 0, 0},
	{monitor.V1, "proofs", "/api/v1/log/proof", 0, 0},
	{monitor.V1, "leaves", "/api/v1/log/entries/retrieve", 1, 10},
	{monitor.V2, "head", "/api/v2/checkpoint", 0, 0},
	{monitor.V2, "proofs", "/api/v2/tile/0/", 0, 0},
	{monitor.V2, "leaves", "/api/v2/tile/entries/", 1, 256},
}

// A fault is what networks, proxies and overloaded servers do.
type fault struct {
	name   string
	spoil  func(f *lab.Faults, path string)
	says   string
	status string // under which it is counted
}

const tooMuch = 20 << 20 // more than any answer may have

func refusal(code int, retryAfter string) func(*lab.Faults, string) {
	return func(f *lab.Faults, path string) { f.Status(path, -1, code, retryAfter) }
}

func cut(part float64) func(*lab.Faults, string) {
	return func(f *lab.Faults, path string) { f.Cut(path, -1, part) }
}

var faults = []fault{
	{"404", refusal(404, ""), "status 404", "404"},
	{"429", refusal(429, "3600"), "lower its rate", "429"},
	{"500", refusal(500, ""), "status 500", "500"},
	{"503", refusal(503, "3600"), "status 503", "503"},
	{"a page", func(f *lab.Faults, path string) { f.HTML(path, -1) }, "", "200"},
	{"cut at once", cut(0), "unexpected EOF", "failed"},
	{"cut", cut(0.5), "unexpected EOF", "failed"},
	{"cut before the end", cut(1), "unexpected EOF", "failed"},
	{"too large", func(f *lab.Faults, path string) { f.Large(path, -1, tooMuch) }, "too large", "failed"},
	{"drips", func(f *lab.Faults, path string) { f.Drip(path, -1, 100*time.Millisecond) }, "deadline exceeded", "failed"},
	{"gzip bomb", func(f *lab.Faults, path string) { f.Bomb(path, -1, tooMuch) }, "too large", "failed"},
}

// Whatever is spoilt on the way: what came whole before it is indexed, the
// position says so, the failure is named and counted, the other log goes on, nobody
// is accused, and afterwards everything is made up for.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, p := range places {
		t.Run(fmt.Sprint(p.api, " ", p.name), func(t *testing.T) {
			t.Parallel()
			w := newFaultWorld(t, "follow: tail, start: 0, batch: 10, rate: 1000")
			w.grow()
			w.once(exitFine)
			for _, f := range faults {
				w.testFault(p, f)
			}
			w.sameAsWithoutFaults()
		})
	}
}

// A faultWorld's logs grow by so much that several requests are needed.
type faultWorld struct {
	*world
	faults map[monitor.API]*lab.Faults
	files  map[string]map[monitor.API]uint64 // index of the entry by file

	readers rekor.Options
}

func newFaultWorld(t *testing.T, v1 string) *faultWorld {
	w := newWorld(t, v1)
	text := string(must(os.ReadFile(w.config)))
	text = strings.Replace(text, "start: 0}\npypi", "start: 0, batch: 256}\npypi", 1)
	w.write("sigtrail.yaml", strings.ReplaceAll(text, "http://", "http://reader:"+secret+"@"))
	return &faultWorld{w, map[monitor.API]*lab.Faults{monitor.V1: w.lab.V1Faults, monitor.V2: w.lab.V2Faults},
		make(map[string]map[monitor.API]uint64), rekor.Options{Tries: 2, MaxWait: 10 * time.Millisecond, Timeout: time.Minute}}
}

// sameAsWithoutFaults holds the database against one made now, when all is well.
func (w *faultWorld) sameAsWithoutFaults() {
	w.Helper()
	got := w.rows()
	w.keepsSecret("database", string(must(os.ReadFile(filepath.Join(w.dir, "sigtrail.db")))))
	fresh := &world{T: w.T, lab: w.lab, dir: w.TempDir()}
	for _, name := range []string{"sigtrail.yaml", "trusted_root.json", "hook.key"} {
		fresh.write(name, string(must(os.ReadFile(filepath.Join(w.dir, name)))))
	}
	fresh.config = filepath.Join(fresh.dir, "sigtrail.yaml")
	fresh.once(exitFine)
	if d := cmp.Diff(fresh.rows(), got); d != "" {
		w.Errorf("the database differs from one that saw no fault (-without +with):\n%.4000s", d)
	}
}

// grow publishes two files, with many entries of others between them in each log.
func (w *faultWorld) grow() (first, second string) {
	w.Helper()
	for i := range 2 {
		at := map[monitor.API]uint64{monitor.V1: w.lab.V1.Active().Size(), monitor.V2: w.lab.V2.Size()}
		s := w.release(fmt.Sprintf("1.%d", len(w.files)), sampleRepo)
		w.files[s.Filename] = at
		if i == 1 {
			return first, s.Filename
		}
		first = s.Filename
		for n := range 300 {
			leaf := fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"rekord","spec":{"n":"%d of %s"}}`, n, s.Filename)
			if n < 20 {
				must(w.lab.V1.LogLeaf(leaf))
			}
			w.lab.V2.LogLeaf(leaf)
		}
	}
	panic("unreachable")
}

// address is how errors name a log's server.
func (w *faultWorld) address(api monitor.API) string {
	return map[monitor.API]string{monitor.V1: w.lab.Addresses().V1, monitor.V2: w.lab.Addresses().V2}[api]
}

// positions are where the tails stand.
func (w *faultWorld) positions() map[monitor.API]uint64 {
	w.Helper()
	out := make(map[monitor.API]uint64)
	for origin, s := range w.statuses() {
		if s.Conflict {
			w.Errorf("%s: on record as contradicting itself", origin)
		}
		if api := monitor.V1; s.Next != nil {
			if isOf(origin, lab.V2Origin) {
				api = monitor.V2
			}
			out[api] = *s.Next
		}
	}
	return out
}

// ask is a query of the database.
func (w *faultWorld) ask(query string) []string {
	w.Helper()
	db := must(sql.Open("sqlite3", "file:"+filepath.Join(w.dir, "sigtrail.db")+"?mode=ro"))
	defer db.Close()
	return w.query(db, query)
}

// bound are the files and the entries that they are bound to: "FILE API INDEX".
func (w *faultWorld) bound() map[string]bool {
	w.Helper()
	bound := make(map[string]bool)
	for _, row := range w.ask(`SELECT f.filename, l.api, e.idx FROM bindings b JOIN files f ON f.id = b.file_id JOIN entries e ON e.id = b.entry_id JOIN logs l ON l.id = e.log_id`) {
		bound[row] = true
	}
	return bound
}

// check holds the database against what must be indexed, given the positions.
func (w *faultWorld) check(when string, want map[monitor.API]uint64) {
	w.Helper()
	for api, got := range w.positions() {
		if got != want[api] {
			w.Errorf("%s: position of %s %d, want %d", when, api, got, want[api])
		}
	}
	bound := w.bound()
	for name, at := range w.files {
		for api, idx := range at {
			if row := fmt.Sprint(name, " ", api, " ", idx); idx < want[api] && !bound[row] {
				w.Errorf("%s: %s is not bound to its entry", when, row)
			}
		}
	}
}

func (w *faultWorld) testFault(p place, f fault) {
	w.Helper()
	want := w.positions()
	w.grow()
	sizes := map[monitor.API]uint64{monitor.V1: w.lab.V1.Active().Size(), monitor.V2: w.lab.V2.Size()}
	for api := range want {
		switch {
		case api != p.api:
			want[api] = sizes[api]
		case p.good > 0:
			want[api] += p.good - want[api]%p.good
		}
	}
	w.faults[p.api].Pass(p.path, p.first)
	f.spoil(w.faults[p.api], p.path)
	if f.name == "drips" {
		// Long enough for a whole answer, too short for all its bytes.
		w.readers.Timeout = time.Second
	}
	o := w.try()
	if o.code != exitCould || !strings.Contains(o.err, f.says) || !strings.Contains(o.err, w.address(p.api)) {
		w.Errorf("%s: exit code %d, %s", f.name, o.code, o.err)
	}
	if sum(o.metrics, "sigtrail_log_requests_total", "status", f.status) == 0 {
		w.Errorf("%s: not counted", f.name)
	}
	w.check(f.name, want)
	w.faults[p.api].Clear()
	w.readers.Timeout = time.Minute
	if o := w.try(); o.code != exitFine {
		w.Errorf("after %s: exit code %d, %s", f.name, o.code, o.err)
	}
	w.check("after "+f.name, sizes)
	if got := w.got(); len(got) != 0 {
		w.Fatalf("%s: alerts %+v", f.name, got)
	}
}
