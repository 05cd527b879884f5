package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
)

func TestDatabaseCommands(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	w.release("1.0", sampleRepo)
	w.release("1.1", sampleRepo)
	w.once(exitFine)
	w.daemon() // has it open
	copied, folder := filepath.Join(w.dir, "copy.db"), filepath.Join(w.dir, "out")
	run := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if got := w.monitor(&out, append([]string{"db"}, args...)...); got != want {
			t.Fatalf("monitor db %v: exit code %d, want %d", args, got, want)
		}
		for line := range strings.Lines(out.String()) {
			if strings.ContainsAny(line, "\x1b") || !utf8.ValidString(line) {
				t.Errorf("monitor db %v says %q", args, line)
			}
		}
		return out.String()
	}
	if out := run(exitFine, "check"); !strings.Contains(out, "is whole") {
		t.Errorf("check: %s", out)
	}
	run(exitFine, "backup", copied)
	run(exitCould, "backup", copied)
	run(exitFine, "check", copied)
	run(exitCould, "vacuum")
	run(exitFine, "export", folder)
	files, err := os.ReadFile(filepath.Join(folder, "files.csv"))
	if err != nil || strings.Count(string(files), "sampleproject-1.") < 2 {
		t.Errorf("files.csv: %v %s", err, files)
	}
	run(exitCould, "export", folder)
	// The copy gives the same answers.
	ours, theirs := w.store(), must(index.OpenReadOnly(t.Context(), copied))
	defer theirs.Close()
	a, b := must(ours.History(t.Context(), "", "sampleproject")), must(theirs.History(t.Context(), "", "sampleproject"))
	if diff := cmp.Diff(a, b); diff != "" || len(a.Entries) != 4 {
		t.Errorf("%d entries, and the copy: %s", len(a.Entries), diff)
	}
	whole := must(os.ReadFile(copied))
	for i := len(whole) / 2; i < len(whole)/2+8192; i++ {
		whole[i] ^= 0x5a
	}
	if err := os.WriteFile(copied, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	run(exitConvicts, "check", copied)
	run(exitCould, "check", filepath.Join(w.dir, "none.db"))
	if got := Main(t.Context(), []string{"--config", filepath.Join(w.dir, "none.yaml"), "db", "check"}, io.Discard, w.Output()); got != exitUsage {
		t.Errorf("without a configuration: exit code %d", got)
	}
}
