package index

import (
	"database/sql"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

func provenanceOf(t *testing.T, s *Store, id FileID, leaves ...ProvenanceLeaf) {
	t.Helper()
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}"), Leaves: leaves}))
}

func unverified(t *testing.T, s *Store, root string) (names []string) {
	t.Helper()
	files, err := s.UnverifiedProvenance(t.Context(), root, 10)
	ok(t, err)
	for _, f := range files {
		names = append(names, f.Version)
	}
	return names
}

// An object is due once, and again under another root only if that may say otherwise.
func TestUnverifiedProvenance(t *testing.T) {
	path := t.TempDir() + "/sigtrail.db"
	s := openAt(t, path, Options{})
	fresh := listFiles(t, s, "p", 1, named(aFile("p", "1")), named(aFile("p", "2")), aFile("p", "3"))
	expect := func(root string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, unverified(t, s, root)); diff != "" {
			t.Errorf("under %s: %s", root, diff)
		}
	}
	expect("b")
	provenanceOf(t, s, fresh[0].ID)
	provenanceOf(t, s, fresh[1].ID)
	expect("b", "1", "2")
	verdict := AttestationVerdict{Bundle: 1, Attestation: 2, State: AttestationInvalid, Failed: "log", Error: "no key", Predicate: "p", Publisher: "{}", Root: "b", At: storeEpoch,
		Leaves: []monitor.Hash{{1}, {2}}}
	ok(t, s.SaveVerification(t.Context(), fresh[0].ID, Verification{Root: "b", At: storeEpoch, Doubt: true, Verdicts: []AttestationVerdict{verdict}}))
	holds(t, s, fresh[1].ID)
	expect("b")
	expect("a", "1")
	expect("c", "1")
	ok(t, s.Close())
	s = openAt(t, path, Options{})
	got, verified, err := s.Verdicts(t.Context(), fresh[0].ID)
	if diff := cmp.Diff([]AttestationVerdict{verdict}, got); diff != "" || !verified || err != nil {
		t.Errorf("%t %v %s", verified, err, diff)
	}
	if got, verified, err = s.Verdicts(t.Context(), fresh[2].ID); len(got) != 0 || verified || err != nil {
		t.Errorf("of a file without: %v %t %v", got, verified, err)
	}
	holds(t, s, fresh[0].ID)
	expect("c")
}

// Invalid objects are handed to the rules once for each verdict.
func TestProvenanceCases(t *testing.T) {
	s := openTest(t, Options{})
	id := listFiles(t, s, "p", 1, named(aFile("p", "1")))[0].ID
	provenanceOf(t, s, id)
	at := storeEpoch
	verify := func(state AttestationState) {
		t.Helper()
		at = at.Add(time.Second)
		ok(t, s.SaveVerification(t.Context(), id, Verification{Root: "b", At: at, Verdicts: []AttestationVerdict{{State: state, Failed: "x", Error: "x", At: at}}}))
	}
	invalid := func() (cases []Case) {
		t.Helper()
		for _, c := range allCases(t, s) {
			if len(c.Verdicts) > 0 {
				cases = append(cases, c)
			}
		}
		return cases
	}
	verify(AttestationUnknown)
	if n := len(invalid()); n != 0 {
		t.Errorf("%d cases of an unknown kind", n)
	}
	verify(AttestationInvalid)
	cases := invalid()
	if len(cases) != 1 || cases[0].File.ID != id || len(cases[0].Bindings) != 0 {
		t.Fatalf("cases: %+v", cases)
	}
	verify(AttestationInvalid) // while the rules were at it
	decide(t, s, cases[0], Verdict{})
	if cases = invalid(); len(cases) != 1 {
		t.Fatalf("%d cases: the newer verdict has not been judged", len(cases))
	}
	decide(t, s, cases[0], Verdict{})
	if n := len(invalid()); n != 0 {
		t.Errorf("%d cases are handed out again", n)
	}
}

// What an attestation bound is believed and judged by its newest verdict.
func TestVerdictOnBinding(t *testing.T) {
	s := openTest(t, Options{})
	f := listFiles(t, s, "p", 1, named(aFile("p", "1")))[0]
	b := begin(t, s, testLog).batch(t, newSigning(t, "o/r").attest(t, f))
	ok(t, s.Commit(t.Context(), b))
	provenanceOf(t, s, f.ID, ProvenanceLeaf{KeyID: testLog.KeyID, Hash: b.Hashes[0]})
	expectCases(t, allCases(t, s))
	signature := func(want string) {
		t.Helper()
		for _, c := range allCases(t, s) {
			for _, b := range c.Bindings {
				if b.Evidence == ByProvenance && b.Signature != want {
					t.Errorf("signature %q, want %q", b.Signature, want)
				}
			}
			decide(t, s, c, Verdict{})
		}
	}
	ok(t, s.SaveVerification(t.Context(), f.ID, Verification{Root: "a", At: storeEpoch, Doubt: true,
		Verdicts: []AttestationVerdict{{State: AttestationInvalid, Failed: "chain", Error: "unknown", At: storeEpoch, Leaves: []monitor.Hash{b.Hashes[0]}}}}))
	expectCases(t, allCases(t, s)[1:], "1 leaf 0", "1")
	signature("chain: unknown")
	expectCases(t, allCases(t, s))
	holds(t, s, f.ID, b.Hashes[0])
	expectCases(t, allCases(t, s), "1 leaf 0") // judged anew
	signature("")
}

// Log entries wait until their place is covered, and are missing if another is there.
func TestSettleLeaves(t *testing.T) {
	s := openTest(t, Options{})
	f := listFiles(t, s, "p", 1, named(aFile("p", "1")))[0]
	tr := begin(t, s, testLog)
	by := newSigning(t, "o/r")
	leaf := by.attest(t, f)
	provenanceOf(t, s, f.ID, ProvenanceLeaf{KeyID: testLog.KeyID, Global: 0, Hash: monitor.HashLeaf(leaf), Publisher: "{}"},
		ProvenanceLeaf{KeyID: testLog.KeyID, Global: 1, Hash: monitor.Hash{1}, Publisher: "{}"}, ProvenanceLeaf{KeyID: testLog.KeyID, Global: 9, Hash: monitor.Hash{2}})
	settle := func(want int, states ...string) {
		t.Helper()
		n, err := s.SettleLeaves(t.Context(), storeEpoch)
		ok(t, err)
		var got []string
		ok(t, s.each(t.Context(), `SELECT global || ' ' || state FROM absent_leaves ORDER BY global`, nil, func(scan scan) error {
			var text string
			err := scan(&text)
			got = append(got, text)
			return err
		}))
		if diff := cmp.Diff(states, got); diff != "" || n != want {
			t.Errorf("%d missing, want %d; %s", n, want, diff)
		}
	}
	settle(0)
	holds(t, s, f.ID)
	settle(0, "0 not-covered", "1 not-covered", "9 not-covered")
	ok(t, s.Commit(t.Context(), tr.batch(t, leaf, by.noise(1))))
	settle(1, "1 not-in-log", "9 not-covered")
	settle(0, "1 not-in-log", "9 not-covered")
	holds(t, s, f.ID) // verified again: what was found is not looked for again
	settle(0, "1 not-in-log", "9 not-covered")
	var missing []Case
	for _, c := range allCases(t, s) {
		if len(c.Missing) > 0 {
			missing = append(missing, c)
		}
	}
	if len(missing) != 1 || len(missing[0].Missing) != 1 || missing[0].Missing[0].Global != 1 || missing[0].Missing[0].Log.Origin != testLog.Origin || missing[0].File.ID != f.ID {
		t.Fatalf("cases: %+v", missing)
	}
	decide(t, s, missing[0], Verdict{})
	for _, c := range allCases(t, s) {
		if len(c.Missing) > 0 {
			t.Errorf("handed out again: %+v", c)
		}
	}
}

// What an earlier version fetched is verified too.
func TestMigratedProvenanceIsUnverified(t *testing.T) {
	path := t.TempDir() + "/sigtrail.db"
	db, err := sql.Open("sqlite3", "file:"+path)
	ok(t, err)
	p, err := provider(db)
	ok(t, err)
	_, err = p.UpTo(t.Context(), 4)
	ok(t, err)
	_, err = db.ExecContext(t.Context(), `INSERT INTO projects (id, name, first_seen) VALUES (1, 'p', 0);
		INSERT INTO files (id, project_id, version, filename, sha256, size, url, first_seen, first_listing) VALUES
			(1, 1, '1', 'p-1.tar.gz', zeroblob(32), 1, '', 0, 1), (2, 1, '2', 'p-2.tar.gz', zeroblob(32), 1, '', 0, 1);
		INSERT INTO provenance (file_id, state, body) VALUES (1, 'present', x'7b7d'), (2, 'absent', NULL)`)
	ok(t, err)
	ok(t, db.Close())
	s := openAt(t, path, Options{})
	if diff := cmp.Diff([]string{"1"}, unverified(t, s, "a")); diff != "" {
		t.Error(diff)
	}
	body, err := s.ProvenanceBody(t.Context(), FileID(1<<24|1))
	if string(body) != "{}" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}
