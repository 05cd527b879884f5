package alerts

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain, größer, 日本":  "plain, größer, 日本",
		"\x1b[31mred\x1b[0m": `\x1b[31mred\x1b[0m`,
		"a\nb\tc\r":          `a\x0ab\x09c\x0d`,
		"\u009b31m":          `\x9b31m`,
		"a\u202eb":           `a\u202eb`,
		"a\u2066b\u2069":     `a\u2066b\u2069`,
		"a\u200bb\ufeff":     `a\u200bb\ufeff`,
		"\u00ad\u00a0":       `\xad\xa0`,
		"\xff\xc3":           `\xff\xc3`,
		"\ufffd":             "\ufffd",
		"\U000e0041":         `\U000e0041`,
		"\u2028":             `\u2028`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzEscape: nothing that a terminal acts on is left, and what was harmless stays.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a", "\x1b]0;x\a", "\u202e", "\xff", "é", `\x1b`, "\u061c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Escape(s)
		if !utf8.ValidString(got) || Escape(got) != got {
			t.Errorf("Escape(%q) = %q", s, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
				t.Errorf("Escape(%q) leaves %U", s, r)
			}
		}
		if cut := shown(s); len(s) > maxShown && len(cut) > 10*maxShown {
			t.Errorf("%d bytes shown of %d", len(cut), len(s))
		}
	})
}

func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	terminal := Terminal{slog.New(slog.NewJSONHandler(&out, nil))}
	a := Alert{ID: "sa_01", Rule: "unexpected-signer", Severity: Critical, Title: "p \x1b[2J", Reason: "\u202ereason " + strings.Repeat("ü", 2000), Next: "ask", Expected: []string{"a\n", "b"},
		Log: &LogRef{Origin: "log", Index: new(uint64(7)), Global: new(uint64(8)), Link: "https://log/7"}, Seen: &Seen{Run: "https://run"}}
	stored, err := a.stored()
	check(t, err)
	check(t, terminal.Deliver(t.Context(), stored))
	var got map[string]any
	check(t, json.Unmarshal(out.Bytes(), &got))
	delete(got, "time")
	want := map[string]any{"level": "ERROR", "msg": "ALERT", "rule": "unexpected-signer", "severity": "critical", "title": `p \x1b[2J`, "reason": `\u202ereason ` + strings.Repeat("ü", 495) + "…",
		"log": "log", "index": 8.0, "link": "https://log/7", "run": "https://run", "expected": `a\x0a; b`, "next": "ask", "id": "sa_01"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	a = Alert{ID: "sa_02", Severity: Low}
	stored, err = a.stored()
	check(t, err)
	check(t, terminal.Deliver(t.Context(), stored))
	if !strings.Contains(out.String(), `"level":"WARN"`) || strings.Contains(out.String(), "index") {
		t.Error(out.String())
	}
	if err := terminal.Deliver(t.Context(), index.Alert{ID: "sa_03", Body: []byte("{")}); err == nil {
		t.Error("an unreadable alert was shown")
	}
}
