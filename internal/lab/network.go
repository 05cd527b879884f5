package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Network connects clients to handlers by host name, in memory: no socket, no
// name service, and https without certificates. Nothing else can be reached
// through it. Without sockets a whole daemon fits into a testing/synctest bubble,
// where a week takes a moment.
type Network struct {
	mu      sync.Mutex
	hosts   map[string]*wire
	servers []*http.Server
	asked   map[string]bool
	done    sync.WaitGroup
}

// NewNetwork makes a network without hosts.
func NewNetwork() *Network {
	return &Network{hosts: make(map[string]*wire), asked: make(map[string]bool)}
}

// Network is a network with the lab's logs and index under the names that they
// sign under, "pypi.lab.test" being the index.
func (l *Lab) Network() *Network {
	n := NewNetwork()
	n.Serve(V1Host, l.V1Faults.Wrap(l.V1))
	n.Serve(V2Origin, l.V2Faults.Wrap(l.V2))
	n.Serve(PyPIHost, l.PyPIFaults.Wrap(l.PyPI))
	l.PyPI.SetBase("https://" + PyPIHost)
	return n
}

// PyPIHost is the package index on a Network.
const PyPIHost = "pypi.lab.test"

// Serve puts a handler behind a host name, on every port, in place of one that was
// there before.
func (n *Network) Serve(host string, h http.Handler) {
	w := &wire{host: host, conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	n.mu.Lock()
	n.hosts[host] = w
	n.servers = append(n.servers, s)
	n.mu.Unlock()
	n.done.Go(func() { _ = s.Serve(w) }) // ends when Close says so
}

// Remove takes a host away: it cannot be reached any more.
func (n *Network) Remove(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.hosts[host]; w != nil {
		delete(n.hosts, host)
		w.Close()
	}
}

// Transport reaches the hosts of the network, and nothing else. Connections are not
// kept, so that a host that is removed is gone at once.
func (n *Network) Transport() *http.Transport {
	return &http.Transport{DialContext: n.dial, DialTLSContext: n.dial, DisableKeepAlives: true}
}

func (n *Network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.asked[host] = true
	w := n.hosts[host]
	n.mu.Unlock()
	if w == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	client, server := net.Pipe()
	select {
	case w.conns <- server:
		return client, nil
	case <-w.closed:
		return nil, fmt.Errorf("%s: %w", host, net.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Asked are the hosts that somebody wanted to reach, whether there or not, in
// alphabetical order.
func (n *Network) Asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.asked))
}

// Close takes every host away and cuts the connections.
func (n *Network) Close() error {
	n.mu.Lock()
	servers := n.servers
	n.servers, n.hosts = nil, make(map[string]*wire)
	n.mu.Unlock()
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Close())
	}
	n.done.Wait()
	return errors.Join(errs...)
}

// A wire is the listener of one host.
type wire struct {
	host   string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *wire) Addr() net.Addr { return w }

func (w *wire) Network() string { return "memory" }

func (w *wire) String() string { return w.host }
