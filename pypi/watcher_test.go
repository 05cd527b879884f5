package pypi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"sigtrail/index"
)

// A bench is a watcher with a real store, and an index to play with.
type bench struct {
	*testing.T
	x       *testIndex
	store   *index.Store
	w       *Watcher
	reg     *prometheus.Registry
	log     bytes.Buffer
	changes atomic.Int64
	path    string
}

// underFakeClock runs a test with a store in a file and an index without a socket,
// so that waiting costs no time.
func underFakeClock(t *testing.T, test func(b *bench), projects ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, x: newTestIndex(), path: path}
		b.open(projects...)
		defer func() {
			if err := b.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		test(b)
	})
}

// open starts a process: a store, a client and a watcher that remember nothing.
func (b *bench) open(projects ...string) {
	b.Helper()
	store, err := index.Open(b.Context(), b.path, index.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.reg = prometheus.NewRegistry()
	metrics := NewMetrics(b.reg)
	client, err := NewClient(Options{URL: "http://index.test", Rate: rate.Inf, Tries: 2, HTTP: &http.Client{Transport: inProcess{b.x}}, Metrics: metrics, UserAgent: "sigtrail test"})
	if err != nil {
		b.Fatal(err)
	}
	b.store = store
	b.w = &Watcher{Client: client, Store: store.PyPI(), Projects: projects, Interval: time.Minute, Metrics: metrics,
		Log: slog.New(slog.NewTextHandler(&b.log, nil)), Changed: func() { b.changes.Add(1) }}
}

func (b *bench) restart(projects ...string) {
	b.Helper()
	if err := b.store.Close(); err != nil {
		b.Fatal(err)
	}
	b.open(projects...)
	b.x.set(func() { clear(b.x.calls) })
}

func (b *bench) once() {
	b.Helper()
	if err := b.w.Once(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// calls are the requests since the last look, without the journal's.
func (b *bench) calls() map[string]int {
	calls := map[string]int{}
	b.x.set(func() {
		for c, n := range b.x.calls {
			if !strings.HasPrefix(c, "changelog") {
				calls[c] = n
			}
		}
		clear(b.x.calls)
	})
	return calls
}

func (b *bench) wantCalls(want map[string]int) {
	b.Helper()
	if d := cmp.Diff(want, b.calls()); d != "" {
		b.Errorf("requests (-want +got):\n%s", d)
	}
}

// due are the files whose provenance is still to be had, now or later.
func (b *bench) due() []string {
	b.Helper()
	files, err := b.store.PyPI().PendingProvenance(b.Context(), time.Now().Add(100*24*time.Hour), 1000)
	if err != nil {
		b.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	return names
}

func (b *bench) serial(project string) int64 {
	b.Helper()
	n, _, err := b.store.PyPI().ListingSerial(b.Context(), project)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func (b *bench) position() int64 {
	b.Helper()
	n, _, err := b.store.PyPI().Serial(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func (b *bench) files() float64 { return metric(b.T, b.reg, "sigtrail_pypi_files_total", "") }

func TestFirstRoundAndFollowing(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", true)
		b.x.upload("other", "other-1.0.tar.gz", false)
		start := b.x.serial
		b.once()
		b.wantCalls(map[string]int{"/simple/sample/": 1, "/integrity/sample/1/sample-1.0.tar.gz/provenance": 1})
		if b.position() != start || b.serial("sample") != b.x.projects["sample"].Serial || b.files() != 1 || b.changes.Load() == 0 || len(b.due()) != 0 {
			b.Errorf("position %d of %d, files %v, %d changes, due %v", b.position(), start, b.files(), b.changes.Load(), b.due())
		}
		b.once()
		b.wantCalls(map[string]int{})

		b.x.upload("other", "other-2.0.tar.gz", true)
		b.once()
		b.wantCalls(map[string]int{}) // not watched, and the position moves all the same
		if b.position() != b.x.serial {
			b.Errorf("position %d, want %d", b.position(), b.x.serial)
		}

		b.x.upload("sample", "sample-1.0-py3-none-any.whl", true)
		b.x.add("Sample", "1.0", "yank release")
		b.x.set(func() { b.x.projects["sample"].Serial = b.x.serial })
		b.once()
		b.wantCalls(map[string]int{"/simple/sample/": 1, "/integrity/sample/1/sample-1.0-py3-none-any.whl/provenance": 1})
		if b.files() != 2 || b.serial("sample") != b.x.serial || metric(b.T, b.reg, "sigtrail_pypi_serial", "") != float64(b.x.serial) || metric(b.T, b.reg, "sigtrail_pypi_serial_lag", "") != 0 {
			b.Errorf("%v files, serial %d", b.files(), b.serial("sample"))
		}
		if !b.x.agents["sigtrail test"] || len(b.x.agents) != 1 {
			b.Errorf("user agents %v", b.x.agents)
		}

		b.restart("Sample")
		b.once()
		b.wantCalls(map[string]int{}) // nothing is fetched twice
	}, "Sample", "sample")
}

func TestJournalInBatches(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.once()
		rows := make([]index.JournalRow, fullBatch+10)
		b.x.set(func() {
			for i := range rows {
				b.x.serial++
				rows[i] = index.JournalRow{Serial: b.x.serial, Name: "noise", Action: "create"}
			}
			b.x.rows = rows
		})
		b.x.upload("sample", "sample-2.0.tar.gz", false)
		b.calls()
		b.once()
		if b.position() != b.x.serial || b.files() != 2 {
			b.Errorf("position %d of %d, %v files", b.position(), b.x.serial, b.files())
		}
	}, "sample")
}

// A cache may serve an old listing after the journal has named the project. It is
// asked again, less and less often, also by another process, and holds nothing up.
func TestStaleListing(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.once()
		old := b.x.projects["sample"].Serial
		b.x.upload("sample", "sample-2.0.tar.gz", false)
		b.x.set(func() { b.x.projects["sample"].Shown = old })
		b.calls()
		start := time.Now()
		b.once()
		if n := b.calls()["/simple/sample/"]; n != 1 || time.Since(start) > time.Second {
			b.Errorf("%d requests in %v", n, time.Since(start))
		}
		b.wantWork("journal stale 1")
		for range 10 {
			time.Sleep(time.Second)
			b.once()
		}
		if n := b.calls()["/simple/sample/"]; n != 2 {
			b.Errorf("%d requests in ten seconds, want one after two and one after six", n)
		}
		for range 60 {
			time.Sleep(time.Minute)
			b.once()
		}
		if n := b.calls()["/simple/sample/"]; n < 12 || n > 20 {
			b.Errorf("%d requests in an hour", n)
		}
		b.restart("sample")
		b.wantWork("journal stale 1")
		b.x.set(func() { b.x.projects["sample"].Shown = 0 })
		time.Sleep(7 * time.Minute)
		b.once()
		if b.files() != 1 || b.serial("sample") != b.x.serial {
			b.Errorf("%v files, serial %d of %d", b.files(), b.serial("sample"), b.x.serial)
		}
		if n := strings.Count(b.log.String(), "stays older than the journal"); n != 1 {
			b.Errorf("said %d times", n)
		}
		b.wantWork()
		b.calls()
		b.once()
		b.wantCalls(map[string]int{})
	}, "sample")
}

// A process that ends between storing a listing and noting it does nothing twice.
func TestListingStoredJustBeforeTheEnd(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.once()
		b.x.upload("sample", "sample-2.0.tar.gz", false)
		b.w.Store = &failing{Store: b.store.PyPI(), call: "ListingRead", ends: true}
		if err := b.w.Once(b.Context()); !errors.Is(err, errDisk) {
			b.Fatal(err)
		}
		b.wantWork("journal due 1")
		b.restart("sample")
		b.once()
		b.wantCalls(map[string]int{})
		b.wantWork()
	}, "sample")
}

// wantWork says what is to be read: cause, state and number.
func (b *bench) wantWork(want ...string) {
	b.Helper()
	s, err := b.store.PyPI().WorkSummary(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	var got []string
	for _, c := range s.Work {
		got = append(got, fmt.Sprintf("%s %s %d", c.Cause, c.State, c.Count))
	}
	if d := cmp.Diff(want, got); d != "" {
		b.Errorf("work (-want +got):\n%s", d)
	}
}

// While a project is out of the configuration, its rows pass by unseen: it must be
// read when it comes back.
func TestProjectComesBack(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.x.upload("second", "second-1.0.tar.gz", false)
		b.once()
		b.restart("second")
		b.once()
		b.x.upload("sample", "sample-2.0.tar.gz", false)
		b.once()
		b.wantCalls(map[string]int{})
		b.restart("second", "sample")
		b.once()
		b.wantCalls(map[string]int{"/simple/sample/": 1})
		if b.files() != 1 {
			b.Errorf("%v new files", b.files())
		}
	}, "sample", "second")
}

// Without a journal the listings are read directly, round after round and at the
// cost of a question whether anything changed. When the journal starts, they are
// read once more: nobody knows what came in between.
func TestJournalIsDown(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", true)
		b.x.status["changelog"] = 500
		var status *StatusError
		if err := b.w.Once(b.Context()); !errors.As(err, &status) {
			b.Errorf("error %v", err)
		}
		if b.files() != 1 || len(b.due()) != 0 || b.position() != 0 {
			b.Errorf("%v files, due %v, position %d", b.files(), b.due(), b.position())
		}
		time.Sleep(time.Minute)
		b.calls()
		_ = b.w.Once(b.Context())
		b.wantCalls(map[string]int{"/simple/sample/": 1, "unchanged": 1})

		b.x.upload("sample", "sample-2.0.tar.gz", false)
		time.Sleep(time.Minute)
		_ = b.w.Once(b.Context())
		if b.files() != 2 {
			b.Errorf("%v files", b.files())
		}
		b.x.set(func() { delete(b.x.status, "changelog") })
		b.calls()
		b.once()
		b.wantCalls(map[string]int{"/simple/sample/": 1, "unchanged": 1})
		if b.position() != b.x.serial {
			b.Errorf("position %d", b.position())
		}
		b.once()
		b.wantCalls(map[string]int{})
		if n := strings.Count(b.log.String(), "reading listings directly"); n != 1 {
			b.Errorf("said %d times:\n%s", n, b.log.String())
		}
	}, "sample")
}

// An index without a journal is told once and no failure: its listings are read in
// every round, and it is asked for a journal now and then.
func TestNoJournal(t *testing.T) {
	for name, status := range map[string]int{"not found": 404, "another method": 405, "not allowed": 403, "unknown": 501} {
		t.Run(name, func(t *testing.T) { underFakeClock(t, func(b *bench) { withoutJournal(b, status) }, "sample") })
	}
}

func withoutJournal(b *bench, status int) {
	b.x.upload("sample", "sample-1.0.tar.gz", true)
	b.x.status["changelog"] = status
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- b.w.Run(ctx) }()
	time.Sleep(30*time.Minute + time.Second)
	synctest.Wait()
	if n := b.x.count("changelog_last_serial"); n < 2 || n > 3 {
		b.Errorf("asked for its journal %d times in half an hour", n)
	}
	if n := b.x.count("/simple/sample/"); n < 26 || n > 35 {
		b.Errorf("listing read %d times in half an hour", n)
	}
	if b.files() != 1 || len(b.due()) != 0 {
		b.Errorf("%v files, due %v", b.files(), b.due())
	}
	if n := strings.Count(b.log.String(), "has no journal"); n != 1 || strings.Contains(b.log.String(), "level=ERROR") || strings.Contains(b.log.String(), "level=WARN") {
		b.Errorf("said %d times:\n%s", n, &b.log)
	}
	b.x.set(func() { clear(b.x.status) }) // it has one now
	time.Sleep(16 * time.Minute)
	synctest.Wait()
	if b.position() != b.x.serial {
		b.Errorf("position %d of %d", b.position(), b.x.serial)
	}
	b.x.set(func() { b.x.status["changelog"] = status }) // and has lost it, which is a failure
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	if !strings.Contains(b.log.String(), "journal is unavailable") {
		b.Errorf("a journal that was followed is gone without a word:\n%s", &b.log)
	}
	stop()
	if err := <-done; err != nil {
		b.Errorf("end of the run: %v", err)
	}
}

func TestJournalGoesBack(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.once()
		b.x.set(func() { b.x.serial-- })
		if err := b.w.Once(b.Context()); err == nil || !strings.Contains(err.Error(), "read up to") {
			b.Errorf("error %v", err)
		}
	}, "sample")
}

func TestOneProjectDoesNotStopTheOthers(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("alpha", "alpha-1.0.tar.gz", true)
		b.x.upload("beta", "beta-1.0.tar.gz", true)
		b.x.upload("gamma", "gamma-1.0.tar.gz", true)
		b.x.status["/simple/alpha"] = 500
		b.x.status["/integrity/beta"] = 502
		err := b.w.Once(b.Context())
		if err == nil || !strings.Contains(err.Error(), "project alpha") || !strings.Contains(err.Error(), "file beta-1.0.tar.gz") || strings.Contains(err.Error(), "gamma") {
			b.Errorf("error %v", err)
		}
		if d := cmp.Diff([]string{"beta-1.0.tar.gz"}, b.due()); d != "" || b.files() != 2 {
			b.Errorf("%v files; due: %s", b.files(), d)
		}
		b.x.set(func() { clear(b.x.status) })
		b.calls()
		b.once() // what failed waits for its time
		b.wantCalls(map[string]int{})
		time.Sleep(time.Minute)
		b.once()
		b.wantCalls(map[string]int{"/simple/alpha/": 1, "/integrity/alpha/1/alpha-1.0.tar.gz/provenance": 1, "/integrity/beta/1/beta-1.0.tar.gz/provenance": 1})
		if len(b.due()) != 0 {
			b.Errorf("due %v", b.due())
		}
	}, "alpha", "beta", "gamma")
}

// With attestations switched off for the whole site, the round does not ask for
// every file; nothing is called absent, and all is asked for again.
func TestRefusedProvenance(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		for i := range 40 {
			b.x.upload("sample", "sample-1."+strconv.Itoa(i)+".tar.gz", true)
		}
		b.x.status["/integrity/"] = 403
		if err := b.w.Once(b.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
			b.Errorf("error %v", err)
		}
		asked := 0
		for c, n := range b.calls() {
			if strings.HasPrefix(c, "/integrity/") {
				asked += n
			}
		}
		if asked < 1 || asked > parallel || len(b.due()) != 40 {
			b.Errorf("asked %d times, due %d", asked, len(b.due()))
		}
		time.Sleep(2 * refusedFor)
		_ = b.w.Once(b.Context())
		asked = 0
		for c, n := range b.calls() {
			if strings.HasPrefix(c, "/integrity/") {
				asked += n
			}
		}
		if asked != 1 || metric(b.T, b.reg, "sigtrail_pypi_unanswering", "provenance") != 1 {
			b.Errorf("asked %d times to see whether it is still refused", asked)
		}
		b.x.set(func() { clear(b.x.status) })
		time.Sleep(time.Hour)
		b.once()
		if len(b.due()) != 0 {
			b.Errorf("due %v", b.due())
		}
	}, "sample")
}

// "Not found" for the provenance of a file just uploaded is a cache's answer until
// time has passed; of an old file it is PyPI's.
func TestProvenanceNotFound(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		time.Sleep(24 * time.Hour) // the fake clock starts with the year 2000
		b.x.upload("sample", "sample-0.9.tar.gz", true)
		b.x.upload("sample", "sample-1.0.tar.gz", true)
		b.x.set(func() {
			files := b.x.projects["sample"].Files
			files[0].Uploaded = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339Nano)
			files[1].Uploaded = time.Now().Add(-time.Second).UTC().Format(time.RFC3339Nano)
			clear(b.x.objects)
		})
		b.once()
		if d := cmp.Diff([]string{"sample-1.0.tar.gz"}, b.due()); d != "" {
			b.Error(d)
		}
		b.x.set(func() { b.x.objects["/integrity/sample/1/sample-1.0.tar.gz/provenance"] = emptyProvenance })
		time.Sleep(2 * retryNegative)
		b.calls()
		b.once()
		b.wantCalls(map[string]int{"/integrity/sample/1/sample-1.0.tar.gz/provenance": 1})
		if len(b.due()) != 0 {
			b.Errorf("due %v", b.due())
		}

		b.x.upload("sample", "sample-2.0.tar.gz", true)
		b.x.set(func() { clear(b.x.objects) })
		b.once()
		if len(b.due()) != 1 {
			b.Errorf("due %v", b.due())
		}
		time.Sleep(2 * youngFor)
		b.once()
		if len(b.due()) != 0 {
			b.Errorf("due %v after %v", b.due(), 2*youngFor)
		}
	}, "sample")
}

func TestProjectRemoved(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.once()
		gone := b.x.projects["sample"]
		b.x.set(func() { delete(b.x.projects, "sample") })
		b.x.add("sample", "1.0", "remove release")
		b.once()
		b.wantWork("journal missing 1") // no word of a removed project
		serial := b.x.add("sample", "", "remove project")
		b.once()
		if b.serial("sample") != serial {
			b.Errorf("serial %d, want %d", b.serial("sample"), serial)
		}
		b.calls()
		b.once()
		b.wantCalls(map[string]int{})

		// Somebody takes the name; for a moment a cache knows nothing of it.
		b.x.add("sample", "", "create")
		b.once()
		b.wantWork("journal missing 1")
		b.x.set(func() { gone.Files = nil; b.x.projects["sample"] = gone })
		b.x.upload("sample", "sample-9.9.tar.gz", false)
		b.once()
		if b.files() != 2 {
			b.Errorf("%v files", b.files())
		}
	}, "sample")
}

func TestUnknownProject(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.once()
		b.once()
		b.wantCalls(map[string]int{"/simple/typo/": 1})
		if n := strings.Count(b.log.String(), "not on the index"); n != 1 {
			b.Errorf("said %d times", n)
		}
		b.x.upload("typo", "typo-1.0.tar.gz", false)
		b.once()
		if b.files() != 1 {
			b.Errorf("%v files", b.files())
		}
	}, "typo")
}

func TestQuarantinedProject(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		p := b.x.projects["sample"]
		files := p.Files
		serial := b.x.add("sample", "", "project quarantined")
		b.x.set(func() { p.Files, p.Status, p.Serial = nil, "quarantined", serial })
		b.once()
		b.calls()
		b.once()
		b.wantCalls(map[string]int{})
		serial = b.x.add("sample", "", "project quarantine cleared")
		b.x.set(func() { p.Files, p.Status, p.Serial = files, "active", serial })
		b.once()
		if b.files() != 1 {
			b.Errorf("%v files", b.files())
		}
	}, "sample")
}

// An index may give no serials, as other servers than PyPI's do.
func TestListingWithoutSerial(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.x.set(func() { b.x.projects["sample"].Serial = 0; b.x.noTags = true })
		b.once()
		b.x.add("sample", "1.0", "yank release")
		b.once()
		b.wantCalls(map[string]int{"/simple/sample/": 2})
		b.once()
		b.wantCalls(map[string]int{})
	}, "sample")
}

func TestConfigurationIsChecked(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		if err := b.w.Once(b.Context()); err == nil || !strings.Contains(err.Error(), "not the name") {
			b.Errorf("error %v", err)
		}
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.w.SetProjects([]string{"sample"})
		b.once()
		if b.files() != 1 {
			b.Errorf("%v files", b.files())
		}
	}, "sample", "../etc")
}

func TestRun(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- b.w.Run(ctx) }()
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait() // here and below: the round under way ends before its traces are read
		if n := b.x.count("changelog_last_serial"); n < 9 || n > 12 {
			b.Errorf("%d rounds in ten minutes", n)
		}
		b.x.set(func() { b.x.status["changelog"] = 599 }) // no connection
		before := b.x.count("changelog_last_serial")
		time.Sleep(time.Hour)
		synctest.Wait()
		rounds := (b.x.count("changelog_last_serial") - before) / 2 // two tries each
		if rounds < 10 || rounds > 20 {
			b.Errorf("%d rounds in an hour without a network", rounds)
		}
		if n := strings.Count(b.log.String(), "journal is unavailable"); n != 1 {
			b.Errorf("said %d times:\n%s", n, b.log.String())
		}
		b.x.set(func() { clear(b.x.status) })
		b.x.upload("sample", "sample-2.0.tar.gz", false)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := strings.Count(b.log.String(), "journal is available again"); n != 1 || b.files() != 2 {
			b.Errorf("said %d times, %v files", n, b.files())
		}
		stop()
		if err := <-done; err != nil {
			b.Errorf("end of the run: %v", err)
		}
	}, "sample")
}

// A round that is cut off says so and is made up for.
func TestRoundCutOff(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", true)
		b.x.status["/integrity/"] = 503
		ctx, stop := context.WithTimeout(b.Context(), time.Millisecond)
		defer stop()
		if err := b.w.Once(ctx); !errors.Is(err, context.DeadlineExceeded) {
			b.Errorf("error %v", err)
		}
		b.x.set(func() { clear(b.x.status) })
		b.once()
		if len(b.due()) != 0 || b.files() != 1 {
			b.Errorf("due %v, %v files", b.due(), b.files())
		}
	}, "sample")
}

// Other projects are taken up at once by a watcher that goes on running; of one that
// is left out nothing is asked any more, and it is read afresh when it comes back.
func TestOtherProjects(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		for _, name := range []string{"first", "second"} {
			b.x.upload(name, name+"-1.0.tar.gz", false)
		}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- b.w.Run(ctx) }()
		synctest.Wait()
		b.wantCalls(map[string]int{"/simple/first/": 1})

		b.w.SetProjects([]string{"Second", "first"})
		synctest.Wait()
		b.wantCalls(map[string]int{"/simple/second/": 1})
		b.x.upload("second", "second-1.1.tar.gz", false)
		b.x.upload("first", "first-1.1.tar.gz", false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.wantCalls(map[string]int{"/simple/first/": 1, "/simple/second/": 1})

		b.w.SetProjects([]string{"second"})
		synctest.Wait()
		b.x.upload("first", "first-1.2.tar.gz", false)
		time.Sleep(time.Hour)
		synctest.Wait()
		b.wantCalls(map[string]int{})

		b.w.SetProjects([]string{"first"})
		synctest.Wait()
		b.wantCalls(map[string]int{"/simple/first/": 1})
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}, "first")
}

// A new file that is read of an hour after its upload, because this process was down,
// is as likely to meet a cache that knows nothing of its provenance.
func TestProvenanceNotFoundAfterAStop(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		time.Sleep(24 * time.Hour) // the clock begins with the year 2000, before which there was no PyPI
		b.x.upload("sample", "sample-1.0.tar.gz", true)
		b.once()
		b.x.upload("sample", "sample-2.0.tar.gz", true)
		b.x.set(func() {
			clear(b.x.objects)
			b.x.projects["sample"].Files[1].Uploaded = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
		})
		b.once()
		if d := cmp.Diff([]string{"sample-2.0.tar.gz"}, b.due()); d != "" {
			b.Error(d)
		}
		time.Sleep(2 * youngFor)
		b.once()
		if len(b.due()) != 0 {
			b.Errorf("due %v after %v", b.due(), 2*youngFor)
		}
	}, "sample")
}

// "Unchanged" answers a question that was not put: no listing has been read by it.
func TestUnchangedWithoutCondition(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.x.set(func() { b.x.status["/simple/sample/"] = http.StatusNotModified })
		if err := b.w.Once(b.Context()); err == nil {
			b.Error("no error")
		}
		b.x.set(func() { clear(b.x.status) })
		time.Sleep(2 * time.Minute)
		b.once()
		if b.files() != 1 {
			b.Errorf("%v files", b.files())
		}
	}, "sample")
}

// What a second look does not settle is not looked at again and again without a pause.
func TestSecondLookThatSettlesNothing(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.x.upload("sample", "sample-2.0.tar.gz", false)
		p := b.x.projects["sample"]
		b.x.set(func() { p.Serial, b.x.noTags = 0, true })
		b.once()
		b.x.add("sample", "2.0", "yank release")
		b.x.set(func() { p.Files = p.Files[:1] })
		b.once() // it may be an old copy
		b.x.set(func() { p.Files, p.Status = nil, "quarantined" })
		b.calls()
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		b.x.set(func() {
			b.x.before = func(string) {
				if b.x.count("/simple/sample/") > 10 {
					cancel()
				}
			}
		})
		time.Sleep(2 * time.Minute)
		if err := b.w.Once(ctx); err != nil {
			b.Error(err)
		}
		if n := b.x.count("/simple/sample/"); n != 1 {
			b.Errorf("%d requests", n)
		}
	}, "sample")
}
