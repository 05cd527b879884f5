package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sigtrail/alerts"
	"sigtrail/api"
	"sigtrail/index"
	"sigtrail/pypi"
	"sigtrail/timeline"
)

func projectsCommand(config *settings, stdout io.Writer) *cobra.Command {
	a := asking{config: config}
	var of string
	c := &cobra.Command{
		Use:   "projects [NAME]",
		Short: "Say how projects stand: releases, provenance, publishers, pins, what is unbound",
		Long: `projects lists the watched projects, or says of one how its releases are attested, who
signed them, who is expected to (pins), and which entries are not bound to a file yet
and why. It reads the database, beside a running daemon or without one, and asks no
network.

A release is none, partial or full by how many of its files have provenance, and
further: inconsistent (from several repositories or workflows), lost (none, and an
earlier release had it), changed (from others than the last attested release), pending
(not everything that this rests on has been fetched), unreadable.

Exit codes: 0 fine, 2 usage, 3 not watched, or the database cannot be read.`,
		Example: "  monitor projects\n  monitor projects sampleproject --limit 10",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if len(args) == 0 {
				return ask(ctx, a, stdout, func(r api.Reader) (api.Projects, error) { return r.Projects(ctx, of, a.page) }, projectsText)
			}
			if !pypi.ValidName(args[0]) {
				return &exit{exitUsage, fmt.Errorf("%.80q cannot be the name of a project", args[0])}
			}
			return ask(ctx, a, stdout, func(r api.Reader) (api.ProjectDetail, error) {
				return r.Project(ctx, of, pypi.Normalize(args[0]), a.page)
			}, projectText)
		},
	}
	a.flags(c, "sigtrail.projects/1, sigtrail.project/1")
	c.Flags().StringVar(&of, "index", "", "package index (default: all in the list, PyPI for one project)")
	return c
}

func projectsText(p api.Projects, s screen) {
	if len(p.Projects) == 0 {
		s.line(plain, "", "No project is watched yet.")
	} else {
		s.row(bold, "%-26s %6s %5s %-26s %5s %5s %7s %6s", "PROJECT", "FILES", "RELS", "LATEST", "PUBLS", "PINS", "UNBOUND", "ALERTS")
	}
	for _, p := range p.Projects {
		latest := "-"
		color := plain
		if p.Latest != nil {
			latest = clip(p.Latest.Version, 11) + " " + clip(stateText(*p.Latest), 14)
			color = stateColor(*p.Latest)
		}
		s.row(color, "%-26s %6d %5d %-26s %5d %5d %7d %6d", clip(index.Qualified(indexPrefix(p.Index), p.Name), 26), p.Files, p.Releases, latest, p.Publishers, pinned(p.Pins), missing(p), p.Alerts)
		if note := projectNote(p); note != "" {
			s.line(plain, "    ", "%s", note)
		}
	}
	s.more(p.Next)
	fmt.Fprintln(s.w)
	s.extent(p.Extent)
}

// projectNote is what is not as usual about a project, "" for nothing.
func projectNote(p api.Project) string {
	var notes []string
	if p.Listed == nil {
		notes = append(notes, "its files have not been listed yet")
	}
	if p.Status != "" && p.Status != "active" {
		notes = append(notes, "status "+p.Status)
	}
	if p.Gone > 0 {
		notes = append(notes, counted(p.Gone, "file", "files")+" gone")
	}
	if p.Unjudged > 0 {
		notes = append(notes, fmt.Sprintf("%d not judged yet", p.Unjudged))
	}
	if p.Changed != nil {
		notes = append(notes, "last change seen "+timeline.Stamp(p.Changed.At))
	}
	return strings.Join(notes, "; ")
}

func missing(p api.Project) int { return index.Missing(p.Missing).Sum() }

func pinned(pins map[string]int) (n int) {
	for _, k := range pins {
		n += k
	}
	return n
}

// indexPrefix is the index as index.Qualified wants it.
func indexPrefix(name string) string {
	if name == index.PyPI {
		return ""
	}
	return name
}

// clip shortens text to columns that it may take after it is escaped.
func clip(text string, columns int) string {
	r := []rune(alerts.Escape(text))
	if len(r) > columns {
		return string(r[:columns-1]) + "…"
	}
	return string(r)
}

func stateText(r api.Release) string {
	var words []string
	for _, w := range r.States {
		words = append(words, string(w))
	}
	if r.Removed {
		words = append(words, "removed")
	}
	return strings.Join(words, ", ")
}

func stateColor(r api.Release) string {
	switch {
	case slices.Contains(r.States, index.StandingLost):
		return red
	case slices.Contains(r.States, index.StandingChanged), slices.Contains(r.States, index.StandingInconsistent):
		return yellow
	}
	return plain
}

func projectText(d api.ProjectDetail, s screen) {
	p := d.Project
	s.line(bold, "", "%s", index.Qualified(indexPrefix(p.Index), p.Name))
	s.line(plain, "  ", "%s in %s, %s, %s", counted(p.Files, "file", "files"), counted(p.Releases, "release", "releases"), counted(p.Publishers, "publisher", "publishers"), counted(p.Alerts, "alert", "alerts"))
	if note := projectNote(p); note != "" {
		s.line(plain, "  ", "%s", note)
	}
	s.line(bold, "", "RELEASES, the newest first")
	for _, r := range d.Releases {
		s.line(stateColor(r), fmt.Sprintf("  %-16s %s  ", clip(r.Version, 16), timeline.Stamp(r.First.At)), "%s", releaseText(r))
	}
	s.more(d.Next)
	s.line(bold, "", "PUBLISHERS that have signed")
	for _, u := range d.Publishers {
		publisherText(u, s)
	}
	s.none(len(d.Publishers))
	s.line(bold, "", "PINS")
	for _, pin := range d.Pins {
		s.line(plain, "  ", "%s (%s since %s: %s)", pin.Publisher, pin.State, timeline.Stamp(pin.Made.At), pin.How)
	}
	s.none(len(d.Pins))
	s.line(bold, "", "UNBOUND, and why")
	for _, u := range d.Unbound {
		s.line(plain, "  ", "%s", unboundText(u))
	}
	if n := missing(p) - len(d.Unbound); n > 0 {
		s.line(plain, "  ", "and %d more", n)
	}
	s.none(missing(p))
	if len(d.Roles) > 0 {
		s.line(bold, "", "ROLES by PyPI's journal, the newest first")
		for _, j := range d.Roles {
			s.line(plain, "  "+timeline.Stamp(j.At.At)+"  ", "%s", j.Action)
		}
	}
	if len(d.Journal) > 0 {
		s.line(bold, "", "PyPI's JOURNAL, the newest first")
		for _, j := range d.Journal {
			s.line(plain, "  "+timeline.Stamp(j.At.At)+"  ", "%s %s", j.Action, j.Version)
		}
	}
	fmt.Fprintln(s.w)
	s.extent(d.Extent)
}

func (s screen) none(n int) {
	if n == 0 {
		s.line(plain, "  ", "none")
	}
}

// releaseText says how a release stands, its marks, and by whom.
func releaseText(r api.Release) string {
	text := fmt.Sprintf("%s: %d of %d files attested", stateText(r), r.Attested, r.Files)
	for _, c := range []struct {
		n    int
		what string
	}{{r.Pending - r.Refused, "not fetched"}, {r.Refused, "refused"}, {r.Unreadable, "unreadable"}, {r.Yanked, "yanked"}, {r.Gone, "gone"}} {
		if c.n > 0 {
			text += fmt.Sprintf(", %d %s", c.n, c.what)
		}
	}
	if len(r.Publishers) > 0 {
		var names []string
		for _, p := range r.Publishers {
			names = append(names, p.String())
		}
		text += "; " + strings.Join(names, " and ")
	}
	if r.Compared != "" && (slices.Contains(r.States, index.StandingLost) || slices.Contains(r.States, index.StandingChanged)) {
		text += "; last attested before it: " + r.Compared
	}
	return text
}

// unboundText says what is missing of a file and why.
func unboundText(u api.Unbound) string {
	global := int64(0)
	if u.Global != nil {
		global = *u.Global
	}
	why := map[index.UnresolvedKind]string{
		index.UnresolvedPending: "its provenance has not been fetched",
		index.UnresolvedRefused: "its provenance is refused: attestations are switched off",
		index.UnresolvedWanted:  fmt.Sprintf("entry %d of %s is to be read again", global, u.Where),
		index.UnresolvedCovered: fmt.Sprintf("entry %d of %s is another one than its provenance shows", global, u.Where),
		index.UnresolvedUnread:  fmt.Sprintf("entry %d of %s has not been read", global, u.Where),
		index.UnresolvedNoLog:   fmt.Sprintf("entry %d is in a log that is not followed", global),
		index.UnresolvedLookup:  fmt.Sprintf("%s has never answered about it", u.Where),
	}[index.UnresolvedKind(u.Why)]
	text := u.File + ": " + why
	if u.Error != "" {
		text += " (" + u.Error + ")"
	}
	if u.Next != nil {
		text += ", next try " + timeline.Stamp(u.Next.At)
	}
	return text
}
