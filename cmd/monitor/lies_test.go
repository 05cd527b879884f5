package main

import (
	"bytes"
	"fmt"
	"testing"

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

// A replica that is behind is no lie.
func TestStaleReplica(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	for i := range 5 {
		w.release(fmt.Sprintf("1.%d", i), sampleRepo)
	}
	w.once(exitFine)
	w.lab.V2.Stale(5)
	w.once(exitFine)
	if n := len(w.got()); n != 0 {
		t.Errorf("%d alerts for a stale replica", n)
	}
}
