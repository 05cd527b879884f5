package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/transparency-dev/tessera/api/layout"

	"sigtrail/internal/lab"
)

// An observer notes what logs are asked and what heads they give.
type observer struct {
	mu    sync.Mutex
	asked []*http.Request
	body  map[*http.Request]string
	sizes []uint64 // of v2 heads
}

func (o *observer) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		sent = must(io.ReadAll(r.Body))
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked, o.body[r] = append(o.asked, r), string(sent)
	if err == nil && strings.HasSuffix(r.URL.Path, "/checkpoint") {
		note := must(io.ReadAll(resp.Body))
		resp.Body = io.NopCloser(bytes.NewReader(note))
		if lines := strings.Split(string(note), "\n"); len(lines) > 2 {
			o.sizes = append(o.sizes, must(strconv.ParseUint(lines[1], 10, 64)))
		}
	}
	return resp, err
}

// What a log is asked, in whichever mode, over a rotation: only the calls that a
// monitor needs, in the form that the log documents, at the address that was
// configured. Never for its key, which only a trusted root may give, nor for the
// heads that v1 no longer has.
func TestRequests(t *testing.T) {
	for _, follow := range []string{tailed, lookedUp} {
		t.Run(follow, func(t *testing.T) {
			o := &observer{body: make(map[*http.Request]string)}
			w := newFaultWorld(t, follow)
			w.readers.HTTP = &http.Client{Transport: o}
			for range 2 {
				w.grow()
				if got := w.try(); got.code != exitFine {
					t.Fatalf("exit code %d, %s", got.code, got.err)
				}
				w.lab.V1.Rotate()
			}
			asked := make(map[string]int)
			for _, r := range o.asked {
				asked[w.checkRequest(o, r)]++
			}
			want := []string{"GET /api/v1/log", "POST " + retrieve, "checkpoint", "tile"}
			if follow == tailed {
				want = append(want, "GET /api/v1/log/proof")
			} else {
				want = append(want, "POST /api/v1/index/retrieve")
			}
			for _, call := range want {
				if asked[call] == 0 {
					t.Errorf("%s was not asked: %v", call, asked)
				}
			}
		})
	}
}

// checkRequest returns which call it is.
func (w *faultWorld) checkRequest(o *observer, r *http.Request) string {
	w.Helper()
	call := r.Method + " " + r.URL.Path
	v2 := must(url.Parse(w.lab.Addresses().V2))
	allowed := []string{must(url.Parse(w.lab.Addresses().V1)).Host, v2.Host}
	if !slices.Contains(allowed, r.URL.Host) {
		w.Errorf("%s asked of %s", call, r.URL.Host)
	}
	query := r.URL.Query()
	var keys []string
	for k := range query {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	switch {
	case r.URL.Host == v2.Host:
		return w.checkTile(o, r, strings.TrimPrefix(r.URL.Path, v2.Path))
	case call == "GET /api/v1/log", call == "POST /api/v1/index/retrieve":
		if len(keys) > 0 {
			w.Errorf("%s with %v", call, keys)
		}
	case call == "GET /api/v1/log/proof":
		if !slices.Equal(keys, []string{"firstSize", "lastSize", "treeID"}) || query.Get("firstSize") == "0" {
			w.Errorf("%s with %v", call, query)
		}
	case call == "GET /api/v1/log/entries":
		if !slices.Equal(keys, []string{"logIndex"}) {
			w.Errorf("%s with %v", call, query)
		}
	case call == "POST "+retrieve:
		var q struct {
			LogIndexes []int64  `json:"logIndexes"`
			EntryUUIDs []string `json:"entryUUIDs"`
		}
		if err := json.Unmarshal([]byte(o.body[r]), &q); err != nil || len(q.LogIndexes)+len(q.EntryUUIDs) > 10 {
			w.Errorf("%s with %s: %v", call, o.body[r], err)
		}
	default:
		w.Errorf("%s was asked", call)
	}
	return call
}

var tilePath = regexp.MustCompile(`^tile/(entries|\d+)/(.*)$`)

// checkTile holds partial tiles against the heads that were served: others need not
// exist.
func (w *faultWorld) checkTile(o *observer, r *http.Request, path string) string {
	w.Helper()
	if r.Method != http.MethodGet || r.URL.RawQuery != "" {
		w.Errorf("%s %s was asked", r.Method, r.URL)
	}
	if path == "checkpoint" {
		return path
	}
	m := tilePath.FindStringSubmatch(path)
	if m == nil {
		w.Errorf("%s was asked", path)
		return ""
	}
	level, number, width, err := layout.ParseTileLevelIndexPartial(strings.Replace(m[1], "entries", "0", 1), m[2])
	if err != nil || !slices.ContainsFunc(o.sizes, func(size uint64) bool { return layout.PartialTileSize(level, number, size) == width }) {
		w.Errorf("%s was asked, with heads of %v: %v", path, o.sizes, err)
	}
	return "tile"
}

// Replicas lag behind each other: a proof that one of them does not have yet is
// asked for again, and nobody is accused.
func TestReplicaWithoutTheProof(t *testing.T) {
	w := newFaultWorld(t, tailed)
	w.grow()
	w.once(exitFine)
	w.grow()
	w.lab.V1Faults.Status("/api/v1/log/proof", 2, http.StatusBadRequest, "")
	w.lab.V2Faults.Status("/api/v2/tile/0/", 2, http.StatusNotFound, "")
	if o := w.try(); o.code != exitFine {
		t.Errorf("exit code %d, %s", o.code, o.err)
	}
	w.sameAsWithoutFaults()
	if n := len(w.got()); n != 0 {
		t.Errorf("%d alerts", n)
	}
}

// The same leaf in two shards is two entries, each at its own place.
func TestSameLeafInTwoShards(t *testing.T) {
	for _, follow := range []string{tailed, lookedUp} {
		t.Run(follow, func(t *testing.T) {
			w := newFaultWorld(t, follow)
			s, first := w.sign("sampleproject-1.0.tar.gz", sampleRepo)
			w.once(exitFine)
			w.lab.V1.Rotate()
			must(w.lab.V1.LogLeaf(noise(1)))
			second := must(w.lab.V1.Log(s))
			w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "1.0", Filename: s.Filename, SHA256: s.SHA256, Provenance: lab.Provenance(sampleRepo.Publisher(), s, first)})
			w.until(func() bool { w.try(); return len(w.bound()) == 2 })
			rows := w.ask(`SELECT l.origin, e.idx, l.first_global FROM entries e JOIN logs l ON l.id = e.log_id ORDER BY l.id`)
			want := []string{lab.V1Host + " - 1193050959916656506 0 0", lab.V1Host + " - 1193050959916656507 1 1"}
			if !slices.Equal(rows, want) || first.ID[16:] != second.ID[16:] {
				t.Errorf("entries %v, want %v", rows, want)
			}
		})
	}
}

// Global indexes never renumber. A server whose older shard looks smaller, as on a
// replica that lags, would shift them: nothing is read until it says the same again.
func TestShardsRenumbered(t *testing.T) {
	w := newFaultWorld(t, tailed)
	w.grow()
	w.once(exitFine)
	old := w.lab.V1.Active()
	known := old.Size()
	w.grow()
	w.lab.V1.Rotate()
	w.grow()
	w.once(exitFine)
	before := w.ask(`SELECT origin, next FROM logs WHERE api = 'v1' ORDER BY 1`)
	w.grow()
	old.Stale(known)
	if o := w.try(); o.code != exitCould || !strings.Contains(o.err, "global index") {
		t.Errorf("exit code %d, %s", o.code, o.err)
	}
	if after := w.ask(`SELECT origin, next FROM logs WHERE api = 'v1' ORDER BY 1`); !slices.Equal(before, after) {
		t.Errorf("positions %v, want still %v", after, before)
	}
	old.Honest()
	w.once(exitFine)
	if n := len(w.got()); n != 0 {
		t.Errorf("%d alerts", n)
	}
	for _, s := range w.statuses() {
		if s.Next == nil || *s.Next != s.Head.Size {
			t.Errorf("position %v of %d", s.Next, s.Head.Size)
		}
	}
}
