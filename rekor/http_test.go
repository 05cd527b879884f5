package rekor

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"sigtrail/monitor"
)

// Both servers' first request, to be spoilt.
func firstRequests(t *testing.T, before func(w http.ResponseWriter, r *http.Request) bool) map[string]func() (int64, error) {
	s1, v1 := newTestServerV1(t)
	s2, v2 := newTestV2(t, 10, shortLeaf)
	s1.before, s2.before = before, before
	return map[string]func() (int64, error){
		"v1": func() (int64, error) {
			from := s1.asked.Load()
			_, err := v1.Logs(t.Context())
			return s1.asked.Load() - from, err
		},
		"v2": func() (int64, error) {
			from := s2.asked.Load()
			_, err := v2.Logs(t.Context())
			return s2.asked.Load() - from, err
		},
	}
}

func TestRetries(t *testing.T) {
	for status, tries := range map[int]int64{429: 4, 500: 4, 502: 4, 503: 4, 504: 4, 408: 4, 501: 1, 403: 1, 404: 1, 400: 1} {
		for api, ask := range firstRequests(t, func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "3600") // bounded by MaxWait
			w.WriteHeader(status)
			fmt.Fprint(w, "<html>\x1b[31mno\x00</html>")
			return true
		}) {
			n, err := ask()
			var e *StatusError
			if !errors.As(err, &e) || e.Status != status {
				t.Errorf("%s, %d: %v", api, status, err)
				continue
			}
			if n != tries {
				t.Errorf("%s, %d: asked %d times, want %d", api, status, n, tries)
			}
			if strings.ContainsAny(err.Error(), "\x1b\x00\n") {
				t.Errorf("control characters in %q", err)
			}
		}
	}
}

func TestRecovers(t *testing.T) {
	count := 0
	for api, ask := range firstRequests(t, func(w http.ResponseWriter, r *http.Request) bool {
		count++
		switch count % 3 {
		case 1:
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		case 2: // a body cut short
			w.Header().Set("Content-Length", "5000")
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"treeID":`)
			return true
		}
		return false
	}) {
		if n, err := ask(); err != nil || n != 3 {
			t.Errorf("%s: asked %d times, %v", api, n, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	page := bytes.Repeat([]byte(" "), maxInfo+2)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 100 {
		z.Write(page)
	}
	z.Close()
	if bomb.Len() > maxInfo/2 {
		t.Fatalf("the bomb has %d bytes", bomb.Len())
	}
	for name, before := range map[string]func(w http.ResponseWriter, r *http.Request){
		"length": func(w http.ResponseWriter, r *http.Request) { w.Write(page) },
		"chunked": func(w http.ResponseWriter, r *http.Request) {
			w.Write(page[:10])
			w.(http.Flusher).Flush()
			w.Write(page)
		},
		"gzip": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		},
	} {
		for api, ask := range firstRequests(t, func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			before(w, r)
			return true
		}) {
			if n, err := ask(); !errors.Is(err, ErrTooLarge) || n != 1 {
				t.Errorf("%s, %s: asked %d times, %v", api, name, n, err)
			}
		}
	}
}

func TestGzip(t *testing.T) {
	s, _ := newTestV2(t, 10, shortLeaf)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plain := httptest.NewRecorder()
		s.ServeHTTP(plain, r)
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(plain.Body.Bytes())
		z.Close()
	}))
	defer server.Close()
	for _, refuse := range []bool{false, true} { // sent although nobody asked, too
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.DisableCompression = refuse
		o := testOptions(server.URL+"/api/v2", "log.example", []Tlog{s.key.tlog})
		o.HTTP = &http.Client{Transport: transport}
		v, err := NewV2(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, head := headOf(t, v); head.Size != 10 {
			t.Errorf("head %v", head)
		}
	}
}

func TestSlowBody(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	s, _ := newTestV2(t, 1, shortLeaf)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "log.example\n")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	o := testOptions(server.URL, "log.example", []Tlog{s.key.tlog})
	o.Timeout = 20 * time.Millisecond
	v, err := NewV2(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Logs(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow body: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Logs(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestHTMLInsteadOfJSON(t *testing.T) {
	asks := firstRequests(t, func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<html>please log in</html>")
		return true
	})
	if _, err := asks["v1"](); err == nil || !strings.Contains(err.Error(), "instead of JSON") {
		t.Errorf("v1: %v", err)
	}
}

func TestNotJSON(t *testing.T) {
	for _, body := range []string{"", "null", "[]", "{", "<html>", `{"treeID":{}}`, strings.Repeat("[", 20000)} {
		asks := firstRequests(t, func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, body)
			return true
		})
		if _, err := asks["v1"](); err == nil || errors.Is(err, monitor.ErrNotServed) {
			t.Errorf("%.20q: %v", body, err)
		}
	}
}

func TestNoServer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	key := newTestKey(t, monitor.V1, "rekor.example")
	v := newTestV1(t, strings.Replace(url, "http://", "http://user:secret@", 1), "rekor.example", []Tlog{key.tlog})
	_, err := v.Logs(t.Context())
	if err == nil || errors.Is(err, monitor.ErrNotServed) {
		t.Fatalf("no server: %v", err)
	}
	if strings.Contains(err.Error()+v.String(), "secret") {
		t.Errorf("the password is in %q or %q", err, v)
	}
}

// A server or a proxy may repeat what it was sent.
func TestRefusalRepeatsPassword(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		http.Error(w, fmt.Sprint("no entry for ", user, password, r.Header.Get("Authorization")), http.StatusForbidden)
	}))
	defer server.Close()
	at := strings.Replace(server.URL, "http://", "http://user:secret@", 1)
	v2, err := NewV2(testOptions(at, "log.example", []Tlog{newTestKey(t, monitor.V2, "log.example").tlog}))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []monitor.Server{v2, newTestV1(t, at, "rekor.example", []Tlog{newTestKey(t, monitor.V1, "rekor.example").tlog})} {
		_, err := s.Logs(t.Context())
		if err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: %v", s, err)
		}
		if text := fmt.Sprint(err); strings.Contains(text, "secret") || strings.Contains(text, "dXNlcjpzZWNyZXQ=") {
			t.Errorf("the password is in %q", text)
		}
	}
}

func TestRedirectElsewhere(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Error("followed to another server") }))
	defer other.Close()
	for api, ask := range firstRequests(t, func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.URL, http.StatusFound)
		return true
	}) {
		if _, err := ask(); err == nil {
			t.Errorf("%s: no error", api)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0": 0, " 7 ": 7 * time.Second, "": -1, "-5": -1, "soon": -1, "99999999999999": -1,
		"Sat, 21 Nov 2026 00:01:00 GMT": time.Minute, "Sat, 21 Nov 2020 00:01:00 GMT": 0,
	} {
		got, ok := retryAfter(v, now)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	key := newTestKey(t, monitor.V1, "rekor.example").tlog
	for name, o := range map[string]Options{
		"no scheme": {URL: "rekor.example", Origin: "rekor.example", Keys: these(key)},
		"a file":    {URL: "file:///etc", Origin: "rekor.example", Keys: these(key)},
		"query":     {URL: "https://rekor.example/?x=1", Origin: "rekor.example", Keys: these(key)},
		"broken":    {URL: "https://a b:c/%zz", Origin: "rekor.example", Keys: these(key)},
		"no origin": {URL: "https://rekor.example", Keys: these(key)},
		"no key":    {URL: "https://rekor.example", Origin: "rekor.example"},
		"other key": {URL: "https://rekor.example", Origin: "log.example", Keys: these(key)},
	} {
		if _, err := NewV1(o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := NewV2(Options{URL: "https://rekor.example", Origin: "rekor.example", Keys: these(key)}); err == nil {
		t.Error("a v1 key makes a v2 log")
	}
	for host, want := range map[string]rate.Limit{"rekor.sigstore.dev": 5, "rekor.sigstage.dev": 5, "127.0.0.1": 100, "sigstore.dev.example": 100} {
		if got := defaultRate(monitor.V1, host); got != want {
			t.Errorf("rate for %s: %v", host, got)
		}
	}
}

func TestMetricsAreShared(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s, _ := newTestV2(t, 1, shortLeaf)
	server := httptest.NewServer(s)
	defer server.Close()
	for range 2 {
		o := testOptions(server.URL+"/api/v2/", "log.example", []Tlog{s.key.tlog})
		o.Registerer = reg
		v, err := NewV2(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Logs(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "sigtrail_log_requests_total" {
			if n := f.GetMetric()[0].GetCounter().GetValue(); n != 2 {
				t.Errorf("%v requests counted", n)
			}
			return
		}
	}
	t.Error("requests are not counted")
}

func TestFetchTrustWithoutNetwork(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	_, err := FetchTrust(t.Context(), TUFOptions{CacheDir: t.TempDir(), Repository: url})
	if err == nil || !strings.Contains(err.Error(), "trusted_root") || !strings.Contains(err.Error(), "cannot reach") {
		t.Errorf("without a network: %v", err)
	}
}
