package index

import (
	"crypto/sha256"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An entry that only TestPyPI's file explains is told apart from one that PyPI's does,
// and from one that nothing does; whether the digest or the provenance explains it.
func TestPublished(t *testing.T) {
	s := openTest(t, Options{})
	ctx := t.Context()
	test, err := s.Catalogue(ctx, "testpypi", "https://test.example")
	ok(t, err)
	file := func(name string) File {
		return File{Version: "1", Name: name, SHA256: sha256.Sum256([]byte(name)), ProvenanceURL: "v"}
	}
	both, onlyTest, nowhere := file("p-1.0.tar.gz"), file("p-1.1.tar.gz"), file("p-1.2.tar.gz")
	listFiles(t, s, "p", 1, both)
	fresh, err := test.SaveListing(ctx, Listing{Project: "p", Serial: 1, Files: []File{both, onlyTest}, Fetched: storeEpoch})
	ok(t, err)
	ok(t, test.SaveProvenance(ctx, fresh[1].ID, Provenance{State: ProvenancePresent, Body: []byte("{}"), Fetched: storeEpoch, Leaves: []ProvenanceLeaf{{Hash: [32]byte{7}}}}))
	// Taken back: it was published all the same.
	_, err = test.SaveListing(ctx, Listing{Project: "p", Serial: 2, Files: []File{both}, Fetched: storeEpoch})
	ok(t, err)

	for name, x := range map[string]struct {
		digest [32]byte
		leaf   [32]byte
		want   []string
	}{
		"on both":                  {digest: statementDigest(t, both), want: []string{"p-1.0.tar.gz", "testpypi/p-1.0.tar.gz"}},
		"on TestPyPI alone":        {digest: statementDigest(t, onlyTest), want: []string{"testpypi/p-1.1.tar.gz"}},
		"by TestPyPI's provenance": {leaf: [32]byte{7}, want: []string{"testpypi/p-1.1.tar.gz"}},
		"signed, not published":    {digest: statementDigest(t, nowhere), leaf: [32]byte{8}},
		"nothing asked":            {},
	} {
		files, err := s.Published(ctx, x.digest, x.leaf)
		var got []string
		for _, f := range files {
			got = append(got, Qualified(f.Index, f.Name))
		}
		if d := cmp.Diff(x.want, got); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, d)
		}
	}
}

// statementDigest is what a v1 entry over the publish statement of a file holds.
func statementDigest(t *testing.T, f File) [32]byte {
	t.Helper()
	payload, err := Statement("P1", f.Name, f.SHA256)
	ok(t, err)
	return sha256.Sum256(payload)
}
