package pypi

import (
	"fmt"
	"strings"

	version "github.com/aquasecurity/go-pep440-version"
)

// Normalize is the PEP 503 form of a project's name: lower case, and one hyphen
// for each run of hyphens, underscores and dots.
func Normalize(name string) string {
	var b strings.Builder
	gap := false
	for _, c := range strings.ToLower(name) {
		if c == '-' || c == '_' || c == '.' {
			gap = true
			continue
		}
		if gap && b.Len() > 0 {
			b.WriteByte('-')
		}
		gap = false
		b.WriteRune(c)
	}
	return b.String()
}

// SameVersion compares two versions as PEP 440 does: 1.0 is 1.0.0. Texts that are
// no versions are the same only letter by letter.
func SameVersion(a, b string) bool {
	if a == b {
		return true
	}
	va, errA := version.Parse(a)
	vb, errB := version.Parse(b)
	return errA == nil && errB == nil && va.Equal(vb)
}

const maxFilename = 512

// sdist endings, of today and of old.
var archives = []string{".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar.Z", ".tar"}

// ParseFilename takes the version out of a distribution's file name. Wheels are
// NAME-VERSION(-BUILD)-PY-ABI-PLATFORM.whl; sdists are split at the last hyphen
// behind which a PEP 440 version stands, with the project's own name to tell
// hyphens of the name from those of the version.
func ParseFilename(filename, project string) (string, error) {
	if len(filename) > maxFilename || strings.ContainsAny(filename, "/\\\x00") || filename == "" {
		return "", fmt.Errorf("file name %.60q: not a file name of PyPI", filename)
	}
	if stem, ok := strings.CutSuffix(filename, ".whl"); ok {
		parts := strings.Split(stem, "-")
		if len(parts) != 5 && (len(parts) != 6 || parts[2] == "" || parts[2][0] < '0' || parts[2][0] > '9') {
			return "", fmt.Errorf("file name %.60q: no wheel name", filename)
		}
		return checkVersion(filename, parts[1])
	}
	for _, ext := range archives {
		if stem, ok := strings.CutSuffix(filename, ext); ok {
			return sdistVersion(filename, stem, project)
		}
	}
	for _, ext := range []string{".egg", ".exe", ".msi", ".rpm", ".deb", ".dmg"} {
		if stem, ok := strings.CutSuffix(filename, ext); ok {
			return oldVersion(filename, stem, project)
		}
	}
	return "", fmt.Errorf("file name %.60q: unknown kind of distribution", filename)
}

func sdistVersion(filename, stem, project string) (string, error) {
	for i := len(stem) - 1; i > 0; i-- {
		if stem[i] == '-' && Normalize(stem[:i]) == project {
			return checkVersion(filename, stem[i+1:])
		}
	}
	i := strings.LastIndexByte(stem, '-')
	if i <= 0 {
		return "", fmt.Errorf("file name %.60q: no version", filename)
	}
	return checkVersion(filename, stem[i+1:])
}

// oldVersion reads NAME-VERSION-TAGS, NAME-VERSION.PLATFORM.
func oldVersion(filename, stem, project string) (string, error) {
	for i := range stem {
		if stem[i] != '-' || Normalize(stem[:i]) != project {
			continue
		}
		rest := stem[i+1:]
		if j := strings.IndexByte(rest, '-'); j >= 0 {
			rest = rest[:j]
		}
		for rest != "" {
			if v, err := checkVersion(filename, rest); err == nil {
				return v, nil
			}
			j := strings.LastIndexByte(rest, '.')
			if j < 0 {
				break
			}
			rest = rest[:j]
		}
	}
	return "", fmt.Errorf("file name %.60q: no version", filename)
}

func checkVersion(filename, text string) (string, error) {
	if _, err := version.Parse(text); err != nil {
		return "", fmt.Errorf("file name %.60q: %q is no PEP 440 version", filename, text)
	}
	return text, nil
}
