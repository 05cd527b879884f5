package pypi

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
)

// A Scope is what is to be watched: projects by name, and those that files of
// requirements name, which are read again when they change.
type Scope struct {
	Names   []string      // in any spelling
	Files   []string      // see Requirements
	Every   time.Duration // between looks at the files; default 10 s
	Log     *slog.Logger  // nil: discard
	Changed func(projects []string)

	read     *Requirements
	projects []string
	failure  string // of the last look; "": it went well
}

// Load reads the files and returns the projects, normalised, sorted, each once.
func (s *Scope) Load(ctx context.Context) ([]string, error) {
	s.Every = cmp.Or(s.Every, 10*time.Second)
	s.Log = cmp.Or(s.Log, slog.New(slog.DiscardHandler))
	for _, name := range s.Names {
		if !ValidName(name) {
			return nil, fmt.Errorf("%.80q is not the name of a project", name)
		}
	}
	read, err := ReadRequirements(s.Files...)
	if err != nil {
		return nil, fmt.Errorf("requirements: %w", err)
	}
	s.take(ctx, read)
	return s.projects, nil
}

// Run looks at the files until ctx ends, which is no error. Files that cannot be
// read leave everything as it is: a project must not go unwatched because a file
// was being replaced. Load comes first.
func (s *Scope) Run(ctx context.Context) error {
	if len(s.Files) == 0 {
		return nil
	}
	for sleep(ctx, s.Every) == nil {
		s.look(ctx)
	}
	return nil
}

func (s *Scope) look(ctx context.Context) {
	changed, writing := s.read.outdated()
	if writing || !changed && s.failure == "" {
		return
	}
	read, err := ReadRequirements(s.Files...)
	if err != nil {
		if s.failure != err.Error() {
			s.failure = err.Error()
			s.Log.ErrorContext(ctx, "cannot read requirements; the same projects stay watched", "error", err)
		}
		return
	}
	s.failure = ""
	before := s.projects
	s.take(ctx, read)
	added, removed := without(s.projects, before), without(before, s.projects)
	s.Log.InfoContext(ctx, "requirements have changed", "projects", len(s.projects), "added", few(added), "removed", few(removed))
	if len(added)+len(removed) > 0 {
		s.Changed(s.projects)
	}
}

// take takes up what was read, and says what was left out that was not before.
func (s *Scope) take(ctx context.Context, read *Requirements) {
	told := map[Omission]bool{}
	if s.read != nil {
		for _, o := range s.read.Omitted {
			told[o] = true
		}
	}
	more := 0
	for _, o := range read.Omitted {
		if told[o] {
			continue
		}
		if more++; more <= fewest {
			s.Log.InfoContext(ctx, "a requirement is not watched", "file", o.File, "line", o.Line, "why", o.Why)
		}
	}
	if more > fewest {
		s.Log.InfoContext(ctx, "more requirements are not watched", "lines", more-fewest)
	}
	projects := read.Projects()
	for _, name := range s.Names {
		projects = append(projects, Normalize(name))
	}
	slices.Sort(projects)
	s.read, s.projects = read, slices.Compact(projects)
}

const fewest = 20 // names or lines that are told one by one

func few(names []string) []string { return names[:min(len(names), fewest)] }

// without are the names of a that b has not; both are sorted.
func without(a, b []string) (rest []string) {
	for _, name := range a {
		if _, also := slices.BinarySearch(b, name); !also {
			rest = append(rest, name)
		}
	}
	return rest
}

// outdated reports whether a file is another than the one that was read, or gone,
// and whether one is just being written, of which a part would be read.
func (r *Requirements) outdated() (changed, writing bool) {
	for path, old := range r.stamps {
		info, err := os.Stat(path)
		if err != nil {
			changed = true
			continue
		}
		if old.settled && info.ModTime().Equal(old.modified) && info.Size() == old.size {
			continue
		}
		if isFresh(info.ModTime()) {
			writing = true
			continue
		}
		_, now, err := readStamped(path)
		if err != nil || now.sum != old.sum {
			changed = true
			continue
		}
		r.stamps[path] = now
	}
	return changed, writing
}
