package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sigtrail/monitor"
)

// errUsage is an argument that cannot be meant: exit code 2.
var errUsage = errors.New("usage")

// A bound is where a scan begins or ends: an index, a time, or where the log does.
type bound struct {
	text  string
	index uint64 // as people count: v1 over all shards
	at    time.Time
}

func (b bound) open() bool    { return b.text == "" }
func (b bound) isIndex() bool { return !b.open() && b.at.IsZero() }

var timeForms = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"}

func parseBound(flag, text string) (bound, error) {
	b := bound{text: text}
	if text == "" {
		return b, nil
	}
	if n, err := strconv.ParseUint(text, 10, 62); err == nil {
		b.index = n
		return b, nil
	}
	for _, form := range timeForms {
		if at, err := time.Parse(form, text); err == nil && !at.IsZero() {
			b.at = at.UTC()
			return b, nil
		}
	}
	return b, fmt.Errorf("%w: --%s %.60q: give an index, or a time as 2026-03-01, 2026-03-01T15:04 or 2026-03-01T15:04:05Z (UTC unless it says otherwise)", errUsage, flag, text)
}

// findLog finds the one log that a name stands for: an origin, a tree id, a part of
// either, or the host of a server. A whole host counts before a part of another.
// Among the shards of one server the index decides where the scan begins.
func (d *daemon) findLog(ctx context.Context, o scanOptions) (server, monitor.Served, error) {
	wanted, _, err := d.wanted()
	if err != nil {
		return server{}, monitor.Served{}, err
	}
	var whole, part []choice
	var known []string
	var errs []error
	for _, l := range wanted {
		known = append(known, l.Origin)
		if !mayHold(l, o.log) {
			continue
		}
		if o.rate > 0 {
			l.Rate, l.MaxRate = o.rate, o.rate
		}
		s, err := d.server(l)
		if err != nil {
			return server{}, monitor.Served{}, err
		}
		served, err := s.Logs(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("asking %s for its logs: %w", s, err))
		}
		for _, v := range served {
			switch c := (choice{s, v}); {
			case v.Log.Origin == o.log, strconv.FormatUint(v.Log.TreeID, 10) == o.log:
				return s, v, nil
			case l.Origin == o.log, sameHost(l.URL, o.log):
				whole = append(whole, c)
			case strings.Contains(v.Log.Origin, o.log):
				part = append(part, c)
			}
		}
	}
	choices := whole
	if len(whole) == 0 {
		choices = part
	}
	if o.from.isIndex() {
		choices = shardAt(choices, o.from.index)
	}
	switch {
	case len(choices) == 1:
		return choices[0].server, choices[0].Served, nil
	case len(choices) > 1:
		var origins []string
		for _, c := range choices {
			origins = append(origins, strconv.Quote(c.Log.Origin))
		}
		return server{}, monitor.Served{}, fmt.Errorf("%w: %q may be any of the logs %s; say more of one, or begin --from an index", errUsage, o.log, strings.Join(origins, ", "))
	case len(errs) > 0:
		return server{}, monitor.Served{}, errors.Join(errs...)
	}
	return server{}, monitor.Served{}, fmt.Errorf("%w: no log is called %q; there are %s", errUsage, o.log, strings.Join(known, ", "))
}

// A choice is a log that a name may stand for.
type choice struct {
	server
	monitor.Served
}

// shardAt leaves of the shards of one server, which come in the order of their
// global indexes, the one that holds an index.
func shardAt(choices []choice, index uint64) []choice {
	for i, c := range choices {
		if c.server.String() != choices[0].server.String() {
			return choices
		}
		if c.Log.FirstGlobal > index && i > 0 {
			return choices[i-1 : i]
		}
	}
	return choices[max(0, len(choices)-1):]
}

// mayHold says whether a server is worth asking for a log of that name. Only a v1
// server knows its tree ids.
func mayHold(l LogConfig, name string) bool {
	return strings.Contains(l.Origin, name) || strings.Contains(name, l.Origin) || sameHost(l.URL, name) ||
		l.API == monitor.V1 && strings.Trim(name, "0123456789") == ""
}

func sameHost(address, name string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Host == name || u.Hostname() == name || strings.TrimSuffix(address, "/") == strings.TrimSuffix(name, "/"))
}
