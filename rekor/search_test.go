package rekor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"sigtrail/internal/lab"
)

// labOverHTTP is the lab's v1 log behind its faults, and a reader of it.
func labOverHTTP(t *testing.T) (*lab.V1, *lab.Faults, *V1) {
	t.Helper()
	log, err := lab.NewV1(lab.V1Host, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	faults := new(lab.Faults)
	server := httptest.NewServer(faults.Wrap(log))
	t.Cleanup(server.Close)
	trust, err := ParseTrust(lab.TrustedRoot(newLabCA(t), log.Trusted()))
	if err != nil {
		t.Fatal(err)
	}
	return log, faults, newTestV1(t, server.URL, lab.V1Host, trust.Tlogs())
}

func TestV1SearchSubject(t *testing.T) {
	log, _, v := labOverHTTP(t)
	ca, at := newLabCA(t), time.Now()
	id := map[string]string{} // of entries, by a name for them
	sign := func(name string, who lab.Identity) {
		t.Helper()
		s, err := ca.SignPublish(who, name, lab.Digest(name), at)
		if err != nil {
			t.Fatal(err)
		}
		e, err := log.Log(s)
		if err != nil {
			t.Fatal(err)
		}
		id[name] = e.ID
	}
	workflow := lab.GitHub{Owner: "Sampleproject", Repo: "sampleproject"}
	sign("one", workflow)
	sign("two", workflow)
	sign("other tag", lab.GitHub{Owner: "Sampleproject", Repo: "sampleproject", Ref: "refs/tags/v1.0.0.1"})
	sign("person", lab.Email{Address: "Dev@Example.org"})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(workflow, &key.PublicKey, at)
	if err != nil {
		t.Fatal(err)
	}
	e, err := log.LogFile(sha256.Sum256([]byte("file")), []byte("signature"), cert)
	if err != nil {
		t.Fatal(err)
	}
	id["file"] = e.ID

	const san = "https://github.com/Sampleproject/sampleproject/.github/workflows/release.yml@refs/tags/v1.0.0"
	for query, want := range map[string][]string{
		san:                             {"one", "two", "file"},
		strings.ToUpper(san):            {"one", "two", "file"},
		san + ".1":                      {"other tag"},
		san[:len(san)-1]:                nil,
		"dev@example.org":               {"person"},
		"DEV@example.org":               {"person"},
		"example.org":                   nil,
		"nobody@example.org":            nil,
		"Dev <dev@example.org>":         nil, // an address, but no such SAN
		"spiffe://example.org/\"q\"\\é": nil,
		strings.Repeat("é", maxSubject): nil, // characters, not bytes
	} {
		got, err := v.SearchSubject(t.Context(), query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
		}
		var ids []string
		for _, w := range want {
			ids = append(ids, id[w])
		}
		slices.Sort(ids)
		if !slices.Equal(got, ids) {
			t.Errorf("%s: %v, want %v", query, got, ids)
		}
	}
}

func TestV1SearchSubjectRefusals(t *testing.T) {
	_, faults, v := labOverHTTP(t)
	for _, san := range []string{"", strings.Repeat("a", maxSubject+1), "a\xff@example.org"} {
		if _, err := v.SearchSubject(t.Context(), san); !errors.Is(err, ErrSubject) {
			t.Errorf("%.20q: %v, want ErrSubject", san, err)
		}
	}
	if n := faults.Requests(); n != 0 {
		t.Errorf("%d requests for names that cannot be asked for", n)
	}
	faults.Status("/api/v1/index/retrieve", 1, http.StatusNotImplemented, "")
	if _, err := v.SearchSubject(t.Context(), "dev@example.org"); !errors.Is(err, ErrNoIndex) {
		t.Errorf("no index: %v", err)
	}
	faults.Clear()
	faults.Bomb("/api/v1/index/retrieve", -1, maxIDs+1)
	if _, err := v.SearchSubject(t.Context(), "dev@example.org"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an answer beyond the bound: %v", err)
	}
}

// As many ids as are promised do fit.
func TestV1SearchSubjectMany(t *testing.T) {
	log, _, v := labOverHTTP(t)
	const n = 49_000
	for i := range n {
		log.Index(fmt.Sprintf("%016x%064x", 1, i), "dev@example.org")
	}
	if ids, err := v.SearchSubject(t.Context(), "dev@example.org"); err != nil || len(ids) != n {
		t.Errorf("%d ids of %d: %v", len(ids), n, err)
	}
}
