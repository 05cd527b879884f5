package pypi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sigtrail/index"
)

// Store is what a Watcher asks of the index; *index.Catalogue is one.
type Store interface {
	// Watch says which projects are watched: those, or all.
	Watch(ctx context.Context, projects []string, all bool) (entered int, err error)
	// Enlist has projects watched, and read unless they are known; Enlisted takes
	// in that all have been, and Census says when.
	Enlist(ctx context.Context, projects []index.Named) error
	Enlisted(ctx context.Context) error
	Census(ctx context.Context) (time.Time, error)

	// Serial returns up to where the journal has been read, false if never.
	Serial(ctx context.Context) (int64, bool, error)
	// BeginJournal sets where that begins, and has each watched project read.
	BeginJournal(ctx context.Context, serial int64) error
	// FollowJournal stores rows of watched projects, the work that they make, and
	// the serial they are read up to, together.
	FollowJournal(ctx context.Context, rows []index.JournalRow, upTo int64, all bool) (kept int, err error)
	// PastJournal and SavePastJournal are about the rows from before.
	PastJournal(ctx context.Context) (index.PastJournal, bool, error)
	SavePastJournal(ctx context.Context, rows []index.JournalRow, before, after index.PastJournal, all bool) (kept int, err error)

	// DueListings returns listings that are to be read now. Each is done with
	// ListingRead, or with PostponeListing comes again.
	DueListings(ctx context.Context, cause index.WorkCause, limit int) ([]index.Work, error)
	ListingRead(ctx context.Context, w index.Work, serial int64, etag string) error
	PostponeListing(ctx context.Context, w index.Work, state index.WorkState, next time.Time, problem string) error
	// PollListings makes work of listings that were not asked for so long.
	PollListings(ctx context.Context, age time.Duration, limit int) (int, error)
	// NextWork is when a listing or provenance is due; zero: never.
	NextWork(ctx context.Context) (time.Time, error)
	WorkSummary(ctx context.Context) (index.WorkSummary, error)

	// SaveListing stores a listing, or ignores one older than the stored one.
	SaveListing(ctx context.Context, l index.Listing) (fresh []index.File, err error)
	// SecondLook returns when a project's listing has to be seen again before it
	// counts, the zero time if it has not.
	SecondLook(ctx context.Context, project string) (time.Time, error)

	// PendingProvenance returns files whose provenance is due, and
	// SaveProvenance an answer, after which the file is due at Retry or never.
	PendingProvenance(ctx context.Context, now time.Time, limit int) ([]index.File, error)
	SaveProvenance(ctx context.Context, id index.FileID, p index.Provenance) error
	ProvenanceTries(ctx context.Context, id index.FileID) (int, error)
}

var _ Store = (*index.Catalogue)(nil)

// A Watcher keeps the index in line with what PyPI says about some projects, or all.
// Its workers, a line each; each finds its work in the store:
//
//	follow   journal ─► rows, and which listings are out of date
//	history  list of all projects, older journal ─► rows, and which listings are missing
//	read     simple index ─► files ─► integrity API ─► provenance
//
// What is under way is never more than a few requests, and what waits is in the
// store, so any of it can be cut off anywhere and goes on from there. Client, Store
// and Projects or All are required.
type Watcher struct {
	Client       *Client
	Store        Store
	Projects     []string         // in any spelling, to begin with
	All          bool             // watch every project of the index, whatever Projects says
	JournalSince int64            // read the older journal from this serial on; 0: not
	Interval     time.Duration    // between looks at the journal; default 1 min
	Log          *slog.Logger     // nil: discard
	Metrics      *Metrics         // nil: nothing is counted
	Changed      func()           // called whenever something was stored, by several goroutines; may be nil
	Progress     func(*Bootstrap) // called now and then while projects are read for the first time; may be nil

	begin    sync.Once
	again    time.Time // when an index without a journal is asked for one again
	listings gate
	files    gate
	meter    meter

	mu       sync.Mutex // guards what follows
	projects int        // named ones
	next     []string   // what SetProjects was given; nil: nothing since the last round
	journal  journalState

	wakeFollow, wakeRead, wakeHistory chan struct{}
	looked                            chan struct{} // closed when the journal was looked at for the first time
}

func (w *Watcher) prepare() {
	w.begin.Do(func() {
		w.Log = cmp.Or(w.Log, slog.New(slog.DiscardHandler))
		w.Interval = cmp.Or(w.Interval, time.Minute)
		w.wakeFollow, w.wakeRead, w.wakeHistory, w.looked = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{})
		if w.next == nil {
			w.next = append([]string{}, w.Projects...)
		}
	})
}

// Run watches until ctx ends, which is no error. The journal is asked for every
// Interval, give or take an eighth, and less often while it cannot be read.
func (w *Watcher) Run(ctx context.Context) error {
	w.prepare()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.followAlways(ctx) })
	g.Go(func() error { return w.historyAlways(ctx) })
	g.Go(func() error { return w.readAlways(ctx) })
	return g.Wait()
}

// Once makes one round: the journal, what of the past is missing, then all that is
// due. A failure in one place does not stop the others; it returns the first few. It
// must not be called twice at a time, nor beside Run.
func (w *Watcher) Once(ctx context.Context) error {
	w.prepare()
	follow := w.follow(ctx)
	history := w.history(ctx)
	read := w.read(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(follow, history, read, w.measure(ctx))
}

// SetProjects replaces what is watched, in any spelling, and has that begin at once.
// Nothing is asked of the index any more for a project that is left out, except
// provenance that its last listing named. It may be called at any time.
func (w *Watcher) SetProjects(projects []string) {
	w.prepare()
	w.mu.Lock()
	w.next = append([]string{}, projects...)
	w.mu.Unlock()
	raise(w.wakeFollow)
}

// takeUp has the store know what is watched. It comes before the journal moves: the
// rows of other projects are dropped.
func (w *Watcher) takeUp(ctx context.Context) error {
	w.mu.Lock()
	next := w.next
	w.mu.Unlock()
	if next == nil {
		return nil
	}
	var projects []string
	for _, name := range next {
		if !ValidName(name) {
			return fmt.Errorf("%.80q is not the name of a project", name)
		}
		projects = append(projects, Normalize(name))
	}
	slices.Sort(projects)
	projects = slices.Compact(projects)
	if w.All {
		projects = []string{}
	}
	if _, err := w.Store.Watch(ctx, projects, w.All); err != nil {
		return err
	}
	w.mu.Lock()
	w.projects = len(projects)
	if slices.Equal(next, w.next) {
		w.next = nil
	}
	w.mu.Unlock()
	raise(w.wakeHistory)
	raise(w.wakeRead)
	return nil
}

func (w *Watcher) changed() {
	if w.Changed != nil {
		w.Changed()
	}
}

func raise(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits for a time, a wake-up or the end of ctx.
func await(ctx context.Context, d time.Duration, wake chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-t.C:
	}
}
