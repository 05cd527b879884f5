package rekor

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"sigtrail/monitor"
)

// headOf asks for the head and verifies it.
func headOf(t testing.TB, s monitor.Server) (monitor.Served, monitor.Head) {
	t.Helper()
	served, err := s.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := served[len(served)-1]
	h, err := monitor.ParseHead(last.Note, last.Log.Origin, last.Verifier)
	if err != nil {
		t.Fatal(err)
	}
	return last, h
}

func (s *testV2) headAt(size uint64) monitor.Head {
	return monitor.Head{Origin: s.key.tlog.Host, Size: size, Root: monitor.Hash(s.root(size))}
}

func TestV2Logs(t *testing.T) {
	s, v := newTestV2(t, 5, shortLeaf)
	served, head := headOf(t, v)
	if head.Size != 5 || served.Log.KeyID != s.key.tlog.KeyID || served.Log.API != monitor.V2 || served.Log.Origin != "log.example" {
		t.Errorf("%v %+v", head, served.Log)
	}
	s.before = func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }
	if _, err := v.Logs(t.Context()); !errors.Is(err, monitor.ErrNotServed) || !strings.Contains(err.Error(), "api/v2") {
		t.Errorf("without a checkpoint: %v", err)
	}
}

func TestV2Consistency(t *testing.T) {
	s, v := newTestV2(t, 70000, shortLeaf)
	sizes := []uint64{1, 2, 3, 255, 256, 257, 511, 512, 1000, 65535, 65536, 65537, 65900, 70000}
	roots := map[uint64]monitor.Hash{}
	for _, size := range sizes {
		roots[size] = monitor.Hash(s.root(size))
	}
	for _, gone := range []bool{false, true} {
		s.gone = gone
		for i, to := range sizes {
			for _, from := range sizes[:i] {
				p, err := v.Consistency(t.Context(), from, to)
				if err != nil {
					t.Fatalf("%d to %d, gone %v: %v", from, to, gone, err)
				}
				if err := monitor.VerifyConsistency(from, roots[from], to, roots[to], p); err != nil {
					t.Errorf("%d to %d, gone %v: %v", from, to, gone, err)
				}
			}
		}
		if _, err := v.Consistency(t.Context(), 5, 90000); !errors.Is(err, monitor.ErrNotServed) {
			t.Errorf("beyond the log: %v", err)
		}
		if _, err := v.Consistency(t.Context(), 7, 7); err == nil {
			t.Error("a proof of nothing")
		}
	}
}

func TestV2Inclusion(t *testing.T) {
	s, v := newTestV2(t, 70000, shortLeaf)
	s.gone = true
	for _, size := range []uint64{1, 256, 300, 65536, 65800, 70000} {
		head := s.headAt(size)
		for _, index := range []uint64{0, 1, 255, 256, 299, 65535, 65537, 69999} {
			if index >= size {
				continue
			}
			p, err := v.Inclusion(t.Context(), head, index)
			if err != nil {
				t.Fatalf("%d of %d: %v", index, size, err)
			}
			if err := monitor.VerifyInclusion(index, monitor.HashLeaf(p.Leaf.Data), head, p.Hashes); err != nil {
				t.Errorf("%d of %d: %v", index, size, err)
			}
			if p.Leaf.Index != index || p.Note != nil || p.Size != size {
				t.Errorf("%d of %d: %+v", index, size, p)
			}
		}
	}
	if _, err := v.Inclusion(t.Context(), s.headAt(10), 10); !errors.Is(err, monitor.ErrNotServed) {
		t.Errorf("past the end: %v", err)
	}
	// Full tiles are asked for once.
	head := s.headAt(70000)
	before := s.asked.Load()
	if _, err := v.Inclusion(t.Context(), head, 1); err != nil {
		t.Fatal(err)
	}
	if n := s.asked.Load() - before; n > 3 {
		t.Errorf("%d requests for a proof whose full tiles are known", n)
	}
}

func TestV2WrongTileIsNotKept(t *testing.T) {
	s, v := newTestV2(t, 600, shortLeaf)
	head := s.headAt(600)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/tile/0/000") {
			w.Write(make([]byte, maxTile))
			return true
		}
		return false
	}
	p, err := v.Inclusion(t.Context(), head, 5)
	if err != nil || monitor.VerifyInclusion(5, monitor.HashLeaf(p.Leaf.Data), head, p.Hashes) == nil {
		t.Fatalf("a wrong tile makes a proof: %v", err)
	}
	s.before = nil
	p, err = v.Inclusion(t.Context(), head, 5)
	if err != nil || monitor.VerifyInclusion(5, monitor.HashLeaf(p.Leaf.Data), head, p.Hashes) != nil {
		t.Errorf("the wrong tile stayed: %v", err)
	}
}

func TestV2Leaves(t *testing.T) {
	s, v := newTestV2(t, 1000, shortLeaf)
	for _, gone := range []bool{false, true} {
		s.gone = gone
		for _, c := range []struct{ size, from, to, want uint64 }{
			{1000, 0, 1000, 1000}, {1000, 0, 1, 1}, {1000, 255, 257, 2}, {1000, 999, 5000, 1},
			{300, 0, 300, 300}, {300, 256, 299, 43}, {300, 299, 1000, 1}, {256, 3, 256, 253}, {700, 700 - 1, 700, 1},
		} {
			got, err := v.Leaves(t.Context(), s.headAt(c.size), c.from, c.to)
			if err != nil || uint64(len(got)) != c.want {
				t.Errorf("%+v, gone %v: %d leaves, %v", c, gone, len(got), err)
				continue
			}
			for i, l := range got {
				if l.Index != c.from+uint64(i) || !bytes.Equal(l.Data, shortLeaf(int(l.Index))) {
					t.Fatalf("%+v: leaf %d is %d %q", c, i, l.Index, l.Data)
				}
			}
		}
	}
	if _, err := v.Leaves(t.Context(), s.headAt(10), 10, 20); err == nil {
		t.Error("leaves past the head")
	}
}

// A run ends before what cannot be had; without a single leaf it is an error.
func TestV2LeavesWithHole(t *testing.T) {
	s, v := newTestV2(t, 1000, shortLeaf)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/entries/002") {
			http.NotFound(w, r)
			return true
		}
		return false
	}
	got, err := v.Leaves(t.Context(), s.headAt(1000), 100, 1000)
	if err != nil || len(got) != 412 {
		t.Errorf("%d leaves, %v", len(got), err)
	}
	if _, err := v.Leaves(t.Context(), s.headAt(1000), 600, 1000); !errors.Is(err, monitor.ErrNotServed) {
		t.Errorf("none: %v", err)
	}
}

func TestV2Malformed(t *testing.T) {
	s, v := newTestV2(t, 1000, shortLeaf)
	head := s.headAt(1000)
	var answer atomic.Value // requests of the case before may still come, cancelled
	s.before = func(w http.ResponseWriter, r *http.Request) bool { w.Write(answer.Load().([]byte)); return true }
	for name, body := range map[string][]byte{
		"empty": {}, "one leaf short": s.bundle(0, 255), "one byte short": s.bundle(0, 256)[:100],
		"trailing": append(s.bundle(0, 256), 0), "half a length": append(s.bundle(0, 255), 0),
		"a page": []byte("<html>maintenance</html>"),
	} {
		answer.Store(body)
		if got, err := v.Leaves(t.Context(), head, 0, 10); err == nil || errors.Is(err, monitor.ErrNotServed) {
			t.Errorf("%s bundle: %d leaves, %v", name, len(got), err)
		}
		if p, err := v.Consistency(t.Context(), 256, 1000); err == nil || errors.Is(err, monitor.ErrNotServed) {
			t.Errorf("%s tile: %v, %v", name, p, err)
		}
	}
}

func BenchmarkV2Leaves(b *testing.B) {
	leaf := bytes.Repeat([]byte("x"), 1900) // a leaf with a GitHub certificate
	s, v := newTestV2(b, 4096, func(int) []byte { return leaf })
	bundles := map[string][]byte{}
	for i := range 16 {
		bundles["/api/v2/tile/entries/0"+string(rune('0'+i/10))+string(rune('0'+i%10))] = s.bundle(uint64(i), 256)
	}
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		w.Write(bundles[r.URL.Path])
		return true
	}
	head := s.headAt(4096)
	b.SetBytes(int64(len(leaf) * 4096))
	for b.Loop() {
		got, err := v.Leaves(b.Context(), head, 0, 4096)
		if err != nil || len(got) != 4096 {
			b.Fatal(len(got), err)
		}
	}
	b.ReportMetric(float64(b.N)*4096/b.Elapsed().Seconds(), "leaves/s")
}

func BenchmarkSplitBundle(b *testing.B) {
	leaf := bytes.Repeat([]byte("x"), 1900)
	raw := newTestTree(256, func(int) []byte { return leaf }).bundle(0, 256)
	into := make([]monitor.Leaf, 256)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if err := splitBundle(raw, 256, into, 0, 0); err != nil {
			b.Fatal(err)
		}
	}
}
