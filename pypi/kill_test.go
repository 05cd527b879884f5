package pypi

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"sigtrail/index"
)

// childOf names what a child process of TestBootstrapKilled reads and writes.
const childOf = "SIGTRAIL_TEST_BOOTSTRAP"

// TestBootstrapChild is the process that TestBootstrapKilled kills.
func TestBootstrapChild(t *testing.T) {
	url, path, ok := strings.Cut(os.Getenv(childOf), "\n")
	if !ok {
		t.Skip("runs as a child of TestBootstrapKilled only")
	}
	store, err := index.Open(t.Context(), path, index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(Options{URL: url, Rate: rate.Inf})
	if err != nil {
		t.Fatal(err)
	}
	w := &Watcher{Client: client, Store: store.PyPI(), All: true}
	if err := w.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// A process that is killed again and again while it reads every project for the first
// time reads each listing once, and once more what was under way.
func TestBootstrapKilled(t *testing.T) {
	const projects, kills = 120, 3
	x := newTestIndex()
	for i := range projects {
		name := "p" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		x.upload(name, name+"-1.0.tar.gz", i%3 == 0)
	}
	var asked, enough atomic.Int64
	reached := make(chan struct{}, 1)
	x.before = func(call string) {
		if strings.HasPrefix(call, "/simple/p") && asked.Add(1) == enough.Load() {
			raise(reached)
		}
	}
	server := httptest.NewServer(x)
	defer server.Close()
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	child := func(ctx context.Context) *exec.Cmd {
		c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestBootstrapChild$")
		c.Env = append(os.Environ(), childOf+"="+server.URL+"\n"+path)
		return c
	}
	for i := range kills {
		enough.Store(int64((i + 1) * projects / (kills + 1)))
		c := child(t.Context())
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-reached:
		case <-time.After(time.Minute):
			t.Error("the child does not get on")
		}
		if err := c.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err == nil {
			t.Error("the child ended before it was killed")
		}
	}
	if out, err := child(t.Context()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n := asked.Load(); n < projects || n > projects+kills*parallel {
		t.Errorf("%d listings were asked for, for %d projects and %d kills", n, projects, kills)
	}
	s, err := index.OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sum, err := s.PyPI().WorkSummary(t.Context())
	if err != nil || sum.Watched != projects || len(sum.Work) != 0 || sum.Provenance != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
	if p, err := s.Progress(t.Context()); err != nil || p.Files != projects {
		t.Errorf("%+v, %v", p, err)
	}
}
