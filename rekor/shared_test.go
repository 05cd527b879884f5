package rekor

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"sigtrail/monitor"
)

// shared names a file of the real data kept beside the project.
func shared(t testing.TB, path ...string) string {
	t.Helper()
	p := filepath.Join(append([]string{"..", "..", "shared", "data"}, path...)...)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("the real data is not here: %v", err)
	}
	return p
}

func sharedBytes(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(shared(t, path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sharedJSON(t testing.TB, into any, path ...string) {
	t.Helper()
	if err := json.Unmarshal(sharedBytes(t, path...), into); err != nil {
		t.Fatalf("%v: %v", path, err)
	}
}

// sharedTSV reads a table with a header line, one map a row.
func sharedTSV(t testing.TB, path ...string) []map[string]string {
	t.Helper()
	f, err := os.Open(shared(t, path...))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(bufio.NewReader(f))
	r.Comma, r.LazyQuotes = '\t', true
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, row := range rows[1:] {
		m := map[string]string{}
		for i, name := range rows[0] {
			m[name] = row[i]
		}
		out = append(out, m)
	}
	return out
}

// sharedTrust is the trusted root of "prod" or "staging".
func sharedTrust(t testing.TB, env string) *Trust {
	t.Helper()
	tr, err := LoadTrust(shared(t, "trust", env, "trusted_root.json"))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func hashOf(t testing.TB, hex string) monitor.Hash {
	t.Helper()
	h, err := readHashes([]string{hex})
	if err != nil {
		t.Fatal(err)
	}
	return h[0]
}
