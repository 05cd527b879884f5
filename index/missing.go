package index

import (
	"context"
	"errors"
	"math"

	"sigtrail/monitor"
)

// A LeafPresence is what the store knows of a log entry that PyPI shows.
type LeafPresence string

const (
	LeafInLog     LeafPresence = "in-log"      // proven, stored
	LeafNotInLog  LeafPresence = "not-in-log"  // its place is covered, and something else is there
	LeafUncovered LeafPresence = "not-covered" // its place was not looked at, or is to be looked at again
)

// Presence tells of each log entry in a file's provenance whether that very leaf is
// in the log, in the order of ProvenanceLeaf.KeyID and Global. A leaf that was
// proven before anybody knew what file it concerns is wanted again first, and
// not covered until then.
func (s *Store) Presence(ctx context.Context, id FileID, each func(ProvenanceLeaf, LeafPresence) error) error {
	err := s.each(ctx, `SELECT v.key_id, v.global, v.leaf_hash, v.predicate, v.publisher,
			`+leafStored+`, `+leafCovered+`
		FROM provenance_leaves v WHERE v.file_id = ? ORDER BY v.key_id, v.global`, []any{int64(id)}, func(scan scan) error {
		var leaf ProvenanceLeaf
		var key, hash []byte
		var global int64
		var stored, covered bool
		if err := scan(&key, &global, &hash, &leaf.Predicate, &leaf.Publisher, &stored, &covered); err != nil {
			return err
		}
		if len(key) != len(leaf.KeyID) || len(hash) != len(leaf.Hash) || global < 0 || global == math.MaxInt64 {
			return errors.New("a leaf of a provenance is stored in no known form")
		}
		leaf.KeyID, leaf.Hash, leaf.Global = monitor.Hash(key), monitor.Hash(hash), uint64(global)
		switch {
		case stored:
			return each(leaf, LeafInLog)
		case covered:
			return each(leaf, LeafNotInLog)
		}
		return each(leaf, LeafUncovered)
	})
	if err != nil {
		return s.fail("reading which leaves of a provenance are in the log", err)
	}
	return nil
}

// leafStored and leafCovered say of a row v of provenance_leaves whether that very
// leaf is in the log, and whether its place has been looked at. Coverage is made of
// ranges that never touch: the one that begins last before a place is the only one
// that can hold it.
const (
	leafStored = `EXISTS (SELECT 1 FROM entries e JOIN logs l ON l.id = e.log_id
		WHERE substr(e.leaf_hash, 1, 8) = substr(v.leaf_hash, 1, 8) AND e.leaf_hash = v.leaf_hash AND l.key_id = v.key_id AND l.first_global + e.idx = v.global)`
	leafCovered = `EXISTS (SELECT 1 FROM logs l JOIN coverage c ON c.log_id = l.id
		WHERE l.id = (` + logOfGlobal + `)
		AND c.first = (SELECT max(first) FROM coverage WHERE log_id = l.id AND first <= v.global - l.first_global) AND c.past > v.global - l.first_global
		AND NOT EXISTS (SELECT 1 FROM wanted w WHERE w.log_id = l.id AND w.idx = v.global - l.first_global))`
)

// logOfGlobal is the shard that holds the number that people use.
const logOfGlobal = `SELECT id FROM logs WHERE key_id = v.key_id AND first_global <= v.global ORDER BY first_global DESC, id LIMIT 1`
