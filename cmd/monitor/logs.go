package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

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

// signs reports whether heads of that origin are the server's.
func (s server) signs(origin string) bool {
	return origin == s.config.Origin || strings.HasPrefix(origin, s.config.Origin+" - ")
}

// wanted are the logs to follow: those that the configuration names, then those
// that a trusted root does. waiting are logs that the configuration names and that
// nobody has given a key for yet: they begin once the trusted root names them.
func (d *daemon) wanted() (wanted, waiting []LogConfig, err error) {
	tlogs := d.trust.tlogs()
	named := make(map[string]bool)
	for _, l := range d.config.Logs {
		if l, err = l.withDefaults(); err != nil {
			return nil, nil, err
		}
		named[string(l.API)+l.Origin] = true
		switch {
		case l.Follow == followNone:
		case l.Key != "" || hasKey(tlogs, l):
			wanted = append(wanted, l)
		case l.explicit:
			waiting = append(waiting, l)
		default:
			return nil, nil, fmt.Errorf("%w: the trusted root has no %s key for log %q, only for %s; set origin to the name in the log's heads, or key to a PEM file",
				errConfig, l.API, l.Origin, hosts(tlogs))
		}
	}
	for _, t := range tlogs {
		if named[string(t.API)+t.Host] {
			continue
		}
		named[string(t.API)+t.Host] = true
		l, err := LogConfig{API: t.API, Origin: t.Host}.withDefaults()
		if err != nil {
			return nil, nil, err
		}
		l.rooted = true
		wanted = append(wanted, l)
	}
	return wanted, waiting, nil
}

func hasKey(tlogs []rekor.Tlog, l LogConfig) bool {
	for _, t := range tlogs {
		if t.API == l.API && t.Host == l.Origin {
			return true
		}
	}
	return false
}

// retired reports whether every key of the log has ended.
func retired(tlogs []rekor.Tlog, l LogConfig, now time.Time) bool {
	ended := false
	for _, t := range tlogs {
		if t.API == l.API && t.Host == l.Origin {
			if t.Until.IsZero() || now.Before(t.Until) {
				return false
			}
			ended = true
		}
	}
	return ended
}

func hosts(tlogs []rekor.Tlog) string {
	var names []string
	for _, t := range tlogs {
		names = append(names, t.Host)
	}
	return strings.Join(names, ", ")
}

func (l LogConfig) withDefaults() (LogConfig, error) {
	l.explicit = l.Origin != ""
	if l.Origin == "" {
		u, err := url.Parse(l.URL)
		if err != nil {
			return l, fmt.Errorf("%w: log %s: no readable address", errConfig, redact(l.URL))
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
	return l, nil
}

// server makes a reader. Its keys are those that the operator gives, else all that
// the trusted roots name for the origin, now and later.
func (d *daemon) server(l LogConfig) (server, error) {
	keys := d.trust.tlogs
	if l.Key != "" {
		text, err := os.ReadFile(l.Key)
		if err != nil {
			return server{}, fmt.Errorf("%w: key of log %q: %w", errConfig, l.Origin, err)
		}
		key, err := rekor.ReadKey(l.Origin, text)
		if err != nil {
			return server{}, fmt.Errorf("%w: %s: %w", errConfig, l.Key, err)
		}
		d.trust.vouch(key)
		keys = func() []rekor.Tlog { return []rekor.Tlog{key} }
	}
	o := d.readers
	o.URL, o.Origin, o.Keys, o.Rate, o.MaxRate, o.UserAgent, o.Log, o.Registerer = l.URL, l.Origin, keys, rate.Limit(l.Rate), rate.Limit(l.MaxRate), userAgent, d.log, d.registry
	s := server{config: l}
	s.config.Follow = l.mode()
	var err error
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

// adopt makes a follower for each wanted log that has none yet. Those that have begun
// before an error are to be run all the same.
func (d *daemon) adopt(ctx context.Context) (begun []*monitor.Follower, err error) {
	wanted, waiting, err := d.wanted()
	if err != nil {
		return nil, err
	}
	for _, l := range waiting {
		if !d.told[l.Origin] {
			d.told[l.Origin] = true
			d.log.WarnContext(ctx, "a log is not followed yet: the trusted root has no key for it", "origin", l.Origin, "api", l.API, "has", hosts(d.trust.tlogs()))
		}
	}
	fresh, err := d.store.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	var lookups, searched []string
	for _, l := range wanted {
		if s, ok := d.finder.server(l); ok {
			lookups, searched = s.appendLookup(lookups, searched)
			continue
		}
		s, err := d.server(l)
		if err != nil && l.rooted {
			// Whoever writes the trusted root must not be able to stop us.
			d.log.ErrorContext(ctx, "a log of the trusted root cannot be followed; name it in the configuration with a url", "origin", l.Origin, "error", err)
			continue
		}
		if err != nil {
			return begun, err
		}
		start, err := l.Start.Index()
		if err != nil {
			return begun, fmt.Errorf("%w: log %q: %w", errConfig, l.Origin, err)
		}
		if l.Start == "" && l.API == monitor.V2 && (!fresh || retired(d.trust.tlogs(), l, d.now())) {
			// A log that comes after the first start is a new shard: all of
			// it is to be seen. One that has retired has no now.
			start = 0
		}
		f := &monitor.Follower{Server: s.Server, Keeper: d.keeper, Store: d.store, Mode: l.mode(), Start: start, Batch: l.Batch, MaxLag: l.MaxLag,
			Interval: d.config.Interval.Value(), Log: d.log, Metrics: d.metrics, Changed: d.wakeAll, Stream: d.stream(l, s)}
		begun = append(begun, f)
		d.followers = append(d.followers, f)
		d.finder.add(s)
		lookups, searched = s.appendLookup(lookups, searched)
		d.log.InfoContext(ctx, "following", "server", s.String(), "origin", l.Origin, "api", l.API, "follow", l.Follow)
	}
	return begun, d.store.SetLookupServers(ctx, lookups, searched)
}

// appendLookup adds the server if files are looked up on it, and to searched if its
// search index is asked.
func (s server) appendLookup(lookups, searched []string) (_, _ []string) {
	if s.v1 == nil || s.config.Follow == monitor.FollowHead {
		return lookups, searched
	}
	if s.config.Follow == monitor.FollowLookup {
		searched = append(searched, s.String())
	}
	return append(lookups, s.String()), searched
}
