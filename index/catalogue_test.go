package index

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// oldDatabase makes a database of a former schema and runs statements on it.
func oldDatabase(t *testing.T, schema int64, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	db, err := sql.Open("sqlite3", "file:"+path+"?_foreign_keys=1")
	ok(t, err)
	db.SetMaxOpenConns(1)
	p, err := provider(db)
	ok(t, err)
	_, err = p.UpTo(context.Background(), schema)
	ok(t, err)
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	ok(t, db.Close())
	return path
}

// ofSchema4 is a project with all that referred to it before there were other
// indexes than PyPI.
var ofSchema4 = []string{
	`INSERT INTO projects (id, name, serial, status, first_seen, listed, identities) VALUES (7, 'p', 40, 'archived', 1, 2, 0), (9, 'q', 0, '', 3, NULL, 1)`,
	`INSERT INTO files (id, project_id, version, filename, sha256, size, url, first_seen, first_listing) VALUES (3, 7, '1', 'p-1.tar.gz', zeroblob(32), 5, 'u', 1, 1)`,
	`INSERT INTO provenance (file_id, state, next) VALUES (3, 'pending', 0)`,
	`UPDATE files SET provenance_url = 'v'`,
	`INSERT INTO publishers (id, key, issuer, repository, repository_id, owner, owner_id, workflow, environment, identity) VALUES (1, 'k', 'i', 'r', '', '', '', '', '', '')`,
	`INSERT INTO pins (project_id, publisher_id, state, how, made) VALUES (7, 1, 'learned', 'h', 1)`,
	`INSERT INTO identity_lookups (project_id, server, identity, next) VALUES (7, 's', 'x', NULL)`,
	`INSERT INTO journal (serial, project, name, version, at, action) VALUES (39, 'p', 'P', NULL, 1, 'create'), (40, 'p', 'P', '1', 2, 'new release')`,
	`INSERT INTO settings (key, value) VALUES ('journal_serial', '40'), ('pypi_progress', '{}')`,
	`INSERT INTO alerts (id, rule, severity, project, version, raised, body) VALUES ('a', 'r', 'low', 'p', '1', 1, x'7b7d')`,
}

// All that was stored before there were other indexes belongs to PyPI.
func TestOldDatabaseBecomesPyPIs(t *testing.T) {
	s := openAt(t, oldDatabase(t, 4, ofSchema4...), Options{})
	pypi, ctx := s.PyPI(), t.Context()
	if serial, found, err := pypi.Serial(ctx); serial != 40 || !found || err != nil {
		t.Errorf("journal read up to %d, %t, %v", serial, found, err)
	}
	if serial, listed, err := pypi.ListingSerial(ctx, "p"); serial != 40 || !listed || err != nil {
		t.Errorf("listing has serial %d, %t, %v", serial, listed, err)
	}
	if _, listed, err := pypi.ListingSerial(ctx, "q"); listed || err != nil {
		t.Errorf("a project never listed is: %t, %v", listed, err)
	}
	due, err := pypi.PendingProvenance(ctx, storeEpoch, 10)
	if err != nil || len(due) != 1 || due[0].ID != 7<<projectBits|1 || due[0].Project != "p" || due[0].Index != "" {
		t.Errorf("due: %+v, %v", due, err)
	}
	rows, err := s.Journal(ctx, "", "p")
	if err != nil || len(rows) != 2 || rows[0].Version != nil || *rows[1].Version != "1" {
		t.Errorf("journal: %+v, %v", rows, err)
	}
	if pins, err := s.Pins(ctx, "", "p"); err != nil || len(pins) != 1 {
		t.Errorf("pins: %+v, %v", pins, err)
	}
	if alerts, err := s.Alerts(ctx, "", "p"); err != nil || len(alerts) != 1 {
		t.Errorf("alerts: %+v, %v", alerts, err)
	}
	for query, want := range map[string]int{
		`SELECT count(*) FROM projects WHERE id = 7 AND status = 'archived' AND first_seen = 1 AND listed = 2 AND identities = 0`: 1,
		`SELECT count(*) FROM identity_lookups WHERE project_id = 7`:                                                              1,
		`SELECT count(*) FROM settings WHERE key = 'pypi_progress'`:                                                               0,
		`SELECT count(*) FROM settings WHERE key = 'journal_serial'`:                                                              0,
		`SELECT count(*) FROM pragma_foreign_key_check`:                                                                           0,
	} {
		if n := countRows(t, s, query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	if _, err := s.writer.conn.ExecContext(ctx, `INSERT INTO pins (project_id, publisher_id, state, how, made) VALUES (99, 1, 'learned', '', 1)`); err == nil {
		t.Error("foreign keys are not enforced after a migration")
	}
}

// A row that points nowhere, which only another program can have made, stops the
// migration before anything of it is kept.
func TestMigrationRefusesBrokenReferences(t *testing.T) {
	path := oldDatabase(t, 4, append(ofSchema4, `PRAGMA foreign_keys = OFF`, `DELETE FROM projects WHERE id = 7`)...)
	s, err := Open(t.Context(), path, Options{})
	if err == nil {
		t.Fatal("opened", s.Close())
	}
	if !strings.Contains(err.Error(), "each_reference_leads_to_a_row") {
		t.Errorf("error does not say what: %v", err)
	}
	db, err := sql.Open("sqlite3", "file:"+path)
	ok(t, err)
	defer db.Close()
	var columns int
	if err := db.QueryRow(`SELECT count(*) FROM pragma_table_info('projects') WHERE name = 'index_id'`).Scan(&columns); err != nil || columns != 0 {
		t.Errorf("half a migration is left: %d, %v", columns, err)
	}
}

// One name on two indexes is two projects, and neither index sees the other's.
func TestCataloguesAreApart(t *testing.T) {
	s := openTest(t, Options{})
	ctx := t.Context()
	test, err := s.Catalogue(ctx, "testpypi", "https://test.example")
	ok(t, err)
	f := File{Version: "1", Name: "p-1.tar.gz", SHA256: sha256.Sum256([]byte("pypi")), ProvenanceURL: "v"}
	g := f
	g.SHA256 = sha256.Sum256([]byte("testpypi"))
	ours := listFiles(t, s, "p", 10, f)[0]
	fresh, err := test.SaveListing(ctx, Listing{Project: "p", Serial: 3, Files: []File{g}, Fetched: storeEpoch})
	ok(t, err)
	theirs := fresh[0]
	if ours.Index != "" || theirs.Index != "testpypi" {
		t.Errorf("files of %q and %q", ours.Index, theirs.Index)
	}

	for _, x := range []struct {
		c      *Catalogue
		file   FileID
		serial int64
	}{{s.PyPI(), ours.ID, 10}, {test, theirs.ID, 3}} {
		if serial, _, err := x.c.ListingSerial(ctx, "p"); serial != x.serial || err != nil {
			t.Errorf("%q: listing has serial %d, %v", x.c.Name(), serial, err)
		}
		due, err := x.c.PendingProvenance(ctx, storeEpoch.AddDate(1, 0, 0), 10)
		if err != nil || len(due) != 1 || due[0].ID != x.file || due[0].Index != x.c.Name() {
			t.Errorf("%q: due %+v, %v", x.c.Name(), due, err)
		}
	}
	if err := test.SaveProvenance(ctx, ours.ID, Provenance{State: ProvenanceAbsent, Fetched: storeEpoch}); err == nil {
		t.Error("an index has answered for another's file")
	}

	// Both count from 1: the same serial is another row.
	ok(t, s.PyPI().SaveJournal(ctx, []JournalRow{{Serial: 5, Project: "p", Name: "p", At: storeEpoch, Action: "create"}}, 5))
	ok(t, test.SaveJournal(ctx, []JournalRow{{Serial: 5, Project: "p", Name: "p", At: storeEpoch, Action: "remove project"}}, 6))
	rows, err := s.Journal(ctx, "testpypi", "p")
	ok(t, err)
	if len(rows) != 1 || rows[0].Action != "remove project" {
		t.Errorf("journal: %+v", rows)
	}
	if serial, _, err := s.PyPI().Serial(ctx); serial != 5 || err != nil {
		t.Errorf("PyPI's journal read up to %d, %v", serial, err)
	}

	// The same again, at another address: the name is what it goes by.
	again, err := s.Catalogue(ctx, "testpypi", "https://elsewhere.example")
	ok(t, err)
	if again.id != test.id {
		t.Errorf("catalogue %d is another one now, %d", test.id, again.id)
	}
	if d := cmp.Diff([]string{"0 pypi https://pypi.org", "1 testpypi https://elsewhere.example"}, indexRows(t, s)); d != "" {
		t.Errorf("indexes (-want +got):\n%s", d)
	}
}

func indexRows(t *testing.T, s *Store) (rows []string) {
	t.Helper()
	ok(t, s.each(t.Context(), `SELECT id || ' ' || name || ' ' || url FROM indexes ORDER BY id`, nil, func(scan scan) error {
		var row string
		err := scan(&row)
		rows = append(rows, row)
		return err
	}))
	return rows
}
