package index

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func storedFiles(t testing.TB, s *Store, project string) map[string]File {
	t.Helper()
	files := map[string]File{}
	ok(t, s.each(t.Context(), `SELECT `+fileColumns+` FROM files f JOIN projects p ON p.id = f.project_id WHERE p.name = ?`, []any{project}, func(scan scan) error {
		var r fileRow
		if err := scan(r.dest()...); err != nil {
			return err
		}
		f, err := r.value()
		files[f.Name] = f
		return err
	}))
	return files
}

func provenanceState(t testing.TB, s *Store, id FileID) string {
	t.Helper()
	var state string
	ok(t, s.db.QueryRowContext(t.Context(), `SELECT state FROM provenance WHERE file_id = ?`, int64(id)).Scan(&state))
	return state
}

func TestListing(t *testing.T) {
	s := openTest(t, Options{})
	if serial, listed, err := s.PyPI().ListingSerial(t.Context(), "p"); serial != 0 || listed || err != nil {
		t.Errorf("before any listing: %d %v %v", serial, listed, err)
	}
	one, two := named(aFile("p", "1")), aFile("p", "2")
	fresh := listFiles(t, s, "p", 10, one, two, one)
	if len(fresh) != 2 || !fresh[0].FirstListing || fresh[0].ID == 0 || fresh[0].Project != "p" {
		t.Fatalf("fresh: %+v", fresh)
	}
	files := storedFiles(t, s, "p")
	if diff := cmp.Diff(map[string]File{one.Name: fresh[0], two.Name: fresh[1]}, files); diff != "" {
		t.Errorf("stored: %s", diff)
	}
	if a, b := provenanceState(t, s, fresh[0].ID), provenanceState(t, s, fresh[1].ID); a != "pending" || b != "absent" {
		t.Errorf("provenance: %s %s", a, b)
	}
	if fresh := listFiles(t, s, "p", 10, one, two); len(fresh) != 0 {
		t.Errorf("the same listing again: %+v", fresh)
	}

	// One goes, one is yanked and gains provenance, one comes.
	reason := ""
	yanked := named(two)
	yanked.Yanked = &reason
	three := aFile("p", "3")
	fresh = listFiles(t, s, "p", 20, yanked, three)
	if len(fresh) != 1 || fresh[0].FirstListing || fresh[0].Name != three.Name {
		t.Errorf("fresh: %+v", fresh)
	}
	files = storedFiles(t, s, "p")
	if files[one.Name].Gone.IsZero() || files[two.Name].Yanked == nil || provenanceState(t, s, files[two.Name].ID) != "pending" {
		t.Errorf("after the change: %+v", files)
	}

	// A stale cache says nothing.
	if fresh := listFiles(t, s, "p", 15, one, two, aFile("p", "9")); len(fresh) != 0 || storedFiles(t, s, "p")[one.Name].Gone.IsZero() {
		t.Errorf("a stale listing was taken: %+v", fresh)
	}
	// What comes back is no longer gone.
	listFiles(t, s, "p", 30, one, yanked, three)
	if f := storedFiles(t, s, "p")[one.Name]; !f.Gone.IsZero() {
		t.Errorf("still gone: %v", f.Gone)
	}
	// Quarantine hides files without their going.
	_, err := s.PyPI().SaveListing(t.Context(), Listing{Project: "p", Serial: 40, Status: "quarantined", Fetched: storeEpoch})
	ok(t, err)
	if n := countRows(t, s, `SELECT count(*) FROM files WHERE gone IS NOT NULL`); n != 0 {
		t.Errorf("%d files went with the quarantine", n)
	}
	if n := countRows(t, s, `SELECT count(*) FROM projects WHERE status = 'quarantined' AND serial = 40`); n != 1 {
		t.Error("the status is not kept")
	}
	// An empty list without it does.
	listFiles(t, s, "p", 50)
	if n := countRows(t, s, `SELECT count(*) FROM files WHERE gone IS NULL`); n != 0 {
		t.Errorf("%d files are still there", n)
	}
	if _, err := s.PyPI().SaveListing(t.Context(), Listing{Fetched: storeEpoch}); err == nil {
		t.Error("a project without a name was stored")
	}
}

func TestFirstListingQuarantined(t *testing.T) {
	s := openTest(t, Options{})
	_, err := s.PyPI().SaveListing(t.Context(), Listing{Project: "p", Serial: 1, Status: "quarantined", Fetched: storeEpoch})
	ok(t, err)
	if _, listed, _ := s.PyPI().ListingSerial(t.Context(), "p"); listed {
		t.Error("a hidden list counts as read")
	}
	if fresh := listFiles(t, s, "p", 2, aFile("p", "1")); !fresh[0].FirstListing {
		t.Error("the first list that was readable is not the first")
	}
}

func TestProvenanceStates(t *testing.T) {
	s := openTest(t, Options{})
	id := listFiles(t, s, "p", 1, named(aFile("p", "1")), aFile("p", "2"))[0].ID
	due := func(at time.Time) int {
		files, err := s.PyPI().PendingProvenance(t.Context(), at, 10)
		ok(t, err)
		return len(files)
	}
	later := storeEpoch.Add(time.Hour)
	if due(storeEpoch) != 0 || due(later) != 1 {
		t.Error("a new file's provenance is due at once, and only where one is named")
	}
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenanceRefused, Fetched: storeEpoch, Error: "403", Retry: later}))
	if due(later.Add(-1)) != 0 || due(later) != 1 {
		t.Error("a refusal is asked again when it was said to be")
	}
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenancePending, Fetched: later, Error: "500"}))
	if due(later.Add(pendingRetry-1)) != 0 || due(later.Add(pendingRetry)) != 1 {
		t.Error("a failure without a time is asked again in an hour")
	}
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenancePresent, Body: []byte("first"), Fetched: later}))
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenanceAbsent, Fetched: later}))
	if n := countRows(t, s, `SELECT count(*) FROM provenance WHERE state = 'present' AND body = CAST('first' AS BLOB)`); n != 1 || due(later) != 0 || due(later.Add(provenanceMissing)) != 1 {
		t.Error("the first answer does not stand")
	}
	if err := s.PyPI().SaveProvenance(t.Context(), 999, Provenance{State: ProvenanceAbsent, Fetched: later}); err == nil {
		t.Error("provenance of no file was stored")
	}
}

func TestProvenanceAddressWithdrawn(t *testing.T) {
	s := openTest(t, Options{})
	f := named(aFile("p", "1"))
	id := listFiles(t, s, "p", 1, f)[0].ID
	f.ProvenanceURL = ""
	listFiles(t, s, "p", 2, f)
	if state := provenanceState(t, s, id); state != "absent" {
		t.Errorf("nothing is left to ask, and yet it is %s", state)
	}
}

func TestLookups(t *testing.T) {
	s := openTest(t, Options{})
	fresh := listFiles(t, s, "p", 1, named(aFile("p", "1")), aFile("p", "2"))
	ok(t, s.SetLookupServers(t.Context(), []string{"a", "b"}, nil))
	fresh = append(fresh, listFiles(t, s, "p", 2, named(aFile("p", "1")), aFile("p", "2"), aFile("p", "3"))...)
	now := storeEpoch.Add(2 * time.Hour)
	due := func(server string) []Lookup {
		t.Helper()
		due, err := s.DueLookups(t.Context(), server, now, 10)
		ok(t, err)
		return due
	}
	if got := due("a"); len(got) != 2 {
		t.Fatalf("%d due, want those whose provenance is known", len(got))
	}
	leaf := ProvenanceLeaf{KeyID: [32]byte{1}, Global: 7, Hash: [32]byte{2}, Predicate: "p", Publisher: "{}"}
	ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, Provenance{State: ProvenancePresent, Fetched: now, Leaves: []ProvenanceLeaf{leaf}}))
	got := due("a")
	if len(got) != 3 {
		t.Fatalf("%d due", len(got))
	}
	for _, l := range got {
		if l.File.ID == fresh[0].ID && cmp.Diff([]ProvenanceLeaf{leaf}, l.Leaves) != "" {
			t.Errorf("leaves: %s", cmp.Diff([]ProvenanceLeaf{leaf}, l.Leaves))
		}
	}
	ok(t, s.LookupDone(t.Context(), got[0], LookupAnswer{At: now, Next: now.Add(time.Minute), Err: "the server is down"}))
	ok(t, s.LookupDone(t.Context(), got[1], LookupAnswer{At: now, Found: map[LookupKind]int{LookupDigest: 3}}))
	ok(t, s.LookupDone(t.Context(), got[1], LookupAnswer{At: now, Found: map[LookupKind]int{LookupDigest: 3}}))
	if n := len(due("a")); n != 1 {
		t.Errorf("%d due after one answer and one failure", n)
	}
	if n := len(due("b")); n != 3 {
		t.Errorf("%d due on the other server", n)
	}
	if n := countRows(t, s, `SELECT count(*) FROM lookups WHERE step = 1 AND found = 3`); n != 1 {
		t.Errorf("%d answered", n)
	}
	asked, err := s.LookupsOf(t.Context(), got[1].File.ID)
	ok(t, err)
	kinds := []KindAsked{{Kind: LookupDigest, First: now, Last: now, Times: 1, Found: 3}}
	if diff := cmp.Diff([]Asked{{Server: "a", Answered: 1, At: now, Found: 3, Kinds: kinds}, {Server: "b"}}, asked); diff != "" {
		t.Errorf("asked: %s", diff)
	}
	ok(t, s.LookupFailed(t.Context(), "a", now, "down"))
	ok(t, s.LookupFailed(t.Context(), "a", now.Add(time.Minute), "still down"))
	summary, err := s.LookupSummary(t.Context())
	ok(t, err)
	if diff := cmp.Diff([]LookupSummary{
		{Server: "a", Files: LookupCounts{Due: 1, Unanswered: 2, Found: 1, Failed: 1}, Answered: now, Failing: now, Error: "still down"},
		{Server: "b", Files: LookupCounts{Due: 3, Unanswered: 3}},
	}, summary); diff != "" {
		t.Errorf("summary: %s", diff)
	}
	now = now.Add(time.Minute)
	if again := due("a"); len(again) != 2 || again[1].Step != 0 {
		t.Errorf("after the pause: %+v", again)
	}
	// A server that is no longer asked holds nothing up.
	ok(t, s.SetLookupServers(t.Context(), []string{"a"}, nil))
	if n := len(due("b")); n != 0 || countRows(t, s, `SELECT count(*) FROM lookups WHERE server = 'b'`) != 0 {
		t.Errorf("%d due on a dropped server", n)
	}
}

func TestJournal(t *testing.T) {
	s := openTest(t, Options{})
	if _, found, err := s.PyPI().Serial(t.Context()); found || err != nil {
		t.Errorf("a serial before any: %v", err)
	}
	ok(t, s.PyPI().SaveJournal(t.Context(), nil, 100))
	v := "1.0"
	rows := []JournalRow{{Serial: 101, Project: "p", Name: "P", Version: &v, At: storeEpoch, Action: "new release"}, {Serial: 102, Project: "p", Name: "P", At: storeEpoch, Action: "remove project"}}
	ok(t, s.PyPI().SaveJournal(t.Context(), rows, 102))
	ok(t, s.PyPI().SaveJournal(t.Context(), rows, 101))
	if serial, found, err := s.PyPI().Serial(t.Context()); serial != 102 || !found || err != nil {
		t.Errorf("serial %d %v %v", serial, found, err)
	}
	if n := countRows(t, s, `SELECT count(*) FROM journal WHERE (version IS NULL) = (serial = 102)`); n != 2 {
		t.Errorf("%d rows as they were", n)
	}
}
