package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"golang.org/x/time/rate"

	"sigtrail/monitor"
	"sigtrail/rekor"
)

// A server is a read address that is followed.
type server struct {
	monitor.Server
	v1     *rekor.V1 // nil for v2
	config LogConfig
}

// servers makes a reader for every log that the configuration names or, when it
// names none, that the trusted root does.
func (d *daemon) servers(trust *rekor.Trust) ([]server, error) {
	logs := d.config.Logs
	if len(logs) == 0 {
		seen := make(map[string]bool)
		for _, l := range trust.Tlogs() {
			if key := string(l.API) + l.Host; !seen[key] {
				seen[key] = true
				logs = append(logs, LogConfig{API: l.API, Origin: l.Host})
			}
		}
	}
	var out []server
	for _, l := range logs {
		s, err := d.server(l, trust)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (d *daemon) server(l LogConfig, trust *rekor.Trust) (server, error) {
	if l.Origin == "" {
		u, err := url.Parse(l.URL)
		if err != nil {
			return server{}, fmt.Errorf("%w: log %q: %w", errConfig, l.URL, err)
		}
		l.Origin = u.Hostname()
	}
	if l.URL == "" {
		l.URL = "https://" + l.Origin
		if l.API == monitor.V2 {
			l.URL += "/api/v2/"
		}
	}
	if l.Follow == "" {
		l.Follow = map[monitor.API]monitor.Mode{monitor.V1: monitor.FollowLookup, monitor.V2: monitor.FollowTail}[l.API]
	}
	if l.Batch == 0 {
		l.Batch = map[monitor.API]uint64{monitor.V1: 500, monitor.V2: 1024}[l.API]
	}
	keys, err := l.keys(trust)
	if err != nil {
		return server{}, err
	}
	o := rekor.Options{URL: l.URL, Origin: l.Origin, Keys: keys, Rate: rate.Limit(l.Rate), UserAgent: userAgent, Log: d.log, Registerer: d.registry}
	s := server{config: l}
	if l.API == monitor.V1 {
		s.v1, err = rekor.NewV1(o)
		s.Server = s.v1
	} else {
		s.Server, err = rekor.NewV2(o)
	}
	if err != nil {
		return server{}, fmt.Errorf("%w: %w", errConfig, err)
	}
	return s, nil
}

// keys are the ones that the operator gives, else those that the trusted root
// names for the origin.
func (l LogConfig) keys(trust *rekor.Trust) ([]rekor.Tlog, error) {
	if l.Key != "" {
		text, err := os.ReadFile(l.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: key of log %q: %w", errConfig, l.Origin, err)
		}
		key, err := rekor.ReadKey(l.Origin, text)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errConfig, l.Key, err)
		}
		return []rekor.Tlog{key}, nil
	}
	var names []string
	for _, t := range trust.Tlogs() {
		if t.API == l.API && t.Host == l.Origin {
			return trust.Tlogs(), nil
		}
		names = append(names, t.Host)
	}
	return nil, fmt.Errorf("%w: the trusted root has no %s key for log %q, only for %s; set origin to the name in the log's heads, or key to a PEM file",
		errConfig, l.API, l.Origin, strings.Join(names, ", "))
}
