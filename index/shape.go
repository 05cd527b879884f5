package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
)

// A leaf about a file is text of which little is its own. Most of it is the
// certificate, which is stored once for all that it signed; most of the rest is the
// same in all leaves of its kind; the digest is that of a statement which is rebuilt
// from the file, and the envelope's hash is that of the same statement in one of few
// spellings. What is kept of it is a shape, which is the leaf with holes, and the
// bytes that fill those holes and that nothing else gives: the signature.
//
// A hole is one byte in the shape's text. JSON holds no such bytes.
const (
	holePEM       = 1 + iota // base64 of the PEM of the certificate (v1)
	holeDER                  // base64 of its DER (v2)
	holeSignature            // base64 of the signature
	holeDigestHex            // hex of the digest (v1)
	holeDigest               // base64 of the digest (v2)
	holeEnvelope             // hex of 32 bytes that are kept
	holeEnvelope1            // hex of SHA-256 of the DSSE envelope in the first of envelopeStyles
	holeEnvelope2
	holeEnvelope3
	holeEnd
)

// envelopeStyles are the spellings of a DSSE envelope whose hash a v1 leaf holds:
// what the client posted, byte for byte. %s are the base64 of payload and signature.
var envelopeStyles = []string{
	`{"payload": "%s", "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": "%s"}]}`,      // sigstore-python up to 3.6
	`{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"%s"}]}`,            // sigstore-python from 4.0
	`{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"%s","keyid":""}]}`, // sigstore-js
}

// maxShape bounds a shape: those in use take less than 300 bytes.
const maxShape = 1024

// givens are what a leaf's holes are filled with from elsewhere.
type givens struct {
	cert      []byte // DER
	digest    []byte
	explained bool   // digest is that of a form of a file, and need not be kept
	payload   []byte // the statement; nil where the leaf is about none that can be rebuilt
}

// shapeOf takes a leaf apart. False if the leaf cannot be put together again from
// its shape: then it is kept whole.
func shapeOf(leaf []byte, g givens) (shape, rest []byte, ok bool) {
	o, err := read(leaf)
	if err != nil {
		return nil, nil, false
	}
	for b := range holeEnd {
		if bytes.IndexByte(leaf, byte(b)) >= 0 {
			return nil, nil, false
		}
	}
	shape = leaf
	fill := func(hole byte, text []byte) bool {
		if len(text) == 0 || bytes.Count(shape, text) != 1 {
			return false
		}
		shape = bytes.Replace(shape, text, []byte{hole}, 1)
		return true
	}
	if g.cert != nil && !fill(holePEM, pemText(g.cert)) {
		fill(holeDER, base64Text(g.cert))
	}
	if g.digest != nil && !fill(holeDigestHex, hexText(g.digest)) {
		fill(holeDigest, base64Text(g.digest))
	}
	signature, err := unbase64(nil, o.signature)
	if err == nil && fill(holeSignature, o.signature) {
		rest = append(rest, packSignature(signature)...)
	}
	if hole, envelope := envelopeOf(leaf, g.payload, signature); hole != 0 && fill(hole, hexText(envelope)) && hole == holeEnvelope {
		rest = append(rest, envelope...)
	}
	if len(shape) > maxShape {
		return nil, nil, false
	}
	again, err := fillShape(shape, rest, g)
	return shape, rest, err == nil && bytes.Equal(again, leaf)
}

// envelopeOf finds the envelope's hash in a leaf, and which hole it leaves.
func envelopeOf(leaf, payload, signature []byte) (hole byte, envelope []byte) {
	_, after, ok := bytes.Cut(leaf, []byte(`"envelopeHash":{"algorithm":"sha256","value":"`))
	if !ok || len(after) < 64 {
		return 0, nil
	}
	envelope, err := hex.AppendDecode(nil, after[:64])
	if err != nil {
		return 0, nil
	}
	for i := range envelopeStyles {
		if payload != nil && bytes.Equal(envelopeHash(i, payload, signature), envelope) {
			return holeEnvelope1 + byte(i), envelope
		}
	}
	return holeEnvelope, envelope
}

func envelopeHash(style int, payload, signature []byte) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, envelopeStyles[style], base64Text(payload), base64Text(signature)))
	return sum[:]
}

var errShape = errors.New("what is kept of a leaf does not fit its shape; the database is damaged, restore it from a backup")

// fillShape puts a leaf together.
func fillShape(shape, rest []byte, g givens) ([]byte, error) {
	leaf := make([]byte, 0, len(shape)+2*len(g.cert)+512)
	var signature []byte
	// The signature is needed for an envelope's hash, which comes first in the text.
	if bytes.IndexByte(shape, holeSignature) >= 0 {
		var err error
		if signature, rest, err = unpackSignature(rest); err != nil {
			return nil, err
		}
	}
	for _, c := range shape {
		switch c {
		case holePEM:
			leaf = append(leaf, pemText(g.cert)...)
		case holeDER:
			leaf = base64.StdEncoding.AppendEncode(leaf, g.cert)
		case holeSignature:
			leaf = base64.StdEncoding.AppendEncode(leaf, signature)
		case holeDigestHex:
			leaf = hex.AppendEncode(leaf, g.digest)
		case holeDigest:
			leaf = base64.StdEncoding.AppendEncode(leaf, g.digest)
		case holeEnvelope:
			if len(rest) < 32 {
				return nil, errShape
			}
			leaf, rest = hex.AppendEncode(leaf, rest[:32]), rest[32:]
		case holeEnvelope1, holeEnvelope2, holeEnvelope3:
			leaf = hex.AppendEncode(leaf, envelopeHash(int(c-holeEnvelope1), g.payload, signature))
		default:
			leaf = append(leaf, c)
		}
	}
	if len(rest) != 0 {
		return nil, errShape
	}
	return leaf, nil
}

func pemText(der []byte) []byte {
	return base64Text(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func base64Text(b []byte) []byte { return base64.StdEncoding.AppendEncode(nil, b) }

func hexText(b []byte) []byte { return hex.AppendEncode(nil, b) }

// A packed signature begins with how long it is: packed, then r and s of ECDSA P-256,
// whose DER takes up to 72 bytes; else 0, the length as a varint, and the signature as
// it is.
const packed = 64

type ecdsaSignature struct{ R, S *big.Int }

func packSignature(sig []byte) []byte {
	var rs ecdsaSignature
	if rest, err := asn1.Unmarshal(sig, &rs); err == nil && len(rest) == 0 && rs.R.Sign() >= 0 && rs.S.Sign() >= 0 && rs.R.BitLen() <= 256 && rs.S.BitLen() <= 256 {
		b := make([]byte, 1+packed)
		b[0] = packed
		rs.R.FillBytes(b[1:33])
		rs.S.FillBytes(b[33:])
		if again, _, err := unpackSignature(b); err == nil && bytes.Equal(again, sig) {
			return b
		}
	}
	return append(binary.AppendUvarint([]byte{0}, uint64(len(sig))), sig...)
}

// unpackSignature returns also what follows it.
func unpackSignature(b []byte) (sig, rest []byte, err error) {
	if len(b) > packed && b[0] == packed {
		sig, err = asn1.Marshal(ecdsaSignature{new(big.Int).SetBytes(b[1:33]), new(big.Int).SetBytes(b[33 : 1+packed])})
		return sig, b[1+packed:], err
	}
	if len(b) < 2 || b[0] != 0 {
		return nil, nil, errShape
	}
	n, k := binary.Uvarint(b[1:])
	if k <= 0 || n > uint64(len(b)-1-k) {
		return nil, nil, errShape
	}
	b = b[1+k:]
	return b[:n], b[n:], nil
}
