package index

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
)

// Every real leaf of the kinds that PyPI's clients make is put together again from
// what is kept of it, which is little more than the signature. Leaves of kind intoto,
// which hold an envelope, are kept whole.
func TestShapesOfRealLeaves(t *testing.T) {
	shapes := map[string]bool{}
	whole := 0
	for name, leaf := range realLeaves(t) {
		e, err := Decode(leaf)
		if err != nil || e.Cert == nil || e.Kind == kindInToto1 || e.Kind == kindInToto2 {
			continue
		}
		g := givens{cert: e.Cert, digest: e.Digest}
		shape, rest, ok := shapeOf(leaf, g)
		if !ok {
			whole++
			t.Errorf("%s is kept whole: %.300s", name, leaf)
			continue
		}
		shapes[string(shape)] = true
		if len(rest) > len(e.Signature)+32+3 {
			t.Errorf("%s: %d bytes are kept", name, len(rest))
		}
	}
	if len(shapes) == 0 || len(shapes) > 20 || whole > 0 {
		t.Errorf("%d shapes, %d leaves kept whole", len(shapes), whole)
	}
}

// The envelope's hash of a real leaf need not be kept: it is that of the statement.
func TestEnvelopeIsRebuilt(t *testing.T) {
	sg := newSigning(t, "o/r")
	f := aFile("p", "1")
	payload, err := Statement("P1", f.Name, f.SHA256)
	ok(t, err)
	sig := sg.sign(t, PAE(payload))
	for style := range envelopeStyles {
		leaf := sg.dsseV1(sha256.Sum256(payload), sig)
		leaf = bytes.Replace(leaf, hexText(func() []byte { s := sha256.Sum256(sig); return s[:] }()), hexText(envelopeHash(style, payload, sig)), 1)
		g := givens{cert: sg.cert}
		ok(t, g.explain("P1/payload", f.Name, f.SHA256[:]))
		shape, rest, fits := shapeOf(leaf, g)
		if !fits || len(rest) != 1+packed || bytes.IndexByte(shape, byte(holeEnvelope1+style)) < 0 {
			t.Errorf("style %d: %v, %d bytes, %q", style, fits, len(rest), shape)
		}
	}
}

func TestPackedSignatures(t *testing.T) {
	sg := newSigning(t, "o/r")
	small := append([]byte{0x30, 6, 2, 1, 5, 2, 1, 7}, []byte{}...)
	for _, sig := range [][]byte{
		{}, {0}, {packed}, []byte("set"), bytes.Repeat([]byte{0}, 64), bytes.Repeat([]byte{1}, 65), bytes.Repeat([]byte{2}, 70_000),
		small, append(bytes.Clone(small), 0), {0x30, 7, 2, 2, 0, 5, 2, 1, 7}, {0x30, 6, 2, 1, 0x85, 2, 1, 7}, sg.sign(t, []byte("x")),
	} {
		b := packSignature(sig)
		again, rest, err := unpackSignature(append(b, "rest"...))
		if err != nil || !bytes.Equal(again, sig) || string(rest) != "rest" {
			t.Errorf("%x is packed as %x and comes back as %x, %q, %v", sig, b, again, rest, err)
		}
		for n := range min(len(b), 70) {
			if sig, rest, err := unpackSignature(b[:n]); err == nil && len(sig)+len(rest) > n {
				t.Errorf("%d bytes of %d", n, len(b))
			}
		}
	}
}

// Whatever a leaf holds, it comes back.
func TestKeepsHostileLeaves(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	id := listFiles(t, s, "p", 1, f)[0].ID
	sg := newSigning(t, "o/r")
	attest := string(sg.attest(t, f))
	leaves := [][]byte{
		[]byte(attest),
		[]byte(" " + attest + " "),
		[]byte(strings.Replace(attest, `"kind"`, "\t\"kind\"", 1)),
		[]byte(attest + "\x01"),
		[]byte(strings.Replace(attest, `"spec"`, `"`+b64(sg.cert)+`":1,"spec"`, 1)),
		{}, {1, 2, 3}, bytes.Repeat([]byte("x"), 5000),
	}
	for i := range maxShapes + 5 { // no two of one shape
		leaves = append(leaves, []byte(strings.Replace(attest, `{`, `{`+strings.Repeat(" ", i+1), 1)))
	}
	tr := begin(t, s, testLog)
	b := tr.batch(t, leaves...)
	var named []ProvenanceLeaf
	for i := range leaves {
		named = append(named, ProvenanceLeaf{KeyID: testLog.KeyID, Global: uint64(i), Hash: b.Hashes[i]})
	}
	ok(t, s.PyPI().SaveProvenance(t.Context(), id, Provenance{State: ProvenancePresent, Body: []byte("{}"), Fetched: storeEpoch, Leaves: named}))
	ok(t, s.Commit(t.Context(), b))
	stored, err := s.Signatures(t.Context(), id)
	ok(t, err)
	if len(stored) != len(leaves) {
		t.Fatalf("%d entries of %d", len(stored), len(leaves))
	}
	for _, e := range stored {
		if i := e[0].Entry.Leaf.Index; !bytes.Equal(e[0].Entry.Leaf.Data, leaves[i]) {
			t.Errorf("leaf %d comes back as %q", i, e[0].Entry.Leaf.Data)
		}
	}
	if n := countRows(t, s, `SELECT count(*) FROM shapes`); n > maxShapes {
		t.Errorf("%d shapes", n)
	}
}
