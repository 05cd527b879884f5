// Command bench measures the real monitor as a whole process: it generates a v2
// log, serves it over HTTP, lets "monitor --once" catch up with it, and prints what
// the operating system says that this cost.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"sigtrail/internal/lab"
)

func main() {
	log.SetFlags(0)
	n := flag.Int("n", 100_000, "leaves in the log")
	load := flag.Bool("load", false, "play a day of PyPI instead, to a monitor that watches all of it")
	flag.Parse()
	err := error(nil)
	if *load {
		err = runLoad(context.Background())
	} else {
		err = run(context.Background(), *n)
	}
	if err != nil {
		log.Fatal("bench: ", err)
	}
}

// A measured run is what one child process cost.
type measured struct {
	name      string
	leaves    int
	cpu, wall time.Duration
	rss       int64 // bytes
	size      int64 // of the database, bytes
}

func run(ctx context.Context, n int) error {
	dir, err := os.MkdirTemp("", "sigtrail-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "monitor")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/monitor").CombinedOutput(); err != nil {
		return fmt.Errorf("building the monitor: %w\n%s", err, out)
	}
	var results []measured
	for _, size := range []int{n / 4, n} {
		more, err := measureLog(ctx, dir, bin, size)
		if err != nil {
			return err
		}
		results = append(results, more...)
	}
	report(results)
	return nil
}

// measureLog generates a log and lets the monitor catch up with it in three ways.
func measureLog(ctx context.Context, dir, bin string, n int) ([]measured, error) {
	l, err := lab.Start(ctx, lab.Options{})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	start := time.Now()
	projects, err := l.Generate(lab.GenerateOptions{Leaves: n, Bound: 20})
	if err != nil {
		return nil, err
	}
	log.Printf("generated %d leaves in %s", n, time.Since(start).Round(time.Second))
	a, err := l.Config(dir)
	if err != nil {
		return nil, err
	}
	var out []measured
	for _, c := range []struct {
		name, follow string
		projects     []string
	}{
		{"all leaves, nothing watched", "tail", nil},
		{"all leaves, 5 % bound and checked", "tail", projects},
		{"PyPI alone, for comparison", "head", projects},
	} {
		m, err := measure(ctx, dir, bin, a, c.follow, c.projects)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		m.name, m.leaves = c.name, n
		out = append(out, m)
	}
	return out, nil
}

func measure(ctx context.Context, dir, bin string, a lab.Addresses, follow string, projects []string) (measured, error) {
	db := filepath.Join(dir, "bench.db")
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if err := os.Remove(db + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return measured{}, err
		}
	}
	config := filepath.Join(dir, "bench.yaml")
	text := fmt.Sprintf("database: bench.db\nlisten: \"\"\ntrusted_root: trusted_root.json\nlogs:\n  - {api: v2, origin: %s, url: %q, follow: %s, start: 0}\npypi: {url: %q, projects: [%s], rate: 2000}\n",
		a.V2Origin, a.V2, follow, a.PyPI, strings.Join(projects, ", "))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return measured{}, err
	}
	cmd := exec.CommandContext(ctx, bin, "--config", config, "--once")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return measured{}, err
	}
	peak := watchMemory(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		return measured{}, fmt.Errorf("%w\n%s", err, out.Bytes())
	}
	info, err := os.Stat(db)
	if err != nil {
		return measured{}, err
	}
	return measured{cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), wall: time.Since(start), rss: <-peak, size: info.Size()}, nil
}

// watchMemory reads a process's peak memory until it is gone. The rusage of a
// child will not do: it begins with the peak of its parent, which holds the log.
func watchMemory(pid int) <-chan int64 {
	peak := make(chan int64, 1)
	go func() {
		most := int64(0)
		for {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, after, ok := strings.Cut(string(b), "VmHWM:")
			if err != nil || !ok {
				peak <- most
				return
			}
			var kib int64
			if _, err := fmt.Sscan(after, &kib); err == nil {
				most = max(most, kib<<10)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return peak
}

func report(results []measured) {
	fmt.Printf("\nmonitor --once on %d core(s), %s\n\n", runtime.GOMAXPROCS(0), runtime.Version())
	fmt.Printf("%-36s %9s %8s %8s %14s %13s %9s %9s\n", "run", "leaves", "cpu s", "wall s", "leaves/cpu s", "leaves/wall s", "peak MiB", "db MiB")
	for _, m := range results {
		fmt.Printf("%-36s %9d %8.2f %8.2f %14.0f %13.0f %9.1f %9.1f\n", m.name, m.leaves, m.cpu.Seconds(), m.wall.Seconds(),
			float64(m.leaves)/m.cpu.Seconds(), float64(m.leaves)/m.wall.Seconds(), float64(m.rss)/(1<<20), float64(m.size)/(1<<20))
	}
	fmt.Println("\nleaves/cpu s of the last run of each size mean nothing; its cpu s are part of the run before it.")
}
