package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

// A Shown is a head that somebody other than the log shows: a provenance object, a
// person, another monitor. A log that shows different trees to different people is
// found by comparing what each was shown.
type Shown struct {
	ID     int64 // in the ShownStore; 0: not kept yet
	Note   []byte
	Source string // who showed it, for a person to read
	Seen   time.Time
	Tries  int // times that it could not be compared
}

// ShownStore keeps heads from elsewhere until they have been compared.
type ShownStore interface {
	// Show queues heads. A text that is queued already, or that is a verified
	// head, adds nothing.
	Show(ctx context.Context, heads []Shown) error

	// ShownDue returns heads to be compared now, the longest due first.
	ShownDue(ctx context.Context, now time.Time, limit int) ([]Shown, error)

	// Compared removes a head that has been compared.
	Compared(ctx context.Context, h Shown) error

	// NotCompared keeps why a head could not be compared, and when to try
	// again. Zero: never, it says nothing about the log.
	NotCompared(ctx context.Context, h Shown, why string, again time.Time) error
}

// ErrUnknownLog reports a head of a log of which no head was ever verified.
var ErrUnknownLog = errors.New("no log of that origin is followed")

// CheckShown is Check for a head that somebody else shows. A head that the log has
// signed and that does not fit what it showed us is a *Contradiction; one that the
// log has not signed (ErrForeignHead, ErrMalformedHead) accuses nobody.
func (k *Keeper) CheckShown(ctx context.Context, h Shown) (Head, error) {
	origin, _, err := ReadNote(h.Note)
	if err != nil {
		return Head{}, err
	}
	s, ok := k.served(origin)
	if !ok {
		if s, err = k.absent(ctx, origin); err != nil {
			return Head{}, err
		}
	}
	return k.CheckFrom(ctx, s, h.Note, h.Source)
}

// absent is a log that was followed once and that no server shows now: a head of it
// can still be held against the heads that are kept, under the key that is kept.
func (k *Keeper) absent(ctx context.Context, origin string) (Served, error) {
	memory, ok, err := k.Store.Known(ctx, origin)
	if ok && err == nil {
		_, ok, err = k.Store.Latest(ctx, memory.Log)
	}
	if err != nil {
		return Served{}, fmt.Errorf("remembering log %q: %w", origin, err)
	}
	if !ok || memory.Log.Key == "" {
		return Served{}, fmt.Errorf("%w: %q", ErrUnknownLog, origin)
	}
	key, err := ParseLogKey(memory.Log.Key)
	if err != nil {
		return Served{}, fmt.Errorf("log %q: %w", origin, err)
	}
	return Served{Log: memory.Log, Verifier: []note.Verifier{key.Verifier}, Source: unserved{}}, nil
}

// unserved is the Source of a log that no server shows.
type unserved struct{}

var errUnserved = errors.New("no server has shown the log since the program was started")

func (unserved) Consistency(context.Context, uint64, uint64) ([]Hash, error) { return nil, errUnserved }
func (unserved) Leaves(context.Context, Head, uint64, uint64) ([]Leaf, error) {
	return nil, errUnserved
}
func (unserved) Inclusion(context.Context, Head, uint64) (LeafProof, error) {
	return LeafProof{}, errUnserved
}

// ReadNote reads the origin and the signed text of a head whose signatures nobody
// has verified. ErrMalformedHead.
func ReadNote(signed []byte) (origin, text string, err error) {
	if len(signed) > MaxNote {
		return "", "", fmt.Errorf("%w: %d bytes, at most %d", ErrMalformedHead, len(signed), MaxNote)
	}
	end := bytes.LastIndex(signed, []byte("\n\n"))
	if end < 0 {
		return "", "", fmt.Errorf("%w: no signature lines", ErrMalformedHead)
	}
	text = string(signed[:end+1])
	var c log.Checkpoint
	if _, err := c.Unmarshal([]byte(text)); err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrMalformedHead, err)
	}
	return c.Origin, text, nil
}

// maxHeads bounds the heads that are read from one text.
const maxHeads = 1000

// FindHeads returns the signed notes in a text: the note itself, or every string in
// a JSON value that looks like a signed head. So a saved checkpoint will do, as will
// the answer of a v1 log, a provenance object, a bundle, or another sigtrail's
// /heads. None of them is verified.
func FindHeads(text []byte) [][]byte {
	if _, _, err := ReadNote(text); err == nil {
		return [][]byte{text}
	}
	var found [][]byte
	d := json.NewDecoder(strings.NewReader(string(text)))
	for len(found) < maxHeads {
		t, err := d.Token()
		if err != nil {
			break
		}
		if s, ok := t.(string); ok {
			if _, _, err := ReadNote([]byte(s)); err == nil {
				found = append(found, []byte(s))
			}
		}
	}
	return found
}

// A Comparer compares the heads that others show with what the logs show us.
type Comparer struct {
	Keeper  *Keeper
	Store   ShownStore
	Log     *slog.Logger
	Metrics *Metrics
	Changed func() // called after a contradiction
}

const (
	comparePause  = 10 * time.Second // between looks for heads that are due
	compareBatch  = 64
	compareAgain  = time.Minute // after the first failure; doubled after each
	compareAtMost = 6 * time.Hour
)

// Run compares until ctx ends.
func (c *Comparer) Run(ctx context.Context) error {
	for {
		n, err := c.Once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if contradiction := (*Contradiction)(nil); err != nil && !errors.As(err, &contradiction) {
			c.Log.ErrorContext(ctx, "cannot compare heads from elsewhere; will try again", "error", err)
		}
		if n == compareBatch && err == nil {
			continue
		}
		if sleep(ctx, comparePause) != nil {
			return nil
		}
	}
}

// Once compares the heads that are due, at most a batch of them, and returns how
// many those were. Contradictions come back joined in the error.
func (c *Comparer) Once(ctx context.Context) (int, error) {
	due, err := c.Store.ShownDue(ctx, c.Keeper.Now(), compareBatch)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, h := range due {
		if err := c.compare(ctx, h); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return len(due), errors.Join(errs...)
}

func (c *Comparer) compare(ctx context.Context, h Shown) error {
	_, err := c.Keeper.CheckShown(ctx, h)
	contradiction := (*Contradiction)(nil)
	count := func(outcome string) { c.Metrics.shown.WithLabelValues(outcome).Inc() }
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		count("fits")
		return c.Store.Compared(ctx, h)
	case errors.As(err, &contradiction):
		count("contradicts")
		c.Log.ErrorContext(ctx, "a head from elsewhere contradicts the log", "source", h.Source, "error", err)
		if c.Changed != nil {
			c.Changed()
		}
		return errors.Join(err, c.Store.Compared(ctx, h))
	case errors.Is(err, ErrForeignHead), errors.Is(err, ErrMalformedHead):
		count("unsigned")
		c.Log.WarnContext(ctx, "a head from elsewhere is not the log's", "source", h.Source, "error", err)
		return c.Store.NotCompared(ctx, h, err.Error(), time.Time{})
	}
	count("waits")
	again := min(compareAgain<<min(h.Tries, 10), compareAtMost)
	return c.Store.NotCompared(ctx, h, err.Error(), c.Keeper.Now().Add(again))
}
