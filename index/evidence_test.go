package index

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

// What accuses a log comes back with all that evidence needs; what only says that
// something is missing is not among it.
func TestContradictionsComeBack(t *testing.T) {
	s := openTest(t, Options{})
	log := testLog
	log.Key, log.URL = "log.example+01020304+AQ==", "https://log.example/api/v2/"
	tr := &tree{log: log}
	tr.batch(t, []byte("a"))
	ours := headAt(t, log, tr.pos)
	theirs := headAt(t, log, (&tree{log: log}).batch(t, []byte("x")).To)
	for _, h := range []*monitor.Head{&ours, &theirs} {
		h.Note = []byte(h.Text + "\n— log.example AAAAAAAA\n")
	}
	theirs.Seen, theirs.Source = storeEpoch.Add(time.Hour), "provenance of sampleproject"
	equivocation := monitor.Contradiction{Kind: monitor.Equivocation, Log: log, Ours: ours, Theirs: theirs, Subject: "1", Detail: "two roots", At: storeEpoch.Add(2 * time.Hour)}
	leaf := monitor.Contradiction{Kind: monitor.Inconsistent, Log: log, Ours: ours, Theirs: ours, Subject: "leaf 0", Detail: "not in it", At: storeEpoch,
		Proof: []monitor.Hash{{5}, {6}}, Claim: &monitor.Claim{What: monitor.ClaimLeaf, At: 1 << 63, Hash: monitor.Hash{7}}}
	missing := monitor.Contradiction{Kind: monitor.ClosedChanged, Log: log, Ours: ours, Subject: "missing", Detail: "not listed", At: storeEpoch}
	stalled := monitor.Contradiction{Kind: monitor.Stalled, Log: log, Ours: ours, Subject: "size 1", Detail: "no more", At: storeEpoch}
	all := []monitor.Contradiction{equivocation, stalled, leaf, missing}
	for _, c := range all {
		ok(t, s.Contradict(t.Context(), c))
	}
	// A head that proves true later does not change what was seen when.
	later := theirs
	later.Source, later.Seen = "", storeEpoch.Add(24*time.Hour)
	ok(t, s.SaveHead(t.Context(), log, later, monitor.Head{}))

	var got []monitor.Contradiction
	var ids []int64
	ok(t, s.Contradictions(t.Context(), func(id int64, c monitor.Contradiction) error {
		ids, got = append(ids, id), append(got, c)
		return nil
	}))
	want := []monitor.Contradiction{equivocation, leaf, missing}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for i, id := range ids {
		if c, err := s.Contradiction(t.Context(), id); err != nil || cmp.Diff(want[i], c) != "" {
			t.Errorf("contradiction %d: %v %s", id, err, cmp.Diff(want[i], c))
		}
	}
	if _, err := s.Contradiction(t.Context(), 99); !errors.Is(err, ErrNoContradiction) {
		t.Errorf("an id that is none: %v", err)
	}
	stop := errors.New("stop")
	if err := s.Contradictions(t.Context(), func(int64, monitor.Contradiction) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
}
