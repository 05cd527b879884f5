package rekor

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"sigtrail/monitor"
)

// maxRunBytes bounds the memory of one run of leaves: when so much has been read, it
// starts nothing further.
const maxRunBytes = 64 << 20

// errEnough ends a run that has become long enough in bytes.
var errEnough = errors.New("enough read")

// inParallel calls do for 0 to n-1, limit at a time, in order of starting. After a
// failure nothing further is started and what is under way behind it is cancelled,
// but what is before it may finish: a run of leaves is good up to its first hole. It
// returns the failure with the lowest number, or why ctx ended.
func inParallel(ctx context.Context, limit, n int, do func(context.Context, int) error) error {
	var g errgroup.Group
	g.SetLimit(limit)
	var mu sync.Mutex
	first, failure := n, error(nil)
	running := make(map[int]context.CancelFunc)
	start := func(i int) (context.Context, bool) {
		mu.Lock()
		defer mu.Unlock()
		if first < i {
			return nil, false
		}
		ctx, cancel := context.WithCancel(ctx)
		running[i] = cancel
		return ctx, true
	}
	end := func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		running[i]()
		delete(running, i)
		if err == nil || first < i {
			return
		}
		first, failure = i, err
		for j, cancel := range running {
			if j > i {
				cancel()
			}
		}
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		g.Go(func() error {
			if ctx, ok := start(i); ok {
				end(i, do(ctx, i))
			}
			return nil
		})
	}
	_ = g.Wait() // the functions above return nil
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return failure
}

// run is how many leaves there are before the first hole.
func run(leaves []monitor.Leaf) int {
	n := 0
	for n < len(leaves) && leaves[n].Data != nil {
		n++
	}
	return n
}
