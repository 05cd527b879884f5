package monitor

import (
	"context"
	"errors"
	"slices"
	"time"
)

// doubts are heads that a log has signed and shown us and that count for nothing
// yet: they could not be tied to ours, or too few witnesses have cosigned them. The
// log may never show them again, so they are held against what it shows later. They
// are in memory only: what is in doubt when the process ends is forgotten.
type doubts struct {
	heads   []Head
	refused time.Time // since when the log has no proof for a smaller one of them; zero: it has
}

func (k *Keeper) doubtsOf(origin string) *doubts {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.doubts == nil {
		k.doubts = make(map[string]*doubts)
	}
	d := k.doubts[origin]
	if d == nil {
		d = new(doubts)
		k.doubts[origin] = d
	}
	return d
}

// doubt keeps a head to be settled. The caller has locked its log.
func (k *Keeper) doubt(h Head) {
	if d := k.doubtsOf(h.Origin); len(d.heads) < maxDoubts && !slices.ContainsFunc(d.heads, h.SameTree) {
		d.heads = append(d.heads, h)
	}
}

// refuse is doubt for a smaller head that the log has no proof for. It returns since
// when the log has been without.
func (k *Keeper) refuse(h Head) time.Time {
	k.doubt(h)
	d := k.doubtsOf(h.Origin)
	if d.refused.IsZero() {
		d.refused = k.Now()
	}
	return d.refused
}

// settle asks again about the heads in doubt, now that the log shows one that is not: a
// replica that lagged is proven then, a fork that was shown for a moment is not.
func (k *Keeper) settle(ctx context.Context, s Served, ours, theirs Head) error {
	if theirs.Size > ours.Size {
		ours = theirs
	}
	d := k.doubtsOf(s.Log.Origin)
	refused := false
	var left []Head
	for i, h := range d.heads {
		if h.Size > ours.Size { // waits until we have come there
			left = append(left, h)
			continue
		}
		err := k.compare(ctx, s, ours, h)
		if errors.As(err, new(*Contradiction)) {
			d.heads = append(left, d.heads[i+1:]...)
			return err
		}
		if err != nil {
			left, refused = append(left, h), true
		}
	}
	d.heads = left
	if !refused {
		d.refused = time.Time{}
	}
	return nil
}
