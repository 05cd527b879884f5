package pypi

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
)

var pageAddress = &url.URL{Scheme: "https", Host: "index.test", Path: "/simple/sample/"}

func parsePage(t *testing.T, text string) page {
	t.Helper()
	p, err := parseSimple(strings.NewReader(text), pageAddress, "sample")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const digest = `"hashes":{"sha256":"0ace7980f82c5815ede4cd7bf9f6693684cec2ae47b9b7ade9add533b8627c6b"}`

func TestParseSimple(t *testing.T) {
	sum, _ := parseDigest("0ace7980f82c5815ede4cd7bf9f6693684cec2ae47b9b7ade9add533b8627c6b")
	p := parsePage(t, `{"meta":{"api-version":"1.4","_last-serial":42},"name":"Sample","project-status":{"status":"archived"},"files":[
		{"filename":"sample-1.0.0.tar.gz","url":"https://files.test/sample-1.0.0.tar.gz",`+digest+`,"size":123,"upload-time":"2024-11-06T22:37:10.870821Z","yanked":false,
		 "provenance":"https://index.test/integrity/sample/1.0.0/sample-1.0.0.tar.gz/provenance","core-metadata":{"sha256":"x"},"requires-python":null},
		{"filename":"sample-1.0-py3-none-any.whl","url":"../../files/sample.whl",`+digest+`,"yanked":"broken\nbuild","provenance":null},
		{"filename":"sample-0.9.zip","url":"",`+digest+`,"size":-1,"upload-time":"yesterday","yanked":true},
		{"filename":"sample-2004-12-01.tar.gz",`+digest+`,"yanked":""},
		{"filename":"sample-latest.tar.gz",`+digest+`,"size":1e99},
		{"filename":"elsewhere.tar.gz",`+digest+`}
	],"versions":["1.0","0.9","2004-12-01"],"alternate-locations":[]}`)
	yes, broken := "", "broken build"
	want := index.Listing{Project: "sample", Serial: 42, Status: "archived", Files: []index.File{
		{Project: "sample", Version: "1.0", Name: "sample-1.0.0.tar.gz", SHA256: sum, Size: 123, URL: "https://files.test/sample-1.0.0.tar.gz",
			Uploaded:      time.Date(2024, 11, 6, 22, 37, 10, 870821000, time.UTC),
			ProvenanceURL: "https://index.test/integrity/sample/1.0.0/sample-1.0.0.tar.gz/provenance"},
		{Project: "sample", Version: "1.0", Name: "sample-1.0-py3-none-any.whl", SHA256: sum, URL: "https://index.test/files/sample.whl", Yanked: &broken},
		{Project: "sample", Version: "0.9", Name: "sample-0.9.zip", SHA256: sum, Yanked: &yes},
		{Project: "sample", Version: "2004-12-01", Name: "sample-2004-12-01.tar.gz", SHA256: sum},
		{Project: "sample", Version: "latest", Name: "sample-latest.tar.gz", SHA256: sum},
		{Project: "sample", Version: "", Name: "elsewhere.tar.gz", SHA256: sum},
	}}
	if d := cmp.Diff(want, p.listing); d != "" {
		t.Error(d)
	}
	if len(p.skipped) != 0 {
		t.Errorf("skipped %v", p.skipped)
	}
}

// One odd file must not hide the others.
func TestSkippedFiles(t *testing.T) {
	hex := "0ace7980f82c5815ede4cd7bf9f6693684cec2ae47b9b7ade9add533b8627c6b"
	file := func(name, sha256 string) string {
		return `{"filename":"` + name + `","hashes":{"sha256":"` + sha256 + `"}}`
	}
	files := []string{
		file("sample-1.0.tar.gz", hex),
		file("sample-1.1.tar.gz", strings.ToUpper(hex)), file("sample-1.1.tar.gz", hex[:63]), file("sample-1.1.tar.gz", hex+"0"), file("sample-1.1.tar.gz", hex[:63]+"g"),
		file("sample-1.1.tar.gz", ""), `{"filename":"sample-1.1.tar.gz"}`, `{"filename":"sample-1.1.tar.gz","hashes":{"md5":"x"}}`,
		file("", hex), file("../../etc/passwd", hex), file(`a\\b.tar.gz`, hex), file(`\u0000.whl`, hex), file(`\u202ezg.rat`, hex), file(`\ud800.whl`, hex), file(".hidden.tar.gz", hex),
		file(strings.Repeat("a", 256), hex),
		`7`, `{"filename":7}`, `[]`, `{"filename":"sample-1.1.tar.gz","hashes":"` + hex + `"}`, `{"filename":"sample-1.1.tar.gz","provenance":{}}`,
	}
	p := parsePage(t, `{"name":"sample","files":[`+strings.Join(files, ",")+`]}`)
	if len(p.listing.Files) != 1 || p.listing.Files[0].Name != "sample-1.0.tar.gz" {
		t.Errorf("files %+v", p.listing.Files)
	}
	if d := cmp.Diff(map[string]int{skipDigest: 7, skipName: 8, skipMalformed: 5}, p.skipped); d != "" {
		t.Error(d)
	}
}

func TestPagesThatAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":           ``,
		"garbage":         `<html>`,
		"array":           `[]`,
		"no members":      `{}`,
		"no files":        `{"name":"sample"}`,
		"no name":         `{"files":[]}`,
		"files null":      `{"name":"sample","files":null}`,
		"files an object": `{"name":"sample","files":{}}`,
		"other project":   `{"name":"other","files":[]}`,
		"other API":       `{"name":"sample","files":[],"meta":{"api-version":"2.0"}}`,
		"files twice":     `{"name":"sample","files":[],"files":[]}`,
		"torn":            `{"name":"sample","files":[`,
		"more behind":     `{"name":"sample","files":[]}{}`,
		"project list":    `{"meta":{"api-version":"1.4"},"projects":[{"name":"sample"}]}`,
		"error page":      `{"message":"Not Found"}`,
		"versions odd":    `{"name":"sample","files":[],"versions":[1]}`,
		"status odd":      `{"name":"sample","files":[],"project-status":"active"}`,
		"deep":            `{"name":"sample","files":[],"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
	} {
		if p, err := parseSimple(strings.NewReader(text), pageAddress, "sample"); err == nil {
			t.Errorf("%s: taken as %+v", name, p.listing)
		}
	}
	many := `{"name":"sample","versions":["1"` + strings.Repeat(`,"1"`, maxVersions) + `],"files":[]}`
	if _, err := parseSimple(strings.NewReader(many), pageAddress, "sample"); err == nil {
		t.Error("too many versions were taken")
	}
}

func TestHostileTextIsBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	p := parsePage(t, `{"name":"sample","project-status":{"status":"`+long+`"},"versions":["`+long+`"],"files":[
		{"filename":"sample-1.tar.gz",`+digest+`,"url":"`+long+`","provenance":"http://`+long+`","yanked":"`+long+`","upload-time":"9999-01-01T00:00:00Z"}]}`)
	f := p.listing.Files[0]
	if len(f.URL) != maxURL || len(f.ProvenanceURL) != maxURL || len(*f.Yanked) != maxReason || len(p.listing.Status) != maxStatus || !f.Uploaded.IsZero() {
		t.Errorf("lengths %d, %d, %d, %d; time %v", len(f.URL), len(f.ProvenanceURL), len(*f.Yanked), len(p.listing.Status), f.Uploaded)
	}
}

func TestQuarantined(t *testing.T) {
	p := parsePage(t, `{"meta":{"_last-serial":9},"name":"sample","project-status":{"status":"quarantined"},"versions":[],"files":[]}`)
	if p.listing.Status != "quarantined" || p.listing.Serial != 9 || len(p.listing.Files) != 0 {
		t.Errorf("%+v", p.listing)
	}
}

func TestLowerSerial(t *testing.T) {
	for _, c := range []struct {
		body   int64
		header string
		want   int64
	}{{0, "", 0}, {5, "", 5}, {0, "7", 7}, {5, "7", 5}, {7, "5", 5}, {5, "x", 5}, {5, "-1", 5}, {0, "0", 0}} {
		if got := lowerSerial(c.body, c.header); got != c.want {
			t.Errorf("%d and %q: %d", c.body, c.header, got)
		}
	}
}

func TestParseSimpleReal(t *testing.T) {
	dir := shared(t, "pypi-api")
	for name, want := range map[string]struct {
		project, status string
		serial          int64
		versions        []string
		yanked          bool
	}{
		"pypi-simple_argset-700.json": {"argset", "", 10562871, []string{"0.1.0", "0.1.0"}, false},
		"pypi-simple_argset-708.json": {"argset", "deprecated", 10562871, []string{"0.1.0", "0.1.0"}, false},
		"pypi-simple_yanked.json":     {"yanked", "", 0, []string{"0.0.0", "0.0.0"}, true},
	} {
		text := string(readFile(t, filepath.Join(dir, name)))
		p, err := parseSimple(strings.NewReader(text), pageAddress, want.project)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var versions []string
		for _, f := range p.listing.Files {
			versions = append(versions, f.Version)
			if (f.Yanked != nil) != want.yanked || f.Size == 0 && want.project == "argset" || f.Uploaded.IsZero() && want.project == "argset" {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if d := cmp.Diff(want.versions, versions); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if want.serial != 0 && p.listing.Serial != want.serial || p.listing.Status != want.status {
			t.Errorf("%s: serial %d, status %q", name, p.listing.Serial, p.listing.Status)
		}
	}
}
