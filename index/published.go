package index

import (
	"context"
	"encoding/json"

	"sigtrail/monitor"
)

// Published returns the files, of any index, that explain a log entry: the entry's
// digest is one of theirs, or their provenance names the leaf. All indexes use the same
// logs and the same statements, so an entry without a file on PyPI may have one
// elsewhere (File.Index); only an entry that nothing explains was signed and not
// published. Files that are gone (File.Gone) were published. A zero digest or leaf is
// not asked for.
func (s *Store) Published(ctx context.Context, digest [32]byte, leaf monitor.Hash) ([]File, error) {
	var explained []int64
	if digest != ([32]byte{}) {
		matches, err := s.matches(ctx, digest)
		if err != nil {
			return nil, s.fail("reading which files expect a digest", err)
		}
		for _, m := range matches {
			explained = append(explained, int64(m.file))
		}
	}
	ids, err := json.Marshal(explained)
	if err != nil {
		return nil, err
	}
	var files []File
	err = s.each(ctx, `SELECT `+fileColumns+` FROM files f JOIN projects p ON p.id = f.project_id WHERE f.id IN (
			SELECT value FROM json_each(?1)
			UNION SELECT file_id FROM provenance_leaves WHERE leaf_hash = ?2 AND ?2 <> zeroblob(32))
		ORDER BY p.index_id, f.id`, []any{string(ids), leaf[:]}, appendFile(&files))
	if err != nil {
		return nil, s.fail("reading which files explain an entry", err)
	}
	return files, nil
}

// shownElsewhere lists the indexes, File.Index of their files, whose own provenance
// names an entry by the publisher of this one for a file of the same name and bytes as
// f, f's own index left out. One signing may be logged more than once.
func (s *Store) shownElsewhere(ctx context.Context, f *File, entry EntryID) ([]string, error) {
	var names []string
	err := s.each(ctx, `SELECT DISTINCT `+indexName+` FROM files f JOIN projects p ON p.id = f.project_id
		JOIN bindings b ON b.file_id = f.id AND b.evidence = 'provenance'
		JOIN entries e ON e.id = b.entry_id AND e.trust = '' JOIN signers g ON g.id = e.signer_id
		WHERE f.filename = ? AND f.sha256 = ? AND p.index_id <> (SELECT o.index_id FROM files m JOIN projects o ON o.id = m.project_id WHERE m.id = ?)
			AND g.publisher_id = (SELECT h.publisher_id FROM entries d JOIN signers h ON h.id = d.signer_id WHERE d.id = ?)
		ORDER BY 1`, []any{f.Name, f.SHA256[:], int64(f.ID), int64(entry)}, func(scan scan) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	})
	return names, err
}
