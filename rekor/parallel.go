package rekor

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sigtrail/monitor"
)

// inParallel calls do for 0 to n-1, limit at a time, in order of starting. After a
// failure nothing further is started, but what is under way may finish: a run of
// leaves is good up to its first hole. It returns the failure with the lowest
// number, or why ctx ended.
func inParallel(ctx context.Context, limit, n int, do func(context.Context, int) error) error {
	var g errgroup.Group
	g.SetLimit(limit)
	var failed atomic.Bool
	errs := make([]error, n)
	for i := 0; i < n && !failed.Load() && ctx.Err() == nil; i++ {
		g.Go(func() error {
			if errs[i] = do(ctx, i); errs[i] != nil {
				failed.Store(true)
			}
			return nil
		})
	}
	_ = g.Wait() // the functions above return nil
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// run is how many leaves there are before the first hole.
func run(leaves []monitor.Leaf) int {
	n := 0
	for n < len(leaves) && leaves[n].Data != nil {
		n++
	}
	return n
}
