package index

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An eventWorld is a package index as a test tells it, a minute between two answers.
type eventWorld struct {
	*testing.T
	s   *Store
	now time.Time
}

func newEventWorld(t *testing.T) *eventWorld {
	w := &eventWorld{T: t, now: storeEpoch}
	w.s = openTest(t, Options{Now: func() time.Time { return w.now }})
	return w
}

// list saves a listing, twice: the same answer again says nothing new.
func (w *eventWorld) list(serial int64, status string, files ...File) {
	w.Helper()
	w.save(Listing{Project: "p", Serial: serial, Status: status, Files: files})
}

func (w *eventWorld) save(l Listing) {
	w.Helper()
	w.now = w.now.Add(time.Minute)
	l.Fetched = w.now
	for range 2 {
		_, err := w.s.PyPI().SaveListing(w.Context(), l)
		ok(w, err)
	}
}

func (w *eventWorld) journal(serial int64, version, action string) {
	w.Helper()
	row := JournalRow{Serial: serial, Project: "p", Name: "P", At: storeEpoch.Add(time.Duration(serial) * time.Second), Action: action}
	if version != "" {
		row.Version = &version
	}
	for range 2 {
		ok(w, w.s.PyPI().SaveJournal(w.Context(), []JournalRow{row}, serial))
	}
}

// provenance saves an answer of the integrity API about the file of a version.
func (w *eventWorld) provenance(version string, state ProvenanceState, body string) {
	w.Helper()
	w.now = w.now.Add(time.Minute)
	p := Provenance{State: state, Fetched: w.now}
	if body != "" {
		p.Body = []byte(body)
	}
	ok(w, w.s.PyPI().SaveProvenance(w.Context(), storedFiles(w, w.s, "p")[aFile("p", version).Name].ID, p))
}

func (w *eventWorld) events() (lines []string) {
	w.Helper()
	n := int64(0)
	ok(w, w.s.Events(w.Context(), EventQuery{Project: "p"}, func(e PyPIEvent) error {
		if e.N != n+1 {
			w.Errorf("event %d after %d", e.N, n)
		}
		n = e.N
		if e.Kind == EventFileListed {
			return nil // every test has some
		}
		lines = append(lines, line(e))
		return nil
	}))
	return lines
}

// line is "kind version before→after first(minutes) | source serial | journal's action".
func line(e PyPIEvent) string {
	s := fmt.Sprintf("%s %s", e.Kind, e.Version)
	if e.Before != nil || e.After != nil {
		quote := func(s *string) string {
			if s == nil {
				return "-"
			}
			if len(*s) == 64 {
				return (*s)[:4]
			}
			return strings.TrimPrefix(*s, "https://")
		}
		s += fmt.Sprintf(" %s→%s", quote(e.Before), quote(e.After))
	}
	if !e.First.IsZero() {
		s += fmt.Sprintf(" seen first %v before", e.At.Sub(e.First))
	}
	s += fmt.Sprintf(" | %s %d", e.Source, e.Serial)
	if e.Cause != nil {
		s += fmt.Sprintf(" | %d %s", e.Cause.Serial, e.Cause.Action)
	}
	return s
}

func yanked(f File, reason string) File { f.Yanked = &reason; return f }

func TestEvents(t *testing.T) {
	one, two := aFile("p", "1"), aFile("p", "2")
	moved, grown, other, later := one, one, one, one
	moved.URL, grown.Size, other.SHA256, later.Uploaded = "https://files.example/elsewhere", 2000, two.SHA256, one.Uploaded.Add(time.Second)
	address := "pypi.example/integrity/" + one.Name
	digests := map[string]string{"a": "ca97", "b": "3e23"} // of the objects "a" and "b"

	for _, test := range []struct {
		name string
		play func(w *eventWorld)
		want []string
	}{
		{"yank, another reason, unyank", func(w *eventWorld) {
			w.list(10, "active", one)
			w.journal(11, "1.0", "yank release")
			w.list(11, "active", yanked(one, "bad"))
			w.list(12, "active", yanked(one, "worse"))
			w.list(13, "active", one)
			w.journal(13, "1", "unyank release") // too late for the listing, not for the event
		}, []string{
			"yanked 1 -→bad | listing 11 | 11 yank release",
			"yank-reason-changed 1 bad→worse | listing 12",
			"unyanked 1 worse→- | listing 13 | 13 unyank release",
		}},
		{"yanked when first listed", func(w *eventWorld) {
			w.list(10, "active", yanked(one, ""))
			w.journal(7, "1", "yank release")
			w.journal(8, "1", "unyank release")
			w.journal(9, "1", "yank release")
		}, []string{"yanked 1 -→ | listing 10 | 9 yank release"}},
		{"address, size, upload time", func(w *eventWorld) {
			w.list(10, "active", one)
			w.list(11, "active", moved)
			w.list(12, "active", grown)
			w.list(13, "active", later)
		}, []string{
			"url-changed 1 files.example/p-1.tar.gz→files.example/elsewhere | listing 11",
			"url-changed 1 files.example/elsewhere→files.example/p-1.tar.gz | listing 12",
			"size-changed 1 1000→2000 | listing 12",
			"size-changed 1 2000→1000 | listing 13",
			"upload-time-changed 1 2026-03-01T12:00:00Z→2026-03-01T12:00:01Z | listing 13",
		}},
		{"another file of the name", func(w *eventWorld) {
			w.list(10, "active", one)
			w.list(11, "active", other)
		}, []string{
			fmt.Sprintf("sha256-changed 1 %.2x→%.2x | listing 11", one.SHA256[:], two.SHA256[:]),
			"removed 1 | listing 11",
		}},
		{"a file is removed, and the journal has said so", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.journal(11, "1", "remove file "+one.Name)
			w.journal(12, "1", "remove release")
			w.list(12, "active", two)
			w.list(13, "active", one, two)
		}, []string{
			"release-removed 1 | journal 12 | 12 remove release",
			"removed 1 | listing 12 | 11 remove file p-1.tar.gz",
			"restored 1 | listing 13",
		}},
		{"a release is removed, and the journal says so later", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.list(12, "active", two)
			w.journal(9, "1", "remove release") // of a time when it was listed still
			w.journal(12, "1", "remove release")
			w.journal(13, "1", "remove release")
		}, []string{
			"removed 1 | listing 12 | 12 remove release",
			"release-removed 1 | journal 9 | 9 remove release",
			"release-removed 1 | journal 12 | 12 remove release",
			"release-removed 1 | journal 13 | 13 remove release",
		}},
		{"a file that came and went between two looks", func(w *eventWorld) {
			w.list(10, "active", one)
			w.journal(12, "3", "remove file p-3.tar.gz")
		}, []string{"removed 3 p-3.tar.gz→- | journal 12 | 12 remove file p-3.tar.gz"}},
		{"the project is quarantined and cleared", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.journal(11, "", "project quarantined")
			w.list(11, "quarantined")
			w.list(12, "active", one, two)
			w.journal(12, "", "project quarantine cleared")
		}, []string{
			"quarantined  | journal 11 | 11 project quarantined",
			"status-changed  active→quarantined | listing 11 | 11 project quarantined",
			"status-changed  quarantined→active | listing 12 | 12 project quarantine cleared",
			"quarantine-cleared  | journal 12 | 12 project quarantine cleared",
		}},
		{"a release is quarantined and cleared", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.journal(11, "1", "release quarantined")
			w.list(11, "active", two)
			w.list(12, "active", yanked(two, "")) // hidden still
			w.journal(13, "1", "release quarantine cleared")
			w.list(13, "active", one, yanked(two, ""))
		}, []string{
			"release-quarantined 1 | journal 11 | 11 release quarantined",
			"hidden 1 | listing 11 | 11 release quarantined",
			"yanked 2 -→ | listing 12",
			"release-quarantine-cleared 1 | journal 13 | 13 release quarantine cleared",
			"restored 1 | listing 13 | 13 release quarantine cleared",
		}},
		{"the same, and the journal comes later", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.list(11, "active", two)
			w.journal(11, "1", "release quarantined")
			w.list(13, "active", one, two)
			w.journal(13, "1", "release quarantine cleared")
		}, []string{
			"hidden 1 | listing 11 | 11 release quarantined",
			"release-quarantined 1 | journal 11 | 11 release quarantined",
			"restored 1 | listing 13 | 13 release quarantine cleared",
			"release-quarantine-cleared 1 | journal 13 | 13 release quarantine cleared",
		}},
		{"a quarantined release is removed", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.journal(11, "1", "release quarantined")
			w.list(11, "active", two)
			w.journal(12, "1", "remove release")
			w.list(12, "active", two)
		}, []string{
			"release-quarantined 1 | journal 11 | 11 release quarantined",
			"hidden 1 | listing 11 | 11 release quarantined",
			"release-removed 1 | journal 12 | 12 remove release",
			"removed 1 seen first 1m0s before | listing 12 | 12 remove release",
		}},
		{"the same, and the journal comes later still", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.journal(11, "1", "release quarantined")
			w.list(12, "active", two)
			w.journal(12, "1", "remove release")
		}, []string{
			"release-quarantined 1 | journal 11 | 11 release quarantined",
			"hidden 1 | listing 12 | 11 release quarantined",
			"removed 1 | journal 12 | 12 remove release",
			"release-removed 1 | journal 12 | 12 remove release",
		}},
		{"archived", func(w *eventWorld) {
			w.list(10, "active", one)
			w.list(11, "archived", one)
			w.list(12, "", one)
		}, []string{"status-changed  active→archived | listing 11", "status-changed  archived→- | listing 12"}},
		{"the project is removed, and the name goes to somebody else", func(w *eventWorld) {
			w.journal(9, "", "create")
			w.list(10, "active", one)
			w.journal(12, "", "remove project")
			w.save(Listing{Project: "p", Serial: 12, Removed: true})
			w.journal(14, "", "create")
			w.list(14, "active", two)
		}, []string{
			"project-removed  | journal 12 | 12 remove project",
			"removed 1 | listing 12 | 12 remove project",
			"project-created-again  | journal 14 | 14 create",
		}},
		{"the same, and the journal comes later", func(w *eventWorld) {
			w.list(10, "active", one)
			w.save(Listing{Project: "p", Serial: 12, Removed: true})
			w.journal(12, "", "remove project")
			w.list(14, "active", two)
			w.journal(14, "", "create")
		}, []string{
			"project-removed  | listing 12 | 12 remove project",
			"removed 1 | listing 12 | 12 remove project",
			"project-created-again  | listing 14 | 14 create",
		}},
		{"a stale listing", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.list(9, "archived")
		}, nil},
		{"another listing of the same serial", func(w *eventWorld) {
			w.list(10, "active", one, two)
			w.list(10, "active", yanked(one, ""))
			w.list(10, "active", one, two)
			w.list(10, "archived", two)
			w.list(10, "archived", two)
		}, []string{
			"removed 1 seen first 1m0s before | listing 10",
			"status-changed  active→archived seen first 1m0s before | listing 10",
		}},
		{"no serials", func(w *eventWorld) {
			w.list(0, "", one, two)
			w.list(0, "", yanked(two, "")) // without one
			w.list(0, "", one, two)
			w.list(0, "", two)
			w.list(0, "", two)
			w.list(0, "", one, two)
			w.save(Listing{Project: "p", Removed: true})
			w.list(0, "", one)
		}, []string{
			"yanked 2 -→ | listing 0",
			"unyanked 2 →- | listing 0",
			"removed 1 seen first 1m0s before | listing 0",
			"restored 1 | listing 0",
			"project-removed  | listing 0",
			"removed 1 | listing 0",
			"removed 2 | listing 0",
			"project-created-again  | listing 0",
			"restored 1 | listing 0",
		}},
		{"provenance is named, seen, changed, and named no more", func(w *eventWorld) {
			w.list(10, "active", one)
			w.list(11, "active", named(one))
			w.provenance("1", ProvenancePresent, "a")
			w.provenance("1", ProvenancePresent, "a")
			w.provenance("1", ProvenancePresent, "b")
			w.provenance("1", ProvenancePresent, "a")
			w.list(12, "active", one)
		}, []string{
			"provenance-named 1 -→" + address + " | listing 11",
			"provenance-seen 1 -→" + digests["a"] + " | integrity 0",
			"provenance-changed 1 " + digests["a"] + "→" + digests["b"] + " | integrity 0",
			"provenance-changed 1 " + digests["b"] + "→" + digests["a"] + " | integrity 0",
			"provenance-withdrawn 1 " + address + "→- | listing 12",
		}},
		{"provenance is named and not there", func(w *eventWorld) {
			w.list(10, "active", named(one))
			w.provenance("1", ProvenanceRefused, "")
			w.provenance("1", ProvenanceAbsent, "")
			w.provenance("1", ProvenanceAbsent, "")
		}, []string{"provenance-named 1 -→" + address + " | listing 10", "provenance-withdrawn 1 " + address + "→- | integrity 0"}},
		{"provenance is no longer there", func(w *eventWorld) {
			w.list(10, "active", named(one))
			w.provenance("1", ProvenancePresent, "a")
			w.provenance("1", ProvenanceAbsent, "")
			w.provenance("1", ProvenanceAbsent, "") // the same old copy
			w.now = w.now.Add(time.Hour)
			w.provenance("1", ProvenanceAbsent, "")
		}, []string{
			"provenance-named 1 -→" + address + " | listing 10",
			"provenance-seen 1 -→" + digests["a"] + " | integrity 0",
			"provenance-withdrawn 1 " + address + "→- seen first 1h2m0s before | integrity 0",
		}},
		{"provenance was not found once", func(w *eventWorld) {
			w.list(10, "active", named(one))
			w.provenance("1", ProvenancePresent, "a")
			w.provenance("1", ProvenanceAbsent, "")
			w.now = w.now.Add(time.Hour)
			w.provenance("1", ProvenancePresent, "a")
			w.provenance("1", ProvenanceAbsent, "")
		}, []string{"provenance-named 1 -→" + address + " | listing 10", "provenance-seen 1 -→" + digests["a"] + " | integrity 0"}},
		{"provenance goes with its file", func(w *eventWorld) {
			w.list(10, "active", named(one), two)
			w.provenance("1", ProvenancePresent, "a")
			w.list(11, "active", two)
			w.provenance("1", ProvenanceAbsent, "")
			w.now = w.now.Add(time.Hour)
			w.provenance("1", ProvenanceAbsent, "")
		}, []string{"provenance-named 1 -→" + address + " | listing 10", "provenance-seen 1 -→" + digests["a"] + " | integrity 0", "removed 1 | listing 11"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newEventWorld(t)
			test.play(w)
			if diff := cmp.Diff(test.want, w.events()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if n := countRows(t, w.s, `SELECT count(*) FROM listing_doubts`); n != 0 {
				t.Errorf("%d listings are in doubt", n)
			}
		})
	}
}

func TestEventQuery(t *testing.T) {
	w := newEventWorld(t)
	one, two := aFile("p", "1"), aFile("p", "2")
	w.list(10, "active", one, two)
	w.list(11, "active", yanked(one, ""), two)
	w.list(12, "active", yanked(one, ""))
	w.list(13, "archived", yanked(one, ""), two)
	id := storedFiles(t, w.s, "p")[one.Name].ID
	minute := func(n int) time.Time { return storeEpoch.Add(time.Duration(n) * time.Minute) }
	for want, q := range map[string]EventQuery{
		"file-listed file-listed yanked removed restored status-changed": {},
		"yanked removed":          {From: minute(2), To: minute(4)},
		"file-listed file-listed": {Limit: 2},
		"yanked":                  {After: 2, Limit: 1},
		"file-listed yanked":      {File: id},
		"":                        {Index: "elsewhere"},
	} {
		q.Project = "p"
		var kinds []string
		ok(t, w.s.Events(t.Context(), q, func(e PyPIEvent) error {
			kinds = append(kinds, string(e.Kind))
			return nil
		}))
		if got := strings.Join(kinds, " "); got != want {
			t.Errorf("%+v: %s, want %s", q, got, want)
		}
	}
}

// A file's provenance is asked for again when the listing says something new about it,
// and each object that comes is kept as it was.
func TestProvenanceObjects(t *testing.T) {
	w := newEventWorld(t)
	f := named(aFile("p", "1"))
	w.list(10, "active", f)
	id := storedFiles(t, w.s, "p")[f.Name].ID
	due := func() int {
		files, err := w.s.PyPI().PendingProvenance(t.Context(), w.now, 10)
		ok(t, err)
		return len(files)
	}
	bodies := []string{"\x00 no provenance", "{}\n", "{} "}
	w.provenance("1", ProvenanceUnreadable, bodies[0])
	if n := due(); n != 0 {
		t.Fatalf("%d due", n)
	}
	for i, body := range bodies[1:] {
		f.ProvenanceURL += "/again"
		w.list(int64(11+i), "active", f)
		if n := due(); n != 1 {
			t.Fatalf("%d due after a change of its address", n)
		}
		w.provenance("1", ProvenancePresent, body)
		if n := due(); n != 0 || provenanceState(t, w.s, id) != "present" {
			t.Fatalf("%d due, %s", n, provenanceState(t, w.s, id))
		}
	}
	f.ProvenanceURL = ""
	w.list(20, "active", f)
	if n := due(); n != 0 || provenanceState(t, w.s, id) != "present" {
		t.Errorf("%d due, and what was seen is %s", n, provenanceState(t, w.s, id))
	}
	var got []string
	ok(t, w.s.ProvenanceObjects(t.Context(), id, func(o ProvenanceObject) error {
		got = append(got, string(o.Body))
		if o.SHA256 != sha256.Sum256(o.Body) || o.Seen.IsZero() {
			t.Errorf("object %x, seen %v", o.SHA256, o.Seen)
		}
		return nil
	}))
	if diff := cmp.Diff(bodies, got); diff != "" {
		t.Errorf("objects: %s", diff)
	}
	// The one that counts is the first that could be read.
	if n := countRows(t, w.s, `SELECT count(*) FROM provenance WHERE body = CAST(? AS BLOB)`, bodies[1]); n != 1 {
		t.Error("another object took the place of the first readable one")
	}
}

func TestSecondLook(t *testing.T) {
	w := newEventWorld(t)
	one, two := aFile("p", "1"), aFile("p", "2")
	expect := func(want time.Duration) {
		t.Helper()
		due, err := w.s.PyPI().SecondLook(t.Context(), "p")
		if ok(t, err); due.IsZero() != (want == 0) || !due.IsZero() && due.Sub(w.now) != want {
			t.Errorf("due %v, want it in %v", due, want)
		}
	}
	w.list(10, "active", one, two)
	expect(0)
	w.list(10, "active", one)
	expect(secondLook)
	// One that says something else each time is asked less and less.
	w.list(10, "active", two)
	expect(2 * secondLook)
	w.list(10, "archived", two)
	expect(4 * secondLook)
	w.list(10, "active", one, two)
	if expect(0); len(w.events()) != 0 {
		t.Errorf("back to what it was, and yet: %q", w.events())
	}
	other, err := w.s.Catalogue(t.Context(), "mirror", "https://mirror.example")
	ok(t, err)
	for _, files := range [][]File{{one, two}, {one}} {
		_, err := other.SaveListing(t.Context(), Listing{Project: "p", Files: files, Fetched: w.now})
		ok(t, err)
	}
	if due, err := other.SecondLook(t.Context(), "p"); err != nil || due.Sub(w.now) != secondLook {
		t.Errorf("of the mirror due at %v, %v", due, err)
	}
	expect(0)
}

// A database from before has its past in its columns.
func TestEventsMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	db, err := sql.Open("sqlite3", path)
	ok(t, err)
	p, err := provider(db)
	ok(t, err)
	_, err = p.UpTo(t.Context(), 4)
	ok(t, err)
	for _, q := range []string{
		`INSERT INTO projects (id, name, serial, status, first_seen, listed) VALUES (7, 'p', 40, 'active', 1, 2)`,
		`INSERT INTO files (id, project_id, version, filename, sha256, size, url, first_seen, gone, first_listing) VALUES
			(3, 7, '1', 'p-1.tar.gz', zeroblob(32), 5, 'u', 60000000, NULL, 1), (4, 7, '2', 'p-2.tar.gz', zeroblob(32), 5, 'u', 30000000, 90000000, 1)`,
		`INSERT INTO provenance (file_id, state, fetched, body) VALUES (3, 'present', 70000000, x'7b7d'), (4, 'absent', 70000000, NULL)`,
	} {
		_, err := db.Exec(q)
		ok(t, err)
	}
	ok(t, db.Close())
	s := openAt(t, path, Options{})
	events := func() (lines []string) {
		ok(t, s.Events(t.Context(), EventQuery{Project: "p"}, func(e PyPIEvent) error {
			lines = append(lines, fmt.Sprintf("%d %s %s %s %s", e.N, e.At.Format(time.TimeOnly), e.Kind, e.File, e.Source))
			return nil
		}))
		return lines
	}
	want := []string{"1 00:00:30 file-listed p-2.tar.gz listing", "2 00:01:00 file-listed p-1.tar.gz listing", "3 00:01:10 provenance-seen p-1.tar.gz integrity", "4 00:01:30 removed p-2.tar.gz listing"}
	if diff := cmp.Diff(want, events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	listFiles(t, s, "p", 41)
	if got := events(); len(got) != 5 || !strings.HasSuffix(got[4], "removed p-1.tar.gz listing") {
		t.Errorf("after another listing: %q", got)
	}
}
