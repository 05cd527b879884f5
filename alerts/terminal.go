package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"sigtrail/index"
)

// A Terminal writes alerts to a log. What comes from outside is escaped: names
// in certificates and on PyPI are written by anybody.
type Terminal struct{ Log *slog.Logger }

// Name is "terminal".
func (Terminal) Name() string { return "terminal" }

// Deliver writes one record.
func (t Terminal) Deliver(ctx context.Context, stored index.Alert) error {
	var a Alert
	if err := json.Unmarshal(stored.Body, &a); err != nil {
		return fmt.Errorf("alert %s: %w", stored.ID, err)
	}
	level := slog.LevelWarn
	if a.Severity == Critical || a.Severity == High {
		level = slog.LevelError
	}
	attrs := []any{"rule", a.Rule, "severity", string(a.Severity), "title", shown(a.Title), "reason", shown(a.Reason)}
	if a.Log != nil {
		attrs = append(attrs, "log", shown(a.Log.Origin))
		if a.Log.Global != nil {
			attrs = append(attrs, "index", *a.Log.Global)
		}
		attrs = append(attrs, "link", shown(a.Log.Link))
	}
	if a.Seen != nil && a.Seen.Run != "" {
		attrs = append(attrs, "run", shown(a.Seen.Run))
	}
	if len(a.Expected) > 0 {
		attrs = append(attrs, "expected", shown(strings.Join(a.Expected, "; ")))
	}
	if len(a.Lacking) > 0 {
		attrs = append(attrs, "lacking", shown(strings.Join(a.Lacking, "; ")))
	}
	t.Log.Log(ctx, level, "ALERT", append(attrs, "next", shown(a.Next), "id", shown(a.ID))...)
	return nil
}

// Escape makes text from outside harmless to a terminal: control characters,
// escape sequences, bidirectional overrides, other invisible characters and
// bytes that are no UTF-8 become \x, \u and \U escapes.
func Escape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// maxShown bounds one text in the terminal form, in bytes before escaping. The
// whole is in the database and in what webhooks get.
const maxShown = 1000

func shown(s string) string {
	if len(s) <= maxShown {
		return Escape(s)
	}
	cut := maxShown
	for cut > maxShown-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return Escape(s[:cut]) + "…"
}
