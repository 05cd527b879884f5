package main

import (
	"context"
	"time"

	"sigtrail/monitor"
)

// followStream is a tail whose leaves the log's event stream brings, as far as it
// does; with a filtered subscription it is a look-up that the stream helps.
const followStream monitor.Mode = "stream"

const (
	streamWait  = 5 * time.Second // for what the log has signed and the stream has not brought
	streamAhead = 20_000          // leaves held beyond the position
	streamBytes = 128 << 20       // bytes of them, and of their messages
)

// mode is what a follower does with the log, its stream aside.
func (l LogConfig) mode() monitor.Mode {
	switch {
	case l.Follow != followStream:
		return l.Follow
	case l.Filtered:
		return monitor.FollowLookup
	}
	return monitor.FollowTail
}

func (l LogConfig) streamProblem() (problem, key string) {
	switch {
	case l.Follow != followStream && l.Subscription != "":
		return "a subscription is read with follow: stream only", ".subscription"
	case l.Follow != followStream:
		return "", ""
	case l.API != monitor.V1:
		return "only v1 logs have an event stream; follow head or tail", ".follow"
	case l.Subscription == "":
		return "follow: stream needs a subscription", ".follow"
	}
	return subscriptionProblem(l.Subscription), ".subscription"
}

// stream is what feeds the log's follower; nil for logs that are only asked.
func (d *daemon) stream(l LogConfig, s server) *monitor.Stream {
	if l.Follow != followStream {
		return nil
	}
	return &monitor.Stream{
		Open:   func(ctx context.Context) (monitor.Subscription, error) { return d.subscribe(ctx, l.Subscription) },
		Decode: func(e monitor.Event) (monitor.Published, error) { return s.v1.Event(e.Body, e.Attributes) },
		SET:    d.trust.SET, Filtered: l.Filtered, Wait: streamWait, Ahead: streamAhead, Bytes: streamBytes,
		Keeper: d.keeper, Store: d.store, Log: d.log, Metrics: d.metrics, Changed: d.wakeAll,
	}
}
