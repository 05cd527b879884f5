package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/monitor"
)

func evidenceCommand(config *settings, stdout, stderr io.Writer) *cobra.Command {
	var out string
	var asJSON bool
	c := &cobra.Command{
		Use:   "evidence [ID]",
		Short: "List what logs have said against themselves, or export one case for others to judge",
		Long: `evidence lists the contradictions on record: id, kind, log, sizes of the two heads,
when it was found. With an ID it writes that one to a file which holds both signed
heads, the log's key and the proof that failed. Whoever gets the file judges it with
"monitor check-evidence FILE", without this database and without a network.

Exit codes: 0 fine, 2 usage, 3 the database cannot be read or the file written.`,
		Example: "  monitor evidence\n  monitor evidence 3 -o rekor-fork.json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && cmd.Flags().Changed("output") {
				return &exit{exitUsage, errors.New("which one is to be written? monitor evidence lists them; give an id")}
			}
			store, err := openReadOnly(cmd.Context(), config)
			if err != nil {
				return err
			}
			defer store.Close()
			if len(args) == 0 {
				return failed(listEvidence(cmd.Context(), store, stdout, asJSON))
			}
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return &exit{exitUsage, fmt.Errorf("%q is no id; monitor evidence lists them", args[0])}
			}
			return exportEvidence(cmd.Context(), store, id, out, stdout, stderr)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "-", "file to write the evidence to; - is the standard output")
	c.Flags().BoolVar(&asJSON, "json", false, "list as JSON, one object a line")
	return c
}

// openReadOnly opens the database for reading, also while a monitor writes to it.
func openReadOnly(ctx context.Context, config *settings) (*index.Store, error) {
	c, err := config.load()
	if err != nil {
		return nil, &exit{exitUsage, err}
	}
	s, err := index.OpenReadOnly(ctx, c.Database)
	if err != nil {
		return nil, &exit{exitCould, err}
	}
	return s, nil
}

// An evidenceLine is a contradiction in the list.
type evidenceLine struct {
	ID     int64     `json:"id"`
	Kind   string    `json:"kind"`
	Log    string    `json:"log"`
	Ours   *uint64   `json:"ours"`   // leaves; null: no head
	Theirs *uint64   `json:"theirs"` // leaves; null: no head
	Found  time.Time `json:"found"`
	Detail string    `json:"detail"`
}

func listEvidence(ctx context.Context, store *index.Store, stdout io.Writer, asJSON bool) error {
	lines := json.NewEncoder(stdout)
	n := 0
	err := store.Contradictions(ctx, func(id int64, c monitor.Contradiction) error {
		n++
		l := evidenceLine{id, c.Kind, c.Log.Origin, sizeOf(c.Ours), sizeOf(c.Theirs), c.At, c.Detail}
		if asJSON {
			return lines.Encode(l)
		}
		if n == 1 {
			fmt.Fprintf(stdout, evidenceColumns, "ID", "KIND", "OURS", "THEIRS", "FOUND")
		}
		writeContradiction(stdout, l)
		return nil
	})
	if err == nil && n == 0 && !asJSON {
		_, err = fmt.Fprintln(stdout, "no log has contradicted itself")
	}
	return err
}

const evidenceColumns = "%-4v  %-20s  %-10s  %-10s  %s\n"

func writeContradiction(w io.Writer, l evidenceLine) {
	fmt.Fprintf(w, evidenceColumns, l.ID, alerts.Escape(l.Kind), orDash(l.Ours), orDash(l.Theirs), l.Found.Format(time.RFC3339))
	wrapped(w, "      ", l.Log+": "+l.Detail)
}

func sizeOf(h monitor.Head) *uint64 {
	if len(h.Note) == 0 {
		return nil
	}
	return &h.Size
}

func orDash(n *uint64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatUint(*n, 10)
}

func exportEvidence(ctx context.Context, store *index.Store, id int64, out string, stdout, stderr io.Writer) error {
	c, err := store.Contradiction(ctx, id)
	if errors.Is(err, index.ErrNoContradiction) {
		return &exit{exitUsage, fmt.Errorf("%w; monitor evidence lists them", err)}
	}
	if err != nil {
		return failed(err)
	}
	e, err := monitor.NewEvidence(c)
	if err != nil {
		return failed(err)
	}
	e.ID, e.Exporter, e.Exported = id, "sigtrail/"+version, time.Now().UTC().Truncate(time.Second)
	b, err := e.Marshal()
	if err != nil {
		return failed(err)
	}
	// What cannot be read again must not be found out in front of a court.
	again, err := monitor.ParseEvidence(b)
	if err != nil {
		return failed(fmt.Errorf("contradiction %d: %w", id, err))
	}
	if out == "-" {
		_, err = stdout.Write(b)
		return failed(err)
	}
	if err := replaceFile(out, b); err != nil {
		return failed(fmt.Errorf("writing evidence: %w", err))
	}
	_, err = fmt.Fprintf(stderr, "wrote %s; what it is worth: %s\n", out, again.Check().Outcome)
	return failed(err)
}

// replaceFile writes a file whole or not at all, under its name once it is on the disk.
func replaceFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(b); err != nil {
		return err
	}
	// What is in it is public, and is to be passed on.
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
