package index

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sigtrail/monitor"
)

// What a project waits for is counted, and said file by file with the reason.
func TestUnresolved(t *testing.T) {
	s := openTest(t, Options{})
	ok(t, s.SetLookupServers(t.Context(), []string{"https://v1.example"}, nil))
	bound, other, ahead, strange := named(aFile("p", "1")), named(aFile("p", "2")), named(aFile("p", "3")), named(aFile("p", "4"))
	pending, refused := named(aFile("p", "5")), named(aFile("p", "6"))
	files := listFiles(t, s, "p", 1, bound, other, ahead, strange, pending, refused, aFile("p", "7"))
	by := newSigning(t, "o/r")
	b := begin(t, s, testLog).batch(t, by.attest(t, bound), by.noise(1))
	ok(t, s.Commit(t.Context(), b))
	const publisher = `{"kind":"GitHub","repository":"o/r","workflow":"release.yml"}`
	for i, leaf := range []ProvenanceLeaf{
		{KeyID: testLog.KeyID, Global: 0, Hash: b.Hashes[0]},
		{KeyID: testLog.KeyID, Global: 1, Hash: monitor.Hash{1}}, // another is there: wanted again first
		{KeyID: testLog.KeyID, Global: 2, Hash: monitor.Hash{2}},
		{KeyID: monitor.Hash{0xff, 9}, Global: 7, Hash: monitor.Hash{3}},
	} {
		leaf.Publisher = publisher
		ok(t, s.PyPI().SaveProvenance(t.Context(), files[i].ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}"), Leaves: []ProvenanceLeaf{leaf}}))
	}
	ok(t, s.PyPI().SaveProvenance(t.Context(), files[5].ID, Provenance{State: ProvenanceRefused, Fetched: storeEpoch, Error: "403", Retry: storeEpoch.Add(time.Hour)}))
	look := func() (kinds []string) {
		all, err := s.Unresolved(t.Context(), "", "p", 100)
		ok(t, err)
		for _, u := range all {
			if u.Kind != UnresolvedLookup {
				kinds = append(kinds, fmt.Sprintf("%s %s %s", u.Version, u.Kind, u.Where))
			} else if u.Where != "https://v1.example" {
				t.Errorf("%+v", u)
			}
		}
		o, found, err := s.Overview(t.Context(), "", "p")
		ok(t, err)
		if !found || o.Missing.Sum() != len(all) || o.Missing != (Missing{Pending: 1, Refused: 1, Leaves: 3, Unanswered: 7}) {
			t.Errorf("%d are listed, and counted are %+v", len(all), o.Missing)
		}
		return kinds
	}
	want := []string{"2 leaf-wanted log.example", "3 log-not-covered log.example", "4 log-unknown ", "5 provenance-pending ", "6 provenance-refused "}
	if got := look(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ok(t, s.write(t.Context(), "test", func(t *tx) error { // as when it has been read again
		_, err := t.exec(`DELETE FROM wanted`)
		return err
	}))
	want[0] = "2 leaf-not-in-log log.example"
	if got := look(); !slices.Equal(got, want) {
		t.Errorf("read again: %q, want %q", got, want)
	}

	o, _, err := s.Overview(t.Context(), "", "p")
	ok(t, err)
	var words []string
	for _, st := range o.Standings {
		words = append(words, fmt.Sprint(st.Version, st.Words))
	}
	if want := []string{"1[full]", "2[full]", "3[full]", "4[full]", "5[pending]", "6[pending]", "7[none lost]"}; !slices.Equal(words, want) {
		t.Errorf("releases %q, want %q", words, want)
	}
	if o.Publishers != 1 || o.Unjudged == 0 || !o.Listed.Equal(storeEpoch.Add(time.Second)) {
		t.Errorf("%+v", o)
	}
}

// The same name in two indexes is two projects; pages cross from one to the other.
func TestOverviewPages(t *testing.T) {
	s := openTest(t, Options{})
	company, err := s.Catalogue(t.Context(), "company", "https://company.example")
	ok(t, err)
	for _, name := range []string{"b", "a", "c"} {
		listFiles(t, s, name, 1, aFile(name, "1"))
		_, err := company.SaveListing(t.Context(), Listing{Project: name, Files: []File{aFile(name, "2")}, Fetched: storeEpoch})
		ok(t, err)
	}
	read := func(index *string, limit int) (names []string) {
		for key := new(ProjectKey); key != nil; {
			page, next, err := s.Overviews(t.Context(), index, *key, limit)
			ok(t, err)
			if len(page) > limit {
				t.Fatalf("a page of %d, limit %d", len(page), limit)
			}
			for _, o := range page {
				names = append(names, Qualified(o.Index, o.Project)+" "+o.Standings[0].Version)
			}
			key = next
		}
		return names
	}
	all := []string{"a 1", "b 1", "c 1", "company/a 2", "company/b 2", "company/c 2"}
	pypi, named := PyPI, "company"
	for limit := 1; limit <= 7; limit++ {
		if got := read(nil, limit); !slices.Equal(got, all) {
			t.Errorf("limit %d: %q", limit, got)
		}
		if got := read(&pypi, limit); !slices.Equal(got, all[:3]) {
			t.Errorf("PyPI, limit %d: %q", limit, got)
		}
		if got := read(&named, limit); !slices.Equal(got, all[3:]) {
			t.Errorf("company, limit %d: %q", limit, got)
		}
	}
	if _, found, err := s.Overview(t.Context(), "nosuch", "a"); found || err != nil {
		t.Errorf("a project of no index: %v %v", found, err)
	}
}

// A name in a certificate that nobody vouches for counts for nothing.
func TestSignings(t *testing.T) {
	s := openTest(t, Options{})
	listFiles(t, s, "p", 1, aFile("p", "1"), aFile("p", "2"))
	l := begin(t, s, testLog)
	good, copied := newSigning(t, "o/r"), newSigning(t, "evil/r")
	copied.key = newSigning(t, "evil/r").key // signs with another key than the certificate's
	ok(t, s.Commit(t.Context(), l.batch(t, good.attest(t, aFile("p", "1")), good.attest(t, aFile("p", "2")), copied.attest(t, aFile("p", "1")))))
	for selector, want := range map[string]int{"": 2, "O/R": 1, "github.com/evil": 1, "42": 2, "7": 2, "p": 2, "nosuch": 0, "%": 0, "token.actions": 2, "4": 0} {
		got, err := s.Signings(t.Context(), selector, 0, 10)
		ok(t, err)
		if selector == "p" { // "p" is in every address too
			got = slices.DeleteFunc(got, func(v Signing) bool { return v.Entries == 0 })
			want = 1
		}
		if len(got) != want {
			t.Errorf("%q: %d publishers, want %d", selector, len(got), want)
		}
	}
	all, err := s.Signings(t.Context(), "", 0, 10)
	ok(t, err)
	for _, v := range all {
		one, found, err := s.SigningOf(t.Context(), v.ID)
		ok(t, err)
		names, err := s.ProjectsOf(t.Context(), v.ID, 10)
		ok(t, err)
		vouched := v.Publisher.Repository == "https://github.com/o/r"
		if !found || one != v || vouched && (v.Entries != 2 || v.Projects != 1 || !slices.Equal(names, []string{"p"}) || v.SeenFirst.IsZero() || v.SignedFirst.IsZero()) || !vouched && (v.Entries != 0 || len(names) != 0) {
			t.Errorf("%+v, by itself %+v, projects %q", v, one, names)
		}
	}
	mine, err := s.ProjectSignings(t.Context(), "", "p", 10)
	ok(t, err)
	if len(mine) != 1 || mine[0].Entries != 2 {
		t.Errorf("publishers of the project: %+v", mine)
	}
}
