package pypi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"sigtrail/index"
)

// parallel is how many requests are under way at a time. PyPI asks its clients to
// come one after the other rather than in bursts; Options.Rate is the real limit.
const parallel = 4

const (
	dueTogether = 16   // that are taken from the store at a time
	maxFresh    = 1000 // files of new listings that are held; others wait in the store
)

// A task is one listing or one file's provenance to ask for.
type task struct {
	listing *index.Work
	file    *index.File
	fresh   bool // the file is new in a listing, and may have been asked for since that was stored
}

func (t task) key() string {
	if t.listing != nil {
		return t.listing.Project
	}
	return "file " + strconv.FormatInt(int64(t.file.ID), 10) // no project's name has a space
}

// A result is what came of a task. Its error is one of the store, which ends the round:
// the task stays due, and would be taken again at once.
type result struct {
	key   string
	kind  *gate
	state index.WorkState // "": an answer
	wait  time.Duration   // as the server asks for
	fresh []index.File    // new files of a listing that the journal has asked for
	err   error
}

// readAlways does what is due, and waits for more. Before that it gives the journal a
// moment: what is read before the journal is followed has to be read again after it.
func (w *Watcher) readAlways(ctx context.Context) error {
	await(ctx, 10*time.Second, w.looked)
	last := ""
	for {
		err := w.readAndMeasure(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now, pause := time.Now(), w.Interval
		next, nextErr := w.Store.NextWork(ctx)
		switch {
		case err != nil || nextErr != nil:
			pause = min(pause, 5*time.Second)
		case !next.IsZero() && next.After(now):
			pause = min(pause, next.Sub(now))
		case !next.IsZero(): // a gate is closed
			for _, g := range []*gate{&w.listings, &w.files} {
				if g.until.After(now) {
					pause = min(pause, g.until.Sub(now))
				}
			}
		}
		last = w.tell(ctx, last, errors.Join(err, nextErr))
		await(ctx, max(pause, 20*time.Millisecond), w.wakeRead)
	}
}

func (w *Watcher) readAndMeasure(ctx context.Context) error {
	var failed failures
	err := w.readDue(ctx, &failed)
	return errors.Join(err, w.measure(ctx))
}

// tell logs an error of the store when it changes.
func (w *Watcher) tell(ctx context.Context, last string, err error) string {
	if err == nil || ctx.Err() != nil {
		return ""
	}
	if err.Error() != last {
		w.Log.ErrorContext(ctx, "cannot keep what the index says; will try again", "index", w.Client.String(), "error", err)
	}
	return err.Error()
}

// read does what is due and returns what could not be done.
func (w *Watcher) read(ctx context.Context) error {
	var failed failures
	err := w.readDue(ctx, &failed)
	return errors.Join(failed.err(), err)
}

// readDue does what is due until nothing is left that may be asked for now: what the
// journal has named before everything else, provenance before further projects, so
// that what waits for its provenance does not grow. No task waits for another one,
// whose server may be slow. It returns an error of the store.
func (w *Watcher) readDue(ctx context.Context, failed *failures) error {
	q := &queue{w: w, flying: map[string]bool{}}
	done := make(chan result)
	var broken error
	for {
		for broken == nil && ctx.Err() == nil {
			t, err := q.next(ctx)
			broken = err
			if t == (task{}) || err != nil {
				break
			}
			key := t.key()
			q.fly(t, key)
			go func() {
				r := w.do(ctx, t, failed)
				r.key = key
				done <- r
			}()
		}
		if len(q.flying) == 0 {
			return broken
		}
		select {
		case r := <-done:
			q.land(r)
			broken = cmp.Or(broken, r.err)
			w.meter.landed(ctx, w)
		case <-w.wakeRead:
			q.waiting = nil // there may be something that comes first
		}
	}
}

// A queue holds a few tasks that the store has named.
type queue struct {
	w        *Watcher
	flying   map[string]bool
	listings int // of those flying
	waiting  []task
	fresh    []task
}

func (q *queue) fly(t task, key string) {
	q.flying[key] = true
	if t.listing != nil {
		q.listings++
	}
}

func (q *queue) land(r result) {
	delete(q.flying, r.key)
	if r.kind == &q.w.listings {
		q.listings--
	}
	if len(r.fresh) > 0 {
		// A file that waits already may be among them.
		q.waiting = nil
	}
	for _, f := range r.fresh {
		if f.ProvenanceURL != "" && len(q.fresh) < maxFresh {
			q.fresh = append(q.fresh, task{file: &f, fresh: true})
		}
	}
	if r.err == nil {
		q.w.takeState(r)
	}
}

// takeState lets the gates know.
func (w *Watcher) takeState(r result) {
	before := r.kind.closed
	r.kind.takeIn(time.Now(), r.state, r.wait)
	what := "listings"
	if r.kind == &w.files {
		what = "provenance"
	}
	switch {
	case before == 0 && r.kind.closed > 0:
		w.Log.Warn("index answers nobody for now; nothing of the kind is asked for meanwhile", "index", w.Client.String(), "what", what, "state", string(r.state), "until", r.kind.until.UTC())
	case before > 0 && r.kind.closed == 0:
		w.Log.Info("index answers again", "index", w.Client.String(), "what", what)
	}
	w.Metrics.gate(what, r.kind.closed > 0)
}

// next is a task that may begin now; the zero task if there is none.
func (q *queue) next(ctx context.Context) (task, error) {
	now := time.Now()
	if len(q.flying) >= parallel {
		return task{}, nil
	}
	listings := q.w.listings.open(now, parallel) > q.listings
	files := q.w.files.open(now, parallel) > len(q.flying)-q.listings
	if t, ok := q.pop(&q.fresh, files, listings); ok {
		return t, nil
	}
	if t, ok := q.pop(&q.waiting, files, listings); ok {
		return t, nil
	}
	return q.fill(ctx, now, files, listings)
}

func (q *queue) pop(from *[]task, files, listings bool) (task, bool) {
	for len(*from) > 0 {
		t := (*from)[0]
		if t.file != nil && !files || t.listing != nil && !listings {
			*from = nil // it stays due in the store
			return task{}, false
		}
		*from = (*from)[1:]
		if !q.flying[t.key()] {
			return t, true
		}
	}
	return task{}, false
}

// fill asks the store for more.
func (q *queue) fill(ctx context.Context, now time.Time, files, listings bool) (task, error) {
	for _, cause := range []index.WorkCause{index.ByJournal, index.ByPoll, "", index.ByBootstrap} {
		var some []task
		switch {
		case cause == "" && files:
			due, err := q.w.Store.PendingProvenance(ctx, now, dueTogether)
			if err != nil {
				return task{}, err
			}
			for i := range due {
				some = append(some, task{file: &due[i]})
			}
		case cause != "" && listings:
			due, err := q.w.Store.DueListings(ctx, cause, dueTogether)
			if err != nil {
				return task{}, err
			}
			for i := range due {
				some = append(some, task{listing: &due[i]})
			}
		}
		// What is under way would be over, and wait still.
		q.waiting = slices.DeleteFunc(some, func(t task) bool { return q.flying[t.key()] })
		if t, ok := q.pop(&q.waiting, files, listings); ok {
			return t, nil
		}
	}
	return task{}, nil
}

func (w *Watcher) do(ctx context.Context, t task, failed *failures) result {
	if t.file != nil {
		r := result{kind: &w.files}
		if t.fresh {
			var asked int
			if asked, r.err = w.Store.ProvenanceTries(ctx, t.file.ID); r.err != nil || asked > 0 {
				return r
			}
		}
		r = w.fetch(ctx, *t.file, failed)
		r.kind = &w.files
		return r
	}
	r := w.list(ctx, *t.listing, failed)
	r.kind = &w.listings
	return r
}

// failures collects the first few errors of a round.
type failures struct {
	mu   sync.Mutex
	all  int
	errs []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all++; len(f.errs) < 3 {
		f.errs = append(f.errs, err)
	}
}

func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := errors.Join(f.errs...)
	if more := f.all - len(f.errs); more > 0 {
		err = errors.Join(err, fmt.Errorf("and %d more", more))
	}
	return err
}
