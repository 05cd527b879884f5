package pypi

import (
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"sigtrail/index"
	"sigtrail/internal/lab"
)

// labIndex serves a PyPI of the lab.
func labIndex(t *testing.T) (*lab.PyPI, *Client) {
	t.Helper()
	p := lab.NewPyPI(time.Now)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.SetBase(s.URL)
	c, err := NewClient(Options{URL: s.URL, Rate: rate.Inf, Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

// A list of all projects of 200 MB, five times what PyPI's is today, is read as it
// comes.
func TestProjectsOf200MB(t *testing.T) {
	p, c := labIndex(t)
	p.Upload(lab.Upload{Project: "A.b", Version: "1", Filename: "a_b-1.tar.gz"})
	const names, length = 850_000, 210 // and thirty bytes around each
	p.Ballast(names, length)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	most, batches, first := uint64(0), 0, ""
	_, n, err := c.Projects(t.Context(), func(some []index.Named) error {
		if first == "" {
			first = some[0].Project
		}
		if batches++; batches%50 == 0 {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
		return nil
	})
	if err != nil || n != names+1 || first != "a-b" {
		t.Fatalf("%d projects, the first %q, %v", n, first, err)
	}
	if more := int64(most) - int64(before.HeapAlloc); more > 32<<20 {
		t.Errorf("%d MB of memory for a list of 200 MB", more>>20)
	}
}

// A project with 20,000 files, to which sixty more are uploaded, is read once for
// all of them, however many rows the journal has.
func TestProjectWith20000Files(t *testing.T) {
	p, c := labIndex(t)
	upload := func(n int) {
		name := fmt.Sprintf("large-1.%d-py3-none-any.whl", n)
		p.Upload(lab.Upload{Project: "large", Version: fmt.Sprintf("1.%d", n), Filename: name, SHA256: lab.Digest(name)})
	}
	const many = 20_000
	for n := range many {
		upload(n)
	}
	store, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "sigtrail.db"), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w := &Watcher{Client: c, Store: store.PyPI(), Projects: []string{"large"}, Interval: time.Minute}
	look := func(want int) {
		t.Helper()
		if err := w.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		files, err := store.Files(t.Context(), index.Selection{Project: "large"})
		if err != nil || len(files) != want {
			t.Fatalf("%d files, %v; want %d", len(files), err, want)
		}
	}
	look(many)
	for n := range 60 {
		upload(many + n)
	}
	look(many + 60)
}
