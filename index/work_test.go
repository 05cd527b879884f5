package index

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func row(serial int64, project, action string) JournalRow {
	return JournalRow{Serial: serial, Project: project, Name: project, At: storeEpoch, Action: action}
}

// workOf is all work as text, in the order in which it is handed out.
func workOf(t *testing.T, c *Catalogue) (text []string) {
	t.Helper()
	now := c.s.now
	c.s.now = func() time.Time { return now().Add(1000 * time.Hour) }
	defer func() { c.s.now = now }()
	for _, cause := range workCauses {
		work, err := c.DueListings(t.Context(), cause, 100)
		ok(t, err)
		for _, w := range work {
			text = append(text, fmt.Sprintf("%s %s %s %d removed=%t tries=%d stored=%d", w.Cause, w.Project, w.State, w.Serial, w.Removed, w.Tries, w.Stored))
		}
	}
	return text
}

func wantWork(t *testing.T, c *Catalogue, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, workOf(t, c)); d != "" {
		t.Errorf("work (-want +got):\n%s", d)
	}
}

func takeUp(t *testing.T, c *Catalogue, want int, projects ...string) {
	t.Helper()
	n, err := c.Watch(t.Context(), projects, false)
	if ok(t, err); n != want {
		t.Errorf("%d projects were taken up, want %d", n, want)
	}
}

func TestWorkOfWatchedProjects(t *testing.T) {
	s := openTest(t, Options{})
	c, ctx := s.PyPI(), t.Context()
	takeUp(t, c, 2, "a", "b", "b")
	wantWork(t, c, "bootstrap a due 0 removed=false tries=0 stored=0", "bootstrap b due 0 removed=false tries=0 stored=0")
	ok(t, c.BeginJournal(ctx, 10))

	// Work, rows and the serial come together; rows of others pass by.
	kept, err := c.FollowJournal(ctx, []JournalRow{row(11, "a", "create"), row(12, "x", "create"), row(13, "a", "remove project"), row(14, "a", "remove Owner u")}, 15, false)
	if ok(t, err); kept != 3 {
		t.Errorf("kept %d rows", kept)
	}
	wantWork(t, c, "journal a due 14 removed=true tries=0 stored=0", "bootstrap b due 0 removed=false tries=0 stored=0")
	if serial, _, err := c.Serial(ctx); serial != 15 || err != nil || countRows(t, s, `SELECT count(*) FROM journal`) != 3 {
		t.Errorf("serial %d, %v", serial, err)
	}
	if _, err := c.FollowJournal(ctx, []JournalRow{row(16, "a", "add source file a-1.tar.gz")}, 16, false); err != nil {
		t.Fatal(err)
	}
	wantWork(t, c, "journal a due 16 removed=false tries=0 stored=0", "bootstrap b due 0 removed=false tries=0 stored=0")

	// What the journal renews while it is tried stays due.
	old := Work{Project: "a", Serial: 14}
	ok(t, c.PostponeListing(ctx, old, WorkStale, c.s.now().Add(time.Hour), "old"))
	ok(t, c.ListingRead(ctx, old, 15, "tag"))
	wantWork(t, c, "journal a due 16 removed=false tries=0 stored=0", "bootstrap b due 0 removed=false tries=0 stored=0")
	now := Work{Project: "a", Serial: 16}
	ok(t, c.PostponeListing(ctx, now, WorkFailing, c.s.now().Add(time.Hour), "bad gateway"))
	wantWork(t, c, "journal a failing 16 removed=false tries=1 stored=0", "bootstrap b due 0 removed=false tries=0 stored=0")
	if next, err := c.NextWork(ctx); err != nil || next.After(c.s.now()) {
		t.Errorf("next work at %v, %v", next, err)
	}
	ok(t, c.ListingRead(ctx, now, 16, "tag"))
	ok(t, c.ListingRead(ctx, Work{Project: "b"}, 0, ""))
	wantWork(t, c)
	if next, err := c.NextWork(ctx); err != nil || !next.IsZero() {
		t.Errorf("next work at %v, %v", next, err)
	}

	// Without a journal each is asked in turn; its tag is still known.
	if n, err := c.PollListings(ctx, -time.Minute, 1); n != 1 || err != nil {
		t.Errorf("%d listings to poll, %v", n, err)
	}
	if n, err := c.PollListings(ctx, -time.Minute, 10); n != 1 || err != nil {
		t.Errorf("%d listings to poll, %v", n, err)
	}
	if work, err := c.DueListings(ctx, ByPoll, 10); err != nil || len(work) != 2 || work[0].ETag+work[1].ETag != "tag" {
		t.Errorf("%+v, %v", work, err)
	}

	// Of a project that is left out nothing remains to do; it is read when it comes back.
	takeUp(t, c, 1, "b", "c")
	takeUp(t, c, 1, "a", "b", "c")
	wantWork(t, c, "direct b due 0 removed=false tries=0 stored=0", "bootstrap a due 0 removed=false tries=0 stored=0", "bootstrap c due 0 removed=false tries=0 stored=0")
	other, err := s.Catalogue(ctx, "other", "https://other.example")
	ok(t, err)
	wantWork(t, other)
	takeUp(t, other, 1, "a")
	if summary, err := c.WorkSummary(ctx); err != nil || summary.Watched != 3 || len(summary.Work) != 2 || summary.Work[0].Count != 2 {
		t.Errorf("%+v, %v", summary, err)
	}
}

func TestWatchAll(t *testing.T) {
	s := openTest(t, Options{})
	c, ctx := s.PyPI(), t.Context()
	listFiles(t, s, "known", 40)
	listFiles(t, s, "behind", 40)
	_, err := c.Watch(ctx, nil, true)
	ok(t, err)
	ok(t, c.Enlist(ctx, []Named{{"known", 40}, {"behind", 41}, {"new", 42}, {"unnumbered", 0}}))
	ok(t, c.Enlist(ctx, []Named{{"behind", 43}}))
	wantWork(t, c, "bootstrap behind due 43 removed=false tries=0 stored=40", "bootstrap new due 42 removed=false tries=0 stored=0", "bootstrap unnumbered due 0 removed=false tries=0 stored=0")
	if at, err := c.Census(ctx); !at.IsZero() || err != nil {
		t.Errorf("census at %v, %v", at, err)
	}
	ok(t, c.Enlisted(ctx))
	_, err = c.Watch(ctx, nil, true) // as at the next start
	ok(t, err)
	if at, err := c.Census(ctx); at.IsZero() || err != nil {
		t.Errorf("census at %v, %v", at, err)
	}
	if _, err := c.FollowJournal(ctx, []JournalRow{row(50, "fresh", "create")}, 50, true); err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, s, `SELECT count(*) FROM watched`); n != 5 {
		t.Errorf("%d projects are watched", n)
	}

	// Back to a few; who watches all again reads the list again.
	takeUp(t, c, 0, "new")
	if at, err := c.Census(ctx); !at.IsZero() || err != nil {
		t.Errorf("census at %v, %v", at, err)
	}
	wantWork(t, c, "bootstrap new due 42 removed=false tries=0 stored=0")
}

// The older journal is read again when a project comes to be watched, and a batch that
// was under way meanwhile does not pretend that this had been done.
func TestPastJournal(t *testing.T) {
	s := openTest(t, Options{})
	c, ctx := s.PyPI(), t.Context()
	want := func(want PastJournal) {
		t.Helper()
		if got, _, err := c.PastJournal(ctx); got != want || err != nil {
			t.Errorf("past %+v, %v, want %+v", got, err, want)
		}
	}
	save := func(before, after PastJournal, rows ...JournalRow) {
		t.Helper()
		_, err := c.SavePastJournal(ctx, rows, before, after, false)
		ok(t, err)
	}
	takeUp(t, c, 1, "a")
	ok(t, c.BeginJournal(ctx, 100))
	ok(t, c.ListingRead(ctx, Work{Project: "a"}, 0, ""))
	want(PastJournal{})
	first := PastJournal{10, 50, 100}
	save(PastJournal{}, first, row(20, "a", "create"), row(30, "b", "create"))
	want(first)
	ok(t, c.s.write(ctx, "moving on", func(t *tx) error { return t.saveJournal(c.id, nil, 200, storeEpoch) }))
	takeUp(t, c, 1, "a", "b")
	want(PastJournal{10, 10, 200})
	save(first, PastJournal{10, 100, 100}, row(60, "a", "yank release"))
	want(PastJournal{10, 10, 200})
	save(PastJournal{10, 10, 200}, PastJournal{10, 200, 200}, row(20, "a", "create"), row(30, "b", "create"))
	want(PastJournal{10, 200, 200})
	if n := countRows(t, s, `SELECT count(*) FROM journal`); n != 3 {
		t.Errorf("%d rows are kept", n)
	}
	if serial, _, err := c.Serial(ctx); serial != 200 || err != nil {
		t.Errorf("the journal is read up to %d, %v", serial, err)
	}
	wantWork(t, c, "bootstrap b due 0 removed=false tries=0 stored=0")
}

// BenchmarkFollowJournal stores rows as they come with every project watched, of
// which there are as many as on PyPI.
func BenchmarkFollowJournal(b *testing.B) {
	s := openTest(b, Options{})
	c, ctx := s.PyPI(), b.Context()
	for i := 0; i < 700_000; i += 1000 {
		var some []Named
		for j := range 1000 {
			some = append(some, Named{fmt.Sprintf("project-%d", i+j), int64(i + j)})
		}
		ok(b, c.Enlist(ctx, some))
	}
	serial := int64(1_000_000)
	rows := make([]JournalRow, 5000)
	b.ResetTimer()
	for b.Loop() {
		for i := range rows {
			serial++
			rows[i] = row(serial, fmt.Sprintf("project-%d", serial*7919%700_000), "add source file x")
		}
		_, err := c.FollowJournal(ctx, rows, serial, true)
		ok(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(rows)), "µs/row")
	for name, f := range map[string]func(){
		"due":     func() { _, err := c.DueListings(ctx, ByBootstrap, 16); ok(b, err) },
		"next":    func() { _, err := c.NextWork(ctx); ok(b, err) },
		"summary": func() { _, err := c.WorkSummary(ctx); ok(b, err) },
	} {
		began := time.Now()
		f()
		b.ReportMetric(float64(time.Since(began).Microseconds())/1000, name+"-ms")
	}
}
