// Package lab is a small Sigstore and a small PyPI on loopback, for tests, the
// demo and benchmarks: a certificate authority that issues certificates of
// Fulcio's form, a Rekor v1 and a Rekor v2 that sign, prove and answer their
// real read APIs, and a PyPI with its journal, its simple JSON and its integrity
// API.
//
// All of them are faithful until told otherwise. The lies (a forked tree, a
// changed leaf, a shrinking log) live in the logs themselves, because a lie that
// does not carry the log's own signature is easy to catch; the faults of
// networks and proxies (slow, cut, oversized, refused) live in Faults, in front
// of every server. Honest undoes the former, Clear the latter.
//
// The package imports nothing of what it tests.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Host names of the lab. Nothing listens on them: the logs are read from
// loopback addresses, so that code which derives one from the other fails here.
const (
	V1Host   = "rekor.lab.test"
	V2Origin = "log2026.rekor.lab.test"
)

// A Clock is a settable clock, safe for concurrent use.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	frozen bool
}

// NewClock returns a clock that stands still at t.
func NewClock(t time.Time) *Clock { return &Clock{now: t, frozen: true} }

// Now is the clock's time; a nil or zero Clock tells the real one.
func (c *Clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen {
		return time.Now()
	}
	return c.now
}

// Set makes the clock stand still at t.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.frozen = t, true
}

// Advance moves the clock by d and returns its new time. A running clock stops.
func (c *Clock) Advance(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen {
		c.now = time.Now()
	}
	c.now, c.frozen = c.now.Add(d), true
	return c.now
}

// Options of a lab. The zero value will do.
type Options struct {
	// Clock gives integrated times and upload times. nil: the real clock.
	Clock func() time.Time
}

// A Lab is the whole set of servers. Make it with New; Start gives it addresses.
type Lab struct {
	CA   *CA
	V1   *V1
	V2   *V2
	PyPI *PyPI

	V1Faults, V2Faults, PyPIFaults *Faults

	clock   func() time.Time
	mu      sync.Mutex
	more    []*V2
	servers []*http.Server
	done    sync.WaitGroup
	addr    Addresses
}

// Addresses are what a client of a started lab has to know.
type Addresses struct {
	TrustedRoot string // path of trusted_root.json, set by Config
	V1          string // base URL of the v1 log, no trailing slash
	V1Host      string // name on the signature line of its heads
	V2          string // read prefix of the v2 log, ends in "/api/v2/"
	V2Origin    string
	PyPI        string // base URL, no trailing slash
}

// New makes a lab with fresh keys, not yet listening.
func New(o Options) (*Lab, error) {
	clock := o.Clock
	if clock == nil {
		clock = time.Now
	}
	l := &Lab{clock: clock, V1Faults: new(Faults), V2Faults: new(Faults), PyPIFaults: new(Faults)}
	var err error
	if l.CA, err = NewCA(); err != nil {
		return nil, err
	}
	if l.V2, err = NewV2(V2Origin, clock); err != nil {
		return nil, err
	}
	if l.V1, err = NewV1(V1Host, clock); err != nil {
		return nil, err
	}
	l.PyPI = NewPyPI(clock)
	return l, nil
}

// Start makes a lab and has it listen on loopback until ctx ends or Close.
func Start(ctx context.Context, o Options) (*Lab, error) {
	l, err := New(o)
	if err != nil {
		return nil, err
	}
	if err := l.listen(); err != nil {
		l.Close()
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	return l, nil
}

func (l *Lab) listen() error {
	v1URL, err := l.serve(l.V1Faults.Wrap(l.V1))
	if err != nil {
		return err
	}
	v2URL, err := l.serve(l.V2Faults.Wrap(l.V2))
	if err != nil {
		return err
	}
	pypiURL, err := l.serve(l.PyPIFaults.Wrap(l.PyPI))
	if err != nil {
		return err
	}
	l.PyPI.SetBase(pypiURL)
	l.addr = Addresses{V1: v1URL, V1Host: V1Host, V2: v2URL + "/api/v2/", V2Origin: V2Origin, PyPI: pypiURL}
	return nil
}

// serve starts a server on a free loopback port and returns its base URL.
func (l *Lab) serve(h http.Handler) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listening on loopback: %w", err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	l.mu.Lock()
	l.servers = append(l.servers, s)
	l.mu.Unlock()
	l.done.Go(func() {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			ln.Close()
		}
	})
	return "http://" + ln.Addr().String(), nil
}

// AddV2 starts another v2 log with its own key and returns it with its read
// prefix. It joins the trusted root from then on.
func (l *Lab) AddV2(origin string) (*V2, string, error) {
	v, err := l.JoinV2(origin)
	if err != nil {
		return nil, "", err
	}
	url, err := l.serve(l.V2Faults.Wrap(v))
	if err != nil {
		return nil, "", err
	}
	return v, url + "/api/v2/", nil
}

// JoinV2 is AddV2 for a log that is served otherwise.
func (l *Lab) JoinV2(origin string) (*V2, error) {
	v, err := NewV2(origin, l.clock)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.more = append(l.more, v)
	return v, nil
}

// Addresses of a started lab; TrustedRoot is empty.
func (l *Lab) Addresses() Addresses { return l.addr }

// Close stops the servers and cuts their connections. It may be called twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	servers := l.servers
	l.servers = nil
	l.mu.Unlock()
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Close())
	}
	l.done.Wait()
	return errors.Join(errs...)
}

// TrustedRootJSON is the trusted root that names the lab's logs and authority.
func (l *Lab) TrustedRootJSON() []byte {
	logs := []TrustedLog{l.V1.Trusted(), l.V2.Trusted()}
	l.mu.Lock()
	for _, v := range l.more {
		logs = append(logs, v.Trusted())
	}
	l.mu.Unlock()
	return TrustedRoot(l.CA, logs...)
}

// Config writes trusted_root.json to a folder and returns the addresses.
func (l *Lab) Config(dir string) (Addresses, error) {
	path := filepath.Join(dir, "trusted_root.json")
	if err := os.WriteFile(path, l.TrustedRootJSON(), 0o644); err != nil {
		return Addresses{}, fmt.Errorf("writing the trusted root: %w", err)
	}
	a := l.addr
	a.TrustedRoot = path
	return a, nil
}

// Now is the lab's time.
func (l *Lab) Now() time.Time { return l.clock() }
