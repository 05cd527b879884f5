package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"
)

// Mode says what a Follower does with a log.
type Mode string

const (
	FollowHead   Mode = "head"   // heads only
	FollowLookup Mode = "lookup" // heads; entries are looked up for each file
	FollowTail   Mode = "tail"   // heads, and every leaf in order
)

// Now as a Start means the size of the first head seen.
const Now = ^uint64(0)

// A Follower keeps up with the logs of one server. Its pipeline, a line a worker:
//
//	fetch   leaves in bounded batches, one batch ahead
//	prove   hash, fold into the compact range, prove under the verified head
//	commit  decode, bind, index; rows and position in one transaction
//
// An error never moves a position: the next round begins where this one stopped.
type Follower struct {
	Server   Server
	Keeper   *Keeper
	Store    Store
	Mode     Mode
	Start    uint64 // first leaf of a new tail, by its global index, or Now
	Batch    uint64 // leaves a transaction, at most
	MaxLag   uint64 // leaves; a tail that is further behind skips to the head and records the gap; 0: it never does
	Interval time.Duration
	Log      *slog.Logger
	Metrics  *Metrics
	Changed  func()  // called after each commit and each contradiction
	Stream   *Stream // leaves that the log publishes; nil: all are read from the server

	served []Served // of the last round that got an answer
	since  time.Time
	lags   map[string]lag       // by origin, of the last round
	absent map[string]time.Time // by origin: open shards that are not listed, since when
}

// closedPause is how often a server is asked whose logs have all ended: they are
// not to change any more, and if they do it is to be known within a day, the jitter
// of an eighth included.
const closedPause = 21 * time.Hour

// Run follows until ctx ends. Failures are logged when they change and retried
// with growing, jittered pauses.
func (f *Follower) Run(ctx context.Context) error {
	defer f.Stream.start(ctx)()
	failures, last := 0, ""
	for {
		behind, err := f.round(ctx, f.Interval)
		if ctx.Err() != nil {
			return nil
		}
		pause := f.pause(behind)
		if err == nil {
			if failures > 0 {
				f.Log.InfoContext(ctx, "following again", "server", f.Server.String())
			}
			failures, last = 0, ""
			f.Metrics.polls.WithLabelValues(f.Server.String(), "ok").Inc()
		} else {
			failures++
			f.Metrics.polls.WithLabelValues(f.Server.String(), "error").Inc()
			pause = f.Interval
			if contradiction := (*Contradiction)(nil); !errors.As(err, &contradiction) {
				pause = min(f.Interval<<min(failures-1, 10), max(5*time.Minute, f.Interval))
			}
			if err.Error() != last {
				last = err.Error()
				f.Log.ErrorContext(ctx, "cannot follow; will try again", "server", f.Server.String(), "error", err, "pause", pause)
			}
		}
		if sleep(ctx, pause+rand.N(pause/8+1)) != nil {
			return nil
		}
	}
}

// pause is how long to wait after a round that went well.
func (f *Follower) pause(behind bool) time.Duration {
	if behind {
		return 0
	}
	for _, s := range f.served {
		if !s.Log.Closed {
			return f.Interval
		}
	}
	return max(closedPause, f.Interval)
}

// Once takes the present head of every log that the server holds, and with
// FollowTail reads each log up to it. What fails for one log does not stop the
// others; the errors come back joined.
func (f *Follower) Once(ctx context.Context) error {
	_, err := f.round(ctx, 0)
	return err
}

// round is Once, but for a tail that is cut off after limit, so that new heads are
// looked at while there is much to read. behind: there is more to read. 0: no limit.
func (f *Follower) round(ctx context.Context, limit time.Duration) (behind bool, err error) {
	if f.since.IsZero() {
		f.since = f.Keeper.Now()
	}
	served, err := f.Server.Logs(ctx)
	if err != nil && len(served) == 0 {
		return false, errors.Join(fmt.Errorf("asking %s for its heads: %w", f.Server, err), f.stalled(ctx, f.served, f.since))
	}
	f.served = served
	f.Stream.serve(served)
	errs := []error{err, f.missing(ctx, served)}
	tailing, err := f.tailing(ctx, served)
	if err != nil {
		return false, err
	}
	for i := range served {
		more, err := f.follow(ctx, &served[i], tailing, limit)
		behind = behind || more
		if err != nil {
			errs = append(errs, err)
			f.changed()
		}
	}
	return behind, errors.Join(append(errs, f.stalled(ctx, served, time.Time{}))...)
}

// tailing reports whether any log of the server has been tailed before: then one
// that is new came by rotation, and is read from its first leaf.
func (f *Follower) tailing(ctx context.Context, served []Served) (bool, error) {
	for _, s := range served {
		if _, ok, err := f.Store.Position(ctx, s.Log); err != nil || ok {
			return ok, err
		}
	}
	return false, nil
}

// follow takes one log's head, and with FollowTail reads up to it. It marks in s
// that the log is closed, if the head says so.
func (f *Follower) follow(ctx context.Context, s *Served, tailing bool, limit time.Duration) (behind bool, err error) {
	got, err := f.Keeper.Check(ctx, *s, s.Note)
	if err != nil {
		return false, err
	}
	s.Log.Closed = s.Log.Closed || s.Log.API == V2 && got.Frozen()
	if f.Mode != FollowTail {
		return false, nil
	}
	head, _, err := f.Store.Latest(ctx, s.Log)
	if err != nil {
		return false, err
	}
	pos, ok, err := f.Store.Position(ctx, s.Log)
	if err != nil {
		return false, err
	}
	if !ok {
		if pos, ok, err = f.begin(ctx, *s, head, tailing); err != nil || !ok {
			return false, err
		}
	}
	f.Metrics.tailed(s.Log.Origin, pos.Next)
	if pos.Next > head.Size {
		return false, fmt.Errorf("log %q: position %d lies beyond the verified head of size %d; the database is damaged, restore it from a backup", s.Log.Origin, pos.Next, head.Size)
	}
	if f.MaxLag > 0 && head.Size-pos.Next > f.MaxLag {
		if pos, err = f.skip(ctx, *s, head, pos); err != nil {
			return false, err
		}
	}
	f.Stream.at(s.Log, pos, head)
	pos, err = f.tail(ctx, *s, head, pos, head.Size, limit)
	return err == nil && pos.Next < head.Size, errors.Join(err, f.measure(ctx, s.Log, head, pos))
}

// begin sets the first position. False when there is nothing to tail: a shard
// that was closed before the start.
func (f *Follower) begin(ctx context.Context, s Served, head Head, tailing bool) (Position, bool, error) {
	start := uint64(0)
	switch {
	case f.Start == Now && s.Log.Closed && !tailing:
		return Position{}, false, nil
	case f.Start == Now && !tailing:
		start = head.Size
	case f.Start != Now && f.Start > s.Log.FirstGlobal:
		start = f.Start - s.Log.FirstGlobal
	}
	if start > head.Size {
		if s.Log.Closed {
			return Position{}, false, nil
		}
		return Position{}, false, fmt.Errorf("log %q: start %d lies beyond its present end %d; choose an earlier start, or now", s.Log.Origin, f.Start, s.Log.Global(head.Size))
	}
	pos, err := f.positionAt(ctx, s, head, start)
	if err != nil {
		return Position{}, false, err
	}
	f.Log.InfoContext(ctx, "tail begins", "log", s.Log.Origin, "index", start, "head", head.Size)
	return pos, true, f.Store.Begin(ctx, s.Log, pos)
}

// positionAt takes the compact range up to start from the inclusion proof of the
// leaf before it.
func (f *Follower) positionAt(ctx context.Context, s Served, head Head, start uint64) (Position, error) {
	if start == 0 {
		return Position{}, nil
	}
	p, err := s.Source.Inclusion(ctx, head, start-1)
	if err != nil {
		return Position{}, fmt.Errorf("log %q: asking for the proof of leaf %d, to start behind it: %w", s.Log.Origin, start-1, err)
	}
	if p.Leaf.Index != start-1 {
		return Position{}, fmt.Errorf("log %q: asked for leaf %d, got leaf %d", s.Log.Origin, start-1, p.Leaf.Index)
	}
	proven, err := f.Keeper.Prove(ctx, s, head, p)
	if err != nil {
		return Position{}, err
	}
	before, err := PositionBefore(start-1, proven.Head.Size, proven.Proof)
	if err != nil {
		return Position{}, err
	}
	return before.Fold([]Hash{proven.Hash})
}

// tail reads, proves and commits the leaves before past, or for as long as limit,
// and returns how far it has come.
func (f *Follower) tail(ctx context.Context, s Served, head Head, pos Position, past uint64, limit time.Duration) (Position, error) {
	until := time.Now().Add(limit)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fetched := make(chan run)
	go f.fetch(ctx, s, head, pos.Next, past, fetched)
	commit := f.committer(ctx)
	for pos.Next < past && (limit == 0 || time.Now().Before(until)) {
		r, ok := <-fetched
		if !ok {
			break
		}
		if r.err != nil {
			return pos, errors.Join(fmt.Errorf("log %q: reading leaves from %d: %w", s.Log.Origin, pos.Next, r.err), commit.wait())
		}
		b, err := f.prove(ctx, s, head, pos, r.leaves)
		if errors.As(err, new(*unproven)) {
			// Once more, in case a cache or the line had spoilt it.
			if r.leaves, err = s.Source.Leaves(ctx, head, pos.Next, pos.Next+uint64(len(r.leaves))); err == nil {
				b, err = f.prove(ctx, s, head, pos, r.leaves)
			}
		}
		if u := (*unproven)(nil); errors.As(err, &u) {
			err = f.Keeper.keep(ctx, u.contradiction(s, head, pos, f.Keeper.Now()))
		}
		if err != nil {
			return pos, errors.Join(err, commit.wait())
		}
		if err := commit.add(b); err != nil {
			return pos, err
		}
		pos = b.To
	}
	return pos, errors.Join(ctx.Err(), commit.wait())
}

type run struct {
	leaves []Leaf
	err    error
}

// fetch reads one batch ahead of the prover and stops at the first error.
func (f *Follower) fetch(ctx context.Context, s Served, head Head, from, past uint64, out chan<- run) {
	defer close(out)
	for from < past {
		// Ends on multiples of the batch size, so that whole tiles are asked for.
		to := min(from-from%f.Batch+f.Batch, past)
		leaves, err := s.Source.Leaves(ctx, head, from, to)
		if err == nil {
			err = consecutive(leaves, from, to)
		}
		select {
		case out <- run{leaves, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
		from += uint64(len(leaves))
	}
}

func consecutive(leaves []Leaf, from, to uint64) error {
	if len(leaves) == 0 || uint64(len(leaves)) > to-from {
		return fmt.Errorf("asked for leaves %d to %d, got %d", from, to, len(leaves))
	}
	for i := range leaves {
		if leaves[i].Index != from+uint64(i) {
			return fmt.Errorf("asked for leaf %d, got leaf %d", from+uint64(i), leaves[i].Index)
		}
	}
	return nil
}

// unproven reports leaves that do not lead to the head.
type unproven struct {
	err   error
	claim Claim
	proof []Hash
}

func (u *unproven) Error() string { return u.err.Error() }

func (u *unproven) contradiction(s Served, head Head, pos Position, at time.Time) *Contradiction {
	return &Contradiction{Kind: Inconsistent, Log: s.Log, Ours: head, Theirs: head, Proof: u.proof, Claim: &u.claim,
		Subject: "leaves from " + strconv.FormatUint(pos.Next, 10),
		Detail:  fmt.Sprintf("leaves from %d on, as served, are not those of its head of size %d (read twice): %v", pos.Next, head.Size, u.err), At: at}
}

// prove folds leaves into the position and proves the result under the head.
func (f *Follower) prove(ctx context.Context, s Served, head Head, pos Position, leaves []Leaf) (Batch, error) {
	hashes := make([]Hash, len(leaves))
	for i := range leaves {
		hashes[i] = HashLeaf(leaves[i].Data)
	}
	to, err := pos.Fold(hashes)
	if err != nil {
		return Batch{}, fmt.Errorf("log %q: folding leaves from %d: %w", s.Log.Origin, pos.Next, err)
	}
	root, err := to.Root()
	if err != nil {
		return Batch{}, fmt.Errorf("log %q: root at %d: %w", s.Log.Origin, to.Next, err)
	}
	claim := Claim{What: ClaimLeaves, At: to.Next, Hash: root}
	if to.Next == head.Size {
		if root != head.Root {
			return Batch{}, &unproven{claim: claim, err: fmt.Errorf("they give root %s, it has %s", root, head.Root)}
		}
	} else {
		p, err := f.Keeper.consistency(ctx, s.Source, to.Next, head.Size)
		if err != nil {
			return Batch{}, fmt.Errorf("log %q: asking for the consistency proof %d to %d: %w", s.Log.Origin, to.Next, head.Size, err)
		}
		if err := VerifyConsistency(to.Next, root, head.Size, head.Root, p); err != nil {
			return Batch{}, &unproven{claim: claim, err: err, proof: p}
		}
	}
	return Batch{Log: s.Log, Head: head, From: pos, To: to, Leaves: leaves, Hashes: hashes}, nil
}

func (f *Follower) changed() {
	if f.Changed != nil {
		f.Changed()
	}
}
