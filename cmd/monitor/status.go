package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/monitor"
	"sigtrail/timeline"
)

func statusCommand(config *settings, stdout io.Writer) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what has been seen of each log, and what has not",
		Long: `status reads the database, beside a running daemon or without one, and says for each
log: the newest verified head, how far the tail has come and how far it is behind,
which leaves are proven and indexed, which were passed and not read, who cosigned
the head, and whether the log has contradicted itself. It asks no network.

Exit codes: 0 fine, 2 usage, 3 the database cannot be read, 4 a log has
contradicted itself.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.load()
			if err != nil {
				return &exit{exitUsage, err}
			}
			s, err := readStatus(cmd.Context(), c.Database)
			if err != nil {
				return failed(err)
			}
			if asJSON {
				out := json.NewEncoder(stdout)
				out.SetIndent("", "  ")
				err = out.Encode(s)
			} else {
				_, err = io.WriteString(stdout, s.text())
			}
			if err == nil && s.conflicts() {
				return &exit{exitConvicts, nil}
			}
			return failed(err)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "JSON (sigtrail.status/1)")
	return c
}

// A report is what has been seen and what has not (sigtrail.status/1). Indexes are
// those of the tree; ranges are [first, past).
type report struct {
	Schema   string         `json:"schema"`
	Database string         `json:"database"`
	At       time.Time      `json:"at"`
	Logs     []logStatus    `json:"logs"`
	Root     *rootStatus    `json:"trusted_root,omitempty"` // absent: none had yet
	Lookups  []lookupStatus `json:"look_ups,omitempty"`     // of each v1 server's search index
	Scans    []scanStatus   `json:"unfinished_scans,omitempty"`
	Shown    shownStatus    `json:"heads_from_elsewhere"`
	PyPI     *int64         `json:"pypi_serial,omitempty"` // journal read up to here; absent: never
	Watched  pypiStatus     `json:"pypi"`
	Files    filesStatus    `json:"files"`             // on all indexes
	Indexes  []indexStatus  `json:"indexes,omitempty"` // beside PyPI
	Unbound  int64          `json:"unbound"`           // leaves kept for files that may appear
	Forms    []formStatus   `json:"forms"`
}

type indexStatus struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Serial   *int64 `json:"serial,omitempty"` // journal read up to here; absent: never
	Projects int    `json:"projects"`
	Files    int    `json:"files"`
}

// formStatus is how often a form of signing a file was met.
type formStatus struct {
	What string     `json:"what"` // bound, attested, unknown
	Form string     `json:"form"` // template and digest, template, what is different
	N    int64      `json:"n"`
	Last *time.Time `json:"last,omitempty"`
}

type logStatus struct {
	Origin   string      `json:"origin"`
	API      monitor.API `json:"api"`
	URL      string      `json:"url"`
	First    uint64      `json:"first_global,omitempty"` // v1: global index of leaf 0
	Closed   *uint64     `json:"closed_at,omitempty"`    // leaves; absent: open
	Size     uint64      `json:"head_size"`
	Root     string      `json:"head_root"`
	Seen     time.Time   `json:"head_seen"`
	Asked    *time.Time  `json:"asked,omitempty"`        // when it last showed a verified head
	Grown    *time.Time  `json:"grown,omitempty"`        // when it was last seen to be larger
	Rest     float64     `json:"longest_rest_seconds"`   // that it was seen to stand still before it grew
	Tail     *uint64     `json:"tail,omitempty"`         // next leaf of the tail; absent: not tailed
	Behind   uint64      `json:"behind_entries"`         // of the tail
	Waiting  float64     `json:"behind_seconds"`         // since the log showed the tail's next leaf
	Covered  uint64      `json:"covered_entries"`        // proven and indexed
	Ranges   [][2]uint64 `json:"covered"`                // in order, never touching
	Gaps     [][2]uint64 `json:"gaps,omitempty"`         // passed by the tail and not read
	Cosigned []cosigner  `json:"cosignatures,omitempty"` // of the newest head
	Conflict bool        `json:"contradicts_itself"`
}

type cosigner struct {
	Name     string     `json:"name"`
	KeyID    string     `json:"key_id"`       // hex, as on the signature line
	At       *time.Time `json:"at,omitempty"` // the cosigner's clock
	Verified bool       `json:"verified"`
}

type rootStatus struct {
	SHA256    string    `json:"sha256"`
	Source    string    `json:"source"`
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
	Kept      int       `json:"kept"` // distinct ones on record
}

// lookupStatus counts questions. An empty answer is unverifiable: the index is best
// effort, and nobody signs what it leaves out.
type lookupStatus struct {
	Server     string       `json:"server"`
	Files      lookupCounts `json:"files"`
	Identities lookupCounts `json:"identities"`
	Answered   *time.Time   `json:"answered,omitempty"` // the last answer
	Failing    *time.Time   `json:"failing,omitempty"`  // since then it has answered nothing
	Error      string       `json:"error,omitempty"`
}

type lookupCounts struct {
	Due        int `json:"due"`
	Unanswered int `json:"unanswered"`
	Empty      int `json:"asked_nothing_found_unverifiable"`
	Found      int `json:"found"`
	Failed     int `json:"failed"`
}

// scanStatus is a range [From, Past) that is read up to Next.
type scanStatus struct {
	Origin string `json:"origin"`
	From   uint64 `json:"from"`
	Past   uint64 `json:"past"`
	Next   uint64 `json:"next"`
}

type shownStatus struct {
	Waiting  int `json:"waiting"`  // to be compared
	Unsigned int `json:"unsigned"` // not signed by the log they name
}

type filesStatus struct {
	Listed  int `json:"listed"`
	Waiting int `json:"steps_waiting"` // fetches, look-ups and judgements that are outstanding
}

func readStatus(ctx context.Context, path string) (report, error) {
	s := report{Schema: "sigtrail.status/1", Database: path, At: time.Now().UTC(), Logs: []logStatus{}}
	store, err := index.OpenReadOnly(ctx, path)
	if err != nil {
		return s, err
	}
	defer store.Close()
	logs, err := store.LogStatuses(ctx)
	if err != nil {
		return s, err
	}
	for _, l := range logs {
		s.Logs = append(s.Logs, newLogStatus(l, s.At))
		scans, err := store.Scans(ctx, l.Log)
		if err != nil {
			return s, err
		}
		for _, c := range scans {
			if c.Finished.IsZero() {
				s.Scans = append(s.Scans, scanStatus{l.Log.Origin, c.Range.From, c.Range.To, c.Next})
			}
		}
	}
	lookups, err := store.LookupSummary(ctx)
	if err != nil {
		return s, err
	}
	for _, l := range lookups {
		s.Lookups = append(s.Lookups, lookupStatus{l.Server, lookupCounts(l.Files), lookupCounts(l.Identities), moment(l.Answered), moment(l.Failing), l.Error})
	}
	roots, err := store.TrustedRoots(ctx)
	if err != nil {
		return s, err
	}
	if n := len(roots); n > 0 {
		r := roots[n-1]
		s.Root = &rootStatus{r.SHA256, r.Source, r.FirstSeen.UTC(), r.LastSeen.UTC(), n}
	}
	if s.Shown.Waiting, s.Shown.Unsigned, err = store.ShownCount(ctx); err != nil {
		return s, err
	}
	serial, ok, err := store.PyPI().Serial(ctx)
	if err != nil {
		return s, err
	}
	if ok {
		s.PyPI = &serial
	}
	if s.Watched, err = readPyPIStatus(ctx, store.PyPI()); err != nil {
		return s, err
	}
	others, err := store.OtherIndexes(ctx)
	if err != nil {
		return s, err
	}
	for _, x := range others {
		s.Indexes = append(s.Indexes, indexStatus(x))
	}
	forms, err := store.Forms(ctx)
	if err != nil {
		return s, err
	}
	for _, f := range forms {
		s.Forms = append(s.Forms, formStatus{f.What, f.Form, f.N, moment(f.Last)})
	}
	if s.Unbound, err = store.Unbound(ctx); err != nil {
		return s, err
	}
	p, err := store.Progress(ctx)
	s.Files = filesStatus{p.Files, p.Waiting}
	return s, err
}

func newLogStatus(l index.LogStatus, now time.Time) logStatus {
	s := logStatus{
		Origin: l.Log.Origin, API: l.Log.API, URL: l.Log.URL, First: l.Log.FirstGlobal, Closed: l.ClosedSize,
		Size: l.Head.Size, Root: l.Head.Root.String(), Seen: l.Head.Seen.UTC(), Asked: moment(l.Checked), Grown: moment(l.Habit.Grown),
		Rest: l.Habit.Rest.Seconds(), Tail: l.Next, Covered: l.Covered(), Ranges: pairs(l.Coverage), Gaps: pairs(l.Gaps()), Conflict: l.Conflict,
	}
	if l.Next != nil {
		s.Behind = l.Head.Size - min(*l.Next, l.Head.Size)
	}
	if !l.Waiting.IsZero() {
		s.Waiting = now.Sub(l.Waiting).Seconds()
	}
	for _, c := range l.Head.Cosigned {
		s.Cosigned = append(s.Cosigned, cosigner{c.Name, fmt.Sprintf("%08x", c.Hint), moment(c.At), c.Verified})
	}
	return s
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func pairs(ranges []monitor.Range) [][2]uint64 {
	out := [][2]uint64{}
	for _, r := range ranges {
		out = append(out, [2]uint64{r.From, r.To})
	}
	return out
}

func (s report) conflicts() bool {
	for _, l := range s.Logs {
		if l.Conflict {
			return true
		}
	}
	return false
}

// statusText is the status for people, a section after the other.
type statusText struct{ strings.Builder }

func (b *statusText) say(first, format string, args ...any) {
	wrapped(b, first, fmt.Sprintf(format, args...))
}

func (b *statusText) line(name, format string, args ...any) {
	b.say(fmt.Sprintf("  %-9s ", name), format, args...)
}

func (s report) text() string {
	b := new(statusText)
	s.logs(b)
	s.lookups(b)
	s.sources(b)
	s.signed(b)
	return b.String()
}

// logs says what was seen of each log, and which scans are unfinished.
func (s report) logs(b *statusText) {
	for _, l := range s.Logs {
		state := "open"
		if l.Closed != nil {
			state = fmt.Sprintf("closed at %d", *l.Closed)
		}
		fmt.Fprintf(b, "%s (%s, %s)\n", alerts.Escape(l.Origin), l.API, state)
		b.line("read at", "%s", l.URL)
		b.line("head", "%d leaves, seen %s%s", l.Size, timeline.Stamp(l.Seen), s.ago(" (", l.Seen, ")"))
		if l.Asked != nil && l.Grown != nil {
			b.line("habit", "last larger %s ago, asked %s ago, longest rest seen %s", s.ago("", *l.Grown, ""), s.ago("", *l.Asked, ""), short(l.Rest))
		}
		switch {
		case l.Tail == nil:
			b.line("tail", "none: entries are looked up or scanned")
		case l.Behind == 0:
			b.line("tail", "at %d, the end", *l.Tail)
		default:
			b.line("tail", "at %d, behind by %d leaves and %s", *l.Tail, l.Behind, short(l.Waiting))
		}
		b.line("covered", "%d leaves, %s: %s", l.Covered, share(l.Covered, l.Size), timeline.Spans(l.Ranges))
		if len(l.Gaps) > 0 {
			b.line("gaps", "%s; monitor scan closes them", timeline.Spans(l.Gaps))
		}
		for _, c := range l.Cosigned {
			known := "by no configured witness"
			if c.Verified {
				known = "verified"
			}
			b.line("cosigned", "%s (%s), %s", c.Name, c.KeyID, known)
		}
		if l.Conflict {
			b.line("CONFLICT", "it has contradicted itself; list the evidence with monitor evidence")
		}
		b.WriteString("\n")
	}
	for _, c := range s.Scans {
		b.say("", "unfinished scan of %s: %d to %d, read up to %d; the same command again goes on", c.Origin, c.From, c.Past-1, c.Next)
		b.WriteString("\n")
	}
	if len(s.Logs) == 0 {
		b.WriteString("No head of any log has been verified yet.\n\n")
	}
}

// lookups says how the search indexes answer.
func (s report) lookups(b *statusText) {
	for _, l := range s.Lookups {
		fmt.Fprintf(b, "look-ups on %s\n", alerts.Escape(l.Server))
		for _, of := range []struct {
			name string
			lookupCounts
		}{{"files", l.Files}, {"signers", l.Identities}} {
			b.line(of.name, "%d found something; %d asked, nothing found, unverifiable; %d never answered; %d failed last; %d due", of.Found, of.Empty, of.Unanswered, of.Failed, of.Due)
		}
		if l.Failing != nil {
			b.line("FAILING", "since %s: %s", timeline.Stamp(*l.Failing), l.Error)
		}
		b.WriteString("\n")
	}
}

// sources says what is known of the trusted root, of heads from elsewhere and of the
// package indexes.
func (s report) sources(b *statusText) {
	if s.Root == nil {
		b.WriteString("trusted root: none yet\n")
	} else if s.Root.LastSeen.Unix() == 0 {
		b.WriteString("trusted root: one that an earlier version kept, which did not say when\n")
	} else {
		b.say("trusted root: ", "%s, last had %s%s; %d on record", s.Root.Source, timeline.Stamp(s.Root.LastSeen), s.ago(" (", s.Root.LastSeen, " ago)"), s.Root.Kept)
	}
	fmt.Fprintf(b, "heads from elsewhere: %d wait to be compared, %d were not signed by the log they name\n", s.Shown.Waiting, s.Shown.Unsigned)
	if s.PyPI == nil {
		b.WriteString("PyPI: its journal has not been read\n")
	} else {
		fmt.Fprintf(b, "PyPI: journal read up to serial %d; %d files known; %d fetches, look-ups and judgements to do\n", *s.PyPI, s.Files.Listed, s.Files.Waiting)
	}
	wrapped(b, "", s.Watched.text())
	for _, x := range s.Indexes {
		journal := "no journal read"
		if x.Serial != nil {
			journal = fmt.Sprintf("journal read up to serial %d", *x.Serial)
		}
		b.say(x.Name+": ", "%s; %d projects and %d files of those known; %s", journal, x.Projects, x.Files, x.URL)
	}
}

// signed says what waits for a file, and what was signed in which form.
func (s report) signed(b *statusText) {
	fmt.Fprintf(b, "unbound: %d leaves are kept for files that may appear\n", s.Unbound)
	for _, of := range []struct{ what, said string }{
		{"bound", "entries by what was signed: "},
		{"attested", "statements in provenance by template: "},
		{"unknown", "statements in provenance that no template writes, by what is different: "},
	} {
		var counts []string
		for _, f := range s.Forms {
			if f.What == of.what {
				counts = append(counts, fmt.Sprintf("%s %d", f.Form, f.N))
			}
		}
		if len(counts) > 0 {
			b.say("", "%s%s", of.said, strings.Join(counts, ", "))
		}
	}
}

// wrapped writes text that may be hostile, in 100 columns.
func wrapped(w io.Writer, first, text string) {
	for _, l := range timeline.Wrap(first, alerts.Escape(text), 100) {
		fmt.Fprintln(w, l)
	}
}

func (s report) ago(before string, t time.Time, after string) string {
	return before + short(s.At.Sub(t).Seconds()) + after
}

// short writes a duration in seconds as people say it.
func short(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

func share(part, whole uint64) string {
	if part == whole {
		return "all"
	}
	return fmt.Sprintf("%.4g %%", 100*float64(part)/float64(max(whole, 1)))
}

// settings are the flags that say which configuration and database are meant.
type settings struct{ path, database string }

func (s *settings) load() (Config, error) {
	c, err := loadConfig(s.path)
	if err == nil && s.database != "" {
		c.Database = s.database
	}
	return c, err
}

func (s *settings) flags(c *cobra.Command) {
	c.PersistentFlags().StringVar(&s.path, "config", os.Getenv("SIGTRAIL_CONFIG"), "configuration file (default: SIGTRAIL_CONFIG, or none)")
	c.PersistentFlags().StringVar(&s.database, "database", os.Getenv("SIGTRAIL_DATABASE"), "SQLite file (default: SIGTRAIL_DATABASE, the configuration's, sigtrail.db)")
	for _, name := range []string{"config", "database"} {
		c.PersistentFlags().Lookup(name).DefValue = "" // said above
	}
}
