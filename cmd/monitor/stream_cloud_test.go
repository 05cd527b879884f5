//go:build stream

package main

import (
	"testing"

	"gocloud.dev/pubsub"
	_ "gocloud.dev/pubsub/mempubsub"
)

// What is neither acknowledged nor lost comes again, as the drivers promise.
func TestCloudSubscription(t *testing.T) {
	topic := must(pubsub.OpenTopic(t.Context(), "mem://events"))
	defer topic.Shutdown(t.Context())
	open := func() cloudSubscription {
		return must(openSubscription(t.Context(), "mem://events?ackdeadline=1m")).(cloudSubscription)
	}
	s := open()
	if err := topic.Send(t.Context(), &pubsub.Message{Body: []byte("body"), Metadata: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	e := must(s.Receive(t.Context()))
	if string(e.Body) != "body" || e.Attributes["a"] != "b" {
		t.Errorf("received %q with %v", e.Body, e.Attributes)
	}
	e.Nack()
	must(s.Receive(t.Context())).Ack()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Receive(t.Context()); err == nil {
		t.Error("a closed subscription receives")
	}
	if _, err := openSubscription(t.Context(), "mem://nobody"); err == nil {
		t.Error("a subscription to a topic that does not exist was opened")
	}
}

func TestSubscriptionSchemes(t *testing.T) {
	for _, address := range []string{"gcppubsub://projects/p/subscriptions/s", "kafka://group?topic=t", "nats://subject"} {
		if problem := subscriptionProblem(address); problem != "" {
			t.Errorf("%s: %s", address, problem)
		}
	}
}
