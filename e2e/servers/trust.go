package servers

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A TrustedLog is a log as a trusted root names it.
type TrustedLog struct {
	Host    string // of baseUrl; a v2 log's origin
	SPKI    []byte // DER
	Details string // Sigstore's name of the key's algorithm
	KeyID   [32]byte
	From    time.Time
}

// TrustedRoot writes a trusted_root.json that names an authority and logs, and
// returns its path.
func TrustedRoot(t testing.TB, f *Fulcio, logs ...TrustedLog) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trusted_root.json")
	WriteTrustedRoot(t, path, f, logs...)
	return path
}

// WriteTrustedRoot puts a trusted root in the place of another. There are neither
// certificate logs nor timestamp authorities in it.
func WriteTrustedRoot(t testing.TB, path string, f *Fulcio, logs ...TrustedLog) {
	t.Helper()
	since := func(at time.Time) map[string]string { return map[string]string{"start": at.UTC().Format(time.RFC3339)} }
	var tlogs []map[string]any
	for _, l := range logs {
		tlogs = append(tlogs, map[string]any{
			"baseUrl": "https://" + l.Host, "hashAlgorithm": "SHA2_256",
			"publicKey": map[string]any{"rawBytes": l.SPKI, "keyDetails": l.Details, "validFor": since(l.From)},
			"logId":     map[string]any{"keyId": l.KeyID[:]},
		})
	}
	certificate := func(der []byte) map[string]any { return map[string]any{"rawBytes": der} }
	body, err := json.MarshalIndent(map[string]any{
		"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"tlogs":     tlogs,
		"certificateAuthorities": []map[string]any{{
			"subject":   map[string]string{"organization": "e2e.test", "commonName": "e2e"},
			"uri":       "https://fulcio.e2e.test",
			"certChain": map[string]any{"certificates": []any{certificate(f.Intermediate.Raw), certificate(f.Root.Raw)}},
			"validFor":  since(f.Root.NotBefore),
		}},
	}, "", "  ")
	if err != nil {
		t.Fatalf("encoding the trusted root: %v", err)
	}
	// Moved into place, since somebody may be reading it.
	next := path + ".next"
	if err := os.WriteFile(next, body, 0o644); err != nil {
		t.Fatalf("writing the trusted root: %v", err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatalf("moving the trusted root into place: %v", err)
	}
}
