package pypi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
)

// everything has the index filled with projects and the watcher watch all of them.
func (b *bench) everything(projects int) {
	b.w.All = true
	for i := range projects {
		b.x.upload(fmt.Sprintf("p%03d", i), fmt.Sprintf("p%03d-1.0.tar.gz", i), i%2 == 0)
	}
}

// asked counts requests for listings and for provenance.
func (b *bench) asked() (listings, provenance, lists int) {
	for call, n := range b.calls() {
		switch {
		case call == "/simple/":
			lists += n
		case strings.HasPrefix(call, "/simple/"):
			listings += n
		case strings.HasPrefix(call, "/integrity/"):
			provenance += n
		}
	}
	return listings, provenance, lists
}

// Every project of the index is read once, and then what the journal names, projects
// that nobody has heard of included.
func TestAllProjects(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.everything(30)
		var last *Bootstrap
		b.w.Progress = func(p *Bootstrap) { last = p }
		b.once()
		if l, p, n := b.asked(); l != 30 || p != 15 || n != 1 {
			b.Errorf("%d listings, %d provenances, %d lists", l, p, n)
		}
		if b.files() != 30 || metric(b.T, b.reg, "sigtrail_pypi_projects_watched", "") != 30 || metric(b.T, b.reg, "sigtrail_pypi_bootstrap_remaining", "") != 0 {
			b.Errorf("%v files", b.files())
		}
		b.wantWork()
		b.x.upload("New.Name", "new_name-1.0.tar.gz", true)
		b.x.set(func() { b.x.projects["new-name"] = b.x.projects["New.Name"] })
		b.x.upload("p003", "p003-1.1.tar.gz", false)
		b.x.add("---", "", "create") // no name, and no reason to stop
		b.once()
		if l, p, n := b.asked(); l != 2 || p != 1 || n != 0 {
			b.Errorf("after two uploads: %d listings, %d provenances, %d lists", l, p, n)
		}
		b.wantWork()
		b.restart()
		b.w.All = true
		b.once()
		if l, p, n := b.asked(); l+p+n != 0 {
			b.Errorf("after a restart: %d listings, %d provenances, %d lists", l, p, n)
		}
		_ = last
	})
}

// The list of all projects comes out of a cache. What happened between its making and
// the moment from which the journal is followed is not lost.
func TestListOfAllProjectsIsOld(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.everything(3)
		b.x.set(func() { b.x.asOf = b.x.serial })
		b.x.upload("late", "late-1.0.tar.gz", true)
		b.x.upload("p001", "p001-1.1.tar.gz", false)
		b.once()
		if b.files() != 5 || b.serial("late") != b.x.projects["late"].Serial || b.position() != b.x.serial {
			b.Errorf("%v files, late has serial %d of %d", b.files(), b.serial("late"), b.x.projects["late"].Serial)
		}
		if l, p, _ := b.asked(); l != 4 || p != 3 {
			b.Errorf("%d listings, %d provenances", l, p)
		}
	})
}

// A process that ends anywhere in the bootstrap goes on with what is left: no listing
// is read twice but the one that was under way.
func TestBootstrapIsResumed(t *testing.T) {
	for call, after := range map[string]int{"Enlist": 0, "Enlisted": 0, "FollowJournal": 0, "SaveListing": 7, "ListingRead": 7, "SaveProvenance": 3} {
		t.Run(call, func(t *testing.T) {
			underFakeClock(t, func(b *bench) {
				b.everything(20)
				b.x.set(func() { b.x.asOf = b.x.serial - 3 })
				b.w.Store = &failing{Store: b.store.PyPI(), call: call, ends: true, after: after}
				if err := b.w.Once(b.Context()); !errors.Is(err, errDisk) {
					b.Errorf("error %v", err)
				}
				l1, p1, _ := b.asked()
				b.restart()
				b.w.All = true
				b.once()
				b.once()
				l2, p2, _ := b.asked()
				if b.wantWork(); l1+l2 > 20+parallel || p1+p2 > 10+parallel {
					b.Errorf("%d and %d listings, %d and %d provenances", l1, l2, p1, p2)
				}
				l, err := b.store.PyPI().WorkSummary(b.Context())
				if err != nil || l.Watched != 20 || l.Provenance != 0 || l.Census.IsZero() {
					b.Errorf("%+v, %v", l, err)
				}
			})
		})
	}
}

// What the journal names is read before what has been there for years, and while that
// goes on.
func TestJournalBeforeBootstrap(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.everything(200)
		b.x.set(func() {
			b.x.before = func(call string) {
				if strings.HasPrefix(call, "/simple/p") {
					time.Sleep(8 * time.Second) // 200 listings, four at a time: seven minutes
				}
			}
		})
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- b.w.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		remaining := metric(b.T, b.reg, "sigtrail_pypi_bootstrap_remaining", "")
		b.x.upload("urgent", "urgent-1.0.tar.gz", true)
		time.Sleep(75*time.Second + 2*8*time.Second)
		synctest.Wait()
		if b.x.count("/integrity/urgent/1/urgent-1.0.tar.gz/provenance") != 1 {
			b.Error("the upload waits for the bootstrap")
		}
		if left := metric(b.T, b.reg, "sigtrail_pypi_bootstrap_remaining", ""); remaining < 100 || left < 50 || left >= remaining {
			b.Errorf("%v projects to read, then %v", remaining, left)
		}
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
}

// Older rows are read from a serial on, of watched projects only; again for a project
// that comes to be watched; never twice for the same ones; and they make no work.
func TestOlderJournal(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.set(func() { b.x.batch = 4 })
		b.x.upload("sample", "sample-0.1.tar.gz", false)
		b.x.upload("other", "other-0.1.tar.gz", false)
		since := b.x.serial
		for i := range 5 {
			b.x.upload("sample", fmt.Sprintf("sample-1.%d.tar.gz", i), false)
			b.x.upload("other", fmt.Sprintf("other-1.%d.tar.gz", i), false)
		}
		b.w.JournalSince = since
		b.once()
		b.wantWork()
		b.wantRows("sample", 5)
		b.wantRows("other", 0)
		asked := b.x.count("changelog_since_serial")
		b.once()
		if n := b.x.count("changelog_since_serial"); n != asked {
			b.Errorf("the older journal was read again: %d requests", n-asked)
		}
		b.restart("sample", "other")
		b.w.JournalSince = since
		b.x.set(func() { b.x.status["changelog_since"] = 500 })
		_ = b.w.Once(b.Context()) // broken off
		b.x.set(func() { clear(b.x.status) })
		b.restart("sample", "other")
		b.w.JournalSince = since
		b.once()
		b.wantRows("sample", 5)
		b.wantRows("other", 5)

		b.w.JournalSince = since - 3
		b.once()
		b.wantRows("other", 6)
	}, "sample")
}

func (b *bench) wantRows(project string, want int) {
	b.Helper()
	rows, err := b.store.Journal(b.Context(), "", project)
	if err != nil {
		b.Fatal(err)
	}
	if len(rows) != want {
		b.Errorf("%d rows of %s, want %d: %v", len(rows), project, want, rows)
	}
}

// An index without a journal denies a project for a day before its files are gone.
func TestProjectGoneWithoutJournal(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.x.status["changelog"] = 404
		b.x.upload("sample", "sample-1.0.tar.gz", false)
		b.once()
		b.x.set(func() { delete(b.x.projects, "sample") })
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- b.w.Run(ctx) }()
		time.Sleep(20 * time.Hour)
		synctest.Wait()
		if strings.Contains(b.log.String(), "was removed") {
			b.Error("gone too early")
		}
		time.Sleep(8 * time.Hour)
		synctest.Wait()
		if n := strings.Count(b.log.String(), "was removed"); n != 1 {
			b.Errorf("said %d times", n)
		}
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}, "sample")
}

// What is held does not grow with what is to be done.
func TestReaderHoldsLittle(t *testing.T) {
	underFakeClock(t, func(b *bench) {
		b.everything(100)
		greedy := &counting{Store: b.store.PyPI()}
		b.w.Store = greedy
		b.once()
		if greedy.most == 0 || greedy.most > dueTogether {
			b.Errorf("%d pieces of work were read at once", greedy.most)
		}
		q := queue{w: b.w, flying: map[string]bool{"large": true}, listings: 1}
		fresh := make([]index.File, 20*maxFresh)
		for i := range fresh {
			fresh[i].ProvenanceURL = "http://index.test/"
		}
		for range 3 {
			q.land(result{key: "large", kind: &b.w.listings, fresh: fresh})
		}
		if len(q.fresh) != maxFresh {
			b.Errorf("%d new files are held", len(q.fresh))
		}
	})
}

// counting notes how much work a store hands out at once.
type counting struct {
	Store
	most int
}

func (s *counting) DueListings(ctx context.Context, cause index.WorkCause, limit int) ([]index.Work, error) {
	work, err := s.Store.DueListings(ctx, cause, limit)
	s.most = max(s.most, len(work))
	return work, err
}

func (s *counting) PendingProvenance(ctx context.Context, now time.Time, limit int) ([]index.File, error) {
	files, err := s.Store.PendingProvenance(ctx, now, limit)
	s.most = max(s.most, len(files))
	return files, err
}

func TestProjectsStrictly(t *testing.T) {
	for text, want := range map[string]string{
		`{"meta":{"api-version":"1.4","_last-serial":9},"projects":[{"name":"A.b","_last-serial":5},{"name":"c"},{"name":"../x"},7]}`: "a-b 5, c 0, as of 9",
		`{"projects":[]}`:                              "as of 0",
		`{"projects":[],"projects":[]}`:                "two members",
		`{"meta":{"api-version":"2.0"},"projects":[]}`: "unknown",
		`{"files":[]}`:                                 "not a list",
		`{"projects":[]} {}`:                           "follows the list",
		`{"projects":[{"name":"a"}`:                    "EOF",
		`[]`:                                           "where",
		`{"projects":{}}`:                              "where",
		`{"x":"` + strings.Repeat("a", maxElement+1) + `"}`: "an element of more than",
	} {
		c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }), func(o *Options) { o.Tries = 1 })
		var got []string
		serial, _, err := c.Projects(t.Context(), func(some []index.Named) error {
			for _, p := range some {
				got = append(got, fmt.Sprintf("%s %d", p.Project, p.Serial))
			}
			return nil
		})
		if err == nil {
			if d := cmp.Diff(want, strings.Join(append(got, fmt.Sprintf("as of %d", serial)), ", ")); d != "" {
				t.Errorf("%.80s: %s", text, d)
			}
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %s", text, err, want)
		}
	}
}

// manyProjects writes a list of n projects.
func manyProjects(w io.Writer, n int) {
	_, _ = io.WriteString(w, `{"meta":{"api-version":"1.4","_last-serial":30000000},"projects":[{"_last-serial":1,"name":"a"}`)
	for i := range n {
		fmt.Fprintf(w, `,{"_last-serial":%d,"name":"a-project-with-a-name-of-some-length-%d"}`, i, i)
	}
	_, _ = io.WriteString(w, `]}`)
}

// BenchmarkProjects reads a list of 200 MB and says how much memory that takes.
func BenchmarkProjects(b *testing.B) {
	server := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { manyProjects(w, 2_650_000) })
	for b.Loop() {
		c := serve(b, server, nil)
		var most uint64
		n, batches := 0, 0
		_, _, err := c.Projects(b.Context(), func(some []index.Named) error {
			n += len(some)
			if batches++; batches%500 == 0 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(most)/(1<<20), "MB-live")
		b.ReportMetric(float64(n), "projects")
	}
}

func TestGate(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var g gate
	for range failuresInRow - 1 {
		g.takeIn(now, index.WorkFailing, 0)
	}
	if g.open(now, 4) != 4 {
		t.Error("closed too early")
	}
	g.takeIn(now, index.WorkMissing, 0) // an answer
	for range failuresInRow {
		g.takeIn(now, index.WorkFailing, 0)
	}
	if g.open(now, 4) != 0 || g.open(now.Add(40*time.Second), 4) != 1 {
		t.Errorf("%+v after failure upon failure", g)
	}
	now = now.Add(40 * time.Second)
	g.takeIn(now, "", 0)
	if g.open(now, 4) != 4 {
		t.Error("still closed after an answer")
	}
	g.takeIn(now, index.WorkLimited, 20*time.Minute)
	if g.open(now.Add(19*time.Minute), 4) != 0 || g.open(now.Add(21*time.Minute), 4) != 1 {
		t.Errorf("%+v after a Retry-After of 20 minutes", g)
	}
	g = gate{}
	at, longest := now, time.Duration(0)
	for range 20 {
		g.takeIn(at, index.WorkRefused, 0)
		longest = max(longest, g.until.Sub(at))
		at = g.until.Add(time.Second)
	}
	if longest < time.Hour || longest > 80*time.Minute {
		t.Errorf("asked after %v at the latest whether it is still refused", longest)
	}
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		err   error
		state index.WorkState
		wait  time.Duration
	}{
		{fmt.Errorf("x: %w", ErrNotFound), index.WorkMissing, 0},
		{fmt.Errorf("x: %w", &refusedError{90 * time.Second}), index.WorkRefused, 90 * time.Second},
		{&StatusError{Status: 429, After: 24 * time.Hour}, index.WorkLimited, time.Hour},
		{&StatusError{Status: 503, After: time.Minute}, index.WorkFailing, time.Minute},
		{errors.New("connection reset"), index.WorkFailing, 0},
		{ErrTooLarge, index.WorkTooLong, 0},
	} {
		if state, wait := stateOf(c.err); state != c.state || wait != c.wait {
			t.Errorf("%v: %s %v, want %s %v", c.err, state, wait, c.state, c.wait)
		}
	}
	for state, s := range listingSchedules {
		for tries := range 100 {
			if d := s.pause(tries); d < min(s.first<<min(tries, 20), s.most) || d > s.most*5/4 {
				t.Errorf("%s: pause %v after %d tries", state, d, tries)
			}
		}
	}
}
