package monitor

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

var found = time.Date(2026, 11, 20, 10, 0, 0, 1000, time.UTC)

func (k testKey) vkey() string {
	return fmt.Sprintf("%s+%x+%s", k.name, k.id[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, k.key.Public().(ed25519.PublicKey)...)))
}

// head signs a tree, with extension lines.
func (k testKey) head(t testing.TB, size uint64, root Hash, more ...string) Head {
	t.Helper()
	text := fmt.Sprintf("%s\n%d\n%s\n%s", testOrigin, size, base64.StdEncoding.EncodeToString(root[:]), strings.Join(more, ""))
	h, err := ParseHead([]byte(text+"\n"+k.line(text)), testOrigin, []note.Verifier{k.verifier(t)})
	if err != nil {
		t.Fatal(err)
	}
	h.Seen = found
	return h
}

func (k testKey) tree(t testing.TB, leaves []Hash, more ...string) Head {
	t.Helper()
	return k.head(t, uint64(len(leaves)), plainRoot(leaves), more...)
}

// consistency makes a proof out of the whole tree.
func consistency(t testing.TB, leaves []Hash, from uint64) []Hash {
	t.Helper()
	nodes, err := proof.Consistency(from, uint64(len(leaves)))
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

// forked are leaves of which one is another.
func forked(leaves []Hash, at int) []Hash {
	out := append([]Hash(nil), leaves...)
	out[at] = HashLeaf([]byte("forged"))
	return out
}

func evidence(t testing.TB, k testKey, c Contradiction) Evidence {
	t.Helper()
	c.Log.Origin, c.Log.Key, c.Log.URL, c.At = testOrigin, k.vkey(), "https://log.example/api/v2/", found
	e, err := NewEvidence(c)
	if err != nil {
		t.Fatal(err)
	}
	e.Exporter, e.Exported = "sigtrail/test", found
	return e
}

// reread passes evidence through its file.
func reread(t testing.TB, e Evidence) Evidence {
	t.Helper()
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseEvidence(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if d := cmp.Diff(e, again); d != "" {
		t.Fatalf("read again: %s", d)
	}
	return again
}

const frozen = "Log frozen — Fri Nov 20 10:00:00 UTC 2026\n"

func TestVerdicts(t *testing.T) {
	k, stranger := newTestKey(testOrigin, 1), newTestKey(testOrigin, 3)
	leaves := testLeaves(11)
	fork := forked(leaves, 2)
	five, eleven, forkedEleven := k.tree(t, leaves[:5]), k.tree(t, leaves), k.tree(t, fork)
	eight := k.tree(t, leaves[:8])
	foreign := stranger.tree(t, leaves)
	spoilt := func(p []Hash) []Hash {
		p = append([]Hash(nil), p...)
		p[len(p)-1][0] ^= 1
		return p
	}
	for name, c := range map[string]struct {
		Contradiction
		want  string
		shows string
	}{
		"one size, two roots": {Contradiction{Kind: Equivocation, Ours: eleven, Theirs: forkedEleven}, Convicted, "two trees of size 11"},
		"an honest proof of a fork": {Contradiction{Kind: Inconsistent, Ours: five, Theirs: forkedEleven, Proof: consistency(t, fork, 5)},
			Convicted, "its first 5 leaves have root " + plainRoot(fork[:5]).String()},
		"the same, smaller one second":    {Contradiction{Kind: Inconsistent, Ours: forkedEleven, Theirs: five, Proof: consistency(t, fork, 5)}, Convicted, "its first 5 leaves"},
		"a fork of a full tree":           {Contradiction{Kind: Inconsistent, Ours: eight, Theirs: forkedEleven, Proof: consistency(t, fork, 8)}, Accused, "a proof that fails"},
		"two histories and no proof":      {Contradiction{Kind: Inconsistent, Ours: five, Theirs: forkedEleven}, Accused, "no proof"},
		"an honest pair, a spoilt proof":  {Contradiction{Kind: Inconsistent, Ours: five, Theirs: eleven, Proof: spoilt(consistency(t, leaves, 5))}, Accused, "a proof that fails"},
		"an honest pair, a proof of less": {Contradiction{Kind: Inconsistent, Ours: five, Theirs: eleven, Proof: consistency(t, leaves, 5)[1:]}, Accused, "a proof that fails"},
		"an honest pair, no proof":        {Contradiction{Kind: Inconsistent, Ours: five, Theirs: eleven}, Accused, "no proof"},
		"an honest pair, its proof":       {Contradiction{Kind: Inconsistent, Ours: five, Theirs: eleven, Proof: consistency(t, leaves, 5)}, Unfounded, "one history"},
		"one tree twice":                  {Contradiction{Kind: Equivocation, Ours: five, Theirs: five}, Unfounded, "the same tree"},
		"frozen, signed again":            {Contradiction{Kind: Equivocation, Ours: five, Theirs: k.tree(t, leaves[:5], frozen)}, Unfounded, "the same tree"},
		"from an empty tree":              {Contradiction{Kind: Inconsistent, Ours: k.tree(t, nil), Theirs: five}, Unfounded, "one history"},
		"an empty tree with a root":       {Contradiction{Kind: Inconsistent, Ours: Head{}, Theirs: k.head(t, 0, Hash{1})}, Convicted, "an empty tree"},
		"an end, and more":                {Contradiction{Kind: ClosedChanged, Ours: k.tree(t, leaves[:5], frozen), Theirs: eleven}, Convicted, "has ended at size 5"},
		"an end, and more, to be closed":  {Contradiction{Kind: ClosedChanged, Ours: k.tree(t, leaves[:8], frozen), Theirs: k.tree(t, leaves, frozen)}, Convicted, "has ended at size 8"},
		"less, and then the end":          {Contradiction{Kind: Inconsistent, Ours: five, Theirs: k.tree(t, leaves, frozen), Proof: consistency(t, leaves, 5)}, Unfounded, "one history"},
		"an unsigned end, and more":       {Contradiction{Kind: ClosedChanged, Ours: five, Theirs: eleven}, Accused, "declared closed at size 5"},
		"a shard that is gone":            {Contradiction{Kind: ClosedChanged, Ours: five}, Accused, "not shown any more"},
		"another key":                     {Contradiction{Kind: KeyChanged, Ours: five, Theirs: foreign}, Accused, "not signed by this key"},
		"another key from the beginning":  {Contradiction{Kind: KeyChanged, Theirs: foreign}, Accused, "not signed by this key"},
		"another key, said to equivocate": {Contradiction{Kind: Equivocation, Ours: eleven, Theirs: stranger.tree(t, fork)}, Unfounded, "theirs"},
		"ours by another key":             {Contradiction{Kind: KeyChanged, Ours: foreign, Theirs: foreign}, Unfounded, "ours"},
		"no head":                         {Contradiction{Kind: Inconsistent}, Unfounded, "no signed head"},
		"one head":                        {Contradiction{Kind: Equivocation, Ours: five}, Unfounded, "names nothing"},
		"a leaf that is not in the tree": {Contradiction{Kind: Inconsistent, Ours: eleven, Theirs: eleven, Proof: inclusion(t, leaves, 2),
			Claim: &Claim{ClaimLeaf, 2, fork[2]}}, Accused, "leaf 2"},
		"a leaf that is": {Contradiction{Kind: Inconsistent, Ours: eleven, Theirs: eleven, Proof: inclusion(t, leaves, 2),
			Claim: &Claim{ClaimLeaf, 2, leaves[2]}}, Unfounded, "proven to be in it"},
		"a leaf beyond the tree": {Contradiction{Kind: Inconsistent, Ours: five, Theirs: five, Claim: &Claim{ClaimLeaf, 5, leaves[5]}}, Unfounded, "none that a tree of size 5"},
		"leaves that are not in the tree": {Contradiction{Kind: Inconsistent, Ours: eleven, Theirs: eleven, Proof: consistency(t, leaves, 6),
			Claim: &Claim{ClaimLeaves, 6, plainRoot(fork[:6])}}, Accused, "the first 6 leaves"},
		"leaves of the whole tree": {Contradiction{Kind: Inconsistent, Ours: eleven, Theirs: eleven, Claim: &Claim{ClaimLeaves, 11, plainRoot(fork)}}, Accused, "the first 11 leaves"},
		"leaves that are": {Contradiction{Kind: Inconsistent, Ours: eleven, Theirs: eleven, Proof: consistency(t, leaves, 6),
			Claim: &Claim{ClaimLeaves, 6, plainRoot(leaves[:6])}}, Unfounded, "proven to be in it"},
		"leaves that are, all":  {Contradiction{Kind: Inconsistent, Ours: eleven, Theirs: eleven, Claim: &Claim{ClaimLeaves, 11, plainRoot(leaves)}}, Unfounded, "proven to be in it"},
		"an unknown claim":      {Contradiction{Kind: Inconsistent, Ours: eleven, Theirs: eleven, Claim: &Claim{"vote", 1, Hash{}}}, Unfounded, "none that a tree"},
		"nothing of the leaves": {Contradiction{Kind: Inconsistent, Ours: eleven, Theirs: eleven, Claim: &Claim{ClaimLeaves, 0, Hash{}}}, Unfounded, "none that a tree"},
	} {
		v := reread(t, evidence(t, k, c.Contradiction)).Check()
		if v.Outcome != c.want || !strings.Contains(v.Shows, c.shows) || (v.Lacks == "") != (c.want == Unfounded) {
			t.Errorf("%s: %s: %s; want %s: … %s …", name, v.Outcome, v.Shows, c.want, c.shows)
		}
	}
}

// Nobody can make a proof against an honest log: not out of its own proofs, not out
// of those of a fork, not by changing them. An honest proof of a fork convicts,
// unless the smaller tree is full.
func TestNoProofAgainstAnHonestLog(t *testing.T) {
	const most = 20
	leaves := testLeaves(most)
	convicted := 0
	for to := 2; to <= most; to++ {
		for from := 1; from < to; from++ {
			small, large := Head{Size: uint64(from), Root: plainRoot(leaves[:from])}, Head{Size: uint64(to), Root: plainRoot(leaves[:to])}
			var proofs [][]Hash
			for other := 1; other < to; other++ {
				proofs = append(proofs, consistency(t, leaves[:to], uint64(other)))
			}
			for at := range from {
				fork := forked(leaves[:to], at)
				p := consistency(t, fork, uint64(from))
				proofs = append(proofs, p)
				other, ok := begins(small, Head{Size: uint64(to), Root: plainRoot(fork)}, p)
				if full := from&(from-1) == 0; ok == full || ok && other != plainRoot(fork[:from]) {
					t.Fatalf("fork at leaf %d, %d to %d: convicted %t, root %s", at, from, to, ok, other)
				}
				convicted++
			}
			honest := consistency(t, leaves[:to], uint64(from))
			for i := range honest {
				p := append([]Hash(nil), honest...)
				p[i][i] ^= 1 << (to % 8)
				proofs = append(proofs, p, honest[:i], append(p[:i:i], p[i+1:]...))
			}
			for _, p := range proofs {
				if other, ok := begins(small, large, p); ok {
					t.Fatalf("honest, %d to %d: convicted by %v of root %s", from, to, p, other)
				}
			}
		}
	}
	if convicted < 1000 {
		t.Errorf("%d forks tried", convicted)
	}
}

func TestNewEvidenceRefuses(t *testing.T) {
	k := newTestKey(testOrigin, 1)
	for name, c := range map[string]Contradiction{
		"a stall":        {Kind: Stalled, Log: Log{Key: k.vkey()}},
		"a gap":          {Kind: CoverageGap, Log: Log{Key: k.vkey()}},
		"no key":         {Kind: Equivocation},
		"a witness key":  {Kind: Equivocation, Log: Log{Key: strings.Replace(k.vkey(), "+A", "+B", 1)}},
		"half a key":     {Kind: Equivocation, Log: Log{Key: k.vkey()[:40]}},
		"another key id": {Kind: Equivocation, Log: Log{Key: strings.Replace(k.vkey(), "+", "+0", 1)}},
	} {
		if e, err := NewEvidence(c); err == nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// What is changed in a file is seen.
func TestManipulatedEvidence(t *testing.T) {
	k, other := newTestKey(testOrigin, 1), newTestKey(testOrigin, 3)
	leaves := testLeaves(11)
	fork := forked(leaves, 2)
	good := evidence(t, k, Contradiction{Kind: Inconsistent, Detail: "d", Ours: k.tree(t, leaves[:5]), Theirs: k.tree(t, fork), Proof: consistency(t, fork, 5)})
	if v := good.Check(); v.Outcome != Convicted {
		t.Fatal(v.Shows)
	}
	for i := range good.Theirs.Note {
		for _, side := range []func(*Evidence) *SignedHead{func(e *Evidence) *SignedHead { return e.Ours }, func(e *Evidence) *SignedHead { return e.Theirs }} {
			e := good
			ours, theirs := *good.Ours, *good.Theirs
			e.Ours, e.Theirs = &ours, &theirs
			s := side(&e)
			// The last bits of the last base64 digit stand for nothing.
			if i >= len(s.Note) || strings.HasPrefix(s.Note[i+1:], "=") {
				continue
			}
			b := []byte(s.Note)
			b[i] ^= 1
			s.Note = string(b)
			if v := e.Check(); v.Outcome != Unfounded {
				t.Errorf("byte %d of %q changed: %s: %s", i, s.Note, v.Outcome, v.Shows)
			}
		}
	}
	for i := range good.Proof.Hashes {
		e, p := good, *good.Proof
		e.Proof = &p
		p.Hashes = append([]Hash(nil), p.Hashes...)
		p.Hashes[i][3] ^= 4
		if v := e.Check(); v.Outcome != Accused {
			t.Errorf("hash %d of the proof changed: %s: %s", i, v.Outcome, v.Shows)
		}
	}
	for name, change := range map[string]func(*Evidence){
		"roots swapped": func(e *Evidence) {
			ours, theirs := *e.Ours, *e.Theirs
			a, b := strings.Split(ours.Note, "\n"), strings.Split(theirs.Note, "\n")
			a[2], b[2] = b[2], a[2]
			ours.Note, theirs.Note = strings.Join(a, "\n"), strings.Join(b, "\n")
			e.Ours, e.Theirs = &ours, &theirs
		},
		"another key":    func(e *Evidence) { e.Log.VKey = other.vkey() },
		"another pem":    func(e *Evidence) { e.Log.PEM = must(ParseLogKey(other.vkey())).PEM() },
		"two pems":       func(e *Evidence) { e.Log.PEM += e.Log.PEM },
		"no pem":         func(e *Evidence) { e.Log.PEM = "" },
		"another origin": func(e *Evidence) { e.Log.Origin = "log2.example" },
		"other sizes":    func(e *Evidence) { p := *e.Proof; p.From++; e.Proof = &p },
		"other proof":    func(e *Evidence) { p := *e.Proof; p.Of = "inclusion"; e.Proof = &p },
		"a claim as well": func(e *Evidence) {
			e.Claim = &Claim{ClaimLeaf, 2, Hash{}}
			p := *e.Proof
			p.Of, p.From = "inclusion", 2
			e.Proof = &p
		},
	} {
		e := good
		change(&e)
		if v := e.Check(); v.Outcome != Unfounded {
			t.Errorf("%s: %s: %s", name, v.Outcome, v.Shows)
		}
	}
}

func TestParseEvidenceIsStrict(t *testing.T) {
	k := newTestKey(testOrigin, 1)
	leaves := testLeaves(11)
	good := must(evidence(t, k, Contradiction{Kind: Equivocation, Detail: "d", Ours: k.tree(t, leaves), Theirs: k.tree(t, forked(leaves, 2))}).Marshal())
	replace := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("no %s in %s", old, good)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"null":              []byte("null"),
		"a number":          []byte("3"),
		"an array":          []byte("[" + string(good) + "]"),
		"cut":               good[:len(good)/2],
		"cut by the brace":  bytes.TrimSuffix(good, []byte("}\n")),
		"something behind":  append(good[:len(good):len(good)], "{}"...),
		"huge":              append(good[:len(good):len(good)], bytes.Repeat([]byte(" "), MaxEvidence)...),
		"deep":              replace(`"detail": "d"`, `"detail": `+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)),
		"a member twice":    replace(`"detail": "d"`, `"detail": "d", "detail": "e"`),
		"an inner one":      replace(`"origin":`, `"origin": "x", "origin":`),
		"one more member":   replace(`"detail": "d"`, `"detail": "d", "verdict": "convicted"`),
		"another case":      replace(`"detail": "d"`, `"Detail": "d"`),
		"both cases":        replace(`"detail": "d"`, `"detail": "d", "Detail": "d"`),
		"null for a text":   replace(`"detail": "d"`, `"detail": null`),
		"a member missing":  replace(`"detail": "d",`, ``),
		"no UTF-8":          replace(`"detail": "d"`, "\"detail\": \"\xff\""),
		"unknown schema":    replace(EvidenceSchema, "sigtrail.evidence/2"),
		"no schema":         replace(`"schema": "`+EvidenceSchema+`",`, ``),
		"a time of its own": replace(`"found": "2026-11-20T10:00:00.000001Z"`, `"found": "2026-11-20T10:00:00.000001+00:00"`),
	} {
		if e, err := ParseEvidence(b); !errors.Is(err, ErrEvidence) {
			t.Errorf("%s: %v %+v", name, err, e)
		}
	}
	if _, err := ParseEvidence(bytes.ReplaceAll(good, []byte("\n  "), []byte(" "))); err != nil {
		t.Errorf("other spaces: %v", err)
	}
	long := evidence(t, k, Contradiction{Kind: Inconsistent, Ours: k.tree(t, leaves), Theirs: k.tree(t, leaves[:3]), Proof: make([]Hash, maxProof+1)})
	if _, err := ParseEvidence(must(long.Marshal())); !errors.Is(err, ErrEvidence) {
		t.Errorf("a long proof: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What is read is what is written again, and who is convicted has signed two things.
func FuzzEvidence(f *testing.F) {
	k := newTestKey(testOrigin, 1)
	leaves := testLeaves(11)
	fork := forked(leaves, 2)
	for _, c := range []Contradiction{
		{Kind: Equivocation, Ours: k.tree(f, leaves), Theirs: k.tree(f, fork)},
		{Kind: Inconsistent, Ours: k.tree(f, leaves[:5]), Theirs: k.tree(f, fork), Proof: consistency(f, fork, 5)},
		{Kind: Inconsistent, Ours: k.tree(f, leaves[:5]), Theirs: k.tree(f, leaves), Proof: consistency(f, leaves, 5)},
		{Kind: Inconsistent, Ours: k.tree(f, leaves), Theirs: k.tree(f, leaves), Claim: &Claim{ClaimLeaf, 2, fork[2]}},
		{Kind: KeyChanged, Theirs: newTestKey(testOrigin, 3).tree(f, leaves)},
		{Kind: ClosedChanged, Ours: k.tree(f, leaves[:5], frozen), Theirs: k.tree(f, leaves)},
	} {
		f.Add(must(evidence(f, k, c).Marshal()))
	}
	f.Add([]byte(`{"schema":"sigtrail.evidence/1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvidence(b)
		if err != nil {
			return
		}
		reread(t, e)
		v := e.Check()
		switch v.Outcome {
		case Unfounded, Accused:
			return
		case Convicted:
		default:
			t.Fatalf("outcome %q", v.Outcome)
		}
		for _, h := range v.Heads {
			if again, err := ParseHead(h.Note, e.Log.Origin, []note.Verifier{v.Key.Verifier}); err != nil || !again.SameTree(h) {
				t.Fatalf("convicted by a head that is not signed: %v", err)
			}
		}
		if len(v.Heads) == 0 || len(v.Heads) == 2 && v.Heads[0].SameTree(v.Heads[1]) && v.Heads[0].Size > 0 {
			t.Fatalf("convicted by nothing: %s", v.Shows)
		}
	})
}
