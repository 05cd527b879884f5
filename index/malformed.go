package index

import (
	"fmt"
	"strings"

	"sigtrail/monitor"
)

// A malformed is a proven leaf that is not what its kind demands.
type malformed struct {
	index uint64
	hash  monitor.Hash
	bytes int
	why   string
}

const (
	// maxMalformed bounds the rows of each log: who may write to a log must
	// not be able to fill the disk. Counted are all.
	maxMalformed = 1000
	maxWhy       = 300 // bytes of a reason, which may quote the leaf
)

// malform notes a leaf for its table.
func (w *sifting) malform(leaf monitor.Leaf, hash monitor.Hash, err error) {
	if len(w.malformed) == maxMalformed {
		return
	}
	why := err.Error()
	why = strings.ToValidUTF8(why[:min(len(why), maxWhy)], "\ufffd")
	w.malformed = append(w.malformed, malformed{leaf.Index, hash, len(leaf.Data), why})
}

// saveMalformed stores what there is room for.
func (t *tx) saveMalformed(leaves []malformed, log, now int64) error {
	for _, m := range leaves {
		if _, err := t.exec(`INSERT OR IGNORE INTO malformed (log_id, idx, leaf_hash, bytes, why, seen)
			SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE (SELECT count(*) FROM malformed WHERE log_id = ?1) < ?7`,
			log, int64(m.index), m.hash[:], m.bytes, m.why, now, maxMalformed); err != nil {
			return fmt.Errorf("leaf %d: %w", m.index, err)
		}
	}
	return nil
}
