package main

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

// lies are what a log can do, to its active v1 shard and to v2 alike.
type liar interface {
	FlipLeaf(uint64)
	ForkAt(uint64)
	ServeInconsistent()
	ShrinkTo(uint64)
	SignWithOtherKey()
	Honest()
	Size() uint64
}

// Whatever a log does: nothing of it is indexed, the position stays, both heads
// are kept, one critical alert goes out, --once exits 4, the other log goes on.
func TestLyingLog(t *testing.T) {
	t.Parallel()
	lies := []struct {
		name, rule string
		lie        func(liar)
	}{
		{"changed leaf", monitor.Inconsistent, func(l liar) { l.FlipLeaf(l.Size() - 1) }},
		{"same size, other root", monitor.Equivocation, func(l liar) { l.ForkAt(2) }},
		{"not consistent", monitor.Inconsistent, func(l liar) { l.ServeInconsistent() }},
		{"shrunk", monitor.Inconsistent, func(l liar) { l.ShrinkTo(3) }},
		{"other key", monitor.KeyChanged, func(l liar) { l.SignWithOtherKey() }},
	}
	for _, api := range []monitor.API{monitor.V1, monitor.V2} {
		for _, lie := range lies {
			rule := lie.rule
			if api == monitor.V1 && lie.name == "shrunk" {
				// The provenance objects brought the honest head of size 3.
				rule = monitor.Equivocation
			}
			t.Run(fmt.Sprint(api, " ", lie.name), func(t *testing.T) { testLie(t, api, rule, lie.lie) })
		}
	}
}

func testLie(t *testing.T, api monitor.API, rule string, lie func(liar)) {
	w := newWorld(t, "follow: tail, start: 0")
	for i := range 5 {
		w.release(fmt.Sprintf("1.%d", i), sampleRepo)
	}
	w.once(exitFine)
	before := w.statuses()

	bad, log := liar(w.lab.V1.Active()), lab.V1Host
	if api == monitor.V2 {
		bad, log = w.lab.V2, lab.V2Origin
	}
	if rule == monitor.Inconsistent && lieIsAboutLeaves(t.Name()) {
		// The leaf has to be one that is still to be read.
		w.sign("other-1.0.tar.gz", sampleRepo)
		s := must(w.lab.CA.SignPublish(sampleRepo, "other-1.0.tar.gz", lab.Digest("other"), w.lab.Now()))
		w.lab.V2.Log(s)
	}
	lie(bad)
	w.once(exitConvicts)
	w.once(exitConvicts)

	got := w.got()
	if len(got) != 1 || got[0].Rule != rule || got[0].Severity != "critical" || got[0].Heads == nil {
		t.Fatalf("received %+v, want one %s", got, rule)
	}
	if len(got[0].Heads.Ours) == 0 || len(got[0].Heads.Theirs) == 0 {
		t.Errorf("heads in evidence: %+v, want both", got[0].Heads)
	}
	after := w.statuses()
	for origin, s := range after {
		if isOf(origin, log) {
			if *s.Next != *before[origin].Next || !s.Conflict {
				t.Errorf("%s: position %d, before %d; contradiction on record: %t", origin, *s.Next, *before[origin].Next, s.Conflict)
			}
			continue
		}
		if s.Conflict {
			t.Errorf("%s: on record as contradicting itself", origin)
		}
	}

	// The other log goes on while this one lies, and this one when it is honest.
	w.release("2.0", sampleRepo)
	w.once(exitConvicts)
	grown := false
	for origin, s := range w.statuses() {
		grown = grown || !isOf(origin, log) && *s.Next > *after[origin].Next
	}
	if !grown {
		t.Error("the other log did not go on")
	}
	bad.Honest()
	w.once(exitFine)
	for origin, s := range w.statuses() {
		if *s.Next != s.Head.Size {
			t.Errorf("%s: position %d of %d after the log became honest", origin, *s.Next, s.Head.Size)
		}
	}
}

func lieIsAboutLeaves(name string) bool { return bytes.Contains([]byte(name), []byte("changed_leaf")) }

func isOf(origin, host string) bool {
	return origin == host || bytes.HasPrefix([]byte(origin), []byte(host+" - "))
}

type status struct {
	Next     *uint64
	Head     monitor.Head
	Conflict bool
}

func (w *world) statuses() map[string]status {
	w.Helper()
	s := w.store()
	defer s.Close()
	out := make(map[string]status)
	for _, l := range must(s.LogStatuses(w.Context())) {
		out[l.Log.Origin] = status{l.Next, l.Head, l.Conflict}
	}
	return out
}

type staler interface {
	liar
	Stale(uint64)
}

// A smaller head of another history, shown for a moment, is found out by the first
// answer that can tell.
func TestForkForAMoment(t *testing.T) {
	for _, api := range []monitor.API{monitor.V1, monitor.V2} {
		t.Run(string(api), func(t *testing.T) {
			w := newWorld(t, "follow: tail, start: 0")
			log := liar(w.lab.V2)
			if api == monitor.V1 {
				log = w.lab.V1.Active()
			}
			for n := range 5 {
				must(w.lab.V1.LogLeaf(noise(n)))
				w.lab.V2.LogLeaf(noise(n))
			}
			w.once(exitFine)
			d, _ := w.clocked()
			d.keeper.Grace, d.keeper.Patience = replicaGrace, time.Millisecond
			round := func() (err error) {
				for _, f := range d.followers {
					err = errors.Join(err, f.Once(t.Context()))
				}
				return err
			}
			log.ShrinkTo(3)
			contradiction := (*monitor.Contradiction)(nil)
			if err := round(); err == nil || errors.As(err, &contradiction) {
				t.Fatalf("a head that cannot be proven: %v", err)
			}
			log.Honest()
			if err := round(); !errors.As(err, &contradiction) || contradiction.Kind != monitor.Inconsistent || contradiction.Theirs.Size != 3 {
				t.Fatalf("the proof of it: %v", err)
			}
			if err := round(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// A replica that is behind is no lie, although it cannot prove so: unless the log
// has nothing else to show for a long time.
func TestStaleReplica(t *testing.T) {
	for _, api := range []monitor.API{monitor.V1, monitor.V2} {
		t.Run(string(api), func(t *testing.T) {
			w := newWorld(t, "follow: tail, start: 0")
			for n := range 5 { // of which no provenance shows a head
				must(w.lab.V1.LogLeaf(noise(n)))
				w.lab.V2.LogLeaf(noise(n))
			}
			w.once(exitFine)
			d, clock := w.clocked()
			d.keeper.Grace, d.keeper.Patience = replicaGrace, time.Millisecond
			log := staler(w.lab.V2)
			if api == monitor.V1 {
				log = w.lab.V1.Active()
			}
			for i, step := range []struct {
				after time.Duration
				size  uint64 // 0: all of it
				want  int    // contradictions on record
			}{
				{0, 3, 0},
				{10 * time.Minute, 4, 0},
				{4 * time.Minute, 0, 0}, // another replica: the wait begins anew
				{2 * time.Minute, 3, 0}, // 16 minutes after the first time
				{14 * time.Minute, 2, 0},
				{2 * time.Minute, 3, 1},
				{time.Minute, 0, 1},
			} {
				log.Honest()
				if step.size > 0 {
					log.Stale(step.size)
				}
				clock(step.after)
				for _, f := range d.followers {
					contradiction := (*monitor.Contradiction)(nil)
					if err := f.Once(t.Context()); errors.As(err, &contradiction) && step.want == 0 || err != nil && step.size == 0 {
						t.Errorf("step %d: %v", i, err)
					}
				}
				must(d.judge.Once(t.Context()))
				if n := len(must(d.store.Alerts(t.Context(), "", ""))); n != step.want {
					t.Fatalf("step %d: %d alerts, want %d", i, n, step.want)
				}
			}
		})
	}
}
