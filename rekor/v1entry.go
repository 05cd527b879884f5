package rekor

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/rekor/pkg/generated/models"

	"sigtrail/monitor"
)

// Found is one v1 entry as served: a claim until its proof has been checked.
type Found struct {
	EntryID string // 80 hex digits: tree id, leaf hash as the server says it
	TreeID  uint64
	Global  uint64 // index over all shards
	Proof   monitor.LeafProof
}

// found reads one element of an answer: an object with one key, the entry id.
func (v *V1) found(answer models.LogEntry) (Found, error) {
	if len(answer) != 1 {
		return Found{}, v.unusable(fmt.Errorf("%d entries in one", len(answer)))
	}
	for id, e := range answer {
		f, err := v.entry(id, e)
		if err != nil {
			return Found{}, v.unusable(fmt.Errorf("entry %.100q: %w", id, err))
		}
		return f, nil
	}
	return Found{}, errors.New("unreachable")
}

func (v *V1) entry(id string, e models.LogEntryAnon) (Found, error) {
	if !entryID.MatchString(id) {
		return Found{}, errors.New("malformed id")
	}
	leaf, global, err := readLeaf(e)
	if err != nil {
		return Found{}, err
	}
	if e.Verification == nil || e.Verification.InclusionProof == nil {
		return Found{}, errors.New("no inclusion proof")
	}
	p, err := readInclusion(e.Verification.InclusionProof)
	if err != nil {
		return Found{}, err
	}
	leaf.Index = p.Leaf.Index
	p.Leaf = leaf
	if leaf.Index > global {
		return Found{}, fmt.Errorf("index %d in its shard, %d over all", leaf.Index, global)
	}
	tree, err := v.treeOfEntry(id, p)
	if err != nil {
		return Found{}, err
	}
	return Found{EntryID: fullID(tree, id), TreeID: tree, Global: global, Proof: p}, nil
}

// readLeaf reads what the leaf hash covers and what accompanies it. Index is not
// set: the entry's logIndex, returned beside it, is the global one.
func readLeaf(e models.LogEntryAnon) (monitor.Leaf, uint64, error) {
	body, ok := e.Body.(string)
	if !ok || e.LogIndex == nil || e.IntegratedTime == nil {
		return monitor.Leaf{}, 0, errors.New("no body, index or time")
	}
	if *e.LogIndex < 0 {
		return monitor.Leaf{}, 0, fmt.Errorf("index %d", *e.LogIndex)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(body)
	if err != nil {
		return monitor.Leaf{}, 0, fmt.Errorf("body: %w", err)
	}
	leaf := monitor.Leaf{Data: data, IntegratedTime: *e.IntegratedTime}
	if e.Verification != nil {
		leaf.SET = e.Verification.SignedEntryTimestamp
	}
	return leaf, uint64(*e.LogIndex), nil
}

// readInclusion reads an inclusion proof. Its Leaf has only the index, which is
// that in the shard.
func readInclusion(p *models.InclusionProof) (monitor.LeafProof, error) {
	if p.LogIndex == nil || p.TreeSize == nil {
		return monitor.LeafProof{}, errors.New("inclusion proof without index or size")
	}
	if *p.LogIndex < 0 || *p.LogIndex >= *p.TreeSize {
		return monitor.LeafProof{}, fmt.Errorf("inclusion proof for index %d in a tree of %d", *p.LogIndex, *p.TreeSize)
	}
	hashes, err := readHashes(p.Hashes)
	if err != nil {
		return monitor.LeafProof{}, fmt.Errorf("inclusion proof: %w", err)
	}
	out := monitor.LeafProof{Leaf: monitor.Leaf{Index: uint64(*p.LogIndex)}, Size: uint64(*p.TreeSize), Hashes: hashes}
	if p.Checkpoint == nil || *p.Checkpoint == "" {
		return out, nil // servers before 2022 sent none
	}
	if len(*p.Checkpoint) > monitor.MaxNote {
		return monitor.LeafProof{}, fmt.Errorf("inclusion proof with a head of %d bytes", len(*p.Checkpoint))
	}
	_, size, err := noteLines(*p.Checkpoint)
	if err != nil {
		return monitor.LeafProof{}, fmt.Errorf("inclusion proof: %w", err)
	}
	if size != out.Size {
		return monitor.LeafProof{}, fmt.Errorf("inclusion proof for a tree of %d with a head of %d", out.Size, size)
	}
	out.Note = []byte(*p.Checkpoint)
	return out, nil
}

// readHashes reads proof hashes, hex. A proof has at most 63 levels twice over.
func readHashes(in []string) ([]monitor.Hash, error) {
	if len(in) > 128 {
		return nil, fmt.Errorf("%d hashes", len(in))
	}
	out := make([]monitor.Hash, len(in))
	for i, s := range in {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != len(out[i]) {
			return nil, fmt.Errorf("hash %d is %.80q", i, s)
		}
		out[i] = monitor.Hash(b)
	}
	return out, nil
}

// treeOfEntry tells the entry's tree from its id, and from the head that its proof
// leads to; where both say, they must agree.
func (v *V1) treeOfEntry(id string, p monitor.LeafProof) (uint64, error) {
	fromID, named := treeOf(id)
	if p.Note == nil {
		if !named {
			return 0, errors.New("neither id nor proof names a tree")
		}
		return fromID, nil
	}
	origin, _, err := noteLines(string(p.Note))
	if err != nil {
		return 0, err
	}
	tree, ok := strings.CutPrefix(origin, v.origin+" - ")
	if !ok {
		return 0, fmt.Errorf("proof under the head of %.200q, want a shard of %q", origin, v.origin)
	}
	fromHead, err := parseTreeID(tree)
	if err != nil {
		return 0, err
	}
	if named && fromID != fromHead {
		return 0, fmt.Errorf("tree %d by its id, %d by its proof", fromID, fromHead)
	}
	return fromHead, nil
}
