package servers

import (
	"context"
	"fmt"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// EmulatorVar has Pub/Sub's clients talk to a server of one's own.
const EmulatorVar = "PUBSUB_EMULATOR_HOST"

// NewEntries is the topic that the public log publishes on.
const NewEntries = "projects/project-rekor/topics/new-entry"

// ackDeadline is how long a message that was taken waits for its acknowledgement
// before it is sent again: as short as Pub/Sub allows.
const ackDeadline = 10 // seconds

// A PubSub is Google's own Pub/Sub server for tests, in this process.
type PubSub struct {
	Address string

	server     *pstest.Server
	subscriber pubsubpb.SubscriberClient
	publisher  pubsubpb.PublisherClient
}

// StartPubSub runs a server without topics.
func StartPubSub(t testing.TB) *PubSub {
	t.Helper()
	s := pstest.NewServer()
	t.Cleanup(func() { s.Close() })
	conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatalf("connecting to Pub/Sub: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	return &PubSub{Address: s.Addr, server: s, subscriber: pubsubpb.NewSubscriberClient(conn), publisher: pubsubpb.NewPublisherClient(conn)}
}

func (p *PubSub) topic(t testing.TB, name string) {
	t.Helper()
	if _, err := p.publisher.CreateTopic(t.Context(), &pubsubpb.Topic{Name: name}); err != nil {
		t.Fatalf("creating %s: %v", name, err)
	}
}

// Topic makes a topic and a subscription to it, both of that name, and returns
// their resource names.
func (p *PubSub) Topic(t testing.TB, name string) (topic, subscription string) {
	t.Helper()
	topic = "projects/e2e/topics/" + name
	p.topic(t, topic)
	return topic, p.Subscribe(t, topic, name)
}

// Subscribe makes a subscription to a topic and returns its resource name.
func (p *PubSub) Subscribe(t testing.TB, topic, name string) string {
	t.Helper()
	s := &pubsubpb.Subscription{Name: "projects/e2e/subscriptions/" + name, Topic: topic, AckDeadlineSeconds: ackDeadline}
	if _, err := p.subscriber.CreateSubscription(t.Context(), s); err != nil {
		t.Fatalf("creating %s: %v", s.Name, err)
	}
	return s.Name
}

// Take takes the messages that are waiting, and acknowledges them.
func (p *PubSub) Take(ctx context.Context, subscription string) ([]*pubsubpb.PubsubMessage, error) {
	answer, err := p.subscriber.Pull(ctx, &pubsubpb.PullRequest{Subscription: subscription, MaxMessages: 1000})
	if err != nil {
		return nil, fmt.Errorf("pulling from %s: %w", subscription, err)
	}
	ack := &pubsubpb.AcknowledgeRequest{Subscription: subscription}
	var out []*pubsubpb.PubsubMessage
	for _, m := range answer.ReceivedMessages {
		ack.AckIds = append(ack.AckIds, m.AckId)
		out = append(out, m.Message)
	}
	if len(out) > 0 {
		if _, err := p.subscriber.Acknowledge(ctx, ack); err != nil {
			return nil, fmt.Errorf("acknowledging to %s: %w", subscription, err)
		}
	}
	return out, nil
}

// Publish publishes a message again, on another topic.
func (p *PubSub) Publish(topic string, m *pubsubpb.PubsubMessage) {
	p.server.Publish(topic, m.Data, m.Attributes)
}

// Waiting is how many messages of a topic nobody has acknowledged.
func (p *PubSub) Waiting(topic string) (n int) {
	for _, m := range p.server.Messages() {
		if m.Topic == topic && m.Acks == 0 {
			n++
		}
	}
	return n
}
