package index

import (
	"crypto/x509"
	"encoding/asn1"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"

	"sigtrail/internal/lab"
)

// realCertificates are those of the real leaves.
func realCertificates(t testing.TB) map[string][]byte {
	t.Helper()
	certs := make(map[string][]byte)
	for name, leaf := range realLeaves(t) {
		if e, err := Decode(leaf); err == nil && e.Cert != nil {
			certs[name] = e.Cert
		}
	}
	return certs
}

// The walk over the DER says what crypto/x509 and sigstore-go say.
func TestSignerAgreesWithOthers(t *testing.T) {
	n := 0
	for name, der := range realCertificates(t) {
		s, err := ParseSigner(der)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if !cert.NotBefore.Equal(s.NotBefore) || !cert.NotAfter.Equal(s.NotAfter) {
			t.Errorf("%s: valid %s to %s, x509 says %s to %s", name, s.NotBefore, s.NotAfter, cert.NotBefore, cert.NotAfter)
		}
		if want, err := certificate.SummarizeCertificate(cert); err == nil {
			n++
			got := []string{s.SAN, s.Issuer(), s.Get(ExtBuildSignerURI), s.Get(ExtRunnerEnvironment), s.Get(ExtSourceRepositoryURI), s.Get(ExtSourceRepositoryID),
				s.Get(ExtSourceRepositoryOwnerID), s.Get(ExtBuildConfigURI), s.Get(ExtBuildTrigger), s.Get(ExtRunInvocationURI), s.Get(ExtGitHubRepository)}
			theirs := []string{want.SubjectAlternativeName, want.Issuer, want.BuildSignerURI, want.RunnerEnvironment, want.SourceRepositoryURI, want.SourceRepositoryIdentifier,
				want.SourceRepositoryOwnerIdentifier, want.BuildConfigURI, want.BuildTrigger, want.RunInvocationURI, want.GithubWorkflowRepository}
			if d := cmp.Diff(theirs, got); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d certificates compared, want 20 or more", n)
	}
}

func TestWorkflow(t *testing.T) {
	const repo = "https://github.com/o/r"
	for uri, want := range map[string]string{
		repo + "/.github/workflows/release.yml@refs/tags/v1":                      ".github/workflows/release.yml",
		repo + "/.github/workflows/release.yaml@refs/heads/a@b/c.yml@x":           ".github/workflows/release.yaml",
		"https://github.com/O/R/.github/workflows/release.yml@refs/heads/main":    ".github/workflows/release.yml",
		"https://github.com/other/lib/.github/workflows/build.yml@refs/tags/v2":   "https://github.com/other/lib/.github/workflows/build.yml",
		repo + "/.github/workflows/release.yml":                                   "",
		"https://github.com/o/r2/.github/workflows/release.yml@refs/heads/master": "https://github.com/o/r2/.github/workflows/release.yml",
	} {
		if got := workflow(uri, repo); got != want {
			t.Errorf("workflow of %s: %q, want %q", uri, got, want)
		}
	}
	if got := workflow("https://gitlab.com/g/s/p//.gitlab-ci.yml@refs/heads/main", "https://gitlab.com/g/s/p"); got != ".gitlab-ci.yml" {
		t.Errorf("GitLab workflow: %q", got)
	}
}

func TestPublisherSame(t *testing.T) {
	p := Publisher{Issuer: "i", Repository: "https://github.com/o/r", RepositoryID: "1", OwnerID: "2", Workflow: "w.yml", Environment: "pypi"}
	change := func(f func(*Publisher)) Publisher { q := p; f(&q); return q }
	for name, c := range map[string]struct {
		other Publisher
		same  bool
	}{
		"itself":             {p, true},
		"renamed, same ids":  {change(func(q *Publisher) { q.Repository = "https://github.com/o/new" }), true},
		"recreated":          {change(func(q *Publisher) { q.RepositoryID = "9" }), false},
		"other owner":        {change(func(q *Publisher) { q.OwnerID = "9" }), false},
		"no ids, other case": {change(func(q *Publisher) { q.RepositoryID, q.Repository = "", "https://github.com/O/R" }), true},
		"no ids, other name": {change(func(q *Publisher) { q.RepositoryID, q.Repository = "", "https://github.com/o/x" }), false},
		"other workflow":     {change(func(q *Publisher) { q.Workflow = "x.yml" }), false},
		"other issuer":       {change(func(q *Publisher) { q.Issuer = "j" }), false},
		"other environment":  {change(func(q *Publisher) { q.Environment = "" }), true},
	} {
		if got := p.Same(c.other); got != c.same {
			t.Errorf("%s: same %t, want %t", name, got, c.same)
		}
		if (p.Key() == c.other.Key()) != (p == c.other) {
			t.Errorf("%s: keys %q and %q", name, p.Key(), c.other.Key())
		}
	}
}

// The walk never accepts what crypto/x509 reads otherwise.
func FuzzSigner(f *testing.F) {
	f.Add([]byte{0x30, 0})
	for _, der := range seedCertificates(f) {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		s, err := ParseSigner(der)
		cert, err509 := x509.ParseCertificate(der)
		if err != nil || err509 != nil {
			return
		}
		if !cert.NotBefore.Equal(s.NotBefore) || !cert.NotAfter.Equal(s.NotAfter) {
			t.Fatalf("valid %s to %s, x509 says %s to %s", s.NotBefore, s.NotAfter, cert.NotBefore, cert.NotAfter)
		}
		if s.SANType == "email" && (len(cert.EmailAddresses) == 0 || cert.EmailAddresses[0] != s.SAN) {
			t.Fatalf("e-mail %q, x509 says %q", s.SAN, cert.EmailAddresses)
		}
		if s.SANType == "uri" {
			if u, err := url.Parse(s.SAN); err != nil || len(cert.URIs) == 0 || cert.URIs[0].String() != u.String() {
				t.Fatalf("URI %q, x509 says %v", s.SAN, cert.URIs)
			}
		}
		for _, e := range cert.Extensions {
			if len(e.Id) == 9 && e.Id[:8].Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1}) && e.Id[8] == ExtIssuer {
				var text string
				if rest, err := asn1.Unmarshal(e.Value, &text); err != nil || len(rest) > 0 || text != s.Get(ExtIssuer) {
					t.Fatalf("issuer %q, asn1 says %q %v", s.Get(ExtIssuer), text, err)
				}
			}
		}
	})
}

// seedCertificates are what Fulcio issues to a workflow and to a person.
func seedCertificates(f *testing.F) [][]byte {
	f.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		f.Fatal(err)
	}
	var out [][]byte
	for _, id := range []lab.Identity{lab.GitHub{Owner: "o", Repo: "r"}, lab.Email{Address: "me@example.org"}} {
		s, err := ca.SignPublish(id, "f-1.0.tar.gz", [32]byte{}, time.Unix(1730932627, 0))
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, s.Cert)
	}
	return out
}
