package timeline

import (
	"context"
	"fmt"
	"slices"

	"sigtrail/index"
)

// eventPage is how many of a project's events are read at a time.
const eventPage = 1000

// seenEvents are what the package index showed about the files, their releases and
// their projects, by when it was seen here.
func seenEvents(ctx context.Context, store *index.Store, files []index.File) ([]Event, error) {
	type project struct{ index, name string }
	selected := make(map[index.FileID]bool)
	versions := make(map[project][]string)
	for _, f := range files {
		selected[f.ID] = true
		p := project{f.Index, f.Project}
		versions[p] = append(versions[p], f.Version)
	}
	var out []Event
	for p, of := range versions {
		about := func(e index.PyPIEvent) bool {
			switch {
			case e.FileID != 0:
				return selected[e.FileID]
			case e.Version == "":
				return true
			}
			return slices.ContainsFunc(of, func(v string) bool { return sameVersion(v, e.Version) })
		}
		from := len(out)
		q := index.EventQuery{Index: p.index, Project: p.name, Limit: eventPage}
		for read := eventPage; read == eventPage; {
			read = 0
			err := store.Events(ctx, q, func(e index.PyPIEvent) error {
				read, q.After = read+1, e.N
				if about(e) {
					out = append(out, seenEvent(e))
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		on(p.index, out[from:])
	}
	return out, nil
}

func seenEvent(e index.PyPIEvent) Event {
	text := e.String()
	if !e.First.IsZero() {
		text += "; seen before at " + Stamp(e.First)
	}
	if e.Cause != nil && e.Source != index.FromJournal {
		text += fmt.Sprintf(" (journal %d: %s)", e.Cause.Serial, e.Cause.Action)
	}
	return Event{At: at(e.At), Clock: ClockSeen, Kind: string(e.Kind), Text: text, Project: e.Project, Version: e.Version, File: e.File}
}
