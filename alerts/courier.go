package alerts

import (
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
// receiver holds up nobody else.
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

// MaxPause is the longest time between two attempts to deliver an alert.
const MaxPause = 10 * time.Minute

const deliveryBatch = 50

// Names lists the sinks' names, for the outbox.
func (c *Courier) Names() []string {
	var names []string
	for _, s := range c.Sinks {
		names = append(names, s.Name())
	}
	return names
}

// Once tries each due delivery one time.
func (c *Courier) Once(ctx context.Context) error {
	errs := make([]error, len(c.Sinks))
	var g errgroup.Group
	for i, s := range c.Sinks {
		g.Go(func() error {
			errs[i] = c.empty(ctx, s)
			return nil
		})
	}
	return errors.Join(append(errs, g.Wait())...)
}

// Run delivers until ctx ends.
func (c *Courier) Run(ctx context.Context) error {
	var g errgroup.Group
	for i, s := range c.Sinks {
		g.Go(func() error {
			last := ""
			for {
				if err := c.empty(ctx, s); err != nil && ctx.Err() == nil && err.Error() != last {
					last = err.Error()
					c.Log.WarnContext(ctx, "cannot deliver; will try again", "sink", s.Name(), "error", err)
				} else if err == nil {
					last = ""
				}
				var wake chan struct{}
				if i < len(c.Wake) {
					wake = c.Wake[i]
				}
				select {
				case <-ctx.Done():
					return nil
				case <-wake:
				case <-time.After(c.Every):
				}
			}
		})
	}
	return g.Wait()
}

// empty delivers what is due for one sink, in order, and stops at the first
// failure: what comes later must not overtake it.
func (c *Courier) empty(ctx context.Context, s Sink) error {
	for {
		due, err := c.Outbox.DueDeliveries(ctx, s.Name(), c.Now(), deliveryBatch)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, d := range due {
			if err := c.deliver(ctx, s, d); err != nil {
				return err
			}
		}
	}
}

// deliver hands one alert over. Dying between the receiver's answer and the mark
// in the outbox sends it again, under the same id.
func (c *Courier) deliver(ctx context.Context, s Sink, d index.Delivery) error {
	err := s.Deliver(ctx, d.Alert)
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	if err == nil {
		c.Metrics.deliveries.WithLabelValues(s.Name(), "ok").Inc()
		return c.Outbox.Delivered(ctx, d.Alert.ID, s.Name(), c.Now())
	}
	c.Metrics.deliveries.WithLabelValues(s.Name(), "error").Inc()
	pause := min(c.Pause<<min(d.Tries, 20), MaxPause)
	pause += rand.N(pause/4 + 1)
	return errors.Join(fmt.Errorf("delivering alert %s: %w", d.Alert.ID, err),
		c.Outbox.DeliveryFailed(ctx, d.Alert.ID, s.Name(), c.Now().Add(pause), err.Error()))
}
