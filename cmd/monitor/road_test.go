package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/internal/lab"
)

// A world is a lab, a receiver of webhooks, and a configuration for both.
type world struct {
	*testing.T
	lab    *lab.Lab
	dir    string
	config string

	mu       sync.Mutex
	received []alerts.Alert
	down     bool
}

var sampleRepo = lab.GitHub{Owner: "pypa", Repo: "sampleproject", RepoID: "1234", OwnerID: "5678"}

func newWorld(t *testing.T, v1 string) *world {
	t.Helper()
	return newWorldWith(t, v1, lab.Options{})
}

func newWorldWith(t *testing.T, v1 string, o lab.Options) *world {
	t.Helper()
	l, err := lab.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &world{T: t, lab: l, dir: t.TempDir()}
	hook := httptest.NewServer(http.HandlerFunc(w.receive))
	t.Cleanup(hook.Close)
	a, err := l.Config(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	w.write("hook.key", "a secret")
	w.config = w.write("sigtrail.yaml", fmt.Sprintf(`
database: sigtrail.db
listen: 127.0.0.1:0
interval: 200ms
trusted_root: trusted_root.json
logs:
  - {api: v1, origin: %s, url: %q, %s}
  - {api: v2, origin: %s, url: %q, follow: tail, start: 0}
pypi: {url: %q, projects: [SampleProject], interval: 200ms}
webhooks: [{url: %q, secret_file: hook.key}]
`, a.V1Host, a.V1, v1, a.V2Origin, a.V2, a.PyPI, hook.URL))
	return w
}

func (w *world) write(name, text string) string {
	w.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	return path
}

func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down || err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var a alerts.Alert
	if err := json.Unmarshal(body, &a); err != nil || a.ID != r.Header.Get("webhook-id") || r.Header.Get("webhook-signature") == "" {
		w.Errorf("a delivery that is no signed alert: %v", err)
	}
	w.received = append(w.received, a)
}

func (w *world) got() []alerts.Alert {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]alerts.Alert(nil), w.received...)
}

// once runs monitor --once and checks its exit code.
func (w *world) once(want int) {
	w.Helper()
	if got := Main(w.Context(), []string{"--config", w.config, "--once"}, io.Discard, w.Output()); got != want {
		w.Fatalf("monitor --once: exit code %d, want %d", got, want)
	}
}

// release signs a file, logs it to v1 and v2, and uploads it with provenance.
func (w *world) release(version string, id lab.GitHub) lab.Signed {
	w.Helper()
	s, e := w.sign("sampleproject-"+version+".tar.gz", id)
	w.lab.V2.Log(s)
	w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: version, Filename: s.Filename, SHA256: s.SHA256,
		Provenance: lab.Provenance(id.Publisher(), s, e)})
	return s
}

// sign signs a file and logs it to v1.
func (w *world) sign(name string, id lab.Identity) (lab.Signed, lab.Entry) {
	w.Helper()
	s, err := w.lab.CA.SignPublish(id, name, lab.Digest(name), time.Now())
	if err != nil {
		w.Fatal(err)
	}
	e, err := w.lab.V1.Log(s)
	if err != nil {
		w.Fatal(err)
	}
	return s, e
}

func (w *world) store() *index.Store {
	w.Helper()
	s, err := index.OpenReadOnly(w.Context(), filepath.Join(w.dir, "sigtrail.db"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { s.Close() })
	return s
}

func TestUnexpectedSigner(t *testing.T) {
	t.Parallel()
	for _, v1 := range []string{"follow: lookup", "follow: tail, start: 0"} {
		t.Run(v1, func(t *testing.T) {
			w := newWorld(t, v1)
			w.release("1.0", sampleRepo)
			w.release("1.1", sampleRepo)
			w.once(exitFine)
			w.once(exitFine)

			w.release("1.2", sampleRepo)
			w.once(exitFine)
			other := sampleRepo
			other.Owner, other.RepoID = "evil", "666"
			s := w.release("1.3", other)
			w.once(exitFindings)
			got := w.got()
			if len(got) != 1 || got[0].Rule != "unexpected-signer" || got[0].Version != "1.3" || got[0].Files[0].Name != s.Filename ||
				got[0].Seen.Repository != "https://github.com/evil/sampleproject" || got[0].Log == nil || len(got[0].Expected) != 1 {
				t.Fatalf("received %+v, want one unexpected-signer for 1.3", got)
			}
			w.once(exitFine)
			if n := len(w.got()); n != 1 {
				t.Errorf("%d alerts after another run, want still 1", n)
			}
		})
	}
}

func TestProvenanceLost(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "1.1", Filename: "sampleproject-1.1.tar.gz", SHA256: lab.Digest("x")})
	w.once(exitFindings)
	if got := w.got(); len(got) != 1 || got[0].Rule != "provenance-lost" || got[0].Version != "1.1" {
		t.Fatalf("received %+v, want one provenance-lost for 1.1", got)
	}
}

// An entry that is tailed before PyPI shows its file is bound when it appears.
func TestSignedBeforeUpload(t *testing.T) {
	w := newWorld(t, "follow: head")
	w.release("1.0", sampleRepo)
	w.write("policy.yaml", `projects: {sampleproject: {publishers: [{repository: github.com/pypa/sampleproject}]}}`)
	w.config = w.write("sigtrail.yaml", string(must(os.ReadFile(w.config)))+"policy: policy.yaml\n")
	w.once(exitFine)
	other := sampleRepo
	other.Owner = "evil"
	name := "sampleproject-1.1.tar.gz"
	s := must(w.lab.CA.SignPublish(other, name, lab.Digest(name), time.Now()))
	w.lab.V2.LogDSSE(s)
	w.once(exitFine)
	w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "1.1", Filename: name, SHA256: s.SHA256, Provenance: []byte("{}")})
	w.once(exitFindings)
	if got := w.got(); len(got) != 1 || got[0].Rule != "unexpected-signer" || got[0].Evidence != "statement" {
		t.Fatalf("received %+v, want one unexpected-signer by statement", got)
	}
}

// A receiver that is down loses nothing.
func TestReceiverDown(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "1.1", Filename: "sampleproject-1.1.tar.gz", SHA256: lab.Digest("x")})
	w.once(exitFindings)
	if n := len(w.got()); n != 0 {
		t.Fatalf("%d alerts received by a receiver that is down", n)
	}
	w.mu.Lock()
	w.down = false
	w.mu.Unlock()
	d := w.daemon()
	d.courier.Now = func() time.Time { return time.Now().Add(time.Hour) }
	if err := d.courier.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(w.got()); n != 1 {
		t.Errorf("%d alerts received after the receiver came back, want 1", n)
	}
}

// daemon opens and wires a daemon without running it.
func (w *world) daemon() *daemon {
	w.Helper()
	d := must(newDaemon(w.Context(), must(loadConfig(w.config)), slog.New(slog.NewTextHandler(w.Output(), nil))))
	w.Cleanup(func() { d.close() })
	must(d.trust.refresh(w.Context()))
	must(d.adopt(w.Context()))
	return d
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The daemon as such: it starts, works, and stops when told to.
func TestDaemonRuns(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	ctx, cancel := context.WithCancel(t.Context())
	d := must(newDaemon(ctx, must(loadConfig(w.config)), slog.New(slog.NewTextHandler(w.Output(), nil))))
	defer d.close()
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	for p := (index.Progress{}); p.Files == 0 || p.Waiting > 0; {
		p = must(d.store.Progress(ctx))
		time.Sleep(20 * time.Millisecond)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200} {
		resp := must(http.Get("http://" + d.address.Load().(string) + path))
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answered %d, want %d", path, resp.StatusCode, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// quiet is a logger into the test's output.
func quiet(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
