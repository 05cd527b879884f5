package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"sigtrail/monitor"
)

// The daemon itself, through every fault of both logs in turn: it answers for its
// health, counts what fails, catches up each time, and ends with the database of a
// daemon that saw none of it.
func TestDaemonThroughFaults(t *testing.T) {
	t.Parallel()
	for _, follow := range []string{tailed, lookedUp} {
		t.Run(follow, func(t *testing.T) {
			t.Parallel()
			w := newFaultWorld(t, follow)
			w.grow()
			w.once(exitFine)
			logged := new(journal)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			d := must(newDaemon(ctx, must(loadConfig(w.config)), slog.New(slog.NewTextHandler(io.MultiWriter(logged, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug}))))
			d.readers = w.readers
			ended := make(chan error, 1)
			go func() { ended <- d.run(ctx) }()
			w.until(func() bool { return d.address.Load() != nil })

			for _, f := range faults {
				if f.name == "drips" {
					continue // for as long as a minute
				}
				before := w.page(d, "/metrics")
				for api, faults := range w.faults {
					f.spoil(faults, map[monitor.API]string{monitor.V1: "/api/v1/", monitor.V2: "/api/v2/"}[api])
				}
				w.grow()
				for api := range w.faults {
					w.until(func() bool { return w.failures(w.page(d, "/metrics"), api) > w.failures(before, api) })
				}
				if got := w.page(d, "/healthz"); got != "ok\n" {
					t.Errorf("%s: health: %q", f.name, got)
				}
				for _, faults := range w.faults {
					faults.Clear()
				}
				w.until(func() bool { return w.caughtUp(d) })
			}
			last := w.page(d, "/metrics")
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			if err := d.close(); err != nil {
				t.Error(err)
			}
			w.keepsSecret("log", logged.String())
			w.keepsSecret("metrics", last)
			w.sameAsWithoutFaults()
			if n := len(w.got()); n != 0 {
				t.Errorf("%d alerts", n)
			}
		})
	}
}

// caughtUp reports whether every entry that was logged for a file is bound, and
// every tail at its log's end.
func (w *faultWorld) caughtUp(d *daemon) bool {
	w.Helper()
	sizes := map[monitor.API]uint64{monitor.V1: w.lab.V1.Active().Size(), monitor.V2: w.lab.V2.Size()}
	for _, s := range must(d.store.LogStatuses(w.Context())) {
		if s.Next != nil && *s.Next < sizes[s.Log.API] {
			return false
		}
	}
	bound := w.bound()
	for name, at := range w.files {
		for api, idx := range at {
			if !bound[fmt.Sprint(name, " ", api, " ", idx)] {
				return false
			}
		}
	}
	return true
}

// failures are the rounds of following a log that went wrong.
func (w *faultWorld) failures(metrics string, api monitor.API) float64 {
	return sum(metrics, "sigtrail_polls_total", "server", w.address(api), "outcome", "error")
}

// page is what the daemon serves.
func (w *faultWorld) page(d *daemon, path string) string {
	w.Helper()
	resp, err := http.Get("http://" + d.address.Load().(string) + path)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	return string(must(io.ReadAll(resp.Body)))
}

// A journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
