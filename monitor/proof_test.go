package monitor

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// plainRoot is RFC 6962 §2.1 as it stands there.
func plainRoot(leaves []Hash) Hash {
	switch n := len(leaves); n {
	case 0:
		return Hash(rfc6962.DefaultHasher.EmptyRoot())
	case 1:
		return leaves[0]
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		l, r := plainRoot(leaves[:k]), plainRoot(leaves[k:])
		return Hash(rfc6962.DefaultHasher.HashChildren(l[:], r[:]))
	}
}

func testLeaves(n int) []Hash {
	leaves := make([]Hash, n)
	for i := range leaves {
		leaves[i] = HashLeaf(fmt.Append(nil, "leaf ", i))
	}
	return leaves
}

// inclusion makes a proof out of the whole tree.
func inclusion(t *testing.T, leaves []Hash, index uint64) []Hash {
	t.Helper()
	nodes, err := proof.Inclusion(index, uint64(len(leaves)))
	if err != nil {
		t.Fatal(err)
	}
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		hashes[i] = node(leaves, id)
	}
	rehashed, err := nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]Hash, len(rehashed))
	for i := range rehashed {
		out[i] = Hash(rehashed[i])
	}
	return out
}

func node(leaves []Hash, id compact.NodeID) []byte {
	first, past := id.Coverage()
	h := plainRoot(leaves[first:past])
	return h[:]
}

// Following starts anywhere: for every leaf of every small tree, the left-hand
// hashes of its inclusion proof are the compact range before it.
func TestPositionBefore(t *testing.T) {
	for size := 1; size <= 70; size++ {
		leaves := testLeaves(size)
		root := plainRoot(leaves)
		for i := range leaves {
			p := inclusion(t, leaves, uint64(i))
			if err := VerifyInclusion(uint64(i), leaves[i], Head{Size: uint64(size), Root: root}, p); err != nil {
				t.Fatal(err)
			}
			pos, err := PositionBefore(uint64(i), uint64(size), p)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := pos.Root(); err != nil || got != plainRoot(leaves[:i]) {
				t.Fatalf("size %d, leaf %d: root before it %s (%v), want %s", size, i, got, err, plainRoot(leaves[:i]))
			}
			end, err := pos.Fold(leaves[i:])
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := end.Root(); end.Next != uint64(size) || got != root {
				t.Fatalf("size %d, folded from leaf %d: %d leaves, root %s, want %s", size, i, end.Next, got, root)
			}
		}
	}
}

func TestPositionBeforeRefusesOtherLengths(t *testing.T) {
	leaves := testLeaves(21)
	p := inclusion(t, leaves, 13)
	for _, bad := range [][]Hash{nil, p[1:], append(p[:len(p):len(p)], Hash{})} {
		if pos, err := PositionBefore(13, 21, bad); err == nil {
			t.Errorf("proof of %d hashes accepted: %+v", len(bad), pos)
		}
	}
	if _, err := PositionBefore(21, 21, p); err == nil {
		t.Error("a leaf beyond the tree accepted")
	}
}

// Folding in pieces of any size is folding at once.
func TestFoldInPieces(t *testing.T) {
	leaves := testLeaves(300)
	r := rand.New(rand.NewPCG(1, 2))
	whole, err := Position{}.Fold(leaves)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		pos := Position{}
		for pos.Next < 300 {
			n := min(r.Uint64N(40), 300-pos.Next)
			if pos, err = pos.Fold(leaves[pos.Next : pos.Next+n]); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(whole, pos); d != "" {
			t.Fatal(d)
		}
	}
}
