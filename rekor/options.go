// Package rekor reads Sigstore's transparency logs: the REST interface of Rekor v1,
// the tiles of Rekor v2, and the trusted root that names the logs and their keys.
//
// A V1 or V2 is a monitor.Server. What it returns is what the log said, parsed
// strictly and bounded in size and time, and not yet believed: package monitor
// proves it. Three settings of a log stay apart throughout: the address it is
// read from (Options.URL), the name it signs under (Options.Origin), and the
// keys that may sign (Options.Keys, from the trusted root only).
package rekor

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"sigtrail/monitor"
)

// Options says where a log is read, who it is, and how hard it may be asked. The
// zero value of every field but URL, Origin and Keys means its default.
type Options struct {
	URL    string        // read address; v2: the prefix that "checkpoint" is under
	Origin string        // name on the signature lines: a host without scheme
	Keys   func() []Tlog // of the trusted root, as it is now; those of another name or generation are left aside

	HTTP        *http.Client  // its transport is used; default: a client of our own
	Rate        rate.Limit    // requests a second to begin with; default: 5 for Sigstore's own v1 servers, 100 for other v1 servers, no limit for v2, or MaxRate if that is less
	MaxRate     rate.Limit    // requests a second that a quiet server may come to; default: Rate
	Concurrency int           // requests at a time for one call, at most; fewer where rate and latency need no more; default: 16 for v1, 8 for v2
	Timeout     time.Duration // for one attempt, body included; default 30 s
	Tries       int           // attempts for one request; default 4
	MaxWait     time.Duration // between attempts, whatever Retry-After asks; default 60 s
	UserAgent   string        // default "sigtrail"
	Log         *slog.Logger  // default slog.Default
	Registerer  prometheus.Registerer
}

const (
	publicRate  = 5 // the public v1 instance cuts clients off at about 500 a minute
	privateRate = 100
)

// withDefaults checks the options for one generation of the interface.
func (o Options) withDefaults(api monitor.API) (Options, *url.URL, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return o, nil, fmt.Errorf("read address %q of the log: %w", redact(o.URL), errors.Unwrap(err))
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return o, nil, fmt.Errorf("read address %q of the log: want http(s)://HOST/ with an optional path", redact(o.URL))
	}
	if o.Origin == "" || strings.ContainsAny(o.Origin, " \t\r\n+") {
		return o, nil, fmt.Errorf("origin %q of the log at %s: want a name without spaces", o.Origin, redact(o.URL))
	}
	if o.Keys == nil || len(o.keys(api)) == 0 {
		return o, nil, fmt.Errorf("the trusted root has no %s key for the log %q", api, o.Origin)
	}
	if o.Rate == 0 {
		o.Rate = defaultRate(api, u.Hostname())
	}
	o.MaxRate = orDefault(o.MaxRate, o.Rate)
	o.Rate = min(o.Rate, o.MaxRate)
	o.Concurrency = orDefault(o.Concurrency, map[monitor.API]int{monitor.V1: 16, monitor.V2: 8}[api])
	o.Tries = orDefault(o.Tries, 4)
	o.Timeout = orDefault(o.Timeout, 30*time.Second)
	o.MaxWait = orDefault(o.MaxWait, time.Minute)
	o.UserAgent = orDefault(o.UserAgent, "sigtrail")
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o, u, nil
}

// keys are those of the log.
func (o Options) keys(api monitor.API) []Tlog {
	var keys []Tlog
	for _, k := range o.Keys() {
		if k.API == api && k.Host == o.Origin {
			keys = append(keys, k)
		}
	}
	return keys
}

func defaultRate(api monitor.API, host string) rate.Limit {
	switch {
	case api == monitor.V2:
		return rate.Inf // immutable files on a content network; Concurrency is the limit
	case strings.HasSuffix(host, ".sigstore.dev"), strings.HasSuffix(host, ".sigstage.dev"):
		return publicRate
	}
	return privateRate
}

func orDefault[T comparable](v, or T) T {
	var zero T
	if v == zero {
		return or
	}
	return v
}

// redact takes user name, password and query out of an address.
func redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(unreadable address)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
