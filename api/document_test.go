package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
)

type openAPI struct {
	Paths map[string]map[string]struct {
		Parameters []struct {
			Ref string `json:"$ref"`
		} `json:"parameters"`
	} `json:"paths"`
	Components struct {
		Parameters map[string]struct{ Name, In string } `json:"parameters"`
		Schemas    map[string]schema                    `json:"schemas"`
	} `json:"components"`
}

type schema struct {
	Properties           map[string]json.RawMessage `json:"properties"`
	Required             []string                   `json:"required"`
	AdditionalProperties *bool                      `json:"additionalProperties"`
}

func readDocument(t *testing.T) openAPI {
	t.Helper()
	var d openAPI
	if err := json.Unmarshal(document, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Whatever is served is in the document with its parameters, and the other way round.
func TestDocumentRoutes(t *testing.T) {
	d := readDocument(t)
	want, got := make(map[string][]string), make(map[string][]string)
	for _, r := range routes {
		params := append([]string{}, r.params...)
		for _, m := range regexp.MustCompile(`{(\w+)}`).FindAllStringSubmatch(r.path, -1) {
			params = append(params, m[1])
		}
		slices.Sort(params)
		want[Root+r.path] = params
	}
	for path, methods := range d.Paths {
		if keys := slices.Collect(maps.Keys(methods)); !slices.Equal(keys, []string{"get"}) {
			t.Errorf("%s has %q, want get alone", path, keys)
		}
		params := []string{}
		for _, p := range methods["get"].Parameters {
			name := strings.TrimPrefix(p.Ref, "#/components/parameters/")
			c, ok := d.Components.Parameters[name]
			if !ok || c.Name != name || (c.In == "path") != strings.Contains(path, "{"+name+"}") {
				t.Errorf("%s: parameter %q is %+v", path, p.Ref, c)
			}
			params = append(params, name)
		}
		slices.Sort(params)
		got[path] = params
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-) and document (+):\n%s", diff)
	}
}

// The schemas have the members of the types, required where they are always there.
func TestDocumentSchemas(t *testing.T) {
	d := readDocument(t)
	seen := make(map[string]bool)
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			check(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		name := typ.Name()
		if typ == reflect.TypeFor[index.Publisher]() {
			name = "PublisherIdentity"
		}
		if seen[name] || typ.PkgPath() == "time" {
			return
		}
		seen[name] = true
		s, ok := d.Components.Schemas[name]
		if !ok || s.AdditionalProperties == nil || *s.AdditionalProperties {
			t.Errorf("%s: no schema, or one that takes any member", name)
		}
		var all, required []string
		for _, f := range reflect.VisibleFields(typ) {
			check(f.Type)
			if f.Anonymous {
				continue
			}
			member, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
			all = append(all, member)
			if rest != "omitempty" {
				required = append(required, member)
			}
		}
		slices.Sort(all)
		slices.Sort(required)
		slices.Sort(s.Required)
		if have := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(have, all) || !slices.Equal(s.Required, required) {
			t.Errorf("%s: the schema has %q, of them always %q; the type %q, always %q", name, have, s.Required, all, required)
		}
	}
	for _, answer := range []any{Projects{}, ProjectDetail{}, Releases{}, Files{}, FileDetail{}, Entries{}, Publishers{}, PublisherDetail{}, Alerts{}, Coverage{}, Problem{}} {
		check(reflect.TypeOf(answer))
	}
	for name := range d.Components.Schemas {
		if !seen[name] {
			t.Errorf("schema %s is no part of an answer", name)
		}
	}
}

// A cursor comes back as it went out, and nothing else is taken for one.
func TestCursor(t *testing.T) {
	var n int64
	var s string
	if err := readCursor(cursor(int64(1<<62), "a\x00é\""), &n, &s); err != nil || n != 1<<62 || s != "a\x00é\"" {
		t.Errorf("%d %q %v", n, s, err)
	}
	for _, bad := range []string{"x", "!!", cursor(1), cursor("a", 1), cursor(nil, "a"), cursor(1.5, "a"), cursor(1, "a", 2), cursor(1, "a") + "=", "bnVsbA"} {
		if err := readCursor(bad, &n, &s); err == nil {
			t.Errorf("cursor %q is taken", bad)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(cursor(1, "a"))
	f.Fuzz(func(t *testing.T, text string) {
		var n int64
		var s string
		if readCursor(text, &n, &s) == nil {
			var m int64
			var again string
			if err := readCursor(cursor(n, s), &m, &again); err != nil || n != m || s != again {
				t.Errorf("%q: %d %q, then %d %q %v", text, n, s, m, again, err)
			}
		}
	})
}
