package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"
)

// Rows of one project lie side by side: the ids of files, entries and signers are
// those of a project (of the first file that an entry is bound to, of the first entry
// that a certificate signed) shifted left by projectBits, plus a number of their own.
// So the trees of these tables, and of all that are keyed by their ids, are read in a
// few pages for a project, and not in one page a row.
const (
	projectBits = 24
	// overflow begins the ids of rows for which their project has no number left:
	// whoever logs 16 million entries about one file stops nothing.
	overflow = 1 << 62
)

// projectRange is where the ids of a project lie, last included.
func projectRange(project int64) (first, last int64) {
	return project << projectBits, project<<projectBits | (1<<projectBits - 1)
}

// nextID is the next number in a project's range of a table.
func (t *tx) nextID(table string, project int64) (int64, error) {
	first, last := projectRange(project)
	var id int64
	err := t.get(`SELECT coalesce(max(id), ?) + 1 FROM `+table+` WHERE id BETWEEN ? AND ?`, []any{first, first, last}, &id)
	if err == nil && id > last {
		err = t.get(`SELECT coalesce(max(id), ?) + 1 FROM `+table+` WHERE id > ?`, []any{int64(overflow), int64(overflow)}, &id)
	}
	return id, err
}

// clusteredTables are the tables of schema 10.
const clusteredTables = `
CREATE TABLE kinds (
  id   INTEGER PRIMARY KEY,
  name TEXT    NOT NULL UNIQUE                 -- of leaves: Entry.Kind, or "other", "malformed"
) STRICT;

-- Proven entries that are bound to a file. What a history asks for and no more: the
-- leaf itself is put together from leaves, signers and the file (shape.go).
CREATE TABLE entries_new (
  id         INTEGER PRIMARY KEY,              -- clustered by project (clustered.go)
  log_id     INTEGER NOT NULL REFERENCES logs (id),
  idx        INTEGER NOT NULL,                 -- in the tree
  leaf_hash  BLOB    NOT NULL CHECK (length(leaf_hash) = 32),
  kind_id    INTEGER NOT NULL REFERENCES kinds (id),
  signer_id  INTEGER REFERENCES signers (id),  -- NULL: bare key, or unreadable certificate
  trust      TEXT    NOT NULL,                 -- '': the chain holds at the entry's time; else why not
  integrated INTEGER,                          -- v1: Unix seconds as served; NULL for v2
  set_valid  INTEGER NOT NULL DEFAULT 0,
  head_id    INTEGER NOT NULL REFERENCES heads (id),
  seen       INTEGER NOT NULL,
  UNIQUE (log_id, idx)
) STRICT;

-- The constant text of leaves, with holes.
CREATE TABLE shapes (
  id   INTEGER PRIMARY KEY,
  text BLOB    NOT NULL UNIQUE
) STRICT;

-- What is an entry's own of its leaf.
CREATE TABLE leaves (
  entry_id INTEGER PRIMARY KEY REFERENCES entries (id),
  shape_id INTEGER REFERENCES shapes (id),     -- NULL: rest is the leaf, byte for byte
  digest   BLOB,                               -- NULL: that of the form of a pair, or none
  rest     BLOB    NOT NULL,
  set_sig  BLOB                                -- v1: signed entry timestamp, packed (shape.go)
) STRICT;
-- A file that appears later may share its digest with an entry bound on other grounds.
CREATE INDEX leaves_by_digest ON leaves (substr(digest, 1, 8)) WHERE digest IS NOT NULL;

-- Inclusion of entries that were looked up, under entries.head_id. Tailed ones have
-- none: their whole range was proven.
CREATE TABLE proofs (
  entry_id INTEGER PRIMARY KEY REFERENCES entries (id),
  proof    BLOB    NOT NULL                    -- 32 bytes a hash
) STRICT;

CREATE TABLE evidence_kinds (
  bit     INTEGER PRIMARY KEY,
  name    TEXT    NOT NULL UNIQUE,
  checked INTEGER NOT NULL                     -- 1: rests on a form, and its signature was checked
) STRICT;
INSERT INTO evidence_kinds VALUES (1, 'statement', 1), (2, 'provenance', 0), (4, 'artifact', 1), (8, 'subject', 0);

CREATE TABLE binding_forms (
  id   INTEGER PRIMARY KEY,
  name TEXT    NOT NULL UNIQUE                 -- "P1/payload", …
) STRICT;

-- An entry bound to a file, on one kind of evidence or several. A digest has one form
-- at most for one file.
CREATE TABLE pairs (
  file_id   INTEGER NOT NULL REFERENCES files (id),
  entry_id  INTEGER NOT NULL REFERENCES entries (id),
  evidence  INTEGER NOT NULL CHECK (evidence > 0), -- sum of evidence_kinds.bit
  form_id   INTEGER REFERENCES binding_forms (id),         -- NULL: none
  signature TEXT    NOT NULL DEFAULT '',           -- over the form, '': verifies; else why not
  PRIMARY KEY (file_id, entry_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX pairs_by_entry ON pairs (entry_id);

CREATE TABLE unjudged_new (
  file_id  INTEGER NOT NULL REFERENCES files (id),
  entry_id INTEGER NOT NULL REFERENCES entries (id),
  early    INTEGER NOT NULL DEFAULT 0,         -- 1: judged, without the answer of a server that was waited for in vain
  PRIMARY KEY (file_id, entry_id)
) STRICT, WITHOUT ROWID;
`

// clusteredRest takes the place of the old tables. Hashes are indexed by their first
// eight bytes: a query names substr(leaf_hash, 1, 8) and then the whole.
const clusteredRest = `
INSERT INTO binding_forms (name) SELECT DISTINCT form FROM bindings WHERE form <> '' ORDER BY form;
INSERT INTO pairs
  SELECT f.new, e.new, sum(k.bit), max(m.id), coalesce(max(iif(k.checked, b.signature, NULL)), '')
  FROM bindings b JOIN temp.ids_files f ON f.old = b.file_id JOIN temp.ids_entries e ON e.old = b.entry_id
  JOIN evidence_kinds k ON k.name = b.evidence LEFT JOIN binding_forms m ON m.name = b.form
  GROUP BY f.new, e.new;
INSERT INTO unjudged_new
  SELECT f.new, e.new, u.early FROM unjudged u JOIN temp.ids_files f ON f.old = u.file_id JOIN temp.ids_entries e ON e.old = u.entry_id ORDER BY 1, 2;
DROP TABLE bindings;
DROP TABLE unjudged;
DROP TABLE entries;
ALTER TABLE entries_new RENAME TO entries;
ALTER TABLE unjudged_new RENAME TO unjudged;
CREATE INDEX entries_by_leaf ON entries (substr(leaf_hash, 1, 8));
CREATE INDEX entries_by_signer ON entries (signer_id);

-- One row for each kind of evidence.
CREATE VIEW bindings (file_id, entry_id, evidence, form, signature) AS
  SELECT p.file_id, p.entry_id, k.name, iif(k.checked, coalesce(m.name, ''), ''), iif(k.checked, p.signature, 'not checked')
  FROM pairs p CROSS JOIN evidence_kinds k ON p.evidence & k.bit LEFT JOIN binding_forms m ON m.id = p.form_id;
`

// clustered is the migration to schema 10. It is one transaction: killed half-way, it
// begins again. Memory is bounded; the disk needs room for the database once more.
var clustered = goose.NewGoMigration(10, &goose.GoFunc{RunTx: cluster}, nil)

// numbering gives new ids, by project and then by the old ones. Project 0 is for rows
// of no project.
const numbering = `CREATE TEMP TABLE ids_%[1]s (old INTEGER PRIMARY KEY, new INTEGER NOT NULL UNIQUE);
	INSERT INTO ids_%[1]s SELECT id, iif(n < 1 << 24, project << 24 | n, (1 << 62) + id)
	FROM (SELECT id, project, row_number() OVER (PARTITION BY project ORDER BY id) AS n FROM (%[2]s));`

func cluster(ctx context.Context, t *sql.Tx) error {
	var enforced bool
	if err := t.QueryRowContext(ctx, `PRAGMA foreign_keys`).Scan(&enforced); err != nil || enforced {
		return errors.Join(err, errors.New("foreign keys are enforced while ids change"))
	}
	if err := checkForeignKeys(ctx, t); err != nil {
		return err
	}
	for _, query := range []string{
		fmt.Sprintf(numbering, "files", `SELECT id, project_id AS project FROM files`),
		fmt.Sprintf(numbering, "entries", `SELECT e.id, coalesce((SELECT f.project_id FROM bindings b JOIN files f ON f.id = b.file_id WHERE b.entry_id = e.id ORDER BY b.file_id LIMIT 1), 0) AS project FROM entries e`),
		fmt.Sprintf(numbering, "signers", `SELECT s.id, coalesce((SELECT n.new >> 24 FROM entries e JOIN ids_entries n ON n.old = e.id WHERE e.signer_id = s.id ORDER BY e.id LIMIT 1), 0) AS project FROM signers s`),
		clusteredTables,
	} {
		if _, err := t.ExecContext(ctx, query); err != nil {
			return err
		}
	}
	if err := copyEntries(ctx, t); err != nil {
		return fmt.Errorf("copying the entries: %w", err)
	}
	if _, err := t.ExecContext(ctx, clusteredRest); err != nil {
		return err
	}
	for _, parent := range []string{"files", "signers", "entries"} {
		if err := renumber(ctx, t, parent); err != nil {
			return fmt.Errorf("renumbering %s: %w", parent, err)
		}
	}
	for _, parent := range []string{"files", "signers", "entries"} {
		if _, err := t.ExecContext(ctx, `DROP TABLE temp.ids_`+parent); err != nil {
			return err
		}
	}
	return checkForeignKeys(ctx, t)
}

// copied are tables that have new ids already.
var copied = map[string]bool{"entries": true, "leaves": true, "proofs": true, "pairs": true, "unjudged": true}

// renumber gives the rows of a table, and all that refer to them, their new ids. It
// takes them out of the way first: an old id may be another row's new one.
func renumber(ctx context.Context, t *sql.Tx, parent string) error {
	type column struct{ table, name string }
	var columns []column
	if !copied[parent] {
		columns = append(columns, column{parent, "id"})
	}
	rows, err := t.QueryContext(ctx, `SELECT m.name, k."from" FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) k WHERE m.type = 'table' AND k."table" = ? ORDER BY 1, 2`, parent)
	if err != nil {
		return err
	}
	if err := drain(rows, func(scan scan) error {
		var c column
		err := scan(&c.table, &c.name)
		if !copied[c.table] {
			columns = append(columns, c)
		}
		return err
	}); err != nil {
		return err
	}
	for _, c := range columns {
		for _, query := range []string{
			`UPDATE %[1]s SET %[2]s = -(SELECT new FROM temp.ids_%[3]s WHERE old = %[2]s) WHERE %[2]s IS NOT NULL`,
			`UPDATE %[1]s SET %[2]s = -%[2]s WHERE %[2]s IS NOT NULL`,
		} {
			if _, err := t.ExecContext(ctx, fmt.Sprintf(query, c.table, c.name, parent)); err != nil {
				return fmt.Errorf("%s.%s: %w", c.table, c.name, err)
			}
		}
	}
	return nil
}

// copyEntries moves the entries in the order of their new ids, a thousand at a time.
func copyEntries(ctx context.Context, t *sql.Tx) error {
	if _, err := t.ExecContext(ctx, `INSERT INTO kinds (name) SELECT DISTINCT kind FROM entries ORDER BY kind`); err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, `INSERT INTO entries_new SELECT n.new, e.log_id, e.idx, e.leaf_hash, k.id, s.new, e.trust, e.integrated, e.set_valid, e.head_id, e.seen
		FROM temp.ids_entries n JOIN entries e ON e.id = n.old JOIN kinds k ON k.name = e.kind LEFT JOIN temp.ids_signers s ON s.old = e.signer_id ORDER BY n.new`); err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, `INSERT INTO proofs SELECT n.new, e.proof FROM temp.ids_entries n JOIN entries e ON e.id = n.old WHERE e.proof IS NOT NULL ORDER BY n.new`); err != nil {
		return err
	}
	save, err := t.PrepareContext(ctx, insertLeaf)
	if err != nil {
		return err
	}
	defer save.Close()
	shapes := shapeBook{get: func(query string, args []any, dest ...any) error {
		return t.QueryRowContext(ctx, query, args...).Scan(dest...)
	}}
	for after := int64(-1); ; {
		last, err := copyLeaves(ctx, t, save, &shapes, after)
		if err != nil || last == after {
			return err
		}
		after = last
	}
}

func copyLeaves(ctx context.Context, t *sql.Tx, save *sql.Stmt, shapes *shapeBook, after int64) (last int64, err error) {
	type row struct {
		id                          int64
		body, digest, set, der, sum []byte
		form, name                  sql.NullString
	}
	var batch []row
	rows, err := t.QueryContext(ctx, `SELECT n.new, e.body, e.digest, e.set_sig, s.der, b.form, f.filename, f.sha256
		FROM (SELECT * FROM temp.ids_entries WHERE new > ? ORDER BY new LIMIT 1000) n JOIN entries e ON e.id = n.old LEFT JOIN signers s ON s.id = e.signer_id
		LEFT JOIN bindings b ON b.entry_id = e.id AND b.form <> '' AND b.file_id = (SELECT min(file_id) FROM bindings WHERE entry_id = e.id AND form <> '')
		LEFT JOIN files f ON f.id = b.file_id ORDER BY n.new`, after)
	if err != nil {
		return after, err
	}
	if err := drain(rows, func(scan scan) error {
		var r row
		err := scan(&r.id, &r.body, &r.digest, &r.set, &r.der, &r.form, &r.name, &r.sum)
		batch = append(batch, r)
		return err
	}); err != nil {
		return after, err
	}
	for _, r := range batch {
		if r.id == after {
			continue // two forms of one file
		}
		g := givens{cert: r.der, digest: r.digest}
		if r.form.Valid {
			if err := g.explain(r.form.String, r.name.String, r.sum); err != nil {
				return after, err
			}
		}
		kept, err := shapes.keep(r.body, g)
		if err != nil {
			return after, err
		}
		if _, err := save.ExecContext(ctx, kept.args(r.id, r.set)...); err != nil {
			return after, err
		}
		after = r.id
	}
	return after, nil
}

func checkForeignKeys(ctx context.Context, t *sql.Tx) error {
	var table, parent string
	var row, key sql.NullInt64
	switch err := t.QueryRowContext(ctx, `PRAGMA foreign_key_check`).Scan(&table, &row, &parent, &key); {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("a row of %s refers to none of %s; the database is damaged, restore it from a backup", table, parent)
}
