package index

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

// published lists a file of a project and has PyPI name the leaf that is committed
// for it, so that the signer is one that the project has used.
func published(t testing.TB, s *Store, tr *tree, sg signing, f File) {
	t.Helper()
	fresh := listFiles(t, s, f.Project, 1, named(f))
	leaf := sg.attest(t, f)
	ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}"),
		Leaves: []ProvenanceLeaf{{KeyID: tr.log.KeyID, Global: tr.pos.Next, Hash: monitor.HashLeaf(leaf)}}}))
	holds(t, s, fresh[0].ID, monitor.HashLeaf(leaf))
	ok(t, s.Commit(t.Context(), tr.batch(t, leaf)))
}

func candidateRows(t testing.TB, s *Store, project string, before time.Time, limit int) (rows []string, more bool) {
	t.Helper()
	all, more, err := s.Candidates(t.Context(), "", project, before, limit)
	ok(t, err)
	for _, c := range all {
		rows = append(rows, fmt.Sprintf("%d %s %s", c.Index, c.Publisher, c.SignedAt.Format(time.RFC3339)))
	}
	return rows, more
}

// An entry that only its publisher ties to a project is a candidate of it, until its
// file appears: then it is bound on the statement, and a candidate no longer.
func TestCandidates(t *testing.T) {
	s := openTest(t, Options{})
	tr := begin(t, s, testLog)
	ours, other := newSigning(t, "o/r"), newSigningOf(t, "o/other", "43")
	next := aFile("p", "2")
	ok(t, s.Commit(t.Context(), tr.batch(t, ours.noise(1)))) // before anybody knows the publisher
	published(t, s, tr, ours, aFile("p", "1"))
	ok(t, s.Commit(t.Context(), tr.batch(t, ours.attest(t, next), other.noise(2), ours.noise(3))))

	const who = " github.com/o/r release.yml 2026-03-01T12:00:00Z"
	check := func(project string, before time.Time, limit int, wantMore bool, want ...string) {
		t.Helper()
		rows, more := candidateRows(t, s, project, before, limit)
		if diff := cmp.Diff(want, rows); diff != "" || more != wantMore {
			t.Errorf("candidates of %s: more %t %s", project, more, diff)
		}
	}
	check("p", time.Time{}, 10, false, "4"+who, "2"+who, "0"+who)
	check("p", time.Time{}, 2, true, "4"+who, "2"+who)
	check("p", storeEpoch, 10, false)
	check("p", storeEpoch.Add(time.Second), 10, false, "4"+who, "2"+who, "0"+who)
	check("nobody", time.Time{}, 10, false)
	// What another project uses is no candidate of this one, and who signs for a
	// project without PyPI's word makes no candidates of it.
	listFiles(t, s, "q", 1, aFile("q", "1"))
	ok(t, s.Commit(t.Context(), tr.batch(t, other.attest(t, aFile("q", "1")))))
	check("q", time.Time{}, 10, false)
	if n := len(allCases(t, s)); n != 4 {
		t.Errorf("%d cases; a candidate is none", n)
	}

	listFiles(t, s, "p", 2, named(aFile("p", "1")), next)
	wants, err := s.Wanted(t.Context(), testLog.Origin, 10)
	ok(t, err)
	if len(wants) != 1 || wants[0].Index != 2 {
		t.Fatalf("wanted: %+v", wants)
	}
	ok(t, s.CommitFound(t.Context(), monitor.Proven{Log: testLog, Head: headAt(t, testLog, tr.pos), Leaf: monitor.Leaf{Index: 2, Data: ours.attest(t, next)}, Hash: monitor.Hash{8}}, 0))
	check("p", time.Time{}, 10, false, "4"+who, "0"+who)
	expectCounts(t, s)
}

// A pin makes candidates, unless it was rejected.
func TestCandidatesOfPins(t *testing.T) {
	s := openTest(t, Options{})
	sg := newSigning(t, "o/r")
	signer, err := ParseSigner(sg.cert)
	ok(t, err)
	ok(t, s.Commit(t.Context(), begin(t, s, testLog).batch(t, sg.noise(1))))
	listFiles(t, s, "p", 1, aFile("p", "1"))
	for state, want := range map[PinState]int{PinLearned: 1, PinApproved: 1, PinRejected: 0} {
		ok(t, s.write(t.Context(), "test", func(x *tx) error {
			id, err := x.publisherID(signer.Publisher())
			if err != nil {
				return err
			}
			_, err = x.exec(`INSERT INTO pins (project_id, publisher_id, state, how, made) VALUES ((SELECT id FROM projects), ?, ?, '', 0)
				ON CONFLICT (project_id, publisher_id) DO UPDATE SET state = excluded.state`, id, string(state))
			return err
		}))
		if rows, _ := candidateRows(t, s, "p", time.Time{}, 10); len(rows) != want {
			t.Errorf("%s: %v", state, rows)
		}
	}
}

// The time of a v1 leaf is the log's where the log has signed it, and else not known:
// a certificate that nobody has checked says nothing about the log's time.
func TestCandidateTimes(t *testing.T) {
	trust := &fakeTrust{}
	s := openTest(t, Options{Trust: trust})
	sg := newSigning(t, "o/r")
	v1 := monitor.Log{Origin: "rekor.example - 7", KeyID: monitor.Hash{3}, API: monitor.V1, URL: "https://rekor.example", TreeID: 7}
	tr := begin(t, s, v1)
	published(t, s, tr, sg, aFile("p", "1"))
	ok(t, s.Commit(t.Context(), tr.batch(t, sg.noise(1))))
	trust.set = fmt.Errorf("no")
	ok(t, s.Commit(t.Context(), tr.batch(t, sg.noise(2))))
	all, _, err := s.Candidates(t.Context(), "", "p", time.Time{}, 10)
	ok(t, err)
	if len(all) != 2 || !all[0].SignedAt.IsZero() || !all[1].SignedAt.Equal(storeEpoch.Add(time.Minute)) || !all[0].Seen.Equal(storeEpoch.Add(time.Hour)) {
		t.Errorf("%+v", all)
	}
}
