package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

// A bubble is a world in which time costs nothing: the daemon and the lab run in a
// testing/synctest bubble and speak over a network in memory. Days pass in
// moments, and what the daemon does every day is done every day.
type bubble struct {
	*world
	net *lab.Network
	tuf *lab.TUF
	log *lines

	d    *daemon
	stop func() // ends the running daemon
}

const hookHost = "hook.lab.test"

// inBubble runs f with a lab and a configuration: text, and what every test has.
func inBubble(t *testing.T, text string, f func(*bubble)) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // of the TUF client
	old := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = old })
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)))
		l := must(lab.New(lab.Options{}))
		b := &bubble{world: &world{T: t, lab: l, dir: t.TempDir()}, net: l.Network(), tuf: must(lab.NewTUF(time.Now, l.TrustedRootJSON())), log: &lines{also: t.Output()}}
		t.Cleanup(func() { b.net.Close() })
		b.net.Serve(lab.TUFHost, b.tuf)
		b.net.Serve(hookHost, http.HandlerFunc(b.receive))
		http.DefaultTransport = b.net.Transport()
		b.write("trusted_root.json", string(l.TrustedRootJSON()))
		b.write("root.json", string(b.tuf.Root()))
		b.write("hook.key", "a secret")
		b.configure(text)
		t.Cleanup(func() {
			if b.stop != nil {
				b.stop()
			}
		})
		f(b)
	})
}

const (
	byTUF  = "tuf: {url: https://" + lab.TUFHost + ", root: root.json}\n"
	byFile = "trusted_root: trusted_root.json\n"
)

// configure writes the configuration: text, and what every test has.
func (b *bubble) configure(text string) {
	b.Helper()
	b.config = b.write("sigtrail.yaml", fmt.Sprintf(`
database: sigtrail.db
listen: ""
interval: 10m
pypi: {url: "https://%s", projects: [SampleProject], interval: 1h}
webhooks: [{url: "https://%s", secret_file: hook.key}]
%s`, lab.PyPIHost, hookHost, text))
}

// start starts the daemon, and ends the one that runs.
func (b *bubble) start() {
	b.Helper()
	if b.stop != nil {
		b.stop()
	}
	ctx, cancel := context.WithCancel(b.Context())
	d := b.open(ctx)
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	b.d, b.stop = d, func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("the daemon ended with %v", err)
		}
		if err := d.close(); err != nil {
			b.Error(err)
		}
		b.d, b.stop = nil, nil
	}
}

// open wires a daemon.
func (b *bubble) open(ctx context.Context) *daemon {
	b.Helper()
	d := must(newDaemon(ctx, must(loadConfig(b.config)), slog.New(slog.NewTextHandler(b.log, nil))))
	d.courier.Every, d.judgeEvery = 10*time.Minute, 10*time.Minute
	return d
}

// pass lets time pass, and what is due in it happen.
func (b *bubble) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until lets time pass until something is so, for a day at most.
func (b *bubble) until(what string, so func() bool) {
	b.Helper()
	for end := time.Now().Add(24 * time.Hour); !so(); b.pass(time.Minute) {
		if time.Now().After(end) {
			b.Fatalf("a day has passed, and not yet: %s", what)
		}
	}
}

// of is the state of a log.
func (b *bubble) of(origin string) index.LogStatus {
	b.Helper()
	store := b.d.store
	for _, s := range must(store.LogStatuses(b.Context())) {
		if s.Log.Origin == origin {
			return s
		}
	}
	return index.LogStatus{}
}

// read reports whether a log has been read from one index up to another.
func (b *bubble) read(origin string, from, to uint64) bool {
	s := b.of(origin)
	return len(s.Coverage) == 1 && s.Coverage[0] == monitor.Range{From: from, To: to}
}

// alerts are the rules of the alerts about a log that have been received.
func (b *bubble) alerts(origin string) (rules []string) {
	for _, a := range b.got() {
		if a.Log != nil && a.Log.Origin == origin {
			rules = append(rules, a.Rule)
		}
	}
	return rules
}

// only is the one alert that has been received.
func (b *bubble) only(rule string) alerts.Alert {
	b.Helper()
	got := b.got()
	if len(got) != 1 || got[0].Rule != rule {
		b.Fatalf("received %+v, want one %s", got, rule)
	}
	return got[0]
}

// metric is what the daemon's metrics say after a name and its labels.
func (b *bubble) metric(name string) (text string) {
	b.Helper()
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(b.d.registry, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(rec.Body.String()) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			text += strings.TrimSpace(rest) + "\n"
		}
	}
	return strings.TrimSpace(text)
}

// get reads from a host of the network.
func (b *bubble) get(address string) []byte {
	b.Helper()
	resp, err := http.DefaultTransport.RoundTrip(must(http.NewRequestWithContext(b.Context(), http.MethodGet, address, nil)))
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	return must(io.ReadAll(resp.Body))
}

// leaves adds n leaves that mean nothing to a log.
func leaves(log interface{ LogLeaf([]byte) uint64 }, n int) {
	for i := range n {
		log.LogLeaf(fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"other","spec":{"n":%d}}`, i))
	}
}

// v1Leaves lets a v1 log be given leaves as a v2 log is.
type v1Leaves struct{ *lab.V1 }

func (l v1Leaves) LogLeaf(leaf []byte) uint64 { return must(l.V1.LogLeaf(leaf)).Index }

// v1Origin is the origin of the lab's v1 shard of that number.
func v1Origin(shard int) string {
	return fmt.Sprintf("%s - %d", lab.V1Host, lab.V1Tree+uint64(shard))
}

// count is how many lines hold all of the words.
func (l *lines) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for line := range strings.Lines(l.text.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		n++
	}
	return n
}
