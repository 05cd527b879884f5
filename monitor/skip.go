package monitor

import (
	"context"
	"fmt"
	"strconv"
)

// skip moves a tail that has fallen too far behind to the head. The leaves between
// are a gap until somebody scans them, which is said once for each gap.
func (f *Follower) skip(ctx context.Context, s Served, head Head, from Position) (Position, error) {
	to, err := f.positionAt(ctx, s, head, head.Size)
	if err != nil {
		return from, err
	}
	gap := Contradiction{Kind: CoverageGap, Log: s.Log, Ours: head,
		Subject: strconv.FormatUint(from.Next, 10) + " to " + strconv.FormatUint(to.Next, 10),
		Detail: fmt.Sprintf("leaves %d to %d were not read: the tail was %d behind, and its configuration allows %d",
			from.Next, to.Next-1, to.Next-from.Next, f.MaxLag),
		At: f.Keeper.Now()}
	if err := f.Store.Skip(ctx, s.Log, from, to, gap); err != nil {
		return from, fmt.Errorf("log %q: skipping leaves %d to %d: %w", s.Log.Origin, from.Next, to.Next, err)
	}
	f.Log.WarnContext(ctx, "tail is too far behind and skips ahead", "log", s.Log.Origin, "from", from.Next, "to", to.Next, "most", f.MaxLag)
	f.Metrics.contradictions.WithLabelValues(s.Log.Origin, CoverageGap).Inc()
	f.Metrics.tailed(s.Log.Origin, to.Next)
	f.changed()
	return to, nil
}
