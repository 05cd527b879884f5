package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sigtrail/alerts"
	"sigtrail/monitor"
)

func checkHeadCommand(config *settings, stdout, stderr io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "check-head FILE|URL",
		Short: "Compare a log's signed head that somebody else was shown with what we were",
		Long: `check-head takes signed heads from a file (- is standard input) or an address: a
checkpoint as the log signed it, a v1 log's /api/v1/log, a provenance object or
bundle from PyPI, or the /heads of another sigtrail. Each goes through the same check
as the heads that the log shows us: it must be signed by the log and belong to the
one history that we know. One that does not is kept as evidence and alerted on.

It reads and writes the monitor's database, beside a running daemon or without one,
and asks the logs for consistency proofs.

Exit codes: 0 every head fits, 1 one is not signed by the log it names, 2 usage,
3 one could not be compared, 4 one contradicts the log.`,
		Example: "  monitor check-head checkpoint.txt\n  monitor check-head https://monitor.example/heads",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.load()
			if err != nil {
				return &exit{exitUsage, err}
			}
			source, notes, err := shownAt(cmd.Context(), args[0], cmd.InOrStdin())
			if err != nil {
				return failed(err)
			}
			d, err := openBeside(cmd.Context(), c, slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
			if err != nil {
				return failed(err)
			}
			code, err := d.checkHeads(cmd.Context(), source, notes, stdout)
			if err = errors.Join(err, d.close()); err != nil {
				return failed(err)
			}
			if code != exitFine {
				return &exit{code, nil}
			}
			return nil
		},
	}
}

// shownAt reads heads from where the argument says, and names the source.
func shownAt(ctx context.Context, arg string, stdin io.Reader) (source string, notes [][]byte, err error) {
	if isHTTP(arg) {
		u, err := url.Parse(arg)
		if err != nil {
			return "", nil, errors.New("not an address")
		}
		notes, err = fetchHeads(ctx, u)
		return "check-head " + u.Host + u.Path, notes, err
	}
	if arg == "-" {
		notes, err = readHeads(stdin, "standard input")
		return "check-head, standard input", notes, err
	}
	f, err := os.Open(arg)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	notes, err = readHeads(f, arg)
	return "check-head " + filepath.Base(arg), notes, err
}

// checkHeads compares each note, says how it went, and returns the exit code of the
// worst.
func (d *daemon) checkHeads(ctx context.Context, source string, notes [][]byte, out io.Writer) (int, error) {
	if d.trust.current() == nil || d.config.TrustedRoot != "" {
		if _, err := d.trust.refresh(ctx); err != nil {
			return exitCould, err
		}
	}
	if _, err := d.adopt(ctx); err != nil {
		return exitCould, err
	}
	asked := make(map[server]map[string]error)
	worst := exitFine
	say := func(code int, format string, args ...any) {
		// A contradiction outranks what could not be done, that outranks
		// what is not the log's.
		if rank := map[int]int{exitFindings: 1, exitCould: 2, exitConvicts: 3}; rank[code] > rank[worst] {
			worst = code
		}
		fmt.Fprintln(out, alerts.Escape(fmt.Sprintf(format, args...)))
	}
	for _, h := range shownBy(source, notes) {
		origin, _, err := monitor.ReadNote(h.Note)
		if err == nil {
			err = d.askFor(ctx, origin, asked)
		}
		var head monitor.Head
		if err == nil {
			head, err = d.keeper.CheckShown(ctx, h)
		}
		contradiction := (*monitor.Contradiction)(nil)
		switch {
		case ctx.Err() != nil:
			return exitCould, ctx.Err()
		case err == nil:
			memory, _, err := d.store.Known(ctx, origin)
			known := monitor.Head{}
			if err == nil {
				known, _, err = d.store.Latest(ctx, memory.Log)
			}
			if err != nil {
				return exitCould, err
			}
			say(exitFine, "fits: %s; it lies in the one history that we were shown, of %d leaves now", head, known.Size)
		case errors.As(err, &contradiction):
			say(exitConvicts, "CONTRADICTS: %s; both heads are kept, see monitor evidence", strings.ReplaceAll(err.Error(), "\n", " "))
		case errors.Is(err, monitor.ErrForeignHead), errors.Is(err, monitor.ErrMalformedHead):
			say(exitFindings, "not the log's: %v; anybody can have made it, it says nothing about the log", err)
		default:
			say(exitCould, "not compared: %v", err)
		}
	}
	return worst, nil
}

// askFor has the server of a log show its present heads, once. asked keeps how that
// went, by origin; "" is the server as a whole.
func (d *daemon) askFor(ctx context.Context, origin string, asked map[server]map[string]error) error {
	for _, s := range d.finder.servers() {
		if !s.signs(origin) {
			continue
		}
		if asked[s] == nil {
			served, err := s.Logs(ctx)
			asked[s] = map[string]error{"": err}
			for _, l := range served {
				_, asked[s][l.Log.Origin] = d.keeper.Check(ctx, l, l.Note)
			}
		}
		if err, shown := asked[s][origin]; shown {
			return err
		}
		return asked[s][""]
	}
	return fmt.Errorf("%w: %q; name it under logs", monitor.ErrUnknownLog, origin)
}
