package timeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"sigtrail/index"
)

// LookupCoverage is what a v1 log was asked in one way. An empty answer is one that
// named nothing: nobody can verify it.
type LookupCoverage struct {
	Server   string     `json:"server"`
	By       string     `json:"by"`                 // provenance, digest, payload, identity
	Identity string     `json:"identity,omitempty"` // the name asked for
	Project  string     `json:"project,omitempty"`  // that has used it
	Files    int        `json:"files,omitempty"`    // asked about
	Empty    int        `json:"files_empty,omitempty"`
	Times    int        `json:"times"` // answers
	First    *time.Time `json:"first,omitempty"`
	Last     *time.Time `json:"last,omitempty"`
	Found    int        `json:"found"`
	Unread   int        `json:"unread,omitempty"` // of those found, not fetched yet
	Error    string     `json:"error,omitempty"`
}

// lookups adds what was asked about the files, and the questions that have no answer,
// or only a weak one.
func (c *Coverage) lookups(ctx context.Context, store *index.Store, files []index.File) error {
	unanswered, empty := 0, 0
	type project struct{ index, name string }
	var projects []project
	for _, f := range files {
		all, err := store.LookupsOf(ctx, f.ID)
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.Answered == 0 {
				unanswered++
			} else if a.Found == 0 && a.Error == "" {
				empty++
			}
			for _, k := range a.Kinds {
				c.asked(a.Server, k)
			}
		}
		if p := (project{f.Index, f.Project}); !slices.Contains(projects, p) {
			projects = append(projects, p)
		}
	}
	for _, p := range projects {
		identities, err := store.IdentitiesOf(ctx, p.index, p.name)
		if err != nil {
			return err
		}
		for _, i := range identities {
			c.Lookups = append(c.Lookups, LookupCoverage{Server: i.Server, By: "identity", Identity: i.Identity, Project: index.Qualified(p.index, p.name),
				Times: i.Times, First: given(i.First), Last: given(i.Last), Found: i.Found, Unread: i.Unread, Error: i.Error})
		}
	}
	order := []string{"provenance", "digest", "payload", "identity"}
	slices.SortStableFunc(c.Lookups, func(a, b LookupCoverage) int {
		return cmp.Or(cmp.Compare(a.Server, b.Server), cmp.Compare(slices.Index(order, a.By), slices.Index(order, b.By)))
	})
	if unanswered > 0 {
		c.Not = append(c.Not, fmt.Sprintf("look-ups about these files that were never answered: %d", unanswered))
	}
	if empty > 0 {
		c.Not = append(c.Not, fmt.Sprintf("look-ups about these files that found nothing, which is no proof that there is nothing: %d", empty))
	}
	if slices.ContainsFunc(c.Lookups, func(l LookupCoverage) bool { return l.By != string(index.LookupProvenance) }) {
		c.Not = append(c.Not, "what the search indexes do not list: they are best effort, and their silence proves nothing")
	}
	return c.silent(ctx, store, files)
}

// asked adds one file's answers to those of the other files.
func (c *Coverage) asked(server string, k index.KindAsked) {
	i := slices.IndexFunc(c.Lookups, func(l LookupCoverage) bool { return l.Server == server && l.By == string(k.Kind) })
	if i < 0 {
		i = len(c.Lookups)
		c.Lookups = append(c.Lookups, LookupCoverage{Server: server, By: string(k.Kind), First: given(k.First), Last: given(k.Last)})
	}
	l := &c.Lookups[i]
	l.Files++
	l.Times += k.Times
	l.Found += k.Found
	if k.Found == 0 {
		l.Empty++
	}
	if k.First.Before(*l.First) {
		l.First = given(k.First)
	}
	if k.Last.After(*l.Last) {
		l.Last = given(k.Last)
	}
}

// silent adds the servers that answer nothing now.
func (c *Coverage) silent(ctx context.Context, store *index.Store, files []index.File) error {
	if len(files) == 0 {
		return nil
	}
	servers, err := store.SilentServers(ctx)
	for _, s := range servers {
		c.Not = append(c.Not, fmt.Sprintf("what %s would answer: it has not answered since %s", s.Server, Stamp(s.Since)))
	}
	return err
}

func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return at(t)
}

// String is the look-up for people.
func (l LookupCoverage) String() string {
	by := map[string]string{"provenance": "index in the provenance", "digest": "file digest", "payload": "digest of the statement", "identity": "signer " + l.Identity}[l.By]
	s := fmt.Sprintf("%s by %s: ", l.Server, by)
	switch {
	case l.Times == 0 && l.Last == nil:
		return s + "not asked yet"
	case l.Times == 0:
		return s + fmt.Sprintf("asked, last %s, without an answer: %s", Stamp(*l.Last), l.Error)
	}
	s += fmt.Sprintf("asked %s", counted(l.Times, "time"))
	if l.Files > 0 {
		s += fmt.Sprintf(" about %s", counted(l.Files, "file"))
	}
	if l.Last != nil {
		s += ", last " + Stamp(*l.Last)
	}
	switch {
	case l.Found == 0:
		s += "; nothing found, unverifiable"
	case l.By == "identity":
		s += fmt.Sprintf("; %d entries named", l.Found)
	default:
		s += fmt.Sprintf("; %d found", l.Found)
		if l.Empty > 0 {
			s += fmt.Sprintf(", nothing for %s, unverifiable", counted(l.Empty, "file"))
		}
	}
	if l.Unread > 0 {
		s += fmt.Sprintf(", %d not fetched yet", l.Unread)
	}
	if l.Error != "" {
		s += "; " + l.Error
	}
	return s
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
