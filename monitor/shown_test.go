package monitor

import (
	"encoding/json"
	"strings"
	"testing"
)

const someNote = "log.example\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— log.example AAAAAAAA\n"

func TestFindHeads(t *testing.T) {
	quoted, err := json.Marshal(someNote)
	if err != nil {
		t.Fatal(err)
	}
	many := "[" + strings.Repeat(string(quoted)+",", 2*maxHeads) + "0]"
	for _, c := range []struct {
		name, text string
		want       int
	}{
		{"nothing", "", 0},
		{"a note", someNote, 1},
		{"no signature lines", strings.SplitAfter(someNote, "=\n")[0], 0},
		{"in JSON, at any depth", `{"a": [{"b": ` + string(quoted) + `}], "c": ` + string(quoted) + `}`, 2},
		{"JSON that is cut off", `{"a": ` + string(quoted) + `, "b": `, 1},
		{"JSON without any", `{"a": "b"}`, 0},
		{"too many", many, maxHeads},
		{"too large", someNote + strings.Repeat("— x AAAAAAAA\n", MaxNote/10), 0},
	} {
		if got := FindHeads([]byte(c.text)); len(got) != c.want {
			t.Errorf("%s: %d heads, want %d", c.name, len(got), c.want)
		}
	}
}

// Whatever is shown, only what reads as a head of some log is handed on, and its
// text is what a signature would cover.
func FuzzFindHeads(f *testing.F) {
	f.Add([]byte(someNote))
	f.Add([]byte(`{"heads": [{"note": "log.example\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— log.example AAAAAAAA\n"}]}`))
	f.Add([]byte("a\n\nb\n\nc\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		heads := FindHeads(text)
		if len(heads) > maxHeads {
			t.Fatalf("%d heads", len(heads))
		}
		for _, h := range heads {
			origin, signed, err := ReadNote(h)
			if err != nil || len(h) > MaxNote || !strings.HasPrefix(signed, origin+"\n") || !strings.HasPrefix(string(h), signed+"\n") {
				t.Errorf("%q: origin %q, text %q, %v", h, origin, signed, err)
			}
		}
	})
}
