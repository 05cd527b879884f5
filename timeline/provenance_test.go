package timeline

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sigtrail/index"
)

// Beside the provenance stands what became of it, and no byte of what PyPI shows
// reaches the terminal as it is.
func TestProvenanceVerdict(t *testing.T) {
	s, err := index.Open(t.Context(), t.TempDir()+"/sigtrail.db", index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	fresh, err := s.PyPI().SaveListing(t.Context(), index.Listing{Project: "p", Serial: 1, Fetched: now,
		Files: []index.File{{Project: "p", Version: "1", Name: "p-1.tar.gz", ProvenanceURL: "https://pypi.example/p"}}})
	if err != nil {
		t.Fatal(err)
	}
	id := fresh[0].ID
	if err := s.PyPI().SaveProvenance(t.Context(), id, index.Provenance{State: index.ProvenancePresent, Body: []byte("{}"), Fetched: now, Leaves: []index.ProvenanceLeaf{{Global: 7}}}); err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		t.Helper()
		var out bytes.Buffer
		if _, err := Write(t.Context(), &out, s, "p", Options{}); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(out.String()), " ")
	}
	if got := shown(); !strings.Contains(got, "provenance: not verified yet") {
		t.Errorf("before it is verified: %s", got)
	}
	if err := s.SaveVerification(t.Context(), id, index.Verification{Root: "abc", At: now, Verdicts: []index.AttestationVerdict{
		{State: index.AttestationHolds, Root: "abc", At: now},
		{Attestation: 1, State: index.AttestationInvalid, Failed: "set", Error: "evil \x1b[31m\u202e", Root: "abc", At: now},
		{Attestation: 2, State: index.AttestationUnknown, Failed: "publisher-kind", Error: "Forge", Root: "abc", At: now},
	}}); err != nil {
		t.Fatal(err)
	}
	got := shown()
	for _, want := range []string{
		"provenance: 1 attestation holds, 1 invalid, 1 unknown, 1 entry at a place not read yet",
		`attestation 2 of bundle 1 is invalid: set (evil \x1b[31m\u202e; trusted root abc)`,
		"attestation 3 of bundle 1 is unknown: publisher-kind",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q: %s", want, got)
		}
	}
}
