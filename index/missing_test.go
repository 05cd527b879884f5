package index

import (
	"testing"

	"sigtrail/monitor"
)

// Only a leaf whose place was looked at can be missing.
func TestPresence(t *testing.T) {
	s := openTest(t, Options{})
	f := named(aFile("p", "1"))
	id := listFiles(t, s, "p", 1, f)[0].ID
	by := newSigning(t, "o/r")
	b := begin(t, s, testLog).batch(t, by.attest(t, f), by.noise(1))
	ok(t, s.Commit(t.Context(), b))
	first := testLog.FirstGlobal
	leaves := []ProvenanceLeaf{
		{KeyID: testLog.KeyID, Global: first, Hash: b.Hashes[0]},
		{KeyID: testLog.KeyID, Global: first + 1, Hash: monitor.Hash{1}}, // another is there
		{KeyID: testLog.KeyID, Global: first + 2, Hash: monitor.Hash{2}}, // not yet read
		{KeyID: monitor.Hash{0xff, 9}, Global: first, Hash: b.Hashes[0]}, // a log that is not followed
	}
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}"), Leaves: leaves}))
	presence := func() map[ProvenanceLeaf]LeafPresence {
		all := map[ProvenanceLeaf]LeafPresence{}
		ok(t, s.Presence(t.Context(), id, func(l ProvenanceLeaf, p LeafPresence) error { all[l] = p; return nil }))
		return all
	}
	got := presence()
	for i, want := range []LeafPresence{LeafInLog, LeafUncovered, LeafUncovered, LeafUncovered} {
		if got[leaves[i]] != want { // the second is wanted again first
			t.Errorf("leaf %d: %q, want %q", i, got[leaves[i]], want)
		}
	}
	if n := countRows(t, s, `SELECT count(*) FROM wanted`); n != 1 {
		t.Fatalf("%d leaves wanted", n)
	}
	ok(t, s.write(t.Context(), "test", func(t *tx) error { // as when it has been read again
		_, err := t.exec(`DELETE FROM wanted`)
		return err
	}))
	if got := presence()[leaves[1]]; got != LeafNotInLog {
		t.Errorf("read again: %q", got)
	}
}
