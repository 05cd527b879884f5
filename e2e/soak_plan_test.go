package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// An act is one thing that happens in a soak, at its time from the beginning.
type act struct {
	at   time.Duration
	name string
	do   func()
}

// plan lays out every kind of act over the time there is. Each occurs at least
// once, however short that is.
//
// What ends the monitor is kept to the first third and the very end: memory that
// grows for long shows in a process that lives for long.
func (s *soak) plan() []act {
	r := rand.New(rand.NewPCG(s.seed, 1))
	var acts []act
	spread := func(name string, least int, every time.Duration, when func(float64) float64, do func(i int)) {
		n := max(least, int(s.length/every))
		for i := range n {
			at := when((float64(i) + r.Float64()) / float64(n))
			acts = append(acts, act{time.Duration(at * float64(s.length)), name, func() { do(i) }})
		}
	}
	throughout := func(x float64) float64 { return 0.02 + 0.96*x }
	edges := func(x float64) float64 {
		if x *= 0.36; x < 0.30 {
			return 0.03 + x
		}
		return 0.92 + (x - 0.30)
	}

	spread("release", 10, 20*time.Second, throughout, func(int) { s.release(false) })
	spread("foreign signature", 5, 90*time.Second, throughout, func(int) { s.release(true) })

	spread("v1 restart", 1, 8*time.Minute, throughout, func(int) { s.v1.Restart(s.t) })
	spread("v1 crash", 1, 10*time.Minute, throughout, func(int) { s.v1.Crash(s.t) })
	spread("v1 rotation", 1, 12*time.Minute, throughout, func(int) { s.rotate() })

	spread("v2 restart", 2, 6*time.Minute, throughout, func(i int) { (*s.tiles(i)).Restart(s.t) })
	spread("v2 crash", 2, 6*time.Minute, throughout, func(i int) { (*s.tiles(i)).Crash(s.t) })
	spread("v2 roll-over", s.rollOvers(), time.Hour, throughout, s.rollOver)

	spread("monitor kill -9", 3, 5*time.Minute, edges, func(i int) { s.kill(i%2 == 0) })
	spread("monitor stop", 1, 15*time.Minute, edges, func(int) { s.stop(); s.begin() })

	spread("fault", len(faults), 75*time.Second, throughout, func(i int) { s.spoil(faults[i%len(faults)], r) })

	slices.SortStableFunc(acts, func(a, b act) int { return int(a.at - b.at) })
	return acts
}

// show prints the plan, so that a run can be understood and repeated.
func (s *soak) show(acts []act) {
	s.t.Logf("seed %d, %d acts in %s:", s.seed, len(acts), s.length)
	for _, a := range acts {
		s.t.Logf("  %8s  %s", a.at.Round(time.Second), a.name)
	}
}

// play does each act when its time has come, or as soon as the one before is done.
func (s *soak) play(acts []act) {
	for _, a := range acts {
		if !s.wait(time.Until(s.start.Add(a.at))) {
			return
		}
		if s.monitor().Ended() {
			s.t.Fatalf("monitor has ended by itself before %s:\n%s", a.name, s.monitor().Output())
		}
		began := time.Now()
		a.do()
		s.done[a.name]++
		s.t.Logf("%8s  %s (took %s)", time.Since(s.start).Round(time.Second), a.name, time.Since(began).Round(10*time.Millisecond))
	}
	s.wait(time.Until(s.start.Add(s.length)))
}

// wait sleeps, and says whether the test goes on.
func (s *soak) wait(d time.Duration) bool {
	select {
	case <-time.After(max(0, d)):
		return true
	case <-s.t.Context().Done():
		return false
	}
}

// spoil puts a fault on one way, on some or on all, for some seconds.
func (s *soak) spoil(f fault, r *rand.Rand) {
	ways := s.allWays()
	if r.IntN(3) > 0 {
		r.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
		ways = ways[:1+r.IntN(len(ways))]
	}
	names := ""
	for _, w := range ways {
		if f == faultPage && w.name == "webhook" {
			continue // to a sender, 200 means delivered, whatever the page says
		}
		w.set(f)
		names += " " + w.name
	}
	s.t.Logf("          %s on%s", f, names)
	time.AfterFunc(time.Duration(4+r.IntN(10))*time.Second, func() {
		for _, w := range ways {
			w.set(faultNone)
		}
	})
	s.done[fmt.Sprintf("fault %s", f)]++
}
