package alerts

import (
	"strings"
	"testing"
	"time"

	"sigtrail/index"
	"sigtrail/monitor"
)

// A sideshow is another package index beside a world's PyPI.
type sideshow struct {
	*world
	c      *index.Catalogue
	listed []index.File
}

func (w *world) beside(name string) *sideshow {
	w.t.Helper()
	c, err := w.store.Catalogue(w.t.Context(), name, "https://"+name+".example")
	check(w.t, err)
	return &sideshow{world: w, c: c}
}

func (s *sideshow) publish(files ...index.File) []index.File {
	s.t.Helper()
	s.listed = append(s.listed, files...)
	fresh, err := s.c.SaveListing(s.t.Context(), index.Listing{Project: "p", Files: s.listed, Fetched: s.now})
	check(s.t, err)
	return fresh
}

func (s *sideshow) named(f index.File, idx uint64, leaf monitor.Hash) {
	s.t.Helper()
	check(s.t, s.c.SaveProvenance(s.t.Context(), f.ID, index.Provenance{State: index.ProvenancePresent, Body: []byte("{}"), Fetched: s.now,
		Leaves: []index.ProvenanceLeaf{{KeyID: testLog.KeyID, Global: idx, Hash: leaf}}}))
	s.verified(f, index.AttestationVerdict{State: index.AttestationHolds, Leaves: []monitor.Hash{leaf}})
}

// release signs a file, publishes it attested, and returns the place of the entry.
func (s *sideshow) release(by signing, version string) (index.File, uint64, monitor.Hash) {
	s.t.Helper()
	f := s.publish(attested(aFile(version)))[0]
	at := s.pos.Next
	leaf := s.log(by.attest(s.t, f))[0]
	s.named(f, at, leaf)
	return f, at, leaf
}

// titles are the alerts on record by their titles.
func (w *world) titles() string {
	var all []string
	for _, a := range w.bodies() {
		all = append(all, a.Title)
	}
	return strings.Join(all, "\n")
}

// What happens on another index is told as that index's, once, under an id of its own.
func TestFindingsOfAnotherIndex(t *testing.T) {
	w := newWorld(t)
	test := w.beside("testpypi")
	ours, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	w.release(ours, "1.0")
	test.release(ours, "2.0")
	expect(t, w.raised(nil))
	w.release(thief, "3.0")
	test.release(thief, "3.1")
	test.publish(aFile("3.2"))
	expect(t, w.raised(nil), "unexpected-signer 3.0", "unexpected-signer 3.1", "provenance-lost 3.2")
	for _, a := range w.bodies() {
		if want := map[string]string{"3.0": "", "3.1": "testpypi", "3.2": "testpypi"}[a.Version]; a.Index != want || a.Project != "p" || strings.HasPrefix(a.Title, "testpypi: p") != (want != "") {
			t.Errorf("alert of index %q: %q", a.Index, a.Title)
		}
		if clock := a.Times[len(a.Times)-1].Clock; a.Version == "3.1" && clock != "testpypi" {
			t.Errorf("uploaded by the clock of %q", clock)
		}
	}
	if pins, err := w.store.Pins(t.Context(), "testpypi", "p"); err != nil || len(pins) != 1 || pins[0].Index != "testpypi" {
		t.Errorf("pins %+v, %v", pins, err)
	}
	stored, err := w.store.Alerts(t.Context(), "testpypi", "p")
	check(t, err)
	if len(stored) != 2 {
		t.Errorf("%d alerts are stored as TestPyPI's, want 2", len(stored))
	}
}

// The same finding about one version on two indexes is two.
func TestOneVersionOnTwoIndexes(t *testing.T) {
	w := newWorld(t)
	test := w.beside("testpypi")
	required := "projects:\n  p: {attestations: required}\n  testpypi/p: {attestations: required}\n"
	p, err := parsePolicy("policy.yaml", []byte(required), "testpypi")
	check(t, err)
	w.publish() // the first listing is history
	test.publish()
	w.publish(aFile("1.0"))
	test.publish(aFile("1.0"))
	expect(t, w.raised(p), "provenance-lost 1.0", "provenance-lost 1.0")
	expect(t, w.raised(p))
	if titles := w.titles(); !strings.Contains(titles, "testpypi: p 1.0") || !strings.Contains(titles, "\np 1.0") && !strings.HasPrefix(titles, "p 1.0") {
		t.Errorf("titles:\n%s", titles)
	}
}

// A release that goes to TestPyPI first is signed there by another workflow. The entry
// is about PyPI's file as well, byte for byte, and is no unexpected signer of it; it
// is one as soon as PyPI itself shows it, or as nobody does.
func TestReleaseOnTwoIndexes(t *testing.T) {
	ours, rehearsal, thief := newSigning(t, "o/r"), newSigning(t, "o/rehearsal"), newSigning(t, "evil/r")
	begin := func(t *testing.T) (*world, *sideshow) {
		w := newWorld(t)
		test := w.beside("testpypi")
		w.release(ours, "1.0")
		test.release(rehearsal, "0.9")
		expect(t, w.raised(nil))
		return w, test
	}
	t.Run("shown by TestPyPI", func(t *testing.T) {
		w, test := begin(t)
		test.release(rehearsal, "1.1")
		w.release(ours, "1.1")
		w.advance(10 * time.Minute)
		expect(t, w.raised(nil))
	})
	t.Run("its provenance comes later", func(t *testing.T) {
		w, test := begin(t)
		f := test.publish(attested(aFile("1.1")))[0]
		w.release(ours, "1.1")
		at := w.pos.Next
		leaf := w.log(rehearsal.attest(t, f))[0]
		known := policy(t, "projects:\n  p:\n    publishers: [{repository: github.com/o/r}]\n")
		w.advance(10 * time.Minute)
		expect(t, w.raised(known)) // TestPyPI has yet to say what it knows
		test.named(f, at, leaf)
		expect(t, w.raised(known))
	})
	t.Run("its provenance never comes", func(t *testing.T) {
		w, test := begin(t)
		f := test.publish(attested(aFile("1.1")))[0]
		w.release(ours, "1.1")
		w.log(rehearsal.attest(t, f))
		w.advance(30 * time.Minute)
		expect(t, w.raised(nil))
		w.advance(30 * time.Minute)
		expect(t, w.raised(nil), "unexpected-signer 1.1")
	})
	t.Run("shown by PyPI", func(t *testing.T) {
		w, test := begin(t)
		_, at, leaf := test.release(rehearsal, "1.1")
		f := w.publish(attested(aFile("1.1")))[0]
		w.named(f, at, leaf)
		expect(t, w.raised(nil), "unexpected-signer 1.1")
		if a := w.bodies()[0]; a.Index != "" {
			t.Errorf("told of index %q", a.Index)
		}
	})
	t.Run("shown by nobody", func(t *testing.T) {
		w, test := begin(t)
		f, _, _ := test.release(rehearsal, "1.1")
		w.release(ours, "1.1")
		w.log(thief.attest(t, f))
		expect(t, w.raised(nil)) // an index may yet show it
		w.advance(10 * time.Minute)
		expect(t, w.raised(nil), "unexpected-signer 1.1", "unexpected-signer 1.1")
	})
	t.Run("a thief on TestPyPI", func(t *testing.T) {
		w, test := begin(t)
		w.release(ours, "1.1")
		test.release(thief, "1.1")
		w.advance(10 * time.Minute)
		expect(t, w.raised(nil), "unexpected-signer 1.1")
		if a := w.bodies()[0]; a.Index != "testpypi" {
			t.Errorf("told of index %q", a.Index)
		}
	})
}
