package index

import (
	"bytes"
	"encoding/binary"
)

// The fast way through a leaf: logs write canonical JSON (RFC 8785), so that the
// leaves of one kind differ in a handful of strings only. scanLeaf compares the
// rest byte for byte. Whatever is not of that form is left to parseLeaf.

// A scanner stands at a place in a leaf. Once something did not fit, it stays
// failed.
type scanner struct {
	rest []byte
	bad  bool
}

// lit passes over fixed text.
func (s *scanner) lit(text string) {
	if s.bad || len(s.rest) < len(text) || string(s.rest[:len(text)]) != text {
		s.bad = true
		return
	}
	s.rest = s.rest[len(text):]
}

// has is lit where another form is allowed.
func (s *scanner) has(text string) bool {
	if s.bad || len(s.rest) < len(text) || string(s.rest[:len(text)]) != text {
		return false
	}
	s.rest = s.rest[len(text):]
	return true
}

// str takes the rest of a string and its closing quote. Strings with escapes or
// with control characters or anything beyond ASCII do not fit.
func (s *scanner) str() []byte {
	if s.bad {
		return nil
	}
	end := bytes.IndexByte(s.rest, '"')
	if end < 0 {
		s.bad = true
		return nil
	}
	text := s.rest[:end]
	if !plainASCII(text) || bytes.IndexByte(text, '\\') >= 0 {
		s.bad = true
		return nil
	}
	s.rest = s.rest[end+1:]
	return text
}

// plainASCII reports whether no byte is a control character or above 0x7f, eight
// at a time: most of a leaf is one long base64 text. Subtracting 0x20 from a byte
// below it borrows, which sets its top bit.
func plainASCII(text []byte) bool {
	const low, top = 0x2020202020202020, 0x8080808080808080
	for len(text) >= 8 {
		x := binary.LittleEndian.Uint64(text)
		if (x|(x-low))&top != 0 {
			return false
		}
		text = text[8:]
	}
	for _, c := range text {
		if c < 0x20 || c >= 0x80 {
			return false
		}
	}
	return true
}

func (s *scanner) done() bool { return !s.bad && len(s.rest) == 0 }

func scanLeaf(leaf []byte) (outline, bool) {
	s := scanner{rest: leaf}
	var o outline
	switch {
	case s.has(`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"`):
		o.kind = kindHashed2
		o.algorithm = algorithmV2(s.str())
		s.lit(`,"digest":"`)
		o.digest = s.str()
		s.lit(`},"signature":{"content":"`)
		o.signature = s.str()
		s.verifierV2(&o)
		s.lit(`}}}}`)
	case s.has(`{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"payloadHash":{"algorithm":"`):
		o.kind = kindDSSE2
		o.algorithm = algorithmV2(s.str())
		s.lit(`,"digest":"`)
		o.digest = s.str()
		s.lit(`},"signatures":[{"content":"`)
		o.signature = s.str()
		s.verifierV2(&o)
		s.lit(`}]}}}`)
	case s.has(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"`):
		o.kind, o.algorithm = kindDSSE1, "sha256"
		s.str()
		s.lit(`},"payloadHash":{"algorithm":"sha256","value":"`)
		o.digest = s.str()
		s.lit(`},"signatures":[{"signature":"`)
		o.signature = s.str()
		s.lit(`,"verifier":"`)
		o.verifier = s.str()
		s.lit(`}]}}`)
	case s.has(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"`):
		o.kind = kindHashed1
		o.algorithm = algorithmV1(s.str())
		s.lit(`,"value":"`)
		o.digest = s.str()
		s.lit(`}},"signature":{"content":"`)
		o.signature = s.str()
		s.lit(`,"publicKey":{"content":"`)
		o.verifier = s.str()
		s.lit(`}}}}`)
	default:
		return outline{}, false
	}
	return o, s.done() && o.algorithm != ""
}

func (s *scanner) verifierV2(o *outline) {
	s.lit(`,"verifier":{"keyDetails":"`)
	s.str()
	if s.has(`,"publicKey":{"rawBytes":"`) {
		o.bareKey = true
	} else {
		s.lit(`,"x509Certificate":{"rawBytes":"`)
	}
	o.verifier = s.str()
	s.lit(`}}`)
}

// algorithmV2 turns protobuf-specs' HashAlgorithm names into v1's. "" unknown.
func algorithmV2(name []byte) string {
	switch string(name) {
	case "SHA2_256":
		return "sha256"
	case "SHA2_384":
		return "sha384"
	case "SHA2_512":
		return "sha512"
	}
	return ""
}

func algorithmV1(name []byte) string {
	switch string(name) {
	case "sha256":
		return "sha256"
	case "sha384":
		return "sha384"
	case "sha512":
		return "sha512"
	}
	return ""
}
