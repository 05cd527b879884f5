package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

// oldSchemas are those of releases.
var oldSchemas = []int64{1, 2, 3, 4}

// An oldEntry is a row of the first schemas, and what must come of it.
type oldEntry struct {
	id, index int
	file      string
	leaf      []byte
	evidence  []Evidence
	form      string
	set       []byte
	proof     []byte
}

// releasedDatabase makes a database of an older schema, with rows as the program of its
// time wrote them: files and entries in order of arrival, the body in the entry.
func releasedDatabase(t *testing.T, path string, schema int64) (files []File, entries []oldEntry) {
	t.Helper()
	ctx := context.Background()
	db, err := sql.Open("sqlite3", dsn(path, nil))
	ok(t, err)
	defer db.Close()
	p, err := provider(db)
	ok(t, err)
	_, err = p.UpTo(ctx, schema)
	ok(t, err)
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(ctx, query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	sg, other := newSigning(t, "o/r"), newSigning(t, "o/other")
	exec(`INSERT INTO logs (id, origin, key_id, api, url, tree_id, first_global) VALUES (7, 'rekor.example', ?, 'v1', 'https://rekor.example', '5', 1000)`, bytes.Repeat([]byte{3}, 32))
	exec(`INSERT INTO heads (id, log_id, size, root, text, note, seen, verified) VALUES (9, 7, 100, ?, 'head', x'00', 1, 1)`, make([]byte, 32))
	for i, s := range []signing{sg, other} {
		signer, err := ParseSigner(s.cert)
		ok(t, err)
		pub := signer.Publisher()
		exec(`INSERT INTO publishers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, i+1, pub.Key(), pub.Issuer, pub.Repository, pub.RepositoryID, pub.Owner, pub.OwnerID, pub.Workflow, pub.Environment, pub.Identity)
		exec(`INSERT INTO signers (id, fingerprint, der, publisher_id, run) VALUES (?, ?, ?, ?, 'run')`, i+1, signer.Fingerprint[:], s.cert, i+1)
	}
	exec(`INSERT INTO projects (id, name, first_seen, listed) VALUES (1, 'p', 1, 1), (2, 'q', 1, 1)`)
	// The last id is one that another file gets.
	for i, f := range []File{aFile("q", "1"), aFile("p", "1"), aFile("q", "2"), aFile("p", "2"), aFile("p", "3")} {
		id := i + 1
		if i == 4 {
			id = 1<<projectBits | 1
		}
		project := 1
		if f.Project == "q" {
			project = 2
		}
		exec(`INSERT INTO files (id, project_id, version, filename, sha256, size, uploaded, url, first_seen, first_listing) VALUES (?, ?, ?, ?, ?, 1000, ?, ?, 5, 1)`,
			id, project, f.Version, f.Name, f.SHA256[:], f.Uploaded.UnixMicro(), f.URL)
		for _, x := range ExpectedDigests(f.Name, f.SHA256) {
			exec(`INSERT INTO expected VALUES (?, ?, ?)`, x.Digest[:], id, x.Form)
		}
		exec(`INSERT INTO provenance (file_id, state, body, next) VALUES (?, 'present', ?, 0)`, id, []byte(f.Name))
		exec(`INSERT INTO provenance_leaves VALUES (?, ?, ?, ?, 'publish', '{}')`, id, bytes.Repeat([]byte{3}, 32), 1000+i, make([]byte, 32))
		exec(`INSERT INTO lookups (file_id, server, next, error) VALUES (?, 'https://rekor.example', 1, ?)`, id, f.Name)
		if schema >= 4 {
			exec(`INSERT INTO answers VALUES (?, 'https://rekor.example', 'digest', 1, 1, 1, 1)`, id)
		}
		f.ID = FileID(id)
		files = append(files, f)
	}
	entries = []oldEntry{
		{id: 11, index: 1, file: "q-1.tar.gz", leaf: sg.attestV1(t, files[0]), evidence: []Evidence{ByStatement, ByProvenance}, form: "P1/payload", set: sg.sign(t, []byte("1")), proof: bytes.Repeat([]byte{9}, 64)},
		{id: 12, index: 2, file: "p-1.tar.gz", leaf: other.attestV1(t, files[1]), evidence: []Evidence{ByStatement}, form: "P1/payload", set: []byte("set")},
		{id: 13, index: 3, file: "p-1.tar.gz", leaf: sg.noise(1), evidence: []Evidence{ByProvenance}},
		{id: 14, index: 4, file: "p-2.tar.gz", leaf: []byte("no JSON"), evidence: []Evidence{BySubject}},
		{id: 15, index: 5, file: "q-2.tar.gz", leaf: sg.hashedV2(files[2].SHA256, []byte("sig")), evidence: []Evidence{ByArtifact, BySubject}, form: artifact},
		{id: 16, index: 6, file: "p-3.tar.gz", leaf: other.attest(t, files[4]), evidence: []Evidence{ByStatement}, form: "P1/pae"},
	}
	for _, e := range entries {
		d, kind := decode(e.leaf)
		var signer, digest any
		if d.Cert != nil {
			signer, digest = 1, d.Digest
			if bytes.Equal(d.Cert, other.cert) {
				signer = 2
			}
		}
		hash := monitor.HashLeaf(e.leaf)
		exec(`INSERT INTO entries VALUES (?, 7, ?, ?, ?, ?, ?, ?, '', 77, ?, ?, 9, ?, 88)`, e.id, e.index, hash[:], kind, digest, e.leaf, signer, e.set, e.set != nil, e.proof)
		for _, f := range files {
			if f.Name != e.file {
				continue
			}
			for _, evidence := range e.evidence {
				form, signature := e.form, "bad"
				if evidence == ByProvenance || evidence == BySubject {
					form, signature = "", notChecked
				}
				exec(`INSERT INTO bindings VALUES (?, ?, ?, ?, ?)`, f.ID, e.id, string(evidence), form, signature)
			}
			exec(`INSERT INTO unjudged (file_id, entry_id) VALUES (?, ?)`, f.ID, e.id)
		}
	}
	return files, entries
}

func TestMigrateEverySchema(t *testing.T) {
	for _, schema := range oldSchemas {
		t.Run(fmt.Sprint("from ", schema), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "old.db")
			files, entries := releasedDatabase(t, path, schema)
			s := openAt(t, path, Options{})
			for _, pragma := range []string{"integrity_check", "foreign_key_check"} {
				ok(t, s.each(t.Context(), `PRAGMA `+pragma, nil, func(scan scan) error {
					var text string
					if err := scan(&text); err != nil || text != "ok" {
						t.Errorf("%s: %s, %v", pragma, text, err)
					}
					return nil
				}))
			}
			for _, old := range files {
				expectFile(t, s, old, entries)
			}
			if n := countRows(t, s, `SELECT count(*) FROM unjudged u JOIN pairs USING (file_id, entry_id)`); n != len(entries) {
				t.Errorf("%d pairs to judge", n)
			}
			if n := countRows(t, s, `SELECT count(*) FROM entries e JOIN signers g ON g.id = e.signer_id WHERE g.id >> 24 = e.id >> 24 OR g.id >> 24 = 2`); n != 5 {
				t.Errorf("%d entries lie beside their certificates", n)
			}
			// What is new lies beside what is old.
			fresh := listFiles(t, s, "q", 1, files[0], files[2], aFile("q", "3"))
			if len(fresh) != 1 || fresh[0].ID != 2<<projectBits|3 {
				t.Errorf("the next file: %+v", fresh)
			}
		})
	}
}

// expectFile holds all that was stored of a file against what was there before.
func expectFile(t *testing.T, s *Store, old File, entries []oldEntry) {
	t.Helper()
	got, err := s.Files(t.Context(), Selection{Filename: old.Name})
	ok(t, err)
	if len(got) != 1 || int64(got[0].ID)>>projectBits != map[string]int64{"p": 1, "q": 2}[old.Project] {
		t.Fatalf("%s has become %+v", old.Name, got)
	}
	id := got[0].ID
	want := old
	want.ID, want.FirstSeen, want.FirstListing = id, time.UnixMicro(5).UTC(), true
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("%s: %s", old.Name, diff)
	}
	for _, query := range []string{
		`SELECT count(*) FROM expected WHERE file_id = ?1 AND ?2 <> ''`, `SELECT 5 * count(*) FROM provenance WHERE file_id = ?1 AND body = CAST(?2 AS BLOB)`,
		`SELECT 5 * count(*) FROM lookups WHERE file_id = ?1 AND error = ?2`, `SELECT 5 * count(*) FROM provenance_leaves WHERE file_id = ?1 AND ?2 <> ''`,
	} {
		if n := countRows(t, s, strings.ReplaceAll(query, `body = CAST(?2 AS BLOB)`, `CAST(body AS TEXT) = ?2`), int64(id), old.Name); n != 5 {
			t.Errorf("%s: %d by %s", old.Name, n, query)
		}
	}
	stored, err := s.Signatures(t.Context(), id)
	ok(t, err)
	i := 0
	for _, e := range entries {
		if e.file != old.Name {
			continue
		}
		if i == len(stored) {
			t.Fatalf("%s has lost entry %d", old.Name, e.index)
		}
		b := stored[i]
		i++
		var evidence []Evidence
		for _, x := range b {
			evidence = append(evidence, x.Evidence)
			checked := x.Evidence == ByStatement || x.Evidence == ByArtifact
			if checked && (x.Form != e.form || x.Signature != "bad") || !checked && (x.Form != "" || x.Signature != notChecked) {
				t.Errorf("entry %d is bound as %q, %q", e.index, x.Form, x.Signature)
			}
		}
		x := b[0].Entry
		proof, _ := split(e.proof)
		d, _ := decode(e.leaf)
		if diff := cmp.Diff([]any{e.index, e.leaf, e.set, proof, d, e.set != nil, e.evidence},
			[]any{int(x.Leaf.Index), x.Leaf.Data, x.Leaf.SET, x.Proof, x.Entry, x.SETValid, evidence}); diff != "" {
			t.Errorf("entry %d of %s: %s", e.index, old.Name, diff)
		}
		if x.Hash != monitor.HashLeaf(e.leaf) || (x.Signer == nil) != (d.Cert == nil) || d.Cert != nil && x.Signer.Fingerprint != sha256.Sum256(d.Cert) {
			t.Errorf("entry %d has become another", e.index)
		}
	}
	if i != len(stored) {
		t.Errorf("%s has %d entries", old.Name, len(stored))
	}
}

// A migration that fails leaves the database as it was.
func TestMigrationIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old.db")
	releasedDatabase(t, path, 4)
	db, err := sql.Open("sqlite3", dsn(path, nil))
	ok(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), `PRAGMA foreign_keys = OFF; INSERT INTO bindings VALUES (999, 11, 'subject', '', '')`)
	ok(t, err)
	before := tablesOf(t, db)
	if s, err := Open(t.Context(), path, Options{}); err == nil {
		t.Error("a binding to no file was migrated", s.Close())
	}
	if diff := cmp.Diff(before, tablesOf(t, db)); diff != "" {
		t.Errorf("tables: %s", diff)
	}
	_, err = db.ExecContext(t.Context(), `DELETE FROM bindings WHERE file_id = 999`)
	ok(t, err)
	ok(t, openAt(t, path, Options{}).Close())
}

func tablesOf(t *testing.T, db *sql.DB) (tables []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT name FROM sqlite_schema WHERE name LIKE '%entries%' OR name LIKE '%bindings%' ORDER BY 1`)
	ok(t, err)
	ok(t, drain(rows, func(scan scan) error {
		var name string
		err := scan(&name)
		tables = append(tables, name)
		return err
	}))
	return tables
}

// freeColumns refer to rows and say so to nobody.
var freeColumns = map[string]string{
	"claimed_publishers.repository_id": "GitHub's number",
	"claimed_publishers.owner_id":      "GitHub's number",
	"logs.key_id":                      "a hash, no row",
	"logs.tree_id":                     "the log's own number",
	"provenance_leaves.key_id":         "a hash: the log need not be known",
	"publishers.repository_id":         "GitHub's number",
	"publishers.owner_id":              "GitHub's number",
	"signers.commit_id":                "a git hash",
	"unbound.log_id":                   "as many rows as a log has leaves: the check would cost more than the row, and logs are never deleted",
}

func TestTablesAreStrictAndTied(t *testing.T) {
	s := openTest(t, Options{})
	type table struct {
		name   string
		strict bool
	}
	var tables []table
	ok(t, s.each(t.Context(), `SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name <> 'goose_db_version'`, nil, func(scan scan) error {
		var x table
		err := scan(&x.name, &x.strict)
		tables = append(tables, x)
		return err
	}))
	if len(tables) < 30 {
		t.Fatalf("%d tables", len(tables))
	}
	free := map[string]string{}
	for _, x := range tables {
		if !x.strict {
			t.Errorf("table %s is not STRICT", x.name)
		}
		var tied []string
		ok(t, s.each(t.Context(), `SELECT "from" FROM pragma_foreign_key_list(?)`, []any{x.name}, func(scan scan) error {
			var name string
			err := scan(&name)
			tied = append(tied, name)
			return err
		}))
		ok(t, s.each(t.Context(), `SELECT name FROM pragma_table_info(?) WHERE name LIKE '%\_id' ESCAPE '\'`, []any{x.name}, func(scan scan) error {
			var name string
			err := scan(&name)
			if !slices.Contains(tied, name) {
				free[x.name+"."+name] = freeColumns[x.name+"."+name]
			}
			return err
		}))
	}
	if diff := cmp.Diff(freeColumns, free); diff != "" {
		t.Errorf("columns that name a row of another table, without a foreign key or without a reason to have none: %s", diff)
	}
}
