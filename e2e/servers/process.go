package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const (
	startTimeout = 60 * time.Second // a server's start takes a second; the rest is a busy machine
	stopGrace    = 5 * time.Second
	logBound     = 8 << 10 // of a process's output, the newest part
)

// A Process is a program under test, or a server that it is tested against. It
// dies with the test, and its output is shown when the test has failed.
type Process struct {
	Name string

	cmd  *exec.Cmd
	out  *tail
	done chan struct{} // closed when it has ended
	err  error         // of Wait; read after done
}

// Start runs a program in a process group of its own. Its environment is the
// test's with env added.
func Start(t testing.TB, exe string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: filepath.Base(exe), out: new(tail), done: make(chan struct{})}
	p.cmd = exec.Command(exe, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = stopGrace // a grandchild may hold the pipes open
	ownGroup(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", p.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("last output of %s:\n%s", p.Name, p.Output())
		}
	})
	return p
}

// Stop asks the process to end, and after a grace ends its whole group. It
// returns what Wait said.
func (p *Process) Stop() error {
	interrupt(p.cmd)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
	}
	killGroup(p.cmd)
	<-p.done
	return p.err
}

// Kill ends the process as a power failure does: it is told nothing and finishes
// nothing.
func (p *Process) Kill() {
	killGroup(p.cmd)
	<-p.done
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait waits for the process to end by itself.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ended says whether the process is gone.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Output is the newest part of what the process has written.
func (p *Process) Output() string { return p.out.String() }

// tail keeps the newest logBound bytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - logBound; over > logBound {
		b.buf = append(b.buf[:0], b.buf[over:]...)
	}
	return len(p), nil
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf[max(0, len(b.buf)-logBound):])
}

// run starts a server on free ports and waits until it answers. A port can be
// taken between its choice and its use, so a server that ends on that is tried
// again on others.
func run(t testing.TB, exe string, env []string, ports int, args func(port []string) []string, ready func(port []string) error) (*Process, []string) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		port := freePorts(t, ports)
		p := Start(t, exe, env, args(port)...)
		err := await(t.Context(), p, func() error { return ready(port) })
		if err == nil {
			return p, port
		}
		p.Stop()
		taken := bytes.Contains([]byte(p.Output()), []byte("address already in use"))
		if attempt == 3 || !taken {
			t.Fatalf("waiting for %s: %v\n%s", p.Name, err, p.Output())
		}
	}
}

// await polls a server until it is ready, has ended, or time is up.
func await(ctx context.Context, p *Process, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it has ended: %w", errors.Join(p.err, err))
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freePorts returns ports of the loopback address that nobody listens on now.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("choosing a port: %v", err)
		}
		defer l.Close() // after all are chosen, so that they differ
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatalf("choosing a port: %v", err)
		}
		ports = append(ports, port)
	}
	return ports
}

// answers returns nil when a GET of the address is answered with 200.
func answers(url string) error {
	c := http.Client{Timeout: 5 * time.Second}
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

// serve runs an HTTP handler on loopback until the test ends and returns its
// base URL.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listening on loopback: %v", err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return "http://" + l.Addr().String()
}
