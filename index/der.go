package index

import "errors"

// Reading DER without crypto/x509: a watched log brings a certificate with every
// leaf, and parsing all of it costs twelve times what finding a few fields does.
// Whoever is believed for what a certificate says goes through crypto/x509 too
// (VerifySignature, Trust.Chain).

var errDER = errors.New("malformed DER")

// DER tags that a certificate's outline is made of.
const (
	tagInteger    = 0x02
	tagOctets     = 0x04
	tagOID        = 0x06
	tagUTF8       = 0x0c
	tagUTCTime    = 0x17
	tagGenTime    = 0x18
	tagBoolean    = 0x01
	tagSequence   = 0x30
	tagVersion    = 0xa0 // [0] of TBSCertificate
	tagExtensions = 0xa3 // [3] of TBSCertificate
)

// der is a cursor over DER elements. Its methods return false at anything that is
// not minimal, definite-length DER, and never read past the end.
type der []byte

// next takes one element off: its tag and its contents.
func (d *der) next() (tag byte, body der, ok bool) {
	b := *d
	if len(b) < 2 || b[0]&0x1f == 0x1f { // no multi-byte tags in certificates
		return 0, nil, false
	}
	n, head := int(b[1]), 2
	if n >= 0x80 {
		bytes := n & 0x7f
		if bytes == 0 || bytes > 3 || len(b) < 2+bytes || b[2] == 0 {
			return 0, nil, false
		}
		n = 0
		for _, c := range b[2 : 2+bytes] {
			n = n<<8 | int(c)
		}
		if n < 0x80 {
			return 0, nil, false // not minimal
		}
		head += bytes
	}
	if n > len(b)-head {
		return 0, nil, false
	}
	*d = b[head+n:]
	return b[0], b[head : head+n], true
}

// take is next for an element that must have that tag.
func (d *der) take(tag byte) (der, bool) {
	save := *d
	t, body, ok := d.next()
	if !ok || t != tag {
		*d = save
		return nil, false
	}
	return body, true
}

// only is take for an element that must be the last.
func (d der) only(tag byte) (der, bool) {
	body, ok := d.take(tag)
	return body, ok && len(d) == 0
}
