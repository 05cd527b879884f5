package pypi

import (
	"fmt"
	"regexp"
	"strings"

	version "github.com/aquasecurity/go-pep440-version"
)

// Normalize is the PEP 503 form of a project's name: lower case, and one hyphen
// for each run of hyphens, underscores and dots.
func Normalize(name string) string {
	var b strings.Builder
	run := false
	for _, r := range strings.ToLower(name) {
		if r == '-' || r == '_' || r == '.' {
			run = true
			continue
		}
		if run {
			b.WriteByte('-')
		}
		run = false
		b.WriteRune(r)
	}
	if run {
		b.WriteByte('-')
	}
	return b.String()
}

// maxProject is well beyond the longest name on PyPI, in bytes.
const maxProject = 214

// ValidName reports whether text can be a project's name (PEP 508): ASCII letters,
// digits, and inside it hyphens, underscores and dots.
func ValidName(name string) bool {
	if name == "" || len(name) > maxProject {
		return false
	}
	for i := range len(name) {
		inside := i > 0 && i < len(name)-1
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case inside && (c == '-' || c == '_' || c == '.'):
		default:
			return false
		}
	}
	return true
}

// SameVersion compares two versions as PEP 440 does: 1.0 is 1.0.0, and 1.0-RC1 is
// 1.0rc1. Texts that are no such versions are the same letter by letter only.
func SameVersion(a, b string) bool {
	if a == b {
		return true
	}
	ca, okA := canonicalVersion(a)
	cb, okB := canonicalVersion(b)
	return okA && okB && ca == cb
}

// canonicalVersion is the one spelling of a version, false if PEP 440 does not
// know it: without zeros at the end of the release, local parts joined by dots.
func canonicalVersion(text string) (string, bool) {
	if len(text) > maxFilename || !isASCII(text) {
		return "", false // matching without regard to case would let in more letters
	}
	v, err := version.Parse(text)
	if err != nil {
		return "", false
	}
	release := v.BaseVersion()
	rest := strings.TrimPrefix(v.Public(), release)
	for strings.HasSuffix(release, ".0") {
		release = strings.TrimSuffix(release, ".0")
	}
	local := strings.FieldsFunc(v.Local(), func(r rune) bool { return r == '-' || r == '_' || r == '.' })
	for i, part := range local {
		if strings.Trim(part, "0123456789") == "" {
			if local[i] = strings.TrimLeft(part, "0"); local[i] == "" {
				local[i] = "0"
			}
		}
	}
	if len(local) > 0 {
		rest += "+" + strings.Join(local, ".")
	}
	return release + rest, true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// maxFilename in bytes: what a file system takes.
const maxFilename = 255

// validFilename reports whether text can be a file's name: no path, nothing that a
// screen would not show as it is.
func validFilename(name string) bool {
	return name != "" && len(name) <= maxFilename && name[0] != '.' && !strings.ContainsAny(name, "/\\") && isPrintable(name)
}

// Endings of distributions. Only the first and wheels are taken today; the others
// are listed for old releases.
var endings = []string{".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar.Z", ".tar", ".egg", ".exe", ".msi", ".rpm", ".deb", ".dmg"}

// ParseFilename takes the version out of the name of a distribution, as it is
// spelled there. Wheels are NAME-VERSION(-BUILD)-PYTHON-ABI-PLATFORM.whl, all else
// NAME-VERSION with an ending and, in old kinds, tags between the two. Because old
// names and versions contain hyphens, the project tells where the name ends; with
// "" the name is taken to end at the last hyphen. It is an error if the name is
// another project's, or what follows is no PEP 440 version.
func ParseFilename(filename, project string) (string, error) {
	if !validFilename(filename) {
		return "", fmt.Errorf("file name %.80q: not the name of a distribution", filename)
	}
	project = Normalize(project)
	if stem, ok := strings.CutSuffix(filename, ".whl"); ok {
		return wheelVersion(filename, stem, project)
	}
	stem, ok := cutEnding(filename)
	if !ok {
		return "", fmt.Errorf("file name %.80q: unknown kind of distribution", filename)
	}
	for _, s := range []string{stem, withoutTags(stem)} {
		text, ok := afterName(s, project)
		if !ok {
			continue
		}
		if _, ok := canonicalVersion(text); ok {
			return text, nil
		}
		// As in wheels. In source distributions an underscore is the version's own.
		if strings.HasSuffix(filename, ".egg") || strings.HasSuffix(filename, ".rpm") {
			text = strings.ReplaceAll(text, "_", "-")
			if _, ok := canonicalVersion(text); ok {
				return text, nil
			}
		}
	}
	return "", fmt.Errorf("file name %.80q: no version of project %q", filename, project)
}

func wheelVersion(filename, stem, project string) (string, error) {
	parts := strings.Split(stem, "-")
	built := len(parts) == 6 && parts[2] != "" && parts[2][0] >= '0' && parts[2][0] <= '9'
	if len(parts) != 5 && !built {
		return "", fmt.Errorf("file name %.80q: not the name of a wheel", filename)
	}
	if project != "" && Normalize(parts[0]) != project {
		return "", fmt.Errorf("file name %.80q: not of project %q", filename, project)
	}
	// In a wheel's name an underscore stands for a hyphen of the version.
	for _, text := range []string{parts[1], strings.ReplaceAll(parts[1], "_", "-")} {
		if _, ok := canonicalVersion(text); ok {
			return text, nil
		}
	}
	return "", fmt.Errorf("file name %.80q: %.80q is no version", filename, parts[1])
}

func cutEnding(filename string) (stem string, ok bool) {
	for _, e := range endings {
		if n := len(filename) - len(e); n >= 0 && strings.EqualFold(filename[n:], e) { // old files have .ZIP and .EXE
			return filename[:n], n > 0
		}
	}
	return "", false
}

// afterName is what follows the project's name and a hyphen.
func afterName(stem, project string) (string, bool) {
	if project == "" {
		i := strings.LastIndexByte(stem, '-')
		return stem[i+1:], i > 0
	}
	for i := range len(stem) {
		if stem[i] == '-' && Normalize(stem[:i]) == project {
			return stem[i+1:], true
		}
	}
	return "", false
}

var releaseOfRPM = regexp.MustCompile(`-[0-9][0-9A-Za-z_]*\.(noarch|src|x86_64|i[3-6]86)$`)

// withoutTags takes away what built distributions of old put behind the version:
// "-py2.7-linux-x86_64", ".win-amd64", ".linux-x86_64", "-1.noarch".
func withoutTags(stem string) string {
	stem = releaseOfRPM.ReplaceAllString(stem, "")
	if i := strings.LastIndex(stem, "-py"); i > 0 && len(stem) > i+3 && stem[i+3] >= '0' && stem[i+3] <= '9' {
		stem = stem[:i]
	}
	for _, tag := range []string{".win32", ".win-", ".linux-", ".macosx-", ".cygwin-", ".freebsd-", ".openbsd-", ".netbsd-", ".solaris-", ".sunos-", ".aix-"} {
		if i := strings.LastIndex(stem, tag); i > 0 {
			stem = stem[:i]
		}
	}
	return stem
}
