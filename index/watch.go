package index

import (
	"bytes"
	"context"
	"database/sql"
	"slices"
	"strings"
	"sync"
)

// prefixBytes is how much of a digest is kept where the whole of it can be had again.
const prefixBytes = 6

type prefix [prefixBytes]byte

func prefixOf(digest []byte) (p prefix) {
	copy(p[:], digest)
	return p
}

// watched is the most digests that are held in memory: of 400,000 files, in 40 MB.
const watched = 2_000_000

// A watch is the set of digests that a leaf of interest would hold: those of the
// rebuilt statements and of the files themselves, and the leaf hashes that
// provenance objects name. Every leaf of a log is held against it. Up to a bound
// it is in memory, by the prefix of each; beyond it, and beside a monitor, the
// tables are asked (Store.mark). Either way a match only says that the files are worth
// looking at, so that digests made to collide cost their maker more than they cost us.
type watch struct {
	mu       sync.RWMutex
	most     int
	prefixes map[prefix]struct{} // nil: ask the tables
	grown    uint64              // how many times digests were added
}

func newWatch(most int) *watch { return &watch{most: most, prefixes: make(map[prefix]struct{})} }

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
		w.put(digests[i][:])
	}
	w.grown++
}

// put gives the set up at the bound, until the next start.
func (w *watch) put(digest []byte) {
	switch {
	case w.prefixes == nil || len(digest) < prefixBytes:
	case len(w.prefixes) < w.most:
		w.prefixes[prefixOf(digest)] = struct{}{}
	default:
		w.prefixes = nil
	}
}

func (w *watch) generation() uint64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.grown
}

// mark notes which leaves are worth looking at. False: the tables know.
func (w *watch) mark(leaves []glance) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.prefixes == nil {
		return false
	}
	for i := range leaves {
		l := &leaves[i]
		_, l.named = w.prefixes[prefixOf(l.hash[:])]
		if l.ok {
			_, l.expected = w.prefixes[prefixOf(l.digest[:])]
		}
	}
	return true
}

// load adds what the tables hold. Whoever sifts waits.
func (w *watch) load(each func(query string, args []any, f func(scan) error) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grown++
	for _, query := range []string{
		`SELECT prefix FROM expected LIMIT ?`,
		`SELECT sha256 FROM files LIMIT ?`,
		`SELECT leaf_hash FROM provenance_leaves LIMIT ?`,
	} {
		var raw sql.RawBytes
		if w.prefixes == nil {
			return nil
		}
		// Twice, because a digest may be there for several files.
		if err := each(query, []any{2*w.most + 1}, func(scan scan) error {
			err := scan(&raw)
			w.put(raw)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// askChunk is how many digests are asked for in one statement: most of what a
// question costs is the way into SQLite and back.
const askChunk = 64

var (
	askMarks       = `(?` + strings.Repeat(`, ?`, askChunk-1) + `)`
	whichExpected  = `SELECT prefix FROM expected WHERE prefix IN ` + askMarks
	whichArtifacts = `SELECT sha256 FROM files WHERE sha256 IN ` + askMarks
	whichNamed     = `SELECT leaf_hash FROM provenance_leaves WHERE leaf_hash IN ` + askMarks
)

// mark notes which of the leaves may concern a file; match decides.
func (s *Store) mark(leaves []glance) error {
	if !s.beside && s.watch.mark(leaves) {
		return nil
	}
	withDigest := make([]*glance, 0, len(leaves))
	all := make([]*glance, len(leaves))
	for i := range leaves {
		all[i] = &leaves[i]
		if leaves[i].ok {
			withDigest = append(withDigest, &leaves[i])
		}
	}
	for _, q := range []struct {
		stmt   *sql.Stmt
		leaves []*glance
		key    func(*glance) []byte
		found  func(*glance)
	}{
		{s.askExpected, withDigest, func(l *glance) []byte { return l.digest[:prefixBytes] }, func(l *glance) { l.expected = true }},
		{s.askFiles, withDigest, func(l *glance) []byte { return l.digest[:] }, func(l *glance) { l.expected = true }},
		{s.askLeaves, all, func(l *glance) []byte { return l.hash[:] }, func(l *glance) { l.named = true }},
	} {
		// In the order of the table, so that neighbours are read together.
		slices.SortFunc(q.leaves, func(a, b *glance) int { return bytes.Compare(q.key(a), q.key(b)) })
		for chunk := range slices.Chunk(q.leaves, askChunk) {
			if err := ask(q.stmt, chunk, q.key, q.found); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask puts one question about up to askChunk leaves, in the order of their keys.
func ask(stmt *sql.Stmt, leaves []*glance, key func(*glance) []byte, found func(*glance)) error {
	args := make([]any, askChunk)
	for i := range args {
		args[i] = key(leaves[min(i, len(leaves)-1)])
	}
	// Not the caller's context: see tx.
	rows, err := stmt.QueryContext(context.Background(), args...)
	if err != nil {
		return err
	}
	var raw sql.RawBytes
	return drain(rows, func(scan scan) error {
		if err := scan(&raw); err != nil {
			return err
		}
		i, _ := slices.BinarySearchFunc(leaves, raw, func(l *glance, text sql.RawBytes) int { return bytes.Compare(key(l), text) })
		for ; i < len(leaves) && bytes.Equal(key(leaves[i]), raw); i++ {
			found(leaves[i])
		}
		return nil
	})
}
