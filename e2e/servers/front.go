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

// A View is an address of its own of a log, for one reader, that counts how often
// the reader asks for the log's head.
type View struct {
	URL   string
	polls atomic.Int64
}

// newView serves a log's handler; head is the path that counts.
func newView(t testing.TB, log http.Handler, prefix, head string) *View {
	t.Helper()
	v := new(View)
	v.URL = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == head {
			v.polls.Add(1)
		}
		log.ServeHTTP(w, r)
	})) + prefix
	return v
}

// Polls is how often the log's head has been asked for.
func (v *View) Polls() int64 { return v.polls.Load() }
