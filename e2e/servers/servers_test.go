package servers

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"net/http"
	"testing"
)

// TestServers starts everything, signs once, logs everywhere, and rotates.
func TestServers(t *testing.T) {
	f := StartFulcio(t)
	v1 := StartRekorV1(t, "rekor.e2e.test")
	tiles := []*RekorV2{StartRekorV2(t, V2New, "log2026.e2e.test"), StartRekorV2(t, V2Old, "log2025.e2e.test")}

	file := sha256.Sum256([]byte("a wheel"))
	job := Job{Repository: "octo/lib", Environment: "pypi"}
	sign := func() Signed {
		s, err := f.Sign(t.Context(), job, "lib-1.0.0-py3-none-any.whl", file)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := sign()
	checkCertificate(t, f, s.Certificate)

	first, err := v1.Upload(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range tiles {
		for want := range int64(2) {
			got, err := log.Upload(t.Context(), sign())
			if err != nil || got != want {
				t.Fatalf("upload %d to %s: index %d, %v", want, log.Origin, got, err)
			}
		}
		if err := answers(log.URL + "tile/entries/000.p/2"); err != nil {
			t.Error(err)
		}
		for _, hidden := range []string{".state/", ".state/treeState", "", "tile"} {
			resp, err := http.Get(log.URL + hidden)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("GET %s of %s: %s, want 404", hidden, log.Origin, resp.Status)
			}
		}
	}

	v1.Rotate(t)
	second, err := v1.Upload(t.Context(), sign())
	if err != nil {
		t.Fatal(err)
	}
	if first.LogIndex != 0 || second.LogIndex != 1 || second.Verification.Proof.LogIndex != 0 {
		t.Errorf("entries %d and %d (%d in its shard), want 0 and 1 (0 in its shard)",
			first.LogIndex, second.LogIndex, second.Verification.Proof.LogIndex)
	}
	if got := len(v1.Origins()); got != 2 {
		t.Errorf("%d shards, want 2", got)
	}
}

func checkCertificate(t *testing.T, f *Fulcio, der []byte) {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(f.Root)
	inter.AddCert(f.Intermediate)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}); err != nil {
		t.Errorf("the certificate's chain: %v", err)
	}
	values := make(map[int]string)
	arc := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1}
	for _, e := range cert.Extensions {
		if len(e.Id) == len(arc)+1 && e.Id[:len(arc)].Equal(arc) {
			values[e.Id[len(arc)]] = string(e.Value)
		}
	}
	for n := range 24 {
		if _, ok := values[n+1]; !ok && n+1 != 7 { // .7 lives in the SAN
			t.Errorf("extension .%d is missing", n+1)
		}
	}
	if values[1] != GitHubIssuer {
		t.Errorf("issuer %q, want %q", values[1], GitHubIssuer)
	}
}
