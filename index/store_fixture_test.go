package index

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	mrand "math/rand/v2"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"sigtrail/monitor"
)

var storeEpoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A signing is a key with a certificate of GitHub's form.
type signing struct {
	key  *ecdsa.PrivateKey
	cert []byte
}

func newSigning(t testing.TB, repository string) signing {
	t.Helper()
	return newSigningAt(t, repository, storeEpoch)
}

func newSigningAt(t testing.TB, repository string, at time.Time) signing {
	t.Helper()
	return issued(t, repository, "42", at)
}

func newSigningOf(t testing.TB, repository, id string) signing {
	t.Helper()
	return issued(t, repository, id, storeEpoch)
}

func issued(t testing.TB, repository, id string, at time.Time) signing {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	repo := "https://github.com/" + repository
	san, err := url.Parse(repo + "/.github/workflows/release.yml@refs/tags/v1")
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(mrand.Int64()), NotBefore: at, NotAfter: at.Add(10 * time.Minute), URIs: []*url.URL{san}}
	for n, text := range map[int]string{
		ExtIssuer: "https://token.actions.githubusercontent.com", ExtSourceRepositoryURI: repo, ExtSourceRepositoryID: id,
		ExtSourceRepositoryOwnerURI: "https://github.com/o", ExtSourceRepositoryOwnerID: "7", ExtBuildConfigURI: san.String(), ExtRunInvocationURI: repo + "/actions/runs/1/attempts/1",
	} {
		value, err := asn1.MarshalWithParams(text, "utf8")
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}, Value: value})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return signing{key, der}
}

func (s signing) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func (s signing) hashedV2(digest [32]byte, sig []byte) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"%s"},"signature":{"content":"%s","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"%s"}}}}}}`,
		b64(digest[:]), b64(sig), b64(s.cert))
}

func (s signing) dsseV1(payload [32]byte, sig []byte) []byte {
	verifier := b64(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert}))
	return fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"%x"},"payloadHash":{"algorithm":"sha256","value":"%x"},"signatures":[{"signature":"%s","verifier":"%s"}]}}`,
		sha256.Sum256(sig), payload, b64(sig), verifier)
}

// attest is a v2 leaf over the publish statement of a file.
func (s signing) attest(t testing.TB, f File) []byte {
	t.Helper()
	payload, err := Statement("P1", f.Name, f.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	pae := PAE(payload)
	return s.hashedV2(sha256.Sum256(pae), s.sign(t, pae))
}

// attestV1 is the v1 leaf over the same.
func (s signing) attestV1(t testing.TB, f File) []byte {
	t.Helper()
	payload, err := Statement("P1", f.Name, f.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return s.dsseV1(sha256.Sum256(payload), s.sign(t, PAE(payload)))
}

// noise is a leaf over something that is no known file.
func (s signing) noise(n int) []byte {
	digest := sha256.Sum256(fmt.Appendf(nil, "noise %d", n))
	return s.hashedV2(digest, digest[:])
}

func aFile(project, version string) File {
	name := project + "-" + version + ".tar.gz"
	return File{Project: project, Version: version, Name: name, SHA256: sha256.Sum256([]byte(name)), Size: 1000,
		Uploaded: storeEpoch, URL: "https://files.example/" + name}
}

// named gives the file a provenance address.
func named(f File) File {
	f.ProvenanceURL = "https://pypi.example/integrity/" + f.Name
	return f
}

// holds stores that a file's provenance object holds, its one attestation with these
// log entries.
func holds(t testing.TB, s *Store, id FileID, leaves ...monitor.Hash) {
	t.Helper()
	ok(t, s.SaveVerification(t.Context(), id, Verification{Root: "00ff", At: storeEpoch,
		Verdicts: []AttestationVerdict{{State: AttestationHolds, Root: "00ff", At: storeEpoch, Leaves: leaves}}}))
}

var testLog = monitor.Log{Origin: "log.example", KeyID: monitor.Hash{1}, API: monitor.V2, URL: "https://log.example/api/v2/"}

// A tree makes batches out of leaves.
type tree struct {
	log monitor.Log
	pos monitor.Position
}

func headAt(t testing.TB, l monitor.Log, p monitor.Position) monitor.Head {
	t.Helper()
	root, err := p.Root()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", l.Origin, p.Next, b64(root[:]))
	return monitor.Head{Origin: l.Origin, Size: p.Next, Root: root, Text: text, Note: []byte(text + "\n— log.example AAAA\n"), Seen: storeEpoch}
}

func (tr *tree) batch(t testing.TB, leaves ...[]byte) monitor.Batch {
	t.Helper()
	b := monitor.Batch{Log: tr.log, From: tr.pos}
	for i, data := range leaves {
		leaf := monitor.Leaf{Index: tr.pos.Next + uint64(i), Data: data}
		if tr.log.API == monitor.V1 {
			leaf.IntegratedTime, leaf.SET = storeEpoch.Add(time.Minute).Unix(), []byte("set")
		}
		b.Leaves = append(b.Leaves, leaf)
		b.Hashes = append(b.Hashes, monitor.HashLeaf(data))
	}
	to, err := tr.pos.Fold(b.Hashes)
	if err != nil {
		t.Fatal(err)
	}
	b.To, tr.pos = to, to
	b.Head = headAt(t, tr.log, to)
	return b
}

// proven is the i-th leaf of a batch as a look-up finds it.
func proven(b monitor.Batch, i int) monitor.Proven {
	return monitor.Proven{Log: b.Log, Head: b.Head, Leaf: b.Leaves[i], Hash: b.Hashes[i], Proof: []monitor.Hash{{9}}}
}

// fakeTrust answers what a test wants, and counts.
type fakeTrust struct {
	chain error
	set   error
	calls int
}

func (f *fakeTrust) Chain(*x509.Certificate, time.Time) error   { f.calls++; return f.chain }
func (f *fakeTrust) SET(l monitor.Log, leaf monitor.Leaf) error { return f.set }

func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "sigtrail.db"), o)
}

func openAt(t testing.TB, path string, o Options) *Store {
	t.Helper()
	if o.Trust == nil {
		o.Trust = &fakeTrust{}
	}
	if o.Now == nil {
		o.Now = func() time.Time { return storeEpoch.Add(time.Hour) }
	}
	s, err := Open(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, ErrReadOnly) {
			t.Error(err)
		}
	})
	return s
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begin starts a tail at 0.
func begin(t testing.TB, s *Store, l monitor.Log) *tree {
	t.Helper()
	ok(t, s.Begin(t.Context(), l, monitor.Position{}))
	return &tree{log: l}
}

func listFiles(t testing.TB, s *Store, project string, serial int64, files ...File) []File {
	t.Helper()
	fresh, err := s.PyPI().SaveListing(t.Context(), Listing{Project: project, Serial: serial, Status: "active", Files: files, Fetched: storeEpoch.Add(time.Duration(serial) * time.Second)})
	ok(t, err)
	return fresh
}

func countRows(t testing.TB, s *Store, query string, args ...any) int {
	t.Helper()
	var n int
	ok(t, s.db.QueryRowContext(t.Context(), query, args...).Scan(&n))
	return n
}

func allCases(t testing.TB, s *Store) []Case {
	t.Helper()
	cases, err := s.Cases(t.Context(), nil, 100, math.MaxInt)
	ok(t, err)
	return cases
}
