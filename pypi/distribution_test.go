package pypi

import (
	"strings"
	"testing"
)

func TestSameDistribution(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"foo-1.0.tar.gz", "foo-1.0.tar.gz", true},
		{"Foo.Bar-1.0.tar.gz", "foo_bar-1.0.0.tar.gz", true},
		{"foo-bar-1.0rc1.zip", "foo_bar-1.0-rc1.zip", false}, // the last hyphen ends the name
		{"foo-1.0.tar.gz", "foo-1.0-py3-none-any.whl", false},
		{"foo-1.0.tar.gz", "foo-1.1.tar.gz", false},
		{"foo-1.0.tar.gz", "fooo-1.0.tar.gz", false},
		{"foo-1.0-py2.py3-none-any.whl", "Foo-1.0.0-py3.py2-none-any.whl", true},
		{"foo-1.0-cp39-cp39-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "foo-1.0-cp39-cp39-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", true},
		{"foo-1.0-CP39-cp39-win32.whl", "foo-1.0-cp39-cp39-win32.whl", true},
		{"foo-1.0-cp39-cp39-win32.whl", "foo-1.0-cp310-cp39-win32.whl", false},
		{"foo-1.0-py3.py3-none-any.whl", "foo-1.0-py3-none-any.whl", true},
		{"foo-1.0-1-py3-none-any.whl", "foo-1.0-py3-none-any.whl", false},
		{"foo-1.0-01-py3-none-any.whl", "foo-1.0-1-py3-none-any.whl", true},
		{"foo-1.0-0-py3-none-any.whl", "foo-1.0-00-py3-none-any.whl", true},
		{"foo-1.0-1a-py3-none-any.whl", "foo-1.0-1-py3-none-any.whl", false},
		{"foo-1.0-py2.7.egg", "foo-1.0-py2.7.egg", true},
		{"foo-1.0-py2.7.egg", "Foo-1.0-py2.7.egg", false},
		{"foo-1.0.win32.exe", "foo-1.0.0.win32.exe", false},
		{"../foo-1.0.tar.gz", "../foo-1.0.tar.gz", false},
		{"foo-1.0.linux-x86_64.tar.gz", "foo-1.0.tar.gz", false},
		{"foo-1.0-" + strings.Repeat("a.", 20) + "a-" + strings.Repeat("a.", 20) + "a-" + strings.Repeat("a.", 20) + "b.whl", "foo-1.0-a-a-b.whl", false},
	} {
		if got := SameDistribution(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: same %v", c.a, c.b, got)
		}
		if got := SameDistribution(c.b, c.a); got != c.want {
			t.Errorf("%s and %s: same %v", c.b, c.a, got)
		}
	}
}

func FuzzSameDistribution(f *testing.F) {
	f.Add("foo-1.0-1-py2.py3-none-any.whl", "Foo-1.0.0-01-py3.py2-none-any.whl")
	f.Add("foo-bar-1!1.0.tar.gz", "foo_bar-1!1.0.zip")
	f.Fuzz(func(t *testing.T, a, b string) {
		if SameDistribution(a, b) != SameDistribution(b, a) {
			t.Errorf("%q and %q", a, b)
		}
		if d, ok := parseDistribution(a); ok && (!SameDistribution(a, a) || d.project == "" || len(d.tags) > maxTags) {
			t.Errorf("%q: %+v", a, d)
		}
	})
}
