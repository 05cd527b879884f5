package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// A fault is what a way does to the requests that it carries.
type fault string

const (
	faultNone    fault = ""
	faultLimited fault = "429"
	faultDown    fault = "503"
	faultSlow    fault = "slow"
	faultCut     fault = "cut off"
	faultPage    fault = "HTML" // 200, as captive portals and broken gateways answer
)

var faults = []fault{faultLimited, faultDown, faultSlow, faultCut, faultPage}

// A way is a proxy between the monitor and one server. With a fault on, it spoils
// every other request, so that some pairs of requests fail in the middle.
type way struct {
	URL  string
	name string
	next http.Handler

	mu     sync.Mutex
	to     *url.URL
	fault  fault
	turn   uint64
	ruined int // requests
	lag    *rand.Rand
}

// newWay passes on to a base address, and is called by the same path.
func newWay(t *testing.T, name, base string, seed uint64) *way {
	t.Helper()
	w := &way{name: name, lag: rand.New(rand.NewPCG(seed, uint64(len(name))))}
	w.lead(t, base)
	w.next = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			w.mu.Lock()
			defer w.mu.Unlock()
			p.SetURL(&url.URL{Scheme: w.to.Scheme, Host: w.to.Host})
		},
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, err error) {
			http.Error(rw, err.Error(), http.StatusBadGateway)
		},
	}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	w.URL = s.URL + w.to.Path
	return w
}

// lead has the way end at another base address, of the same path.
func (w *way) lead(t *testing.T, base string) {
	t.Helper()
	to, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
}

// set begins a fault, or ends it.
func (w *way) set(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

// decide says what becomes of one request.
func (w *way) decide() (fault, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn++
	if w.fault == faultNone || w.turn%2 == 0 {
		return faultNone, 0
	}
	w.ruined++
	return w.fault, time.Duration(200+w.lag.IntN(2000)) * time.Millisecond
}

func (w *way) spoilt() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ruined
}

func (w *way) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	f, lag := w.decide()
	switch f {
	case faultLimited:
		rw.Header().Set("Retry-After", "1")
		http.Error(rw, "slow down", http.StatusTooManyRequests)
	case faultDown:
		http.Error(rw, "overloaded", http.StatusServiceUnavailable)
	case faultPage:
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprint(rw, "<!doctype html><title>Welcome</title><p>Please log in to the network.")
	case faultSlow:
		select {
		case <-time.After(lag):
			w.next.ServeHTTP(rw, r)
		case <-r.Context().Done():
		}
	case faultCut:
		w.cut(rw, r)
	default:
		w.next.ServeHTTP(rw, r)
	}
}

// cut has the server do what was asked, and loses half of its answer.
func (w *way) cut(rw http.ResponseWriter, r *http.Request) {
	whole := httptest.NewRecorder()
	w.next.ServeHTTP(whole, r)
	for name, values := range whole.Header() {
		rw.Header()[name] = values
	}
	rw.Header().Set("Content-Length", fmt.Sprint(whole.Body.Len()+1)) // so that nothing at all is too little
	rw.WriteHeader(whole.Code)
	rw.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
	panic(http.ErrAbortHandler)
}
