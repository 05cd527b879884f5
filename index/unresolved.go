package index

import (
	"context"
	"database/sql"
	"time"
)

// Why something of a project is not bound yet.
type UnresolvedKind string

const (
	UnresolvedPending UnresolvedKind = "provenance-pending" // named, not fetched yet
	UnresolvedRefused UnresolvedKind = "provenance-refused" // the index answers 403: attestations are switched off for now
	UnresolvedWanted  UnresolvedKind = "leaf-wanted"        // its place in the log was passed before the file was known; it is read again
	UnresolvedCovered UnresolvedKind = "leaf-not-in-log"    // its place in the log was read, and another leaf is there
	UnresolvedUnread  UnresolvedKind = "log-not-covered"    // its place in the log has not been read
	UnresolvedNoLog   UnresolvedKind = "log-unknown"        // no followed log has that key
	UnresolvedLookup  UnresolvedKind = "look-up-unanswered" // the server has never answered about the file
)

// An Unresolved is one thing that is missing before a file's entries are known.
type Unresolved struct {
	Kind    UnresolvedKind
	File    string
	Version string
	SHA256  [32]byte
	Where   string // origin of the log, or the server; "": the index
	Global  *int64 // number of the leaf, v1: over all shards
	Tries   int    // of a fetch
	Error   string // of the last try
	Next    time.Time
}

// Unresolved lists what a project of an index, "" for PyPI, waits for, at most limit,
// by the file's name. Its number is what Overview.Missing counts.
func (s *Store) Unresolved(ctx context.Context, index, project string, limit int) ([]Unresolved, error) {
	var all []Unresolved
	err := s.each(ctx, `WITH mine AS (SELECT f.id, f.filename, f.version, f.sha256 FROM files f JOIN projects p ON p.id = f.project_id
			WHERE p.index_id = (SELECT id FROM indexes WHERE name = ?1) AND p.name = ?2)
		SELECT CASE v.state WHEN 'pending' THEN 'provenance-pending' ELSE 'provenance-refused' END, f.filename AS name, f.version, f.sha256, '', NULL, v.tries, v.error, v.next
			FROM mine f JOIN provenance v ON v.file_id = f.id WHERE v.state IN ('pending', 'refused')
		UNION ALL
		SELECT CASE WHEN l.id IS NULL THEN 'log-unknown'
				WHEN EXISTS (SELECT 1 FROM wanted w WHERE w.log_id = l.id AND w.idx = v.global - l.first_global) THEN 'leaf-wanted'
				WHEN EXISTS (SELECT 1 FROM coverage c WHERE c.log_id = l.id AND c.first <= v.global - l.first_global AND c.past > v.global - l.first_global) THEN 'leaf-not-in-log'
				ELSE 'log-not-covered' END, f.filename, f.version, f.sha256, coalesce(l.origin, ''), v.global, 0, '', NULL
			FROM mine f JOIN provenance_leaves v ON v.file_id = f.id LEFT JOIN logs l ON l.id = (`+logOfGlobal+`) WHERE `+notIndexed+`
		UNION ALL
		SELECT 'look-up-unanswered', f.filename, f.version, f.sha256, k.server, NULL, 0, k.error, k.next FROM mine f JOIN lookups k ON k.file_id = f.id WHERE k.step = 0
		ORDER BY name LIMIT ?3`, []any{orPyPI(index), project, limit}, func(scan scan) error {
		var u Unresolved
		var sum []byte
		var global, next sql.NullInt64
		if err := scan(&u.Kind, &u.File, &u.Version, &sum, &u.Where, &global, &u.Tries, &u.Error, &next); err != nil {
			return err
		}
		if global.Valid {
			u.Global = &global.Int64
		}
		if next.Valid && next.Int64 < 1<<62 { // beyond: not again
			u.Next = timeOf(next)
		}
		hash, err := hashOf(sum)
		u.SHA256 = hash
		all = append(all, u)
		return err
	})
	if err != nil {
		return nil, s.fail("reading what a project waits for", err)
	}
	return all, nil
}
