package pypi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf16"
)

// pip reads pip's requirements file format, as the page "Requirements File Format"
// of pip's documentation and its req_file.py have it.
func (r *reading) pip(path string, text []byte) error {
	for _, l := range logicalLines(decoded(text)) {
		if err := r.pipLine(path, l); err != nil {
			return fmt.Errorf("%s:%d: %w", path, l.number, err)
		}
	}
	return nil
}

// decoded turns UTF-16, which redirection in PowerShell writes, into UTF-8.
func decoded(text []byte) string {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(text, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(text, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return string(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	}
	units := make([]uint16, 0, len(text)/2)
	for i := 2; i+1 < len(text); i += 2 {
		units = append(units, order.Uint16(text[i:]))
	}
	return string(utf16.Decode(units))
}

// A logicalLine is one after joining what backslashes continue, without comments.
type logicalLine struct {
	number int // of the first
	text   string
}

// lineEnds are those of Python's splitlines: a name behind an exotic one, in what
// looks like a comment, is installed all the same.
var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\v", "\n", "\f", "\n", "\x1c", "\n", "\x1d", "\n", "\x1e", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")

func logicalLines(text string) []logicalLine {
	var lines []logicalLine
	var parts []string
	first := 0
	end := func() {
		if t := withoutComment(strings.Join(parts, "")); t != "" {
			lines = append(lines, logicalLine{first, t})
		}
		parts = parts[:0]
	}
	for i, line := range strings.Split(lineEnds.Replace(text), "\n") {
		if len(parts) == 0 {
			first = i + 1
		}
		comment := strings.HasPrefix(strings.TrimSpace(line), "#")
		if strings.HasSuffix(line, `\`) && !comment {
			parts = append(parts, strings.Trim(line, `\`))
			continue
		}
		if comment {
			line = " " + line // apart from what it is joined to
		}
		parts = append(parts, line)
		end()
	}
	end()
	return lines
}

// withoutComment cuts at the first # that begins the line or follows a space: in an
// address it begins a fragment.
func withoutComment(line string) string {
	space := true
	for i, c := range line {
		if c == '#' && space {
			line = line[:i]
			break
		}
		space = unicode.IsSpace(c)
	}
	return strings.TrimSpace(line)
}

var (
	isVariable = regexp.MustCompile(`\$\{[A-Z0-9_]+\}`)
	isAddress  = regexp.MustCompile(`^(?i)([a-z][a-z0-9+.-]*://|file:)`)
	afterWord  = regexp.MustCompile(`(^|\s)-`)
)

func (r *reading) pipLine(path string, l logicalLine) error {
	if isVariable.MatchString(l.text) {
		r.omit(path, l.number, "environment variables are not expanded")
		return nil
	}
	asked, options := l.text, ""
	if at := afterWord.FindStringIndex(l.text); at != nil {
		asked, options = l.text[:at[0]], l.text[at[0]:]
	}
	o, err := parseOptions(options)
	if err != nil {
		return err
	}
	for _, why := range o.omitted {
		r.omit(path, l.number, why)
	}
	for _, include := range o.includes {
		if err := r.include(path, l.number, include); err != nil {
			return err
		}
	}
	if asked = strings.TrimSpace(asked); asked == "" {
		return nil
	}
	name, version, err := parseRequirement(asked)
	if elsewhere := (notOfIndex)(""); errors.As(err, &elsewhere) {
		r.omit(path, l.number, string(elsewhere))
		return nil
	}
	if err != nil {
		return err
	}
	return r.add(Requirement{Project: name, Version: version, Hashes: o.hashes, File: path, Line: l.number})
}

func (r *reading) include(from string, line int, name string) error {
	switch {
	case strings.HasPrefix(strings.ToLower(name), "file:"):
		u, err := url.Parse(name)
		if err != nil || u.Host != "" && u.Host != "localhost" || u.Path == "" {
			r.omit(from, line, "includes a file by an address that names none here")
			return nil
		}
		name = u.Path
	case isAddress.MatchString(name):
		r.omit(from, line, "includes a file by its address, which is not fetched")
		return nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(from), name)
	}
	return r.file(name, r.pip)
}

// notOfIndex is why a requirement is for no project of an index.
type notOfIndex string

func (n notOfIndex) Error() string { return string(n) }

// parseRequirement reads a requirement (PEP 508), a path or an address. The version
// is the pinned one, if there is one.
func parseRequirement(text string) (name, version string, err error) {
	if isAddress.MatchString(text) {
		return "", "", notOfIndex("comes from an address, not from an index")
	}
	text, _, _ = strings.Cut(text, ";")
	end := strings.IndexFunc(text, func(c rune) bool {
		return c >= 0x80 || !(c == '-' || c == '_' || c == '.' || unicode.IsLetter(c) || unicode.IsDigit(c))
	})
	if end < 0 {
		end = len(text)
	}
	name, rest := text[:end], strings.TrimSpace(text[end:])
	if extras, ok := strings.CutPrefix(rest, "["); ok {
		inside, after, closed := strings.Cut(extras, "]")
		if !closed {
			return "", "", fmt.Errorf("%.80q: extras without their closing bracket", text)
		}
		for e := range strings.SplitSeq(inside, ",") {
			if e = strings.TrimSpace(e); !ValidName(e) && strings.TrimSpace(inside) != "" && !isPath(text) {
				return "", "", fmt.Errorf("%.80q: %.80q is not the name of an extra", text, e)
			}
		}
		rest = strings.TrimSpace(after)
	}
	switch {
	case name != "" && strings.HasPrefix(rest, "@"):
		return "", "", notOfIndex("comes from an address, not from an index")
	case isPath(text):
		return "", "", notOfIndex("is a path, not a project of an index")
	case !ValidName(name):
		return "", "", fmt.Errorf("%.80q is not a requirement", text)
	}
	if version, err = pinned(rest); err != nil {
		return "", "", fmt.Errorf("%.80q: %w", text, err)
	}
	return name, version, nil
}

var archives = []string{".whl", ".zip", ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tlz", ".tar.lz", ".tar.lzma"}

func isPath(text string) bool {
	if strings.HasPrefix(text, ".") || strings.ContainsAny(text, `/\`) {
		return true
	}
	text = strings.ToLower(strings.TrimSpace(text))
	for _, a := range archives {
		if strings.HasSuffix(text, a) {
			return true
		}
	}
	return false
}

// The longer ones before those they begin with.
var operators = []string{"===", "==", "!=", "<=", ">=", "~=", "<", ">"}

// pinned reads version specifiers (PEP 440). A single == or === without a wildcard
// pins.
func pinned(specifiers string) (version string, err error) {
	if inside, ok := strings.CutPrefix(specifiers, "("); ok {
		if inside, ok = strings.CutSuffix(inside, ")"); !ok {
			return "", errors.New("versions without their closing parenthesis")
		}
		specifiers = strings.TrimSpace(inside)
	}
	if specifiers == "" {
		return "", nil
	}
	all := strings.Split(specifiers, ",")
	for _, s := range all {
		s = strings.TrimSpace(s)
		op, v := "", ""
		for _, o := range operators {
			if after, ok := strings.CutPrefix(s, o); ok {
				op, v = o, strings.TrimSpace(after)
				break
			}
		}
		base, wild := v, false
		if op == "==" || op == "!=" {
			base, wild = strings.CutSuffix(v, ".*")
		}
		_, known := canonicalVersion(base)
		arbitrary := op == "===" && v != "" && len(v) <= maxVersion && !strings.ContainsFunc(v, unicode.IsSpace)
		if op == "" || !known && !arbitrary {
			return "", fmt.Errorf("%.80q is not a version specifier", s)
		}
		if len(all) == 1 && !wild && (op == "==" || op == "===") {
			return v, nil
		}
	}
	return "", nil
}
