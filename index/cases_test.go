package index

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

// subjects names cases by what they are about.
func subjects(cases []Case) []string {
	var names []string
	for _, c := range cases {
		switch {
		case c.Contradiction != nil:
			names = append(names, c.Contradiction.Kind)
		case c.Bindings != nil:
			names = append(names, fmt.Sprintf("%s leaf %d", c.File.Version, c.Bindings[0].Entry.Leaf.Index))
		default:
			names = append(names, c.File.Version)
		}
	}
	return names
}

func expectCases(t *testing.T, cases []Case, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, subjects(cases)); diff != "" {
		t.Errorf("cases: %s", diff)
	}
}

func decide(t testing.TB, s *Store, c Case, v Verdict) []Alert {
	t.Helper()
	raised, err := s.Decide(t.Context(), c, v)
	ok(t, err)
	return raised
}

func TestSettled(t *testing.T) {
	s := openTest(t, Options{})
	ok(t, s.SetLookupServers(t.Context(), []string{"a"}, nil))
	f := named(aFile("p", "1"))
	id := listFiles(t, s, "p", 1, f)[0].ID
	ok(t, s.Commit(t.Context(), begin(t, s, testLog).batch(t, newSigning(t, "o/r").attest(t, f))))
	expectCases(t, allCases(t, s))
	ready := func(project string) bool { return project == "p" }
	cases, err := s.Cases(t.Context(), ready, 10, 1)
	ok(t, err)
	expectCases(t, cases, "1 leaf 0") // the file waits for its own provenance all the same
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenanceRefused, Fetched: storeEpoch, Retry: storeEpoch.Add(time.Hour)}))
	expectCases(t, allCases(t, s)) // the look-up has not been answered
	due, err := s.DueLookups(t.Context(), "a", storeEpoch.Add(time.Hour), 1)
	ok(t, err)
	ok(t, s.LookupDone(t.Context(), due[0], LookupAnswer{At: storeEpoch.Add(time.Hour), Err: "down"}))
	expectCases(t, allCases(t, s))
	ok(t, s.LookupDone(t.Context(), due[0], LookupAnswer{At: storeEpoch.Add(time.Hour)}))
	expectCases(t, allCases(t, s)) // a refusal says nothing about the file
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenanceAbsent, Fetched: storeEpoch}))
	expectCases(t, allCases(t, s), "1 leaf 0", "1")
	cases, err = s.Cases(t.Context(), nil, 1, 1)
	ok(t, err)
	expectCases(t, cases, "1 leaf 0")
}

// While attestations are switched off, nothing is learned from the half of a history
// that was read before; who is pinned already goes on being watched.
func TestSettledWithoutRefusedProvenance(t *testing.T) {
	s := openTest(t, Options{})
	fresh := listFiles(t, s, "p", 1, named(aFile("p", "1")), named(aFile("p", "2")))
	sg := newSigning(t, "o/r")
	b := begin(t, s, testLog).batch(t, sg.attest(t, fresh[0]), sg.attest(t, fresh[1]))
	ok(t, s.Commit(t.Context(), b))
	ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Leaves: []ProvenanceLeaf{{KeyID: testLog.KeyID, Hash: b.Hashes[0]}}}))
	holds(t, s, fresh[0].ID, b.Hashes[0])
	for range patience + 1 { // days of it
		ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[1].ID, Provenance{State: ProvenanceRefused, Fetched: storeEpoch, Retry: storeEpoch}))
		expectCases(t, allCases(t, s))
	}
	ready, err := s.Cases(t.Context(), func(string) bool { return true }, 10, 1)
	ok(t, err)
	expectCases(t, ready, "1 leaf 0", "1") // a policy says who is expected
	ok(t, s.write(t.Context(), "pinning", func(t *tx) error {
		return t.pin(Pin{Project: "p", Publisher: ready[0].Bindings[0].Entry.Signer.Publisher(), State: PinApproved, Made: storeEpoch})
	}))
	cases := allCases(t, s)
	expectCases(t, cases, "1 leaf 0", "1")
	for _, c := range cases {
		decide(t, s, c, Verdict{})
	}
	expectCases(t, allCases(t, s), "2 leaf 1") // as such, the file waits on
}

// One provenance that never comes does not hold up the project for ever, but a first
// history is waited for longer: half of it teaches the wrong publishers.
func TestSettledWithoutBrokenProvenance(t *testing.T) {
	s := openTest(t, Options{})
	first := listFiles(t, s, "p", 1, named(aFile("p", "1")), aFile("p", "2"))
	sg := newSigning(t, "o/r")
	b := begin(t, s, testLog).batch(t, sg.attest(t, first[0]), sg.attest(t, first[1]))
	ok(t, s.Commit(t.Context(), b))
	fail := func(f File, times int) {
		t.Helper()
		for range times {
			expectCases(t, allCases(t, s))
			ok(t, s.PyPI().SaveProvenance(t.Context(), f.ID, Provenance{State: ProvenancePending, Fetched: storeEpoch, Error: "500", Retry: storeEpoch}))
		}
	}
	fail(first[0], pinPatience)
	cases := allCases(t, s)
	expectCases(t, cases, "1 leaf 0", "2 leaf 1", "2")
	for _, c := range cases {
		decide(t, s, c, Verdict{})
	}
	later := listFiles(t, s, "p", 2, named(aFile("p", "1")), aFile("p", "2"), named(aFile("p", "3")))
	fail(later[0], patience)
	expectCases(t, allCases(t, s))
	ok(t, s.PyPI().SaveProvenance(t.Context(), later[0].ID, Provenance{State: ProvenanceAbsent, Fetched: storeEpoch}))
	expectCases(t, allCases(t, s), "3")
}

// Where there are pins, a file that was listed first holds up nothing but entries that
// its provenance may yet name.
func TestFirstListedEntryWaitsForItsProvenance(t *testing.T) {
	s := openTest(t, Options{})
	first := listFiles(t, s, "p", 1, named(aFile("p", "1")), aFile("p", "2"))
	sg := newSigning(t, "o/r")
	b := begin(t, s, testLog).batch(t, sg.attest(t, first[0]), sg.attest(t, first[1]))
	ok(t, s.Commit(t.Context(), b))
	signer, err := ParseSigner(sg.cert)
	ok(t, err)
	ok(t, s.write(t.Context(), "pinning", func(t *tx) error {
		return t.pin(Pin{Project: "p", Publisher: signer.Publisher(), State: PinLearned, Made: storeEpoch})
	}))
	for range patience {
		expectCases(t, allCases(t, s))
		ok(t, s.PyPI().SaveProvenance(t.Context(), first[0].ID, Provenance{State: ProvenancePending, Fetched: storeEpoch, Error: "500", Retry: storeEpoch}))
	}
	for range pinPatience - patience {
		expectCases(t, allCases(t, s), "2 leaf 1", "2")
		ok(t, s.PyPI().SaveProvenance(t.Context(), first[0].ID, Provenance{State: ProvenancePending, Fetched: storeEpoch, Error: "500", Retry: storeEpoch}))
	}
	expectCases(t, allCases(t, s), "1 leaf 0", "2 leaf 1", "2")
	ready, err := s.Cases(t.Context(), func(string) bool { return true }, 10, 1)
	ok(t, err)
	expectCases(t, ready, "1 leaf 0", "2 leaf 1", "2")
}

// A server that gives no answer is waited for as long as lookupPatience, and no
// longer; then what is known is judged, and judged again once there is an answer.
func TestSettledWithoutAnswer(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T, s *Store, at time.Time, due []Lookup){
		"the whole server": func(t *testing.T, s *Store, at time.Time, _ []Lookup) {
			ok(t, s.LookupFailed(t.Context(), "a", at, "down"))
		},
		"one file": func(t *testing.T, s *Store, at time.Time, due []Lookup) {
			ok(t, s.LookupDone(t.Context(), due[0], LookupAnswer{At: at, Next: at.Add(time.Second), Err: "malformed"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := storeEpoch.Add(time.Hour)
			s := openTest(t, Options{Now: func() time.Time { return now }})
			ok(t, s.SetLookupServers(t.Context(), []string{"a"}, nil))
			f := aFile("p", "1")
			id := listFiles(t, s, "p", 1, f)[0].ID
			tr := begin(t, s, testLog)
			first := tr.batch(t, newSigning(t, "o/r").attest(t, f))
			ok(t, s.Commit(t.Context(), first))
			due, err := s.DueLookups(t.Context(), "a", now, 2)
			ok(t, err)
			now = now.Add(time.Hour)
			expectCases(t, allCases(t, s)) // waiting for its turn is not failing

			began := now
			fail(t, s, began, due)
			now = began.Add(lookupPatience - 1)
			fail(t, s, now, due)
			expectCases(t, allCases(t, s))
			now = began.Add(lookupPatience)
			cases := allCases(t, s)
			expectCases(t, cases, "1 leaf 0", "1")
			for _, c := range cases {
				if diff := cmp.Diff([]Unanswered{{Server: "a", Since: began}}, c.Lacking); diff != "" {
					t.Errorf("lacking: %s", diff)
				}
				decide(t, s, c, Verdict{})
			}
			expectCases(t, allCases(t, s))
			// New evidence is judged at once, without the rest.
			b := tr.batch(t, newSigning(t, "o/r").hashedV2(f.SHA256, []byte("nothing")))
			ok(t, s.Commit(t.Context(), b))
			cases = allCases(t, s)
			expectCases(t, cases, "1 leaf 1")
			decide(t, s, cases[0], Verdict{})
			ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenancePresent, Fetched: now, Leaves: []ProvenanceLeaf{{KeyID: testLog.KeyID, Hash: first.Hashes[0]}}}))
			expectCases(t, allCases(t, s)) // its provenance has yet to be verified
			holds(t, s, id, first.Hashes[0])
			cases = allCases(t, s)
			expectCases(t, cases, "1 leaf 0")
			decide(t, s, cases[0], Verdict{})
			expectCases(t, allCases(t, s))

			ok(t, s.LookupDone(t.Context(), due[0], LookupAnswer{At: now}))
			for _, want := range []string{"1 leaf 0", "1 leaf 1"} { // named first
				cases = allCases(t, s)
				expectCases(t, cases, want)
				if cases[0].Lacking != nil {
					t.Errorf("lacking, now that it is answered: %+v", cases[0].Lacking)
				}
				decide(t, s, cases[0], Verdict{})
			}
			expectCases(t, allCases(t, s))
			if n := countRows(t, s, `SELECT count(*) FROM unjudged`) + countRows(t, s, `SELECT count(*) FROM lookup_servers WHERE failing IS NOT NULL`); n != 0 {
				t.Errorf("%d rows are left", n)
			}
		})
	}
}

func TestPinsAreLearnedFirst(t *testing.T) {
	s := openTest(t, Options{})
	fresh := listFiles(t, s, "p", 1, named(aFile("p", "1")), named(aFile("p", "2")))
	sg, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	b := begin(t, s, testLog).batch(t, thief.attest(t, fresh[0]), sg.attest(t, fresh[0]), sg.attest(t, fresh[1]))
	ok(t, s.Commit(t.Context(), b))
	for i, f := range fresh {
		ok(t, s.PyPI().SaveProvenance(t.Context(), f.ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Leaves: []ProvenanceLeaf{{KeyID: testLog.KeyID, Global: uint64(i + 1), Hash: b.Hashes[i+1]}}}))
		holds(t, s, f.ID, b.Hashes[i+1])
	}
	cases := allCases(t, s)
	expectCases(t, cases, "1 leaf 1", "1", "2")
	pin := Pin{Project: "p", Publisher: cases[0].Bindings[0].Entry.Signer.Publisher(), State: PinLearned, How: "its provenance", Made: storeEpoch}
	decide(t, s, cases[0], Verdict{Pins: []Pin{pin}})
	cases = allCases(t, s)
	expectCases(t, cases, "2 leaf 2", "1", "2")
	if diff := cmp.Diff([]Pin{pin}, cases[0].Pins); diff != "" {
		t.Errorf("pins: %s", diff)
	}
	rejected := pin
	rejected.State = PinRejected
	decide(t, s, cases[0], Verdict{Pins: []Pin{rejected}})
	cases = allCases(t, s)
	expectCases(t, cases, "1 leaf 0", "1", "2")
	if diff := cmp.Diff([]Pin{pin}, cases[0].Pins); diff != "" {
		t.Errorf("a second pin for the publisher replaced the first: %s", diff)
	}
	for _, c := range cases {
		decide(t, s, c, Verdict{})
	}
	expectCases(t, allCases(t, s))
	if _, err := s.Decide(t.Context(), Case{}, Verdict{}); err == nil {
		t.Error("a verdict on nothing was stored")
	}
}

// Evidence that comes while the rules look at a case is judged too.
func TestEvidenceDuringJudgement(t *testing.T) {
	s := openTest(t, Options{})
	id := listFiles(t, s, "p", 1, named(aFile("p", "1")))[0].ID
	b := begin(t, s, testLog).batch(t, newSigning(t, "o/r").attest(t, aFile("p", "1")))
	ok(t, s.Commit(t.Context(), b))
	cases, err := s.Cases(t.Context(), func(string) bool { return true }, 10, 1)
	ok(t, err)
	expectCases(t, cases, "1 leaf 0")
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Leaves: []ProvenanceLeaf{{KeyID: testLog.KeyID, Hash: b.Hashes[0]}}}))
	holds(t, s, id, b.Hashes[0])
	decide(t, s, cases[0], Verdict{})
	expectCases(t, allCases(t, s), "1 leaf 0", "1")
}

func TestContradictionsComeFirst(t *testing.T) {
	s := openTest(t, Options{})
	listFiles(t, s, "p", 1, aFile("p", "1"))
	ok(t, s.Contradict(t.Context(), monitor.Contradiction{Kind: monitor.KeyChanged, Log: testLog, Subject: "0", At: storeEpoch}))
	expectCases(t, allCases(t, s), monitor.KeyChanged, "1")
}

func TestOutbox(t *testing.T) {
	s := openTest(t, Options{})
	listFiles(t, s, "p", 1, aFile("p", "1"), aFile("p", "2"))
	alert := func(id string, at time.Duration) Alert {
		return Alert{ID: id, Rule: "provenance-lost", Severity: "high", Project: "p", Version: "1", Raised: storeEpoch.Add(at), Body: []byte(`{"id":"` + id + `"}`)}
	}
	second, first := alert("b", time.Second), alert("c", 0)
	cases := allCases(t, s)
	v := Verdict{Alerts: []Alert{second, first}, Sinks: []string{"terminal", "hook"}}
	if diff := cmp.Diff(v.Alerts, decide(t, s, cases[0], v)); diff != "" {
		t.Errorf("raised: %s", diff)
	}
	if again := decide(t, s, cases[1], v); len(again) != 0 {
		t.Errorf("raised again: %+v", again)
	}
	now := storeEpoch.Add(2 * time.Hour)
	due := func(sink string, at time.Time) []Delivery {
		t.Helper()
		d, err := s.DueDeliveries(t.Context(), sink, at, 10)
		ok(t, err)
		return d
	}
	if diff := cmp.Diff([]Delivery{{Alert: first, Sink: "hook"}, {Alert: second, Sink: "hook"}}, due("hook", now)); diff != "" {
		t.Errorf("due: %s", diff)
	}
	ok(t, s.DeliveryFailed(t.Context(), "c", "hook", now.Add(time.Minute), "refused"))
	if d := due("hook", now); len(d) != 1 || d[0].Alert.ID != "b" {
		t.Errorf("due after a failure: %+v", d)
	}
	ok(t, s.Delivered(t.Context(), "b", "hook", now))
	if d := due("hook", now.Add(time.Minute)); len(d) != 1 || d[0].Tries != 1 || d[0].Alert.ID != "c" {
		t.Errorf("due again: %+v", d)
	}
	ok(t, s.Delivered(t.Context(), "c", "hook", now))
	ok(t, s.DeliveryFailed(t.Context(), "c", "hook", now, "came too late"))
	if d := due("hook", now.Add(time.Hour)); len(d) != 0 {
		t.Errorf("delivered, and due: %+v", d)
	}
	if d := due("terminal", now); len(d) != 2 {
		t.Errorf("sinks wait for each other: %+v", d)
	}
	for project, want := range map[string]int{"p": 2, "": 2, "q": 0} {
		if alerts, err := s.Alerts(t.Context(), "", project); err != nil || len(alerts) != want {
			t.Errorf("alerts of %q: %+v %v", project, alerts, err)
		}
	}
}
