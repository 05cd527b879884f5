package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"unicode"

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
	attrs := []any{"rule", a.Rule, "severity", string(a.Severity), "title", Escape(a.Title), "reason", Escape(a.Reason)}
	if a.Log != nil {
		attrs = append(attrs, "log", Escape(a.Log.Origin), "index", a.Log.Global, "link", Escape(a.Log.Link))
	}
	if len(a.Expected) > 0 {
		attrs = append(attrs, "expected", Escape(strings.Join(a.Expected, "; ")))
	}
	t.Log.Log(ctx, level, "ALERT", append(attrs, "next", a.Next, "id", a.ID)...)
	return nil
}

// Escape makes text from outside harmless to a terminal: control characters,
// escape sequences, bidirectional overrides and other invisible characters become
// \x and \u escapes.
func Escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == unicode.ReplacementChar || r < 0x20 || r >= 0x7f && r < 0xa0:
			fmt.Fprintf(&b, `\x%02x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
