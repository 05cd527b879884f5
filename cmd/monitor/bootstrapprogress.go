package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"sigtrail/pypi"
)

// bootstrapLogEvery is how often the reading of new projects says how far it has come
// where there is no terminal.
const bootstrapLogEvery = 30 * time.Second

// A console is where the log goes, and a bar below it if that is a terminal.
type console struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	bar      *progressbar.ProgressBar // nil: none is shown
}

func newConsole(w io.Writer) *console {
	return &console{w: w, terminal: onTerminal(w)}
}

// Write prints lines of the log above the bar, which comes back by itself.
func (s *console) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		_ = s.bar.Clear()
	}
	return s.w.Write(p)
}

func (s *console) show(b *pypi.Bootstrap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.Finished {
		if s.bar != nil {
			_ = s.bar.Exit()
		}
		s.bar = nil
		return
	}
	if s.bar == nil {
		s.bar = newBar(s.w, int64(b.Total), "projects")
	}
	s.bar.ChangeMax64(int64(b.Total))
	s.bar.Describe(fmt.Sprintf("reading projects: %d files, %d provenances", b.Files, b.Provenance))
	if b.Done < b.Total { // a full bar is a finished one
		_ = s.bar.Set64(int64(b.Done))
	}
}

// bootstrapProgress says how far the reading of an index's new projects has come: a
// bar on a terminal, else a line in the log now and then.
type bootstrapProgress struct {
	console *console // nil: no terminal
	log     *slog.Logger
	every   time.Duration
	spoken  time.Time
}

func (p *bootstrapProgress) show(b *pypi.Bootstrap) {
	if p.console != nil && p.console.terminal {
		p.console.show(b)
	} else if !b.Finished && p.due() {
		p.log.Info("reading projects that are new", "projects", b.Done, "of", b.Total, "files", b.Files, "provenances", b.Provenance, "waiting", b.Waiting,
			"per second", fmt.Sprintf("%.1f", b.Rate), "left", b.Left.Round(time.Second))
	}
	if b.Finished {
		p.log.Info("projects that were new are read", "projects", b.Done, "files", b.Files, "provenances", b.Provenance)
		p.spoken = time.Time{}
	}
}

// due is false at first: most are done before there is anything to say.
func (p *bootstrapProgress) due() bool {
	now := time.Now()
	if p.spoken.IsZero() {
		p.spoken = now
	}
	if now.Sub(p.spoken) < p.every {
		return false
	}
	p.spoken = now
	return true
}
