package lab

import "sync"

// A history is what a log has been given and what it shows of it. While it is
// honest, they are the same tree.
type history struct {
	mu     sync.Mutex
	honest *tree
	shown  *tree
	flips  map[uint64]bool
	other  bool // sign with another key

	extensions    []string // lines of the text of heads
	before, after []SignatureLine
}

func newHistory() *history {
	t := new(tree)
	return &history{honest: t, shown: t, flips: make(map[uint64]bool)}
}

func (h *history) append(leaf []byte) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shown != h.honest {
		h.shown.append(leaf)
	}
	return h.honest.append(leaf)
}

// view is the tree shown now. A lie may replace it at any time; only appends
// change it in place.
func (h *history) view() *tree {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shown
}

// leaf is what is served for an index: a flipped leaf has another byte than the
// one that the tree was made of.
func (h *history) leaf(t *tree, index uint64) []byte {
	b := t.leaves[index]
	if h.flips[index] {
		b = append([]byte(nil), b...)
		b[len(b)/2] ^= 1
	}
	return b
}

var forged = []byte(`{"apiVersion":"0.0.1","kind":"rekord","spec":{}}`)

// FlipLeaf changes a byte of a leaf as it is served; heads and proofs stay.
func (h *history) FlipLeaf(index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flips[index] = true
}

// ForkAt shows another history of the same size from a leaf on, which grows with
// the log.
func (h *history) ForkAt(index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shown = h.honest.with(index, append([][]byte{forged}, h.honest.leaves[index+1:]...)...)
}

// ServeInconsistent shows a larger tree that does not extend the honest one.
func (h *history) ServeInconsistent() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shown = h.honest.with(0, append(append([][]byte{forged}, h.honest.leaves[1:]...), forged, forged)...)
}

// ShrinkTo shows a smaller tree with another last leaf.
func (h *history) ShrinkTo(size uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shown = h.honest.with(size-1, forged)
}

// Stale shows the honest tree as it was at a smaller size: a replica behind.
func (h *history) Stale(size uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shown = h.honest.with(size)
}

// SignWithOtherKey signs heads with a key that no trusted root names.
func (h *history) SignWithOtherKey() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.other = true
}

// Honest ends every lie.
func (h *history) Honest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shown, h.other = h.honest, false
	clear(h.flips)
}

// Size is how many leaves the log has been given.
func (h *history) Size() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.honest.size()
}
