package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// numbered is a log of leaves that are named by their index.
type numbered struct {
	Source
	asked []Range
	fails bool
}

func numberedLeaf(i uint64) Leaf { return Leaf{Index: i, Data: fmt.Append(nil, "leaf ", i)} }

func (n *numbered) Leaves(_ context.Context, _ Head, from, to uint64) ([]Leaf, error) {
	n.asked = append(n.asked, Range{from, to})
	if n.fails {
		return nil, errors.New("no answer")
	}
	var out []Leaf
	for i := from; i < to; i++ {
		out = append(out, numberedLeaf(i))
	}
	return out, nil
}

// published is a message about a leaf, which notes when it is settled.
func published(settled *[]uint64, i uint64) Event {
	return Event{Ack: func() { *settled = append(*settled, i) }, Nack: func() {}}
}

func (w *window) putAll(settled *[]uint64, indexes ...uint64) {
	for _, i := range indexes {
		w.put(published(settled, i), numberedLeaf(i), Head{Size: i + 1})
	}
}

func TestWindowPlaces(t *testing.T) {
	var settled []uint64
	w := newWindow(10, 1<<20, time.Second)
	if o := w.place(0); o != early {
		t.Errorf("a message before there is a position: %s, want it sent back", o)
	}
	w.at(5, 20)
	w.putAll(&settled, 7)
	for index, want := range map[uint64]outcome{0: covered, 4: covered, 5: taken, 7: double, 14: taken, 15: early, 1 << 60: early} {
		if got := w.place(index); got != want {
			t.Errorf("a message about leaf %d, at position 5 of 10 ahead: %s, want %s", index, got, want)
		}
	}
	for range maxCopies + 5 {
		w.putAll(&settled, 7)
	}
	if n := len(w.held[7].messages); n != maxCopies {
		t.Errorf("%d messages about one leaf are held, want at most %d", n, maxCopies)
	}
	for _, e := range w.at(9, 20) {
		e.Ack()
	}
	if len(settled) != maxCopies || w.size != 0 || len(w.held) != 0 || len(w.heads) != 0 {
		t.Errorf("after the tail has skipped: %d messages given back, %d bytes, %d leaves, %d heads held", len(settled), w.size, len(w.held), len(w.heads))
	}
}

// What is there is given out, once a round; what is not is waited for, and then
// asked of the log in as few requests as the holes allow.
func TestWindowLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var settled []uint64
		log, fetched := new(numbered), 0
		w := newWindow(1000, 1<<20, 5*time.Second)
		src := pushed{log, w, func(n int) { fetched += n }}
		w.serve(Served{})
		w.at(0, 200)
		w.putAll(&settled, 0, 1, 2, 5, 9)
		go func() {
			time.Sleep(4 * time.Second)
			w.putAll(&settled, 4)
			time.Sleep(2 * time.Second)
			w.putAll(&settled, 6)
		}()
		began := time.Now()
		leaves, err := src.Leaves(t.Context(), Head{}, 0, 10)
		if err != nil || consecutive(leaves, 0, 10) != nil || len(leaves) != 10 {
			t.Fatalf("%d leaves, %v; want ten in order", len(leaves), err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it waited for %s, want until the leaves are late", took)
		}
		if want := []Range{{3, 4}, {6, 9}}; !slices.Equal(log.asked, want) || fetched != 4 {
			t.Errorf("the log was asked for %v, %d leaves; want %v", log.asked, fetched, want)
		}

		// They did not fold: the second reading is the log's own.
		log.asked = nil
		if _, err := src.Leaves(t.Context(), Head{}, 0, 10); err != nil || !slices.Equal(log.asked, []Range{{0, 10}}) {
			t.Errorf("the second reading asked for %v, %v; want all", log.asked, err)
		}
		log.asked = nil
		w.serve(Served{})
		if _, err := src.Leaves(t.Context(), Head{}, 0, 3); err != nil || !slices.Equal(log.asked, []Range{{0, 3}}) {
			t.Errorf("the next round asked for %v, %v; want what had not folded", log.asked, err)
		}

		// A new head covers what nobody has been late with yet.
		w.at(0, 400)
		began, log.asked = time.Now(), nil
		leaves, err = src.Leaves(t.Context(), Head{}, 150, 300)
		if took := time.Since(began); err != nil || len(leaves) != 150 || took != 5*time.Second {
			t.Errorf("%d leaves, %v after %s; want those under the new head waited for", len(leaves), err, took)
		}
		for _, r := range log.asked {
			if r.To-r.From > fetchAtOnce {
				t.Errorf("the log was asked for %v at once", r)
			}
		}
		log.fails = true
		w.putAll(&settled, 300)
		if leaves, err := src.Leaves(t.Context(), Head{}, 300, 310); err != nil || len(leaves) != 1 {
			t.Errorf("%d leaves, %v; want the one before the hole that the log does not fill", len(leaves), err)
		}
		if _, err := src.Leaves(t.Context(), Head{}, 301, 310); err == nil {
			t.Error("leaves that nobody has were given out")
		}
		if len(settled) != 0 {
			t.Errorf("messages about %v were acknowledged before any commit", settled)
		}
	})
}

// Messages are acknowledged with the batch that covers them, and no later head of
// theirs belies it unseen.
func TestWindowCommitted(t *testing.T) {
	var settled []uint64
	w := newWindow(1000, 1<<20, time.Second)
	w.serve(Served{})
	w.at(0, 8)
	pos := Position{}
	var b Batch
	for i := range uint64(8) {
		leaf := numberedLeaf(i)
		to, err := pos.Fold([]Hash{HashLeaf(leaf.Data)})
		if err != nil {
			t.Fatal(err)
		}
		root, err := to.Root()
		if err != nil {
			t.Fatal(err)
		}
		head := Head{Size: i + 1, Root: root, Note: []byte("right")}
		if i == 2 || i == 5 {
			head.Root[0] ^= 1
			head.Note = fmt.Append(nil, "wrong ", i)
		}
		w.put(published(&settled, i), leaf, head)
		b.Leaves, b.Hashes = append(b.Leaves, leaf), append(b.Hashes, HashLeaf(leaf.Data))
		pos = to
		if i != 3 && i != 7 {
			continue
		}
		b.To = pos
		done, lies, err := w.committed(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range done {
			e.Ack()
		}
		if want := fmt.Sprint("wrong ", i/4*3+2); len(lies) != 1 || string(lies[0]) != want {
			t.Errorf("heads that belie the batch up to %d: %q, want %q", i, lies, want)
		}
		if uint64(len(settled)) != i+1 {
			t.Errorf("messages about %v acknowledged, want all up to %d", settled, i)
		}
		b = Batch{From: pos}
	}
	if w.size != 0 || len(w.heads) != 0 {
		t.Errorf("%d bytes and %d heads are left", w.size, len(w.heads))
	}
}

// A full window takes nothing more until the tail has moved on.
func TestWindowFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var settled []uint64
		w := newWindow(1000, 10_000, time.Second)
		w.serve(Served{})
		w.at(0, 1000)
		n := uint64(0)
		for ; w.size < 10_000; n++ {
			w.putAll(&settled, n)
		}
		free := make(chan error, 1)
		go func() { free <- w.room(t.Context()) }()
		synctest.Wait()
		select {
		case <-free:
			t.Fatalf("there is room beside %d bytes", w.size)
		default:
		}
		w.at(n/2, 1000)
		if err := <-free; err != nil || w.size >= 10_000 {
			t.Errorf("room with %d bytes held: %v", w.size, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		for ; w.size < 10_000; n++ {
			w.putAll(&settled, n)
		}
		cancel()
		if err := w.room(ctx); err == nil {
			t.Error("waiting for room did not end with its context")
		}
	})
}
