package pypi

import (
	"context"
	"sync/atomic"
	"time"

	"sigtrail/index"
)

const (
	pastPause   = 5 * time.Second // between batches of the older journal
	historyLook = time.Minute     // whether there is something of the past to read
)

// historyAlways reads what is missing of the past, beside everything else.
func (w *Watcher) historyAlways(ctx context.Context) error {
	failures, last := 0, ""
	for {
		err := w.history(ctx)
		if ctx.Err() != nil {
			return nil
		}
		pause := historyLook
		if err != nil {
			pause = min(historyLook<<min(failures, 10), time.Hour)
			failures++
			if err.Error() != last {
				w.Log.ErrorContext(ctx, "cannot read what came before; will try again", "index", w.Client.String(), "error", err, "pause", pause)
			}
			last = err.Error()
			if sleep(ctx, pause) != nil { // a wake-up changes nothing about it
				return nil
			}
			continue
		}
		failures, last = 0, ""
		await(ctx, pause, w.wakeHistory)
	}
}

// history reads the list of all projects and the older journal, once the journal is
// followed: what changes meanwhile is then known of.
func (w *Watcher) history(ctx context.Context) error {
	serial, followed, err := w.Store.Serial(ctx)
	if err != nil || !followed && w.journalNow() != journalNone {
		return err
	}
	if w.All {
		if err := w.census(ctx, serial); err != nil {
			return err
		}
	}
	if !followed || w.JournalSince <= 0 {
		return nil
	}
	return w.past(ctx, serial)
}

// census reads the list of all projects, once. A process that ends meanwhile begins
// again with the list and not with what was read because of it.
func (w *Watcher) census(ctx context.Context, serial int64) error {
	done, err := w.Store.Census(ctx)
	if err != nil || !done.IsZero() {
		return err
	}
	w.Log.InfoContext(ctx, "reading the list of all projects", "index", w.Client.String())
	asOf, n, err := w.Client.Projects(ctx, func(some []index.Named) error {
		if err := w.Store.Enlist(ctx, some); err != nil {
			return err
		}
		raise(w.wakeRead)
		return nil
	})
	if err != nil {
		return err
	}
	if asOf == 0 {
		asOf = serial // the index tells nothing of the kind
	}
	// The list comes out of a cache. What happened after it was made and before
	// the journal was followed, nobody has told us.
	for asOf < serial {
		rows, err := w.Client.Changes(ctx, asOf)
		if err != nil {
			return err
		}
		rows, asOf = upTo(rows, serial)
		if err := w.takeRows(ctx, rows, 0); err != nil {
			return err
		}
	}
	w.Log.InfoContext(ctx, "all projects are listed", "index", w.Client.String(), "projects", n)
	return w.Store.Enlisted(ctx)
}

// upTo are the rows up to and with a serial, and the last serial among them; the
// serial itself when there is nothing more before it.
func upTo(rows []index.JournalRow, serial int64) ([]index.JournalRow, int64) {
	for i, r := range rows {
		if r.Serial > serial {
			return rows[:i], serial
		}
	}
	if len(rows) == 0 {
		return nil, serial
	}
	return rows, rows[len(rows)-1].Serial
}

// past reads the older journal for rows of watched projects. It begins anew when a
// project comes to be watched (index.Catalogue.Watch) or an older serial is wanted.
func (w *Watcher) past(ctx context.Context, serial int64) error {
	for first, spoken := true, time.Now(); ; first = false {
		before, begun, err := w.Store.PastJournal(ctx)
		if err != nil {
			return err
		}
		after := before
		if !begun || w.JournalSince < before.From {
			after = index.PastJournal{From: w.JournalSince, Next: w.JournalSince, End: serial}
		}
		if after.Next >= after.End {
			return nil
		}
		if first || time.Since(spoken) >= 30*time.Second {
			spoken = time.Now()
			w.Log.InfoContext(ctx, "reading the older journal", "index", w.Client.String(), "serial", after.Next, "up to", after.End)
		}
		if !first && sleep(ctx, pastPause) != nil {
			return context.Cause(ctx)
		}
		rows, err := w.Client.Changes(ctx, after.Next)
		if err != nil {
			return err
		}
		rows, after.Next = upTo(rows, after.End)
		if _, err := w.Store.SavePastJournal(ctx, askable(rows), before, after, w.All); err != nil {
			return err
		}
		w.changed()
	}
}

// A Bootstrap is how far the projects that are new here have been read.
type Bootstrap struct {
	Done, Total int           // projects
	Files       int64         // stored for the first time since it began
	Provenance  int64         // answers about provenance since then
	Waiting     int           // files whose provenance is to be fetched
	Rate        float64       // projects a second; 0: not known yet
	Left        time.Duration // 0: not known yet
	Finished    bool
}

// A meter counts for metrics and progress.
type meter struct {
	projects, files, provenance atomic.Int64 // since the bootstrap began
	next                        time.Time    // when to count again
	began                       time.Time    // of the bootstrap; zero: none is under way
}

// landed is called after each task; counting costs more than most of them.
func (m *meter) landed(ctx context.Context, w *Watcher) {
	if time.Now().After(m.next) {
		_ = w.measure(ctx) // the same failure meets the next task
	}
}

// measure counts what is to be read. Of many projects that takes a while, so it is
// done the less often.
func (w *Watcher) measure(ctx context.Context) error {
	began := time.Now()
	s, err := w.Store.WorkSummary(ctx)
	if err != nil {
		return err
	}
	w.meter.next = time.Now().Add(max(time.Second, 50*time.Since(began)))
	remaining := 0
	for _, c := range s.Work {
		if c.Cause == index.ByBootstrap && c.State != index.WorkMissing {
			remaining += c.Count
		}
	}
	w.Metrics.work(s, began, remaining)
	w.meter.progress(w, s, remaining)
	return nil
}

func (m *meter) progress(w *Watcher, s index.WorkSummary, remaining int) {
	unfinished := remaining > 0 || !m.began.IsZero() && s.Provenance > 0 && w.files.closed == 0
	if m.began.IsZero() && !unfinished {
		m.projects.Store(0)
		m.files.Store(0)
		m.provenance.Store(0)
		return
	}
	if m.began.IsZero() {
		m.began = time.Now()
	}
	done := int(m.projects.Load())
	b := &Bootstrap{Done: done, Total: done + remaining, Files: m.files.Load(), Provenance: m.provenance.Load(), Waiting: s.Provenance, Finished: !unfinished}
	if took := time.Since(m.began).Seconds(); took > 0 && done > 0 {
		b.Rate = float64(done) / took
		b.Left = time.Duration(float64(remaining) / b.Rate * float64(time.Second))
	}
	if b.Finished {
		m.began = time.Time{}
	}
	if w.Progress != nil {
		w.Progress(b)
	}
}
