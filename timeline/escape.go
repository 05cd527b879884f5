package timeline

import (
	"fmt"
	"strings"
	"unicode"
)

// Escape makes text from a log or from PyPI harmless to a terminal. Control
// characters, escape sequences, bidirectional and other invisible characters
// become \x and \u escapes.
func Escape(s string) string {
	if strings.IndexFunc(s, hostile) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !hostile(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func hostile(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }
