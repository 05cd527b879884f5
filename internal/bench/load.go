package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sigtrail/index"
	"sigtrail/internal/lab"
)

// load flags: a day of PyPI, played to a monitor that watches all of it.
var (
	uploads  = flag.Int("uploads", 40_000, "with -load: files uploaded in the day")
	projects = flag.Int("projects", 5_000, "with -load: projects that are there before")
	speed    = flag.Float64("speed", 50, "with -load: how many times faster than real")
	from     = flag.Duration("from", 0, "with -load: time of day to begin with")
	span     = flag.Duration("span", 24*time.Hour, "with -load: how much of the day to play")
	lookups  = flag.Bool("lookups", false, "with -load: the log is searched as well")
)

// A census counts what PyPI is asked, and when it had what first.
type census struct {
	next http.Handler

	mu       sync.Mutex
	calls    map[string]int
	uploaded map[string]time.Time // by file name
	fetched  []time.Duration      // of provenance, after the upload
}

func (c *census) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.next.ServeHTTP(w, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case parts[0] == "pypi":
		c.calls["journal"]++
	case parts[0] == "simple" && len(parts) == 1:
		c.calls["all projects"]++
	case parts[0] == "simple":
		c.calls["listing"]++
	case parts[0] == "integrity" && len(parts) == 5:
		c.calls["provenance"]++
		if at, ok := c.uploaded[parts[3]]; ok {
			c.fetched = append(c.fetched, time.Since(at))
		}
	default:
		c.calls["other"]++
	}
}

func (c *census) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls, c.fetched = make(map[string]int), nil
}

func (c *census) upload(u lab.Upload) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uploaded[u.Filename] = time.Now()
}

// runLoad plays the day and reports what it cost.
func runLoad(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "sigtrail-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "monitor")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/monitor").CombinedOutput(); err != nil {
		return fmt.Errorf("building the monitor: %w\n%s", err, out)
	}
	l, err := lab.Start(ctx, lab.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	c := &census{next: l.PyPI, calls: make(map[string]int), uploaded: make(map[string]time.Time)}
	front := httptest.NewServer(c)
	defer front.Close()
	l.PyPI.SetBase(front.URL)
	replay, err := l.Prepare(lab.Day{Seed: 1, Uploads: *uploads, Projects: *projects})
	if err != nil {
		return err
	}
	m, err := startMonitor(ctx, l, dir, bin, front.URL)
	if err != nil {
		return err
	}
	defer m.stop()
	log.Printf("a day of %d uploads, %d attested, on %d projects; waiting until the monitor knows these", replay.Uploads, replay.Attested, *projects)
	if err := m.await(ctx, *projects); err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // provenance of the last ones
	return m.play(ctx, replay, c)
}

// A monitored process, and its database as others read it.
type process struct {
	cmd   *exec.Cmd
	db    string
	store *index.Store
}

func startMonitor(ctx context.Context, l *lab.Lab, dir, bin, pypi string) (*process, error) {
	a, err := l.Config(dir)
	if err != nil {
		return nil, err
	}
	follow := "head"
	if *lookups {
		follow = "lookup"
	}
	config := filepath.Join(dir, "load.yaml")
	text := fmt.Sprintf("database: load.db\nlisten: 127.0.0.1:0\ntrusted_root: trusted_root.json\nlogs:\n  - {api: v1, origin: %s, url: %q, follow: %s, rate: 500}\n  - {api: v2, origin: %s, url: %q, follow: head}\npypi: {url: %q, all: true, interval: 1s, rate: 200}\n",
		a.V1Host, a.V1, follow, a.V2Origin, a.V2, pypi)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	out, err := os.Create(filepath.Join(dir, "monitor.log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	m := &process{cmd: exec.CommandContext(ctx, bin, "--config", config), db: filepath.Join(dir, "load.db")}
	m.cmd.Stdout, m.cmd.Stderr = out, out
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		if m.store, err = index.OpenReadOnly(ctx, m.db); err == nil {
			return m, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.stop()
	b, _ := os.ReadFile(out.Name())
	return nil, fmt.Errorf("the monitor does not begin: %w\n%s", err, b)
}

func (m *process) stop() {
	if m.store != nil {
		m.store.Close()
	}
	_ = m.cmd.Process.Signal(os.Interrupt)
	_ = m.cmd.Wait()
}

// each calls f with every file that is stored.
func (m *process) each(ctx context.Context, f func(index.File)) error {
	for last := index.FileID(0); ; {
		files, err := m.store.FilesAfter(ctx, last, 500)
		if err != nil || len(files) == 0 {
			return err
		}
		for _, file := range files {
			last = file.ID
			f(file)
		}
	}
}

// files counts those that are stored.
func (m *process) files(ctx context.Context) (int, error) {
	p, err := m.store.Progress(ctx)
	return p.Files, err
}

// await waits until so many files are stored.
func (m *process) await(ctx context.Context, n int) error {
	for end := time.Now().Add(10 * time.Minute); ; time.Sleep(time.Second) {
		have, err := m.files(ctx)
		if err != nil || have >= n {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d projects are not known after ten minutes", n-have, n)
		}
	}
}

// play plays the day, watches the database, and reports.
func (m *process) play(ctx context.Context, replay *lab.Replay, c *census) error {
	c.begin()
	before, err := m.files(ctx)
	if err != nil {
		return err
	}
	size, cpu, start := m.size(), m.cpu(), time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	memory := m.watchMemory(ctx)
	type played struct {
		uploads, attested int
		err               error
	}
	done := make(chan played, 1)
	go func() {
		n, attested, err := replay.Play(ctx, *speed, *from, *from+*span, c.upload)
		done <- played{n, attested, err}
	}()
	all := <-done
	if all.err != nil {
		return all.err
	}
	ended := time.Now()
	for ; ; time.Sleep(time.Second) {
		have, err := m.files(ctx)
		if err != nil {
			return err
		}
		// Files that were deleted at once are never seen, so the end is when
		// nothing more comes.
		if have >= before+all.uploads || time.Since(ended) > 30*time.Second {
			break
		}
	}
	drained := time.Since(ended)
	cpuUsed, wall := m.cpu()-cpu, time.Since(start)
	time.Sleep(10 * time.Second) // what is left of the provenance
	var lags []time.Duration
	if err := m.each(ctx, func(f index.File) {
		if at, ok := c.uploaded[f.Name]; ok {
			lags = append(lags, f.FirstSeen.Sub(at))
		}
	}); err != nil {
		return err
	}
	cancel()
	m.report(c, all.uploads, all.attested, lags, drained, wall, cpuUsed, m.size()-size, <-memory)
	return nil
}

func (m *process) size() (n int64) {
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(m.db + suffix); err == nil {
			n += info.Size()
		}
	}
	return n
}

// cpu is how long the process has computed.
func (m *process) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // a hundred a second on Linux
}

// watchMemory reads the resident memory every ten seconds until ctx ends.
func (m *process) watchMemory(ctx context.Context) <-chan []int64 {
	all := make(chan []int64, 1)
	go func() {
		var series []int64
		for {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
			if _, after, ok := strings.Cut(string(b), "VmRSS:"); ok {
				var kib int64
				if _, err := fmt.Sscan(after, &kib); err == nil {
					series = append(series, kib<<10)
				}
			}
			select {
			case <-ctx.Done():
				all <- series
				return
			case <-time.After(10 * time.Second):
			}
		}
	}()
	return all
}

func (m *process) report(c *census, uploads, attested int, lags []time.Duration, drained, wall, cpu time.Duration, size int64, memory []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf("\nPyPI at %g times its speed: %d uploads, %d attested, in %s\n\n", *speed, uploads, attested, wall.Round(time.Second))
	row := func(what, format string, a ...any) { fmt.Printf("%-44s %s\n", what, fmt.Sprintf(format, a...)) }
	row("files indexed", "%d", len(lags))
	row("uploaded to indexed: median, p95, max", "%s", spread(lags))
	row("uploaded to provenance fetched, likewise", "%s of %d", spread(c.fetched), len(c.fetched))
	row("last upload to all counted", "%s", drained.Round(100*time.Millisecond))
	total := 0
	for _, call := range []string{"journal", "listing", "provenance", "all projects", "other"} {
		row("requests: "+call, "%d, %.2f an upload", c.calls[call], float64(c.calls[call])/float64(uploads))
		total += c.calls[call]
	}
	row("requests in all", "%d, allowed are %d", total, 2*uploads+attested)
	row("CPU", "%.1f s, %.2f ms an upload", cpu.Seconds(), float64(cpu.Milliseconds())/float64(uploads))
	row("database", "%.1f MiB more, %d bytes an upload", float64(size)/(1<<20), size/int64(max(uploads, 1)))
	if len(memory) > 0 {
		var parts []string
		for i := range 6 {
			parts = append(parts, fmt.Sprintf("%.0f", float64(memory[i*(len(memory)-1)/5])/(1<<20)))
		}
		row("resident MiB over time; peak", "%s; %.0f", strings.Join(parts, " "), float64(slices.Max(memory))/(1<<20))
	}
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	d = slices.Sorted(slices.Values(d))
	at := func(part float64) time.Duration {
		return d[int(part*float64(len(d)-1))].Round(10 * time.Millisecond)
	}
	return fmt.Sprintf("%s, %s, %s", at(0.5), at(0.95), at(1))
}
