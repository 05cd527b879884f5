package main

import (
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sigtrail/api"
	"sigtrail/index"
	"sigtrail/monitor"
)

// What is for people fits a terminal of 100 columns, with the names and sizes of the
// public instance, and nothing hostile in it reaches the terminal.
func TestWidth(t *testing.T) {
	const origin, evil = "rekor.sigstore.dev - 1193050959916656506", "evil \x1b[2J\u202e name"
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	counts := lookupCounts{1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000}
	tail := uint64(1_000_000_000)
	s := report{At: at, Logs: []logStatus{{Origin: origin, URL: "https://rekor.sigstore.dev", Tail: &tail, Behind: tail, Grown: &at, Asked: &at,
		Size: 2 * tail, Ranges: [][2]uint64{{0, tail - 9}, {tail - 6, tail - 5}, {tail - 3, tail - 1}, {tail, tail + 7}}, Gaps: [][2]uint64{{1, tail}, {tail, 2 * tail}},
		Cosigned: []cosigner{{Name: evil, KeyID: "0a0b0c0d"}}, Conflict: true}},
		Root:    &rootStatus{Source: "TUF https://tuf-repo-cdn.sigstore.dev", LastSeen: at, Kept: 12},
		Lookups: []lookupStatus{{"https://rekor.sigstore.dev", counts, counts, &at, &at, strings.Repeat(evil+" ", 20)}},
		Scans:   []scanStatus{{origin, tail, 2 * tail, tail + 1}}}
	var scan, list strings.Builder
	if err := (scanReport{Log: origin, From: tail, To: 2 * tail, Bounds: []string{}, For: "sampleproject", Found: 1, Finds: []scanFind{{Index: tail, Time: &at, Clock: "certificate",
		About:  []concern{{File: "sampleproject-4.0.0-cp314-cp314-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", Evidence: "statement", Signature: evil}},
		Signer: "github.com/pypa/sampleproject release.yml (env pypi)", Trust: evil}}}).write(&scan); err != nil {
		t.Fatal(err)
	}
	var asked strings.Builder
	words := strings.Repeat(evil+" ", 20)
	moment := api.Time{At: at}
	release := api.Release{Version: evil, States: []index.StandingWord{"none", "lost", "pending"}, Files: 9_999, Pending: 3, Refused: 1, Yanked: 2, Gone: 1, Compared: evil,
		Publishers: []index.TrustedPublisher{{Kind: evil, Repository: evil, Workflow: evil}}}
	project := api.Project{Index: "company", Name: strings.Repeat("long-", 15) + "name", Status: evil, Changed: &moment, Files: 999_999, Gone: 9, Releases: 99_999, Latest: &release, Unjudged: 9, Alerts: 99_999}
	publisher := api.Publisher{ID: "p1", Publisher: index.Publisher{Issuer: evil, Repository: words, Environment: evil}, Entries: 1, Projects: 30, Names: []string{evil, evil}, Spans: []api.Span{{Clock: "log", Of: "entry"}}}
	extent := api.Extent{Logs: []api.LogExtent{{Origin: origin, How: "read", From: &tail, To: &tail}}}
	projectsText(api.Projects{Projects: []api.Project{project}, Next: "WzEsImEiXQ", Extent: extent}, screen{w: &asked})
	projectText(api.ProjectDetail{Project: project, Releases: []api.Release{release}, Publishers: []api.Publisher{publisher}, Pins: []api.Pin{{State: "learned", How: words}}, Extent: extent,
		Unbound: []api.Unbound{{Why: "leaf-wanted", File: evil, Where: evil, Error: words, Next: &moment}}, Roles: []api.JournalRow{{Action: words}}, Journal: []api.JournalRow{{Action: words, Version: evil}}}, screen{w: &asked})
	writeContradiction(&list, evidenceLine{12345, monitor.ClosedChanged, origin, &tail, &tail, at, strings.Repeat(evil+" ", 20)})
	for _, text := range []string{s.text(), scan.String(), list.String(), asked.String()} {
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 || strings.ContainsAny(line, "\x1b\u202e") {
				t.Errorf("%d columns: %q", n, line)
			}
		}
	}
}

func TestHelpWidth(t *testing.T) {
	t.Setenv("SIGTRAIL_DATABASE", "/"+strings.Repeat("long/", 20)+"sigtrail.db")
	commands := []*cobra.Command{command(io.Discard, io.Discard)}
	for len(commands) > 0 {
		c := commands[0]
		commands = append(commands[1:], c.Commands()...)
		for line := range strings.Lines(c.Long + "\n" + c.UsageString()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%s: %d columns: %q", c.CommandPath(), n, line)
			}
		}
		if c.Runnable() && c.HasParent() && c.Name() != "db" && !strings.Contains(c.Long, "Exit codes") {
			t.Errorf("%s --help says nothing about its exit codes", c.CommandPath())
		}
	}
}
