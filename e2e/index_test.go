package e2e

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"sigtrail/e2e/servers"
	"sigtrail/internal/lab"
)

// An index is the lab's PyPI at an address.
type index struct {
	*lab.PyPI
	URL string
}

func startIndex(t *testing.T) *index {
	t.Helper()
	p := lab.NewPyPI(time.Now)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.SetBase(s.URL)
	return &index{PyPI: p, URL: s.URL}
}

// publish shows a wheel with the provenance that PyPI makes of its attestation
// and its entry in the v1 log.
func (x *index) publish(t *testing.T, w wheel) {
	t.Helper()
	attestation, err := servers.Attestation(w.signed, w.entry)
	if err != nil {
		t.Fatal(err)
	}
	type m = map[string]any
	provenance, err := json.Marshal(m{"version": 1, "attestation_bundles": []m{{
		"publisher":    m{"kind": "GitHub", "repository": expected.Repository, "workflow": "release.yml", "environment": expected.Environment},
		"attestations": []json.RawMessage{attestation},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	x.Upload(lab.Upload{Project: w.project, Version: w.version, Filename: w.name, SHA256: w.sha256(), Size: int64(len(w.content)), Provenance: provenance})
}
