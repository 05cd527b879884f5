// Package pypi reads what PyPI says about projects and puts it into the index:
// the journal of changes, the simple index (PEP 691) and the provenance of files
// (PEP 740).
//
// Nobody signs any of it. A listing says which files there are, which is the
// question sigtrail puts to the logs; it is never the answer. What PyPI leaves
// out counts as much as what it says, so the package keeps apart "there is none",
// "not now" and "could not ask".
package pypi

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Answers that a caller has to tell from a failure to ask.
var (
	ErrNotFound  = errors.New("not found on the index")              // 404, 410
	ErrRefused   = errors.New("refused by the index")                // 403
	ErrUnchanged = errors.New("unchanged on the index")              // 304 to a conditional request
	ErrTooLarge  = errors.New("answer is too large")                 // after decompression
	errElsewhere = errors.New("redirected to another server")        // never followed
	errKind      = errors.New("answer is not of the kind asked for") // an error page, a captive portal
	errEncoding  = errors.New("answer in an encoding nobody asked for")

	errCredentials = errors.New("credentials cannot be read") // ours: nothing was asked
)

// Options of a Client. The zero value of every field but URL means its default.
type Options struct {
	URL       string // of the index: http(s)://HOST, with a path if it has one
	UserAgent string // default "sigtrail"; PyPI asks for a unique one with a contact

	HTTP    *http.Client  // its transport is used; default: one of our own
	Rate    rate.Limit    // requests a second; default 10
	Timeout time.Duration // for one attempt, body included; default 1 min
	Tries   int           // attempts for one request; default 4
	MaxWait time.Duration // between attempts, whatever Retry-After asks for up to two minutes; default 1 min

	// ProvenanceHosts are further servers (HOST or HOST:PORT) that provenance
	// may be read from. Addresses of provenance come out of a listing, which
	// must not be able to make this process call whatever it likes.
	ProvenanceHosts []string

	// Authorization returns the header of that name, asked for each request to
	// the index itself; nil: none.
	Authorization func() (string, error)

	Metrics *Metrics     // nil: nothing is counted
	Log     *slog.Logger // nil: discard
}

// A Client asks one index. It paces its requests, repeats what failed for a reason
// that may pass, and reads no answer past a bound. It may be used by several
// goroutines at once.
type Client struct {
	base    *url.URL
	http    *http.Client
	pace    *rate.Limiter
	o       Options
	metrics *Metrics
	log     *slog.Logger

	hold    atomic.Int64              // Unix ns: the server wants to be left alone until then
	limited atomic.Pointer[limitedBy] // the journal's own rate limit
}

// NewClient makes a client for the index at o.URL. It sends nothing.
func NewClient(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("address of the index: not readable as an address")
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("address %q of the index: want http(s)://HOST with an optional path", redact(base))
	}
	o.Rate = orDefault(o.Rate, 10)
	o.Timeout = orDefault(o.Timeout, time.Minute)
	o.Tries = orDefault(o.Tries, 4)
	o.MaxWait = orDefault(o.MaxWait, time.Minute)
	o.UserAgent = orDefault(o.UserAgent, "sigtrail")
	o.Log = orDefault(o.Log, slog.New(slog.DiscardHandler))
	c := &Client{base: base, o: o, metrics: o.Metrics, log: o.Log}
	burst := 1
	if o.Rate != rate.Inf {
		burst = max(1, int(o.Rate))
	}
	c.pace = rate.NewLimiter(o.Rate, burst)
	c.http = &http.Client{CheckRedirect: sameServer, Transport: defaultTransport()}
	if o.HTTP != nil && o.HTTP.Transport != nil {
		c.http.Transport = o.HTTP.Transport
	}
	return c, nil
}

// String names the index in logs, without secrets.
func (c *Client) String() string { return redact(c.base) }

// mayAsk reports whether an address from a listing may be called.
func (c *Client) mayAsk(u *url.URL) bool {
	if u.User != nil {
		return false
	}
	if u.Scheme == c.base.Scheme && u.Host == c.base.Host {
		return true
	}
	// An index read over TLS cannot talk us into reading without it.
	secure := u.Scheme == "https" || (u.Scheme == "http" && c.base.Scheme == "http")
	return secure && slices.Contains(c.o.ProvenanceHosts, u.Host)
}

func defaultTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 30 * time.Second
	t.MaxResponseHeaderBytes = 64 << 10
	t.MaxIdleConnsPerHost = parallel
	return t
}

// sameServer follows a redirection inside one server only: PyPI redirects names to
// their normalised form, and nothing else is expected.
func sameServer(r *http.Request, via []*http.Request) error {
	if from := via[0].URL; len(via) > 3 || r.URL.Host != from.Host || r.URL.Scheme != from.Scheme {
		return fmt.Errorf("%w: %s", errElsewhere, redact(r.URL))
	}
	return nil
}

// redact leaves out what an address may carry in secret.
func redact(u *url.URL) string {
	v := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return v.String()
}

func orDefault[T comparable](v, or T) T {
	var zero T
	if v == zero {
		return or
	}
	return v
}
