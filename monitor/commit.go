package monitor

import (
	"context"
	"fmt"
)

// A committer writes batches in order, one behind the prover, so that indexing a
// batch and proving the next one share the cores.
type committer struct {
	f    *Follower
	ctx  context.Context
	done chan error // holds the result of the batch under way; nil: none
}

func (f *Follower) committer(ctx context.Context) *committer { return &committer{f: f, ctx: ctx} }

// add waits for the batch under way and starts the next.
func (c *committer) add(b Batch) error {
	if err := c.wait(); err != nil {
		return err
	}
	c.done = make(chan error, 1)
	go func(done chan<- error) { done <- c.commit(b) }(c.done)
	return nil
}

func (c *committer) wait() error {
	if c.done == nil {
		return nil
	}
	err := <-c.done
	c.done = nil
	return err
}

func (c *committer) commit(b Batch) error {
	if err := c.f.Store.Commit(c.ctx, b); err != nil {
		return fmt.Errorf("log %q: committing leaves %d to %d: %w", b.Log.Origin, b.From.Next, b.To.Next, err)
	}
	c.f.Metrics.leaves.WithLabelValues(b.Log.Origin).Add(float64(len(b.Leaves)))
	c.f.Metrics.tailed(b.Log.Origin, b.To.Next)
	c.f.changed()
	return c.f.Stream.committed(c.ctx, b)
}
