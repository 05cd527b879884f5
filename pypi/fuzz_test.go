package pypi

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigtrail/index"
	"sigtrail/rekor"
)

// seeds adds real records where they are at hand.
func seeds(f *testing.F, pattern string) {
	names, err := filepath.Glob(filepath.Join("..", "..", "shared", "data", pattern))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

func FuzzSimple(f *testing.F) {
	seeds(f, "pypi-api/pypi-simple_*.json")
	f.Add([]byte(onePage))
	f.Add([]byte(`{"name":"sample","files":[{"filename":"sample-1.0.tar.gz",` + digest + `,"url":"../x","yanked":"r","provenance":"/p","upload-time":"2024-11-06T22:37:10.870821Z","size":1}],"versions":["1"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := parseSimple(bytes.NewReader(body), pageAddress, "sample")
		if err != nil {
			return
		}
		if p.listing.Project != "sample" || p.listing.Serial < 0 || len(p.listing.Status) > maxStatus {
			t.Errorf("%+v", p.listing)
		}
		for _, file := range p.listing.Files {
			if !validFilename(file.Name) || file.Size < 0 || len(file.URL) > maxURL || len(file.ProvenanceURL) > maxURL || len(file.Version) > maxVersion || !isPrintable(file.Version) {
				t.Errorf("%+v", file)
			}
		}
	})
}

func FuzzJournal(f *testing.F) {
	v := "1.0"
	f.Add(rowsXML([]index.JournalRow{{Serial: 1, Name: "a", Action: "create"}, {Serial: 5, Name: "b", Version: &v, Action: "new release <&>"}}))
	f.Add([]byte(one("<array><data>" + goodRow + "</data></array>")))
	f.Add([]byte(faultXML(-32500, "HTTPTooManyRequests: Limit may reset in 9 seconds.")))
	f.Fuzz(func(t *testing.T, body []byte) {
		rows, err := parseRows(string(body), 0)
		if err != nil {
			return
		}
		// What was read says the same when it is written again.
		again, err := parseRows(string(rowsXML(rows)), 0)
		if err != nil || len(again) != len(rows) {
			t.Fatalf("%d rows, then %d, %v", len(rows), len(again), err)
		}
		last := int64(0)
		for i, r := range rows {
			if r.Serial <= last || r.Serial != again[i].Serial || r.Name != again[i].Name || r.Action != again[i].Action || len(r.Name) > maxName || len(r.Action) > maxAction {
				t.Errorf("row %d: %+v, then %+v", i, r, again[i])
			}
			last = r.Serial
		}
	})
}

func FuzzProvenance(f *testing.F) {
	seeds(f, "attestations/*.provenance")
	f.Add([]byte(oneObject))
	f.Add([]byte(snake(oneObject)))
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := ParseProvenance(body)
		if err != nil {
			return
		}
		entries := 0
		for _, b := range o.Bundles {
			for _, a := range b.Attestations {
				if len(a.Certificate) == 0 || len(a.Statement) == 0 || len(a.Signature) == 0 || a.Predicate == "" {
					t.Errorf("%+v", a)
				}
				entries += len(a.Entries)
			}
		}
		if leaves := o.Leaves(); len(leaves) != entries {
			t.Errorf("%d leaves of %d entries", len(leaves), entries)
		}
	})
}

// Whatever PyPI shows has a verdict, and none that holds of a file that nobody signed.
func FuzzVerify(f *testing.F) {
	path := filepath.Join("..", "..", "shared", "data", "trust", "prod", "trusted_root.json")
	trust, err := rekor.LoadTrust(path)
	if err != nil {
		f.Skipf("real records are not here: %v", err)
	}
	seeds(f, "attestations/*.provenance")
	f.Add([]byte(oneObject))
	f.Add([]byte(snake(oneObject)))
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := ParseProvenance(body)
		if err != nil {
			return
		}
		n := 0
		for _, b := range o.Bundles {
			n += len(b.Attestations)
		}
		verdicts := o.Verify(trust, "sample-1.0.tar.gz", [32]byte{1})
		if len(verdicts) != n {
			t.Fatalf("%d verdicts on %d attestations", len(verdicts), n)
		}
		for _, v := range verdicts {
			if v.State() != index.AttestationInvalid || v.Err == nil || v.Failed == "" {
				t.Errorf("%+v", v)
			}
		}
	})
}

func FuzzFilename(f *testing.F) {
	for _, name := range []string{"sample-1.0.tar.gz", "sample-1.0-1-py3-none-any.whl", "foo-1.0.win32-py2.5.exe", "a-2004-12-01.zip", "a-1!2.0rc1.post3.dev4+x.1.tar.gz"} {
		f.Add(name, "sample", "1.0")
	}
	f.Fuzz(func(t *testing.T, name, project, version string) {
		text, err := ParseFilename(name, project)
		if err == nil {
			if !strings.Contains(strings.ReplaceAll(name, "_", "-"), strings.ReplaceAll(text, "_", "-")) {
				t.Errorf("version %q of %q", text, name)
			}
			canonical, ok := canonicalVersion(text)
			if !ok || !SameVersion(text, canonical) {
				t.Errorf("version %q is %q", text, canonical)
			}
		}
		if SameVersion(text, version) != SameVersion(version, text) {
			t.Errorf("%q and %q", text, version)
		}
		if n := Normalize(project); Normalize(n) != n {
			t.Errorf("%q, then %q", n, Normalize(n))
		}
	})
}
