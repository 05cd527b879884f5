package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// once runs monitor --once and returns the end of what it says, its exit code and
// its peak of resident memory in bytes.
func (s *soak) once(config string) (string, int, int64) {
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), built(s.t, "monitor"), "--config", config, "--once")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("running monitor: %v", err)
	}
	ended := make(chan struct{})
	peak := make(chan float64, 1)
	go func() {
		// The usage that the kernel reports of a child begins with the peak of
		// its parent, which holds the servers' database.
		most := 0.0
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-ended:
				tick.Stop()
				peak <- most
				return
			case <-tick.C:
				most = max(most, resident(cmd.Process.Pid, "VmHWM"))
			}
		}
	}()
	_ = cmd.Wait() // the exit code says it
	close(ended)
	out := said.String()
	return out[max(0, len(out)-4000):], cmd.ProcessState.ExitCode(), int64(<-peak)
}

// A report is the table of figures; a line with a fault in it fails the soak.
type report struct {
	lines [][3]string
	bad   []string
}

func (r *report) figure(name string, value any) {
	r.lines = append(r.lines, [3]string{name, fmt.Sprint(value), ""})
}

// must is a figure that has to hold; the details say what does not.
func (r *report) must(name string, value any, wrong []string) {
	verdict := "holds"
	if len(wrong) > 0 {
		verdict = fmt.Sprintf("DOES NOT HOLD (%d)", len(wrong))
		r.bad = append(r.bad, name+":")
		for _, w := range wrong[:min(len(wrong), 15)] {
			r.bad = append(r.bad, "  "+w)
		}
	}
	r.lines = append(r.lines, [3]string{name, fmt.Sprint(value), verdict})
}

func (r *report) String() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, l := range r.lines {
		fmt.Fprintf(w, "%s\t%s\t%s\n", l[0], l[1], l[2])
	}
	w.Flush()
	return out.String()
}

// check holds everything against what is known, and prints the figures.
func (s *soak) check() {
	r := new(report)
	began := time.Now()
	late, latePeak := s.late()
	lateTook := time.Since(began)
	db := openDatabase(s.t, s.database())

	r.figure("run", s.length.String()+", seed "+fmt.Sprint(s.seed))
	for _, name := range slices.Sorted(maps.Keys(s.done)) {
		r.figure("acts: "+name, s.done[name])
	}
	spoilt := 0
	for _, w := range s.allWays() {
		spoilt += w.spoilt()
	}
	r.figure("requests spoilt", spoilt)
	r.figure("monitor: lives", s.life)

	s.checkSizes(r, db)
	s.checkTruth(r, db)
	s.checkAlerts(r, db)
	for _, name := range slices.Sorted(maps.Keys(sameEverywhere)) {
		ours, theirs := ask(s.t, db, sameEverywhere[name]), ask(s.t, late, sameEverywhere[name])
		r.must("equal to a late monitor's: "+name, fmt.Sprintf("%d rows", len(ours)), differences(ours, theirs))
	}
	r.figure("database: size", mib(s.databaseSize()))
	r.must("SQLite's integrity check", "ok", differences(ask(s.t, db, `PRAGMA integrity_check`), table{"integrity_check=ok"}))
	s.checkMemory(r)
	r.figure("late monitor: time, peak of memory", fmt.Sprintf("%s, %s", lateTook.Round(100*time.Millisecond), mib(float64(latePeak))))

	s.t.Logf("figures:\n%s", r)
	for _, b := range r.bad {
		s.t.Error(b)
	}
}

// checkSizes compares logs, coverage and what was acknowledged.
func (s *soak) checkSizes(r *report, db *sql.DB) {
	sizes := s.sizes()
	var v1, v2 int
	var want table
	for origin, n := range sizes {
		if strings.HasPrefix(origin, s.v1.Host+" ") {
			v1 += n
		} else {
			v2 += n
		}
		if n > 0 {
			want = append(want, fmt.Sprintf("origin=%s first=0 past=%d", origin, n))
		}
	}
	count := func(name string, size int, ok, failed int64) {
		var wrong []string
		if int64(size) < ok || int64(size) > ok+failed {
			wrong = []string{fmt.Sprintf("%d entries were acknowledged and %d failed, so there cannot be %d", ok, failed, size)}
		}
		r.must(name, fmt.Sprintf("%d entries; %d writes acknowledged, %d failed", size, ok, failed), wrong)
	}
	count("v1", v1, s.acknowledged.v1.Load(), s.failed.v1.Load())
	count("v2", v2, s.acknowledged.v2.Load(), s.failed.v2.Load())
	origins := s.v1.Origins()
	for _, log := range s.tilesEver {
		origins = append(origins, log.Origin)
	}
	for _, origin := range origins {
		heads := number(s.t, db, fmt.Sprintf(`SELECT count(*) AS n FROM heads JOIN logs ON logs.id = log_id WHERE origin = '%s'`, origin))
		r.figure("log "+origin, fmt.Sprintf("%d entries, %d heads kept", sizes[origin], heads))
	}
	r.must("coverage: one range a log, from 0 to its end", fmt.Sprintf("%d entries", v1+v2), differences(ask(s.t, db, sameEverywhere["coverage"]), want))
}

// checkTruth looks for the binding of every signature that a log acknowledged, and
// for others.
func (s *soak) checkTruth(r *report, db *sql.DB) {
	got := ask(s.t, db, `SELECT DISTINCT origin, idx, filename FROM bindings b JOIN entries e ON e.id = b.entry_id JOIN logs l ON l.id = e.log_id JOIN files f ON f.id = b.file_id WHERE evidence = 'statement' AND signature = ''`)
	var want table
	for _, l := range s.truth {
		want = append(want, fmt.Sprintf("origin=%s idx=%d filename=%s", l.origin, l.index, l.file))
	}
	r.must("signatures of files, each bound to its file", len(want), differences(got, want))
}

// checkAlerts wants one alert for each release that a foreign repository signed,
// delivered under one id, and nothing else.
func (s *soak) checkAlerts(r *report, db *sql.DB) {
	var want, stored, delivered table
	ids := make(map[string]string) // id → what it is about
	var waits []float64
	var wrong []string
	for release := range s.foreign {
		want = append(want, "unexpected-signer "+release)
	}
	got := s.alerts.deliveries()
	for _, d := range got {
		about := d.Alert.Rule + " " + d.Alert.Project + " " + d.Alert.Version
		if !s.alerts.signed(d) {
			wrong = append(wrong, "its signature does not verify: "+about)
		}
		if before, ok := ids[d.ID]; ok {
			if before != about {
				wrong = append(wrong, fmt.Sprintf("id %s is of %s and of %s", d.ID, before, about))
			}
			continue // delivered at least once
		}
		ids[d.ID] = about
		delivered = append(delivered, about)
		if since, ok := s.foreign[d.Alert.Project+" "+d.Alert.Version]; ok {
			waits = append(waits, max(0, d.At.Sub(since).Seconds()))
		}
	}
	for _, row := range ask(s.t, db, `SELECT id, rule || ' ' || project || ' ' || version AS about FROM alerts`) {
		id, about, _ := strings.Cut(strings.TrimPrefix(row, "id="), " about=")
		stored = append(stored, about)
		if ids[id] != about {
			wrong = append(wrong, fmt.Sprintf("alert %s (%s) was delivered as %q", id, about, ids[id]))
		}
	}
	r.must("alerts delivered, each expected, each under one id", fmt.Sprintf("%d of %d, in %d deliveries", len(delivered), len(want), len(got)), append(differences(delivered, want), wrong...))
	r.must("alerts on record", len(stored), differences(stored, want))
	r.figure("from the last of publication and signature to the alert", fmt.Sprintf("median %.1f s, 95%% %.1f s, longest %.1f s", quantile(waits, 0.5), quantile(waits, 0.95), quantile(waits, 1)))
}

// The bounds of memory. A process that leaked a page for each entry would break
// them within the hour. Below that, growth is the caches of the database filling up.
const (
	mostMemory   = 256 << 20 // bytes resident, ever
	mostGrowth   = 0.20      // of the median, from the middle third of the run to the last
	enoughToTell = 10 * time.Minute
)

func (s *soak) checkMemory(r *report) {
	tr := s.trend()
	r.figure("memory: samples, longest life", fmt.Sprintf("%d, %s", tr.samples, tr.longest.Round(time.Second)))
	var wrong []string
	if tr.peak == 0 || tr.peak > mostMemory {
		wrong = append(wrong, fmt.Sprintf("%s at most, want at most %s", mib(tr.peak), mib(mostMemory)))
	}
	r.must("memory: resident, median and peak", fmt.Sprintf("%s, %s", mib(tr.median), mib(tr.peak)), wrong)
	wrong = nil
	if tr.watched >= enoughToTell && tr.late > (1+mostGrowth)*tr.middle {
		wrong = append(wrong, fmt.Sprintf("it has grown by %s", mib(tr.late-tr.middle)))
	}
	r.must("memory: resident, median of middle third and of last", fmt.Sprintf("%s, %s", mib(tr.middle), mib(tr.late)), wrong)
	r.figure("memory that is of no file: median, slope after warm-up", fmt.Sprintf("%s, %+.1f MiB/h over %s", mib(tr.own), tr.slope/(1<<20), tr.watched.Round(time.Second)))
	r.figure("memory: peak of Go's heap in use", mib(tr.heapPeak))
	r.figure("processor: share of one", fmt.Sprintf("%.1f %%", 100*tr.cpu))
	r.figure("most goroutines, open files", fmt.Sprintf("%.0f, %.0f", tr.routines, tr.files))
	r.figure("most entries behind the verified heads", fmt.Sprintf("%.0f", tr.maxLag))
}

// databaseSize is in bytes, what is not yet folded into the main file included.
func (s *soak) databaseSize() (all float64) {
	for _, name := range []string{s.database(), s.database() + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			all += float64(info.Size())
		}
	}
	return all
}

func mib(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }
