package lab

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Faults stand in front of a server and spoil its answers as networks, proxies
// and caches do. The zero value spoils nothing.
//
// A fault is for a path: "/api/v1/log" is that one alone, "/api/v1/" all below it,
// "" every one. It spoils so many requests, or with a negative number all. The
// first fault in the order of making that has requests left decides.
type Faults struct {
	mu       sync.Mutex
	latency  time.Duration
	rules    []*faultRule
	requests int
}

type faultRule struct {
	path  string
	times int // how many requests it still spoils; negative: all
	spoil spoiler
}

type spoiler func(w http.ResponseWriter, r *http.Request, next http.Handler)

func (r *faultRule) concerns(path string) bool {
	if r.path == "" || strings.HasSuffix(r.path, "/") {
		return strings.HasPrefix(path, r.path)
	}
	return path == r.path
}

// Latency delays every answer.
func (f *Faults) Latency(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = d
}

func (f *Faults) add(path string, times int, spoil spoiler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &faultRule{path, times, spoil})
}

// Pass keeps requests from the faults made after it.
func (f *Faults) Pass(path string, times int) {
	f.add(path, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) })
}

// Status answers with a status code, and with Retry-After if retryAfter is not "".
func (f *Faults) Status(path string, times, code int, retryAfter string) {
	f.add(path, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, http.StatusText(code), code)
	})
}

// HTML answers with a page where data was asked for.
func (f *Faults) HTML(path string, times int) {
	f.add(path, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<!doctype html><title>Sorry</title><p>Please come back later."))
	})
}

// Answer answers with something else.
func (f *Faults) Answer(path string, times, code int, kind string, body []byte) {
	f.add(path, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(code)
		w.Write(body)
	})
}

// Cut breaks the connection off within the body, after that part of it: 0 is
// before its first byte, 1 before its last.
func (f *Faults) Cut(path string, times int, part float64) {
	f.add(path, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body := captured(w, r, next)
		w.Header().Set("Content-Length", strconv.Itoa(max(len(body), 1)))
		if n := min(int(part*float64(len(body))), len(body)-1); n > 0 {
			w.Write(body[:n])
		}
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
}

// Drip gives the answer a byte at a time until the client has had enough.
func (f *Faults) Drip(path string, times int, every time.Duration) {
	f.add(path, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		for _, b := range captured(w, r, next) {
			w.Write([]byte{b})
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(every):
			}
		}
	})
}

// Large answers with a body of n bytes, whose length is not announced.
func (f *Faults) Large(path string, times, n int) {
	f.add(path, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		spaces := bytes.Repeat([]byte(" "), 64<<10)
		for n := n; n > 0; n -= len(spaces) {
			if _, err := w.Write(spaces[:min(n, len(spaces))]); err != nil {
				return
			}
		}
	})
}

// Bomb answers with some kilobytes of gzip that unpack to n bytes.
func (f *Faults) Bomb(path string, times, n int) {
	f.add(path, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(make([]byte, n))
		z.Close()
	})
}

// Edit changes bodies on their way.
func (f *Faults) Edit(path string, times int, edit func(body []byte) []byte) {
	f.add(path, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Write(edit(captured(w, r, next)))
	})
}

// Cached gives the first answer again to all who ask later, as a cache does that
// does not heed what may be kept.
func (f *Faults) Cached(path string, times int) {
	var once sync.Once
	var body []byte
	f.add(path, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		once.Do(func() { body = captured(w, r, next) })
		w.Write(body)
	})
}

// Clear ends every fault.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency, f.rules = 0, nil
}

// Requests is how many requests have come.
func (f *Faults) Requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// Wrap puts the faults in front of a handler.
func (f *Faults) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		spoil, latency := f.take(r.URL.Path)
		if latency > 0 {
			// The server sees that its client has gone only once it has read the
			// request.
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
			if err != nil {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			select {
			case <-r.Context().Done():
				return
			case <-time.After(latency):
			}
		}
		if spoil != nil {
			spoil(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// take counts a request and finds what is to become of it.
func (f *Faults) take(path string) (spoiler, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	for _, rule := range f.rules {
		if rule.times != 0 && rule.concerns(path) {
			rule.times--
			return rule.spoil, f.latency
		}
	}
	return nil, f.latency
}

// captured is the body that next would have sent. Its headers are set already, its
// status is lost.
func captured(w http.ResponseWriter, r *http.Request, next http.Handler) []byte {
	c := &capture{ResponseWriter: w}
	next.ServeHTTP(c, r)
	return c.body.Bytes()
}

type capture struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (c *capture) Write(b []byte) (int, error) { return c.body.Write(b) }
func (c *capture) WriteHeader(int)             {}
