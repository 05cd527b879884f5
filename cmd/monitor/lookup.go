package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sigtrail/index"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

// A finder looks for the entries of files where the log is not read whole, and
// fetches leaves that a file has made interesting after they were passed.
type finder struct {
	keeper  *monitor.Keeper
	store   *index.Store
	log     *slog.Logger
	every   time.Duration
	first   time.Duration // until the first repetition
	changed func()

	mu   sync.Mutex
	list []server
}

func (f *finder) add(s server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, s)
}

func (f *finder) servers() []server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.list)
}

// server is the reader of a log that is followed already.
func (f *finder) server(l LogConfig) (server, bool) {
	for _, s := range f.servers() {
		if s.config.API == l.API && s.config.Origin == l.Origin {
			return s, true
		}
	}
	return server{}, false
}

// again is when a look-up is repeated: the search index is written with delay and
// not always, so that an empty answer proves nothing. Where PyPI is asked more often
// than every minute, so is the log.
var again = []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour}

const lookupBatch = 100

func (f *finder) run(ctx context.Context, wake <-chan struct{}) error {
	last := ""
	for {
		if err := f.once(ctx); err != nil && ctx.Err() == nil {
			if err.Error() != last {
				last = err.Error()
				f.log.ErrorContext(ctx, "cannot look up; will try again", "error", err, "pause", f.every)
			}
		} else {
			last = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-time.After(f.every):
		}
	}
}

// once answers all look-ups that are due.
func (f *finder) once(ctx context.Context) error {
	var errs []error
	for _, s := range f.servers() {
		if s.v1 != nil && s.config.Follow != monitor.FollowHead {
			if err := f.lookUp(ctx, s); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(append(errs, f.fetchWanted(ctx))...)
}

// lookupFailures is how many files may fail, each for a reason of its own, before a
// round is given up.
const lookupFailures = 10

// lookUp stops where the log cannot be asked. An answer about one file that cannot
// be used is no reason to leave out the next file.
func (f *finder) lookUp(ctx context.Context, s server) error {
	var served []monitor.Served
	var failed []error
	for ctx.Err() == nil {
		due, err := f.store.DueLookups(ctx, s.String(), time.Now(), lookupBatch)
		if err != nil || len(due) == 0 {
			return errors.Join(append(failed, err)...)
		}
		if served == nil {
			if served, err = s.Logs(ctx); err != nil {
				return fmt.Errorf("asking %s for its shards: %w", s, err)
			}
		}
		for _, l := range due {
			if err := f.lookUpFile(ctx, s, served, l); err != nil {
				failed = append(failed, err)
				if !answered(err) || len(failed) == lookupFailures {
					return errors.Join(failed...)
				}
			}
		}
		f.changed()
	}
	return ctx.Err()
}

// answered reports whether a failure lies in the answer to one question, so that
// the next question is worth asking.
func answered(err error) bool {
	return rekor.Answered(err) || errors.Is(err, monitor.ErrMalformedHead)
}

// worse is the failure to go by, of two.
func worse(a, b error) error {
	if b == nil || a != nil && !answered(a) {
		return a
	}
	return b
}

// lookUpFile asks about one file and records the answer. A failure to ask leaves
// the question open. A log that contradicts itself has answered: the evidence is
// kept, and nothing else should wait for it.
func (f *finder) lookUpFile(ctx context.Context, s server, served []monitor.Served, l index.Lookup) error {
	found, err := f.ask(ctx, s, served, l)
	if contradiction := (*monitor.Contradiction)(nil); err != nil && !errors.As(err, &contradiction) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = fmt.Errorf("looking up %s on %s: %w", l.File.Name, s, err)
		return errors.Join(err, f.store.LookupDone(ctx, l, time.Now().Add(f.every), found, err.Error()))
	}
	var next time.Time
	if l.Step < len(again) && s.config.Follow == monitor.FollowLookup {
		pause := again[l.Step]
		if l.Step == 0 {
			pause = f.first
		}
		next = time.Now().Add(pause)
	}
	return errors.Join(err, f.store.LookupDone(ctx, l, next, found, ""))
}

// ask finds entries by the indexes in the file's provenance and, where the log is
// not read whole, by the search index: under the file's digest, and under those of
// the statements that would be signed for it.
func (f *finder) ask(ctx context.Context, s server, served []monitor.Served, l index.Lookup) (int, error) {
	var globals []uint64
	for _, p := range l.Leaves {
		if isKeyOf(served, p.KeyID) {
			globals = append(globals, p.Global)
		}
	}
	ids, failed := f.search(ctx, s, l.File)
	found := 0
	for len(globals)+len(ids) > 0 && (failed == nil || answered(failed)) {
		g, i := min(len(globals), rekor.MaxEntries), 0
		i = min(len(ids), rekor.MaxEntries-g)
		entries, err := s.v1.Entries(ctx, globals[:g], ids[:i])
		failed = worse(failed, err)
		globals, ids = globals[g:], ids[i:]
		for _, e := range entries {
			if err := f.keep(ctx, served, e, l.File.ID); err != nil {
				failed = worse(failed, err)
				continue
			}
			found++
		}
	}
	return found, failed
}

// search returns what it has found although a later question failed.
func (f *finder) search(ctx context.Context, s server, file index.File) ([]string, error) {
	if s.config.Follow != monitor.FollowLookup {
		return nil, nil
	}
	hashes := []string{hex.EncodeToString(file.SHA256[:])}
	for _, template := range index.TemplateNames() {
		payload, err := index.Statement(template, file.Name, file.SHA256)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(payload)
		hashes = append(hashes, hex.EncodeToString(sum[:]))
	}
	var ids []string
	var failed error
	seen := make(map[string]bool)
	for _, h := range hashes {
		answer, err := s.v1.Search(ctx, "sha256:"+h)
		if errors.Is(err, rekor.ErrNoIndex) {
			return nil, nil
		}
		if err != nil && !answered(err) {
			return ids, err
		}
		failed = worse(failed, err)
		for _, id := range answer {
			if !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	return ids, failed
}

func isKeyOf(served []monitor.Served, id monitor.Hash) bool {
	for _, s := range served {
		if s.Log.KeyID == id {
			return true
		}
	}
	return false
}

// keep proves an entry under a head consistent with ours and indexes it.
func (f *finder) keep(ctx context.Context, served []monitor.Served, e rekor.Found, file index.FileID) error {
	for _, s := range served {
		if s.Log.TreeID != e.TreeID {
			continue
		}
		proven, err := f.keeper.Prove(ctx, s, monitor.Head{}, e.Proof)
		if err != nil {
			return err
		}
		return f.store.CommitFound(ctx, proven, file)
	}
	return fmt.Errorf("%w: entry %s is in a tree that the log does not list", rekor.ErrUnusable, e.EntryID)
}

// fetchWanted fetches leaves that were read before their file appeared.
func (f *finder) fetchWanted(ctx context.Context) error {
	for ctx.Err() == nil {
		wants, err := f.store.Wanted(ctx, lookupBatch)
		if err != nil || len(wants) == 0 {
			return err
		}
		fetched, err := f.fetchAll(ctx, wants)
		if fetched > 0 {
			f.changed()
		}
		if err != nil || fetched == 0 { // the rest belongs to logs that are not followed now
			return err
		}
	}
	return ctx.Err()
}

func (f *finder) fetchAll(ctx context.Context, wants []index.Want) (fetched int, err error) {
	var errs []error
	for _, s := range f.servers() {
		served, err := s.Logs(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("asking %s for its logs: %w", s, err))
			continue
		}
		for _, l := range served {
			for _, w := range wants {
				if w.Log.Origin != l.Log.Origin || w.Log.KeyID != l.Log.KeyID {
					continue
				}
				if err := f.fetch(ctx, l, w.Index); err != nil {
					errs = append(errs, err)
					continue
				}
				fetched++
			}
		}
	}
	return fetched, errors.Join(errs...)
}

func (f *finder) fetch(ctx context.Context, s monitor.Served, idx uint64) error {
	head, ok, err := f.store.Latest(ctx, s.Log)
	if err != nil || !ok {
		return err
	}
	p, err := s.Source.Inclusion(ctx, head, idx)
	if err != nil {
		return fmt.Errorf("log %q: fetching leaf %d again: %w", s.Log.Origin, idx, err)
	}
	if p.Leaf.Index != idx {
		return fmt.Errorf("log %q: asked for leaf %d, got leaf %d", s.Log.Origin, idx, p.Leaf.Index)
	}
	proven, err := f.keeper.Prove(ctx, s, head, p)
	if err != nil {
		return err
	}
	return f.store.CommitFound(ctx, proven, 0)
}
