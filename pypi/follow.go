package pypi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"sigtrail/index"
)

const (
	maxBatches   = 200  // of the journal in one round: ten million rows
	rowsTogether = 1000 // of the journal in one transaction
	pollTogether = 1000 // projects that are made work of at a time without a journal
)

// A journalState is how the journal was found the last time.
type journalState int

const (
	journalUnknown journalState = iota
	journalFollowed
	journalDown // could not be read
	journalNone // the index has none
)

// followAlways looks at the journal again and again.
func (w *Watcher) followAlways(ctx context.Context) error {
	failures := 0
	for {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		pause := w.Interval
		if err != nil {
			pause = min(w.Interval<<min(failures, 10), max(5*time.Minute, w.Interval))
			failures++
		} else {
			failures = 0
		}
		await(ctx, pause-pause/8+rand.N(pause/4+1), w.wakeFollow)
	}
}

// follow brings the journal up to date. Where there is none to be had, it has the
// listings of named projects read directly.
func (w *Watcher) follow(ctx context.Context) error {
	if err := w.takeUp(ctx); err != nil {
		w.Log.ErrorContext(ctx, "cannot take up what is to be watched; will try again", "index", w.Client.String(), "error", err)
		return err
	}
	if w.journalNow() == journalNone && time.Now().Before(w.again) {
		return w.poll(ctx)
	}
	err := w.readJournal(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	state := journalFollowed
	switch down := (*journalError)(nil); {
	case errors.Is(err, errNoJournal):
		state, w.again = journalNone, time.Now().Add(journalAgain)
	case errors.As(err, &down):
		state = journalDown
	case err != nil:
		w.Log.ErrorContext(ctx, "cannot keep what the journal says; will try again", "index", w.Client.String(), "error", err)
		return err
	}
	w.setJournal(ctx, state, err)
	raise(w.wakeRead)
	raise(w.wakeHistory)
	if state == journalFollowed {
		return nil
	}
	polled := w.poll(ctx)
	if state == journalNone {
		return polled
	}
	return errors.Join(err, polled)
}

// A journalError is the journal's, not the store's.
type journalError struct{ err error }

func (e *journalError) Error() string { return "journal: " + e.err.Error() }
func (e *journalError) Unwrap() error { return e.err }

func (w *Watcher) journalNow() journalState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.journal
}

func (w *Watcher) setJournal(ctx context.Context, now journalState, err error) {
	w.mu.Lock()
	before := w.journal
	w.journal = now
	w.mu.Unlock()
	if before == journalUnknown {
		close(w.looked)
	}
	w.Metrics.journalIs(now)
	meanwhile, level := "reading listings directly", slog.LevelInfo
	if w.All {
		meanwhile, level = "nothing new can be seen until it is there, because all projects are watched", slog.LevelWarn
	}
	switch {
	case now == before:
	case now == journalDown:
		w.Log.WarnContext(ctx, "journal is unavailable; "+meanwhile, "index", w.Client.String(), "error", err)
	case now == journalNone:
		w.Log.Log(ctx, level, "index has no journal; "+meanwhile, "index", w.Client.String(), "answer", err)
	case before != journalUnknown:
		w.Log.InfoContext(ctx, "journal is available again", "index", w.Client.String())
	}
}

// readJournal reads the rows that came since the last round.
func (w *Watcher) readJournal(ctx context.Context) error {
	serial, followed, err := w.Store.Serial(ctx)
	if err != nil {
		return err
	}
	newest, err := w.Client.LastSerial(ctx)
	if err != nil && !followed && lacksJournal(err) {
		return lacking{err}
	}
	if err != nil {
		return &journalError{err}
	}
	if !followed {
		if err := w.Store.BeginJournal(ctx, newest); err != nil {
			return err
		}
		w.Metrics.journal(newest, newest)
		w.Log.InfoContext(ctx, "following the journal", "index", w.Client.String(), "serial", newest)
		return nil
	}
	w.Metrics.journal(serial, newest)
	if newest < serial {
		return &journalError{fmt.Errorf("newest serial is %d, but it was read up to %d", newest, serial)}
	}
	for batches := 0; serial < newest && batches < maxBatches; batches++ {
		rows, err := w.Client.Changes(ctx, serial)
		if err != nil {
			return &journalError{err}
		}
		if len(rows) == 0 {
			break // a cache behind the other answer
		}
		for some := range slices.Chunk(rows, rowsTogether) { // others get to write in between
			upTo := some[len(some)-1].Serial
			if err := w.takeRows(ctx, some, upTo); err != nil {
				return err
			}
			serial = upTo
			w.Metrics.journal(serial, newest)
		}
	}
	return nil
}

// takeRows stores rows. Of all projects, those with names that nothing can be asked
// about are left out; PyPI has not taken such names for long.
func (w *Watcher) takeRows(ctx context.Context, rows []index.JournalRow, upTo int64) error {
	kept, err := w.Store.FollowJournal(ctx, askable(rows), upTo, w.All)
	if kept > 0 {
		w.changed()
		raise(w.wakeRead)
	}
	return err
}

func askable(rows []index.JournalRow) []index.JournalRow {
	return slices.DeleteFunc(rows, func(r index.JournalRow) bool { return !ValidName(r.Project) })
}

// poll has listings read that no journal speaks of: at most one project a second over
// all. Of every project that would take days, so there it is not done.
func (w *Watcher) poll(ctx context.Context) error {
	if w.All {
		return nil
	}
	w.mu.Lock()
	every := time.Duration(w.projects) * time.Second
	w.mu.Unlock()
	if every <= w.Interval {
		every = w.Interval / 2 // room for jitter
	}
	n, err := w.Store.PollListings(ctx, every, pollTogether)
	if n > 0 {
		raise(w.wakeRead)
	}
	return err
}
