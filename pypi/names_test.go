package pypi

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	for name, want := range map[string]string{
		"friendly-bard": "friendly-bard", "Friendly-Bard": "friendly-bard", "FRIENDLY.BARD": "friendly-bard", "friendly_bard": "friendly-bard",
		"friendly--bard": "friendly-bard", "FrIeNdLy-._.-bArD": "friendly-bard", "0-._.-._.-0": "0-0", "": "", "_a_": "-a-",
	} {
		if got := Normalize(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{"a": true, "0": true, "A.b_c-d": true, "": false, "-a": false, "a.": false, "a b": false, "a/b": false, "ä": false, "a\x00b": false,
		strings.Repeat("a", maxProject): true, strings.Repeat("a", maxProject+1): false} {
		if ValidName(name) != want {
			t.Errorf("%.40q: valid %v", name, !want)
		}
	}
}

func TestSameVersion(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"1.0", "1.0.0", true}, {"1", "1.0.0", true}, {"10", "1", false}, {"1.0-rc1", "1.0rc1", true}, {"1.0RC1", "1.0c1", true}, {"v1.0", "1.0", true},
		{"1.0a", "1.0a0", true}, {"1.0a0", "1.0", false}, {"1.0-1", "1.0.post1", true}, {"1.0.dev0", "1.0.dev", true}, {"1.0.dev0", "1.0", false},
		{"1!1.0", "1.0", false}, {"0!1.0", "1.0", true}, {"1!2.0", "1!2", true}, {"1.0+a.1", "1.0+a-1", true}, {"1.0+a.01", "1.0+A_1", true}, {"1.0+a", "1.0", false},
		{"1.0+0", "1.0", false}, {"1.0+0", "1.0+00", true}, {"2004d", "2004d", true}, {"2004d", "2004D", false}, {"", "", true}, {"", "0", false}, {"0", "0.0", true},
		{"1.0.post1", "1.0.po\u017ft1", false}, {"1.0", "1.0 ", true}, {"99999999999999999999", "99999999999999999999.0", false},
	} {
		if got := SameVersion(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: same %v", c.a, c.b, got)
		}
		if got := SameVersion(c.b, c.a); got != c.want {
			t.Errorf("%q and %q: same %v", c.b, c.a, got)
		}
	}
}

func TestParseFilename(t *testing.T) {
	for _, c := range []struct{ file, project, want string }{
		{"sampleproject-4.0.0.tar.gz", "sampleproject", "4.0.0"},
		{"sampleproject-4.0.0.tar.gz", "", "4.0.0"},
		{"sampleproject-4.0.0-py3-none-any.whl", "sampleproject", "4.0.0"},
		{"sampleproject-4.0.0-py3-none-any.whl", "", "4.0.0"},
		{"llm-0.18a0-1-py3-none-any.whl", "llm", "0.18a0"},
		{"llm-0.18a0-1local-py3-none-any.whl", "llm", "0.18a0"},
		{"Foo.Bar-1.0-cp39-cp39-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "foo-bar", "1.0"},
		{"torch-2.0+cu118-cp39-cp39-win_amd64.whl", "Torch", "2.0+cu118"},
		{"pypi_attestations-0.0.19.tar.gz", "pypi-attestations", "0.0.19"},
		{"zope.interface-3.0.0b1.zip", "zope-interface", "3.0.0b1"},
		{"A--B-1.0.tar.bz2", "a-b", "1.0"},
		{"foo-2-1.0.tar.gz", "foo-2", "1.0"},
		{"foo-1.0-2.tar.gz", "foo", "1.0-2"},
		{"foo-1!2.0.tar.gz", "foo", "1!2.0"},
		{"foo-1.0-py2.7.egg", "foo", "1.0"},
		{"foo-1.0-py2.7.egg", "", "1.0"},
		{"foo-1.0-py2.7-linux-x86_64.egg", "foo", "1.0"},
		{"foo-1.0.win32-py2.5.exe", "foo", "1.0"},
		{"foo-1.0.win-amd64.msi", "foo", "1.0"},
		{"foo-1.0.linux-x86_64.tar.gz", "foo", "1.0"},
		{"foo-1.0-1.noarch.rpm", "foo", "1.0"},
		{"foo-1.0-2mdk.i586.rpm", "foo", "1.0"},
		{"foo-1.0_1-1.src.rpm", "foo", "1.0-1"},
		{"foo-1.0_1-py2.6.egg", "foo", "1.0-1"},
		{"foo_bar-1.0_rc1-py2.6-win32.egg", "foo-bar", "1.0_rc1"},
		{"Foo-1.0.ZIP", "foo", "1.0"},
		{"foo-bar-1.0.win-amd64-py3.4.exe", "foo-bar", "1.0"},
		{"foo-1.0.solaris-2.10-sun4u.tar.gz", "foo", "1.0"},
		{"foo-1!1.0.dev3-py3-none-any.whl", "foo", "1!1.0.dev3"},
		{"foo.win32utils-1.0.tar.gz", "foo-win32utils", "1.0"},
	} {
		if got, err := ParseFilename(c.file, c.project); err != nil || got != c.want {
			t.Errorf("%s of %q: %q, %v", c.file, c.project, got, err)
		}
	}
	for _, c := range []struct{ file, project string }{
		{"", ""}, {"foo", ""}, {".whl", ""}, {"foo.whl", ""}, {"foo-1.0.whl", ""}, {"foo-1.0-py3-none-any-x.whl", ""}, {"foo-1.0-x-py3-none-any.whl", ""},
		{"foo-x-py3-none-any.whl", ""}, {"a-b-c-d-e-f-g.whl", ""}, {"foo-1.0.tar.gz", "bar"}, {"foo-1.0-py3-none-any.whl", "bar"}, {"foo-1.0.txt", "foo"},
		{"foo-.tar.gz", "foo"}, {"-1.0.tar.gz", ""}, {"foo1.0.tar.gz", "foo"}, {"foo-bar.tar.gz", "foo"}, {"../foo-1.0.tar.gz", ""}, {"a\\foo-1.0.tar.gz", ""},
		{"foo-1.0\n.tar.gz", "foo"}, {"foo-1.0.tar.gz\u202e", "foo"}, {".tar.gz", ""}, {"foo-1.0_1.tar.gz", "foo"}, {strings.Repeat("f", 300) + "-1.0.tar.gz", ""}, {"foo-2-1.0.tar.gz", "foo"},
	} {
		if got, err := ParseFilename(c.file, c.project); err == nil {
			t.Errorf("%q of %q: %q", c.file, c.project, got)
		}
	}
}

// Each attested file of the real records has the version that its row names.
func TestParseFilenameReal(t *testing.T) {
	checked := 0
	for _, row := range records(t, "attestations.tsv") {
		file, version := row["filename"], row["version"]
		if file == "" || version == "" {
			continue
		}
		got, err := ParseFilename(file, row["project"])
		if err != nil || !SameVersion(got, version) {
			t.Errorf("%s: %q, %v; want %s", file, got, err, version)
		}
		checked++
	}
	for _, row := range records(t, "attestations-from-pypi-pages.tsv") {
		if _, err := ParseFilename(row["filename"], ""); err != nil {
			t.Error(err)
		}
		checked++
	}
	if checked < 30 {
		t.Errorf("only %d names checked", checked)
	}
}

// records reads a table with a line of column names.
func records(t testing.TB, name string) []map[string]string {
	t.Helper()
	s := bufio.NewScanner(bytes.NewReader(readFile(t, shared(t, name))))
	s.Buffer(nil, 1<<20)
	var head []string
	var rows []map[string]string
	for s.Scan() {
		fields := strings.Split(s.Text(), "\t")
		if head == nil {
			head = fields
			continue
		}
		row := map[string]string{}
		for i, f := range fields[:min(len(fields), len(head))] {
			row[head[i]] = f
		}
		rows = append(rows, row)
	}
	return rows
}
