package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

// grow adds leaves that concern nobody to the v1 log.
func (w *world) grow(n int) {
	w.Helper()
	for range n {
		must(w.lab.V1.LogLeaf(fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"rekord","spec":{"n":%d}}`, w.lab.V1.Active().Size())))
	}
}

// v1 is what is on record about the v1 log.
func (w *world) v1() index.LogStatus {
	w.Helper()
	s := w.store()
	defer s.Close()
	for _, l := range must(s.LogStatuses(w.Context())) {
		if isOf(l.Log.Origin, lab.V1Host) {
			return l
		}
	}
	w.Fatal("the v1 log is not known")
	panic("unreachable")
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	also io.Writer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	return l.also.Write(b)
}

func (l *lines) find(r *regexp.Regexp) [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.FindAllStringSubmatch(l.text.String(), -1)
}

var behindLine = regexp.MustCompile(`level=WARN msg="tail is behind" log="rekor\.lab\.test - \d+" entries=(\d+) time=(\S+) lag=(\w+)`)

// A tail that may not ask as often as its log grows says how far it is behind, in
// entries and in time, and whether that grows; it stays behind, and catches up when
// it can, without a gap.
func TestTailThatCannotKeepUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "follow: tail, start: 0, rate: 40, max_rate: 40, batch: 100")
	log := &lines{also: t.Output()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d := must(newDaemon(ctx, must(loadConfig(w.config)), slog.New(slog.NewTextHandler(log, nil))))
	defer d.close()
	began := time.Now()
	d.keeper.Now = func() time.Time { return began.Add(1000 * time.Since(began)) } // the lag is said once a minute
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()

	said := func(trend string, least int) bool {
		for _, m := range log.find(behindLine) {
			entries, err := strconv.Atoi(m[1])
			behind, err2 := time.ParseDuration(m[2])
			if err != nil || err2 != nil || entries <= 0 || behind < 0 || behind > 1000*time.Since(began) {
				t.Errorf("%s", m[0])
			}
			if m[3] == trend && entries >= least && behind > 0 {
				return true
			}
		}
		return false
	}
	wait := func(what string, so func() bool) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); !so(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in three minutes: %s", what)
			}
		}
	}
	wait("a growing lag", func() bool {
		w.grow(100)
		return said("growing", 500)
	})
	if entries, seconds := metricOf(d, "sigtrail_lag_entries"), metricOf(d, "sigtrail_lag_seconds"); entries == 0 || seconds == 0 {
		t.Errorf("metrics: %v entries, %v seconds behind", entries, seconds)
	}
	w.grow(2000) // some seconds at this rate, however slow the machine
	size := w.lab.V1.Active().Size()
	wait("a shrinking lag", func() bool { return said("shrinking", 1) })
	wait("the end of the log", func() bool {
		s := w.v1()
		return s.Next != nil && *s.Next == size
	})
	wait("metrics without a lag", func() bool {
		return metricOf(d, "sigtrail_lag_entries") == 0 && metricOf(d, "sigtrail_lag_seconds") == 0
	})
	if c := w.v1().Coverage; len(c) != 1 || c[0] != (monitor.Range{From: 0, To: size}) {
		t.Errorf("covered: %v, want 0 to %d", c, size)
	}
	if got := metricOf(d, "sigtrail_log_rate_limit"); got != 40 {
		t.Errorf("the rate is %v", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// metricOf is the largest value of a metric over its labels, of finite ones.
func metricOf(d *daemon, name string) (v float64) {
	for _, f := range must(d.registry.Gather()) {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if g := m.GetGauge().GetValue(); g > v && g < 1e300 {
				v = g
			}
		}
	}
	return v
}

// A tail that comes back to more than it may be behind skips it and says so, once;
// without max_lag it reads all of it.
func TestTailSkips(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config string
		code   int
		want   []monitor.Range
	}{
		{"max_lag: 200", exitFindings, []monitor.Range{{From: 0, To: 50}, {From: 350, To: 351}}},
		{"max_lag: 300", exitFine, []monitor.Range{{From: 0, To: 351}}},
		{"max_lag: 0", exitFine, []monitor.Range{{From: 0, To: 351}}},
	} {
		t.Run(c.config, func(t *testing.T) {
			w := newWorld(t, "follow: tail, start: 0, batch: 100, "+c.config)
			w.grow(50)
			w.once(exitFine)
			w.grow(300)
			w.once(c.code)
			w.grow(1)
			w.once(exitFine)
			got := w.got()
			if skipped := c.code != exitFine; !skipped && len(got) != 0 || skipped && (len(got) != 1 || got[0].Rule != monitor.CoverageGap) {
				t.Errorf("received %+v", got)
			}
			if s := w.v1(); fmt.Sprint(s.Coverage) != fmt.Sprint(c.want) || *s.Next != 351 {
				t.Errorf("covered %v up to %d, want %v", s.Coverage, *s.Next, c.want)
			}
		})
	}
}
