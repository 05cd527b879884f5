package pypi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigtrail/index"
)

// progressKey is the setting that progress is kept under.
const progressKey = "pypi_progress"

// progress is what has to be known, beside the journal's serial, to read no listing
// twice and to miss none.
//
// It is written before the serial moves past the rows that it sums up. A crash
// between the two leaves work on the list that is done again; a crash between a
// stored listing and the next write does too.
type progress struct {
	// Covered projects have been listed since the journal is followed, and all
	// their rows since then were seen. Only they can rest until the journal
	// names them; a project that comes into the configuration, or comes back,
	// has to be read first.
	Covered map[string]bool `json:"covered"`

	// Pending projects have been named by the journal since their listing.
	Pending map[string]change `json:"pending"`

	changed bool
}

// A change is the newest that the journal says of a project.
type change struct {
	Serial  int64 `json:"serial"`
	Removed bool  `json:"removed,omitempty"` // the whole project was deleted
}

// loadProgress starts afresh where there is nothing to read: then every listing is
// read once more, and nothing is lost.
func loadProgress(ctx context.Context, s Store) (*progress, error) {
	p := new(progress)
	text, ok, err := s.Setting(ctx, progressKey)
	if err != nil {
		return nil, err
	}
	if ok && json.Unmarshal([]byte(text), p) != nil {
		p = new(progress)
	}
	if p.Covered == nil {
		p.Covered = map[string]bool{}
	}
	if p.Pending == nil {
		p.Pending = map[string]change{}
	}
	return p, nil
}

func (p *progress) save(ctx context.Context, s Store) error {
	if !p.changed {
		return nil
	}
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("storing how far PyPI was read: %w", err)
	}
	if err := s.SetSetting(ctx, progressKey, string(text)); err != nil {
		return err
	}
	p.changed = false
	return nil
}

// keepOnly forgets projects that are not watched any more: their rows pass by
// unseen from now on.
func (p *progress) keepOnly(projects []string) {
	watched := make(map[string]bool, len(projects))
	for _, name := range projects {
		watched[name] = true
	}
	for _, name := range append(slices.Collect(maps.Keys(p.Covered)), slices.Collect(maps.Keys(p.Pending))...) {
		if !watched[name] {
			p.forget(name)
		}
	}
}

func (p *progress) forget(name string) {
	delete(p.Covered, name)
	delete(p.Pending, name)
	p.changed = true
}

// named takes in a row of the journal.
func (p *progress) named(r index.JournalRow) {
	c := p.Pending[r.Project]
	c.Serial = r.Serial
	switch {
	case r.Action == "remove project":
		c.Removed = true
	case r.Action == "create", r.Action == "new release", strings.HasPrefix(r.Action, "add ") && strings.Contains(r.Action, " file "):
		c.Removed = false // somebody has the name again
	}
	p.Pending[r.Project] = c
	p.changed = true
}

// listed takes in that a listing as new as the change has been stored. Followed says
// whether the journal is being followed, without which nothing is covered.
func (p *progress) listed(name string, followed bool) {
	_, pending := p.Pending[name]
	if pending || (followed && !p.Covered[name]) {
		delete(p.Pending, name)
		if followed {
			p.Covered[name] = true
		}
		p.changed = true
	}
}
