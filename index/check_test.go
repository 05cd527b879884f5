package index

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigtrail/monitor"
)

// aStore holds one entry of each log, and more pages than one.
func aStore(t *testing.T, path string) *Store {
	t.Helper()
	s := openAt(t, path, Options{})
	f := named(aFile("p", "1"))
	p := listFiles(t, s, "p", 1, f)
	sg := newSigning(t, "o/r")
	v1 := monitor.Log{Origin: "rekor.example", KeyID: monitor.Hash{3}, API: monitor.V1, URL: "https://rekor.example", TreeID: 5, FirstGlobal: 1000}
	tr, tr1 := begin(t, s, testLog), begin(t, s, v1)
	leaves := [][]byte{sg.attest(t, f)}
	for i := range 200 {
		leaves = append(leaves, sg.noise(i))
	}
	ok(t, s.Commit(t.Context(), tr.batch(t, leaves...)))
	ok(t, s.Commit(t.Context(), tr1.batch(t, sg.attestV1(t, f))))
	if n := countRows(t, s, `SELECT count(*) FROM pairs WHERE file_id = ?`, int64(p[0].ID)); n != 2 {
		t.Fatalf("%d pairs", n)
	}
	return s
}

func quiet(string) {}

func TestCheckFindsDamage(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{`SELECT 1`, ""},
		{`UPDATE coverage SET past = first`, "coverage: log"},
		{`UPDATE logs SET range = x''`, "positions: log"},
		{`UPDATE heads SET root = zeroblob(32)`, "positions: log"},
		{`UPDATE heads SET size = 7`, "heads: head"},
		{`UPDATE signers SET fingerprint = zeroblob(32)`, "certificates: certificate"},
		{`UPDATE leaves SET rest = CAST(x'40' || zeroblob(64) AS BLOB)`, "entries: entry"},
		{`UPDATE leaves SET rest = x''`, "entries: entry"},
		{`UPDATE shapes SET text = CAST(text || ' ' AS BLOB)`, "is not the one that was proven"},
		{`UPDATE files SET sha256 = zeroblob(32)`, "is not the one that was proven"},
		{`DELETE FROM coverage`, "is not covered"},
		{`DELETE FROM pairs`, "is bound to no file"},
		{`DELETE FROM leaves`, "has no leaf"},
		{`UPDATE pairs SET form_id = NULL`, "none is named"},
		{`UPDATE pairs SET evidence = 1024`, "not known"},
		{`UPDATE pairs SET file_id = 5`, "refers to none of files"},
		{`DELETE FROM unbound`, "counts: 200 unbound"},
	} {
		path := filepath.Join(t.TempDir(), "a.db")
		s := aStore(t, path)
		for _, query := range []string{`PRAGMA foreign_keys = OFF`, c.query} {
			_, err := s.writer.conn.ExecContext(t.Context(), query)
			ok(t, err)
		}
		damage, err := Check(t.Context(), path, quiet)
		ok(t, err)
		switch text := strings.Join(damage, "\n"); {
		case c.want == "" && text != "":
			t.Errorf("a whole database: %s", text)
		case !strings.Contains(text, c.want):
			t.Errorf("%s: %q, want %q", c.query, text, c.want)
		}
	}
}

// Whichever page of the file goes bad, the check ends and says so.
func TestCheckDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	ok(t, aStore(t, path).Close())
	whole, err := os.ReadFile(path)
	ok(t, err)
	quietly := 0
	for at := 0; at < len(whole); at += 5 * 4096 {
		bad := slices.Clone(whole)
		for i := range 64 {
			bad[at+i] ^= 0xff
		}
		ok(t, os.WriteFile(path, bad, 0o600))
		damage, err := Check(t.Context(), path, quiet)
		if err != nil && !errors.Is(err, ErrForeign) {
			t.Errorf("page %d: %v", at/4096, err)
		}
		if err == nil && damage == nil {
			quietly++ // a page in no use
		}
	}
	if quietly > len(whole)/4096/5/2 {
		t.Errorf("%d of %d damaged pages passed", quietly, len(whole)/4096/5)
	}
}
