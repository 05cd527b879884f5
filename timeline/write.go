package timeline

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sigtrail/alerts"
	"sigtrail/index"
)

// Options of Write. The zero value writes a table of 100 columns without colour.
type Options struct {
	Format string // "table" or "jsonl"; "": table
	Wide   bool   // never cut a line
	Color  bool
	Width  int // columns; 0: 100
}

// ErrNothing reports that nothing is known about what was asked for.
type ErrNothing struct {
	Selector string
	Versions []string // that exist, when only the version was not found
	Indexes  []string // others that know the project, by name
}

func (e *ErrNothing) Error() string {
	if len(e.Versions) > 0 {
		return fmt.Sprintf("no such version: %s; known are %s", alerts.Escape(e.Selector), alerts.Escape(strings.Join(e.Versions, ", ")))
	}
	if len(e.Indexes) > 0 {
		return fmt.Sprintf("nothing is known about %s on this index; ask for it on another: %s", alerts.Escape(e.Selector), alerts.Escape(strings.Join(e.Indexes, ", ")))
	}
	return fmt.Sprintf("nothing is known about %s: it is not among the projects that the monitor watches, or it is spelled another way", alerts.Escape(e.Selector))
}

// Write writes the timeline of what the selector names, with what was looked at
// and what was not. It returns the number of alerts in it. *ErrNothing when
// nothing matches; the coverage is written all the same.
func Write(ctx context.Context, w io.Writer, store *index.Store, selector string, o Options) (findings int, err error) {
	s, err := ParseSelector(selector)
	if err != nil {
		return 0, err
	}
	files, versions, err := s.files(ctx, store)
	if err != nil {
		return 0, err
	}
	events, err := gather(ctx, store, files)
	if err != nil {
		return 0, err
	}
	sortEvents(events)
	for _, e := range events {
		if e.Kind == "alert" {
			findings++
		}
	}
	coverage, err := readCoverage(ctx, store, files)
	if err != nil {
		return findings, err
	}
	if o.Format == "jsonl" {
		err = writeLines(w, events, coverage)
	} else {
		var pins []index.Pin
		if len(files) > 0 {
			if pins, err = store.Pins(ctx, files[0].Index, files[0].Project); err != nil {
				return findings, err
			}
		}
		err = newTable(w, o).write(files, pins, events, coverage)
	}
	if err == nil && len(files) == 0 {
		nothing := &ErrNothing{Selector: selector, Versions: versions}
		if nothing.Indexes, err = s.elsewhere(ctx, store); err == nil {
			err = nothing
		}
	}
	return findings, err
}

func writeLines(w io.Writer, events []Event, c Coverage) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	for _, e := range events {
		if err := out.Encode(e); err != nil {
			return err
		}
	}
	return out.Encode(c)
}

// Coverage is what an answer rests on (sigtrail.coverage/1).
type Coverage struct {
	Schema string        `json:"schema"`
	Logs   []LogCoverage `json:"logs"`
	PyPI   *int64        `json:"pypi_serial,omitempty"` // journal read up to here; absent: never
	Not    []string      `json:"not_looked_at"`

	Journals map[string]int64 `json:"index_serials,omitempty"` // the same of other indexes, by name, where they have a journal

	Lookups []LookupCoverage `json:"lookups,omitempty"` // on v1 logs, about the selected files
}

// LogCoverage is how much of one log is proven and indexed.
type LogCoverage struct {
	Origin   string      `json:"origin"`
	API      string      `json:"api"`
	Size     uint64      `json:"head_size"`
	Seen     time.Time   `json:"head_seen"`
	Ranges   [][2]uint64 `json:"covered"` // [first, past), indexes in the tree
	Covered  uint64      `json:"covered_entries"`
	Tailed   bool        `json:"tailed"`
	Gaps     [][2]uint64 `json:"gaps,omitempty"` // passed by the tail and not read
	Closed   bool        `json:"closed,omitempty"`
	Conflict bool        `json:"contradicts_itself"`
}

func readCoverage(ctx context.Context, store *index.Store, files []index.File) (Coverage, error) {
	c := Coverage{Schema: "sigtrail.coverage/1"}
	logs, err := store.LogStatuses(ctx)
	if err != nil {
		return c, err
	}
	for _, l := range logs {
		lc := LogCoverage{Origin: l.Log.Origin, API: string(l.Log.API), Size: l.Head.Size, Seen: l.Head.Seen.UTC(), Tailed: l.Next != nil, Conflict: l.Conflict, Closed: l.ClosedSize != nil}
		for _, r := range l.Coverage {
			lc.Ranges = append(lc.Ranges, [2]uint64{r.From, r.To})
			lc.Covered += r.To - r.From
		}
		for _, r := range l.Gaps() {
			lc.Gaps = append(lc.Gaps, [2]uint64{r.From, r.To})
		}
		c.Logs = append(c.Logs, lc)
		c.Not = append(c.Not, lc.missing()...)
	}
	if len(logs) == 0 {
		c.Not = append(c.Not, "any log: the monitor has not verified a head yet")
	}
	if serial, ok, err := store.PyPI().Serial(ctx); err != nil {
		return c, err
	} else if ok {
		c.PyPI = &serial
	} else {
		c.Not = append(c.Not, "PyPI's journal")
	}
	if err := c.journals(ctx, store, files); err != nil {
		return c, err
	}
	return c, c.lookups(ctx, store, files)
}

// journals says how far the journals of the other indexes that have the files were read.
func (c *Coverage) journals(ctx context.Context, store *index.Store, files []index.File) error {
	others, err := store.OtherIndexes(ctx)
	for _, x := range others {
		switch concerned := slices.ContainsFunc(files, func(f index.File) bool { return f.Index == x.Name }); {
		case !concerned:
		case x.Serial == nil:
			c.Not = append(c.Not, x.Name+"'s journal; it has none, or it has not been read")
		default:
			if c.Journals == nil {
				c.Journals = make(map[string]int64)
			}
			c.Journals[x.Name] = *x.Serial
		}
	}
	return err
}

// missing says what of the log was not read.
func (l LogCoverage) missing() []string {
	var out []string
	skipped := uint64(0)
	for _, g := range l.Gaps {
		skipped += g[1] - g[0]
	}
	if skipped > 0 {
		out = append(out, fmt.Sprintf("%d entries of %s that the tail skipped: %s", skipped, l.Origin, Spans(l.Gaps)))
	}
	if rest := l.Size - min(l.Covered+skipped, l.Size); rest > 0 {
		how := "it is not read whole; entries are found by look-up"
		if l.Tailed {
			how = "before the tail began, or not reached yet"
		}
		out = append(out, fmt.Sprintf("%d of %d entries of %s: %s", rest, l.Size, l.Origin, how))
	}
	if l.Conflict {
		out = append(out, fmt.Sprintf("whatever %s says beyond size %d may be of another history: it has contradicted itself", l.Origin, l.Size))
	}
	return out
}
