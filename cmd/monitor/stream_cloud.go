//go:build stream

package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"gocloud.dev/pubsub"
	_ "gocloud.dev/pubsub/gcppubsub"
	_ "gocloud.dev/pubsub/kafkapubsub"
	_ "gocloud.dev/pubsub/natspubsub"

	"sigtrail/monitor"
)

func subscriptionProblem(address string) string {
	u, err := url.Parse(address)
	if err != nil || !pubsub.DefaultURLMux().ValidSubscriptionScheme(u.Scheme) {
		return "subscription begins with none of " + strings.Join(pubsub.DefaultURLMux().SubscriptionSchemes(), "://, ") + "://"
	}
	return ""
}

// A cloudSubscription is a subscription of any broker that gocloud.dev has a driver
// for.
type cloudSubscription struct{ *pubsub.Subscription }

func openSubscription(ctx context.Context, address string) (monitor.Subscription, error) {
	s, err := pubsub.OpenSubscription(ctx, address)
	if err != nil {
		return nil, err
	}
	return cloudSubscription{s}, nil
}

func (s cloudSubscription) Receive(ctx context.Context) (monitor.Event, error) {
	m, err := s.Subscription.Receive(ctx)
	if err != nil {
		return monitor.Event{}, err
	}
	e := monitor.Event{Body: m.Body, Attributes: m.Metadata, Ack: m.Ack, Nack: m.Ack}
	if m.Nackable() {
		e.Nack = m.Nack
	}
	return e, nil
}

// Close sends the acknowledgements that are still on their way.
func (s cloudSubscription) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return fmt.Errorf("closing the subscription: %w", err)
	}
	return nil
}
