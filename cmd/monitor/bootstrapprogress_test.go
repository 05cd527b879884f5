package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sigtrail/pypi"
)

// Without a terminal, the reading of new projects says every half minute how far it
// has come, and says when it is done; what is done at once says only that.
func TestBootstrapProgressInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		p := &bootstrapProgress{console: newConsole(&said), log: slog.New(slog.NewTextHandler(&said, nil)), every: bootstrapLogEvery}
		p.show(&pypi.Bootstrap{Total: 1})
		p.show(&pypi.Bootstrap{Done: 1, Total: 1, Files: 3, Finished: true})
		if n := strings.Count(said.String(), "\n"); n != 1 || !strings.Contains(said.String(), `"projects that were new are read" projects=1 files=3`) {
			t.Errorf("said:\n%s", &said)
		}
		said.Reset()
		for i := range 95 {
			p.show(&pypi.Bootstrap{Done: i, Total: 700, Files: 5, Provenance: 2, Waiting: 1, Rate: 1, Left: 605 * time.Second})
			time.Sleep(time.Second)
		}
		if n := strings.Count(said.String(), "reading projects that are new"); n != 3 || !strings.Contains(said.String(), `projects=90 of=700 files=5 provenances=2 waiting=1 "per second"=1.0 left=10m5s`) {
			t.Errorf("said %d times:\n%s", n, &said)
		}
	})
}

// On a terminal a line of the log is no part of the bar.
func TestLogAboveTheBar(t *testing.T) {
	var shown bytes.Buffer
	s := newConsole(&shown)
	s.terminal = true
	p := &bootstrapProgress{console: s, log: slog.New(slog.NewTextHandler(s, nil))}
	p.show(&pypi.Bootstrap{Done: 3, Total: 10, Files: 4, Provenance: 1})
	if !strings.Contains(shown.String(), "4 files, 1 provenances") || !strings.Contains(shown.String(), "3/10") {
		t.Errorf("shown: %q", &shown)
	}
	if _, err := io.WriteString(s, "a line\n"); err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(shown.String(), "3/10")
	if before, _, ok := strings.Cut(after, "a line\n"); !ok || !strings.HasSuffix(strings.TrimRight(before, " "), "\r") {
		t.Errorf("the line is not on its own: %q", after)
	}
	p.show(&pypi.Bootstrap{Done: 10, Total: 10, Finished: true})
	if s.bar != nil {
		t.Error("the bar stays")
	}
}
