package rekor

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

const (
	// slowest still notices within seconds that a server is well again.
	slowest rate.Limit = 0.2
	// boundless is what no limit at all counts as once the server has
	// complained: about what eight requests at a time make of a quick server.
	// The first complaint then takes effect, and so does each further one.
	boundless rate.Limit = 100
	// climb is how long quiet raises the rate from nothing to the cap: long
	// beside the minute over which servers count their clients' requests.
	climb = 5 * time.Minute
	// memory is how much quiet one success can stand for.
	memory = time.Minute
	// usualLatency is assumed until the server has answered.
	usualLatency = 500 * time.Millisecond
)

// A pace is how fast one server may be asked: as fast as the configuration allows
// and the server puts up with. A complaint halves the rate at once, quiet raises
// it again little by little (additive increase, multiplicative decrease).
type pace struct {
	most      rate.Limit    // rate.Inf: no limit
	limiter   *rate.Limiter // always finite: x/time/rate loses count on the way back from rate.Inf
	gauge     prometheus.Gauge
	slowdowns prometheus.Counter

	mu      sync.Mutex
	allowed rate.Limit
	latency time.Duration // of answers, smoothed
	slowed  time.Time
	raised  time.Time // up to when quiet has been counted
	held    time.Time // nothing is asked before
}

func newPace(start, most rate.Limit, gauge prometheus.Gauge, slowdowns prometheus.Counter) *pace {
	p := &pace{most: most, limiter: rate.NewLimiter(1, math.MaxInt), gauge: gauge, slowdowns: slowdowns, latency: usualLatency, raised: time.Now()}
	p.set(start)
	return p
}

// ceiling is the cap as a finite figure, to halve and to climb to.
func (p *pace) ceiling() rate.Limit {
	if p.most == rate.Inf {
		return boundless
	}
	return p.most
}

// set is called with p.mu held. A server that has not complained may get a
// second's worth of requests at once; after a complaint they go one by one.
func (p *pace) set(limit rate.Limit) {
	burst := 1
	if limit >= p.ceiling() {
		limit, burst = p.most, max(1, int(p.ceiling()))
	}
	p.allowed = limit
	p.limiter.SetBurst(burst)
	p.limiter.SetLimit(min(limit, p.ceiling()))
	if limit == rate.Inf { // which is a finite number
		p.gauge.Set(math.Inf(1))
	} else {
		p.gauge.Set(float64(limit))
	}
}

// wait waits for a request's turn, and for the end of a pause that the server
// asked for. Those who waited for that queue up again: they must not all go at
// once when it ends.
func (p *pace) wait(ctx context.Context) error {
	for {
		if err := p.turn(ctx); err != nil {
			return err
		}
		p.mu.Lock()
		pause := time.Until(p.held)
		p.mu.Unlock()
		if pause <= 0 {
			return nil
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

func (p *pace) turn(ctx context.Context) error {
	p.mu.Lock()
	free := p.allowed == rate.Inf
	p.mu.Unlock()
	if free {
		return ctx.Err()
	}
	return p.limiter.Wait(ctx)
}

// answered takes down a whole answer and what it took. One success vouches for
// the time since the last, up to a minute: not for a night without requests.
func (p *pace) answered(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency += (took - p.latency) / 4
	now := time.Now()
	quiet := min(now.Sub(p.raised), memory)
	if quiet <= 0 {
		return
	}
	p.raised = now
	if p.allowed != p.most {
		p.set(p.allowed + p.ceiling()*rate.Limit(quiet.Seconds()/climb.Seconds()))
	}
}

// overloaded takes down a complaint about a request that was sent at that time, and
// the pause that the server asks for, if any. What was under way when the rate was
// last lowered, or sent within a second of it, met the server as the old rate had
// left it and lowers nothing further.
func (p *pace) overloaded(sent time.Time, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.held = later(p.held, now.Add(pause))
	p.raised = later(p.raised, p.held)
	if sent.Before(p.slowed.Add(time.Second)) {
		return
	}
	p.slowed = now
	lower := max(min(p.allowed, p.ceiling())/2, min(slowest, p.most))
	if lower < p.allowed {
		p.slowdowns.Inc()
		p.set(lower)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// width is how many requests at a time the present rate can use at the latency
// seen, and one that waits for its turn; at most that many.
func (p *pace) width(most int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(min(float64(p.allowed)*p.latency.Seconds()+2, float64(most)))
}
