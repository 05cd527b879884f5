package index

import (
	"context"
	"slices"
)

// A Found hash is that of a file, of a leaf, or of what a leaf about a file holds: the
// digest of the statement or of its DSSE encoding.
type Found struct {
	Files   []FileID  // whose own digest it is, or that expect a leaf with it
	Entries []EntryID // whose leaf it is, or that hold it
}

const findEntries = `SELECT id FROM entries WHERE substr(leaf_hash, 1, 8) = substr(?1, 1, 8) AND leaf_hash = ?1 UNION ALL ` + storedByDigest

// Find looks a SHA-256 hash up, whatever it is of.
func (s *Store) Find(ctx context.Context, hash [32]byte) (Found, error) {
	var found Found
	matches, err := s.matches(ctx, hash)
	if err != nil {
		return Found{}, s.fail("looking up a hash", err)
	}
	for _, m := range matches {
		if !slices.Contains(found.Files, m.file) {
			found.Files = append(found.Files, m.file)
		}
	}
	files, err := byForm(matches)
	if err == nil {
		err = s.eachPrepared(ctx, findEntries, []any{hash[:], files}, func(scan scan) error {
			var id EntryID
			err := scan(&id)
			found.Entries = append(found.Entries, id)
			return err
		})
	}
	if err != nil {
		return Found{}, s.fail("looking up a hash", err)
	}
	slices.Sort(found.Entries)
	found.Entries = slices.Compact(found.Entries)
	return found, nil
}

func (s *Store) eachPrepared(ctx context.Context, query string, args []any, f func(scan) error) error {
	stmt, err := s.prepared(ctx, query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}
