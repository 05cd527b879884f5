package pypi

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// cut shortens text to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// printable is text from outside made fit for one line of a log.
func printable(s string, n int) string {
	return cut(strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || !unicode.IsPrint(r) || r == ' '
	}), " "), n)
}

// isPrintable reports whether text could be shown as it is. Characters that turn
// the direction of writing are not printable: they make one name look like another.
func isPrintable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
