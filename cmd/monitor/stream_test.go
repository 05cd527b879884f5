package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sigtrail/monitor"
)

// events is a subscription to what a test sends.
type events chan monitor.Event

func (s events) Receive(ctx context.Context) (monitor.Event, error) {
	select {
	case <-ctx.Done():
		return monitor.Event{}, ctx.Err()
	case e := <-s:
		return e, nil
	}
}

func (s events) Close() error { return nil }

// A daemon that follows a stream has the log's tail fed by it; with a filtered
// subscription it takes single entries, and looks files up besides.
func TestFollowStream(t *testing.T) {
	for _, filtered := range []bool{false, true} {
		t.Run(fmt.Sprint("filtered ", filtered), func(t *testing.T) {
			w := newWorld(t, "follow: tail, start: 0")
			for i := range 5 {
				w.release(fmt.Sprintf("1.%d", i), sampleRepo)
			}
			c := must(loadConfig(w.config))
			c.Logs[0].Follow, c.Logs[0].Subscription, c.Logs[0].Filtered = followStream, "test://", filtered
			ctx, stop := context.WithCancel(t.Context())
			d := must(newDaemon(ctx, c, quiet(t)))
			defer d.close()
			sent, acked := make(events, 10), make(chan bool, 5)
			d.subscribe = func(_ context.Context, address string) (monitor.Subscription, error) {
				if address != "test://" {
					t.Errorf("the subscription %q was opened", address)
				}
				return sent, nil
			}
			done := make(chan error, 1)
			go func() { done <- d.run(ctx) }()
			for i := range uint64(5) {
				m := must(must(w.lab.V1.Entry(i)).Event())
				e := monitor.Event{Body: m.Body, Attributes: m.Attributes, Ack: func() { acked <- true }}
				e.Nack = func() { sent <- e } // until the daemon knows the log
				sent <- e
			}
			for range 5 {
				<-acked
			}
			log := must(d.followers[0].Server.Logs(ctx))[0].Log
			if pos, _, err := d.store.Position(ctx, log); err != nil || (pos.Next == 5) == filtered {
				t.Errorf("position %d, %v", pos.Next, err)
			}
			if f := d.followers[0]; f.Stream == nil || f.Stream.Filtered != filtered || (f.Mode == monitor.FollowLookup) != filtered {
				t.Errorf("followed as %s, stream %v", f.Mode, f.Stream)
			}
			if s := d.finder.servers()[0]; (s.config.Follow == monitor.FollowLookup) != filtered {
				t.Errorf("files are looked up as for %s", s.config.Follow)
			}
			stop()
			if err := <-done; err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
		})
	}
}

func TestStreamConfig(t *testing.T) {
	for text, want := range map[string]string{
		"{api: v2, url: http://x, follow: stream, subscription: x}": "only v1",
		"{api: v1, url: http://x, follow: stream}":                  "needs a subscription",
		"{api: v1, url: http://x, follow: tail, subscription: x}":   "follow: stream only",
		"{api: v1, url: http://x, follow: stream, subscription: x}": subscriptionProblem("x"),
	} {
		_, err := parseConfig(defaultConfig(), "sigtrail.yaml", []byte("logs: ["+text+"]\n"))
		if err == nil || want == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", text, err, want)
		}
	}
}
