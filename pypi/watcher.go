package pypi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sigtrail/index"
)

// Store is what a Watcher needs of the index.
type Store interface {
	// Serial is the journal serial up to which everything is stored.
	Serial(ctx context.Context) (serial int64, ok bool, err error)
	// SaveJournal stores rows and moves the serial in one transaction.
	SaveJournal(ctx context.Context, rows []index.JournalRow, upTo int64) error
	// ListingSerial is the serial of the project's newest stored listing.
	ListingSerial(ctx context.Context, project string) (serial int64, listed bool, err error)
	SaveListing(ctx context.Context, l index.Listing) (fresh []index.File, err error)
	PendingProvenance(ctx context.Context, now time.Time, limit int) ([]index.File, error)
	SaveProvenance(ctx context.Context, file index.FileID, p index.Provenance) error
}

// A Watcher keeps the index level with PyPI for a set of projects.
type Watcher struct {
	Client   *Client
	Store    Store
	Projects []string // PEP 503
	Interval time.Duration
	Log      *slog.Logger
	Metrics  *Metrics
	Changed  func() // called when something new was stored

	mu     sync.Mutex
	behind map[string]int64 // project → serial that its listing must reach
}

// concurrency of requests; the client's rate is the stricter bound.
const concurrency = 4

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	failures, last := 0, ""
	for {
		err := w.Once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		pause := w.Interval
		if err == nil {
			failures, last = 0, ""
		} else {
			failures++
			pause = min(w.Interval<<min(failures-1, 10), max(5*time.Minute, w.Interval))
			if err.Error() != last {
				last = err.Error()
				w.Log.ErrorContext(ctx, "cannot read PyPI; will try again", "error", err, "pause", pause)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause + rand.N(pause/8+1)):
		}
	}
}

// Once reads the journal, the listings of projects that changed, and provenance
// that is still to be fetched. What fails for one project does not stop the
// others; the errors come back joined.
func (w *Watcher) Once(ctx context.Context) error {
	if len(w.Projects) == 0 {
		return nil
	}
	first := w.behind == nil
	if first {
		w.behind = make(map[string]int64)
	}
	journal := w.readJournal(ctx)
	// Without the journal every listing is read. So it is in the first round
	// of a process: the one before may have died between a journal row and the
	// listing that it speaks of.
	blind := first || journal != nil
	listings := w.each(ctx, w.Projects, func(ctx context.Context, project string) error {
		return w.list(ctx, project, blind)
	})
	return errors.Join(journal, listings, w.fetchProvenance(ctx))
}

// readJournal stores the rows of watched projects and notes which listings they
// make stale. The first time it only takes the present serial as its start.
func (w *Watcher) readJournal(ctx context.Context) error {
	since, ok, err := w.Store.Serial(ctx)
	if err != nil {
		return err
	}
	if !ok {
		newest, err := w.Client.LastSerial(ctx)
		if err != nil {
			return fmt.Errorf("reading the journal: %w", err)
		}
		w.Metrics.journal(newest, newest)
		return w.Store.SaveJournal(ctx, nil, newest)
	}
	watched := make(map[string]bool, len(w.Projects))
	for _, p := range w.Projects {
		watched[p] = true
	}
	for {
		rows, err := w.Client.Changes(ctx, since)
		if err != nil {
			return fmt.Errorf("reading the journal from %d: %w", since, err)
		}
		if len(rows) == 0 {
			w.Metrics.journal(since, since)
			return nil
		}
		since = rows[len(rows)-1].Serial
		kept := rows[:0:0]
		stale := make(map[string]int64)
		for _, r := range rows {
			if watched[r.Project] {
				kept = append(kept, r)
				stale[r.Project] = r.Serial
			}
		}
		if err := w.Store.SaveJournal(ctx, kept, since); err != nil {
			return err
		}
		for p, serial := range stale {
			w.mu.Lock()
			w.behind[p] = serial
			w.mu.Unlock()
		}
		w.Metrics.journal(since, since)
		if len(rows) < journalBatch {
			return nil
		}
	}
}

// each runs f for every project, a few at a time.
func (w *Watcher) each(ctx context.Context, projects []string, f func(context.Context, string) error) error {
	var g errgroup.Group
	g.SetLimit(concurrency)
	errs := make([]error, len(projects))
	for i, p := range projects {
		g.Go(func() error {
			errs[i] = f(ctx, p)
			return nil
		})
	}
	return errors.Join(append(errs, g.Wait())...)
}

// list reads a project's listing if it was never read, or the journal names the
// project, or there is no journal to go by.
func (w *Watcher) list(ctx context.Context, project string, blind bool) error {
	have, listed, err := w.Store.ListingSerial(ctx, project)
	if err != nil {
		return err
	}
	want, stale := w.need(project)
	if listed && !blind && (!stale || have >= want) {
		return nil
	}
	l, confirm, err := w.Client.Listing(ctx, project)
	switch {
	case errors.Is(err, ErrUnchanged):
		return nil
	case errors.Is(err, ErrNotFound):
		// Gone, or not there yet, or a stale negative. An empty list
		// at no serial says just that, and is asked again next time.
		w.Log.InfoContext(ctx, "project is not on the index", "project", project)
		if !listed {
			return nil
		}
		l, confirm = index.Listing{Project: project, Fetched: time.Now().UTC()}, func() {}
	case err != nil:
		return err
	}
	fresh, err := w.Store.SaveListing(ctx, l)
	if err != nil {
		return fmt.Errorf("storing the listing of %s: %w", project, err)
	}
	confirm()
	w.Metrics.fresh(len(fresh))
	if len(fresh) > 0 && w.Changed != nil {
		w.Changed()
	}
	if l.Serial > 0 && l.Serial < want {
		return fmt.Errorf("listing of %s is at serial %d, the journal at %d: a stale copy, will be read again", project, l.Serial, want)
	}
	w.reached(project, want)
	return nil
}

func (w *Watcher) need(project string) (serial int64, stale bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	serial, stale = w.behind[project]
	return serial, stale
}

func (w *Watcher) reached(project string, serial int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.behind[project] == serial {
		delete(w.behind, project)
	}
}

// fetchProvenance asks for what listings name and nobody has read yet.
func (w *Watcher) fetchProvenance(ctx context.Context) error {
	var errs []error
	for ctx.Err() == nil {
		files, err := w.Store.PendingProvenance(ctx, time.Now().UTC(), 64)
		if err != nil || len(files) == 0 {
			return errors.Join(append(errs, err)...)
		}
		var g errgroup.Group
		g.SetLimit(concurrency)
		failed := make([]error, len(files))
		for i, f := range files {
			g.Go(func() error {
				failed[i] = w.provenance(ctx, f)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		errs = append(errs, failed...)
		if w.Changed != nil {
			w.Changed()
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// provenance fetches one object. A failure is stored with the time of the next
// try, so that it cannot hold up the others.
func (w *Watcher) provenance(ctx context.Context, f index.File) error {
	p, err := w.Client.Provenance(ctx, f.ProvenanceURL)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := time.Now().UTC()
		p = index.Provenance{State: index.ProvenancePending, Fetched: now, Error: err.Error(), Retry: now.Add(max(w.Interval, time.Second))}
		err = fmt.Errorf("provenance of %s: %w", f.Name, err)
	}
	return errors.Join(err, w.Store.SaveProvenance(ctx, f.ID, p))
}
