package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// A Subscription delivers the messages of a log's event stream: late, twice, in any
// order or not at all. What it delivers is hostile until this package has proven it.
type Subscription interface {
	// Receive waits for a message. After an error it is of no more use.
	Receive(ctx context.Context) (Event, error)
	// Close gives up what was received and neither acknowledged nor returned.
	Close() error
}

// An Event is one message. Exactly one of Ack and Nack is called, once, from any
// goroutine: Ack when it need not be sent again, Nack when it is to be.
type Event struct {
	Body       []byte
	Attributes map[string]string
	Ack, Nack  func()
}

// Published is what a message says: a leaf, and what ties it to a head.
type Published struct {
	Origin string // of the head, which the proof brings along
	Global uint64 // index over all shards
	Proof  LeafProof
}

// SingleStore is a Store that also takes leaves one by one.
type SingleStore interface {
	Store
	// CommitSingle indexes one proven leaf and adds nothing to coverage. The
	// same leaf again changes nothing.
	CommitSingle(ctx context.Context, p Proven) error
}

// A Stream feeds a Follower with leaves that a log publishes as they come. Its
// messages are a hint: what they bring is proven like all else, what they do not
// bring is asked of the log.
//
//	receive  decode; the leaf's own proof, under a head signed by the log → window
//	follow   the tail of Follower, which reads from the window what is there
//	commit   as in Follower; then compare heads, then acknowledge
//
// Of a filtered subscription each entry is proven by itself instead, which takes
// one consistency proof each, and no range of the log counts as read.
type Stream struct {
	Open     func(ctx context.Context) (Subscription, error)
	Decode   func(Event) (Published, error)
	SET      func(Log, Leaf) error // checks a leaf's signed entry timestamp
	Filtered bool
	Wait     time.Duration // how long a leaf under a verified head may be late before the log is asked for it
	Ahead    uint64        // leaves beyond the position that are held, at most
	Bytes    int           // bytes that are held, at most
	Keeper   *Keeper
	Store    SingleStore
	Log      *slog.Logger
	Metrics  *Metrics
	Changed  func()

	mu      sync.Mutex
	live    bool               // somebody receives
	windows map[string]*window // by origin
	warned  time.Time          // when a rejected message was last logged
	doubts  []doubt            // heads that could not be judged yet
}

type doubt struct {
	served Served
	note   []byte
}

// maxDoubts bounds the heads that wait to be judged: one convicts a log.
const maxDoubts = 16

// An outcome is what became of a message.
type outcome string

const (
	taken   outcome = "taken"    // waits to be committed
	double  outcome = "double"   // came again before it was committed
	covered outcome = "covered"  // was committed before
	single  outcome = "single"   // proven and committed by itself
	early   outcome = "early"    // sent back: too far ahead, or of a shard not known yet
	bad     outcome = "rejected" // malformed or not proven
	failed  outcome = "failed"   // sent back: could not be proven or committed now
)

// streamSource is who is said to show the heads that come with messages.
const streamSource = "the event stream"

// start receives until ctx ends, and returns what waits for that. Rounds before it
// read the log as if there were no stream.
func (s *Stream) start(ctx context.Context) (wait func()) {
	if s == nil {
		return func() {}
	}
	s.live = true
	var receiving sync.WaitGroup
	receiving.Go(func() { s.run(ctx) })
	return receiving.Wait
}

func (s *Stream) run(ctx context.Context) {
	failures, last := 0, ""
	for ctx.Err() == nil {
		n, err := s.receive(ctx)
		if ctx.Err() != nil {
			return
		}
		if n > 0 {
			failures, last = 0, ""
		}
		failures++
		if err.Error() != last {
			last = err.Error()
			s.Log.ErrorContext(ctx, "cannot read the event stream; will try again, and asks the log meanwhile", "error", err)
		}
		pause := min(time.Second<<min(failures-1, 8), 5*time.Minute)
		if sleep(ctx, pause+rand.N(pause/8+1)) != nil {
			return
		}
	}
}

// receive reads one subscription until it fails, and returns how many messages it
// brought. Messages that are sent back are taken more and more slowly, so that they
// do not go in circles.
func (s *Stream) receive(ctx context.Context) (n int, err error) {
	sub, err := s.Open(ctx)
	if err != nil {
		return 0, fmt.Errorf("opening the subscription: %w", err)
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	pause := time.Duration(0)
	for {
		if err := s.room(ctx); err != nil {
			return n, err
		}
		e, err := sub.Receive(ctx)
		if err != nil {
			return n, fmt.Errorf("receiving: %w", err)
		}
		n++
		o := s.take(ctx, e)
		s.Metrics.events.WithLabelValues(string(o)).Inc()
		switch o {
		case covered, single, bad:
			e.Ack()
			pause = 0
		case early, failed:
			e.Nack()
			pause = min(max(2*pause, 10*time.Millisecond), 5*time.Second)
			if err := sleep(ctx, pause); err != nil {
				return n, err
			}
		default: // acknowledged with its commit
			pause = 0
		}
	}
}

// take finds a message's place, and before it is held checks that the log has
// signed for it.
func (s *Stream) take(ctx context.Context, e Event) outcome {
	p, err := s.Decode(e)
	if err != nil {
		return s.reject(ctx, p, err)
	}
	s.mu.Lock()
	w := s.windows[p.Origin]
	s.mu.Unlock()
	if w == nil {
		return early
	}
	if !s.Filtered && w.place(p.Proof.Leaf.Index) == early {
		return early
	}
	head, err := s.verify(w.log(), p)
	if err != nil {
		return s.reject(ctx, p, err)
	}
	if s.Filtered {
		return s.commit(ctx, w.log(), head, p)
	}
	return w.put(e, p.Proof.Leaf, head)
}

// reject logs one message a minute; the others are counted.
func (s *Stream) reject(ctx context.Context, p Published, err error) outcome {
	if now := time.Now(); now.Sub(s.warned) >= time.Minute {
		s.warned = now
		s.Log.WarnContext(ctx, "a message of the event stream is not what the log has signed", "log", p.Origin, "index", p.Proof.Leaf.Index, "error", err)
	}
	return bad
}

// verify checks a message by itself: a head that the log has signed, the leaf in
// it, and its signed time. Whether the head belongs to the log's one history is
// seen when the tail has come there. A message that fails accuses nobody: any relay
// could have made it.
func (s *Stream) verify(served Served, p Published) (Head, error) {
	head, err := ParseHead(p.Proof.Note, p.Origin, served.Verifier)
	if err != nil {
		return Head{}, err
	}
	leaf := p.Proof.Leaf
	if p.Proof.Size != head.Size {
		return Head{}, fmt.Errorf("the proof is for size %d, its head for size %d", p.Proof.Size, head.Size)
	}
	if err := VerifyInclusion(leaf.Index, HashLeaf(leaf.Data), head, p.Proof.Hashes); err != nil {
		return Head{}, err
	}
	if got := served.Log.Global(leaf.Index); got != p.Global {
		return Head{}, fmt.Errorf("entry %d is said to be leaf %d of a shard that begins at %d", p.Global, leaf.Index, served.Log.FirstGlobal)
	}
	if err := s.SET(served.Log, leaf); err != nil {
		return Head{}, fmt.Errorf("signed entry timestamp: %w", err)
	}
	return head, nil
}

// commit proves an entry of a filtered subscription under its own head, which has
// to be consistent with ours, and indexes it.
func (s *Stream) commit(ctx context.Context, served Served, head Head, p Published) outcome {
	head, err := s.Keeper.CheckFrom(ctx, served, head.Note, streamSource)
	if contradiction := (*Contradiction)(nil); errors.As(err, &contradiction) {
		s.Changed()
		return bad
	}
	if err == nil {
		err = s.Store.CommitSingle(ctx, Proven{Log: served.Log, Head: head, Leaf: p.Proof.Leaf, Hash: HashLeaf(p.Proof.Leaf.Data), Proof: p.Proof.Hashes})
	}
	if err != nil {
		if ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "cannot index an entry of the event stream; it is sent again", "log", p.Origin, "index", p.Proof.Leaf.Index, "error", err)
		}
		return failed
	}
	s.Changed()
	return single
}

// room waits until every window has room.
func (s *Stream) room(ctx context.Context) error {
	s.mu.Lock()
	windows := make([]*window, 0, len(s.windows))
	for _, w := range s.windows {
		windows = append(windows, w)
	}
	s.mu.Unlock()
	for _, w := range windows {
		if err := w.room(ctx); err != nil {
			return err
		}
	}
	return nil
}

// serve begins a round: the logs are read through their windows.
func (s *Stream) serve(served []Served) {
	if s == nil || !s.live {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	windows := make(map[string]*window)
	for origin, w := range s.windows {
		if w.started() { // a replica may not have heard of a new shard yet
			windows[origin] = w
		}
	}
	for i := range served {
		origin := served[i].Log.Origin
		w := s.windows[origin]
		if w == nil {
			w = newWindow(s.Ahead, s.Bytes, s.Wait)
		}
		windows[origin] = w
		w.serve(served[i])
		if !s.Filtered {
			served[i].Source = pushed{served[i].Source, w, func(n int) { s.Metrics.fetched.WithLabelValues(origin).Add(float64(n)) }}
		}
	}
	s.windows = windows
}

// at says where the tail of a log is and how far it may go.
func (s *Stream) at(l Log, pos Position, head Head) {
	if w := s.window(l); w != nil {
		for _, e := range w.at(pos.Next, head.Size) {
			e.Ack()
		}
	}
}

func (s *Stream) window(l Log) *window {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.windows[l.Origin]
}

// committed acknowledges what a batch has covered. A crash before it has the
// messages sent again, and then they are found covered.
func (s *Stream) committed(ctx context.Context, b Batch) error {
	w := s.window(b.Log)
	if w == nil {
		return nil
	}
	done, notes, err := w.committed(b)
	if err != nil {
		return err
	}
	for _, n := range notes {
		if len(s.doubts) < maxDoubts {
			s.doubts = append(s.doubts, doubt{w.log(), n})
		}
	}
	err = s.judge(ctx)
	for _, e := range done {
		e.Ack()
	}
	return err
}

// judge puts doubtful heads to the log. What cannot be decided now stays for the
// next commit.
func (s *Stream) judge(ctx context.Context) error {
	var errs []error
	doubts := s.doubts
	s.doubts = nil
	for _, d := range doubts {
		_, err := s.Keeper.CheckFrom(ctx, d.served, d.note, streamSource)
		if contradiction := (*Contradiction)(nil); err != nil && !errors.As(err, &contradiction) {
			s.doubts = append(s.doubts, d)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
