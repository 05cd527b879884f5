package monitor

import (
	"context"
	"fmt"
	"time"
)

// A Clock says between which times a leaf was logged; false where it does not tell.
type Clock func(Leaf) (from, to time.Time, ok bool)

// A Locator finds where in a log a time lies, as far as that can be known. Leaves
// of one log are ordered by index; what they say of the time is neither exact nor
// always in order, and only some say anything.
type Locator struct {
	Keeper *Keeper
	Clock  Clock
	Prove  bool // the clock reads what the tree covers, so that a leaf counts once it is proven
	// Heads returns the largest head seen before a time, and the first one
	// from then on; zero where there is none.
	Heads func(ctx context.Context, l Log, at time.Time) (before, after Head, err error)
}

// A Place is where a time lies in a log. The first leaf that was logged at that time
// or later is one of those from Below to Above, Above included.
type Place struct {
	At           time.Time
	Below, Above uint64 // leaves before Below were logged before At, those from Above on were not
	// What is known of the times around: the leaf before Below was logged no
	// earlier than Since, the leaf at Above no later than Until. Zero: nothing.
	Since, Until time.Time
	ByHeads      bool // a head that was seen at the time says more than the leaves do
}

// Of says where in the log the time lies, and how wide the uncertainty is.
func (p Place) Of(l Log) string {
	text := fmt.Sprintf("%s lies at entry %d", p.At.UTC().Format(time.RFC3339), l.Global(p.Below))
	if p.Above > p.Below {
		text = fmt.Sprintf("%s lies between the entries %d and %d, %d wide", p.At.UTC().Format(time.RFC3339), l.Global(p.Below), l.Global(p.Above), p.Above-p.Below)
	}
	switch {
	case !p.Since.IsZero() && !p.Until.IsZero() && p.Until.After(p.Since):
		text += fmt.Sprintf(" and %s in time", p.Until.Sub(p.Since).Round(time.Second))
	case p.Since.IsZero() && p.Until.IsZero() && p.Above > p.Below:
		text += "; no entry there has a time that can be trusted"
	}
	if p.ByHeads {
		text += " (by heads seen at the time)"
	}
	return text
}

// Locate finds a time among the leaves of a head.
func (w *Locator) Locate(ctx context.Context, s Served, head Head, at time.Time) (Place, error) {
	p := Place{At: at}
	// Logged for certain before the time; and for certain not before it.
	early, err := w.bisect(ctx, s, head, 0, func(_, to time.Time) bool { return !to.Before(at) })
	if err != nil {
		return p, err
	}
	late, err := w.bisect(ctx, s, head, early.below, func(from, _ time.Time) bool { return !from.Before(at) })
	if err != nil {
		return p, err
	}
	p.Below, p.Above, p.Since, p.Until = early.below, max(early.below, late.above), early.since, late.until
	before, after, err := w.Heads(ctx, s.Log, at)
	if err != nil {
		return p, err
	}
	// Where a head narrows it down, it counts; where the two disagree, both do.
	switch {
	case before.Size > p.Above:
		p.Above, p.ByHeads = before.Size, true
	case before.Size > p.Below:
		p.Below, p.Since, p.ByHeads = before.Size, before.Seen, true
	}
	switch {
	case after.Seen.IsZero():
	case after.Size < p.Below:
		p.Below, p.ByHeads = after.Size, true
	case after.Size < p.Above:
		p.Above, p.Until, p.ByHeads = after.Size, after.Seen, true
	}
	return p, nil
}

// bounds are the outcome of a bisection: leaves before below have not reached what
// was looked for, as far as was seen, those from above on have.
type bounds struct {
	below, above uint64
	since, until time.Time // of the leaf before below, and of the leaf at above
}

// bisect looks for the first leaf from index from on that has reached something. It
// ends whatever the times say, in order or not.
func (w *Locator) bisect(ctx context.Context, s Served, head Head, from uint64, reached func(from, to time.Time) bool) (bounds, error) {
	b := bounds{below: from, above: head.Size}
	for end := head.Size; b.below < end; {
		mid := b.below + (end-b.below)/2
		p, err := w.probe(ctx, s, head, mid, end)
		switch {
		case err != nil:
			return b, err
		case !p.ok:
			end = mid // nothing is known of mid to end
		case reached(p.from, p.to):
			b.above, b.until, end = p.index, p.to, mid
		default:
			b.below, b.since = p.index+1, p.from
		}
	}
	return b, nil
}

type probe struct {
	index    uint64
	from, to time.Time
	ok       bool
}

const (
	probePlaces = 8 // spread over what is left, when the first leaf does not tell
	probeLeaves = 4 // looked at in each place
)

// probe reads the time of the first leaf it can between two indexes.
func (w *Locator) probe(ctx context.Context, s Served, head Head, index, end uint64) (probe, error) {
	next := index
	for place := range uint64(probePlaces) {
		next = max(next, index+(end-index)/probePlaces*place)
		for range probeLeaves {
			if next >= end {
				return probe{}, nil
			}
			leaf, err := w.leaf(ctx, s, head, next)
			if err != nil {
				return probe{}, err
			}
			if from, to, ok := w.Clock(leaf); ok {
				return probe{next, from, to, true}, nil
			}
			next++
		}
	}
	return probe{}, nil
}

func (w *Locator) leaf(ctx context.Context, s Served, head Head, index uint64) (Leaf, error) {
	p, err := s.Source.Inclusion(ctx, head, index)
	if err != nil {
		return Leaf{}, fmt.Errorf("log %q: asking for the time of leaf %d: %w", s.Log.Origin, index, err)
	}
	if p.Leaf.Index != index {
		return Leaf{}, fmt.Errorf("log %q: asked for leaf %d, got leaf %d", s.Log.Origin, index, p.Leaf.Index)
	}
	if !w.Prove {
		return p.Leaf, nil
	}
	proven, err := w.Keeper.Prove(ctx, s, head, p)
	return proven.Leaf, err
}
