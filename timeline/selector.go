package timeline

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	version "github.com/aquasecurity/go-pep440-version"

	"sigtrail/index"
)

// A Selector is what a responder has in hand: "sampleproject",
// "sampleproject==4.0.0", the same on another index, "testpypi/sampleproject", a file
// name, or the SHA-256 of a file.
type Selector struct {
	Text    string
	by      index.Selection
	version string // "": all
}

// ParseSelector reads a selector.
func ParseSelector(text string) (Selector, error) {
	s := Selector{Text: text}
	if on, rest, ok := strings.Cut(text, "/"); ok && on != "" && !isFilename(rest) && !isSHA256(rest) {
		text = rest
		if on != index.PyPI {
			s.by.Index = on
		}
	}
	switch {
	case text == "" || len(text) > 512 || strings.ContainsAny(text, " \t\n/"):
		return s, fmt.Errorf("selector %.60q: give a project, project==version, a file name or a SHA-256", text)
	case isSHA256(text):
		s.by.SHA256, _ = hex.DecodeString(strings.ToLower(text))
	case strings.Contains(text, "=="):
		project, v, _ := strings.Cut(text, "==")
		if project == "" || v == "" {
			return s, fmt.Errorf("selector %q: give project==version", text)
		}
		s.by.Project, s.version = normalize(project), v
	case isFilename(text):
		s.by.Filename = text
	default:
		s.by.Project = normalize(text)
	}
	return s, nil
}

// By is how the index is asked, and the version that is meant, "" for all.
func (s Selector) By() (by index.Selection, version string) { return s.by, s.version }

func isSHA256(text string) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) == 64
}

func isFilename(text string) bool {
	return slices.ContainsFunc([]string{".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".egg", ".exe", ".tar.xz"}, func(ext string) bool {
		return strings.HasSuffix(text, ext)
	})
}

// normalize is the PEP 503 form of a project's name.
func normalize(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' }), "-")
}

// sameVersion compares as PEP 440 does, and letter by letter what is no version.
func sameVersion(a, b string) bool {
	va, errA := version.Parse(a)
	vb, errB := version.Parse(b)
	return a == b || errA == nil && errB == nil && va.Equal(vb)
}

// elsewhere lists the selected project as other indexes have it.
func (s Selector) elsewhere(ctx context.Context, store *index.Store) (names []string, err error) {
	if s.by.Project == "" {
		return nil, nil
	}
	indexes, err := store.IndexesOf(ctx, s.by.Project)
	for _, x := range indexes {
		if x != s.by.Index {
			names = append(names, cmp.Or(x, index.PyPI)+"/"+s.by.Project)
		}
	}
	return names, err
}

// files returns what is selected. Versions that exist come back to be offered
// when the one asked for does not.
func (s Selector) files(ctx context.Context, store *index.Store) (files []index.File, versions []string, err error) {
	all, err := store.Files(ctx, s.by)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range all {
		if !slices.Contains(versions, f.Version) {
			versions = append(versions, f.Version)
		}
		if s.version == "" || sameVersion(f.Version, s.version) {
			files = append(files, f)
		}
	}
	return files, versions, nil
}
