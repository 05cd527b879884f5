package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sigtrail/alerts"
	"sigtrail/api"
	"sigtrail/index"
	"sigtrail/timeline"
)

// An asking is what the commands that ask the index have in common: they read the
// database, beside a running daemon or without one, and answer as /api/v1 does.
type asking struct {
	config *settings
	json   bool
	page   api.Page
}

func (a *asking) flags(c *cobra.Command, schema string) {
	c.Flags().BoolVar(&a.json, "json", false, "JSON ("+schema+"), as served under "+api.Root)
	c.Flags().IntVar(&a.page.Limit, "limit", api.DefaultLimit, fmt.Sprintf("rows of the list, up to %d", api.MaxLimit))
	c.Flags().StringVar(&a.page.After, "after", "", "go on where a list ended that was longer: its \"next\"")
}

// ask answers and writes: as JSON, or for people by text.
func ask[T any](ctx context.Context, a asking, stdout io.Writer, answer func(api.Reader) (T, error), text func(T, screen)) error {
	if a.page.Limit == 0 { // which would be the default
		return &exit{exitUsage, fmt.Errorf("--limit is from 1 to %d", api.MaxLimit)}
	}
	c, err := a.config.load()
	if err != nil {
		return &exit{exitUsage, err}
	}
	store, err := index.OpenReadOnly(ctx, c.Database)
	if err != nil {
		return failed(err)
	}
	defer store.Close()
	got, err := answer(api.Reader{Store: store})
	if errors.Is(err, api.ErrAsked) {
		return &exit{exitUsage, errors.New(alerts.Escape(err.Error()))}
	}
	if errors.Is(err, api.ErrNotFound) {
		return &exit{exitCould, errors.New(alerts.Escape(err.Error()))}
	}
	if err != nil {
		return failed(err)
	}
	if !a.json {
		text(got, screen{stdout, wantsColor(stdout)})
		return nil
	}
	body, err := api.Marshal(got)
	if err == nil {
		_, err = stdout.Write(body)
	}
	return failed(err)
}

func wantsColor(w io.Writer) bool { return os.Getenv("NO_COLOR") == "" && onTerminal(w) }

// A screen writes lines of text that may be hostile, in 100 columns.
type screen struct {
	w     io.Writer
	color bool
}

const (
	plain  = ""
	yellow = "\x1b[33m"
)

// row writes one line as it is, of parts that are harmless and short.
func (s screen) row(color, format string, args ...any) {
	s.colored(color, func() { fmt.Fprintln(s.w, strings.TrimRight(fmt.Sprintf(format, args...), " ")) })
}

func (s screen) line(color, first, format string, args ...any) {
	s.colored(color, func() { wrapped(s.w, first, fmt.Sprintf(format, args...)) })
}

func (s screen) colored(color string, write func()) {
	if !s.color || color == plain {
		write()
		return
	}
	fmt.Fprint(s.w, color)
	write()
	fmt.Fprint(s.w, "\x1b[0m")
}

// counted is a number of things.
func counted(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (s screen) more(next string) {
	if next != "" {
		s.line(plain, "", "There is more: go on with --after %s", next)
	}
}

// extent says on what a list rests.
func (s screen) extent(x api.Extent) {
	for _, l := range x.Logs {
		how := "looked up for each file; other entries are not known"
		switch {
		case l.How == "read" && *l.From == *l.To:
			how = "nothing read yet"
		case l.How == "read":
			how = "read, " + timeline.Spans([][2]uint64{{*l.From, *l.To}})
		}
		s.line(plain, "looked at  ", "%s, %d entries: %s", l.Origin, l.Size, how)
	}
	if len(x.Logs) == 0 {
		s.line(plain, "looked at  ", "no log yet")
	}
}
