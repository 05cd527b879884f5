package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// A Scan reads a range of one log for an investigation, with the same proofs as a
// tail. It goes on where its Store says that it has come to.
type Scan struct {
	Keeper   *Keeper
	Store    Store // whose Position, Begin and Commit are the scan's, not the tail's
	Batch    uint64
	Log      *slog.Logger
	Metrics  *Metrics
	Pause    time.Duration     // after the first failure; doubled with each one more
	Advanced func(next uint64) // called after each commit; nil: nobody wants to know
}

// scanFailures is how many failures in a row, without a batch between them, end a
// scan. Nothing is lost: it goes on when it is run again.
const scanFailures = 6

// Run reads the leaves of r that have not been read, which must lie under the
// newest verified head. What does not mend itself ends it at once: a contradiction,
// or ErrConflict if somebody else runs the same scan.
func (c *Scan) Run(ctx context.Context, s Served, r Range) error {
	store := &advancing{Store: c.Store, advanced: c.Advanced}
	f := &Follower{Keeper: c.Keeper, Store: store, Batch: c.Batch, Log: c.Log, Metrics: c.Metrics}
	for failures := 0; ; {
		before := store.next
		err := c.read(ctx, f, s, r)
		if err == nil || ctx.Err() != nil || errors.As(err, new(*Contradiction)) || errors.Is(err, ErrConflict) {
			return err
		}
		if store.next != before {
			failures = 0
		}
		if failures++; failures >= scanFailures {
			return fmt.Errorf("given up after %d failures in a row: %w", failures, err)
		}
		pause := min(c.Pause<<(failures-1), time.Minute)
		c.Log.WarnContext(ctx, "cannot scan; will try again", "log", s.Log.Origin, "error", err, "pause", pause)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (c *Scan) read(ctx context.Context, f *Follower, s Served, r Range) error {
	head, _, err := c.Store.Latest(ctx, s.Log)
	if err != nil {
		return err
	}
	if r.To > head.Size {
		return fmt.Errorf("log %q: leaf %d lies beyond its present end %d", s.Log.Origin, r.To, head.Size)
	}
	pos, ok, err := c.Store.Position(ctx, s.Log)
	if err == nil && !ok {
		if pos, err = f.positionAt(ctx, s, head, r.From); err == nil {
			err = c.Store.Begin(ctx, s.Log, pos)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.tail(ctx, s, head, pos, r.To, 0)
	return err
}

// advancing tells how far a scan has come.
type advancing struct {
	Store
	next     uint64 // written by the committer, which is waited for before it is read
	advanced func(next uint64)
}

func (a *advancing) Commit(ctx context.Context, b Batch) error {
	err := a.Store.Commit(ctx, b)
	if err == nil {
		a.next = b.To.Next
		if a.advanced != nil {
			a.advanced(b.To.Next)
		}
	}
	return err
}
