package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Signed is a publish attestation (PEP 740) before it is logged.
type Signed struct {
	Filename  string
	SHA256    [32]byte
	Cert      []byte // DER
	Statement []byte
	PAE       []byte
	Signature []byte // ASN.1 ECDSA over SHA-256(PAE)
}

// SignPublish does what a publishing client does for a file: a fresh key, a
// certificate for the identity from at on, a signed statement.
func (c *CA) SignPublish(id Identity, filename string, digest [32]byte, at time.Time) (Signed, error) {
	return c.signStatement(id, publishStatement(filename, digest), filename, digest, at)
}

// SignBuild signs how a file was built (SLSA), as an attestation beside the one of
// its publication.
func (c *CA) SignBuild(id Identity, filename string, digest [32]byte, at time.Time) (Signed, error) {
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":%q,"digest":{"sha256":"%x"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{"buildDefinition":{"at":%d}}}`, filename, digest, at.Unix())
	return c.signStatement(id, statement, filename, digest, at)
}

func (c *CA) signStatement(id Identity, statement []byte, filename string, digest [32]byte, at time.Time) (Signed, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Signed{}, err
	}
	cert, err := c.Issue(id, &key.PublicKey, at)
	if err != nil {
		return Signed{}, err
	}
	return signWith(key, cert, statement, filename, digest)
}

// SignUntrusted is SignPublish with a certificate that anybody can make.
func SignUntrusted(id Identity, filename string, digest [32]byte, at time.Time) (Signed, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Signed{}, err
	}
	cert, err := SelfSigned(id, key, at)
	if err != nil {
		return Signed{}, err
	}
	return signWith(key, cert, publishStatement(filename, digest), filename, digest)
}

func publishStatement(filename string, digest [32]byte) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":%q,"digest":{"sha256":"%x"}}],"predicateType":"https://docs.pypi.org/attestations/publish/v1","predicate":null}`, filename, digest)
}

func signWith(key *ecdsa.PrivateKey, cert, statement []byte, filename string, digest [32]byte) (Signed, error) {
	s := Signed{Filename: filename, SHA256: digest, Cert: cert, Statement: statement}
	s.PAE = fmt.Appendf(nil, "DSSEv1 28 application/vnd.in-toto+json %d %s", len(s.Statement), s.Statement)
	sum := sha256.Sum256(s.PAE)
	var err error
	s.Signature, err = ecdsa.SignASN1(rand.Reader, key, sum[:])
	return s, err
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// envelope is what a client sends to v1, of which the log keeps the hash.
func (s Signed) envelope() []byte {
	return fmt.Appendf(nil, `{"payload":%q,"payloadType":"application/vnd.in-toto+json","signatures":[{"sig":%q}]}`, b64(s.Statement), b64(s.Signature))
}

// leafV1 is the canonical body of a v1 dsse entry.
func (s Signed) leafV1() []byte {
	return fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"%s"},"payloadHash":{"algorithm":"sha256","value":"%s"},"signatures":[{"signature":"%s","verifier":"%s"}]}}`,
		hexSum(s.envelope()), hexSum(s.Statement), b64(s.Signature), b64(certPEM(s.Cert)))
}

// leafV2 is the canonical body of a v2 hashedrekord entry over the PAE.
func (s Signed) leafV2() []byte {
	sum := sha256.Sum256(s.PAE)
	return hashedV2(sum, s.Signature, s.Cert)
}

func hashedV2(digest [32]byte, signature, cert []byte) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"%s"},"signature":{"content":"%s","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"%s"}}}}}}`,
		b64(digest[:]), b64(signature), b64(cert))
}

func dsseV2(digest [32]byte, signature, cert []byte) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"payloadHash":{"algorithm":"SHA2_256","digest":"%s"},"signatures":[{"content":"%s","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"%s"}}}]}}}`,
		b64(digest[:]), b64(signature), b64(cert))
}

// leafV2DSSE is the body of the dsse kind that v2 servers took until June 2026.
func (s Signed) leafV2DSSE() []byte {
	sum := sha256.Sum256(s.Statement)
	return dsseV2(sum, s.Signature, s.Cert)
}

// Publisher is the trusted publisher in a provenance object.
type Publisher struct {
	Kind        string `json:"kind"`
	Repository  string `json:"repository"`
	Workflow    string `json:"workflow"`
	Environment string `json:"environment,omitempty"`
}

// Provenance is the object that PyPI makes of an attestation and its v1 entry.
func Provenance(p Publisher, s Signed, e Entry) []byte {
	type m = map[string]any
	b, err := json.Marshal(m{"version": 1, "attestation_bundles": []any{m{"publisher": p, "attestations": []any{m{
		"version": 1,
		"verification_material": m{
			"certificate":          b64(s.Cert),
			"transparency_entries": []any{e.transparencyEntry()},
		},
		"envelope": m{"statement": b64(s.Statement), "signature": b64(s.Signature)},
	}}}}})
	if err != nil {
		panic(err) // strings and bytes always marshal
	}
	return b
}

// Digest makes a file's SHA-256 out of its name: the lab's files have no contents.
func Digest(name string) [32]byte { return sha256.Sum256([]byte("contents of " + name)) }
