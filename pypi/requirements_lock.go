package pypi

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// A locked is a package of a lock file, in the words that the formats share.
type locked struct {
	name, version string
	hashes        []string
	elsewhere     string // why it is no project of an index; "": it is one
}

// pylock reads the lock file format of PEP 751.
func (r *reading) pylock(path string, text []byte) error {
	type dist struct {
		Hashes map[string]string `toml:"hashes"`
	}
	var f struct {
		LockVersion string `toml:"lock-version"`
		Packages    []struct {
			Name      string         `toml:"name"`
			Version   string         `toml:"version"`
			VCS       map[string]any `toml:"vcs"`
			Directory map[string]any `toml:"directory"`
			Archive   map[string]any `toml:"archive"`
			Sdist     *dist          `toml:"sdist"`
			Wheels    []dist         `toml:"wheels"`
		} `toml:"packages"`
	}
	if err := decodeTOML(path, text, &f); err != nil {
		return err
	}
	if major, _, _ := strings.Cut(f.LockVersion, "."); major != "1" {
		return fmt.Errorf("%s:1: lock-version is %.20q; only 1.x can be read", path, f.LockVersion)
	}
	all := make([]locked, len(f.Packages))
	for i, p := range f.Packages {
		l := locked{name: p.Name, version: p.Version}
		switch {
		case p.VCS != nil:
			l.elsewhere = "comes from a repository, not from an index"
		case p.Directory != nil:
			l.elsewhere = "is a path, not a project of an index"
		case p.Archive != nil:
			l.elsewhere = "comes from an address, not from an index"
		}
		if p.Sdist != nil {
			p.Wheels = append(p.Wheels, *p.Sdist)
		}
		for _, d := range p.Wheels {
			for algorithm, digest := range d.Hashes {
				l.hashes = append(l.hashes, algorithm+":"+digest)
			}
		}
		all[i] = l
	}
	return r.locked(path, lines(text, "packages"), all)
}

// uvLock reads the lock file of uv, whose documentation calls the format its own;
// the field version counts its breaking changes.
func (r *reading) uvLock(path string, text []byte) error {
	type dist struct {
		Hash string `toml:"hash"`
	}
	var f struct {
		Version int64 `toml:"version"`
		Package []struct {
			Name    string         `toml:"name"`
			Version string         `toml:"version"`
			Source  map[string]any `toml:"source"`
			Sdist   *dist          `toml:"sdist"`
			Wheels  []dist         `toml:"wheels"`
		} `toml:"package"`
	}
	if err := decodeTOML(path, text, &f); err != nil {
		return err
	}
	if f.Version != 1 {
		return fmt.Errorf("%s:1: version is %d; only 1 can be read", path, f.Version)
	}
	all := make([]locked, len(f.Package))
	for i, p := range f.Package {
		l := locked{name: p.Name, version: p.Version}
		if p.Source["registry"] == nil && len(p.Source) > 0 {
			l.elsewhere = "comes from a path, a repository or an address, not from an index"
		}
		if p.Sdist != nil {
			p.Wheels = append(p.Wheels, *p.Sdist)
		}
		for _, d := range p.Wheels {
			if d.Hash != "" {
				l.hashes = append(l.hashes, d.Hash)
			}
		}
		all[i] = l
	}
	return r.locked(path, lines(text, "package"), all)
}

// poetryLock reads the lock file of Poetry. Up to lock-version 1.1 the hashes of all
// packages stand together in metadata.files.
func (r *reading) poetryLock(path string, text []byte) error {
	type file struct {
		Hash string `toml:"hash"`
	}
	var f struct {
		Package []struct {
			Name    string `toml:"name"`
			Version string `toml:"version"`
			Files   []file `toml:"files"`
			Source  struct {
				Type string `toml:"type"`
			} `toml:"source"`
		} `toml:"package"`
		Metadata struct {
			LockVersion string            `toml:"lock-version"`
			Files       map[string][]file `toml:"files"`
		} `toml:"metadata"`
	}
	if err := decodeTOML(path, text, &f); err != nil {
		return err
	}
	if major, _, _ := strings.Cut(f.Metadata.LockVersion, "."); major != "1" && major != "2" {
		return fmt.Errorf("%s:1: lock-version is %.20q; only 1.x and 2.x can be read", path, f.Metadata.LockVersion)
	}
	all := make([]locked, len(f.Package))
	for i, p := range f.Package {
		l := locked{name: p.Name, version: p.Version}
		switch p.Source.Type {
		case "", "legacy": // PyPI, or another index
		default:
			l.elsewhere = "comes from a path, a repository or an address, not from an index"
		}
		for _, d := range append(p.Files, f.Metadata.Files[p.Name]...) {
			if d.Hash != "" {
				l.hashes = append(l.hashes, d.Hash)
			}
		}
		all[i] = l
	}
	return r.locked(path, lines(text, "package"), all)
}

// locked takes up the packages of a lock file, of which lines has the lines.
func (r *reading) locked(path string, lines []int, all []locked) error {
	for i, l := range all {
		line := 1
		if len(lines) > 0 {
			line = lines[min(i, len(lines)-1)]
		}
		if l.elsewhere != "" {
			r.omit(path, line, l.elsewhere)
			continue
		}
		for i, h := range l.hashes {
			var err error
			if l.hashes[i], err = parseHash(h); err != nil {
				return fmt.Errorf("%s:%d: %w", path, line, err)
			}
		}
		slices.Sort(l.hashes)
		if err := r.add(Requirement{Project: l.name, Version: l.version, Hashes: slices.Compact(l.hashes), File: path, Line: line}); err != nil {
			return err
		}
	}
	return nil
}

// decodeTOML relies on the library to bound how deep values are nested.
func decodeTOML(path string, text []byte, into any) error {
	err := toml.Unmarshal(text, into)
	if at := (*toml.DecodeError)(nil); errors.As(err, &at) {
		line, column := at.Position()
		return fmt.Errorf("%s:%d:%d: %w", path, line, column, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// lines are those where the tables [[key]] begin. Where they are written as one
// value, it is the line of that.
func lines(text []byte, key string) []int {
	var found []int
	var p unstable.Parser
	line, counted := 1, 0 // the parser would count from the first line each time
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		keys := e.Key()
		if !keys.Next() || !keys.IsLast() || string(keys.Node().Data) != key {
			continue
		}
		if e.Kind == unstable.ArrayTable || e.Kind == unstable.KeyValue && len(found) == 0 {
			at := int(keys.Node().Raw.Offset)
			line += bytes.Count(text[counted:at], []byte("\n"))
			counted = at
			found = append(found, line)
		}
	}
	return found
}
