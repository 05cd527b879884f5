package servers

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
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

	for _, log := range tiles {
		checkLife(t, log, sign)
	}

	v1.Crash(t)
	v1.Restart(t)
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

// checkLife has a log with two entries survive a crash and a stop, freezes it, and
// has it grow again.
func checkLife(t *testing.T, log *RekorV2, sign func() Signed) {
	t.Helper()
	log.Crash(t)
	log.Restart(t)
	if got, err := log.Upload(t.Context(), sign()); err != nil || got != 2 {
		t.Fatalf("upload to %s after a restart: index %d, %v; want 2", log.Origin, got, err)
	}
	log.Freeze(t)
	if _, err := log.Upload(t.Context(), sign()); err == nil || !strings.Contains(err.Error(), "405") {
		t.Errorf("upload to the frozen %s: %v, want status 405", log.Origin, err)
	}
	if head := readHead(t, log); !strings.HasPrefix(head, log.Origin+"\n3\n") || !strings.Contains(head, "\nLog frozen \u2014 ") {
		t.Errorf("the head of the frozen %s:\n%s", log.Origin, head)
	}
	log.Unfreeze(t)
	if got, err := log.Upload(t.Context(), sign()); err != nil || got != 3 {
		t.Errorf("upload to %s, no longer frozen: index %d, %v; want 3", log.Origin, got, err)
	}
	if head := readHead(t, log); !strings.HasPrefix(head, log.Origin+"\n4\n") {
		t.Errorf("the head of %s after it has grown again:\n%s", log.Origin, head)
	}
}

// readHead returns a log's head as it serves it, once its signature has verified.
func readHead(t *testing.T, log *RekorV2) string {
	t.Helper()
	resp, err := http.Get(log.URL + "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewEd25519VerifierKey(log.Origin, log.key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(head, note.VerifierList(verifier)); err != nil {
		t.Fatalf("the head of %s: %v\n%s", log.Origin, err, head)
	}
	return string(head)
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
