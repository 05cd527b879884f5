package monitor

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A window holds what the event stream has brought of one log beyond the position
// of its tail, by index. It is bounded in leaves and in bytes. To the tail it is
// the log's Source: what it lacks, it asks the log for.
type window struct {
	leaves uint64        // bound: how far beyond the position
	bytes  int           // bound of what is held, but for one message
	wait   time.Duration // how long a leaf may be late

	mu      sync.Mutex
	served  Served
	begun   bool   // there is a position
	next    uint64 // position: leaves before it are committed
	shown   []shown
	held    map[uint64]*held
	size    int               // bytes of all held, and of all heads
	heads   map[uint64][]Head // that came with the leaves, by size, until the tail has come there
	late    []byte            // newest head that came after the tail had passed it; nil: none
	changed chan struct{}     // closed when a leaf has come or the position has moved
}

// shown is a size that the log has shown, and when its leaves are late.
type shown struct {
	size uint64
	late time.Time
}

// held is a leaf that was published and is not committed yet.
type held struct {
	leaf     Leaf
	weight   int
	given    bool // to the tail, in this round
	spent    bool // asked for again in the same round: it did not fold
	messages []Event
}

// maxCopies bounds how many messages about one leaf wait to be acknowledged with
// it, and how many heads of one size wait to be compared.
const maxCopies = 8

func newWindow(leaves uint64, bytes int, wait time.Duration) *window {
	return &window{leaves: leaves, bytes: bytes, wait: wait, held: make(map[uint64]*held), heads: make(map[uint64][]Head), changed: make(chan struct{})}
}

// serve begins a round: what the last one was given and has not committed is there
// again, but for what did not fold.
func (w *window) serve(s Served) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served = s
	for _, h := range w.held {
		h.given = h.spent
	}
}

// started reports whether the log has a position.
func (w *window) started() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begun
}

func (w *window) log() Served {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.served
}

// at says where the tail is, and how much of the log it may read by now. It returns
// the messages about leaves that the tail has skipped.
func (w *window) at(next, size uint64) (skipped []Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	skipped = w.drop(next)
	w.begun, w.next = true, next
	now := time.Now()
	for len(w.shown) > 1 && now.After(w.shown[1].late) {
		w.shown = w.shown[1:]
	}
	if n := len(w.shown); n == 0 || size > w.shown[n-1].size {
		w.shown = append(w.shown, shown{size, now.Add(w.wait)})
	}
	w.wake()
	return skipped
}

func (w *window) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// place says what becomes of a message about a leaf.
func (w *window) place(index uint64) outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.placeOf(index)
}

func (w *window) placeOf(index uint64) outcome {
	switch {
	case !w.begun || index >= w.next && index-w.next >= w.leaves:
		return early
	case index < w.next:
		return covered
	case w.held[index] == nil:
		return taken
	case len(w.held[index].messages) < maxCopies:
		return double
	}
	return early
}

// put takes a message about a leaf whose proof leads to the head.
func (w *window) put(e Event, leaf Leaf, head Head) outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.placeOf(leaf.Index)
	switch o {
	case taken:
		h := &held{leaf: leaf}
		w.held[leaf.Index] = h
		w.add(h, e, len(leaf.Data)+len(leaf.SET))
		w.wake()
	case double:
		w.add(w.held[leaf.Index], e, 0)
	case covered:
		if head.Size <= w.next {
			w.late = head.Note
		}
	default:
		return o
	}
	w.keepHead(head)
	return o
}

// add keeps a message with its leaf. Its body counts although nobody reads it again:
// a broker's client may hold on to it until it is acknowledged.
func (w *window) add(h *held, e Event, leaf int) {
	weight := leaf + len(e.Body) + 512
	e.Body, e.Attributes = nil, nil
	h.messages = append(h.messages, e)
	h.weight += weight
	w.size += weight
}

// keepHead keeps a head until the tail has come to its size: a log that shows two
// histories may show the other one here only.
func (w *window) keepHead(h Head) {
	if h.Size <= w.next || h.Size-w.next > w.leaves || len(w.heads[h.Size]) >= maxCopies ||
		slices.ContainsFunc(w.heads[h.Size], h.SameTree) {
		return
	}
	w.heads[h.Size] = append(w.heads[h.Size], Head{Size: h.Size, Root: h.Root, Note: h.Note})
	w.size += len(h.Note)
}

// room waits until there is room for another message.
func (w *window) room(ctx context.Context) error {
	for {
		w.mu.Lock()
		full, changed := w.size >= w.bytes, w.changed
		w.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// committed moves the position behind a batch. It returns the messages that can be
// acknowledged, and the heads to be put to the log: those that belie what was
// committed, and one of those that came too late to be compared, as asking about
// each would take a request each.
func (w *window) committed(b Batch) (done []Event, doubtful [][]byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.heads) > 0 {
		if doubtful, err = w.compare(b); err != nil {
			return nil, nil, err
		}
	}
	if w.late != nil {
		doubtful, w.late = append(doubtful, w.late), nil
	}
	done = w.drop(b.To.Next)
	w.next = max(w.next, b.To.Next)
	w.wake()
	return done, doubtful, nil
}

// compare folds the batch once more and holds each head against the root that the
// log had at its size.
func (w *window) compare(b Batch) (lies [][]byte, err error) {
	pos, folded := b.From, 0
	for i := range b.Hashes {
		heads := w.heads[b.From.Next+uint64(i)+1]
		if len(heads) == 0 {
			continue
		}
		if pos, err = pos.Fold(b.Hashes[folded : i+1]); err != nil {
			return nil, err
		}
		folded = i + 1
		root, err := pos.Root()
		if err != nil {
			return nil, err
		}
		for _, h := range heads {
			if h.Root != root {
				lies = append(lies, h.Note)
			}
		}
	}
	return lies, nil
}

// drop forgets what lies before a position and returns its messages.
func (w *window) drop(next uint64) (done []Event) {
	for i, h := range w.held {
		if i < next {
			done = append(done, h.messages...)
			w.size -= h.weight
			delete(w.held, i)
		}
	}
	for size, heads := range w.heads {
		if size <= next {
			for _, h := range heads {
				w.size -= len(h.Note)
			}
			delete(w.heads, size)
		}
	}
	return done
}

// fetchAtOnce bounds how many late leaves are asked for before looking whether the
// next ones have come.
const fetchAtOnce = 50

// A pushed is a window as the tail reads it.
type pushed struct {
	Source
	*window
	fetched func(leaves int)
}

// Leaves implements Source. It waits for leaves that are not late yet and asks the
// log for those that are, and for those that did not fold.
func (p pushed) Leaves(ctx context.Context, head Head, from, to uint64) ([]Leaf, error) {
	out := make([]Leaf, 0, to-from)
	for at := from; at < to; at = from + uint64(len(out)) {
		leaf, ok, err := p.take(ctx, at)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, leaf)
			continue
		}
		end := p.gap(at, min(to, at+fetchAtOnce))
		leaves, err := p.Source.Leaves(ctx, head, at, end)
		if err == nil {
			err = consecutive(leaves, at, end)
		}
		if err != nil {
			if len(out) > 0 {
				return out, nil
			}
			return nil, err
		}
		p.fetched(len(leaves))
		out = append(out, leaves...)
	}
	return out, nil
}

// take gives a leaf out, once a round. False when the log has to be asked for it.
func (w *window) take(ctx context.Context, index uint64) (Leaf, bool, error) {
	for {
		w.mu.Lock()
		h, changed, pause := w.held[index], w.changed, time.Until(w.lateness(index))
		if h != nil {
			defer w.mu.Unlock()
			if h.given {
				return Leaf{}, false, nil
			}
			h.given = true
			return h.leaf, true, nil
		}
		w.mu.Unlock()
		if pause <= 0 {
			return Leaf{}, false, nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return Leaf{}, false, ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// lateness is when a leaf that has not come is late.
func (w *window) lateness(index uint64) time.Time {
	for _, s := range w.shown {
		if index < s.size {
			return s.late
		}
	}
	return time.Time{}
}

// gap ends before the next leaf that can be given out. What was given out before is
// not to be believed again.
func (w *window) gap(from, to uint64) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := from; i < to; i++ {
		switch h := w.held[i]; {
		case h == nil:
		case h.given:
			h.spent = true
		case i > from: // else it has come this moment
			return i
		}
	}
	return to
}
