package alerts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
	"sigtrail/monitor"
)

func expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("raised: %s", diff)
	}
}

// The story of the demo: an attested history, another signer, an upload by token.
func TestCompromise(t *testing.T) {
	w := newWorld(t)
	ours, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	history := w.publish(attested(aFile("1.0")), attested(aFile("1.1")))
	hashes := w.log(ours.attest(t, history[0]), ours.attest(t, history[1]))
	w.named(history[0], 0, hashes[0])
	w.named(history[1], 1, hashes[1])
	expect(t, w.raised(nil))
	w.release(ours, "1.2")
	expect(t, w.raised(nil))
	w.log(thief.attest(t, history[0]))
	expect(t, w.raised(nil), "unexpected-signer 1.0")
	w.log(thief.attest(t, history[0]))
	expect(t, w.raised(nil)) // once for a release and a publisher
	w.release(thief, "1.3")
	expect(t, w.raised(nil), "unexpected-signer 1.3")
	w.publish(aFile("1.4"))
	expect(t, w.raised(nil), "provenance-lost 1.4")
	for _, a := range w.bodies() {
		if a.Schema != Schema || a.Next == "" || a.Severity == "" || a.Raised.IsZero() || !strings.HasPrefix(a.ID, "sa_") {
			t.Errorf("incomplete: %+v", a)
		}
	}
	due, err := w.store.DueDeliveries(t.Context(), "terminal", w.clock(), 10)
	check(t, err)
	if len(due) != 3 {
		t.Errorf("%d deliveries due, want 3", len(due))
	}
}

// An entry that was logged before PyPI shows its file is judged with the file.
func TestSignedBeforeUpload(t *testing.T) {
	w := newWorld(t)
	ours, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	w.release(ours, "1.0")
	expect(t, w.raised(nil))
	early := thief.attest(t, aFile("1.1"))
	w.log(early)
	expect(t, w.raised(nil))
	w.publish(aFile("1.1"))
	expect(t, w.raised(nil), "provenance-lost 1.1")
	wants, err := w.store.Wanted(t.Context(), testLog.Origin, 10)
	check(t, err)
	if len(wants) != 1 || wants[0].Index != 1 {
		t.Fatalf("wanted %+v", wants)
	}
	root, err := w.pos.Root()
	check(t, err)
	check(t, w.store.CommitFound(t.Context(), monitor.Proven{Log: testLog, Leaf: monitor.Leaf{Index: 1, Data: early}, Hash: monitor.HashLeaf(early),
		Head: monitor.Head{Origin: testLog.Origin, Size: w.pos.Next, Root: root, Text: "t", Note: []byte("t"), Seen: epoch}, Proof: []monitor.Hash{{9}}}, 0))
	expect(t, w.raised(nil), "unexpected-signer 1.1")
}

// The whole attested history of the first listing is learned before the first
// alert, whatever order its entries come in.
func TestHistoryIsLearnedFirst(t *testing.T) {
	w := newWorld(t)
	old, ours, thief := newSigning(t, "o/old"), newSigning(t, "o/r"), newSigning(t, "evil/r")
	files := w.publish(attested(aFile("1.0")), attested(aFile("1.1")))
	hashes := w.log(thief.attest(t, files[0]), old.attest(t, files[0]), ours.attest(t, files[1]))
	w.named(files[0], 1, hashes[1])
	w.named(files[1], 2, hashes[2])
	expect(t, w.raised(nil), "unexpected-signer 1.0")
	a := w.bodies()[0]
	if a.Seen.Repository != "https://github.com/evil/r" || len(a.Expected) != 2 {
		t.Errorf("%+v", a)
	}
	w.release(newSigning(t, "o/third"), "1.2")
	expect(t, w.raised(nil), "unexpected-signer 1.2")
}

func TestNoBaseline(t *testing.T) {
	w := newWorld(t)
	f := w.publish(aFile("1.0"))[0]
	w.log(newSigning(t, "evil/r").attest(t, f))
	w.publish(aFile("1.1"))
	expect(t, w.raised(nil))
}

// The policy needs no history, and wins over what was learned.
func TestPolicyWins(t *testing.T) {
	w := newWorld(t)
	ours, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	p := policy(t, "projects:\n  P:\n    attestations: required\n    publishers:\n      - {repository: github.com/o/r, workflow: release.yml}\n")
	f := w.publish(attested(aFile("1.0")))[0]
	w.log(ours.attest(t, f), thief.attest(t, f))
	expect(t, w.raised(p), "unexpected-signer 1.0") // PyPI's provenance has not been read yet
	a := w.bodies()[0]
	expect(t, a.Expected, "github.com/o/r release.yml (policy)")
	w.publish(aFile("1.1"))
	expect(t, w.raised(p), "provenance-lost 1.1")
}

func TestUntrustedCertificate(t *testing.T) {
	w := newWorld(t, "evil/r")
	ours := newSigning(t, "o/r")
	f := w.release(ours, "1.0")
	expect(t, w.raised(nil))
	w.log(newSigning(t, "evil/r").attest(t, f), newSigning(t, "evil/r").attest(t, f))
	expect(t, w.raised(nil), "untrusted-certificate 1.0")
	a := w.bodies()[0]
	if a.Severity != Low || a.Times[0].Clock != "certificate, not trusted" || !strings.Contains(a.Reason, "signed by an unknown authority") {
		t.Errorf("%+v", a)
	}
}

// The same facts give the same alerts in another database.
func TestDeterministic(t *testing.T) {
	ours, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	play := func() []Alert {
		w := newWorld(t)
		f := w.release(ours, "1.0")
		w.log(thief.attest(t, f))
		w.publish(aFile("1.1"))
		expect(t, w.raised(nil), "provenance-lost 1.1", "unexpected-signer 1.0")
		alerts := w.bodies()
		for i := range alerts {
			alerts[i].Raised = epoch
			alerts[i].Times = nil
		}
		return alerts
	}
	if diff := cmp.Diff(play(), play()); diff != "" {
		t.Error(diff)
	}
}

func TestJudgeContradiction(t *testing.T) {
	w := newWorld(t)
	c := monitor.Contradiction{Kind: monitor.Equivocation, Log: testLog, Subject: "1", Detail: "two roots", At: epoch, Theirs: monitor.Head{Note: []byte("theirs")}}
	check(t, w.store.Contradict(t.Context(), c))
	expect(t, w.raised(nil), "log-equivocation")
	c.Theirs.Note = []byte("theirs, grown")
	check(t, w.store.Contradict(t.Context(), c))
	expect(t, w.raised(nil))
}

// stubborn fails on some files.
type stubborn struct {
	*index.Store
	fails func(index.Case) bool
	asked int
}

func (s *stubborn) Decide(ctx context.Context, c index.Case, v index.Verdict) ([]index.Alert, error) {
	s.asked++
	if s.fails(c) {
		return nil, errors.New("disk full")
	}
	return s.Store.Decide(ctx, c, v)
}

// One case that fails holds up no other, and is judged when it can be.
func TestJudgeGoesOn(t *testing.T) {
	w := newWorld(t)
	w.release(newSigning(t, "o/r"), "1.0")
	expect(t, w.raised(nil))
	w.publish(aFile("1.1"), aFile("1.2"), aFile("1.3"))
	j := w.judge(nil)
	s := &stubborn{Store: w.store, fails: func(c index.Case) bool { return c.File.Version == "1.1" }}
	j.Store = s
	raised, err := j.Once(t.Context())
	if len(raised) != 2 || err == nil || err.Error() != "1 case(s) could not be judged: writing the verdict on file p-1.1.tar.gz: disk full" {
		t.Errorf("raised %d, %v", len(raised), err)
	}
	if s.asked != 4 {
		t.Errorf("%d verdicts, want 4: a pass over three, one over the rest", s.asked)
	}
	s.fails = func(index.Case) bool { return false }
	if raised, err = j.Once(t.Context()); len(raised) != 1 || err != nil {
		t.Errorf("then raised %d, %v", len(raised), err)
	}
	expect(t, counted(t, j.Metrics.findings),
		"rule=closed-shard-changed severity=high 0",
		"rule=coverage-gap severity=medium 0",
		"rule=log-equivocation severity=critical 0",
		"rule=log-inconsistent severity=critical 0",
		"rule=log-key-changed severity=critical 0",
		"rule=log-stalled severity=medium 0",
		"rule=provenance-invalid severity=high 0",
		"rule=provenance-lost severity=high 3",
		"rule=provenance-not-in-log severity=critical 0",
		"rule=unexpected-signer severity=critical 0",
		"rule=untrusted-certificate severity=low 0")
}

// counted lists the series of a counter and their values.
func counted(t testing.TB, c prometheus.Collector) []string {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	check(t, err)
	var series []string
	for _, family := range families {
		for _, m := range family.GetMetric() {
			s := ""
			for _, l := range m.GetLabel() {
				s += l.GetName() + "=" + l.GetValue() + " "
			}
			series = append(series, s+fmt.Sprint(m.GetCounter().GetValue()))
		}
	}
	return series
}

func TestJudgeCancelled(t *testing.T) {
	w := newWorld(t)
	w.publish(aFile("1.0"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.judge(nil).Once(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
