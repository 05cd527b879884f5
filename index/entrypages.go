package index

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// EntriesBy says which entries are asked for. Just one way of naming them is set.
type EntriesBy struct {
	Index, Project string  // "" for PyPI; project in PEP 503 form
	Publisher      int64   // Signing.ID
	Hash           []byte  // of the leaf, of what was signed, of a file, or of the certificate
	Origin         string  // of a log or, for v1, of all its shards; with Number
	Number         *uint64 // index in the tree, or v1's number over all shards
}

// A BoundEntry is a proven entry with what ties it to files.
type BoundEntry struct {
	Stored
	PublisherID int64 // Signing.ID; 0: no readable certificate
	Files       []BoundFile
}

// A BoundFile is a file that an entry is bound to.
type BoundFile struct {
	Index, Project, Version, Name string
	SHA256                        [32]byte
	Evidence                      Evidence
	Form                          string
	Signature                     string // "": verifies over the rebuilt bytes; else why not
}

// where is the SQL that selects ids of entries, as e. expecting is byForm of the files
// that expect the hash.
func (by EntriesBy) where(expecting string) (string, []any) {
	switch {
	case by.Number != nil:
		return `FROM logs l JOIN entries e ON e.log_id = l.id AND e.idx IN (?2, ?2 - l.first_global) WHERE (l.origin = ?1 OR substr(l.origin, 1, length(?1) + 3) = ?1 || ' - ')`,
			[]any{by.Origin, int64(*by.Number)}
	case by.Hash != nil:
		return `FROM (` + findEntries + `
			UNION SELECT b.entry_id FROM files f JOIN bindings b ON b.file_id = f.id WHERE f.sha256 = ?1
			UNION SELECT s.id FROM signers g JOIN entries s ON s.signer_id = g.id WHERE g.fingerprint = ?1) e WHERE TRUE`, []any{by.Hash, expecting}
	case by.Publisher != 0:
		return `FROM signers g JOIN entries e ON e.signer_id = g.id WHERE g.publisher_id = ?1 AND ?2 IS NULL`, []any{by.Publisher, nil}
	}
	return `FROM (SELECT DISTINCT b.entry_id AS id FROM projects p JOIN files f ON f.project_id = p.id JOIN bindings b ON b.file_id = f.id
		WHERE p.index_id = (SELECT id FROM indexes WHERE name = ?1) AND p.name = ?2) e WHERE TRUE`, []any{orPyPI(by.Index), by.Project}
}

// Entries returns a page of entries in the order of their ids, those
// with an id beyond after, at most limit.
func (s *Store) Entries(ctx context.Context, by EntriesBy, after EntryID, limit int) ([]BoundEntry, error) {
	var expecting string
	if hash, err := hashOf(by.Hash); err == nil {
		matches, err := s.matches(ctx, hash)
		if err == nil {
			expecting, err = byForm(matches)
		}
		if err != nil {
			return nil, s.fail("reading which files expect a hash", err)
		}
	}
	from, args := by.where(expecting)
	var ids []EntryID
	err := s.each(ctx, `SELECT e.id `+from+` AND e.id > ?3 ORDER BY e.id LIMIT ?4`, append(args, int64(after), limit), func(scan scan) error {
		var id EntryID
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	var page []BoundEntry
	for _, id := range ids {
		if err != nil {
			break
		}
		var e BoundEntry
		if e, err = s.boundEntry(ctx, id); err == nil {
			page = append(page, e)
		}
	}
	if err != nil {
		return nil, s.fail("reading entries", err)
	}
	return page, nil
}

// filesAtMost bounds the files of one entry that are shown: a digest that many files
// share says little about each.
const filesAtMost = 100

func (s *Store) boundEntry(ctx context.Context, id EntryID) (BoundEntry, error) {
	var e BoundEntry
	var err error
	if e.Stored, err = s.stored(ctx, id); err != nil {
		return e, err
	}
	if err := s.db.QueryRowContext(ctx, `SELECT coalesce((SELECT g.publisher_id FROM entries e JOIN signers g ON g.id = e.signer_id WHERE e.id = ?), 0)`, int64(id)).Scan(&e.PublisherID); err != nil {
		return e, err
	}
	err = s.each(ctx, `SELECT `+indexName+`, p.name, f.version, f.filename, f.sha256, b.evidence, b.form, b.signature
		FROM bindings b JOIN files f ON f.id = b.file_id JOIN projects p ON p.id = f.project_id WHERE b.entry_id = ? LIMIT ?`, []any{int64(id), filesAtMost}, func(scan scan) error {
		var f BoundFile
		var sum []byte
		if err := scan(&f.Index, &f.Project, &f.Version, &f.Name, &sum, &f.Evidence, &f.Form, &f.Signature); err != nil {
			return err
		}
		hash, err := hashOf(sum)
		f.SHA256 = hash
		e.Files = append(e.Files, f)
		return err
	})
	slices.SortFunc(e.Files, func(a, b BoundFile) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Index, b.Index), cmp.Compare(evidenceOrder[a.Evidence], evidenceOrder[b.Evidence]), strings.Compare(a.Form, b.Form))
	})
	return e, err
}
