package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sigtrail/alerts"
	"sigtrail/index"
)

func dbCommand(config *settings, stdout, stderr io.Writer) *cobra.Command {
	c := &cobra.Command{
		Use:   "db",
		Short: "Check, copy, pack or export the database",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	progress := func(step string) { fmt.Fprintln(stderr, alerts.Escape(step)) }
	c.AddCommand(
		dbCheckCommand(config, stdout, progress),
		dbBackupCommand(config, stdout, progress),
		dbVacuumCommand(config, stdout),
		dbExportCommand(config, stdout, progress),
	)
	return c
}

func dbCheckCommand(config *settings, stdout io.Writer, progress func(string)) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Read the whole database, or a copy, and say what is damaged in it",
		Long: `check reads every page, holds every reference and index against its table, puts each
leaf together again and compares its hash with the one that was proven, and looks
whether ranges and positions fit. It may run beside the daemon, whose write-ahead log
grows until it is done.

Exit codes: 0 whole, 2 usage, 3 the database cannot be read, 4 it is damaged.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := databasePath(config, args)
			if err != nil {
				return err
			}
			damage, err := index.Check(cmd.Context(), path, progress)
			for _, d := range damage {
				fmt.Fprintln(stdout, alerts.Escape(d))
			}
			switch {
			case err != nil:
				return failed(err)
			case damage != nil:
				return &exit{exitConvicts, fmt.Errorf("database %s is damaged; restore a backup, or keep the file and let the monitor make a new one", path)}
			}
			fmt.Fprintf(stdout, "%s is whole\n", path)
			return nil
		},
	}
}

// databasePath is the argument, or what the configuration says.
func databasePath(config *settings, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	c, err := config.load()
	if err != nil {
		return "", &exit{exitUsage, err}
	}
	return c.Database, nil
}

func dbBackupCommand(config *settings, stdout io.Writer, progress func(string)) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the database to FILE, beside the running daemon too, and check the copy",
		Long: `backup writes what the database holds at one moment to FILE.part, checks it as
"monitor db check" does, and then names it FILE, which must not exist. The daemon
goes on writing meanwhile. FILE is a database that monitor and timeline open.

Exit codes: 0 done, 2 usage, 3 it could not be done, 4 the database is damaged, and
no copy was kept.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := databasePath(config, nil)
			if err != nil {
				return err
			}
			err = index.Backup(cmd.Context(), path, args[0], progress)
			if errors.Is(err, index.ErrDamaged) {
				return &exit{exitConvicts, err}
			}
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(stdout, "%s is a whole copy of %s\n", args[0], path)
			return nil
		},
	}
}

func dbVacuumCommand(config *settings, stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "vacuum",
		Short: "Give back the room of deleted rows; the daemon must be stopped",
		Long: `vacuum writes the database anew, each project's rows side by side and nothing
between. Nobody can write meanwhile, so stop the daemon first. It needs free room of
the size of the database, and takes minutes for ten gigabytes.

Exit codes: 0 done, 2 usage, 3 it could not be done, as while the daemon runs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := databasePath(config, nil)
			if err != nil {
				return err
			}
			before, after, err := index.Vacuum(cmd.Context(), path)
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(stdout, "%s: %d bytes, %d before\n", path, after, before)
			return nil
		},
	}
}

func dbExportCommand(config *settings, stdout io.Writer, progress func(string)) *cobra.Command {
	return &cobra.Command{
		Use:   "export DIR",
		Short: "Write files, entries, bindings, publishers and events to DIR as CSV",
		Long: `export writes files.csv, entries.csv, bindings.csv, publishers.csv and events.csv, of
one moment, beside the running daemon too. The columns "file", "entry" and "publisher"
join them. Times are UTC, hashes hex, an empty cell is an absent value, and a cell that
would be a formula in a spreadsheet begins with an apostrophe.

Exit codes: 0 done, 2 usage, 3 it could not be done.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := databasePath(config, nil)
			if err != nil {
				return err
			}
			if err := index.Export(cmd.Context(), path, args[0], progress); err != nil {
				return failed(err)
			}
			fmt.Fprintf(stdout, "exported %s to %s\n", path, args[0])
			return nil
		},
	}
}
