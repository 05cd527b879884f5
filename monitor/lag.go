package monitor

import (
	"context"
	"time"
)

// A lag is how far a tail is behind its log.
type lag struct {
	entries uint64
	told    time.Time // when it was last logged
}

// measure publishes how far the tail is behind: in entries, and in time since the
// log first showed the leaf that comes next. It says whether that grows.
func (f *Follower) measure(ctx context.Context, l Log, head Head, pos Position) error {
	now := f.Keeper.Now()
	var behind time.Duration
	if pos.Next < head.Size {
		seen, err := f.Store.SeenBy(ctx, l, pos.Next)
		if err != nil {
			return err
		}
		if !seen.IsZero() {
			behind = now.Sub(seen)
		}
	}
	f.Metrics.behind(l.Origin, behind)
	last, known := f.lags[l.Origin]
	this := lag{entries: head.Size - pos.Next, told: last.told}
	if this.entries > 0 && now.Sub(last.told) >= time.Minute {
		trend := "unknown"
		switch {
		case known && this.entries > last.entries:
			trend = "growing"
		case known && this.entries < last.entries:
			trend = "shrinking"
		case known:
			trend = "steady"
		}
		if known { // a first round that ends in time is no news
			f.Log.WarnContext(ctx, "tail is behind", "log", l.Origin, "entries", this.entries, "time", behind.Round(time.Second), "lag", trend)
		}
		this.told = now
	}
	if f.lags == nil {
		f.lags = make(map[string]lag)
	}
	f.lags[l.Origin] = this
	return nil
}
