package monitor

import (
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// Outcomes of Evidence.Check.
const (
	Convicted = "convicted" // whoever holds the key signed what no honest log signs
	Accused   = "accused"   // signed by the key, and the rest is somebody's word
	Unfounded = "unfounded" // not signed by the key, or no contradiction
)

// A Verdict is what evidence is worth, worked out from nothing but its signed
// bytes and its proof.
type Verdict struct {
	Outcome string
	Shows   string // what the evidence shows, for a person
	Lacks   string // what it does not show, and what to do about it
	Key     LogKey // that the file names; zero if it cannot be used. Whose it is, the file cannot say
	Heads   []Head // those that the key has signed. Seen and Source are the file's word
}

// Check decides whether the log is convicted. Only what the log's key has signed
// can do that, and it must be two things that cannot both be true:
//
//	one size, two roots
//	an empty tree with another root than the empty tree's
//	an end (Head.Frozen), and a larger tree
//	a larger tree that is proven to begin otherwise than the smaller one
//
// A proof that merely fails accuses: those who serve it need not be those who sign,
// and anyone can spoil a proof.
func (e Evidence) Check() Verdict {
	key, err := e.Log.key()
	if err != nil {
		return Verdict{Outcome: Unfounded, Shows: fmt.Sprintf("The key in the file cannot be used: %v.", err)}
	}
	v := Verdict{Key: key}
	foreign := Head{}
	for _, side := range []struct {
		name string
		s    *SignedHead
	}{{"ours", e.Ours}, {"theirs", e.Theirs}} {
		if side.s == nil {
			continue
		}
		h, err := ParseHead([]byte(side.s.Note), e.Log.Origin, []note.Verifier{key.Verifier})
		h.Seen, h.Source = side.s.Seen, side.s.Source
		switch {
		case err == nil:
			v.Heads = append(v.Heads, h)
		case errors.Is(err, ErrForeignHead) && e.Kind == KeyChanged && side.name == "theirs":
			foreign = h
		default:
			return v.unfounded("The head %q cannot be held against the key in the file: %v.", side.name, err)
		}
	}
	switch {
	case len(foreign.Note) > 0:
		return v.accused(fmt.Sprintf("A head of size %d for this log is not signed by this key.", foreign.Size),
			"It does not show who made that head: anyone can write one. Ask the log's operator whether the key has changed.")
	case len(v.Heads) == 0:
		return v.unfounded("The file has no signed head.")
	}
	for _, h := range v.Heads {
		if empty, _ := (Position{}).Root(); h.Size == 0 && h.Root != empty {
			return v.convicted("It signed an empty tree with root %s. The empty tree's root is %s.", h.Root, empty)
		}
	}
	switch {
	case len(v.Heads) == 2 && e.Claim == nil:
		return v.pair(e)
	case len(v.Heads) == 1 && e.Claim != nil:
		return v.claim(e)
	case len(v.Heads) == 1 && e.Kind == ClosedChanged:
		return v.accused(fmt.Sprintf("It signed a tree of size %d. The file says that the log is not shown any more, which no file can show.", v.Heads[0].Size),
			"Ask the log for this tree: it has to be there.")
	}
	return v.unfounded("The file names nothing that these heads would contradict.")
}

// key reads both forms of the key, which must be one.
func (l EvidenceLog) key() (LogKey, error) {
	k, err := ParseLogKey(l.VKey)
	if err != nil {
		return LogKey{}, err
	}
	block, rest := pem.Decode([]byte(l.PEM))
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 || string(block.Bytes) != string(k.SPKI) {
		return LogKey{}, errors.New("pem is not the key that vkey is")
	}
	return k, nil
}

// pair judges two heads that the key has signed.
func (v Verdict) pair(e Evidence) Verdict {
	small, large := v.Heads[0], v.Heads[1]
	if small.Size > large.Size {
		small, large = large, small
	}
	p, problem := e.proof(small, large)
	switch {
	case problem != "":
		return v.unfounded("%s", problem)
	case small.Size == large.Size && small.Root != large.Root:
		return v.convicted("It signed two trees of size %d, one with root %s and one with root %s. A tree has one root.", small.Size, v.Heads[0].Root, v.Heads[1].Root)
	case small.Size == large.Size:
		return v.unfounded("Both heads are of the same tree: %d leaves, root %s.", small.Size, small.Root)
	case small.Frozen():
		return v.convicted("It signed that it has ended at size %d, and it signed a tree of size %d.", small.Size, large.Size)
	}
	if other, ok := begins(small, large, p); ok {
		return v.convicted("It signed a tree of size %d with root %s, and a tree of size %d. The proof leads to the larger one, and its first %d leaves have root %s.",
			small.Size, small.Root, large.Size, small.Size, other)
	}
	if e.Kind == ClosedChanged {
		return v.accused(fmt.Sprintf("It signed a tree of size %d and a tree of size %d. The file says that the log had been declared closed at size %d.", small.Size, large.Size, small.Size),
			"It does not show that the log had ended: a v1 server lists its closed shards without signing the list. Ask its operator.")
	}
	const unproven = "It signed a tree of size %d and a tree of size %d. The file has %s that one extends the other."
	lacks := fmt.Sprintf("It does not show that they contradict each other: who serves a proof need not be who signs, and anyone can leave one out or spoil it. "+
		"Ask the log, and others who follow it, for the consistency proof from %d to %d. If it leads from root %s to root %s, nothing is wrong.", small.Size, large.Size, small.Root, large.Root)
	switch err := VerifyConsistency(small.Size, small.Root, large.Size, large.Root, p); {
	case err == nil:
		return v.unfounded("Both heads belong to one history: the tree of size %d is the beginning of the tree of size %d.", small.Size, large.Size)
	case e.Proof == nil:
		return v.accused(fmt.Sprintf(unproven, small.Size, large.Size, "no proof"), lacks)
	default:
		return v.accused(fmt.Sprintf(unproven, small.Size, large.Size, "a proof that fails to show"), lacks)
	}
}

// begins reports whether the proof convicts: it leads to the larger root, and so is
// made of nodes of the larger tree and of nothing else; and these nodes give the
// root of its beginning, which is not the smaller root. The other way round means
// nothing: a proof that leads to the smaller root and misses the larger one is what
// an honest proof becomes when one bit of it is changed.
//
// From a smaller tree whose size is a power of two no proof convicts: it takes the
// smaller root for granted, and then just fails.
func begins(small, large Head, p []Hash) (other Hash, ok bool) {
	var mismatch *rootError
	if !errors.As(VerifyConsistency(small.Size, small.Root, large.Size, large.Root, p), &mismatch) {
		return Hash{}, false
	}
	return mismatch.got, mismatch.want == small.Root && VerifyConsistency(small.Size, mismatch.got, large.Size, large.Root, p) == nil
}

// claim judges what the log served under one head that the key has signed.
func (v Verdict) claim(e Evidence) Verdict {
	h, c := v.Heads[0], e.Claim
	p, problem := e.proof(h, Head{})
	if problem != "" {
		return v.unfounded("%s", problem)
	}
	var err error
	var what string
	switch {
	case c.What == ClaimLeaf && c.At < h.Size:
		what = fmt.Sprintf("leaf %d, as served with hash %s,", c.At, c.Hash)
		err = VerifyInclusion(c.At, c.Hash, h, p)
	case c.What == ClaimLeaves && c.At > 0 && c.At <= h.Size:
		what = fmt.Sprintf("the first %d leaves, as served with root %s,", c.At, c.Hash)
		err = VerifyConsistency(c.At, c.Hash, h.Size, h.Root, p)
	default:
		return v.unfounded("The file's claim (%.20q at %d) is none that a tree of size %d can be held to.", c.What, c.At, h.Size)
	}
	if err == nil {
		return v.unfounded("It signed a tree of size %d, and %s are proven to be in it.", h.Size, what)
	}
	return v.accused(fmt.Sprintf("It signed a tree of size %d. The file says that %s are not in it; nothing in the file proves that they are.", h.Size, what),
		"It does not show that the log served them: leaves are not signed. Ask the log for the same leaves again, and others who have read them.")
}

// proof is the file's, if it is for what has to be proven.
func (e Evidence) proof(ours, theirs Head) (p []Hash, problem string) {
	if e.Proof == nil {
		return nil, ""
	}
	of, from, to, ok := proofSizes(ours, theirs, e.Claim)
	if !ok || e.Proof.Of != of || e.Proof.From != from || e.Proof.To != to {
		return nil, fmt.Sprintf("The proof in the file (%.20q, %d to %d) is for something else than its heads.", e.Proof.Of, e.Proof.From, e.Proof.To)
	}
	return e.Proof.Hashes, ""
}

func (v Verdict) unfounded(format string, args ...any) Verdict {
	v.Outcome, v.Shows = Unfounded, fmt.Sprintf(format, args...)
	return v
}

func (v Verdict) accused(shows, lacks string) Verdict {
	v.Outcome, v.Shows, v.Lacks = Accused, shows, lacks
	return v
}

func (v Verdict) convicted(format string, args ...any) Verdict {
	v.Outcome, v.Shows = Convicted, fmt.Sprintf(format, args...)
	v.Lacks = "It does not show when each was signed, who was shown which, or whether the log or a thief of its key signed."
	return v
}
