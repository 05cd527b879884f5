package main

import (
	"io"
	"log/slog"
	"time"

	"github.com/schollz/progressbar/v3"

	"sigtrail/index"
	"sigtrail/monitor"
)

// scanLogEvery is how often a scan says how far it has come where there is no
// terminal.
const scanLogEvery = 10 * time.Second

// scanProgress shows how far a scan has come: a bar on a terminal, else a line in
// the log now and then. Entries that an earlier run has read do not count for the
// rate.
type scanProgress struct {
	log    *slog.Logger
	in     monitor.Log
	of     monitor.Range // what this run reads
	every  time.Duration
	bar    *progressbar.ProgressBar // nil: no terminal
	began  time.Time
	spoken time.Time
}

func newScanProgress(w io.Writer, log *slog.Logger, in monitor.Log, c index.Scan) *scanProgress {
	now := time.Now()
	p := &scanProgress{log: log, in: in, of: c.Range, every: scanLogEvery, began: now, spoken: now}
	if c.ID != 0 {
		p.of.From = c.Next
	}
	if onTerminal(w) {
		p.bar = newBar(w, int64(p.of.To-p.of.From), "entries")
		p.bar.Describe("scanning")
	}
	return p
}

// advanced is called after each commit.
func (p *scanProgress) advanced(next uint64) {
	if p.bar != nil {
		_ = p.bar.Set64(int64(next - p.of.From)) // a terminal that has gone away stops no scan
		return
	}
	now := time.Now()
	if now.Sub(p.spoken) < p.every {
		return
	}
	p.spoken = now
	rate := float64(next-p.of.From) / now.Sub(p.began).Seconds()
	p.log.Info("scanning", "log", p.in.Origin, "next", p.in.Global(next), "entries", next-p.of.From, "of", p.of.To-p.of.From,
		"per second", int(rate), "left", time.Duration(float64(p.of.To-next)/rate*float64(time.Second)).Round(time.Second))
}

func (p *scanProgress) end() {
	if p.bar != nil {
		_ = p.bar.Exit()
	}
}
