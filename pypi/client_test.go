package pypi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"sigtrail/index"
)

const onePage = `{"meta":{"api-version":"1.4","_last-serial":7},"name":"sample","versions":["1.0"],"files":[]}`

func TestNewClientRefusesAddresses(t *testing.T) {
	for _, address := range []string{"", "pypi", "ftp://host", "http://", "https://host/?q=1", "https://host/#f", "http://%zz"} {
		if _, err := NewClient(Options{URL: address}); err == nil {
			t.Errorf("address %q was taken", address)
		}
	}
	_, err := NewClient(Options{URL: "ftp://user:secret@host"})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

func TestRetries(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503, 504} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			var asked atomic.Int32
			reg := prometheus.NewRegistry()
			m := NewMetrics(reg)
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) < 3 {
					w.Header().Set("Retry-After", "30") // bounded by MaxWait
					w.WriteHeader(status)
					return
				}
				_, _ = io.WriteString(w, onePage)
			}), func(o *Options) { o.Metrics = m })
			l, err := c.Listing(t.Context(), "sample")
			if err != nil || l.Serial != 7 {
				t.Fatalf("listing %+v, %v", l, err)
			}
			failed := "error"
			if status == 429 {
				failed = "limited"
			}
			for outcome, want := range map[string]float64{"ok": 1, failed: 2} {
				if n := metric(t, reg, "sigtrail_pypi_requests_total", outcome); n != want {
					t.Errorf("%v requests counted as %s, want %v", n, outcome, want)
				}
			}
		})
	}
}

// A server that wants to be left alone for longer than anybody waits is left alone.
func TestLongRetryAfter(t *testing.T) {
	var asked atomic.Int32
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
	}), nil)
	_, err := c.Listing(t.Context(), "sample")
	state, wait := stateOf(err)
	if state != index.WorkLimited || wait != 10*time.Minute || asked.Load() != 1 {
		t.Errorf("%v, asked %d times: %s, to wait %v", err, asked.Load(), state, wait)
	}
}

func TestGivesUp(t *testing.T) {
	x := newTestIndex()
	x.status["/simple/"] = 503
	c := serve(t, x, nil)
	_, err := c.Listing(t.Context(), "sample")
	var status *StatusError
	if !errors.As(err, &status) || status.Status != 503 {
		t.Fatalf("error %v", err)
	}
	if n := x.count("/simple/sample/"); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

func TestAnswersThatAreFinal(t *testing.T) {
	for status, want := range map[int]error{403: ErrRefused, 404: ErrNotFound, 410: ErrNotFound, 304: ErrUnchanged} {
		x := newTestIndex()
		x.status["/simple/"] = status
		c := serve(t, x, nil)
		if _, err := c.Listing(t.Context(), "sample"); !errors.Is(err, want) {
			t.Errorf("status %d: error %v", status, err)
		}
		if n := x.count("/simple/sample/"); n != 1 {
			t.Errorf("status %d: asked %d times", status, n)
		}
	}
	x := newTestIndex()
	x.status["/simple/"] = 418
	var status *StatusError
	if _, err := serve(t, x, nil).Listing(t.Context(), "sample"); !errors.As(err, &status) || x.count("/simple/sample/") != 1 {
		t.Errorf("error %v after %d requests", err, x.count("/simple/sample/"))
	}
}

func TestRetryAfter(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-1": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0, "99999999999999999999": 0,
	} {
		if got := retryAfter(v, at); got != want {
			t.Errorf("Retry-After %q: %v, want %v", v, got, want)
		}
	}
}

// A server that asks to be left alone is left alone by all requests, for as long as
// it says and no longer than the bound.
func TestRetryAfterHoldsEveryRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTestIndex()
		x.upload("sample", "sample-1.0.tar.gz", false)
		x.upload("other", "other-1.0.tar.gz", false)
		start := time.Now()
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if time.Since(start) == 0 {
				w.Header().Set("Retry-After", "20")
				w.WriteHeader(429)
				return
			}
			x.ServeHTTP(w, r)
		})
		c, err := NewClient(Options{URL: "http://index.test", Rate: rate.Inf, HTTP: &http.Client{Transport: inProcess{h}}, MaxWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan time.Duration)
		go func() {
			_, _ = c.Listing(t.Context(), "sample")
			done <- time.Since(start)
		}()
		synctest.Wait()
		if _, err := c.Listing(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		if first, other := <-done, time.Since(start); first != 20*time.Second || other != 20*time.Second {
			t.Errorf("answered after %v and %v", first, other)
		}
	})
}

func TestBounds(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.WriteString(z, `{"name":"sample","files":[],"x":"`)
	zeros := make([]byte, 1<<20)
	for range maxSimple>>20 + 1 {
		_, _ = z.Write(bytes.ReplaceAll(zeros, []byte{0}, []byte{'a'}))
	}
	z.Close()
	if bomb.Len() > 1<<20 {
		t.Fatalf("the bomb has %d bytes", bomb.Len())
	}
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	}), nil)
	if _, err := c.Listing(t.Context(), "sample"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("bomb: %v", err)
	}
	c = serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range maxProvenance>>20 + 1 {
			_, _ = w.Write(zeros)
		}
	}), nil)
	p, err := c.Provenance(t.Context(), c.base.String()+"/p")
	if err != nil || p.State != index.ProvenanceUnreadable || p.Body != nil {
		t.Errorf("huge provenance: state %q, %d bytes, %v", p.State, len(p.Body), err)
	}
}

func TestBoundedReader(t *testing.T) {
	for _, c := range []struct {
		limit int64
		want  error
	}{{4, ErrTooLarge}, {5, nil}, {6, nil}} {
		b := &bounded{r: strings.NewReader("12345"), left: c.limit}
		got, err := io.ReadAll(b)
		if !errors.Is(err, c.want) || (err == nil && string(got) != "12345") || !errors.Is(b.err, c.want) {
			t.Errorf("limit %d: %q, %v, kept %v", c.limit, got, err, b.err)
		}
	}
}

func TestEncodingNobodyAskedFor(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		_, _ = io.WriteString(w, onePage)
	}), nil)
	if _, err := c.Listing(t.Context(), "sample"); !errors.Is(err, errEncoding) {
		t.Errorf("error %v", err)
	}
}

func TestPageOfAnotherKind(t *testing.T) {
	var asked atomic.Int32
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<html>Sign in to the network</html>")
	}), nil)
	if _, err := c.Listing(t.Context(), "sample"); !errors.Is(err, errKind) {
		t.Errorf("listing: %v", err)
	}
	if _, err := c.LastSerial(t.Context()); !errors.Is(err, errKind) {
		t.Errorf("journal: %v", err)
	}
	// Not "unreadable": that would be PyPI's own answer, and be kept.
	if p, err := c.Provenance(t.Context(), c.base.String()+"/p"); !errors.Is(err, errKind) {
		t.Errorf("provenance: %+v, %v", p, err)
	}
	if asked.Load() != 3 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestOutcomes(t *testing.T) {
	limit := &Fault{Text: "HTTPTooManyRequests: slow down"}
	for want, errs := range map[string][]error{
		"ok": {nil}, "unchanged": {ErrUnchanged}, "not_found": {ErrNotFound}, "refused": {ErrRefused, &refusedError{}}, "too_large": {ErrTooLarge}, "limited": {&StatusError{Status: 429}, unreadable{limit}},
		"error": {&StatusError{Status: 500}, unreadable{io.ErrUnexpectedEOF}, errKind, errElsewhere, errors.New("no route"), unreadable{&Fault{Text: "no"}}},
	} {
		for _, err := range errs {
			if got := outcome(err); got != want {
				t.Errorf("%v: %s, want %s", err, got, want)
			}
		}
	}
}

// An answer that breaks off is asked for again, although what came of it may look
// like nonsense to a parser.
func TestTornAnswer(t *testing.T) {
	var asked atomic.Int32
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(onePage)))
			_, _ = io.WriteString(w, onePage[:20])
			return
		}
		_, _ = io.WriteString(w, onePage)
	}), nil)
	if l, err := c.Listing(t.Context(), "sample"); err != nil || l.Serial != 7 || asked.Load() != 2 {
		t.Errorf("%+v, %v after %d requests", l, err, asked.Load())
	}
}

func TestDrippingServer(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"name":`)
		w.(http.Flusher).Flush()
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}), func(o *Options) { o.Timeout, o.Tries = 50*time.Millisecond, 2 })
	if _, err := c.Listing(t.Context(), "sample"); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("error %v", err)
	}
}

func TestRedirects(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/simple/away/", "/p":
			http.Redirect(w, r, other.URL+"/simple/away/", http.StatusFound)
		case "/simple/moved/":
			http.Redirect(w, r, "/simple/sample/", http.StatusMovedPermanently)
		case "/simple/loop/":
			http.Redirect(w, r, "/simple/loop/", http.StatusFound)
		default:
			_, _ = io.WriteString(w, strings.ReplaceAll(onePage, `"sample"`, `"moved"`))
		}
	}), nil)
	for _, name := range []string{"away", "loop"} {
		if _, err := c.Listing(t.Context(), name); !errors.Is(err, errElsewhere) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Provenance(t.Context(), c.base.String()+"/p"); !errors.Is(err, errElsewhere) {
		t.Errorf("provenance: %v", err)
	}
	if _, err := c.Listing(t.Context(), "moved"); err != nil {
		t.Errorf("on the same server: %v", err)
	}
	if elsewhere.Load() != 0 {
		t.Errorf("the other server was called %d times", elsewhere.Load())
	}
}

func TestListingRequest(t *testing.T) {
	var got *http.Request
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("X-PyPI-Last-Serial", "6") // a cache's header, older than the body
		_, _ = io.WriteString(w, strings.ReplaceAll(onePage, `"sample"`, `"Sample.Project"`))
	}), func(o *Options) { o.UserAgent = "sigtrail test (mail@example.com)"; o.URL += "/mirror/" })
	l, tag, err := c.ListingIfChanged(t.Context(), "Sample_.Project", `"old"`)
	if err != nil || tag != `"a"` || l.Serial != 6 || l.Project != "sample-project" || l.Fetched.IsZero() {
		t.Fatalf("%+v, tag %s, %v", l, tag, err)
	}
	want := []string{"/mirror/simple/sample-project/", "application/vnd.pypi.simple.v1+json", `"old"`, "sigtrail test (mail@example.com)"}
	h := got.Header
	if d := cmp.Diff(want, []string{got.URL.Path, h.Get("Accept"), h.Get("If-None-Match"), h.Get("User-Agent")}); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"", "../x", "a/b", "-a", "a b", "é", strings.Repeat("a", 300)} {
		if _, err := c.Listing(t.Context(), name); err == nil {
			t.Errorf("name %q was asked for", name)
		}
	}
}

func TestProvenanceStates(t *testing.T) {
	const leafless = `{"version":1,"attestation_bundles":[]}`
	answers := map[string]func(w http.ResponseWriter){
		"/present":    func(w http.ResponseWriter) { _, _ = io.WriteString(w, leafless) },
		"/unreadable": func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"version":2}`) },
		"/absent":     func(w http.ResponseWriter) { w.WriteHeader(404) },
		"/refused":    func(w http.ResponseWriter) { w.Header().Set("Retry-After", "7200"); w.WriteHeader(403) },
	}
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answers[r.URL.Path] == nil {
			w.WriteHeader(500)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		answers[r.URL.Path](w)
	}), nil)
	for path := range answers {
		p, err := c.Provenance(t.Context(), c.base.String()+path)
		if err != nil || string(p.State) != path[1:] || p.Fetched.IsZero() {
			t.Errorf("%s: %+v, %v", path, p, err)
		}
		if hasBody := p.Body != nil; hasBody != (path == "/present" || path == "/unreadable") {
			t.Errorf("%s: body %q", path, p.Body)
		}
		if path == "/refused" && p.Retry.Sub(p.Fetched) < time.Hour {
			t.Errorf("refused until %v, fetched %v", p.Retry, p.Fetched)
		}
	}
	var status *StatusError
	if _, err := c.Provenance(t.Context(), c.base.String()+"/broken"); !errors.As(err, &status) {
		t.Errorf("broken: %v", err)
	}
}

// A listing comes from outside: the addresses in it must not make this process call
// other servers, such as those of the network that it runs in.
func TestProvenanceElsewhere(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, emptyProvenance)
	}))
	defer other.Close()
	c := serve(t, http.NotFoundHandler(), nil)
	for _, address := range []string{other.URL + "/p", "http://169.254.169.254/", "file:///etc/passwd", "//host/p", "/p", "", "http://u:p@" + c.base.Host + "/p",
		"https://" + c.base.Host + "/p", "\x00", "http://" + c.base.Host + "@evil.test/"} {
		p, err := c.Provenance(t.Context(), address)
		if err != nil || p.State != index.ProvenanceUnreadable || p.Error == "" {
			t.Errorf("%q: %+v, %v", address, p, err)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("the other server was called %d times", asked.Load())
	}
	u, _ := url.Parse(other.URL)
	c = serve(t, http.NotFoundHandler(), func(o *Options) { o.ProvenanceHosts = []string{u.Host} })
	if p, err := c.Provenance(t.Context(), other.URL+"/p"); err != nil || p.State != index.ProvenancePresent {
		t.Errorf("allowed host: %+v, %v", p, err)
	}
	secure, err := NewClient(Options{URL: "https://index.test", ProvenanceHosts: []string{"files.test"}})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{"https://index.test/p": true, "http://index.test/p": false, "https://files.test/p": true, "http://files.test/p": false} {
		u, _ := url.Parse(address)
		if secure.mayAsk(u) != want {
			t.Errorf("%s: may ask %v", address, !want)
		}
	}
}

func TestErrorsShowNoSecrets(t *testing.T) {
	c := serve(t, http.NotFoundHandler(), func(o *Options) { o.URL = strings.Replace(o.URL, "http://", "http://user:secret@", 1) })
	_, err := c.Listing(t.Context(), "sample")
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(c.String(), "secret") {
		t.Errorf("error %v, name %s", err, c)
	}
	dead, err := NewClient(Options{URL: "http://user:secret@127.0.0.1:1", Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.Listing(t.Context(), "sample"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

// A file that cannot be watched is a blind spot: it is said and counted.
func TestSkippedFilesAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	var log bytes.Buffer
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Replace(onePage, `"files":[]`, `"files":[{"filename":"sample-1.0.tar.gz"},{"filename":"sample-1.1.tar.gz"}]`, 1))
	}), func(o *Options) { o.Metrics, o.Log = m, slog.New(slog.NewTextHandler(&log, nil)) })
	if _, err := c.Listing(t.Context(), "sample"); err != nil {
		t.Fatal(err)
	}
	if n := metric(t, reg, "sigtrail_pypi_files_skipped_total", skipDigest); n != 2 || !strings.Contains(log.String(), "files=2") {
		t.Errorf("%v counted; log: %s", n, log.String())
	}
}
