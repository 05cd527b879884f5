package index

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// ErrMalformed is a leaf that is not what its kind demands.
var ErrMalformed = errors.New("malformed leaf")

// A KindError is a leaf of a kind that says nothing about a PyPI file. Kind is a
// known kind, or "other", so that it can label a metric.
type KindError struct{ Kind string }

func (e *KindError) Error() string { return "leaf of kind " + e.Kind + " is not indexed" }

// Kinds that Decode understands, as Entry.Kind.
const (
	kindDSSE1   = "dsse/0.0.1"
	kindDSSE2   = "dsse/0.0.2"
	kindHashed1 = "hashedrekord/0.0.1"
	kindHashed2 = "hashedrekord/0.0.2"
	kindInToto1 = "intoto/0.0.1"
	kindInToto2 = "intoto/0.0.2"
	kindOther   = "other"

	kindMalformed = "malformed" // of no Entry, but counted and recorded

	maxLeafBytes = 4 << 20 // v1 leaves of kinds that embed their artifact are this large at most
)

// An outline is where the parts of a leaf lie in it, still encoded.
type outline struct {
	kind      string // one of the constants: no allocation
	algorithm string
	digest    []byte // hex (v1) or base64 (v2); nil where the leaf has none
	signature []byte // base64; nil where the leaf has none
	verifier  []byte // base64 of PEM (v1) or of DER (v2)
	bareKey   bool   // v2: verifier is a public key
}

// Decode reads a leaf. It returns *KindError for kinds that are not indexed and
// ErrMalformed for leaves that lack what their kind demands.
func Decode(leaf []byte) (Entry, error) {
	o, err := read(leaf)
	if err != nil {
		return Entry{}, err
	}
	return o.entry()
}

// read takes the fast way for the canonical form and the strict one for all else.
// Both give the same outline wherever both give one (FuzzDecode).
func read(leaf []byte) (outline, error) {
	if o, ok := scanLeaf(leaf); ok {
		return o, nil
	}
	return parseLeaf(leaf)
}

func (o outline) entry() (Entry, error) {
	e := Entry{Kind: o.kind, Algorithm: o.algorithm, DigestOf: DigestPayload}
	if o.kind == kindHashed1 || o.kind == kindHashed2 {
		e.DigestOf = DigestData
	}
	var err error
	if o.digest != nil {
		if e.Digest, err = o.appendDigest(nil); err != nil {
			return Entry{}, err
		}
	}
	if o.signature != nil {
		if e.Signature, err = unbase64(nil, o.signature); err != nil {
			return Entry{}, fmt.Errorf("%w: signature: %w", ErrMalformed, err)
		}
		if o.kind == kindInToto2 { // base64 of the base64 signature
			if e.Signature, err = unbase64(nil, e.Signature); err != nil {
				return Entry{}, fmt.Errorf("%w: inner signature: %w", ErrMalformed, err)
			}
		}
	}
	material, isCert, err := o.material(nil)
	if err != nil {
		return Entry{}, err
	}
	if isCert {
		e.Cert = material
	} else {
		e.Key = material
	}
	return e, nil
}

// digestBytes is how long a digest of an algorithm is, 0 for unknown algorithms.
func digestBytes(algorithm string) int {
	switch algorithm {
	case "sha256":
		return 32
	case "sha384":
		return 48
	case "sha512":
		return 64
	}
	return 0
}

func (o outline) appendDigest(dst []byte) (_ []byte, err error) {
	start := len(dst)
	if o.kind == kindHashed2 || o.kind == kindDSSE2 {
		dst, err = unbase64(dst, o.digest)
	} else {
		dst, err = hex.AppendDecode(dst, o.digest)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: digest: %w", ErrMalformed, err)
	}
	if want := digestBytes(o.algorithm); len(dst)-start != want {
		return nil, fmt.Errorf("%w: %s digest of %d bytes", ErrMalformed, o.algorithm, len(dst)-start)
	}
	return dst, nil
}

// material is the DER of the certificate or of the bare key. v1 wraps it in PEM
// and may carry a chain, of which the first certificate signed.
func (o outline) material(dst []byte) (_ []byte, isCert bool, err error) {
	b, err := unbase64(dst, o.verifier)
	if err != nil {
		return nil, false, fmt.Errorf("%w: verifier: %w", ErrMalformed, err)
	}
	if o.kind == kindHashed2 || o.kind == kindDSSE2 {
		return b, !o.bareKey, nil
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, false, fmt.Errorf("%w: verifier is not PEM", ErrMalformed)
	}
	return block.Bytes, block.Type == "CERTIFICATE", nil
}

var strictBase64 = base64.StdEncoding.Strict()

// unbase64 refuses line breaks too, which the decoder by itself passes over.
func unbase64(dst, text []byte) ([]byte, error) {
	if bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, errors.New("line break in base64")
	}
	return strictBase64.AppendDecode(dst, text)
}

// Scratch is memory that Peek uses again from leaf to leaf.
type Scratch struct {
	buf  []byte
	cert []byte // of the last leaf that was likely; until the next call

	claim []byte // see claims.of
}

// Peek looks at a leaf just enough to decide about it: its kind, its SHA-256
// digest (false if it has none), and whether it could concern a PyPI file, which
// is: a signature of a kind in use there, over a SHA-256 digest, with a
// certificate of an issuer that PyPI accepts or of a person. It allocates nothing
// for leaves in canonical form. Errors as Decode's.
func Peek(leaf []byte, s *Scratch) (kind string, digest [32]byte, ok, likely bool, err error) {
	o, err := read(leaf)
	if err != nil {
		return "", digest, false, false, err
	}
	if o.digest == nil || o.algorithm != "sha256" {
		return o.kind, digest, false, false, nil
	}
	if s.buf, err = o.appendDigest(s.buf[:0]); err != nil {
		return o.kind, digest, false, false, err
	}
	copy(digest[:], s.buf)
	if o.kind == kindInToto1 || o.kind == kindInToto2 || o.bareKey {
		return o.kind, digest, true, false, nil
	}
	cert, isCert, err := o.material(s.buf[:0])
	if err != nil {
		return o.kind, digest, true, false, err
	}
	if cap(cert) > cap(s.buf) {
		s.buf = cert
	}
	s.cert = cert
	return o.kind, digest, true, isCert && likelyIssuer(cert), nil
}

// LikelyPyPI reports whether an entry that no known file explains could concern a
// file that appears later.
func LikelyPyPI(e Entry) bool {
	switch e.Kind {
	case kindDSSE1, kindDSSE2, kindHashed1, kindHashed2:
		return e.Algorithm == "sha256" && e.Cert != nil && likelyIssuer(e.Cert)
	}
	return false
}
