// Command timeline puts in order what is known about a release on PyPI.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sigtrail/index"
	"sigtrail/timeline"
)

const (
	exitFine     = 0
	exitFindings = 1
	exitUsage    = 2
	exitCould    = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// exit carries an exit code through cobra.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string { return fmt.Sprint(e.err) }

// Main runs the command and returns its exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command(stdout)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitFine
	}
	e := &exit{code: exitUsage, err: fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	errors.As(err, &e)
	if e.err != nil {
		fmt.Fprintln(stderr, "timeline:", e.err)
	}
	return e.code
}

func command(stdout io.Writer) *cobra.Command {
	var database, color string
	var o timeline.Options
	c := &cobra.Command{
		Use:   "timeline SELECTOR...",
		Short: "Put in order what is known about a release on PyPI",
		Long: `timeline lists the events of a project, a release or a file, each with the clock that
its time comes from, and says what was looked at and what was not. It reads the
monitor's database, also while the monitor runs.

A SELECTOR is one of
  sampleproject                     a project
  sampleproject==4.0.0              a release
  testpypi/sampleproject==4.0.0     a project or a release on another index, by its name
  sampleproject-4.0.0.tar.gz        a file
  0ace7980f82c5815ede4...           the SHA-256 of a file

Clocks: certificate (signed by the certificate authority), log (signed by the log),
PyPI (signed by nobody), "PyPI, seen" (when PyPI first showed it to the monitor; it
happened before), sigtrail (when the monitor did or saw it), none (only bounds).

Exit codes: 0 fine, 1 alerts in what was selected, 2 usage, 3 could not do it or
nothing found.`,
		Example:       "  timeline --database sigtrail.db sampleproject==4.0.0",
		Args:          cobra.MinimumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, selectors []string) error {
			if o.Format != "table" && o.Format != "jsonl" {
				return fmt.Errorf("format %q: give table or jsonl", o.Format)
			}
			var err error
			if o.Color, err = wantsColor(color, stdout); err != nil {
				return err
			}
			return run(cmd.Context(), stdout, database, selectors, o)
		},
	}
	path := os.Getenv("SIGTRAIL_DATABASE")
	if path == "" {
		path = "sigtrail.db"
	}
	c.Flags().StringVar(&database, "database", path, "SQLite file, or a copy (default: SIGTRAIL_DATABASE, or sigtrail.db)")
	c.Flags().Lookup("database").DefValue = "" // said above
	c.Flags().StringVar(&o.Format, "format", "table", "table, or jsonl: one JSON object a line")
	c.Flags().BoolVar(&o.Wide, "wide", false, "do not cut lines at 100 columns")
	c.Flags().StringVar(&color, "color", "auto", "auto (a terminal, and NO_COLOR not set), always, never")
	return c
}

func wantsColor(when string, stdout io.Writer) (bool, error) {
	switch when {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		f, ok := stdout.(*os.File)
		return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd())), nil
	}
	return false, fmt.Errorf("color %q: give auto, always or never", when)
}

func run(ctx context.Context, stdout io.Writer, database string, selectors []string, o timeline.Options) error {
	for _, s := range selectors {
		if _, err := timeline.ParseSelector(s); err != nil {
			return &exit{exitUsage, err}
		}
	}
	store, err := index.OpenReadOnly(ctx, database)
	if err != nil {
		return &exit{exitCould, err}
	}
	defer store.Close()
	findings := 0
	var errs []error
	for _, s := range selectors {
		n, err := timeline.Write(ctx, stdout, store, s, o)
		findings += n
		errs = append(errs, err)
	}
	switch err := errors.Join(errs...); {
	case err != nil:
		return &exit{exitCould, err}
	case findings > 0:
		return &exit{exitFindings, nil}
	}
	return nil
}
