package index

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExport(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "a.db"), filepath.Join(dir, "out")
	s := aStore(t, path)
	evil := "=HYPERLINK(\"https://evil.example\")\n,\"x\""
	f := named(aFile("p", "1"))
	f.Yanked = &evil
	listFiles(t, s, "p", 2, f)
	ok(t, Export(t.Context(), path, to, quiet))
	tables := map[string][]map[string]string{}
	for _, x := range exports {
		in, err := os.Open(filepath.Join(to, x.name+".csv"))
		ok(t, err)
		rows, err := csv.NewReader(in).ReadAll()
		ok(t, err)
		ok(t, in.Close())
		for _, row := range rows[1:] {
			named := map[string]string{}
			for i, v := range row {
				named[rows[0][i]] = v
			}
			tables[x.name] = append(tables[x.name], named)
		}
	}
	if len(tables["files"]) != 1 || len(tables["entries"]) != 2 || len(tables["bindings"]) != 2 || len(tables["publishers"]) != 1 {
		t.Fatalf("tables: %v", tables)
	}
	file := tables["files"][0]
	if file["yanked_reason"] != "'"+evil || file["yanked"] != "1" || file["gone"] != "" || file["uploaded"] != "2026-03-01T12:00:00Z" || file["sha256"] != string(hexText(f.SHA256[:])) {
		t.Errorf("the file: %v", file)
	}
	v1 := tables["entries"][1]
	if v1["log"] != "rekor.example" || v1["global_index"] != "1000" || v1["kind"] != "dsse/0.0.1" || v1["integrated"] != "2026-03-01T12:01:00Z" || v1["publisher"] != tables["publishers"][0]["publisher"] {
		t.Errorf("the v1 entry: %v", v1)
	}
	want := map[string]string{"file": file["file"], "entry": v1["entry"], "evidence": "statement", "form": "P1/payload", "signature_verifies": "1", "signature_unverified_because": ""}
	if diff := cmp.Diff(want, tables["bindings"][1]); diff != "" {
		t.Errorf("the binding: %s", diff)
	}
	if err := Export(t.Context(), path, to, quiet); err == nil || !strings.Contains(err.Error(), "without it") {
		t.Errorf("over an older export: %v", err)
	}
}

func TestCells(t *testing.T) {
	for in, want := range map[string]string{"": "", "a=1": "a=1", "=1": "'=1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\t=1": "'\t=1", "\r": "'\r", "é": "é"} {
		if got := cell(in); got != want {
			t.Errorf("%q has become %q", in, got)
		}
	}
	if got := cell(int64(-5)); got != "-5" {
		t.Errorf("a number has become %q", got)
	}
}
