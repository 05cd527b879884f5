package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigtrail/monitor"
)

// A v1 server that stops listing the shard that takes entries may be a replica
// that has not heard of a rotation. It accuses nobody unless it goes on.
func TestNewestShardUnlisted(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	list := w.relist()
	w.release("1.0", sampleRepo)
	before := list.now(t)
	w.lab.V1.Rotate()
	w.release("1.1", sampleRepo)
	d, clock := w.clocked()
	steps := []struct {
		after time.Duration
		list  []byte // nil: the present one
		want  int    // alerts ever
	}{
		{0, nil, 0},
		{time.Minute, before, 0},
		{10 * time.Minute, before, 0},
		{4 * time.Minute, nil, 0},    // another replica: the wait begins anew
		{2 * time.Minute, before, 0}, // 16 minutes after the first time
		{14 * time.Minute, before, 0},
		{2 * time.Minute, before, 1},
		{time.Hour, before, 1},
	}
	for i, s := range steps {
		clock(s.after)
		list.show(s.list)
		if got := d.shardAlerts(t); got != s.want {
			t.Fatalf("step %d: %d alerts, want %d", i, got, s.want)
		}
	}
}

// A shard that has ended can only be left out on purpose.
func TestClosedShardUnlisted(t *testing.T) {
	w := newWorld(t, "follow: head")
	list := w.relist()
	w.release("1.0", sampleRepo)
	w.lab.V1.Rotate()
	w.lab.V1.Rotate()
	d, _ := w.clocked()
	if got := d.shardAlerts(t); got != 0 {
		t.Fatalf("%d alerts of an honest server", got)
	}
	var info map[string]any
	if err := json.Unmarshal(list.now(t), &info); err != nil {
		t.Fatal(err)
	}
	// The second one, which is empty: the others keep their global indexes.
	info["inactiveShards"] = slices.Delete(info["inactiveShards"].([]any), 1, 2)
	list.show(must(json.Marshal(info)))
	if got := d.shardAlerts(t); got != 1 {
		t.Errorf("%d alerts, want 1", got)
	}
}

// A relisting server passes on to the lab's v1 log, and can be told its log info.
type relisting struct {
	url  string
	mu   sync.Mutex
	info []byte
}

// relist has the configuration read the v1 log through one.
func (w *world) relist() *relisting {
	w.Helper()
	text := string(must(os.ReadFile(w.config)))
	_, address, _ := strings.Cut(text, `url: "`)
	address, _, _ = strings.Cut(address, `"`)
	r := new(relisting)
	next := httputil.NewSingleHostReverseProxy(must(url.Parse(address)))
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		info := r.info
		r.mu.Unlock()
		if req.URL.Path == "/api/v1/log" && info != nil {
			rw.Header().Set("Content-Type", "application/json")
			rw.Write(info)
			return
		}
		next.ServeHTTP(rw, req)
	}))
	w.Cleanup(s.Close)
	r.url = s.URL
	w.config = w.write("sigtrail.yaml", strings.Replace(text, address, s.URL, 1))
	return r
}

// now is the log info as the lab serves it.
func (r *relisting) now(t *testing.T) []byte {
	t.Helper()
	resp := must(http.Get(r.url + "/api/v1/log"))
	defer resp.Body.Close()
	return must(io.ReadAll(resp.Body))
}

func (r *relisting) show(info []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.info = info
}

// A clocked daemon follows logs by a clock that only the test moves.
type clocked struct{ *daemon }

func (w *world) clocked() (clocked, func(time.Duration)) {
	w.Helper()
	d := clocked{w.daemon()}
	at := time.Now()
	d.keeper.Now = func() time.Time { return at }
	return d, func(by time.Duration) { at = at.Add(by) }
}

// shardAlerts makes a round and counts the alerts on record about shards.
func (d clocked) shardAlerts(t *testing.T) int {
	t.Helper()
	for _, f := range d.followers {
		if err := f.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	must(d.judge.Once(t.Context()))
	n := 0
	for _, a := range must(d.store.Alerts(t.Context(), "", "")) {
		if a.Rule == monitor.ClosedChanged {
			n++
		}
	}
	return n
}
