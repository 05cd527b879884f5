package monitor

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	// stallFloor is the shortest silence that can be a stall, whatever the
	// log's habit: tiled logs publish a head at least every ten minutes.
	stallFloor = 15 * time.Minute
	// stallGrowths is how often a log must have been seen to grow before its
	// silence means anything.
	stallGrowths = 10
)

// Patience is how long the log may stand still before that is worth an alert: three
// times its longest rest so far. False while too little is known of it.
func (h Habit) Patience() (time.Duration, bool) {
	return max(stallFloor, 3*h.Rest), h.Growths >= stallGrowths
}

// stalled records each log that has not grown for longer than it ever does, closed
// ones aside. watched is since when we have been asking in vain; zero when the logs
// have just answered.
func (f *Follower) stalled(ctx context.Context, logs []Served, watched time.Time) error {
	now := f.Keeper.Now()
	for _, s := range logs {
		m, ok, err := f.Store.Known(ctx, s.Log.Origin)
		if err != nil {
			return fmt.Errorf("remembering log %q: %w", s.Log.Origin, err)
		}
		patience, known := m.Habit.Patience()
		since := m.Habit.Grown
		if watched.After(since) {
			since = watched
		}
		if !ok || !known || m.Closed || now.Sub(since) <= patience+2*f.Interval {
			f.Metrics.stall(s.Log.Origin, false)
			continue
		}
		f.Metrics.stall(s.Log.Origin, true)
		head, _, err := f.Store.Latest(ctx, s.Log)
		if err != nil {
			return err
		}
		// The size is its subject: one alert until the log grows again.
		if err := f.Keeper.record(ctx, &Contradiction{Kind: Stalled, Log: s.Log, Ours: head,
			Subject: "size " + strconv.FormatUint(head.Size, 10),
			Detail:  fmt.Sprintf("no larger head than %d for %s; its longest rest so far was %s", head.Size, now.Sub(since).Round(time.Second), m.Habit.Rest.Round(time.Second)),
			At:      now}); err != nil {
			return err
		}
		f.changed()
	}
	return nil
}

// missing reports v1 shards that the server used to list and does not any more:
// closed ones at once, the one that takes entries when it stays away. A v2 server
// has one log, which can only fail to answer.
func (f *Follower) missing(ctx context.Context, served []Served) error {
	listed := make(map[string]bool)
	for _, s := range served {
		listed[s.Log.Origin] = true
	}
	known, err := f.Store.LogsAt(ctx, f.Server.String())
	if err != nil {
		return fmt.Errorf("remembering the logs of %s: %w", f.Server, err)
	}
	absent := make(map[string]time.Time)
	for _, l := range known {
		if l.API != V1 || listed[l.Origin] {
			continue
		}
		if !l.Closed {
			// A replica that has not heard of the last rotation yet does
			// not list the newest shard, and answers side by side with
			// those that have.
			now := f.Keeper.Now()
			since, ok := f.absent[l.Origin]
			if !ok {
				since = now
			}
			if absent[l.Origin] = since; now.Sub(since) < stallFloor {
				continue
			}
		}
		head, ok, err := f.Store.Latest(ctx, l)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := f.Keeper.record(ctx, &Contradiction{Kind: ClosedChanged, Log: l, Ours: head, Subject: "missing",
			Detail: fmt.Sprintf("the server does not list this shard any more, of which it had signed %d leaves", head.Size), At: f.Keeper.Now()}); err != nil {
			return err
		}
		f.changed()
	}
	f.absent = absent
	return nil
}
