package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sigtrail/api"
	"sigtrail/timeline"
)

func publishersCommand(config *settings, stdout io.Writer) *cobra.Command {
	a := asking{config: config}
	c := &cobra.Command{
		Use:   "publishers [SELECTOR]",
		Short: "Say which publishers have signed what, and from when to when",
		Long: `publishers lists who has signed files of watched projects: each certificate identity
with its numeric ids, workflow and environment. A SELECTOR is part of a repository,
owner, issuer or identity, a numeric id, or a project. Only entries count whose
certificate leads to the trusted root, on evidence that no third party can make up.
It reads the database, beside a running daemon or without one, and asks no network.

Exit codes: 0 fine, 2 usage, 3 the database cannot be read.`,
		Example: "  monitor publishers\n  monitor publishers github.com/pypa",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			selector := strings.Join(args, "")
			return ask(ctx, a, stdout, func(r api.Reader) (api.Publishers, error) { return r.Publishers(ctx, selector, a.page) }, publishersText)
		},
	}
	a.flags(c, "sigtrail.publishers/1")
	return c
}

func publishersText(p api.Publishers, s screen) {
	for _, u := range p.Publishers {
		publisherText(u, s)
	}
	if len(p.Publishers) == 0 {
		s.line(plain, "", "No publisher is known by that.")
	}
	s.more(p.Next)
	fmt.Fprintln(s.w)
	s.extent(p.Extent)
}

func publisherText(u api.Publisher, s screen) {
	color := plain
	if u.Entries == 0 {
		color = yellow
	}
	s.line(color, "  ", "%s", u.Publisher)
	p := u.Publisher
	var ids []string
	for _, id := range [][2]string{{"id", u.ID}, {"issuer", strings.TrimPrefix(p.Issuer, "https://")}, {"repository", p.RepositoryID}, {"owner", p.OwnerID}, {"environment", p.Environment}} {
		if id[1] != "" {
			ids = append(ids, id[0]+" "+id[1])
		}
	}
	s.line(plain, "      ", "%s", strings.Join(ids, ", "))
	if u.Entries == 0 {
		s.line(plain, "      ", "nothing that is vouched for: its certificates are not trusted, or anybody could have logged the entries")
		return
	}
	s.line(plain, "      ", "%s for %s%s", counted(u.Entries, "entry", "entries"), counted(u.Projects, "project", "projects"), namesText(u))
	for _, span := range u.Spans {
		s.line(plain, "      ", "%s to %s (%s, %s)", timeline.Stamp(span.First), timeline.Stamp(span.Last), span.Clock, span.Of)
	}
}

func namesText(u api.Publisher) string {
	if len(u.Names) == 0 {
		return ""
	}
	text := ": " + strings.Join(u.Names, ", ")
	if n := u.Projects - len(u.Names); n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}
