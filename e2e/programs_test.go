package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sigtrail/e2e/servers"
)

// patience bounds every wait for something that is sure to come. It is not what
// is measured: a test that passes waits for a fraction of it.
const patience = 90 * time.Second

// programs builds monitor and timeline from the source tree beside this folder, as
// releases are built, once for all tests, and returns their folder.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sigtrail-e2e-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-tags", "stream", "-o", dir+string(filepath.Separator), "./cmd/monitor", "./cmd/timeline")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("building monitor and timeline: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := programs(); dir != "" { // built by now, or by no test
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func built(t *testing.T, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// A daemon is a running monitor.
type daemon struct {
	*servers.Process
	address string // of metrics and health
}

// startMonitor runs the real monitor over a configuration, which it writes into
// a folder with the address to listen on, and waits until monitor is ready.
func startMonitor(t *testing.T, dir, config string, env ...string) *daemon {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	path := filepath.Join(dir, "monitor.yaml")
	if err := os.WriteFile(path, []byte("listen: "+address+"\n"+config), 0o644); err != nil {
		t.Fatal(err)
	}
	d := &daemon{Process: servers.Start(t, built(t, "monitor"), env, "--config", path), address: address}
	d.until(t, "ready", func() (bool, string) {
		code, body := d.get(t, "/readyz")
		return code == http.StatusOK, fmt.Sprint(code, " ", body)
	})
	if code, body := d.get(t, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz of a ready daemon: %d %s", code, body)
	}
	return d
}

// until waits for a condition, and gives up when the daemon has ended.
func (d *daemon) until(t *testing.T, what string, holds func() (bool, string)) {
	t.Helper()
	d.within(t, patience, what, holds)
}

func (d *daemon) within(t *testing.T, patience time.Duration, what string, holds func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		ok, state := holds()
		if ok {
			return
		}
		if d.Ended() {
			t.Fatalf("monitor has ended before it was %s", what)
		}
		if time.Now().After(end) {
			t.Fatalf("monitor is not %s after %s: %s", what, patience, state)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// get returns status 0 when nobody answers.
func (d *daemon) get(t *testing.T, path string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: 10 * time.Second}
	resp, err := c.Get("http://" + d.address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// A sample of /metrics, by its name with labels as written there.
type samples map[string]float64

var sampleLine = regexp.MustCompile(`(?m)^([a-z_]+(?:\{[^\n]*\})?) (\S+)$`)

func (d *daemon) metrics(t *testing.T) samples {
	t.Helper()
	_, body := d.get(t, "/metrics")
	s := make(samples)
	for _, m := range sampleLine.FindAllStringSubmatch(body, -1) {
		if v, err := strconv.ParseFloat(m[2], 64); err == nil {
			s[m[1]] = v
		}
	}
	return s
}

// sum adds up all series of a name.
func (s samples) sum(name string) float64 {
	var sum float64
	for series, v := range s {
		if series == name || strings.HasPrefix(series, name+"{") {
			sum += v
		}
	}
	return sum
}

// of is one series with one label; -1: there is none.
func (s samples) of(name, label, value string) float64 {
	sum, found := 0.0, false
	for series, v := range s {
		if strings.HasPrefix(series, name+"{") && strings.Contains(series, label+`="`+value+`"`) {
			sum, found = sum+v, true
		}
	}
	if !found {
		return -1
	}
	return sum
}

// timeline runs the real timeline and returns what it prints and its exit code.
func timeline(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), built(t, "timeline"), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("running timeline: %v", err)
	}
	if stderr.Len() > 0 {
		t.Logf("timeline %s says: %s", strings.Join(args, " "), stderr.String())
	}
	return string(out), cmd.ProcessState.ExitCode()
}
