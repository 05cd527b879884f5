package lab

import (
	"crypto/sha256"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// A tree is an RFC 6962 Merkle tree that remembers every node of its perfect
// subtrees, so that it can prove anything about any of its past sizes.
type tree struct {
	leaves [][]byte
	levels [][][]byte // levels[l][i] is the root of leaves [i·2^l, (i+1)·2^l)
}

func (t *tree) size() uint64 { return uint64(len(t.leaves)) }

func (t *tree) append(leaf []byte) uint64 {
	t.leaves = append(t.leaves, leaf)
	h := rfc6962.DefaultHasher.HashLeaf(leaf)
	for l, i := 0, len(t.leaves)-1; ; l, i = l+1, i/2 {
		if len(t.levels) == l {
			t.levels = append(t.levels, nil)
		}
		t.levels[l] = append(t.levels[l], h)
		if i%2 == 0 {
			break
		}
		h = rfc6962.DefaultHasher.HashChildren(t.levels[l][i-1], h)
	}
	return t.size() - 1
}

func (t *tree) node(id compact.NodeID) []byte { return t.levels[id.Level][id.Index] }

func (t *tree) root(size uint64) []byte {
	if size == 0 {
		sum := sha256.Sum256(nil)
		return sum[:]
	}
	ids := compact.RangeNodes(0, size, nil)
	h := t.node(ids[len(ids)-1])
	for i := len(ids) - 2; i >= 0; i-- {
		h = rfc6962.DefaultHasher.HashChildren(t.node(ids[i]), h)
	}
	return h
}

func (t *tree) fetch(n proof.Nodes, err error) ([][]byte, error) {
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(n.IDs))
	for i, id := range n.IDs {
		hashes[i] = t.node(id)
	}
	return n.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
}

func (t *tree) inclusion(index, size uint64) ([][]byte, error) {
	return t.fetch(proof.Inclusion(index, size))
}

func (t *tree) consistency(from, to uint64) ([][]byte, error) {
	return t.fetch(proof.Consistency(from, to))
}

// with returns a tree of the first keep leaves and then others.
func (t *tree) with(keep uint64, others ...[]byte) *tree {
	n := new(tree)
	for _, l := range t.leaves[:keep] {
		n.append(l)
	}
	for _, l := range others {
		n.append(l)
	}
	return n
}
