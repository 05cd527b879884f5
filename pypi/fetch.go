package pypi

import (
	"context"
	"fmt"
	"time"

	"sigtrail/index"
)

const (
	retryNegative = time.Minute      // a provenance that is named and not there yet
	youngFor      = 10 * time.Minute // a file that a cache may know nothing of
	unreadableFor = 2 * time.Hour    // since a file was first seen: its object may be a passing fault's
)

// fetch asks for one file's provenance and stores what comes of it.
func (w *Watcher) fetch(ctx context.Context, f index.File, failed *failures) result {
	p, err := w.Client.Provenance(ctx, f.ProvenanceURL)
	var r result
	switch {
	case ctx.Err() != nil:
		return result{err: context.Cause(ctx)}
	case err != nil:
		failed.add(fmt.Errorf("file %s: %w", f.Name, err))
		r.state, r.wait = stateOf(err)
		p = index.Provenance{State: index.ProvenancePending, Fetched: now(), Error: printable(err.Error(), 300)}
	case p.State == index.ProvenanceRefused:
		failed.add(fmt.Errorf("file %s: provenance: %s", f.Name, p.Error))
		r.state, r.wait = index.WorkRefused, min(time.Until(p.Retry), time.Hour)
	case p.State == index.ProvenanceAbsent && isYoung(f, p.Fetched):
		// The listing named it. Right after an upload, "not found" is more
		// likely a cache's than the truth, and would look like an attack.
		r.state = index.WorkMissing
		p.State, p.Error = index.ProvenancePending, "named by the listing and not found yet"
	case p.State == index.ProvenanceUnreadable && p.Body != nil && p.Fetched.Sub(f.FirstSeen) < unreadableFor:
		// PyPI has made and checked the object itself: something on the way is
		// the likelier culprit.
		r.state = index.WorkFailing
		p.State, p.Body = index.ProvenancePending, nil
	default:
		w.meter.provenance.Add(1)
	}
	if r.state != "" {
		tries, err := w.Store.ProvenanceTries(ctx, f.ID)
		if err != nil {
			return result{err: err}
		}
		p.Retry = p.Fetched.Add(max(provenanceSchedules[r.state].pause(tries), r.wait))
	}
	if r.err = w.Store.SaveProvenance(ctx, f.ID, p); r.err == nil && r.state == "" {
		w.changed()
	}
	return r
}

func isYoung(f index.File, at time.Time) bool {
	born := f.Uploaded
	// However late a new file is read of, after a stop of this process, say: one
	// answer is too little for an alert. Whatever was there at first raises none.
	if f.FirstSeen.Before(born) || !f.FirstListing {
		born = f.FirstSeen
	}
	return at.Sub(born) < youngFor
}
