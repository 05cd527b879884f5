package pypi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sigtrail/index"
)

// goneAfter is how long an index without a journal has to deny that it knows a project
// before its files are taken to be gone.
const goneAfter = 24 * time.Hour

// staleLoud is after how many tries a stale listing is worth a warning: eight minutes.
const staleLoud = 9

// list reads a project's listing and stores it. Work is done when that is as new as
// the journal's last word on the project: the copies of PyPI's caches are up to a day
// old until they are told.
func (w *Watcher) list(ctx context.Context, work index.Work, failed *failures) result {
	if work.Serial > 0 && work.Listed && work.Stored >= work.Serial {
		// Stored just before the process ended, or asked for by two rows.
		return result{err: w.Store.ListingRead(ctx, work, work.Stored, work.ETag)}
	}
	tag := work.ETag
	if work.State == index.WorkStale {
		tag = "" // "unchanged" would not say which of two answers is meant
	}
	conditional := tag != ""
	l, tag, err := w.Client.ListingIfChanged(ctx, work.Project, tag)
	switch {
	case ctx.Err() != nil:
		return result{err: context.Cause(ctx)}
	case errors.Is(err, ErrUnchanged) && conditional: // else there is nothing that it could be the same as
		return w.listed(ctx, work, work.Stored, work.ETag)
	case errors.Is(err, ErrNotFound):
		return w.notFound(ctx, work)
	case err != nil:
		return w.postpone(ctx, work, err, failed)
	}
	fresh, err := w.Store.SaveListing(ctx, l)
	if err != nil {
		return result{err: err}
	}
	w.Metrics.listed(len(fresh))
	w.meter.files.Add(int64(len(fresh)))
	if len(fresh) > 0 {
		w.Log.InfoContext(ctx, "files listed", "project", work.Project, "new", len(fresh), "files", len(l.Files), "serial", l.Serial)
	}
	w.changed()
	if l.Serial < work.Stored {
		tag = "" // not stored: with its tag it would be called unchanged
	}
	// A process that ends here reads the listing once more.
	r := w.stored(ctx, work, l.Serial, tag)
	if work.Cause == index.ByJournal {
		r.fresh = fresh
	}
	return r
}

// stored takes in a listing that was saved, and has it read again where what it says
// counts only when it is seen a second time.
func (w *Watcher) stored(ctx context.Context, work index.Work, serial int64, tag string) result {
	if serial != 0 && serial < work.Serial {
		return w.listed(ctx, work, serial, tag) // is read again anyway
	}
	due, err := w.Store.SecondLook(ctx, work.Project)
	if err != nil {
		return result{err: err}
	}
	if due.IsZero() {
		return w.listed(ctx, work, serial, tag)
	}
	// It may be due long since, where the answers in between settled nothing.
	soonest := now().Add(listingSchedules[index.WorkStale].pause(work.Tries))
	if due.Before(soonest) {
		due = soonest
	}
	return result{err: w.Store.PostponeListing(ctx, work, index.WorkStale, due, "differs from the one before and has to be seen again")}
}

// listed takes in a listing with a serial. Some indexes give none; then there is no
// telling.
func (w *Watcher) listed(ctx context.Context, work index.Work, serial int64, tag string) result {
	if serial == 0 || serial >= work.Serial {
		if work.Cause == index.ByBootstrap {
			w.meter.projects.Add(1)
		}
		return result{err: w.Store.ListingRead(ctx, work, serial, tag)}
	}
	if work.Tries == staleLoud {
		w.Log.WarnContext(ctx, "listing stays older than the journal", "project", work.Project, "serial", serial, "journal", work.Serial)
	}
	return w.later(ctx, work, index.WorkStale, 0, fmt.Sprintf("listing has serial %d", serial))
}

// postpone takes in a failure.
func (w *Watcher) postpone(ctx context.Context, work index.Work, err error, failed *failures) result {
	state, wait := stateOf(err)
	failed.add(fmt.Errorf("project %s: %w", work.Project, err))
	if work.State != state {
		w.Log.WarnContext(ctx, "listing cannot be read; will try again", "project", work.Project, "state", string(state), "error", err)
	}
	return w.later(ctx, work, state, wait, printable(err.Error(), 300))
}

func (w *Watcher) later(ctx context.Context, work index.Work, state index.WorkState, wait time.Duration, problem string) result {
	tries := work.Tries
	if work.State != state {
		tries = 0
	}
	next := now().Add(max(listingSchedules[state].pause(tries), wait))
	return result{state: state, wait: wait, err: w.Store.PostponeListing(ctx, work, state, next, problem)}
}

// notFound decides what the absence of a project means. It is gone only if the
// journal says so, because caches answer "not found" for a project just made, too; or,
// where there is no journal, when the answer has been the same for long.
func (w *Watcher) notFound(ctx context.Context, work index.Work) result {
	gone := work.Removed
	if work.Listed && w.journalNow() == journalNone && work.State == index.WorkMissing && time.Since(work.Since) >= goneAfter {
		gone = true
	}
	if gone {
		if _, err := w.Store.SaveListing(ctx, index.Listing{Project: work.Project, Serial: work.Serial, Removed: true, Fetched: now()}); err != nil {
			return result{err: err}
		}
		w.Log.WarnContext(ctx, "project was removed from the index", "project", work.Project, "serial", work.Serial)
		w.changed()
		return result{err: w.Store.ListingRead(ctx, work, work.Serial, "")}
	}
	if work.State != index.WorkMissing {
		w.Log.WarnContext(ctx, "project is not on the index; waiting for it to appear", "project", work.Project)
	}
	return w.later(ctx, work, index.WorkMissing, 0, ErrNotFound.Error())
}
