// Command monitor follows Sigstore's transparency logs for what concerns packages
// on PyPI, and alerts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by release builds.
var version = "devel"

var userAgent = "sigtrail/" + version + " (transparency monitor for PyPI)"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// exit carries an exit code through cobra.
type exit struct {
	code int
	err  error // nil: said already
}

func (e *exit) Error() string { return fmt.Sprint(e.err) }

// Main runs the command and returns its exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command(stdout, stderr)
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
		fmt.Fprintln(stderr, "monitor:", e.err)
	}
	return e.code
}

func command(stdout, stderr io.Writer) *cobra.Command {
	var config settings
	var once bool
	c := &cobra.Command{
		Use:   "monitor",
		Short: "Follow Sigstore's logs and alert on unexpected signers of PyPI packages",
		Long: `monitor follows Rekor's signed heads, proves every entry, binds entries to files
on PyPI, and alerts when a signer is not the expected one or a signature is
missing. Without arguments it follows Sigstore's public logs from now on and keeps
its index in sigtrail.db. Say which projects to watch in a configuration file:

  pypi: {projects: [sampleproject]}

Exit codes: 0 fine, 1 findings (--once), 2 usage, 3 could not (network, disk),
4 evidence of a misbehaving log (--once).`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), config, once, stderr)
		},
	}
	config.flags(c)
	c.Flags().BoolVar(&once, "once", false, "catch up with the present heads, deliver alerts, exit")
	c.AddCommand(
		checkCommand(&config, stdout),
		checkEvidenceCommand(stdout),
		checkHeadCommand(&config, stdout, stderr),
		dbCommand(&config, stdout, stderr),
		demoCommand(stdout),
		evidenceCommand(&config, stdout, stderr),
		projectsCommand(&config, stdout),
		publishersCommand(&config, stdout),
		statusCommand(&config, stdout),
		scanCommand(&config, stdout, stderr),
	)
	return c
}

func run(ctx context.Context, s settings, once bool, stderr io.Writer) error {
	config, err := s.load()
	if err != nil {
		return &exit{exitUsage, err}
	}
	shown := newConsole(stderr)
	d, err := newDaemon(ctx, config, slog.New(slog.NewTextHandler(shown, nil)))
	if err != nil {
		return failed(err)
	}
	d.indexes[0].progress.console = shown
	// Most of what is allocated are leaves that are done with after a batch:
	// collecting twice as often halves the peak for a few per cent of time.
	debug.SetGCPercent(50)
	if !once {
		err = d.run(ctx)
		return failed(errors.Join(err, d.close()))
	}
	code, err := d.once(ctx)
	err = errors.Join(err, d.close())
	if errors.Is(err, errConfig) {
		code = exitUsage
	}
	if code == exitFine && err == nil {
		return nil
	}
	return &exit{code, err}
}

// failed maps an error to an exit code.
func failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errConfig):
		return &exit{exitUsage, err}
	}
	return &exit{exitCould, err}
}

func checkCommand(config *settings, stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "check-config",
		Short: "Say whether the configuration and the files that it names can be used",
		Long: `check-config reads the configuration, the policies and requirement files that it names,
and says what would be watched, or what is wrong and where. It opens no database and
asks no network.

Exit codes: 0 fine, 2 something is wrong.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.load()
			if err == nil {
				_, err = loadPolicy(c)
			}
			if err == nil {
				_, err = loadWitnessPolicy(c)
			}
			projects := 0
			if err == nil {
				projects, err = checkSources(cmd.Context(), c)
			}
			if err != nil {
				return &exit{exitUsage, err}
			}
			for _, s := range c.sources() {
				if s.All && len(s.Projects)+len(s.Requirements) > 0 {
					fmt.Fprintf(stdout, "note: index %s: all wins; projects and requirements add nothing to it\n", s.Name)
				}
			}
			fmt.Fprintf(stdout, "fine: %d log(s) named, %s watched, database %s\n", len(c.Logs), watchedSources(c, projects), c.Database)
			return nil
		},
	}
}
