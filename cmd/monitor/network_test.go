package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sigtrail/monitor"
)

// A front terminates TLS before a server of the lab, and is what the name server
// says it is. Both can be broken.
type front struct {
	listener net.Listener
	to       string // host:port of the lab's server
	names    net.PacketConn
	good     tls.Certificate

	mu     sync.Mutex
	config *tls.Config // nil: answers in plain text
	rcode  byte        // of the name server's answers
	silent bool        // it gives none
}

const frontName = "log.lab.test"

func newFront(t *testing.T, to string, ca authority) *front {
	t.Helper()
	f := &front{listener: must(net.Listen("tcp", "127.0.0.1:0")), names: must(net.ListenPacket("udp", "127.0.0.1:0")),
		to: must(url.Parse(to)).Host, good: ca.issue(frontName, time.Now().Add(time.Hour))}
	f.mend()
	var done sync.WaitGroup
	t.Cleanup(func() {
		f.listener.Close()
		f.names.Close()
		done.Wait()
	})
	done.Go(f.resolve)
	done.Go(func() {
		for {
			conn, err := f.listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() { f.serve(conn) })
		}
	})
	return f
}

// set changes the front.
func (f *front) set(change func(*front)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *front) mend() {
	f.set(func(f *front) {
		f.config, f.rcode, f.silent = &tls.Config{Certificates: []tls.Certificate{f.good}, MinVersion: tls.VersionTLS12}, 0, false
	})
}

func (f *front) serve(conn net.Conn) {
	defer conn.Close()
	f.mu.Lock()
	config := f.config
	f.mu.Unlock()
	if config == nil {
		io.WriteString(conn, "HTTP/1.0 400 Bad Request\r\n\r\nhunter2secret is what you said\r\n")
		return
	}
	back, err := net.Dial("tcp", f.to)
	if err != nil {
		return
	}
	defer back.Close()
	secured := tls.Server(conn, config)
	go func() {
		io.Copy(back, secured)
		back.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(secured, back)
	secured.CloseWrite()
}

// resolve answers every question about an IPv4 address with 127.0.0.1 (RFC 1035).
func (f *front) resolve() {
	b := make([]byte, 1500)
	for {
		n, from, err := f.names.ReadFrom(b)
		if err != nil {
			return
		}
		end := 12
		for end < n && b[end] != 0 {
			end += 1 + int(b[end])
		}
		end += 5 // the root, type and class
		f.mu.Lock()
		rcode, silent := f.rcode, f.silent
		f.mu.Unlock()
		if n < 12 || end > n || silent {
			continue
		}
		isA := binary.BigEndian.Uint16(b[end-4:]) == 1 && rcode == 0
		answer := append([]byte{b[0], b[1], 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0}, b[12:end]...)
		if isA {
			answer[7] = 1
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
		}
		f.names.WriteTo(answer, from)
	}
}

// client trusts the authority and asks the front's name server.
func (f *front) client(ca authority) *http.Client {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", f.names.LocalAddr().String())
	}}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Resolver: resolver}).DialContext,
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}

// An authority issues certificates for servers.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return authority{must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)))), key}
}

func (a authority) issue(name string, until time.Time) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until}
	return tls.Certificate{Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))}, PrivateKey: key}
}

// Whatever is wrong with names and certificates: nothing is read, the other log goes
// on, the error says what to look at, and afterwards everything is made up for.
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	ca := newAuthority()
	certificate := func(c tls.Certificate) func(*front) {
		return func(f *front) { f.config = &tls.Config{Certificates: []tls.Certificate{c}} }
	}
	faults := []struct {
		name, says, advises string
		change              func(*front)
	}{
		{"expired", "expired", "clock of this machine", certificate(ca.issue(frontName, time.Now().Add(-time.Minute)))},
		{"other name", "not log.lab.test", "check the url", certificate(ca.issue("elsewhere.test", time.Now().Add(time.Hour)))},
		{"untrusted", "unknown authority", "trust the authority", certificate(newAuthority().issue(frontName, time.Now().Add(time.Hour)))},
		{"no certificate", "tls: ", "", func(f *front) { f.config = &tls.Config{GetCertificate: noCertificate} }},
		{"old TLS", "protocol version", "", func(f *front) {
			f.config = &tls.Config{Certificates: []tls.Certificate{f.good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		}},
		{"no TLS", "HTTP response to HTTPS client", "begins with http://", func(f *front) { f.config = nil }},
		{"no such name", "no such host", "name server", func(f *front) { f.rcode = 3 }},
		{"name server fails", "server misbehaving", "name server", func(f *front) { f.rcode = 2 }},
		{"name server is silent", "deadline exceeded", "", func(f *front) { f.silent = true }},
	}
	for _, api := range []monitor.API{monitor.V1, monitor.V2} {
		t.Run(string(api), func(t *testing.T) {
			t.Parallel()
			w := newFaultWorld(t, tailed)
			f := newFront(t, w.address(api), ca)
			_, port, _ := net.SplitHostPort(f.listener.Addr().String())
			plain := strings.TrimPrefix(w.address(api), "http://")
			secured := frontName + ":" + port
			text := string(must(os.ReadFile(w.config)))
			text = strings.Replace(text, "http://reader:"+secret+"@"+plain, "https://reader:"+secret+"@"+strings.Replace(plain, f.to, secured, 1), 1)
			w.write("sigtrail.yaml", text)
			w.readers.HTTP = f.client(ca)
			w.grow()
			if o := w.try(); o.code != exitFine {
				t.Fatalf("exit code %d, %s", o.code, o.err)
			}
			for _, fault := range faults {
				want := w.positions()
				w.grow()
				sizes := map[monitor.API]uint64{monitor.V1: w.lab.V1.Active().Size(), monitor.V2: w.lab.V2.Size()}
				for other := range want {
					if other != api {
						want[other] = sizes[other]
					}
				}
				f.set(fault.change)
				if f.silent {
					w.readers.Timeout = time.Second
				}
				o := w.try()
				if o.code != exitCould || !strings.Contains(o.err, fault.says) || !strings.Contains(o.err, fault.advises) || !strings.Contains(o.err, "https://"+secured) {
					t.Errorf("%s: exit code %d, %s", fault.name, o.code, o.err)
				}
				if sum(o.metrics, "sigtrail_log_requests_total", "status", "failed") == 0 {
					t.Errorf("%s: not counted", fault.name)
				}
				w.check(fault.name, want)
				f.mend()
				w.readers.Timeout = time.Minute
				if o := w.try(); o.code != exitFine {
					t.Errorf("after %s: exit code %d, %s", fault.name, o.code, o.err)
				}
				w.check("after "+fault.name, sizes)
			}
			if n := len(w.got()); n != 0 {
				t.Errorf("%d alerts", n)
			}
		})
	}
}

func noCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return nil, fmt.Errorf("none for %s", secret)
}
