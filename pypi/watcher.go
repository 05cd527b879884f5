package pypi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sigtrail/index"
)

// Store is what a Watcher asks of the index; *index.Catalogue is one.
type Store interface {
	// Serial returns up to where the journal has been read, false if never.
	Serial(ctx context.Context) (int64, bool, error)
	// SaveJournal stores rows and the serial they are read up to, together.
	SaveJournal(ctx context.Context, rows []index.JournalRow, upTo int64) error

	// ListingSerial returns the serial of the newest listing stored.
	ListingSerial(ctx context.Context, project string) (serial int64, listed bool, err error)
	// SaveListing stores a listing, or ignores one older than the stored one.
	SaveListing(ctx context.Context, l index.Listing) (fresh []index.File, err error)

	// SecondLook is when a listing is to be read again, whatever its tag, because
	// what it said has to be seen twice; zero: it has not.
	SecondLook(ctx context.Context, project string) (time.Time, error)

	// PendingProvenance returns files whose provenance is due, and
	// SaveProvenance an answer, after which the file is due at Retry or never.
	PendingProvenance(ctx context.Context, now time.Time, limit int) ([]index.File, error)
	SaveProvenance(ctx context.Context, id index.FileID, p index.Provenance) error

	Setting(ctx context.Context, key string) (string, bool, error)
	SetSetting(ctx context.Context, key, value string) error
}

var _ Store = (*index.Catalogue)(nil)

// parallel is how many requests are under way at a time. PyPI asks its clients to
// come one after the other rather than in bursts; Options.Rate is the real limit.
const parallel = 4

const (
	maxBatches    = 200              // of the journal in one round: ten million rows
	staleReads    = 3                // of a listing behind the journal in one round
	stalePause    = 2 * time.Second  // between them; doubled each time
	missingFor    = time.Hour        // an unknown name is not asked for again
	dueBatch      = 64               // files whose provenance is fetched between two looks
	failuresInRow = 8                // of provenance, after which the round goes no further
	retryFailed   = 5 * time.Minute  // a provenance that could not be asked for
	retryNegative = time.Minute      // a provenance that is named and not there yet
	youngFor      = 10 * time.Minute // a file that a cache may know nothing of
)

// A Watcher keeps the index in line with what PyPI says about some projects.
//
//	journal ─► rows of watched projects ─► which listings are out of date
//	simple index ─► files ─► which provenance is due
//	integrity API ─► provenance
//
// Every stage works from what is stored, so a round can be cut off anywhere and the
// next goes on from there. Client, Store and Projects are required.
type Watcher struct {
	Client   *Client
	Store    Store
	Projects []string      // in any spelling, to begin with
	Interval time.Duration // between rounds; default 1 min
	Log      *slog.Logger  // nil: discard
	Metrics  *Metrics      // nil: nothing is counted
	Changed  func()        // called whenever something was stored; may be nil

	projects []string  // normalised
	followed bool      // the journal has a starting point
	down     bool      // the journal could not be read the last time
	lacks    time.Time // when the index last said that it has no journal; zero: it may have one

	mu       sync.Mutex // guards what follows, which the readers of listings share
	next     []string   // what SetProjects was given; nil: nothing since the last round
	wake     chan struct{}
	progress *progress
	tags     map[string]string    // entity tags of the listings stored by this process
	missing  map[string]time.Time // when the index last knew no such name
	asked    map[string]time.Time // when a listing was last asked for
	doubtful map[string]time.Time // when a listing has to be seen a second time
}

// Run makes one round after the other until ctx ends, which is no error. Rounds are
// Interval apart, give or take an eighth, and further apart while the journal cannot
// be read. An error is logged when it changes.
func (w *Watcher) Run(ctx context.Context) error {
	failures, last := 0, ""
	for {
		err := w.Once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		pause := w.Interval
		if w.down && w.lacks.IsZero() {
			pause = min(w.Interval<<min(failures, 10), max(5*time.Minute, w.Interval))
			failures++
		} else {
			failures = 0
		}
		switch {
		case err == nil && last != "":
			last = ""
			w.Log.InfoContext(ctx, "reading the index again", "index", w.Client.String())
		case err != nil && err.Error() != last:
			last = err.Error()
			w.Log.ErrorContext(ctx, "cannot read all of the index; will try again", "index", w.Client.String(), "error", err, "pause", pause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.woken():
		case <-time.After(pause - pause/8 + rand.N(pause/4+1)):
		}
	}
}

// SetProjects replaces what is watched, in any spelling, and has the next round
// begin at once. Nothing is asked of the index any more for a project that is left
// out, except provenance that its last listing named. It may be called at any time.
func (w *Watcher) SetProjects(projects []string) {
	w.mu.Lock()
	w.next = append([]string{}, projects...)
	w.mu.Unlock()
	select {
	case w.woken() <- struct{}{}:
	default:
	}
}

func (w *Watcher) woken() chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wake == nil {
		w.wake = make(chan struct{}, 1)
	}
	return w.wake
}

// Once makes one round: the journal, the listings that are out of date, the
// provenance that is due. A failure in one place does not stop the others; all of
// them are returned, joined. It must not be called twice at a time.
func (w *Watcher) Once(ctx context.Context) error {
	if err := w.prepare(ctx); err != nil {
		return err
	}
	journal := w.journal(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.journalState(ctx, journal)
	if errors.Is(journal, errNoJournal) {
		journal = nil
	}
	listings := w.listings(ctx)
	provenance := w.provenance(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(journal, listings, provenance)
}

// prepare fills in defaults and what a former process left.
func (w *Watcher) prepare(ctx context.Context) error {
	if w.progress == nil {
		w.Log = cmp.Or(w.Log, slog.New(slog.DiscardHandler))
		w.Interval = cmp.Or(w.Interval, time.Minute)
		w.tags, w.missing, w.asked, w.doubtful = map[string]string{}, map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}
		p, err := loadProgress(ctx, w.Store)
		if err != nil {
			return err
		}
		if err := w.watch(w.Projects); err != nil {
			return err
		}
		w.progress = p
	}
	w.mu.Lock()
	next := w.next
	w.next = nil
	w.mu.Unlock()
	if next != nil {
		if err := w.watch(next); err != nil {
			return err
		}
	}
	// Before the journal moves: from here on the rows of the others are dropped.
	w.progress.keepOnly(w.projects)
	return w.progress.save(ctx, w.Store)
}

// watch takes up other projects.
func (w *Watcher) watch(names []string) error {
	projects := make([]string, 0, len(names))
	for _, name := range names {
		if !ValidName(name) {
			return fmt.Errorf("%.80q is not the name of a project", name)
		}
		projects = append(projects, Normalize(name))
	}
	slices.Sort(projects)
	projects = slices.Compact(projects)
	for _, gone := range without(w.projects, projects) {
		delete(w.tags, gone)
		delete(w.missing, gone)
		delete(w.doubtful, gone)
		delete(w.asked, gone)
	}
	w.projects = projects
	return nil
}

func (w *Watcher) journalState(ctx context.Context, err error) {
	switch down := err != nil; {
	case down && !w.down && !errors.Is(err, errNoJournal):
		w.Log.WarnContext(ctx, "journal is unavailable; reading listings directly", "index", w.Client.String(), "error", err)
	case !down && w.down:
		w.Log.InfoContext(ctx, "journal is available again", "index", w.Client.String())
	}
	w.down = err != nil
}

func (w *Watcher) changed() {
	if w.Changed != nil {
		w.Changed()
	}
}

// journal reads the rows that came since the last round.
func (w *Watcher) journal(ctx context.Context) error {
	serial, followed, err := w.Store.Serial(ctx)
	if err != nil {
		return err
	}
	w.followed = followed
	if !followed && !w.lacks.IsZero() && time.Since(w.lacks) < journalAgain {
		return errNoJournal
	}
	newest, err := w.Client.LastSerial(ctx)
	if err != nil && !followed && lacksJournal(err) {
		if w.lacks.IsZero() {
			w.Log.InfoContext(ctx, "index has no journal; reading listings directly", "index", w.Client.String(), "answer", err)
		}
		w.lacks = time.Now()
		return errNoJournal
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	w.lacks = time.Time{}
	if !followed {
		return w.follow(ctx, newest)
	}
	w.Metrics.journal(serial, newest)
	if newest < serial {
		return fmt.Errorf("journal: newest serial is %d, but it was read up to %d", newest, serial)
	}
	for batches := 0; serial < newest && batches < maxBatches; batches++ {
		rows, err := w.Client.Changes(ctx, serial)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if len(rows) == 0 {
			break // a cache behind the other answer
		}
		serial = rows[len(rows)-1].Serial
		if err := w.saveRows(ctx, rows, serial); err != nil {
			return err
		}
		w.Metrics.journal(serial, newest)
		if len(rows) < fullBatch {
			break
		}
	}
	return nil
}

// follow starts with the journal at its newest serial. Listings read before this
// say nothing about what came between: none of them is covered yet, so that all
// are read after it.
func (w *Watcher) follow(ctx context.Context, serial int64) error {
	if err := w.Store.SaveJournal(ctx, nil, serial); err != nil {
		return err
	}
	w.followed = true
	w.Metrics.journal(serial, serial)
	w.Log.InfoContext(ctx, "following the journal", "index", w.Client.String(), "serial", serial, "projects", len(w.projects))
	return nil
}

// saveRows keeps the rows of watched projects. What has to be read because of them
// is written first: see progress.
func (w *Watcher) saveRows(ctx context.Context, rows []index.JournalRow, upTo int64) error {
	var kept []index.JournalRow
	for _, r := range rows {
		if _, watched := slices.BinarySearch(w.projects, r.Project); watched {
			kept = append(kept, r)
			w.progress.named(r)
		}
	}
	if err := w.progress.save(ctx, w.Store); err != nil {
		return err
	}
	if err := w.Store.SaveJournal(ctx, kept, upTo); err != nil {
		return err
	}
	if len(kept) > 0 {
		w.changed()
	}
	return nil
}

// listings brings the file lists up to date that may be out of date.
func (w *Watcher) listings(ctx context.Context) error {
	errs := make([]error, len(w.projects))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, project := range w.projects {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if errs[i] = w.listing(ctx, project); errs[i] != nil {
				errs[i] = fmt.Errorf("project %s: %w", project, errs[i])
			}
			return nil
		})
	}
	_ = g.Wait() // errors are in errs, each project's own
	return errors.Join(append(errs, w.progress.save(ctx, w.Store))...)
}

// listing reads one project if the journal has named it, if it has not been read
// since the journal is followed, or if there is no journal to rely on.
func (w *Watcher) listing(ctx context.Context, project string) error {
	stored, _, err := w.Store.ListingSerial(ctx, project)
	if err != nil {
		return err
	}
	w.mu.Lock()
	named, pending := w.progress.Pending[project]
	if pending && w.progress.Covered[project] && stored >= named.Serial {
		// Stored just before the process ended.
		w.progress.listed(project, w.followed)
		pending = false
	}
	due := pending || w.followed && !w.progress.Covered[project] || w.down && time.Since(w.asked[project]) >= w.directEvery()
	if !pending && time.Since(w.missing[project]) < missingFor {
		due = false
	}
	if again, ok := w.doubtful[project]; ok && !time.Now().Before(again) {
		due = true
	}
	if due {
		w.asked[project] = time.Now()
	}
	w.mu.Unlock()
	if !due {
		return nil
	}
	return w.read(ctx, project, max(stored, named.Serial))
}

// directEvery is how often a listing is read without a journal: at most one project
// a second over all, and half an interval of room for jitter.
func (w *Watcher) directEvery() time.Duration {
	if all := time.Duration(len(w.projects)) * time.Second; all > w.Interval {
		return all
	}
	return w.Interval / 2
}

// read stores a project's listing, again and again until it is as new as the
// serial: the copies of PyPI's caches are up to a day old until they are told.
func (w *Watcher) read(ctx context.Context, project string, serial int64) error {
	for try := range staleReads {
		if try > 0 {
			pause := stalePause << (try - 1)
			if err := sleep(ctx, pause+rand.N(pause/4)); err != nil {
				return err
			}
		}
		got, err := w.readOnce(ctx, project)
		if errors.Is(err, ErrNotFound) {
			return w.notFound(ctx, project, err)
		}
		if err != nil {
			return err
		}
		// Some indexes give no serial. Then there is no telling.
		if got == 0 || got >= serial {
			w.mu.Lock()
			w.progress.listed(project, w.followed)
			delete(w.missing, project)
			w.mu.Unlock()
			return nil
		}
	}
	return fmt.Errorf("listing is older than serial %d, which the journal has for it", serial)
}

// readOnce stores a listing and returns its serial.
func (w *Watcher) readOnce(ctx context.Context, project string) (serial int64, err error) {
	w.mu.Lock()
	tag := w.tags[project]
	w.mu.Unlock()
	l, tag, err := w.Client.ListingIfChanged(ctx, project, tag)
	if errors.Is(err, ErrUnchanged) {
		serial, _, err = w.Store.ListingSerial(ctx, project)
		return serial, err
	}
	if err != nil {
		return 0, err
	}
	fresh, err := w.Store.SaveListing(ctx, l)
	if err != nil {
		return 0, err
	}
	again, err := w.Store.SecondLook(ctx, project)
	if err != nil {
		return 0, err
	}
	// Only now: with the tag of an answer that was not stored, it would be
	// called unchanged and lost.
	w.mu.Lock()
	w.tags[project] = tag
	delete(w.doubtful, project)
	if !again.IsZero() {
		w.doubtful[project] = again
		delete(w.tags, project)
	}
	w.mu.Unlock()
	w.Metrics.listed(len(fresh))
	if len(fresh) > 0 {
		w.Log.InfoContext(ctx, "files listed", "project", project, "new", len(fresh), "files", len(l.Files), "serial", l.Serial)
	}
	w.changed()
	return l.Serial, nil
}

// notFound decides what the absence of a project means. It is gone only if the
// journal says so: caches answer "not found" for a project just made, too.
func (w *Watcher) notFound(ctx context.Context, project string, notFound error) error {
	stored, _, err := w.Store.ListingSerial(ctx, project)
	if err != nil {
		return err
	}
	w.mu.Lock()
	named, pending := w.progress.Pending[project]
	w.mu.Unlock()
	switch {
	case named.Removed:
		if _, err := w.Store.SaveListing(ctx, index.Listing{Project: project, Serial: named.Serial, Removed: true, Fetched: now()}); err != nil {
			return err
		}
		w.Log.WarnContext(ctx, "project was removed from the index", "project", project, "serial", named.Serial)
		w.mu.Lock()
		delete(w.tags, project)
		w.progress.listed(project, w.followed)
		w.mu.Unlock()
		w.changed()
		return nil
	case pending || stored > 0:
		return notFound
	}
	w.mu.Lock()
	_, known := w.missing[project]
	w.missing[project] = time.Now()
	w.mu.Unlock()
	if !known {
		w.Log.WarnContext(ctx, "project is not on the index; waiting for it to appear", "project", project)
	}
	return nil
}

// provenance fetches what is due, and stops when failure follows failure: what is
// left stays due.
func (w *Watcher) provenance(ctx context.Context) error {
	round := now()
	var failed failures
	for ctx.Err() == nil && !failed.enough() {
		files, err := w.Store.PendingProvenance(ctx, round, dueBatch)
		if err != nil || len(files) == 0 {
			return errors.Join(failed.err(), err)
		}
		var g errgroup.Group
		g.SetLimit(parallel)
		for _, f := range files {
			if ctx.Err() != nil || failed.enough() {
				break
			}
			g.Go(func() error { return w.fetch(ctx, f, &failed) })
		}
		if err := g.Wait(); err != nil {
			return errors.Join(failed.err(), err)
		}
		w.changed()
	}
	return failed.err()
}

// fetch asks for one file's provenance and stores what comes of it. Its own error
// is one of the store: then the file would stay due, and the round not end.
func (w *Watcher) fetch(ctx context.Context, f index.File, failed *failures) error {
	p, err := w.Client.Provenance(ctx, f.ProvenanceURL)
	if ctx.Err() != nil {
		return nil
	}
	switch {
	case err != nil:
		failed.add(fmt.Errorf("file %s: %w", f.Name, err))
		at := now()
		p = index.Provenance{State: index.ProvenancePending, Fetched: at, Retry: later(at, retryFailed), Error: printable(err.Error(), 300)}
	case p.State == index.ProvenanceRefused:
		failed.add(fmt.Errorf("file %s: provenance: %s", f.Name, p.Error))
	default:
		failed.none()
	}
	if p.State == index.ProvenanceAbsent && isYoung(f, p.Fetched) {
		// The listing named it. Right after an upload, "not found" is more
		// likely a cache's than the truth, and would look like an attack.
		p.State, p.Retry, p.Error = index.ProvenancePending, later(p.Fetched, retryNegative), "named by the listing and not found yet"
	}
	return w.Store.SaveProvenance(ctx, f.ID, p)
}

func isYoung(f index.File, at time.Time) bool {
	born := f.Uploaded
	if f.FirstSeen.Before(born) || born.IsZero() && !f.FirstListing {
		born = f.FirstSeen
	}
	return at.Sub(born) < youngFor
}

func later(at time.Time, d time.Duration) time.Time { return at.Add(d + rand.N(d/4)) }

// failures collects the first few errors of a round and counts those in a row.
type failures struct {
	mu    sync.Mutex
	inRow int
	all   int
	errs  []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inRow++
	if f.all++; len(f.errs) < 3 {
		f.errs = append(f.errs, err)
	}
}

func (f *failures) none() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inRow = 0
}

func (f *failures) enough() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inRow >= failuresInRow
}

func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := errors.Join(f.errs...)
	if more := f.all - len(f.errs); more > 0 {
		err = errors.Join(err, fmt.Errorf("and %d more files", more))
	}
	return err
}
