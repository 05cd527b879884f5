package pypi

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Requirements are the projects that files of dependencies name. Four formats are
// read, told apart by the file's name:
//
//	pylock.toml, pylock.NAME.toml   PEP 751
//	uv.lock
//	poetry.lock
//	any other name                  pip's requirements file format
//
// Markers are not evaluated: a project that is needed on one platform or for one
// extra is among them. So are the projects of constraint files.
type Requirements struct {
	List    []Requirement
	Omitted []Omission
	Files   []string // that were read, each before those it includes

	stamps map[string]stamp
}

// A Requirement is a project, and the line that names it.
type Requirement struct {
	Project string   // normalised
	Version string   // pinned, as it is spelled there; "": none is
	Hashes  []string // of the files that may be installed, ALGORITHM:HEX; none: any may
	File    string
	Line    int
}

// An Omission is a line that asks for something which no project of an index is,
// or which cannot be followed.
type Omission struct {
	File string
	Line int
	Why  string // never has the line's own text, in which there may be a password
}

// Projects are the names, sorted, each once.
func (r *Requirements) Projects() []string {
	var names []string
	for _, q := range r.List {
		names = append(names, q.Project)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

const (
	maxRequirementsFile = 16 << 20 // bytes; lock files of large workspaces have 5 MB
	maxRequirements     = 100_000  // in all files together
	maxIncluded         = 256      // files
	maxIncludeDepth     = 16
)

// ReadRequirements reads files and what they include. An error names file and line;
// then nothing of what was read should be used, because a part looks like a whole.
func ReadRequirements(files ...string) (*Requirements, error) {
	r := reading{Requirements: Requirements{stamps: map[string]stamp{}}}
	for _, f := range files {
		parse, err := r.format(f)
		if err != nil {
			return nil, err
		}
		if err := r.file(f, parse); err != nil {
			return nil, err
		}
	}
	return &r.Requirements, nil
}

// reading is a reading under way.
type reading struct {
	Requirements
	within []string // the files that are being read, outermost first
}

type parser func(path string, text []byte) error

var isPylock = regexp.MustCompile(`^pylock(\.[^.]+)?\.toml$`)

func (r *reading) format(path string) (parser, error) {
	base := filepath.Base(path)
	switch {
	case isPylock.MatchString(base):
		return r.pylock, nil
	case base == "uv.lock":
		return r.uvLock, nil
	case base == "poetry.lock":
		return r.poetryLock, nil
	case slices.Contains([]string{".toml", ".lock", ".json", ".yaml", ".yml"}, filepath.Ext(base)) || base == "Pipfile":
		return nil, fmt.Errorf("%s: not a file that requirements are read from; give a requirements.txt, pylock.toml, uv.lock or poetry.lock", path)
	}
	return r.pip, nil
}

// file reads one file, unless that has been done.
func (r *reading) file(path string, parse parser) error {
	path = filepath.Clean(path)
	if slices.Contains(r.within, path) {
		return fmt.Errorf("%s includes itself, by way of %s", path, strings.Join(r.within, ", "))
	}
	if _, done := r.stamps[path]; done {
		return nil
	}
	switch {
	case len(r.within) >= maxIncludeDepth:
		return fmt.Errorf("%s: files include each other more than %d deep", path, maxIncludeDepth)
	case len(r.Files) >= maxIncluded:
		return fmt.Errorf("%s: more than %d files", path, maxIncluded)
	}
	text, s, err := readStamped(path)
	if err != nil {
		return err
	}
	r.Files = append(r.Files, path)
	r.stamps[path] = s
	r.within = append(r.within, path)
	err = parse(path, text)
	r.within = r.within[:len(r.within)-1]
	return err
}

// add takes up a project whose name and version are to be checked.
func (r *reading) add(q Requirement) error {
	if !ValidName(q.Project) {
		return fmt.Errorf("%s:%d: %.80q is not the name of a project", q.File, q.Line, q.Project)
	}
	if len(q.Version) > maxVersion || !isPrintable(q.Version) {
		return fmt.Errorf("%s:%d: %.80q is not a version", q.File, q.Line, q.Version)
	}
	if len(r.List) >= maxRequirements {
		return fmt.Errorf("%s:%d: more than %d requirements", q.File, q.Line, maxRequirements)
	}
	q.Project = Normalize(q.Project)
	r.List = append(r.List, q)
	return nil
}

func (r *reading) omit(file string, line int, why string) {
	if len(r.Omitted) < maxRequirements {
		r.Omitted = append(r.Omitted, Omission{file, line, why})
	}
}

var hexDigits = map[string]int{"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128, "blake2b": 128, "blake2s": 64}

// parseHash checks ALGORITHM:HEX; of algorithms that are not known, the form only.
func parseHash(text string) (string, error) {
	algorithm, digest, _ := strings.Cut(strings.ToLower(text), ":")
	if n := hexDigits[algorithm]; algorithm == "" || digest == "" || len(digest) > 256 || n != 0 && len(digest) != n ||
		strings.Trim(digest, "0123456789abcdef") != "" || strings.Trim(algorithm, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return "", fmt.Errorf("%.80q is not a hash; it must be like sha256:HEX", text)
	}
	return algorithm + ":" + digest, nil
}

// A stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
	sum      [sha256.Size]byte
	settled  bool // it was not just being written: the same time and size mean the same text
}

// settling is how long a file must have been left alone to count as written: longer
// than the times of any file system are coarse.
const settling = 2 * time.Second

func readStamped(path string) ([]byte, stamp, error) {
	// Looked at before it is opened: opening a named pipe waits for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, stamp{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, stamp{}, fmt.Errorf("%s: not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, stamp{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRequirementsFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, stamp{}, err
	}
	if len(text) > maxRequirementsFile {
		return nil, stamp{}, fmt.Errorf("%s: larger than %d MiB", path, maxRequirementsFile>>20)
	}
	return text, stamp{info.ModTime(), info.Size(), sha256.Sum256(text), !isFresh(info.ModTime())}, nil
}

// isFresh reports whether a file has just been written. One from the future has not.
func isFresh(modified time.Time) bool {
	age := time.Since(modified)
	return age >= 0 && age < settling
}
