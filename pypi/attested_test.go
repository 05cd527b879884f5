package pypi

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
)

// Every real publish attestation is written as by one of the templates. One for
// which that is not so says that there is a client that the registry lacks.
func TestRealStatementsHaveTemplates(t *testing.T) {
	dir := shared(t, "attestations")
	store, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "sigtrail.db"), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	want := map[string]int64{}
	for _, row := range records(t, "attestations.tsv") {
		body, err := os.ReadFile(filepath.Join(dir, row["file"]))
		if err != nil || row["jsonform"] != "pep740" {
			continue
		}
		if !strings.HasSuffix(row["file"], ".provenance") {
			body = []byte(`{"version":1,"attestation_bundles":[{"publisher":{"kind":"x"},"attestations":[` + string(body) + `]}]}`)
		}
		o, err := ParseProvenance(body)
		if err != nil {
			t.Fatalf("%s: %v", row["file"], err)
		}
		f := index.File{Name: row["filename"], Version: "1", URL: "https://files.example/" + row["file"], ProvenanceURL: "https://pypi.example/" + row["file"]}
		if _, err := hex.Decode(f.SHA256[:], []byte(row["artifact_sha256"])); err != nil {
			t.Fatal(err)
		}
		// Each for itself: several are about the same file.
		fresh, err := store.PyPI().SaveListing(t.Context(), index.Listing{Project: row["file"], Files: []index.File{f}, Fetched: time.Now()})
		if err != nil || len(fresh) != 1 {
			t.Fatal(fresh, err)
		}
		if err := store.PyPI().SaveProvenance(t.Context(), fresh[0].ID, index.Provenance{State: index.ProvenancePresent, Body: body, Fetched: time.Now(), Leaves: o.Leaves(), Attests: o.Attests()}); err != nil {
			t.Fatal(err)
		}
		template := "P1"
		if row["payload_form"] == "predicate:{}" {
			template = "P2"
		}
		want[template]++
	}
	forms, err := store.Forms(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, c := range forms {
		if c.What != "bound" {
			got[c.Form] += c.N
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || want["P1"] < 10 || want["P2"] < 1 {
		t.Errorf("%v: %s", want, diff)
	}
}
