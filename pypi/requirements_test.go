package pypi

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// writeFiles makes files in a folder of their own.
func writeFiles(t testing.TB, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var (
	hashA = "sha256:" + strings.Repeat("a1", 32)
	hashB = "sha256:" + strings.Repeat("b2", 32)
)

// short writes requirements as FILE:LINE NAME==VERSION HASHES, and what was omitted as
// LINE and the first word of why.
func short(t testing.TB, r *Requirements, dir string) (list, omitted []string) {
	t.Helper()
	for _, q := range r.List {
		name, err := filepath.Rel(dir, q.File)
		if err != nil {
			t.Fatal(err)
		}
		s := name + ":" + strconv.Itoa(q.Line) + " " + q.Project
		if q.Version != "" {
			s += "==" + q.Version
		}
		for _, h := range q.Hashes {
			s += " " + h[:len("sha256:a1")]
		}
		list = append(list, s)
	}
	for _, o := range r.Omitted {
		first, _, _ := strings.Cut(o.Why, " ")
		omitted = append(omitted, strconv.Itoa(o.Line)+" "+first)
	}
	return list, omitted
}

func TestRequirementsOfPip(t *testing.T) {
	for name, c := range map[string]struct {
		files         map[string]string
		list, omitted []string
	}{
		"names": {map[string]string{"r.txt": "Flask\n\n  zope.interface >= 5, <7\nA_b.C == 1.0-RC1\nd===2004d\ne==1.*\nf (~=1.2)\ng!=1\nh==1,<2\n"},
			[]string{"r.txt:1 flask", "r.txt:3 zope-interface", "r.txt:4 a-b-c==1.0-RC1", "r.txt:5 d==2004d", "r.txt:6 e", "r.txt:7 f", "r.txt:8 g", "r.txt:9 h"}, nil},
		"extras, markers, comments": {map[string]string{"r.txt": "# all of it\nrequests[socks, use_chardet]==2.32.3 ; python_version < \"3.13\" and os_name == 'nt'  # why\nx[]\n\t# y\n"},
			[]string{"r.txt:2 requests==2.32.3", "r.txt:3 x"}, nil},
		"hashes": {map[string]string{"r.txt": "a==1 \\\n    --hash=" + hashA + " \\\n    --hash " + hashB + "\nb==2 --hash=" + strings.ToUpper(hashA) + "\nc"},
			[]string{"r.txt:1 a==1 sha256:a1 sha256:b2", "r.txt:4 b==2 sha256:a1", "r.txt:5 c"}, nil},
		"continued": {map[string]string{"r.txt": "a\\\n==1\nb \\\n# a comment ends it\nc \\"},
			[]string{"r.txt:1 a==1", "r.txt:3 b", "r.txt:5 c"}, nil},
		"line ends": {map[string]string{"r.txt": "\xef\xbb\xbfa\r\nb\rc\n# d\u2028e\n# f\x0bg"},
			[]string{"r.txt:1 a", "r.txt:2 b", "r.txt:3 c", "r.txt:5 e", "r.txt:7 g"}, nil},
		"UTF-16": {map[string]string{"r.txt": inUTF16(binary.LittleEndian, "\ufeffa==1\r\n# \u00e4\r\nb\r\n")},
			[]string{"r.txt:1 a==1", "r.txt:3 b"}, nil},
		"UTF-16, the other way": {map[string]string{"r.txt": inUTF16(binary.BigEndian, "\ufeffa\n")}, []string{"r.txt:1 a"}, nil},
		"from elsewhere": {map[string]string{"r.txt": "a @ https://user:secret@example.org/a.whl#sha256=00\n./here\n../b-1.0.tar.gz\nc-1.0-py3-none-any.whl\ngit+https://example.org/d.git@v1#egg=d\n" +
			"file:///e\n-e .\n--editable=git+ssh://example.org/f\nhttps://example.org/g.zip\nh[x]@ git+https://example.org/h\nC:\\i\n./j[test]\n"},
			nil, []string{"1 comes", "2 is", "3 is", "4 is", "5 comes", "6 comes", "7 editable:", "8 editable:", "9 comes", "10 comes", "11 is", "12 is"}},
		"options": {map[string]string{"r.txt": "--index-url https://user:secret@example.org/simple\n-f ./wheels --pre\n--no-binary :all:\n-ihttps://example.org\n--colour red\n--require-hashes\na --global-option=\"--x y\"\n"},
			[]string{"r.txt:7 a"}, []string{"1 names", "2 names", "4 names", "5 an"}},
		"environment": {map[string]string{"r.txt": "a @ https://${TOKEN}@example.org/a\nb==${VERSION}\n-r ${HOME}/x\nc\n"}, []string{"r.txt:4 c"}, []string{"1 environment", "2 environment", "3 environment"}},
		"includes": {map[string]string{"r.txt": "a\n-r more/x.txt\n-c 'con straints.txt'\n--requirement=more/x.txt\n-r https://example.org/r.txt\nz\n", "more/x.txt": "b\n-ry.txt\n", "more/y.txt": "-r ../common.txt\n", "common.txt": "c\n", "con straints.txt": "-rcommon.txt\nd==1\n"},
			[]string{"r.txt:1 a", "more/x.txt:1 b", "common.txt:1 c", "con straints.txt:2 d==1", "r.txt:6 z"}, []string{"5 includes"}},
		"nothing": {map[string]string{"r.txt": ""}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, c.files)
			r, err := ReadRequirements(filepath.Join(dir, "r.txt"))
			if err != nil {
				t.Fatal(err)
			}
			list, omitted := short(t, r, dir)
			if d := cmp.Diff(c.list, list); d != "" {
				t.Errorf("requirements (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.omitted, omitted); d != "" {
				t.Errorf("omitted (-want +got):\n%s", d)
			}
			for _, o := range r.Omitted {
				if strings.Contains(o.Why, "secret") {
					t.Errorf("a password in %q", o.Why)
				}
			}
			if len(r.Files) != len(c.files) {
				t.Errorf("read %v, want %d files", r.Files, len(c.files))
			}
		})
	}
}

func inUTF16(order binary.AppendByteOrder, text string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

const pylockExample = `lock-version = "1.0"
created-by = "a hand"
requires-python = ">= 3.12"

[[packages]]
name = "attrs"
version = "25.1.0"
index = "https://pypi.org/simple"
sdist = {name = "attrs-25.1.0.tar.gz", url = "https://example.org/attrs-25.1.0.tar.gz", hashes = {sha256 = "HASHA"}}

[[packages.wheels]]
name = "attrs-25.1.0-py3-none-any.whl"
url = "https://example.org/attrs-25.1.0-py3-none-any.whl"
hashes = {sha256 = "HASHB"}

[[packages]]
name = "local"
directory = {path = "."}

[[packages]]
name = "forked"
version = "1.0"

[packages.vcs]
type = "git"
url = "https://example.org/forked"
commit-id = "0123456789"

[[packages]]
name = "Zip_Ped"
archive = {url = "https://example.org/z.zip", hashes = {sha256 = "HASHA"}}

[[packages]]
name = "cattrs"
`

const uvExample = `version = 1
revision = 2
requires-python = ">=3.12"

[[package]]
name = "attrs"
version = "25.1.0"
source = { registry = "https://pypi.org/simple" }
sdist = { url = "https://example.org/attrs-25.1.0.tar.gz", hash = "HASHA", size = 1 }
wheels = [
    { url = "https://example.org/attrs-25.1.0-py3-none-any.whl", hash = "HASHB", size = 2 },
]

[[package]]
name = "mine"
version = "0.1.0"
source = { virtual = "." }
dependencies = [
    { name = "attrs", marker = "sys_platform == 'linux'" },
]

[package.metadata]
requires-dist = [{ name = "attrs" }]

[[package]]
name = "forked"
version = "1.0"
source = { git = "https://example.org/forked?rev=1#0123" }

[[package]]
name = "cattrs"
version = "24.1.2"
source = { registry = "https://mirror.example.org/simple" }
`

const poetryExample = `# This file is written by hand.

[[package]]
name = "attrs"
version = "25.1.0"
description = "Classes"
optional = false
python-versions = ">=3.8"
groups = ["main"]
files = [
    {file = "attrs-25.1.0-py3-none-any.whl", hash = "HASHB"},
    {file = "attrs-25.1.0.tar.gz", hash = "HASHA"},
]

[package.extras]
tests = ["pytest"]

[[package]]
name = "forked"
version = "1.0"
files = []

[package.source]
type = "git"
url = "https://example.org/forked"
reference = "main"

[[package]]
name = "Cattrs"
version = "24.1.2"

[package.source]
type = "legacy"
url = "https://mirror.example.org/simple"
reference = "mirror"

[metadata]
lock-version = "2.1"
content-hash = "00"
`

const oldPoetryExample = `[[package]]
name = "attrs"
version = "19.3.0"
category = "main"

[metadata]
lock-version = "1.1"
[metadata.files]
attrs = [
    {file = "attrs-19.3.0.tar.gz", hash = "HASHA"},
]
`

var lockExamples = map[string]string{
	"pylock.toml": pylockExample, "pylock.dev.toml": strings.Replace(pylockExample, "25.1.0", "25.2.0", 1), "uv.lock": uvExample, "poetry.lock": poetryExample, "old/poetry.lock": oldPoetryExample,
}

// example puts digests in.
func example(name string) string {
	a, b := hashA, hashB
	if strings.HasPrefix(name, "pylock") {
		a, b = strings.TrimPrefix(a, "sha256:"), strings.TrimPrefix(b, "sha256:")
	}
	return strings.NewReplacer("HASHA", a, "HASHB", b).Replace(lockExamples[name])
}

func TestRequirementsOfLocks(t *testing.T) {
	for name, c := range map[string]struct{ list, omitted []string }{
		"pylock.toml":     {[]string{"pylock.toml:5 attrs==25.1.0 sha256:a1 sha256:b2", "pylock.toml:33 cattrs"}, []string{"16 is", "20 comes", "29 comes"}},
		"pylock.dev.toml": {[]string{"pylock.dev.toml:5 attrs==25.2.0 sha256:a1 sha256:b2", "pylock.dev.toml:33 cattrs"}, []string{"16 is", "20 comes", "29 comes"}},
		"uv.lock":         {[]string{"uv.lock:5 attrs==25.1.0 sha256:a1 sha256:b2", "uv.lock:30 cattrs==24.1.2"}, []string{"14 comes", "25 comes"}},
		"poetry.lock":     {[]string{"poetry.lock:3 attrs==25.1.0 sha256:a1 sha256:b2", "poetry.lock:28 cattrs==24.1.2"}, []string{"18 comes"}},
		"old/poetry.lock": {[]string{"old/poetry.lock:1 attrs==19.3.0 sha256:a1"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{name: example(name)})
			r, err := ReadRequirements(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			list, omitted := short(t, r, dir)
			if d := cmp.Diff(c.list, list); d != "" {
				t.Errorf("requirements (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.omitted, omitted); d != "" {
				t.Errorf("omitted (-want +got):\n%s", d)
			}
		})
	}
}

func TestRequirementsRefused(t *testing.T) {
	deep := map[string]string{}
	for i := range maxIncludeDepth + 1 {
		deep[string(rune('a'+i))+".txt"] = "-r " + string(rune('b'+i)) + ".txt\n"
	}
	for name, c := range map[string]struct {
		files map[string]string
		read  string
		want  string
	}{
		"no file":         {nil, "r.txt", "no such file"},
		"a folder":        {map[string]string{"r/x": ""}, "r", "not a file"},
		"another kind":    {map[string]string{"pyproject.toml": ""}, "pyproject.toml", "not a file that requirements are read from"},
		"a cycle":         {map[string]string{"a.txt": "x\n-r b.txt\n", "b.txt": "\n\n-c a.txt"}, "a.txt", "b.txt:3: "},
		"itself":          {map[string]string{"a.txt": "-r ./a.txt"}, "a.txt", "includes itself"},
		"too deep":        {deep, "a.txt", "deep"},
		"missing include": {map[string]string{"a.txt": "x\n-r b.txt\n"}, "a.txt", "a.txt:2: "},
		"no name":         {map[string]string{"a.txt": "x\n\n==1.0\n"}, "a.txt", "a.txt:3: "},
		"two words":       {map[string]string{"a.txt": "x y\n"}, "a.txt", "a.txt:1: "},
		"other letters":   {map[string]string{"a.txt": "x\nfl\u0430sk\n"}, "a.txt", `a.txt:2: "fl` + "\u0430" + `sk": "` + "\u0430" + `sk" is not a version specifier`},
		"no version":      {map[string]string{"a.txt": "x==\n"}, "a.txt", "a.txt:1: "},
		"one equals sign": {map[string]string{"a.txt": "x=1\n"}, "a.txt", "a.txt:1: "},
		"bad version":     {map[string]string{"a.txt": "x==one\n"}, "a.txt", `a.txt:1: "x==one": "==one" is not a version specifier`},
		"open extras":     {map[string]string{"a.txt": "x[y\n"}, "a.txt", "a.txt:1: "},
		"open quotation":  {map[string]string{"a.txt": "-r 'y\n"}, "a.txt", "a.txt:1: "},
		"bare option":     {map[string]string{"a.txt": "x\n-r\n"}, "a.txt", "a.txt:2: option -r needs a value"},
		"short hash":      {map[string]string{"a.txt": "x==1 --hash=sha256:00\n"}, "a.txt", "a.txt:1: "},
		"no TOML":         {map[string]string{"uv.lock": "version = 1\n[[package]\n"}, "uv.lock", "uv.lock:2:"},
		"other type":      {map[string]string{"uv.lock": "version = 1\n[[package]]\nname = 1\n"}, "uv.lock", "uv.lock:3:"},
		"uv's next":       {map[string]string{"uv.lock": "version = 2\n"}, "uv.lock", "version is 2"},
		"pylock's next":   {map[string]string{"pylock.toml": "lock-version = \"2.0\"\n"}, "pylock.toml", `lock-version is "2.0"`},
		"no lock-version": {map[string]string{"poetry.lock": ""}, "poetry.lock", `lock-version is ""`},
		"no name, locked": {map[string]string{"uv.lock": "version = 1\n\n[[package]]\nversion = \"1\"\n"}, "uv.lock", "uv.lock:3: "},
		"hash, locked":    {map[string]string{"uv.lock": "version = 1\n\n[[package]]\nname = \"a\"\nsdist = {hash = \"sha256:zz\"}\n"}, "uv.lock", "uv.lock:3: "},
		"nested":          {map[string]string{"uv.lock": "version = 1\nx = " + strings.Repeat("[", 100_000)}, "uv.lock", "uv.lock:2:"},
		"too large":       {map[string]string{"a.txt": strings.Repeat("#\n", maxRequirementsFile/2+1)}, "a.txt", "larger"},
		"too many":        {map[string]string{"a.txt": strings.Repeat("a\n", maxRequirements+1)}, "a.txt", "a.txt:100001: more than"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, c.files)
			r, err := ReadRequirements(filepath.Join(dir, c.read))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v; want an error with %q", r, err, c.want)
			}
		})
	}
}

// A lock whose packages are one value has the line of that.
func TestRequirementsInline(t *testing.T) {
	dir := writeFiles(t, map[string]string{"pylock.toml": "lock-version = '1.0'\n# all\npackages = [{name = 'a'},\n  {name = 'b'}]\n"})
	r, err := ReadRequirements(filepath.Join(dir, "pylock.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if list, _ := short(t, r, dir); cmp.Diff([]string{"pylock.toml:3 a", "pylock.toml:3 b"}, list) != "" {
		t.Errorf("%v", list)
	}
	if names := r.Projects(); cmp.Diff([]string{"a", "b"}, names) != "" {
		t.Errorf("%v", names)
	}
}

func FuzzRequirements(f *testing.F) {
	f.Add("requirements.txt", []byte("a[b]==1 ; x < '3' \\\n --hash="+hashA+"\n-e .\n-r other.txt\nb @ https://c\n"))
	for name := range lockExamples {
		f.Add(filepath.Base(name), []byte(example(name)))
	}
	empty := f.TempDir() // where includes find nothing
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		r := reading{Requirements: Requirements{stamps: map[string]stamp{}}}
		name = filepath.Join(empty, filepath.Base(name))
		parse, err := r.format(name)
		if err != nil || parse(name, text) != nil {
			return
		}
		for _, q := range r.List {
			if !ValidName(q.Project) || Normalize(q.Project) != q.Project || q.Line < 1 || q.Line > len(text)+1 || !isPrintable(q.Version) {
				t.Errorf("%+v", q)
			}
			for _, h := range q.Hashes {
				if again, err := parseHash(h); err != nil || again != h {
					t.Errorf("hash %q: %q, %v", h, again, err)
				}
			}
		}
		for _, o := range r.Omitted {
			if o.Line < 1 || o.Line > len(text)+1 || o.Why == "" {
				t.Errorf("%+v", o)
			}
		}
	})
}
