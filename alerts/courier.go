package alerts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"sigtrail/index"
)

// A Sink takes alerts. Deliver returns nil only when the receiver has it. The
// same alert may come again under the same id.
type Sink interface {
	Name() string // stable, and free of secrets
	Deliver(ctx context.Context, a index.Alert) error
}

// Outbox is what a Courier needs of the index.
type Outbox interface {
	// DueDeliveries lists what a sink should be given now, oldest alert first.
	DueDeliveries(ctx context.Context, sink string, now time.Time, limit int) ([]index.Delivery, error)
	Delivered(ctx context.Context, alertID, sink string, at time.Time) error
	DeliveryFailed(ctx context.Context, alertID, sink string, next time.Time, why string) error
}

// A Courier empties the outbox. Each sink has a worker of its own, so that a slow
// receiver holds up nobody else. Every field but Wake must be set.
type Courier struct {
	Outbox  Outbox
	Sinks   []Sink
	Log     *slog.Logger
	Now     func() time.Time
	Metrics *Metrics
	Every   time.Duration   // between looks at the outbox
	Pause   time.Duration   // after a first failure; doubles up to MaxPause
	Wake    []chan struct{} // one for each sink, capacity 1; nil: none
}

const (
	// MaxPause is the longest time between two attempts to deliver an alert, but
	// for the jitter of a quarter.
	MaxPause = 10 * time.Minute

	// patience is how many failures of one alert hold up those behind it. From
	// then on it may be the alert that the receiver cannot take.
	patience = 5

	deliveryBatch = 50
)

// ErrGone is a receiver that says it has gone for good. It may be an error of
// its operator, so it is asked again, but seldom.
var ErrGone = errors.New("the receiver answered that it is gone")

// Names lists the sinks' names, for the outbox.
func (c *Courier) Names() []string {
	var names []string
	for _, s := range c.Sinks {
		names = append(names, s.Name())
	}
	return names
}

// Once tries what is due one time. After a failure the rest for that sink stays in
// the outbox.
func (c *Courier) Once(ctx context.Context) error {
	errs := make([]error, len(c.Sinks))
	var g errgroup.Group
	for i, s := range c.Sinks {
		g.Go(func() error {
			_, errs[i] = c.empty(ctx, s)
			return nil
		})
	}
	return errors.Join(append(errs, g.Wait())...)
}

// Run delivers until ctx ends.
func (c *Courier) Run(ctx context.Context) error {
	var g errgroup.Group
	for i, s := range c.Sinks {
		var wake chan struct{}
		if i < len(c.Wake) {
			wake = c.Wake[i]
		}
		g.Go(func() error { return c.serve(ctx, s, wake) })
	}
	return g.Wait()
}

// serve is the worker of one sink. While a failed delivery waits for its next
// attempt, those behind it wait too, so that alerts arrive in order; only a
// wake-up, which means a new alert, has the receiver tried at once.
func (c *Courier) serve(ctx context.Context, s Sink, wake <-chan struct{}) error {
	last, woken := "", true
	var held time.Time
	for {
		if woken || !c.Now().Before(held) {
			var err error
			held, err = c.empty(ctx, s)
			switch {
			case err == nil:
				last = ""
			case ctx.Err() == nil && err.Error() != last:
				last = err.Error()
				c.Log.WarnContext(ctx, "cannot deliver alerts; will try again", "sink", s.Name(), "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			woken = true
		case <-time.After(c.Every):
			woken = false
		}
	}
}

// empty delivers what is due for one sink, oldest first, up to the first failure.
// It returns until when the sink should be left alone.
func (c *Courier) empty(ctx context.Context, s Sink) (held time.Time, err error) {
	for {
		due, err := c.Outbox.DueDeliveries(ctx, s.Name(), c.Now(), deliveryBatch)
		if err != nil || len(due) == 0 {
			return time.Time{}, err
		}
		var failed error
		for _, d := range due {
			next, err := c.deliver(ctx, s, d)
			if err != nil && (d.Tries < patience || ctx.Err() != nil) {
				return next, err
			}
			failed = cmp.Or(failed, err)
		}
		if failed != nil {
			return time.Time{}, failed
		}
	}
}

// deliver hands one alert over, or returns when to try again. Dying between the
// receiver's answer and the mark in the outbox sends it again, under the same id.
func (c *Courier) deliver(ctx context.Context, s Sink, d index.Delivery) (next time.Time, err error) {
	err = s.Deliver(ctx, d.Alert)
	if ctx.Err() != nil && err != nil {
		return next, ctx.Err() // shutting down says nothing about the receiver
	}
	if err == nil {
		c.Metrics.deliveries.WithLabelValues(s.Name(), "ok").Inc()
		return next, c.Outbox.Delivered(ctx, d.Alert.ID, s.Name(), c.Now())
	}
	c.Metrics.deliveries.WithLabelValues(s.Name(), "error").Inc()
	next = c.Now().Add(c.pause(d.Tries, err))
	return next, errors.Join(fmt.Errorf("delivering alert %s: %w", d.Alert.ID, err),
		c.Outbox.DeliveryFailed(ctx, d.Alert.ID, s.Name(), next, err.Error()))
}

// pause is how long an alert waits after it has failed again, with jitter.
func (c *Courier) pause(tries int, err error) time.Duration {
	p := MaxPause
	if !errors.Is(err, ErrGone) && tries < 16 {
		p = min(c.Pause<<tries, MaxPause)
	}
	return p + rand.N(p/4+1)
}
