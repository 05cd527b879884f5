package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
	"sigtrail/internal/lab"
)

// withAttestation adds the attestations of one provenance object to another.
func withAttestation(t *testing.T, object, more []byte) []byte {
	t.Helper()
	type bundle struct {
		Publisher    json.RawMessage   `json:"publisher"`
		Attestations []json.RawMessage `json:"attestations"`
	}
	var a, b struct {
		Version int      `json:"version"`
		Bundles []bundle `json:"attestation_bundles"`
	}
	if err := json.Unmarshal(object, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(more, &b); err != nil {
		t.Fatal(err)
	}
	a.Bundles[0].Attestations = append(a.Bundles[0].Attestations, b.Bundles[0].Attestations...)
	return must(json.Marshal(a))
}

// Attestations of other kinds are tied to the file by their subject: one that is in
// the provenance, and one that only the search index names for the file.
func TestSubjects(t *testing.T) {
	for _, v1 := range []string{"follow: lookup", "follow: tail, start: 0"} {
		t.Run(v1, func(t *testing.T) {
			w := newWorld(t, v1)
			name := "sampleproject-1.0.tar.gz"
			published, e := w.sign(name, sampleRepo)
			built := must(w.lab.CA.SignBuild(sampleRepo, name, published.SHA256, time.Now()))
			inProvenance := must(w.lab.V1.Log(built))
			alone := must(w.lab.V1.Log(must(w.lab.CA.SignBuild(sampleRepo, name, published.SHA256, time.Now()))))
			w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "1.0", Filename: name, SHA256: published.SHA256,
				Provenance: withAttestation(t, lab.Provenance(sampleRepo.Publisher(), published, e), lab.Provenance(sampleRepo.Publisher(), built, inProvenance))})
			w.once(exitFine)

			store := w.store()
			files := must(store.Files(t.Context(), index.Selection{Filename: name}))
			got := map[uint64][]index.Evidence{}
			for _, bindings := range must(store.Signatures(t.Context(), files[0].ID)) {
				for _, b := range bindings {
					got[b.Entry.Leaf.Index] = append(got[b.Entry.Leaf.Index], b.Evidence)
				}
			}
			want := map[uint64][]index.Evidence{
				e.Index:            {index.ByStatement, index.ByProvenance},
				inProvenance.Index: {index.ByProvenance, index.BySubject},
			}
			if v1 == "follow: lookup" { // a log that is read whole is not asked
				want[alone.Index] = []index.Evidence{index.BySubject}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			var status bytes.Buffer
			if code := Main(t.Context(), []string{"status", "--config", w.config}, &status, t.Output()); code != exitFine {
				t.Errorf("status: exit code %d", code)
			}
			for _, line := range []string{"entries by what was signed: P1/payload 1, P1/pae 0,", "statements in provenance by template: P1 1\n", "leaves are kept for files that may appear\n"} {
				if !strings.Contains(status.String(), line) {
					t.Errorf("status lacks %q:\n%s", line, status.String())
				}
			}
		})
	}
}
