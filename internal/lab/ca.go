package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"
)

// CertificateLife is how long a signing certificate is valid, as with Fulcio.
const CertificateLife = 10 * time.Minute

// The authority is valid over any time a test may want to play at.
var (
	caStart = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	caEnd   = time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC)
)

// A CA issues signing certificates of Fulcio's form: a P-384 root, a P-384
// intermediate, and leaves with an empty subject, one critical SAN, code signing
// and the provider's claims as extensions. It embeds no SCTs, and the trusted
// root accordingly names no certificate logs.
type CA struct {
	Root, Intermediate *x509.Certificate

	key    *ecdsa.PrivateKey // of the intermediate
	issuer asn1.RawValue     // the intermediate's subject
	sign   func(tbs []byte) ([]byte, error)
}

// NewCA makes an authority with fresh keys.
func NewCA() (*CA, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the root's key: %w", err)
	}
	root, err := authority("lab", rootKey, nil, nil)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the intermediate's key: %w", err)
	}
	inter, err := authority("lab-intermediate", key, root, rootKey)
	if err != nil {
		return nil, err
	}
	return newCA(root, inter, key), nil
}

func newCA(root, inter *x509.Certificate, key *ecdsa.PrivateKey) *CA {
	c := &CA{Root: root, Intermediate: inter, key: key, issuer: asn1.RawValue{FullBytes: inter.RawSubject}}
	c.sign = func(tbs []byte) ([]byte, error) {
		digest := sha512.Sum384(tbs)
		return ecdsa.SignASN1(rand.Reader, key, digest[:])
	}
	return c
}

// authority makes a CA certificate, self-signed without a parent.
func authority(name string, key *ecdsa.PrivateKey, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 150))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"lab.test"}, CommonName: name},
		NotBefore:    caStart, NotAfter: caEnd,
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1,
		KeyUsage:           x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SignatureAlgorithm: x509.ECDSAWithSHA384,
	}
	if parent == nil {
		parent, parentKey = t, key
	} else {
		t.MaxPathLen, t.MaxPathLenZero = 0, true
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, fmt.Errorf("making the certificate of %s: %w", name, err)
	}
	return x509.ParseCertificate(der)
}

// Issue certifies a key for an identity from notBefore on, to the second, and
// returns the certificate's DER.
func (c *CA) Issue(id Identity, key *ecdsa.PublicKey, notBefore time.Time) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the signer's key: %w", err)
	}
	return certify(c.issuer, ecdsaSHA384, c.sign, id, spki, notBefore)
}

// SelfSigned makes a certificate that says the same as one by the authority but
// is signed by its own key: anybody can make and log one.
func SelfSigned(id Identity, key *ecdsa.PrivateKey, notBefore time.Time) ([]byte, error) {
	other, err := NewCA() // same names, other keys
	if err != nil {
		return nil, err
	}
	return other.Issue(id, &key.PublicKey, notBefore)
}

var (
	ecdsaSHA384 = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}}

	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSAN         = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidCodeSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
)

// tbsCertificate is RFC 5280's, as far as leaves need it. x509.CreateCertificate
// checks its own signature, which at P-384 doubles the price of a generated log.
type tbsCertificate struct {
	Version    int `asn1:"explicit,tag:0"`
	Serial     *big.Int
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	Validity   struct{ NotBefore, NotAfter time.Time }
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Extensions []pkix.Extension `asn1:"explicit,tag:3"`
}

type certificate struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

func certify(issuer asn1.RawValue, alg pkix.AlgorithmIdentifier, sign func([]byte) ([]byte, error), id Identity, spki []byte, notBefore time.Time) ([]byte, error) {
	extensions, err := leafExtensions(id)
	if err != nil {
		return nil, err
	}
	var serial [20]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return nil, err
	}
	serial[0] &= 0x7f // positive
	tbs := tbsCertificate{
		Version: 2, Serial: new(big.Int).SetBytes(serial[:]), Algorithm: alg, Issuer: issuer,
		Subject: asn1.RawValue{FullBytes: []byte{0x30, 0}}, PublicKey: asn1.RawValue{FullBytes: spki}, Extensions: extensions,
	}
	tbs.Validity.NotBefore = notBefore.UTC().Truncate(time.Second)
	tbs.Validity.NotAfter = tbs.Validity.NotBefore.Add(CertificateLife)
	body, err := asn1.Marshal(tbs)
	if err != nil {
		return nil, fmt.Errorf("encoding a certificate: %w", err)
	}
	sig, err := sign(body)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return asn1.Marshal(certificate{TBS: asn1.RawValue{FullBytes: body}, Algorithm: alg,
		Signature: asn1.BitString{Bytes: sig, BitLength: len(sig) * 8}})
}

// leafExtensions are a signing certificate's. The first six claims are raw bytes,
// the later ones DER UTF8Strings: Fulcio learned the right encoding on the way.
func leafExtensions(id Identity) ([]pkix.Extension, error) {
	uri, email, fields := id.names()
	san := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}
	if email != "" {
		san = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: []byte(email)}
	}
	names, err := asn1.Marshal([]asn1.RawValue{san})
	if err != nil {
		return nil, fmt.Errorf("encoding the SAN: %w", err)
	}
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{oidCodeSigning})
	if err != nil {
		return nil, err
	}
	extensions := []pkix.Extension{
		{Id: oidKeyUsage, Critical: true, Value: []byte{0x03, 0x02, 0x07, 0x80}}, // digital signature
		{Id: oidExtKeyUsage, Value: usage},
		{Id: oidSAN, Critical: true, Value: names},
	}
	for _, n := range slices.Sorted(maps.Keys(fields)) {
		value := []byte(fields[n])
		if n > 6 {
			if value, err = asn1.MarshalWithParams(fields[n], "utf8"); err != nil {
				return nil, fmt.Errorf("encoding extension .%d: %w", n, err)
			}
		}
		extensions = append(extensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}, Value: value})
	}
	return extensions, nil
}

// certPEM is the form in which v1 leaves hold certificates.
func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
