package lab

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Faults stand in front of a server and spoil its answers as networks and proxies
// do. The zero value spoils nothing.
type Faults struct {
	mu       sync.Mutex
	latency  time.Duration
	rules    []faultRule
	requests int
}

type faultRule struct {
	prefix string // of the path
	times  int    // how many requests it still spoils; negative: all
	spoil  func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

// Latency delays every answer.
func (f *Faults) Latency(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = d
}

func (f *Faults) add(prefix string, times int, spoil func(http.ResponseWriter, *http.Request, http.Handler)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, faultRule{prefix, times, spoil})
}

// Status answers with a status code, and with Retry-After if retryAfter is not "".
func (f *Faults) Status(prefix string, times, code int, retryAfter string) {
	f.add(prefix, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, http.StatusText(code), code)
	})
}

// HTML answers with a page where data was asked for.
func (f *Faults) HTML(prefix string, times int) {
	f.add(prefix, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<!doctype html><title>Sorry</title><p>Please come back later."))
	})
}

// Cut breaks the connection off in the middle of the body.
func (f *Faults) Cut(prefix string, times int) {
	f.add(prefix, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		c := &capture{ResponseWriter: w}
		next.ServeHTTP(c, r)
		w.Header().Set("Content-Length", "1000000")
		w.Write(c.body.Bytes()[:c.body.Len()/2])
		panic(http.ErrAbortHandler)
	})
}

// Bomb answers with some kilobytes of gzip that unpack to n bytes.
func (f *Faults) Bomb(prefix string, times, n int) {
	f.add(prefix, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(make([]byte, n))
		z.Close()
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
		f.mu.Lock()
		f.requests++
		latency := f.latency
		var spoil func(http.ResponseWriter, *http.Request, http.Handler)
		for i := range f.rules {
			if rule := &f.rules[i]; rule.times != 0 && strings.HasPrefix(r.URL.Path, rule.prefix) {
				rule.times--
				spoil = rule.spoil
				break
			}
		}
		f.mu.Unlock()
		if latency > 0 {
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

// A capture keeps a body back.
type capture struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (c *capture) Write(b []byte) (int, error) { return c.body.Write(b) }
func (c *capture) WriteHeader(int)             {}
