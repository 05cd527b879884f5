package rekor

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync/atomic"

	"sigtrail/monitor"
)

// maxV1Run bounds the leaves of one call, and with them its memory.
const maxV1Run = 1000

// A shard reads one tree of a v1 server.
type shard struct {
	v   *V1
	log monitor.Log
}

// Consistency implements monitor.Source. A v1 server refuses a size that is beyond
// its own view with status 400, which a lagging replica does too.
func (s *shard) Consistency(ctx context.Context, from, to uint64) ([]monitor.Hash, error) {
	if from == 0 || from >= to || to > math.MaxInt64 {
		return nil, fmt.Errorf("consistency of %s from %d to %d: no such proof", s.log, from, to)
	}
	p, err := s.v.getProof(ctx, strconv.FormatUint(s.log.TreeID, 10), int64(from), int64(to))
	if refused(err, http.StatusBadRequest, http.StatusNotFound) {
		return nil, fmt.Errorf("consistency of %s from %d to %d: %w: %w", s.log, from, to, monitor.ErrNotServed, err)
	}
	if err != nil {
		return nil, fmt.Errorf("consistency of %s from %d to %d: %w", s.log, from, to, err)
	}
	if p == nil {
		return nil, fmt.Errorf("consistency of %s from %d to %d: empty answer", s.log, from, to)
	}
	// The root that comes with it is the server's newest, not that of to.
	hashes, err := readHashes(p.Hashes)
	if err != nil {
		return nil, fmt.Errorf("consistency of %s from %d to %d: %w", s.log, from, to, err)
	}
	return hashes, nil
}

// Inclusion implements monitor.Source. The proof leads to a head that the server
// signed for this answer.
func (s *shard) Inclusion(ctx context.Context, _ monitor.Head, index uint64) (monitor.LeafProof, error) {
	global := s.log.Global(index)
	if global < index || global > math.MaxInt64 {
		return monitor.LeafProof{}, fmt.Errorf("entry %d of %s: no such index", index, s.log)
	}
	answer, err := s.v.getEntry(ctx, int64(global))
	if refused(err, http.StatusBadRequest, http.StatusNotFound) {
		return monitor.LeafProof{}, fmt.Errorf("entry %d of %s: %w: %w", index, s.log, monitor.ErrNotServed, err)
	}
	if err != nil {
		return monitor.LeafProof{}, fmt.Errorf("entry %d of %s: %w", index, s.log, err)
	}
	f, err := s.v.found(answer)
	if err == nil {
		err = s.holds(f)
	}
	if err == nil && f.Global != global {
		err = fmt.Errorf("got entry %d instead of %d", f.Global, global)
	}
	if err != nil {
		return monitor.LeafProof{}, fmt.Errorf("entry %d of %s: %w", index, s.log, err)
	}
	return f.Proof, nil
}

// holds checks that an entry claims the place in this shard that its global index
// gives it.
func (s *shard) holds(f Found) error {
	if f.TreeID != s.log.TreeID {
		return fmt.Errorf("entry %d is of tree %d", f.Global, f.TreeID)
	}
	if s.log.Global(f.Proof.Leaf.Index) != f.Global {
		return fmt.Errorf("entry %d is said to be leaf %d of a shard that begins at %d", f.Global, f.Proof.Leaf.Index, s.log.FirstGlobal)
	}
	return nil
}

// Leaves implements monitor.Source: answers of MaxEntries, several at a time, as the
// server's pace allows. When one fails or lacks a leaf, the run ends before it.
func (s *shard) Leaves(ctx context.Context, head monitor.Head, from, to uint64) ([]monitor.Leaf, error) {
	to = min(to, head.Size)
	if from >= to || s.log.Global(to) > math.MaxInt64 || s.log.Global(to) < to {
		return nil, fmt.Errorf("leaves %d to %d of %s: no such leaves in a tree of %d", from, to, s.log, head.Size)
	}
	to = min(to, from+maxV1Run)
	leaves := make([]monitor.Leaf, to-from)
	var read atomic.Int64
	err := inParallel(ctx, s.v.pace.width(s.v.concurrency), int((to-from+MaxEntries-1)/MaxEntries), func(ctx context.Context, i int) error {
		if i > 0 && read.Load() > s.v.runBytes {
			return errEnough
		}
		at := from + uint64(i)*MaxEntries
		window := leaves[at-from : min(at+MaxEntries, to)-from]
		err := s.fill(ctx, window, at)
		for _, l := range window {
			read.Add(int64(len(l.Data) + len(l.SET)))
		}
		return err
	})
	if n := run(leaves); n > 0 {
		return leaves[:n], nil
	}
	return nil, fmt.Errorf("leaf %d of %s: %w", from, s.log, err)
}

// fill asks for the leaves from index at on and puts each into its place, by the
// index it says itself: the server leaves out what it lacks and keeps no order. It
// fails when a place stays empty. An entry that cannot be read spoils no other one.
func (s *shard) fill(ctx context.Context, into []monitor.Leaf, at uint64) error {
	globals := make([]int64, len(into))
	for i := range into {
		globals[i] = int64(s.log.Global(at + uint64(i)))
	}
	answer, err := s.v.retrieve(ctx, globals, nil)
	if err != nil {
		return err
	}
	var unreadable error
	for _, e := range answer {
		f, err := s.v.found(e)
		if err == nil {
			err = s.holds(f)
		}
		if err != nil {
			unreadable = err
		} else if i := f.Proof.Leaf.Index - at; i < uint64(len(into)) {
			into[i] = f.Proof.Leaf
		}
	}
	switch n := run(into); {
	case n == len(into):
		return nil
	case unreadable != nil:
		return unreadable
	default:
		return fmt.Errorf("%w: the answer lacks leaf %d", monitor.ErrNotServed, at+uint64(n))
	}
}
