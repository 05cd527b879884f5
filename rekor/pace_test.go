package rekor

import (
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

func testPace(start, most rate.Limit) *pace {
	return newPace(start, most, prometheus.NewGauge(prometheus.GaugeOpts{Name: "limit"}), prometheus.NewCounter(prometheus.CounterOpts{Name: "slowdowns"}))
}

// valueOf is the value of a gauge or counter without labels.
func valueOf(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	m := families[0].GetMetric()[0]
	return m.GetGauge().GetValue() + m.GetCounter().GetValue() // one of them is nil, hence 0
}

// starts are the times, from now on, at which n requests that come at once get
// their turn.
func starts(t *testing.T, p *pace, n int) []time.Duration {
	t.Helper()
	began := time.Now()
	var mu sync.Mutex
	var out []time.Duration
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := p.wait(t.Context()); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, time.Since(began))
		})
	}
	all.Wait()
	slices.Sort(out)
	return out
}

func TestPaceHalvesOncePerRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPace(5, 5)
		sent := time.Now()
		time.Sleep(100 * time.Millisecond)
		for range 4 { // four under way at once
			p.overloaded(sent, 0)
		}
		if p.allowed != 2.5 || valueOf(t, p.slowdowns) != 1 || valueOf(t, p.gauge) != 2.5 {
			t.Fatalf("after four complaints at once: %v, %v slow-downs, gauge %v", p.allowed, valueOf(t, p.slowdowns), valueOf(t, p.gauge))
		}
		time.Sleep(900 * time.Millisecond)
		p.overloaded(time.Now(), 0)
		if p.allowed != 2.5 {
			t.Errorf("lowered to %v within a second", p.allowed)
		}
		time.Sleep(100 * time.Millisecond)
		p.overloaded(time.Now(), 0)
		if p.allowed != 1.25 {
			t.Errorf("%v after the second slow-down, want 1.25", p.allowed)
		}
		for range 10 {
			time.Sleep(time.Second)
			p.overloaded(time.Now(), 0)
		}
		if p.allowed != slowest || valueOf(t, p.slowdowns) != 5 {
			t.Errorf("%v after %v slow-downs, want %v after 5", p.allowed, valueOf(t, p.slowdowns), slowest)
		}
	})
}

func TestPaceClimbsToTheCap(t *testing.T) {
	for name, c := range map[string]struct {
		start, most rate.Limit
		complain    bool
		after       rate.Limit // a minute of quiet
		full        time.Duration
	}{
		"public":           {5, 5, true, 2.5 + 1, 150 * time.Second},
		"from a low start": {5, 20, false, 5 + 4, 225 * time.Second},
		"no limit":         {rate.Inf, rate.Inf, true, 50 + 20, 150 * time.Second},
		"below the floor":  {0.1, 0.1, true, 0.1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := testPace(c.start, c.most)
				began := time.Now()
				if c.complain {
					p.overloaded(time.Now(), 0)
				}
				for range 60 {
					time.Sleep(time.Second)
					p.answered(100 * time.Millisecond)
				}
				if math.Abs(float64(p.allowed-c.after)) > 1e-6 {
					t.Errorf("%v after a minute, want %v", p.allowed, c.after)
				}
				for p.allowed != c.most {
					time.Sleep(time.Second)
					p.answered(100 * time.Millisecond)
					if p.allowed > c.most {
						t.Fatalf("%v is above the cap", p.allowed)
					}
				}
				if took := time.Since(began); c.full > 0 && (took < c.full || took > c.full+time.Second) {
					t.Errorf("at the cap after %v, want %v", took, c.full)
				}
			})
		})
	}
}

// A night without requests is no sign that the server puts up with more.
func TestPaceCreditIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPace(5, 5)
		p.overloaded(time.Now(), 0)
		time.Sleep(8 * time.Hour)
		p.answered(time.Millisecond)
		if p.allowed != 3.5 {
			t.Errorf("%v after a night and one success, want 3.5", p.allowed)
		}
	})
}

func TestPaceSpreadsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPace(5, 5)
		// A second's worth at once, then five a second.
		if got := starts(t, p, 15); got[4] != 0 || got[14] != 2*time.Second {
			t.Errorf("started at %v", got)
		}
		p.overloaded(time.Now(), 0)
		time.Sleep(time.Minute)
		if got := starts(t, p, 6); got[0] != 0 || got[1] != 400*time.Millisecond || got[5] != 2*time.Second {
			t.Errorf("after a slow-down started at %v", got)
		}
	})
}

// A pause that the server asks for holds everybody, those already waiting for
// their turn included, and is followed by the lowered rate.
func TestPaceHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPace(5, 5)
		starts(t, p, 5)
		time.AfterFunc(100*time.Millisecond, func() { p.overloaded(time.Now(), 30*time.Second) })
		time.AfterFunc(200*time.Millisecond, func() { p.overloaded(time.Now(), 10*time.Second) }) // no earlier end
		hold := 30100 * time.Millisecond
		got := starts(t, p, 6)
		if got[0] != hold || got[5] != hold+2*time.Second {
			t.Errorf("held until %v, started at %v", hold, got)
		}
		p.answered(time.Millisecond)
		if p.allowed < 2.5 || p.allowed > 2.6 {
			t.Errorf("%v right after the pause: it counts as quiet", p.allowed)
		}
	})
}

func TestPaceWithoutLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPace(rate.Inf, rate.Inf)
		if got := starts(t, p, 1000); got[999] != 0 {
			t.Errorf("the last of 1000 started after %v", got[999])
		}
		if got := valueOf(t, p.gauge); !math.IsInf(got, 1) {
			t.Errorf("the gauge says %v without a limit", got)
		}
		p.overloaded(time.Now(), 0)
		if got := starts(t, p, 101); p.allowed != 50 || got[100] != 2*time.Second {
			t.Errorf("after a complaint: %v a second, the last of 101 started after %v", p.allowed, got[100])
		}
		for p.allowed != rate.Inf {
			time.Sleep(time.Second)
			p.answered(time.Millisecond)
		}
		if got := starts(t, p, 1000); got[999] != 0 {
			t.Errorf("without limit again: the last of 1000 started after %v", got[999])
		}
		// Down again: the way back from no limit must not lose count.
		p.overloaded(time.Now(), 0)
		if got := starts(t, p, 51); got[50] != time.Second {
			t.Errorf("after another complaint: the last of 51 started after %v", got[50])
		}
	})
}

func TestPaceWidth(t *testing.T) {
	for _, c := range []struct {
		limit   rate.Limit
		latency time.Duration
		want    int
	}{
		{5, 500 * time.Millisecond, 4}, // three under way, one waiting
		{5, 3 * time.Second, 16},
		{5, 20 * time.Millisecond, 2},
		{0.2, time.Second, 2},
		{100, 50 * time.Millisecond, 7},
		{rate.Inf, 50 * time.Millisecond, 16},
	} {
		p := testPace(c.limit, c.limit)
		for range 100 {
			p.answered(c.latency)
		}
		if got := p.width(16); got != c.want {
			t.Errorf("%v a second at %v: %d at a time, want %d", c.limit, c.latency, got, c.want)
		}
	}
	if got := testPace(5, 5).width(16); got != 4 {
		t.Errorf("before the first answer: %d at a time, want 4", got)
	}
}
