package monitor

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

var ranges = compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// HashLeaf is the RFC 6962 leaf hash: SHA-256(0x00 || data).
func HashLeaf(data []byte) Hash { return Hash(rfc6962.DefaultHasher.HashLeaf(data)) }

// VerifyConsistency checks that the tree of size to with root toRoot extends the
// tree of size from with root fromRoot.
func VerifyConsistency(from uint64, fromRoot Hash, to uint64, toRoot Hash, p []Hash) error {
	if from == 0 {
		return nil // every tree extends the empty one
	}
	return rootMismatch(proof.VerifyConsistency(rfc6962.DefaultHasher, from, to, raw(p), fromRoot[:], toRoot[:]))
}

// VerifyInclusion checks that a leaf is at index in the tree of the head.
func VerifyInclusion(index uint64, leaf Hash, h Head, p []Hash) error {
	return rootMismatch(proof.VerifyInclusion(rfc6962.DefaultHasher, index, h.Size, leaf[:], raw(p), h.Root[:]))
}

// A rootError is a proof that leads to another root than it should.
type rootError struct{ got, want Hash }

func (e *rootError) Error() string {
	return fmt.Sprintf("the proof leads to root %s, not to %s", e.got, e.want)
}

// rootMismatch puts the library's error, which prints its hashes in decimal over
// several lines, into one line.
func rootMismatch(err error) error {
	var m proof.RootMismatchError
	if !errors.As(err, &m) || len(m.CalculatedRoot) != len(Hash{}) || len(m.ExpectedRoot) != len(Hash{}) {
		return err
	}
	return &rootError{Hash(m.CalculatedRoot), Hash(m.ExpectedRoot)}
}

// PositionBefore returns the position just before a leaf, taken from the left-hand
// hashes of that leaf's inclusion proof in a tree of the given size. The proof
// must have been verified: then each of its left-hand hashes is the root of a
// perfect subtree, and together they are the compact range [0, index). Following
// can therefore start anywhere and still prove every leaf after it.
func PositionBefore(index, size uint64, p []Hash) (Position, error) {
	if index >= size {
		return Position{}, fmt.Errorf("leaf %d is not in a tree of %d", index, size)
	}
	// Up to the level where the paths of the leaf and of the last leaf meet,
	// bit i of the index says on which side the sibling is; above it, every
	// sibling left in the proof is on the left.
	inner := bits.Len64(index ^ (size - 1))
	border := bits.OnesCount64(index >> inner)
	if len(p) != inner+border {
		return Position{}, fmt.Errorf("inclusion proof of leaf %d in a tree of %d has %d hashes, want %d", index, size, len(p), inner+border)
	}
	var left []Hash // low level first, which is right to left
	for i, h := range p {
		if i >= inner || index>>i&1 == 1 {
			left = append(left, h)
		}
	}
	pos := Position{Next: index, Range: make([]Hash, len(left))}
	for i, h := range left {
		pos.Range[len(left)-1-i] = h
	}
	return pos, nil
}

// Fold appends leaf hashes to a position.
func (p Position) Fold(leaves []Hash) (Position, error) {
	r, err := p.compact()
	if err != nil {
		return Position{}, err
	}
	for i := range leaves {
		if err := r.Append(leaves[i][:], nil); err != nil {
			return Position{}, err
		}
	}
	to := Position{Next: r.End()}
	for _, h := range r.Hashes() {
		to.Range = append(to.Range, Hash(h))
	}
	return to, nil
}

// Root is the root of the tree of size Next.
func (p Position) Root() (Hash, error) {
	if p.Next == 0 {
		return Hash(rfc6962.DefaultHasher.EmptyRoot()), nil
	}
	r, err := p.compact()
	if err != nil {
		return Hash{}, err
	}
	root, err := r.GetRootHash(nil)
	if err != nil {
		return Hash{}, err
	}
	return Hash(root), nil
}

func (p Position) compact() (*compact.Range, error) {
	return ranges.NewRange(0, p.Next, raw(p.Range))
}

// raw copies hashes into the form that the merkle library takes.
func raw(hashes []Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		h := hashes[i]
		out[i] = h[:]
	}
	return out
}
