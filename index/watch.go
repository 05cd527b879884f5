package index

import (
	"database/sql"
	"encoding/binary"
	"sync"
)

// A watch is the set of digests that a leaf of interest would hold: those of the
// rebuilt statements and of the files themselves, and the leaf hashes that
// provenance objects name. Every leaf of a log is held against it, so it lives in
// memory, as the first eight bytes of each: 20 to 40 bytes a digest, 200 or less
// a file. A match only says that the tables are worth asking, so that digests
// made to collide cost their maker more than they cost us.
type watch struct {
	mu       sync.RWMutex
	prefixes map[uint64]struct{}
	grown    uint64 // how many times digests were added
}

func newWatch() *watch { return &watch{prefixes: make(map[uint64]struct{})} }

// add is called when the transaction that stores the digests has committed, by
// whoever still has the writer's turn. A batch that was held against the older set
// finds the generation moved when its own turn comes, and asks again.
func (w *watch) add(digests ...[32]byte) {
	if len(digests) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range digests {
		w.prefixes[binary.BigEndian.Uint64(digests[i][:])] = struct{}{}
	}
	w.grown++
}

func (w *watch) generation() uint64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.grown
}

func (w *watch) has(digest []byte) bool {
	if len(digest) < 8 {
		return false
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	_, ok := w.prefixes[binary.BigEndian.Uint64(digest)]
	return ok
}

// load adds what the tables hold. Whoever sifts waits.
func (w *watch) load(each func(query string, args []any, f func(scan) error) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grown++
	for _, query := range []string{
		`SELECT digest FROM expected`,
		`SELECT leaf_hash FROM provenance_leaves`,
	} {
		var raw sql.RawBytes
		if err := each(query, nil, func(scan scan) error {
			if err := scan(&raw); err != nil {
				return err
			}
			if len(raw) >= 8 {
				w.prefixes[binary.BigEndian.Uint64(raw)] = struct{}{}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
