package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// TestRotation closes the v1 log's shard while a monitor tails it: the server goes
// away, comes back with another tree, and numbers go on over both. Nothing is
// alerted about that, and the new shard is read like the old one. A replica that
// still serves what it served before passes for what it is.
func TestRotation(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	file := d.makeWheel(t, "echo", "1.0.0")
	d.pypi.publish(t, file)
	var toV1 *replicas
	w := d.watchWith(t, file.project, "tail", false, func(w *watch) {
		toV1 = startReplicas(t, w.toV1.URL)
		w.v1At = toV1.URL
	})
	w.until(t, "level with every log and with PyPI", func() (bool, string) { return w.level(t, 3) })

	toV1.remember(t)
	// Entries up to the end of the old shard: the monitor may learn of the last
	// one only after the rotation.
	if index := d.logV1(t, d.sign(t, expected, file)).LogIndex; index != 1 {
		t.Fatalf("the old shard's second entry has index %d", index)
	}
	d.v1.Rotate(t)
	// Numbers go on: this one is the first of the new shard and the third of all.
	if e := d.logV1(t, d.sign(t, expected, file)); e.LogIndex != 2 || e.Verification.Proof.LogIndex != 0 {
		t.Fatalf("the new shard's first entry has index %d, and %d in its shard, want 2 and 0", e.LogIndex, e.Verification.Proof.LogIndex)
	}
	w.until(t, "level with the new shard", func() (bool, string) { return w.level(t, 5) })
	w.quiet(t)

	// Some answers come from a replica that has not heard of the rotation, nor of
	// the old shard's last entry.
	w.until(t, "answered by the stale replica", func() (bool, string) { n := toV1.stale(true); return n >= 2, fmt.Sprint(n) })
	toV1.stale(false)
	w.quiet(t)

	index := d.logV1(t, d.sign(t, other, file)).LogIndex
	w.until(t, "alerting", func() (bool, string) { return len(w.alerts.deliveries()) > 0, fmt.Sprint(w.metrics(t)) })
	w.oneAlert(t, file, d.v1.Origins()[1], index)
	if n := w.metrics(t).sum("sigtrail_contradictions_total"); n != 0 {
		t.Errorf("%v contradictions counted, want none", n)
	}
	if err := w.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}

	db := openDatabase(t, w.database())
	origins := d.v1.Origins()
	shards := `SELECT origin, first_global, closed, next, (SELECT max(size) FROM heads WHERE log_id = l.id AND verified = 1) AS head FROM logs l WHERE api = 'v1'`
	if diff := differences(ask(t, db, shards), table{
		"origin=" + origins[0] + " first_global=0 closed=1 next=2 head=2",
		"origin=" + origins[1] + " first_global=2 closed=0 next=2 head=2",
	}); len(diff) > 0 {
		t.Errorf("shards on record (+ there, - wanted): %q", diff)
	}
	entries := `SELECT origin, idx FROM entries e JOIN logs l ON l.id = e.log_id WHERE api = 'v1'`
	if diff := differences(ask(t, db, entries), table{
		"origin=" + origins[0] + " idx=0", "origin=" + origins[0] + " idx=1",
		"origin=" + origins[1] + " idx=0", "origin=" + origins[1] + " idx=1",
	}); len(diff) > 0 {
		t.Errorf("entries on record (+ there, - wanted): %q", diff)
	}
	coverage := `SELECT origin, first, past FROM coverage c JOIN logs l ON l.id = c.log_id WHERE api = 'v1'`
	if diff := differences(ask(t, db, coverage), table{
		"origin=" + origins[0] + " first=0 past=2", "origin=" + origins[1] + " first=0 past=2",
	}); len(diff) > 0 {
		t.Errorf("coverage (+ there, - wanted): %q", diff)
	}
}

// replicas are a log behind a load balancer: one server of it keeps up, another can
// be made to serve an earlier log info.
type replicas struct {
	URL string

	mu      sync.Mutex
	earlier []byte
	lag     bool
	served  int // stale answers
}

func startReplicas(t *testing.T, log string) *replicas {
	t.Helper()
	to, err := url.Parse(log)
	if err != nil {
		t.Fatal(err)
	}
	r := new(replicas)
	next := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/api/v1/log" && r.answer(rw) {
			return
		}
		next.ServeHTTP(rw, req)
	}))
	t.Cleanup(s.Close)
	r.URL = s.URL
	return r
}

func (r *replicas) answer(rw http.ResponseWriter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.lag {
		return false
	}
	r.served++
	rw.Header().Set("Content-Type", "application/json")
	rw.Write(r.earlier)
	return true
}

// remember keeps the present log info for later.
func (r *replicas) remember(t *testing.T) {
	t.Helper()
	resp, err := http.Get(r.URL + "/api/v1/log")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte("signedTreeHead")) {
		t.Fatalf("the log info: %s, %v, %s", resp.Status, err, body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.earlier = body
}

// stale puts the replica that lags in front, or takes it away, and returns how often
// it has answered.
func (r *replicas) stale(yes bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lag = yes
	return r.served
}
