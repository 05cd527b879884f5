package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sigtrail/e2e/servers"
	"sigtrail/internal/lab"
	"sigtrail/rekor"
)

// The real server's search index finds entries by the names in their certificates,
// as package rekor asks for them. It fills behind the server's answers.
func TestSearchBySubject(t *testing.T) {
	fulcio := servers.StartFulcio(t)
	log := servers.StartRekorV1(t, "rekor.e2e.test")
	workflow, err := fulcio.Sign(t.Context(), expected, "lib-1.0.tar.gz", sha256.Sum256([]byte("lib")))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(workflow.Certificate)
	if err != nil || len(cert.URIs) != 1 {
		t.Fatal(cert, err)
	}
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ca.SignPublish(lab.Email{Address: "Dev@Example.org"}, "lib-1.1.tar.gz", lab.Digest("lib-1.1.tar.gz"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	person := servers.Signed{Certificate: s.Cert, Statement: s.Statement, Signature: s.Signature}

	ids := map[string][]string{}
	for san, signed := range map[string]servers.Signed{cert.URIs[0].String(): workflow, "Dev@Example.org": person} {
		for _, upload := range []func() (servers.V1Entry, error){
			func() (servers.V1Entry, error) { return log.Upload(t.Context(), signed) },
			func() (servers.V1Entry, error) { return log.UploadHash(t.Context(), signed) },
		} {
			e, err := upload()
			if err != nil {
				t.Fatal(err)
			}
			ids[san] = append(ids[san], e.UUID)
		}
		slices.Sort(ids[san])
	}

	root, err := os.ReadFile(servers.TrustedRoot(t, fulcio, log.Trusted(t)))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := rekor.ParseTrust(root)
	if err != nil {
		t.Fatal(err)
	}
	v, err := rekor.NewV1(rekor.Options{URL: log.URL, Origin: log.Host, Keys: trust.Tlogs})
	if err != nil {
		t.Fatal(err)
	}
	for san, want := range ids {
		for _, query := range []string{san, strings.ToUpper(san)} {
			var got []string
			for end := time.Now().Add(2 * time.Minute); !slices.Equal(got, want) && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if got, err = v.SearchSubject(t.Context(), query); err != nil {
					t.Fatalf("%s: %v", query, err)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", query, got, want)
			}
		}
		if got, err := v.SearchSubject(t.Context(), san[:len(san)-1]); err != nil || len(got) != 0 {
			t.Errorf("a beginning of %s: %v, %v", san, got, err)
		}
	}
}
