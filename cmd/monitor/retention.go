package main

import (
	"context"
	"time"
)

// RetentionConfig says how long is kept what nothing refers to.
type RetentionConfig struct {
	Unbound Duration `yaml:"unbound"` // leaves that no file has appeared for
}

const (
	expireEvery = 10 * time.Minute
	expirePause = 100 * time.Millisecond // between two transactions, so that others get their turn
)

// expire forgets what is past its retention, in small steps, now and then.
func (d *daemon) expire(ctx context.Context) error {
	for after := int64(0); ; {
		_, err := d.expireUnbound(ctx)
		if err == nil {
			after, err = d.store.ExpireClaims(ctx, after) // some of them a round
		}
		if err != nil && ctx.Err() == nil {
			d.log.ErrorContext(ctx, "cannot forget old unbound leaves; will try again", "error", err)
		}
		if !pause(ctx, expireEvery) {
			return nil
		}
	}
}

// expireOnce forgets all that is past its retention.
func (d *daemon) expireOnce(ctx context.Context) error {
	n, err := d.expireUnbound(ctx)
	if err != nil || n == 0 {
		return err
	}
	for after := int64(0); ; {
		if after, err = d.store.ExpireClaims(ctx, after); err != nil || after == 0 {
			return err
		}
	}
}

func (d *daemon) expireUnbound(ctx context.Context) (total int, err error) {
	before := d.now().Add(-d.config.Retention.Unbound.Value())
	for more := true; more; {
		n := 0
		if n, more, err = d.store.Expire(ctx, before); err != nil {
			return total, err
		}
		if total += n; more && !pause(ctx, expirePause) {
			break
		}
	}
	if total > 0 {
		d.log.InfoContext(ctx, "no file has appeared for these leaves; they are forgotten", "leaves", total, "seen before", before)
	}
	return total, nil
}

// pause is false when ctx has ended.
func pause(ctx context.Context, long time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(long):
		return true
	}
}
