package index

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sigtrail/monitor"
)

// A sifting is what the leaves of a batch come to, worked out before the
// transaction that writes it: certificates and signatures take far longer to
// check than rows to write.
type sifting struct {
	kinds     map[string]int // all leaves, by kind
	bound     []*found
	free      []freeLeaf
	unsigned  []uint64    // indexes of v1 leaves whose time the log has not signed
	malformed []malformed // the first of them
}

// A freeLeaf concerns no file that is known, and could concern one that comes.
type freeLeaf struct {
	digest prefix
	index  uint64
	*claimed
	signedAt int64 // Unix seconds, see Candidate; 0: not known
}

// A glance is what the cheap look at a leaf gives.
type glance struct {
	hash   monitor.Hash
	digest [32]byte
	kind   string
	err    error
	ok     bool // there is a digest
	signed bool // by the log, its time

	named, expected bool // a file may have it in its provenance, or expect its digest

	likely bool // it could concern a file to come; then:
	*claimed
	signedAt int64
}

// Commit implements monitor.Store. Leaves that cannot be decoded are counted and
// covered like all others.
func (s *Store) Commit(ctx context.Context, b monitor.Batch) error {
	if err := whole(b); err != nil {
		return err
	}
	began := time.Now()
	err := s.index(ctx, "indexing leaves", b.Log, func() (*sifting, error) {
		return s.sift(b.Log, b.Leaves, b.Hashes)
	}, func(t *tx, w *sifting) error {
		log, err := t.logID(b.Log)
		if err != nil {
			return err
		}
		if err := t.move(log, b.From, b.To); err != nil {
			return err
		}
		if err := t.cover(log, b.From.Next, b.To.Next); err != nil {
			return err
		}
		return s.save(t, w, log, b.Head, nil)
	})
	if err == nil {
		s.metrics.commitSeconds.Observe(time.Since(began).Seconds())
	}
	return err
}

func whole(b monitor.Batch) error {
	if len(b.Leaves) != len(b.Hashes) || uint64(len(b.Leaves)) != b.To.Next-b.From.Next {
		return fmt.Errorf("log %q: a batch from %d to %d of %d leaves and %d hashes", b.Log.Origin, b.From.Next, b.To.Next, len(b.Leaves), len(b.Hashes))
	}
	return nil
}

// CommitFound indexes one proven leaf that was looked up: for a file, or 0 for no
// file in particular. What binds it to nothing is covered, and kept for files to
// come like a tailed leaf. Committing it again adds nothing.
func (s *Store) CommitFound(ctx context.Context, p monitor.Proven, file FileID) error {
	return s.commitOne(ctx, p, file, true)
}

// CommitSingle implements monitor.SingleStore.
func (s *Store) CommitSingle(ctx context.Context, p monitor.Proven) error {
	return s.commitOne(ctx, p, 0, false)
}

func (s *Store) commitOne(ctx context.Context, p monitor.Proven, file FileID, cover bool) error {
	return s.index(ctx, "indexing a leaf that was looked up", p.Log, func() (*sifting, error) {
		w, err := s.sift(p.Log, []monitor.Leaf{p.Leaf}, []monitor.Hash{p.Hash})
		if err == nil && file != 0 {
			s.bindSubject(w, p, file)
		}
		return w, err
	}, func(t *tx, w *sifting) error {
		log, err := t.logID(p.Log)
		if err != nil {
			return err
		}
		if cover {
			if err := t.cover(log, p.Leaf.Index, p.Leaf.Index+1); err != nil {
				return err
			}
		}
		if err := t.unwant(p.Log, p.Leaf.Index); err != nil {
			return err
		}
		return s.save(t, w, log, p.Head, p.Proof)
	})
}

// bindSubject adds the weakest evidence, where nothing stronger ties the leaf to
// the file it was found for.
func (s *Store) bindSubject(w *sifting, p monitor.Proven, file FileID) {
	if len(w.bound) == 0 {
		entry, kind := decode(p.Leaf.Data)
		f := &found{leaf: p.Leaf, hash: p.Hash, entry: entry, kind: kind, setValid: len(w.unsigned) == 0 && p.Log.API == monitor.V1}
		s.examine(f)
		w.bound, w.free = []*found{f}, nil
	}
	f := w.bound[0]
	for _, b := range f.bindings {
		if b.file == file {
			return
		}
	}
	f.bindings = append(f.bindings, proposal{file: file, evidence: BySubject, signature: notChecked})
}

// index sifts, then writes. A file may be stored between the two, for which the
// sifting did not look: then it is done again while nobody else can write.
func (s *Store) index(ctx context.Context, doing string, l monitor.Log, sift func() (*sifting, error), save func(*tx, *sifting) error) error {
	seen, err := s.generation(ctx)
	if err != nil {
		return s.fail(doing, err)
	}
	w, err := sift()
	if err != nil {
		return s.fail(doing, err)
	}
	return s.write(ctx, doing, func(t *tx) error {
		now, err := s.generation(t.ctx)
		if err == nil && now != seen {
			w, err = sift()
		}
		if err != nil {
			return err
		}
		t.then(func() { s.tell(ctx, l, w) })
		return save(t, w)
	})
}

// tell counts what was indexed. Times that the log did not sign are said too: the
// entries are kept, but somebody changed what the log says on its way, or the log
// says what it would not sign.
func (s *Store) tell(ctx context.Context, l monitor.Log, w *sifting) {
	s.metrics.leaves(w.kinds)
	if len(w.unsigned) > 0 {
		s.metrics.unsigned.WithLabelValues(l.Origin).Add(float64(len(w.unsigned)))
		s.log.WarnContext(ctx, "signed entry timestamps do not verify; the times of these entries are not used", "log", l.Origin, "leaves", len(w.unsigned), "first", w.unsigned[0])
	}
}

// sift holds each leaf against the expected digests and verifies those that match.
func (s *Store) sift(l monitor.Log, leaves []monitor.Leaf, hashes []monitor.Hash) (*sifting, error) {
	w := &sifting{kinds: make(map[string]int)}
	glances := make([]glance, len(leaves))
	var scratch Scratch
	for i := range leaves {
		g := &glances[i]
		*g = s.glance(l, leaves[i], &scratch)
		g.hash = hashes[i]
		if !g.signed && l.API == monitor.V1 {
			w.unsigned = append(w.unsigned, leaves[i].Index)
		}
		w.kinds[g.kind]++
		if g.kind == kindMalformed {
			w.malform(leaves[i], hashes[i], g.err)
		}
	}
	if err := s.mark(glances); err != nil {
		return nil, err
	}
	for i, g := range glances {
		if g.named || g.expected {
			f, err := s.match(l, leaves[i], g)
			if err != nil {
				return nil, err
			}
			if f != nil {
				w.bound = append(w.bound, f)
				continue
			}
		}
		if g.likely {
			w.free = append(w.free, freeLeaf{prefixOf(g.digest[:]), leaves[i].Index, g.claimed, g.signedAt})
		}
	}
	return w, nil
}

func (s *Store) glance(l monitor.Log, leaf monitor.Leaf, scratch *Scratch) glance {
	g := glance{signed: s.timeSigned(l, leaf)}
	g.kind, g.digest, g.ok, g.likely, g.err = Peek(leaf.Data, scratch)
	g.kind = kindOf(g.kind, g.err)
	g.ok, g.likely = g.ok && g.err == nil, g.likely && g.err == nil
	if g.likely {
		g.claimed, g.signedAt = s.claims.of(scratch)
		switch {
		case g.signed:
			g.signedAt = leaf.IntegratedTime
		case l.API == monitor.V1:
			g.signedAt = 0
		}
	}
	return g
}

// kindOf is a kind for the metric: of the few known ones, "other" or "malformed".
func kindOf(kind string, err error) string {
	var k *KindError
	switch {
	case err == nil:
		return kind
	case errors.As(err, &k):
		return k.Kind
	}
	return kindMalformed
}

// decode is Decode for leaves that are kept whatever they hold.
func decode(leaf []byte) (Entry, string) {
	e, err := Decode(leaf)
	return e, kindOf(e.Kind, err)
}

// match finds the files that a leaf concerns; nil if there are none after all.
func (s *Store) match(l monitor.Log, leaf monitor.Leaf, g glance) (*found, error) {
	f := &found{leaf: leaf, hash: g.hash, setValid: g.signed}
	f.entry, f.kind = decode(leaf.Data)
	// Not the caller's context: see tx.
	ctx := context.Background()
	if len(f.entry.Digest) == 32 {
		matches, err := s.matches(ctx, [32]byte(f.entry.Digest))
		if err != nil {
			return nil, err
		}
		for _, m := range matches {
			if b, ok := m.propose(f.entry); ok {
				f.bindings = append(f.bindings, b)
			}
		}
	}
	if g.named {
		rows, err := s.byLeaf.QueryContext(ctx, g.hash[:], l.KeyID[:])
		if err != nil {
			return nil, err
		}
		if err := drain(rows, func(scan scan) error {
			var file FileID
			var subject bool
			err := scan(&file, &subject)
			f.bindings = append(f.bindings, namedBy(file, subject)...)
			return err
		}); err != nil {
			return nil, err
		}
	}
	if len(f.bindings) == 0 {
		return nil, nil
	}
	s.examine(f)
	return f, nil
}

// timeSigned reports whether the log has signed the time at which it says it took
// the leaf in.
func (s *Store) timeSigned(l monitor.Log, leaf monitor.Leaf) bool {
	return l.API == monitor.V1 && s.trust.trust != nil && s.trust.trust.SET(l, leaf) == nil
}

// examine says what is to be thought of the entry's certificate. It must hold at the
// entry's time: v1's integrated time where the log has signed it, else, as v2 has no
// clock, when the certificate was issued.
func (s *Store) examine(f *found) {
	switch {
	case f.entry.Cert != nil:
		signer, err := ParseSigner(f.entry.Cert)
		if err != nil {
			f.trust = "unreadable certificate: " + err.Error()
			return
		}
		f.signer = &signer
		at := signer.NotBefore
		if f.setValid {
			at = time.Unix(f.leaf.IntegratedTime, 0)
		}
		f.trust = s.trust.check(&signer, at)
	case f.entry.Key != nil:
		f.trust = "a bare public key, no certificate"
	default:
		f.trust = "no certificate that can be read"
	}
}
