package index

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"
)

// waitingProjects fills the store with listed projects of one file each that waits for
// its look-up, and that no process has had news of.
func waitingProjects(t testing.TB, s *Store, n int) {
	t.Helper()
	ok(t, s.write(t.Context(), "listing many projects", func(t *tx) error {
		for i := range n {
			if _, err := t.exec(`INSERT INTO projects (index_id, name, first_seen, listed) VALUES (0, ?, 0, 1)`, fmt.Sprintf("waiting-%d", i)); err != nil {
				return err
			}
			var id int64
			if err := t.get(`SELECT max(id) FROM projects`, nil, &id); err != nil {
				return err
			}
			file := id<<projectBits | 1
			sum := sha256.Sum256(fmt.Append(nil, i))
			for _, q := range []struct {
				query string
				args  []any
			}{
				{`INSERT INTO files (id, project_id, version, filename, sha256, size, url, first_seen, first_listing) VALUES (?, ?, '1', ?, ?, 1, '', 0, 1)`, []any{file, id, fmt.Sprintf("waiting-%d-1.tar.gz", i), sum[:]}},
				{`INSERT INTO provenance (file_id, state) VALUES (?, 'absent')`, []any{file}},
				{`INSERT INTO lookups (file_id, server, next) VALUES (?, 'a', 0)`, []any{file}},
			} {
				if _, err := t.exec(q.query, q.args...); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// answered has the look-ups of a project answered by another process.
func answered(t testing.TB, s *Store, project string) {
	t.Helper()
	ok(t, s.write(t.Context(), "answering", func(t *tx) error {
		_, err := t.exec(`UPDATE lookups SET step = 1 WHERE file_id IN (SELECT f.id FROM files f JOIN projects p ON p.id = f.project_id WHERE p.name = ?)`, project)
		return err
	}))
}

// round is what a call gives that may examine so many projects in their turn.
func round(t testing.TB, s *Store, most int) []string {
	t.Helper()
	cases, err := s.Cases(t.Context(), nil, 10, most)
	ok(t, err)
	var projects []string
	for _, c := range cases {
		projects = append(projects, c.File.Project)
		decide(t, s, c, Verdict{})
	}
	return projects
}

func TestTurns(t *testing.T) {
	s := openTest(t, Options{})
	waitingProjects(t, s, 250)
	if got := round(t, s, 100); got != nil {
		t.Fatalf("projects that have to wait were judged: %q", got)
	}
	// What is new does not wait for the others.
	listFiles(t, s, "new", 1, aFile("new", "1"))
	if got := round(t, s, 1); len(got) != 1 || got[0] != "new" {
		t.Errorf("judged %q, want what is new", got)
	}
	// Each of the others has its turn, wherever it stands.
	for _, project := range []string{"waiting-249", "waiting-0", "waiting-99", "waiting-100"} {
		answered(t, s, project)
		rounds := 0
		for ; round(t, s, 10) == nil; rounds++ {
			if rounds > 25 {
				t.Fatalf("%s has had no turn", project)
			}
		}
	}
	answered(t, s, "waiting-7")
	if got := round(t, s, math.MaxInt); len(got) != 1 || got[0] != "waiting-7" {
		t.Errorf("a call that may examine all: judged %q", got)
	}
	if got := round(t, s, math.MaxInt); got != nil {
		t.Errorf("judged twice: %q", got)
	}
}

// A project whose cases cannot be decided holds up no other, whether or not it has
// news.
func TestTurnsPassTheUndecided(t *testing.T) {
	s := openTest(t, Options{})
	listFiles(t, s, "a-stuck", 1, aFile("a-stuck", "1"), aFile("a-stuck", "2"))
	waitingProjects(t, s, 20)
	answered(t, s, "waiting-10")
	stuck, others := 0, 0
	for range 20 {
		cases, err := s.Cases(t.Context(), nil, 2, 10)
		ok(t, err)
		for _, c := range cases {
			if c.File.Project == "a-stuck" {
				stuck++
				continue
			}
			others++
			decide(t, s, c, Verdict{})
		}
	}
	if others != 1 || stuck < 4 {
		t.Errorf("%d cases of others, want 1; %d of the one that cannot be decided, want it to be tried again", others, stuck)
	}
}

// The versions of a project are summed up once for all of its cases, and again when
// there is something new.
func TestSumsAreKept(t *testing.T) {
	const files = 250
	s := openTest(t, Options{})
	var all []File
	for i := range files {
		all = append(all, aFile("p", fmt.Sprint(i)))
	}
	listFiles(t, s, "p", 1, all...)
	first, err := s.Cases(t.Context(), nil, 100, 1)
	ok(t, err)
	second, err := s.Cases(t.Context(), nil, 100, 1)
	ok(t, err)
	if len(first) != 100 || len(second) != 100 || &first[0].Releases[0] != &second[0].Releases[0] {
		t.Error("all files of the project were read again for its next cases")
	}
	listFiles(t, s, "p", 2, append(all, aFile("p", "new"))...)
	third, err := s.Cases(t.Context(), nil, 100, 1)
	ok(t, err)
	if n := len(third[0].Releases); n != files+1 {
		t.Errorf("%d releases, want the new one too: %d", n, files+1)
	}
	for len(round(t, s, 1)) > 0 {
	}
	if s.turns.sums.releases != nil {
		t.Error("what was read is kept when all is judged")
	}
}

// A read that fails loses no news.
func TestNewsSurviveFailure(t *testing.T) {
	s := openTest(t, Options{})
	listFiles(t, s, "p", 1, aFile("p", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Cases(ctx, func(string) bool { cancel(); return false }, 10, 0); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if got := round(t, s, 0); len(got) != 1 || got[0] != "p" {
		t.Errorf("judged %q, want what is new", got)
	}
}

func BenchmarkCases(b *testing.B) {
	for _, most := range []int{RoundProjects, math.MaxInt} {
		b.Run(fmt.Sprint(most), func(b *testing.B) {
			s := openTest(b, Options{})
			waitingProjects(b, s, 50_000)
			serial := int64(0)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				serial++
				listFiles(b, s, "new", serial, aFile("new", fmt.Sprint(serial)))
				b.StartTimer()
				// The round that judges what is new, until nothing is left.
				for judged := 0; ; judged++ {
					n := len(round(b, s, most))
					if n == 0 && judged == 0 {
						b.Fatal("what is new was not judged")
					}
					if n == 0 {
						break
					}
				}
			}
		})
	}
}

// One project with 20,000 files is judged to its end.
func BenchmarkCasesOfOneProject(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := openTest(b, Options{})
		var files []File
		for i := range 20_000 {
			f := aFile("p", fmt.Sprint(i))
			f.Uploaded = f.Uploaded.Add(time.Duration(i) * time.Second)
			files = append(files, f)
		}
		listFiles(b, s, "p", 1, files...)
		b.StartTimer()
		for {
			cases, err := s.Cases(b.Context(), nil, 100, RoundProjects)
			ok(b, err)
			if len(cases) == 0 {
				break
			}
			for _, c := range cases {
				decide(b, s, c, Verdict{})
			}
		}
	}
}
