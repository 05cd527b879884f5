package alerts

import (
	"strings"
	"testing"

	"sigtrail/index"
	"sigtrail/monitor"
)

// Each condition is told once for a release, whatever else fails; what is unknown or
// holds is no finding, and what does not hold teaches nothing.
func TestProvenanceInvalid(t *testing.T) {
	w := newWorld(t)
	files := w.publish(attested(aFile("1.0")), attested(aFile("1.1")))
	leaf := w.log(newSigning(t, "o/r").attest(t, files[0]))[0]
	w.named(files[0], 0, leaf)
	w.verified(files[0], index.AttestationVerdict{State: index.AttestationInvalid, Failed: "subject-name", Error: "of another", Leaves: []monitor.Hash{leaf},
		Publisher: `{"kind":"GitHub","repository":"o/r","workflow":"release.yml"}`},
		index.AttestationVerdict{State: index.AttestationInvalid, Failed: "set", Publisher: "[]"}, index.AttestationVerdict{State: index.AttestationInvalid, Failed: "set"},
		index.AttestationVerdict{State: index.AttestationUnknown, Failed: "publisher-kind"}, index.AttestationVerdict{State: index.AttestationHolds})
	w.named(files[1], 5, monitor.Hash{1})
	expect(t, w.raised(nil), "provenance-invalid 1.0", "provenance-invalid 1.0")
	w.verified(files[0], index.AttestationVerdict{State: index.AttestationInvalid, Failed: "set"})
	expect(t, w.raised(nil))
	for _, a := range w.bodies() {
		if a.Severity != High || a.Files[0].Name != files[0].Name || a.Condition == "" || len(a.Times) == 0 {
			t.Errorf("%+v", a)
		}
		want := "by GitHub o/r release.yml that does not hold: subject-name: it is not so that its statement is about this file (of another; trusted root 00ff)"
		if a.Condition == "subject-name" && !strings.Contains(a.Reason, want) {
			t.Errorf("reason %q", a.Reason)
		}
	}
	if pins, err := w.store.Pins(t.Context(), "", "p"); err != nil || len(pins) != 0 {
		t.Errorf("pins %+v, %v", pins, err)
	}
}

// A place that was read is what counts, and it is told once for a release and log.
func TestProvenanceNotInLog(t *testing.T) {
	w := newWorld(t)
	files := w.publish(attested(aFile("1.0")), attested(aFile("1.1")))
	for i, f := range files {
		w.named(f, uint64(i), monitor.Hash{7})
	}
	settled := func(want int) {
		t.Helper()
		if n, err := w.store.SettleLeaves(t.Context(), w.now); n != want || err != nil {
			t.Errorf("%d missing, want %d; %v", n, want, err)
		}
	}
	settled(0)
	expect(t, w.raised(nil))
	w.log([]byte(`{"kind":"other"}`))
	settled(1)
	expect(t, w.raised(nil), "provenance-not-in-log 1.0")
	settled(0)
	expect(t, w.raised(nil))
	a := w.bodies()[0]
	if a.Severity != Critical || a.Log == nil || *a.Log.Index != 0 || *a.Log.Global != 0 || a.Log.Origin != testLog.Origin || a.Files[0].Name != files[0].Name {
		t.Errorf("%+v", a)
	}
}
