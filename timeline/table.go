package timeline

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sigtrail/alerts"
	"sigtrail/index"
)

// A table is the timeline for people: what it is about, what happened, what it
// rests on. The first error of its writer stays.
type table struct {
	w     io.Writer
	width int // 0: no limit
	color bool
	err   error
}

func newTable(w io.Writer, o Options) *table {
	t := &table{w: w, width: o.Width, color: o.Color}
	if t.width == 0 {
		t.width = 100
	}
	if o.Wide {
		t.width = 0
	}
	return t
}

const (
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
)

// line writes one line, cut to the width. What it says has been escaped.
func (t *table) line(color, format string, args ...any) {
	if t.err != nil {
		return
	}
	text := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	if t.width > 0 && utf8.RuneCountInString(text) > t.width {
		text = string([]rune(text)[:t.width-1]) + "…"
	}
	if t.color && color != "" && text != "" {
		text = color + text + "\x1b[0m"
	}
	_, t.err = fmt.Fprintln(t.w, text)
}

// wrapped is line for sentences: they go on in the next line, indented.
func (t *table) wrapped(color, first, text string) {
	for _, line := range Wrap(first, text, t.width) {
		t.line(color, "%s", line)
	}
}

// Wrap breaks text at blanks into lines of width columns; 0: one line. The first
// begins with first, the others are indented as far.
func Wrap(first, text string, width int) (lines []string) {
	line, indent := first, strings.Repeat(" ", utf8.RuneCountInString(first))
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			line += word
		case width > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), indent+word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

func (t *table) write(files []index.File, pins []index.Pin, events []Event, c Coverage) error {
	if len(files) > 0 {
		numbers := t.head(files, pins, events)
		t.line("", "")
		t.line(bold, "%-22s  %-11s  %s", "TIME (UTC)", "CLOCK", "WHAT")
		for _, e := range events {
			t.event(e, numbers)
		}
		t.line("", "")
	}
	t.coverage(c)
	return t.err
}

// head says what is selected, and who signed it.
func (t *table) head(files []index.File, pins []index.Pin, events []Event) map[string]int {
	var versions []string
	numbers := make(map[string]int)
	for _, f := range files {
		if !slices.Contains(versions, f.Version) {
			versions = append(versions, f.Version)
		}
	}
	t.line(bold, "%s %s", alerts.Escape(index.Qualified(files[0].Index, files[0].Project)), alerts.Escape(strings.Join(versions, ", ")))
	for i, f := range files {
		numbers[index.Qualified(f.Index, f.Name)] = i + 1
		t.line("", "  #%-3d %s", i+1, alerts.Escape(f.Name)+onIndex(f.Index))
		t.line(dim, "       sha256 %s", hex.EncodeToString(f.SHA256[:]))
	}
	for _, p := range pins {
		t.wrapped("", "  expected   ", alerts.Escape(fmt.Sprintf("%s (%s: %s)", p.Publisher, p.State, p.How)))
	}
	if len(pins) == 0 {
		t.line("", "  expected   nobody is on record for this project")
	}
	for _, s := range signers(events) {
		t.wrapped(s.color, "  signed by  ", s.text)
	}
	return numbers
}

// onIndex names an index other than PyPI.
func onIndex(name string) string {
	if name == "" {
		return ""
	}
	return " on " + alerts.Escape(name)
}

type signerLine struct{ text, color string }

// signers lists each publisher once, with what is to be said about it.
func signers(events []Event) []signerLine {
	var out []signerLine
	seen := make(map[string]bool)
	for _, e := range events {
		if e.Kind != "logged" || e.Publisher == nil || seen[e.Publisher.Key()+e.Note] {
			continue
		}
		seen[e.Publisher.Key()+e.Note] = true
		s := signerLine{text: alerts.Escape(e.Publisher.String())}
		switch {
		case e.Note != "":
			s.text, s.color = s.text+" — "+alerts.Escape(e.Note), yellow
		case e.Expected != nil && *e.Expected:
			s.text += ", as expected"
		}
		out = append(out, s)
	}
	return out
}

func (t *table) event(e Event, numbers map[string]int) {
	when, text := "", alerts.Escape(e.Text)
	if e.At != nil {
		when = Stamp(*e.At)
	} else if e.After != nil {
		when = "≥ " + Stamp(*e.After)
	}
	if n := numbers[index.Qualified(e.PackageIndex, e.File)]; n > 0 {
		text = fmt.Sprintf("#%-3d %s", n, text)
	} else {
		text = "     " + text
	}
	color := ""
	if e.Kind == "alert" {
		color = red
	}
	inLog := e.Kind == "logged" || e.Kind == "candidate"
	if len(e.Evidence) > 0 && inLog {
		text += fmt.Sprintf(" [%s]", joinEvidence(e.Evidence))
	}
	t.wrapped(color, fmt.Sprintf("%-22s  %-11s  ", when, e.Clock), text)
	indent := strings.Repeat(" ", 40)
	if e.Log != "" && inLog {
		t.line(dim, "%sin %s", indent, alerts.Escape(e.Log))
	}
	if e.At == nil && e.Before != nil {
		t.line(dim, "%sthe log keeps no time; not after %s", indent, Stamp(*e.Before))
	}
	if e.Note != "" && (e.Kind == "logged" || e.Kind == "alert" || e.Kind == "provenance") {
		t.wrapped(yellow, indent+"! ", alerts.Escape(e.Note))
	}
}

func joinEvidence(evidence []index.Evidence) string {
	texts := make([]string, len(evidence))
	for i, e := range evidence {
		texts[i] = string(e)
	}
	return strings.Join(texts, ", ")
}

// Stamp writes a time as people read it, in UTC.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func (t *table) coverage(c Coverage) {
	t.line(bold, "LOOKED AT")
	for _, l := range c.Logs {
		how := "looked up"
		if l.Tailed {
			how = "read whole"
		}
		if len(l.Gaps) > 0 {
			how = "read with gaps"
		}
		if l.Closed {
			how += ", closed"
		}
		t.line("", "  %s (%s, %s)", alerts.Escape(l.Origin), l.API, how)
		t.wrapped("", "      ", fmt.Sprintf("head of %d entries seen %s; %d proven and indexed: %s", l.Size, Stamp(l.Seen), l.Covered, Spans(l.Ranges)))
	}
	if c.PyPI != nil {
		t.line("", "  PyPI's journal up to serial %d", *c.PyPI)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Journals)) {
		t.line("", "  %s's journal up to serial %d", alerts.Escape(name), c.Journals[name])
	}
	if len(c.Lookups) > 0 {
		t.line(bold, "ASKED")
	}
	for _, l := range c.Lookups {
		t.wrapped("", "  ", alerts.Escape(l.String()))
	}
	t.line(bold, "NOT LOOKED AT")
	for _, n := range c.Not {
		t.wrapped("", "  - ", alerts.Escape(n))
	}
	if len(c.Not) == 0 {
		t.line("", "  - other logs than these")
	}
}

// Spans writes index ranges [first, past), the last few if there are many.
func Spans(ranges [][2]uint64) string {
	const most = 6
	var texts []string
	if n := len(ranges); n > most {
		texts = append(texts, fmt.Sprintf("%d earlier ranges", n-most))
		ranges = ranges[n-most:]
	}
	for _, r := range ranges {
		if r[1] == r[0]+1 {
			texts = append(texts, fmt.Sprint(r[0]))
			continue
		}
		texts = append(texts, fmt.Sprintf("%d to %d", r[0], r[1]-1))
	}
	if len(texts) == 0 {
		return "none"
	}
	return strings.Join(texts, ", ")
}
