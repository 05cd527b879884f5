package index

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

func sanOf(repository string) string {
	return "https://github.com/" + repository + "/.github/workflows/release.yml@refs/tags/v1"
}

// scheduled are the names that are due on a server.
func scheduled(t *testing.T, s *Store, server string, now time.Time) []string {
	t.Helper()
	ok(t, s.ScheduleIdentities(t.Context(), now))
	due, err := s.DueIdentities(t.Context(), server, now, 100)
	ok(t, err)
	slices.Sort(due)
	return due
}

func later(n int) time.Time { return storeEpoch.Add(time.Duration(n) * time.Hour) }

func answerIdentity(t *testing.T, s *Store, identity string, a IdentityAnswer) {
	t.Helper()
	if a.Next == nil {
		a.Next = func(int) time.Time { return time.Time{} }
	}
	ok(t, s.IdentityDone(t.Context(), "a", identity, a))
}

// Only names that something ties to the project's files are asked for, and only where
// the search index is asked at all.
func TestIdentitiesOfProject(t *testing.T) {
	trust := &fakeTrust{}
	s := openTest(t, Options{Trust: trust})
	ok(t, s.SetLookupServers(t.Context(), []string{"a", "tailed"}, []string{"a"}))
	files := listFiles(t, s, "p", 1, aFile("p", "1"), aFile("p", "2"))
	tr := begin(t, s, testLog)
	good := newSigning(t, "o/good")
	ok(t, s.Commit(t.Context(), tr.batch(t, good.attest(t, files[0]), good.attest(t, files[1]),
		newSigning(t, "o/artifact").hashedV2(files[0].SHA256, []byte("no signature")), newSigning(t, "o/noise").noise(1))))
	b := tr.batch(t, newSigning(t, "o/candidate").noise(2))
	ok(t, s.Commit(t.Context(), b))
	ok(t, s.CommitFound(t.Context(), proven(b, 0), files[0].ID))
	trust.chain = errors.New("no such authority")
	ok(t, s.Commit(t.Context(), tr.batch(t, newSigning(t, "o/untrusted").attest(t, files[0]))))
	if diff := cmp.Diff([]string{sanOf("o/good")}, scheduled(t, s, "a", later(2))); diff != "" {
		t.Error(diff)
	}
	if due := scheduled(t, s, "tailed", later(2)); due != nil {
		t.Errorf("due on a server that is read whole: %q", due)
	}
	// The authority becomes known.
	trust.chain = nil
	ok(t, s.Reexamine(t.Context()))
	if due := scheduled(t, s, "a", later(2)); !slices.Contains(due, sanOf("o/untrusted")) {
		t.Errorf("due: %q", due)
	}
	// A server that comes later is asked for what was used before; one that goes
	// is asked for nothing.
	ok(t, s.SetLookupServers(t.Context(), []string{"b"}, []string{"b"}))
	if due := scheduled(t, s, "b", later(2)); len(due) != 2 {
		t.Errorf("due on the new server: %q", due)
	}
	if due := scheduled(t, s, "a", later(2)); due != nil {
		t.Errorf("due on a server that is gone: %q", due)
	}
}

// A project that signs every release under another name has only the newest asked
// for, and nobody pushes those out that PyPI itself names.
func TestNewestIdentities(t *testing.T) {
	s := openTest(t, Options{})
	ok(t, s.SetLookupServers(t.Context(), []string{"a"}, []string{"a"}))
	const releases = identitiesPerProject + 5
	var files []File
	for i := range releases {
		f := aFile("p", fmt.Sprint(i))
		f.Uploaded = storeEpoch.Add(time.Duration(i) * time.Hour)
		files = append(files, f)
	}
	files[0] = named(files[0])
	fresh := listFiles(t, s, "p", 1, files...)
	tr := begin(t, s, testLog)
	for i, f := range fresh {
		b := tr.batch(t, newSigning(t, fmt.Sprint("o/r", i)).attest(t, f))
		ok(t, s.Commit(t.Context(), b))
		if i == 0 {
			ok(t, s.PyPI().SaveProvenance(t.Context(), f.ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Leaves: []ProvenanceLeaf{{KeyID: testLog.KeyID, Hash: b.Hashes[0]}}}))
		}
		scheduled(t, s, "a", later(2))
	}
	want := []string{sanOf("o/r0")}
	for i := releases - identitiesPerProject + 1; i < releases; i++ {
		want = append(want, sanOf(fmt.Sprint("o/r", i)))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, scheduled(t, s, "a", later(2))); diff != "" {
		t.Error(diff)
	}
}

// However many files and projects have used a name, it is asked for once.
func TestIdentitiesAreAskedOnce(t *testing.T) {
	s := openTest(t, Options{})
	ok(t, s.SetLookupServers(t.Context(), []string{"a"}, []string{"a"}))
	sg := newSigning(t, "o/r")
	tr := begin(t, s, testLog)
	var leaves [][]byte
	for _, project := range []string{"p", "q"} {
		var files []File
		for i := range 50 {
			files = append(files, aFile(project, fmt.Sprint(i)))
		}
		for _, f := range listFiles(t, s, project, 1, files...) {
			leaves = append(leaves, sg.attest(t, f))
		}
	}
	ok(t, s.Commit(t.Context(), tr.batch(t, leaves...)))
	now := later(2)
	expect := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, scheduled(t, s, "a", now)); diff != "" {
			t.Errorf("due: %s", diff)
		}
	}
	expect(sanOf("o/r"))
	answerIdentity(t, s, sanOf("o/r"), IdentityAnswer{At: now, Found: 7, Next: func(n int) time.Time { return now.Add(time.Duration(n+1) * time.Hour) }})
	expect()
	for _, project := range []string{"p", "q"} {
		got, err := s.IdentitiesOf(t.Context(), "", project)
		ok(t, err)
		if diff := cmp.Diff([]AskedIdentity{{Server: "a", Identity: sanOf("o/r"), First: now, Last: now, Times: 1, Found: 7}}, got); diff != "" {
			t.Errorf("%s: %s", project, diff)
		}
	}
	// The schedule of two steps, then no more.
	for n := range 2 {
		now = now.Add(time.Hour)
		expect(sanOf("o/r"))
		answerIdentity(t, s, sanOf("o/r"), IdentityAnswer{At: now, Next: func(step int) time.Time {
			if step != n+1 {
				t.Errorf("step %d after %d answers", step, n+1)
			}
			if n == 1 {
				return time.Time{}
			}
			return now.Add(time.Hour)
		}})
	}
	now = now.Add(1000 * time.Hour)
	expect()
	// A new file begins it again; those that follow within a minute do not.
	all := []File{}
	for i := range 51 {
		all = append(all, aFile("p", fmt.Sprint(i)))
	}
	listFiles(t, s, "p", 2, all...)
	expect(sanOf("o/r"))
	answerIdentity(t, s, sanOf("o/r"), IdentityAnswer{At: now})
	listFiles(t, s, "p", 3, append(all, aFile("p", "51"))...)
	now = now.Add(identityRest - time.Second)
	expect()
	now = now.Add(time.Second)
	expect(sanOf("o/r"))
	// A failure leaves the question open and the former answer on record.
	answerIdentity(t, s, sanOf("o/r"), IdentityAnswer{At: now, Err: "down", Retry: now.Add(time.Minute)})
	expect()
	now = now.Add(time.Minute)
	expect(sanOf("o/r"))
	got, err := s.IdentitiesOf(t.Context(), "", "p")
	ok(t, err)
	if got[0].Times != 4 || got[0].Error != "down" || !got[0].Last.Equal(now.Add(-time.Minute)) {
		t.Errorf("after a failure: %+v", got[0])
	}
}

func TestUnreadEntries(t *testing.T) {
	s := openTest(t, Options{})
	l := monitor.Log{Origin: "log.example - 7", KeyID: monitor.Hash{1}, API: monitor.V1, URL: "https://log.example", TreeID: 7}
	f := listFiles(t, s, "p", 1, aFile("p", "1"))[0]
	b := begin(t, s, l).batch(t, newSigning(t, "o/r").attestV1(t, f))
	ok(t, s.Commit(t.Context(), b))
	leaf := hex.EncodeToString(b.Hashes[0][:])
	stored, elsewhere := "0000000000000007"+leaf, "0000000000000008"+leaf
	var ids []string
	for i := range 2*idChunk + 1 {
		ids = append(ids, fmt.Sprintf("%080x", i))
	}
	asked := append([]string{stored, elsewhere, leaf}, ids...)
	unread, err := s.UnreadEntries(t.Context(), l.URL, asked)
	ok(t, err)
	if diff := cmp.Diff(asked[1:], unread); diff != "" {
		t.Errorf("unread: %s", diff)
	}
	ok(t, s.EntriesRead(t.Context(), l.URL, append(ids, leaf)))
	ok(t, s.EntriesRead(t.Context(), l.URL, ids))
	if unread, err = s.UnreadEntries(t.Context(), l.URL, asked); err != nil || !slices.Equal(unread, []string{elsewhere}) {
		t.Errorf("unread: %q, %v", unread, err)
	}
	if unread, err = s.UnreadEntries(t.Context(), "https://other.example", []string{stored, ids[0]}); err != nil || len(unread) != 2 {
		t.Errorf("unread of another server: %q, %v", unread, err)
	}
	if _, err := s.UnreadEntries(t.Context(), l.URL, []string{strings.Repeat("z", 64)}); err == nil {
		t.Error("an id that is no hex was looked for")
	}
}
