package monitor

import (
	"context"
	"errors"
	"time"
)

// Store remembers. Every method is one transaction: it has happened whole or not
// at all, whenever the process dies.
type Store interface {
	// Latest returns the largest verified head of the log, false if none.
	Latest(ctx context.Context, l Log) (Head, bool, error)

	// HeadAt returns a verified head of the log of exactly that size.
	HeadAt(ctx context.Context, l Log, size uint64) (Head, bool, error)

	// SaveHead keeps a verified head. The same text again is the same head. A
	// head from the log itself (no Source) also updates its habit, and closes
	// the log if l says so. ours is the largest verified head when h was
	// compared, zero if there was none. ErrConflict if another is by now.
	SaveHead(ctx context.Context, l Log, h, ours Head) error

	// Known returns what is remembered of the log with that origin, under the
	// key that was seen first. False if none.
	Known(ctx context.Context, origin string) (Memory, bool, error)

	// LogsAt returns the logs that were last seen at a read address.
	LogsAt(ctx context.Context, url string) ([]Log, error)

	// Contradict keeps both sides of a contradiction as evidence and queues
	// its alert. The same contradiction again adds nothing. ClosedChanged
	// opens the log again.
	Contradict(ctx context.Context, c Contradiction) error

	// Position returns how far the log's tail has come, false before Begin.
	Position(ctx context.Context, l Log) (Position, bool, error)

	// Begin sets the first position of a log's tail. ErrConflict if it has one.
	Begin(ctx context.Context, l Log, p Position) error

	// Skip moves a position ahead over leaves that stay unread, and records
	// the gap in the same transaction. ErrConflict as for Commit.
	Skip(ctx context.Context, l Log, from, to Position, gap Contradiction) error

	// SeenBy returns when the log first showed a verified head larger than
	// index, zero if it has not.
	SeenBy(ctx context.Context, l Log, index uint64) (time.Time, error)

	// Commit indexes a proven batch and moves the position from b.From to
	// b.To in the same transaction. ErrConflict if the stored position is
	// not b.From: somebody else has moved it, and nothing is written.
	Commit(ctx context.Context, b Batch) error
}

// ErrConflict reports that somebody else has moved a position, or kept a head,
// since it was read.
var ErrConflict = errors.New("another writer was faster")

// A Position is how far a tail has come: all leaves before Next are proven and
// indexed from where the tail began. Range is the compact range [0, Next), left
// to right, which is all that is needed to fold on and to prove.
type Position struct {
	Next  uint64
	Range []Hash
}

// A Batch is a run of consecutive leaves proven under Head.
type Batch struct {
	Log    Log
	Head   Head // verified, Size >= To.Next
	From   Position
	To     Position
	Leaves []Leaf // len == To.Next - From.Next
	Hashes []Hash // leaf hashes, same order
}

// Proven is one leaf tied to a verified head by an inclusion proof.
type Proven struct {
	Log   Log
	Head  Head
	Leaf  Leaf
	Hash  Hash   // leaf hash
	Proof []Hash // inclusion proof under Head
}

// A Range is the half-open span [From, To) of leaf indexes in one tree.
type Range struct{ From, To uint64 }

// A Memory is what is remembered of a log, its heads aside.
type Memory struct {
	Log        Log       // its FirstGlobal and key never change
	Closed     bool      // has been closed, at ClosedSize leaves
	ClosedSize uint64    // leaves
	Checked    time.Time // when it last showed a verified head
	Habit      Habit
}

// A Habit is how a log has behaved so far.
type Habit struct {
	Grown   time.Time     // when it was last seen to be larger than before
	Rest    time.Duration // longest time that it was seen to stand still before it grew
	Growths int           // how often it was seen to grow
}

// Kinds of contradiction, named as the rules that alert on them.
const (
	Equivocation  = "log-equivocation"     // same size, another root: both signed; or a head from elsewhere that does not fit
	Inconsistent  = "log-inconsistent"     // the log cannot prove that one tree extends the other, or a leaf is not what its tree says
	KeyChanged    = "log-key-changed"      // a head of a known origin by another key
	ClosedChanged = "closed-shard-changed" // a log that was closed grows, or is no longer listed
)

// Kinds that contradict an expectation, not a statement of the log.
const (
	Stalled     = "log-stalled"  // no larger head for longer than the log's habit
	CoverageGap = "coverage-gap" // leaves that nobody has looked at and that nothing will read by itself
)

// A Contradiction is two statements of a log that cannot both be true, kept with
// their signed bytes so that others can judge; or one head that belies what was
// expected of the log.
type Contradiction struct {
	Kind   string
	Log    Log
	Ours   Head   // verified earlier; zero Size if there was none
	Theirs Head   // what the log says now; Note as served, verified or not (Kind says); no Note: nothing
	Proof  []Hash // the proof that failed, if one was given
	Claim  *Claim // what the proof was for, if not for Theirs: then Theirs is Ours
	// Subject makes the alert's identity together with Kind and Log: what a
	// forked log adds to its fork is the same incident, not a new one.
	Subject string
	Detail  string // one sentence for a person
	At      time.Time
}

// Accuses reports whether the log itself is to be distrusted.
func (c Contradiction) Accuses() bool { return c.Kind != Stalled && c.Kind != CoverageGap }

func (c Contradiction) Error() string { return c.Kind + ": " + c.Log.Origin + ": " + c.Detail }
