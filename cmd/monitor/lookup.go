package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	now     func() time.Time
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

// next is when to ask for the n-th time again; zero: not.
func (f *finder) next(n int) time.Time {
	if n >= len(again) {
		return time.Time{}
	}
	pause := again[n]
	if n == 0 {
		pause = f.first
	}
	return f.now().Add(pause)
}

const (
	lookupBatch = 100
	fileEntries = 500 // of one answer are fetched before other files have their turn
)

// run looks up until ctx ends. Each server has loops of its own, so that one that does
// not answer holds up nothing but itself.
func (f *finder) run(ctx context.Context, wake <-chan struct{}) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	wakes := make(map[string]chan struct{})
	for {
		for _, t := range f.tasks() {
			c, running := wakes[t.name]
			if !running {
				c = make(chan struct{}, 1)
				wakes[t.name] = c
				loops.Go(func() { f.always(ctx, t, c) })
			}
			raise(c)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-time.After(f.every):
		}
	}
}

// A task is what one loop does, again and again.
type task struct {
	name string
	do   func(context.Context) error
}

func (f *finder) tasks() []task {
	var tasks []task
	for _, s := range f.servers() {
		if s.v1 != nil && s.config.Follow != monitor.FollowHead {
			tasks = append(tasks, task{s.String(), func(ctx context.Context) error { return f.lookUp(ctx, s) }})
		}
		tasks = append(tasks, task{"leaves again, " + s.String(), func(ctx context.Context) error { return f.fetchWanted(ctx, s) }})
	}
	return tasks
}

func (f *finder) always(ctx context.Context, t task, wake <-chan struct{}) {
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		err := t.do(ctx)
		switch {
		case err == nil:
			last = ""
		case ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			f.log.ErrorContext(ctx, "cannot look up; will try again", "for", t.name, "error", err, "pause", f.every)
		}
	}
}

// once answers all look-ups that are due.
func (f *finder) once(ctx context.Context) error {
	var errs []error
	for _, t := range f.tasks() {
		errs = append(errs, t.do(ctx))
	}
	return errors.Join(errs...)
}

// lookUp asks one server about all files that are due, then for identities.
func (f *finder) lookUp(ctx context.Context, s server) error {
	began := f.now()
	q := &questions{finder: f, server: s}
	err := q.files(ctx)
	switch {
	case ctx.Err() != nil:
		return err
	case q.silent != nil:
		return errors.Join(err, f.store.LookupFailed(ctx, s.String(), began, q.silent.Error()))
	case s.config.Follow == monitor.FollowLookup:
		return errors.Join(err, q.identities(ctx))
	}
	return err
}

// lookupFailures is how many files may fail, each for a reason of its own, before a
// round is given up.
const lookupFailures = 10

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

// questions are those of one round to one server.
type questions struct {
	*finder
	server server
	served []monitor.Served // the server's shards; nil: not asked for yet
	silent error            // the log could not be asked
}

func (q *questions) begin(ctx context.Context) (err error) {
	if q.served == nil {
		if q.served, err = q.server.Logs(ctx); err != nil {
			q.silent = err
			return fmt.Errorf("asking %s for its shards: %w", q.server, err)
		}
	}
	return nil
}

// files stops where the log cannot be asked. An answer about one file that cannot be
// used is no reason to leave out the next file.
func (q *questions) files(ctx context.Context) error {
	var failed []error
	for ctx.Err() == nil {
		due, err := q.store.DueLookups(ctx, q.server.String(), q.now(), lookupBatch)
		if err != nil || len(due) == 0 {
			return errors.Join(append(failed, err)...)
		}
		if err := q.begin(ctx); err != nil {
			return errors.Join(append(failed, err)...)
		}
		for _, l := range due {
			if err := q.file(ctx, l); err != nil {
				failed = append(failed, err)
				if q.silent != nil || !answered(err) || len(failed) == lookupFailures {
					return errors.Join(failed...)
				}
			}
		}
		q.changed()
	}
	return ctx.Err()
}

// file asks about one file and records the answer. A failure to ask leaves the
// question open. A log that contradicts itself has answered: the evidence is kept,
// and nothing else should wait for it.
func (q *questions) file(ctx context.Context, l index.Lookup) error {
	a := index.LookupAnswer{At: q.now(), Found: make(map[index.LookupKind]int)}
	err := q.ask(ctx, l, &a)
	if contradiction := (*monitor.Contradiction)(nil); err != nil && !errors.As(err, &contradiction) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !answered(err) {
			q.silent = err
		}
		err = fmt.Errorf("looking up %s on %s: %w", l.File.Name, q.server, err)
		a.Next, a.Err = q.now().Add(q.every), err.Error()
		return errors.Join(err, q.store.LookupDone(ctx, l, a))
	}
	if q.server.config.Follow == monitor.FollowLookup && a.Next.IsZero() {
		a.Next = q.next(l.Step)
	}
	return errors.Join(err, q.store.LookupDone(ctx, l, a))
}

// ask finds entries by the indexes in the file's provenance and, where the log is
// not read whole, by the search index: under the file's digest, and under those of
// the statements that would be signed for it.
func (q *questions) ask(ctx context.Context, l index.Lookup, a *index.LookupAnswer) error {
	var globals []uint64
	for _, p := range l.Leaves {
		if isKeyOf(q.served, p.KeyID) {
			globals = append(globals, p.Global)
			a.Found[index.LookupProvenance] = 0
		}
	}
	ids, failed := q.search(ctx, l.File, a)
	ids, err := q.store.UnboundEntries(ctx, q.server.String(), l.File.ID, ids)
	if err != nil {
		return err
	}
	left, kept := len(ids)-fileEntries, 0
	if left > 0 {
		// Anybody can have entries listed under the digest of any file.
		rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		ids = ids[:fileEntries]
	}
	for len(globals)+len(ids) > 0 && (failed == nil || answered(failed)) {
		g, i := min(len(globals), rekor.MaxEntries), 0
		i = min(len(ids), rekor.MaxEntries-g)
		entries, err := q.server.v1.Entries(ctx, globals[:g], ids[:i])
		failed = worse(failed, err)
		for _, e := range entries {
			if err := q.keep(ctx, e, l.File.ID); err != nil {
				failed = worse(failed, err)
				continue
			}
			kept++
			if slices.Contains(globals[:g], e.Global) {
				a.Found[index.LookupProvenance]++
			}
		}
		globals, ids = globals[g:], ids[i:]
	}
	if left > 0 {
		a.Note = fmt.Sprintf("%d entries that the search index names are not fetched yet", left)
		if kept > 0 {
			a.Next = q.now().Add(q.every)
		}
	}
	return failed
}

// search returns the ids that the search index names for a file, also when a later
// question failed.
func (q *questions) search(ctx context.Context, file index.File, a *index.LookupAnswer) ([]string, error) {
	if q.server.config.Follow != monitor.FollowLookup {
		return nil, nil
	}
	type hash struct {
		kind index.LookupKind
		sum  [32]byte
	}
	hashes := []hash{{index.LookupDigest, file.SHA256}}
	for _, template := range index.TemplateNames() {
		payload, err := index.Statement(template, file.Name, file.SHA256)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash{index.LookupPayload, sha256.Sum256(payload)})
	}
	var ids []string
	var failed error
	for _, h := range hashes {
		answer, err := q.server.v1.Search(ctx, "sha256:"+hex.EncodeToString(h.sum[:]))
		if errors.Is(err, rekor.ErrNoIndex) {
			a.Note = "the log has no search index"
			return nil, nil
		}
		if errors.Is(err, rekor.ErrTooLarge) {
			a.Note = err.Error() // and would be the same again
			continue
		}
		if err != nil && !answered(err) {
			return ids, err
		}
		if failed = worse(failed, err); err != nil {
			continue
		}
		a.Found[h.kind] += len(answer)
		ids = append(ids, answer...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), failed
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
func (q *questions) keep(ctx context.Context, e rekor.Found, file index.FileID) error {
	for _, s := range q.served {
		if s.Log.TreeID != e.TreeID {
			continue
		}
		if e.Proof.Note == nil {
			return fmt.Errorf("%w: entry %s comes without a signed head", rekor.ErrUnusable, e.EntryID)
		}
		proven, err := q.keeper.Prove(ctx, s, monitor.Head{}, e.Proof)
		if err != nil {
			return err
		}
		return q.store.CommitFound(ctx, proven, file)
	}
	return fmt.Errorf("%w: entry %s is in a tree that the log does not list", rekor.ErrUnusable, e.EntryID)
}

// fetchWanted fetches leaves of one server that were read before their file appeared.
func (f *finder) fetchWanted(ctx context.Context, s server) error {
	for ctx.Err() == nil {
		wants, err := f.store.Wanted(ctx, s.config.Origin, lookupBatch)
		if err != nil || len(wants) == 0 {
			return err
		}
		served, err := s.Logs(ctx)
		if err != nil {
			return fmt.Errorf("asking %s for its logs: %w", s, err)
		}
		fetched, err := f.fetchAll(ctx, served, wants)
		if fetched > 0 {
			f.changed()
		}
		if err != nil || fetched == 0 { // the rest belongs to shards that are not served now
			return err
		}
	}
	return ctx.Err()
}

func (f *finder) fetchAll(ctx context.Context, served []monitor.Served, wants []index.Want) (fetched int, err error) {
	var failed error
	for _, l := range served {
		for _, w := range wants {
			if w.Log.Origin != l.Log.Origin || w.Log.KeyID != l.Log.KeyID {
				continue
			}
			if err := f.fetch(ctx, l, w.Index); err != nil {
				failed = worse(failed, err)
				if !answered(err) && !errors.As(err, new(*monitor.Contradiction)) {
					return fetched, failed
				}
				continue
			}
			fetched++
		}
	}
	return fetched, failed
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
