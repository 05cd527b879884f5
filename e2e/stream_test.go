package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"

	"sigtrail/e2e/servers"
	"sigtrail/internal/lab"
)

// streamed is how many entries TestStream logs. An upload is what takes time.
const streamed = 5000

// TestStream has a monitor read a v1 log by its event stream, over a relay that
// drops, doubles and shuffles what the log publishes, kills it -9 now and then, and
// compares its database with that of a monitor that asks the log for each entry.
func TestStream(t *testing.T) {
	t.Parallel()
	built(t, "monitor")
	pubsub := servers.StartPubSub(t)
	log := servers.StartPublishingRekorV1(t, "rekor.stream.e2e.test", pubsub)
	published := pubsub.Subscribe(t, servers.NewEntries, "relay")
	topic, subscription := pubsub.Topic(t, "relayed")
	fulcio, pypi := servers.StartFulcio(t), startIndex(t)
	root := servers.TrustedRoot(t, fulcio, log.Trusted(t))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work errgroup.Group
	relay := &relay{PubSub: pubsub, from: published, to: topic, random: mathrand.New(mathrand.NewPCG(3, 0))}
	work.Go(func() error { return relay.run(ctx, 2*streamed) })

	d := &deployment{fulcio: fulcio, v1: log, pypi: pypi}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uploads, uploading := errgroup.WithContext(ctx)
	uploads.SetLimit(24)
	began := time.Now()
	work.Go(func() error {
		for i := range streamed {
			uploads.Go(func() error { return d.logNth(uploading, key, i) })
		}
		return uploads.Wait()
	})

	config := func(database, follow string) string {
		return fmt.Sprintf(`database: %s
trusted_root: %q
interval: 1s
logs: [{api: v1, origin: %s, url: %q, start: 0, rate: 200, follow: %s}]
pypi: {url: %q, projects: [streamed], interval: 1s}
`, database, root, log.Host, log.View(t).URL, follow, pypi.URL)
	}
	folder, origin := t.TempDir(), log.Origins()[0]
	d.uploadFiles()
	stream := config("stream.db", "stream, subscription: \"gcppubsub://"+subscription+"\"")
	emulator := servers.EmulatorVar + "=" + pubsub.Address
	m := startMonitor(t, folder, stream, emulator)
	for kills := 1; kills <= 4; kills++ {
		m.within(t, 10*patience, "some way further", func() (bool, string) {
			n := m.metrics(t).of("sigtrail_indexed_size", "origin", origin)
			return n >= float64(kills*streamed/6), fmt.Sprint(n, " entries indexed")
		})
		m.Kill()
		m = startMonitor(t, folder, stream, emulator)
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries logged, published and relayed in %s; %d messages dropped, %d doubled", streamed, time.Since(began).Round(time.Second), relay.dropped, relay.doubled)
	m.within(t, 10*patience, "level with the log", func() (bool, string) {
		n, waiting := m.metrics(t).of("sigtrail_indexed_size", "origin", origin), pubsub.Waiting(topic)
		return n == streamed && waiting == 0, fmt.Sprintf("%v entries indexed, %d messages not acknowledged", n, waiting)
	})
	s := m.metrics(t)
	if s.of("sigtrail_stream_events_total", "outcome", "taken") <= 0 || s.sum("sigtrail_contradictions_total") != 0 || s.of("sigtrail_stream_events_total", "outcome", "rejected") > 0 {
		t.Errorf("the stream was not used, or not believed: %v", s)
	}
	for _, o := range []string{"taken", "double", "covered", "early"} {
		t.Logf("since the last kill: %v messages %s", s.of("sigtrail_stream_events_total", "outcome", o), o)
	}
	t.Logf("since the last kill: %v leaves fetched", s.sum("sigtrail_stream_fetched_total"))
	if err := m.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}

	tail := startMonitor(t, folder, config("tail.db", "tail"))
	tail.within(t, 10*patience, "level with the log", func() (bool, string) {
		n := tail.metrics(t).of("sigtrail_indexed_size", "origin", origin)
		return n == streamed, fmt.Sprint(n, " entries indexed")
	})
	if err := tail.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}
	asked, pushed := openDatabase(t, filepath.Join(folder, "tail.db")), openDatabase(t, filepath.Join(folder, "stream.db"))
	for _, name := range []string{"logs", "heads", "coverage", "entries", "bindings", "unbound"} {
		want, got := ask(t, asked, sameEverywhere[name]), ask(t, pushed, sameEverywhere[name])
		if len(want) == 0 {
			t.Errorf("no rows in %s: nothing is compared", name)
		}
		if d := differences(got, want); len(d) > 0 {
			t.Errorf("%s: %d rows by stream, %d by tail; they differ in\n%s", name, len(got), len(want), strings.Join(d[:min(len(d), 5)], "\n"))
		}
	}
}

// logNth logs the n-th entry: every hundredth is a publish attestation.
func (d *deployment) logNth(ctx context.Context, key *ecdsa.PrivateKey, n int) error {
	if n%100 != 0 {
		_, err := d.v1.UploadDigest(ctx, key, sha256.Sum256(fmt.Append(nil, "file ", n)))
		return err
	}
	w := streamedWheel(n / 100)
	s, err := d.fulcio.Sign(ctx, expected, w.name, w.sha256())
	if err != nil {
		return err
	}
	_, err = d.v1.Upload(ctx, s)
	return err
}

func streamedWheel(n int) wheel {
	version := fmt.Sprintf("1.%d", n)
	return wheel{project: "streamed", version: version, name: "streamed-" + version + "-py3-none-any.whl", content: []byte(version)}
}

// uploadFiles shows every other file of the publish attestations on PyPI.
func (d *deployment) uploadFiles() {
	for n := range streamed / 200 {
		w := streamedWheel(2 * n)
		d.pypi.Upload(lab.Upload{Project: w.project, Version: w.version, Filename: w.name, SHA256: w.sha256(), Size: int64(len(w.content))})
	}
}

// A relay passes a topic's messages on to another, spoilt.
type relay struct {
	*servers.PubSub
	from, to string // subscription, topic
	random   *mathrand.Rand

	dropped, doubled int
}

// run passes on until it has seen so many messages.
func (r *relay) run(ctx context.Context, messages int) error {
	var held []*pubsubpb.PubsubMessage
	for seen := 0; seen < messages; {
		got, err := r.Take(ctx, r.from)
		if err != nil {
			return err
		}
		seen += len(got)
		for _, m := range got {
			switch n := r.random.IntN(100); {
			case n < 20: // of both forms of an entry, some 4 in 100
				r.dropped++
				continue
			case n < 30:
				r.doubled++
				held = append(held, m)
			}
			held = append(held, m)
		}
		r.random.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		for keep := 20; len(held) > keep || seen == messages && len(held) > 0; held = held[1:] {
			r.Publish(r.to, held[0])
		}
	}
	return nil
}
