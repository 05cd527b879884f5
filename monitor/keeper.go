package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// A Keeper decides what a head means, given every head kept before. A head may
// come from anywhere (the log, an entry's proof, a provenance object): all go
// through Check.
//
//	same size, same root    fine; kept if its text is new (a frozen shard)
//	same size, other root   log-equivocation
//	larger                  must be proven to extend ours
//	smaller                 must be proven to be a prefix of ours: a stale replica is fine
//	signed by another key   log-key-changed
//	larger than when closed closed-shard-changed; kept all the same
//	larger, its key ended   closed-shard-changed; it does not count
//	larger, too few witnesses does not count yet: ErrUncosigned, after all of the above
type Keeper struct {
	Store   Store
	Log     *slog.Logger
	Now     func() time.Time
	Metrics *Metrics
	// Witnesses says whose cosignatures a larger head needs before it counts.
	// nil: nobody's.
	Witnesses *WitnessPolicy
	// Patience is how long to wait before asking again for a proof that the
	// log says it does not have: replicas lag behind each other by moments.
	Patience time.Duration
	// Grace is how long a log may show a smaller head, and no proof that it
	// belongs to ours, before that counts against it: a replica that lags
	// cannot prove what it does not have yet.
	Grace time.Duration

	mu     sync.Mutex
	locks  map[string]*sync.Mutex // by origin: one check of a log at a time
	doubts map[string]*doubts     // by origin
	shows  map[string]Served      // by origin, as the log's own server last presented it
}

const proofTries = 3

// endedGrace is how long after the end of its key a log may go on showing larger
// heads than we knew: heads bear no time, and replicas and caches lag.
const endedGrace = time.Hour

// Check verifies a head as the log serves it and keeps it. A contradiction with
// what was kept before is stored as evidence and returned as *Contradiction; any
// other error means that nothing could be decided now.
func (k *Keeper) Check(ctx context.Context, s Served, signed []byte) (Head, error) {
	k.remember(s)
	return k.CheckFrom(ctx, s, signed, "")
}

// CheckFrom is Check for a head that somebody else shows: a provenance object, a
// person, another monitor. Whoever shows one that the log has not signed accuses
// nobody; one that the log has signed and that does not fit convicts it.
func (k *Keeper) CheckFrom(ctx context.Context, s Served, signed []byte, source string) (Head, error) {
	unlock := k.lock(s.Log.Origin)
	defer unlock()
	for {
		h, err := k.check(ctx, s, signed, source)
		// Another process has kept a larger head meanwhile, and two heads that
		// fit an older one need not fit each other: compare again.
		if !errors.Is(err, ErrConflict) || ctx.Err() != nil {
			return h, err
		}
	}
}

func (k *Keeper) check(ctx context.Context, s Served, signed []byte, source string) (Head, error) {
	theirs, err := ParseHead(signed, s.Log.Origin, s.Verifier)
	theirs.Seen, theirs.Source = k.Now(), source
	foreign := errors.Is(err, ErrForeignHead)
	if err != nil && !(foreign && source == "") {
		return Head{}, fmt.Errorf("reading a head of log %q: %w", s.Log.Origin, err)
	}
	if !foreign {
		if theirs.Cosigned, err = Cosignatures(signed, theirs, s.Verifier, k.Witnesses.Witnesses()); err != nil {
			return Head{}, fmt.Errorf("reading the cosignatures of a head of log %q: %w", s.Log.Origin, err)
		}
	}
	memory, remembered, err := k.Store.Known(ctx, s.Log.Origin)
	if err != nil {
		return Head{}, fmt.Errorf("remembering log %q: %w", s.Log.Origin, err)
	}
	rekeyed := remembered && memory.Log.KeyID != s.Log.KeyID
	if rekeyed {
		// Whatever the trusted root says today: the log was begun under
		// another key, and stays with it.
		s.Log.KeyID, s.Log.Key = memory.Log.KeyID, memory.Log.Key
	}
	ours, known, err := k.Store.Latest(ctx, s.Log)
	if err != nil {
		return Head{}, fmt.Errorf("loading the last head of log %q: %w", s.Log.Origin, err)
	}
	switch {
	case rekeyed && source != "":
		return Head{}, fmt.Errorf("reading a head of log %q: %w", s.Log.Origin, ErrForeignHead)
	case rekeyed:
		return Head{}, k.contradict(ctx, s, KeyChanged, ours, theirs, nil,
			fmt.Sprintf("a head of size %d is signed by another key than the one that this log was begun with", theirs.Size))
	case foreign:
		return Head{}, k.contradict(ctx, s, KeyChanged, ours, theirs, nil,
			fmt.Sprintf("a head of size %d is signed by no key that the trusted root names for this log", theirs.Size))
	case known && memory.Log.FirstGlobal != s.Log.FirstGlobal:
		return Head{}, fmt.Errorf("log %q: its server says that its first leaf has the global index %d, and said %d before; nothing is read until it says so again",
			s.Log.Origin, s.Log.FirstGlobal, memory.Log.FirstGlobal)
	}
	if known {
		err := k.compare(ctx, s, ours, theirs)
		if err != nil && source == "" && !errors.As(err, new(*Contradiction)) {
			k.doubt(theirs)
		}
		if err != nil {
			return Head{}, err
		}
	} else if empty, _ := (Position{}).Root(); theirs.Size == 0 && theirs.Root != empty {
		return Head{}, k.contradict(ctx, s, Inconsistent, ours, theirs, nil, "an empty tree has another root than the empty tree's")
	}
	if source == "" {
		if err := k.settle(ctx, s, ours, theirs); err != nil {
			return Head{}, err
		}
	}
	if !known || theirs.Size > ours.Size {
		if err := k.counts(ctx, s, memory, ours, theirs); err != nil {
			return Head{}, err
		}
	}
	if err := k.close(ctx, &s, memory, ours, theirs); err != nil {
		return Head{}, err
	}
	if err := k.Store.SaveHead(ctx, s.Log, theirs, ours); err != nil {
		return Head{}, fmt.Errorf("keeping a head of log %q: %w", s.Log.Origin, err)
	}
	if source == "" {
		k.Metrics.verified(s.Log, max(theirs.Size, ours.Size), theirs.Seen, !known || theirs.Size > ours.Size)
	}
	return theirs, nil
}

// counts reports why a head does not count that is larger than any before, although it
// fits: its key had ended, or too few witnesses have cosigned it. What counts already
// has been through this, so a head that is smaller is proven to lie in what has.
func (k *Keeper) counts(ctx context.Context, s Served, memory Memory, ours, theirs Head) error {
	// Now too: the clock may have been ahead when the log was last asked. A log that
	// was never asked has no such time.
	if ended := s.Ends.Add(endedGrace); !s.Ends.IsZero() && memory.Checked.After(ended) && k.Now().After(ended) {
		c := k.contradiction(s, ClosedChanged, ours, theirs, nil, fmt.Sprintf("its key ended at %s by the trusted root; the log still had %d leaves after that, and has signed a tree of %d since",
			s.Ends.UTC().Format(time.RFC3339), ours.Size, theirs.Size))
		c.Subject = "key ended"
		return k.keep(ctx, c)
	}
	if !k.Witnesses.Applies(s.Log.Origin, s.Verifier) || k.Witnesses.Met(theirs.Cosigned) {
		return nil
	}
	if theirs.Source == "" {
		k.doubt(theirs)
	}
	k.Metrics.uncosigned.WithLabelValues(s.Log.Origin).Inc()
	return fmt.Errorf("log %q, size %d, known %d: %w", s.Log.Origin, theirs.Size, ours.Size, ErrUncosigned)
}

// close marks a log as closed that says so, and reports one that was closed and has
// grown since. What it has added is consistent and is read all the same: looking
// away would help whoever opened it again.
func (k *Keeper) close(ctx context.Context, s *Served, memory Memory, ours, theirs Head) error {
	if s.Log.API == V2 && theirs.Source == "" && theirs.Frozen() {
		s.Log.Closed = true
	}
	if !memory.Closed || theirs.Size <= memory.ClosedSize {
		return nil
	}
	c := k.contradiction(*s, ClosedChanged, ours, theirs, nil,
		fmt.Sprintf("the log was closed at %d leaves and now has %d", memory.ClosedSize, theirs.Size))
	c.Subject = "size " + strconv.FormatUint(memory.ClosedSize, 10)
	if err := k.record(ctx, c); err != nil {
		return err
	}
	k.Log.ErrorContext(ctx, "closed log has grown", "log", s.Log.Origin, "size", theirs.Size, "closed at", memory.ClosedSize)
	return nil
}

// compare returns nil when theirs and ours belong to one history.
func (k *Keeper) compare(ctx context.Context, s Served, ours, theirs Head) error {
	if theirs.Size <= ours.Size {
		same, ok := ours, true
		if theirs.Size < ours.Size {
			var err error
			if same, ok, err = k.Store.HeadAt(ctx, s.Log, theirs.Size); err != nil {
				return fmt.Errorf("loading a head of log %q of size %d: %w", s.Log.Origin, theirs.Size, err)
			}
		}
		if ok && same.Root == theirs.Root {
			return nil
		}
		if ok {
			return k.contradict(ctx, s, Equivocation, same, theirs, nil,
				fmt.Sprintf("two signed heads of size %d have different roots", theirs.Size))
		}
	}
	small, large := ours, theirs
	if theirs.Size < ours.Size {
		small, large = theirs, ours
	}
	var p []Hash
	if small.Size > 0 {
		var err error
		p, err = k.consistency(ctx, s.Source, small.Size, large.Size)
		switch {
		case errors.Is(err, ErrNotServed) && theirs.Size < ours.Size && theirs.Source == "":
			if since := k.refuse(theirs); k.Now().Sub(since) < k.Grace {
				return fmt.Errorf("log %q shows a head of size %d after one of size %d, and no proof yet that they belong together, as a replica does that lags: %w", s.Log.Origin, theirs.Size, ours.Size, err)
			}
			return k.contradict(ctx, s, Inconsistent, ours, theirs, nil,
				fmt.Sprintf("the log serves a head of size %d and cannot prove that the tree of size %d it signed before extends it (asked %d times)", theirs.Size, ours.Size, proofTries))
		case err != nil:
			return fmt.Errorf("asking log %q for the consistency proof %d to %d: %w", s.Log.Origin, small.Size, large.Size, err)
		}
	} else if empty, _ := (Position{}).Root(); small.Root != empty {
		return k.contradict(ctx, s, Inconsistent, ours, theirs, nil, "an empty tree has another root than the empty tree's")
	}
	if err := VerifyConsistency(small.Size, small.Root, large.Size, large.Root, p); err != nil {
		kind := Inconsistent
		if theirs.Source != "" {
			kind = Equivocation // shown one history to others, another to us
		}
		return k.contradict(ctx, s, kind, ours, theirs, p,
			fmt.Sprintf("the head of size %d is not proven to extend the head of size %d: %v", large.Size, small.Size, err))
	}
	if theirs.Size < ours.Size {
		k.Log.InfoContext(ctx, "stale head", "log", s.Log.Origin, "size", theirs.Size, "known", ours.Size)
	}
	return nil
}

func (k *Keeper) consistency(ctx context.Context, src Source, from, to uint64) (p []Hash, err error) {
	for try := range proofTries {
		if try > 0 {
			if err := sleep(ctx, k.Patience); err != nil {
				return nil, err
			}
		}
		if p, err = src.Consistency(ctx, from, to); !errors.Is(err, ErrNotServed) {
			return p, err
		}
	}
	return nil, err
}

// contradict keeps the evidence and returns it as an error. Its subject is the
// size of our head: as long as the log keeps to its other history our head does
// not move, and all that it adds there is the same incident.
func (k *Keeper) contradict(ctx context.Context, s Served, kind string, ours, theirs Head, p []Hash, detail string) error {
	return k.keep(ctx, k.contradiction(s, kind, ours, theirs, p, detail))
}

func (k *Keeper) contradiction(s Served, kind string, ours, theirs Head, p []Hash, detail string) *Contradiction {
	if theirs.Source != "" {
		detail += " (shown by " + theirs.Source + ")"
	}
	return &Contradiction{Kind: kind, Log: s.Log, Ours: ours, Theirs: theirs, Proof: p,
		Subject: strconv.FormatUint(ours.Size, 10), Detail: detail, At: k.Now()}
}

// keep records a contradiction and returns it as an error.
func (k *Keeper) keep(ctx context.Context, c *Contradiction) error {
	if err := k.record(ctx, c); err != nil {
		return errors.Join(c, err)
	}
	return c
}

func (k *Keeper) record(ctx context.Context, c *Contradiction) error {
	k.Metrics.contradictions.WithLabelValues(c.Log.Origin, c.Kind).Inc()
	if err := k.Store.Contradict(ctx, *c); err != nil {
		return fmt.Errorf("keeping evidence about log %q: %w", c.Log.Origin, err)
	}
	return nil
}

// Prove ties a leaf to a verified head: the one that the proof brings, which goes
// through Check first, or else the one that was asked for.
func (k *Keeper) Prove(ctx context.Context, s Served, asked Head, p LeafProof) (Proven, error) {
	head := asked
	if p.Note != nil {
		var err error
		if head, err = k.Check(ctx, s, p.Note); err != nil {
			return Proven{}, err
		}
	}
	leaf := HashLeaf(p.Leaf.Data)
	err := VerifyInclusion(p.Leaf.Index, leaf, head, p.Hashes)
	if err == nil && p.Size != head.Size {
		err = fmt.Errorf("the proof is for size %d, its head for size %d", p.Size, head.Size)
	}
	if err != nil {
		return Proven{}, k.keep(ctx, &Contradiction{Kind: Inconsistent, Log: s.Log, Ours: head, Theirs: head, Proof: p.Hashes,
			Claim:   &Claim{What: ClaimLeaf, At: p.Leaf.Index, Hash: leaf},
			Subject: "leaf " + strconv.FormatUint(p.Leaf.Index, 10),
			Detail:  fmt.Sprintf("leaf %d as served is not in the tree of size %d: %v", p.Leaf.Index, head.Size, err), At: k.Now()})
	}
	return Proven{Log: s.Log, Head: head, Leaf: p.Leaf, Hash: leaf, Proof: p.Hashes}, nil
}

func (k *Keeper) remember(s Served) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shows == nil {
		k.shows = make(map[string]Served)
	}
	k.shows[s.Log.Origin] = s
}

func (k *Keeper) served(origin string) (Served, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.shows[origin]
	return s, ok
}

func (k *Keeper) lock(origin string) (unlock func()) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = make(map[string]*sync.Mutex)
	}
	l := k.locks[origin]
	if l == nil {
		l = new(sync.Mutex)
		k.locks[origin] = l
	}
	k.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// sleep waits, or returns early with the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
