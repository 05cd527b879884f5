package monitor_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

// A broker holds messages until they are acknowledged, as Pub/Sub does. What a
// subscription has taken and not acknowledged comes again when that one is closed.
type broker struct {
	mu      sync.Mutex
	queue   []lab.Event
	arrived chan struct{}
	open    int // taken, and neither acknowledged nor sent back
	acked   int
	onAck   func(n int) // told of each acknowledgement before it counts
}

func newBroker() *broker { return &broker{arrived: make(chan struct{})} }

func (b *broker) publish(events ...lab.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(b.queue, events...)
	close(b.arrived)
	b.arrived = make(chan struct{})
}

// left is how many messages are not acknowledged.
func (b *broker) left() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) + b.open
}

// scramble drops every drop-th message, doubles every double-th and shuffles: most
// go astray by up to reach places, every hundredth by any distance.
func scramble(r *rand.Rand, events []lab.Event, drop, double, reach int) (out []lab.Event, dropped, strayed int) {
	type placed struct {
		at    int
		event lab.Event
	}
	var all []placed
	for i, e := range events {
		copies := 1
		switch {
		case r.IntN(drop) == 0:
			copies = 0
			dropped++
		case r.IntN(double) == 0:
			copies = 2
		}
		for range copies {
			at := i + r.IntN(reach)
			if r.IntN(100) == 0 {
				at = i + r.IntN(len(events))
				strayed++
			}
			all = append(all, placed{at, e})
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int { return a.at - b.at })
	for _, p := range all {
		out = append(out, p.event)
	}
	return out, dropped, strayed
}

// A subscription is one consumer's connection to a broker.
type subscription struct {
	b    *broker
	mu   sync.Mutex
	open map[*lab.Event]bool
	dead bool // nothing of what the consumer says arrives any more
}

func (b *broker) subscribe() *subscription {
	return &subscription{b: b, open: make(map[*lab.Event]bool)}
}

func (s *subscription) Receive(ctx context.Context) (monitor.Event, error) {
	for {
		s.b.mu.Lock()
		arrived := s.b.arrived
		if len(s.b.queue) > 0 {
			e := s.b.queue[0]
			s.b.queue = s.b.queue[1:]
			s.b.open++
			s.b.mu.Unlock()
			s.mu.Lock()
			s.open[&e] = true
			s.mu.Unlock()
			return monitor.Event{Body: e.Body, Attributes: e.Attributes, Ack: func() { s.settle(&e, true) }, Nack: func() { s.settle(&e, false) }}, nil
		}
		s.b.mu.Unlock()
		select {
		case <-ctx.Done():
			return monitor.Event{}, ctx.Err()
		case <-arrived:
		}
	}
}

func (s *subscription) settle(e *lab.Event, done bool) {
	if done && s.b.onAck != nil {
		s.b.mu.Lock()
		n := s.b.acked
		s.b.mu.Unlock()
		s.b.onAck(n)
	}
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return
	}
	if !s.open[e] {
		panic("a message is settled twice")
	}
	delete(s.open, e)
	s.mu.Unlock()
	s.b.mu.Lock()
	s.b.open--
	if done {
		s.b.acked++
	}
	s.b.mu.Unlock()
	if !done {
		s.b.publish(*e)
	}
}

// die has the broker take back all that was not acknowledged.
func (s *subscription) die() {
	s.mu.Lock()
	s.dead = true
	var back []lab.Event
	for e := range s.open {
		back = append(back, *e)
	}
	clear(s.open)
	s.mu.Unlock()
	s.b.mu.Lock()
	s.b.open -= len(back)
	s.b.mu.Unlock()
	s.b.publish(back...)
}

func (s *subscription) Close() error {
	s.die()
	return nil
}
