package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Whoever asks for metrics and does not go away cannot make a stop look like a
// failure.
func TestStopDuringRequest(t *testing.T) {
	w := newWorld(t, "follow: head")
	d := must(newDaemon(t.Context(), must(loadConfig(w.config)), quiet(t)))
	defer d.close()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	for !d.ready.Load() {
		time.Sleep(20 * time.Millisecond)
	}
	conn := must(net.Dial("tcp", d.address.Load().(string)))
	defer conn.Close()
	must(io.WriteString(conn, "GET /heads HTTP/1.1\r\n"))
	stop()
	if err := <-ended; err != nil {
		t.Errorf("a clean stop: %v", err)
	}
}

// A monitor must not be able to send us to another server, or out of TLS.
func TestHeadsRedirected(t *testing.T) {
	const asked = "https://monitor.example/heads"
	for to, ok := range map[string]bool{
		"https://monitor.example/v1/heads":  true,
		"http://monitor.example/heads":      false,
		"https://monitor.example:444/heads": false,
		"https://other.example/heads":       false,
	} {
		from, next := must(http.NewRequest(http.MethodGet, asked, nil)), must(http.NewRequest(http.MethodGet, to, nil))
		if err := headsClient.CheckRedirect(next, []*http.Request{from}); ok != (err == nil) {
			t.Errorf("from %s to %s: %v", asked, to, err)
		}
	}
}
