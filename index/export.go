package index

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// An exported table is one question; each of its columns has a name.
type exported struct{ name, query string }

func second(column string) string {
	return `strftime('%Y-%m-%dT%H:%M:%SZ', ` + column + `, 'unixepoch')`
}

func microsecond(column string) string { return second(column + ` / 1000000`) }

var exports = []exported{
	{"files", `SELECT f.id AS file, i.name AS "index", p.name AS project, f.version, f.filename, lower(hex(f.sha256)) AS sha256, f.size, ` + microsecond(`f.uploaded`) + ` AS uploaded, f.url, f.provenance_url,
		f.yanked IS NOT NULL AS yanked, f.yanked AS yanked_reason, ` + microsecond(`f.first_seen`) + ` AS first_seen, ` + microsecond(`f.gone`) + ` AS gone, v.state AS provenance
		FROM files f JOIN projects p ON p.id = f.project_id JOIN indexes i ON i.id = p.index_id LEFT JOIN provenance v ON v.file_id = f.id ORDER BY f.id`},
	{"entries", `SELECT e.id AS entry, l.origin AS log, e.idx AS log_index, l.first_global + e.idx AS global_index, lower(hex(e.leaf_hash)) AS leaf_hash, k.name AS kind,
		g.publisher_id AS publisher, lower(hex(g.fingerprint)) AS certificate_sha256, g.run, g.commit_id AS "commit", e.trust = '' AS trusted, e.trust AS untrusted_because,
		` + second(`e.integrated`) + ` AS integrated, e.set_valid AS integrated_signed, ` + microsecond(`e.seen`) + ` AS seen
		FROM entries e JOIN logs l ON l.id = e.log_id JOIN kinds k ON k.id = e.kind_id LEFT JOIN signers g ON g.id = e.signer_id ORDER BY e.id`},
	{"bindings", `SELECT file_id AS file, entry_id AS entry, evidence, form, signature = '' AS signature_verifies, signature AS signature_unverified_because FROM bindings ORDER BY 1, 2, 3`},
	{"publishers", `SELECT id AS publisher, issuer, repository, repository_id, owner, owner_id, workflow, environment, identity FROM publishers ORDER BY id`},
	{"events", `SELECT i.name AS "index", p.name AS project, e.n AS number, e.file_id AS file, coalesce(e.version, f.version) AS version, e.kind, ` + microsecond(`e.at`) + ` AS at, e.source, e.serial, e.before, e.after
		FROM pypi_events e JOIN projects p ON p.id = e.project_id JOIN indexes i ON i.id = p.index_id LEFT JOIN files f ON f.id = e.file_id ORDER BY e.project_id, e.n`},
}

// Export writes what is known of files, entries, bindings, publishers and events as one CSV
// file each into a folder, which it makes: of one moment, beside a running monitor
// too. Files that are there already are not written over. Times are UTC (RFC 3339), hashes
// hex; an empty cell is an absent value. Cells that a spreadsheet would take for a
// formula begin with an apostrophe. progress is told each file.
func Export(ctx context.Context, path, dir string, progress func(string)) (err error) {
	s, err := OpenReadOnly(ctx, path)
	if err != nil {
		return err
	}
	defer s.Close()
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s.fail("export", err)
	}
	defer tx.Rollback()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	for _, x := range exports {
		n, err := x.write(ctx, tx, filepath.Join(dir, x.name+".csv"))
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("export: %w; give a folder without it", err)
		}
		if err != nil {
			return s.fail("exporting "+x.name, err)
		}
		progress(fmt.Sprintf("%s.csv: %d rows", x.name, n))
	}
	return nil
}

// write leaves no file that is not whole.
func (x exported) write(ctx context.Context, tx *sql.Tx, to string) (n int, err error) {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(to))
		}
	}()
	rows, err := tx.QueryContext(ctx, x.query)
	if err != nil {
		return 0, err
	}
	columns, err := rows.Columns()
	if err != nil {
		return 0, errors.Join(err, rows.Close())
	}
	buffer := bufio.NewWriter(f)
	out := csv.NewWriter(buffer)
	values, cells, dest := make([]any, len(columns)), make([]string, len(columns)), make([]any, len(columns))
	for i := range values {
		dest[i] = &values[i]
	}
	err = errors.Join(out.Write(columns), drain(rows, func(scan scan) error {
		if err := scan(dest...); err != nil {
			return err
		}
		for i, v := range values {
			cells[i] = cell(v)
		}
		n++
		return out.Write(cells)
	}))
	out.Flush()
	return n, errors.Join(err, out.Error(), buffer.Flush())
}

// cell is a value as text. What begins like a formula in a spreadsheet is text there
// after an apostrophe (OWASP, CSV injection): names and reasons come from strangers.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case int64:
		return strconv.FormatInt(v, 10)
	case string:
		if v != "" && strings.ContainsRune("=+-@\t\r\n", rune(v[0])) {
			return "'" + v
		}
		return v
	}
	return fmt.Sprint(v)
}
