package servers

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// A front passes requests on to a server whose address may change.
type front struct {
	target atomic.Pointer[url.URL]
}

func (f *front) point(t testing.TB, port string) {
	t.Helper()
	u, err := url.Parse("http://127.0.0.1:" + port)
	if err != nil {
		t.Fatalf("an address to pass requests on to: %v", err)
	}
	f.target.Store(u)
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(f.target.Load()) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			// As a load balancer answers while the server behind it restarts.
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	proxy.ServeHTTP(w, r)
}

// polls counts the GET requests for one path.
type polls struct {
	path string
	n    atomic.Int64
}

func (p *polls) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == p.path {
			p.n.Add(1)
		}
		h.ServeHTTP(w, r)
	})
}
