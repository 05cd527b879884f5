package index

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"sigtrail/internal/lab"
)

// benchLeaf is a v2 leaf with a certificate as Fulcio issues them.
func benchLeaf(b *testing.B) (leaf, cert []byte) {
	b.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		b.Fatal(err)
	}
	s, err := ca.SignPublish(lab.GitHub{Owner: "pypa", Repo: "sampleproject"}, "sampleproject-4.0.0.tar.gz", [32]byte{1}, time.Unix(1730932627, 0))
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256(s.PAE)
	return fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"%s"},"signature":{"content":"%s","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"%s"}}}}}}`,
		base64.StdEncoding.EncodeToString(digest[:]), base64.StdEncoding.EncodeToString(s.Signature), base64.StdEncoding.EncodeToString(s.Cert)), s.Cert
}

func BenchmarkPeek(b *testing.B) {
	leaf, _ := benchLeaf(b)
	var s Scratch
	b.SetBytes(int64(len(leaf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok, likely, err := Peek(leaf, &s); !ok || !likely || err != nil {
			b.Fatal(ok, likely, err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	leaf, _ := benchLeaf(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(leaf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeStrict(b *testing.B) {
	leaf, _ := benchLeaf(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseLeaf(leaf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseSigner(b *testing.B) {
	_, cert := benchLeaf(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSigner(cert); err != nil {
			b.Fatal(err)
		}
	}
}
