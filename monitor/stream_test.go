package monitor_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

// A stage is a v1 log that publishes what it is given, without sockets: so that its
// clients may live in a bubble, where time passes only when all have done their work.
type stage struct {
	*testing.T
	lab    *lab.Lab
	trust  *rekor.Trust
	broker *broker
	files  []index.File
	events []lab.Event
	noise  lab.Signed
}

var publisher = lab.GitHub{Owner: "pypa", Repo: "sampleproject", RepoID: "1234", OwnerID: "5678"}

func newStage(t *testing.T) *stage {
	t.Helper()
	// Bubbles begin in 2000, when no certificate of the lab is valid.
	time.Sleep(time.Until(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)))
	s := &stage{T: t, lab: must(lab.New(lab.Options{})), broker: newBroker()}
	s.trust = must(rekor.ParseTrust(s.lab.TrustedRootJSON()))
	s.noise = must(s.lab.CA.SignPublish(publisher, "noise", lab.Digest("noise"), time.Now()))
	for i := range 20 {
		name := fmt.Sprintf("sampleproject-1.%d.tar.gz", i)
		s.files = append(s.files, index.File{Project: "sampleproject", Version: fmt.Sprintf("1.%d", i), Name: name, SHA256: lab.Digest(name), Size: 1})
	}
	return s
}

// add logs entries, every fiftieth for a file of PyPI, and keeps what the log
// publishes about them, in both forms.
func (s *stage) add(n int) {
	s.Helper()
	for range n {
		i := len(s.events)
		var e lab.Entry
		if f := s.files[i/50%len(s.files)]; i%50 == 0 {
			e = must(s.lab.V1.Log(must(s.lab.CA.SignPublish(publisher, f.Name, f.SHA256, time.Now()))))
		} else {
			e = must(s.lab.V1.LogFile(lab.Digest(fmt.Sprint(i)), s.noise.Signature, s.noise.Cert))
		}
		if i%2 == 0 {
			s.events = append(s.events, must(e.Event()))
		} else {
			s.events = append(s.events, must(e.ProtoEvent()))
		}
	}
}

// A reader is a follower of the stage's log with a database of its own.
type reader struct {
	*monitor.Follower
	*rekor.V1
	store  *index.Store
	stream *monitor.Stream
	reg    *prometheus.Registry
}

func (s *stage) open(path string) *reader {
	s.Helper()
	log := slog.New(slog.NewTextHandler(s.Output(), nil))
	reg := prometheus.NewRegistry()
	r := &reader{reg: reg, store: must(index.Open(s.Context(), path, index.Options{Trust: s.trust, Registerer: reg, Log: log}))}
	must(r.store.PyPI().SaveListing(s.Context(), index.Listing{Project: "sampleproject", Serial: 1, Files: s.files, Fetched: time.Now()}))
	r.V1 = must(rekor.NewV1(rekor.Options{URL: "http://log.test", Origin: lab.V1Host, Keys: s.trust.Tlogs, Log: log,
		HTTP: &http.Client{Transport: direct{s.lab.V1Faults.Wrap(s.lab.V1)}}}))
	metrics := monitor.NewMetrics(reg, time.Now)
	keeper := &monitor.Keeper{Store: r.store, Log: log, Now: time.Now, Metrics: metrics, Patience: time.Second}
	r.stream = &monitor.Stream{
		Decode: func(e monitor.Event) (monitor.Published, error) { return r.Event(e.Body, e.Attributes) },
		SET:    s.trust.SET, Wait: 5 * time.Second, Ahead: 20_000, Bytes: 64 << 20,
		Keeper: keeper, Store: r.store, Log: log, Metrics: metrics, Changed: func() {},
		Open: func(context.Context) (monitor.Subscription, error) { return s.broker.subscribe(), nil },
	}
	r.Follower = &monitor.Follower{Server: r.V1, Keeper: keeper, Store: r.store, Mode: monitor.FollowTail, Batch: 500, Interval: 30 * time.Second, Log: log, Metrics: metrics}
	return r
}

// streamed has the reader read the event stream.
func (s *stage) streamed(path string) *reader {
	s.Helper()
	r := s.open(path)
	r.Stream = r.stream
	return r
}

// direct answers requests in the same goroutine.
type direct struct{ http.Handler }

func (d direct) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, req)
	return w.Result(), nil
}

func (r *reader) position(t *testing.T) uint64 {
	t.Helper()
	logs := must(r.Logs(t.Context()))
	pos, _, err := r.store.Position(t.Context(), logs[len(logs)-1].Log)
	if err != nil {
		t.Fatal(err)
	}
	return pos.Next
}

func (r *reader) metric(t *testing.T, name, label string) int {
	t.Helper()
	sum := 0.0
	for _, f := range must(r.reg.Gather()) {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return int(sum)
}

// tail reads the log by asking it, into another database.
func (s *stage) tail(path string) {
	s.Helper()
	r := s.open(path)
	defer r.store.Close()
	if err := r.Once(s.Context()); err != nil {
		s.Fatal(err)
	}
}

// tables are what a database says of the log. Left out are row numbers, first
// sights, and signatures, which the log makes anew for each answer.
func tables(t *testing.T, path string) map[string][]string {
	t.Helper()
	db := must(sql.Open("sqlite3", "file:"+path+"?mode=ro"))
	defer db.Close()
	out := make(map[string][]string)
	for name, query := range map[string]string{
		"logs":     `SELECT origin, hex(key_id), tree_id, first_global, closed, next, hex(range) FROM logs`,
		"coverage": `SELECT l.origin, c.first, c.past FROM coverage c JOIN logs l ON l.id = c.log_id`,
		"entries": `SELECT l.origin, e.idx, hex(e.leaf_hash), k.name, hex(x.text), hex(v.digest), hex(v.rest), e.trust, e.integrated, e.set_valid, length(v.set_sig) > 0, hex(s.fingerprint)
			FROM entries e JOIN logs l ON l.id = e.log_id JOIN kinds k ON k.id = e.kind_id JOIN leaves v ON v.entry_id = e.id LEFT JOIN shapes x ON x.id = v.shape_id LEFT JOIN signers s ON s.id = e.signer_id`,
		"unbound": `SELECT hex(u.digest), l.origin, u.idx FROM unbound u JOIN logs l ON l.id = u.log_id`,
		"bindings": `SELECT f.filename, l.origin, e.idx, b.evidence, b.form, b.signature FROM bindings b
			JOIN files f ON f.id = b.file_id JOIN entries e ON e.id = b.entry_id JOIN logs l ON l.id = e.log_id`,
		"contradictions": `SELECT kind, subject, detail FROM contradictions`,
	} {
		rows := must(db.QueryContext(t.Context(), query+` ORDER BY 1, 2, 3`))
		columns := must(rows.Columns())
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, v := range values {
				fmt.Fprint(&b, *v.(*any), " ")
			}
			out[name] = append(out[name], b.String())
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A stream that drops, doubles and shuffles its messages fills a database just as a
// tail does. Only what did not come, or not in time, is asked of the log.
func TestStream(t *testing.T) {
	entries := 5000
	if testing.Short() {
		entries = 1000
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		random := rand.New(rand.NewPCG(1, 0))
		r := s.streamed(filepath.Join(dir, "stream.db"))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Second)
		dropped, strayed := 0, 0
		for len(s.events) < entries {
			s.add(250)
			messages, d, far := scramble(random, s.events[len(s.events)-250:], 30, 10, 40)
			dropped, strayed = dropped+d, strayed+far
			s.broker.publish(messages...)
			time.Sleep(2 * time.Second)
		}
		for r.position(t) < uint64(entries) || s.broker.left() > 0 {
			time.Sleep(time.Second)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		fetched := r.metric(t, "sigtrail_stream_fetched_total", "")
		t.Logf("%d entries, %d messages dropped: %d leaves fetched; messages taken %d, double %d, covered %d, early %d", entries, dropped, fetched,
			r.metric(t, "sigtrail_stream_events_total", "taken"), r.metric(t, "sigtrail_stream_events_total", "double"),
			r.metric(t, "sigtrail_stream_events_total", "covered"), r.metric(t, "sigtrail_stream_events_total", "early"))
		if fetched < dropped || fetched > dropped+strayed {
			t.Errorf("%d leaves fetched, want those %d whose messages were dropped", fetched, dropped)
		}
		if n := r.metric(t, "sigtrail_stream_events_total", "rejected"); n != 0 {
			t.Errorf("%d messages rejected, want none", n)
		}
		r.store.Close()
		s.tail(filepath.Join(dir, "tail.db"))
	})
	want, got := tables(t, filepath.Join(dir, "tail.db")), tables(t, filepath.Join(dir, "stream.db"))
	if len(want["entries"]) != entries/50 || len(want["bindings"]) != entries/50 || len(want["coverage"]) != 1 || len(want["unbound"]) == 0 {
		t.Fatalf("the tail has %d entries, %d bindings, coverage %v", len(want["entries"]), len(want["bindings"]), want["coverage"])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the stream's database differs from the tail's (-tail +stream):\n%.3000s", d)
	}
}

// A consumer that dies between a commit and its acknowledgements, again and again,
// loses nothing and counts nothing twice.
func TestStreamDiesBeforeAcknowledging(t *testing.T) {
	const entries = 400
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.add(entries)
		random := rand.New(rand.NewPCG(2, 0))
		messages, _, _ := scramble(random, s.events, 30, 10, 40)
		s.broker.publish(messages...)
		covered, deaths := 0, 0
		for more := true; more; {
			r := s.streamed(filepath.Join(dir, "stream.db"))
			r.Batch = 50
			ctx, kill := context.WithCancel(t.Context())
			var sub *subscription
			r.stream.Open = func(context.Context) (monitor.Subscription, error) { sub = s.broker.subscribe(); return sub, nil }
			last := s.broker.acked + random.IntN(80)
			s.broker.onAck = func(acked int) {
				if acked >= last && deaths < 8 {
					deaths++
					last = len(messages) * 2
					sub.die()
					kill()
				}
			}
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			for ctx.Err() == nil && more {
				time.Sleep(time.Second)
				more = r.position(t) < entries || s.broker.left() > 0
			}
			kill()
			if err := <-done; err != nil {
				t.Error(err)
			}
			covered += r.metric(t, "sigtrail_stream_events_total", "covered")
			r.store.Close()
		}
		t.Logf("died %d times; %d messages came again after their commit", deaths, covered)
		if deaths < 4 || covered == 0 {
			t.Errorf("died %d times, %d messages came again: this has tested nothing", deaths, covered)
		}
		s.tail(filepath.Join(dir, "tail.db"))
	})
	if d := cmp.Diff(tables(t, filepath.Join(dir, "tail.db")), tables(t, filepath.Join(dir, "stream.db"))); d != "" {
		t.Errorf("the stream's database differs from the tail's (-tail +stream):\n%.3000s", d)
	}
}

// What a relay makes up accuses nobody and gets nowhere; what the log has signed
// for two histories convicts it.
func TestStreamLies(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late ", late), func(t *testing.T) { testStreamLies(t, late) })
	}
}

func testStreamLies(t *testing.T, late bool) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.add(100)
		path := filepath.Join(t.TempDir(), "stream.db")
		r := s.streamed(path)
		honest := must(s.lab.V1.Entry(50))
		change := func(change func(*lab.Entry)) lab.Event {
			e := honest
			change(&e)
			return must(e.Event())
		}
		foreign := func() lab.Event {
			s.lab.V1.Active().SignWithOtherKey()
			defer s.lab.V1.Honest()
			return must(must(s.lab.V1.Entry(50)).Event())
		}
		made := []lab.Event{
			{Body: []byte("{}")},
			{},
			{Body: must(honest.Event()).Body, Attributes: map[string]string{"datacontenttype": "text/plain"}},
			change(func(e *lab.Entry) { e.Body = []byte(`{"kind":"dsse","apiVersion":"0.0.1"}`) }),
			change(func(e *lab.Entry) { e.Index, e.Global = 51, 51 }),
			change(func(e *lab.Entry) { e.Global++ }),
			change(func(e *lab.Entry) { e.IntegratedTime++ }),
			change(func(e *lab.Entry) { e.SET = nil }),
			change(func(e *lab.Entry) { e.Hashes = e.Hashes[1:] }),
			change(func(e *lab.Entry) { e.Size++ }),
			foreign(),
		}
		s.broker.publish(made...)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		// Until there is a position, all is sent back.
		go func() { done <- r.Run(ctx) }()
		for r.position(t) < 100 || s.broker.left() > 0 {
			time.Sleep(time.Second)
		}
		if n := r.metric(t, "sigtrail_stream_events_total", "rejected"); n != len(made) {
			t.Errorf("%d messages rejected, want all %d that the relay has made", n, len(made))
		}
		if n := r.metric(t, "sigtrail_stream_events_total", "taken"); n != 0 {
			t.Errorf("%d of them were believed", n)
		}
		if got := tables(t, path)["contradictions"]; got != nil {
			t.Errorf("the log is accused of what a relay has made up: %v", got)
		}

		s.add(100)
		s.lab.V1.Active().ForkAt(150)
		fork := must(must(s.lab.V1.Entry(150)).Event())
		s.lab.V1.Honest()
		if !late {
			s.broker.publish(fork)
		}
		s.broker.publish(s.events[100:]...)
		for r.position(t) < 200 || s.broker.left() > 0 {
			time.Sleep(time.Second)
		}
		if late {
			s.broker.publish(fork)
		}
		s.add(10)
		s.broker.publish(s.events[200:]...)
		for r.position(t) < 210 || s.broker.left() > 0 {
			time.Sleep(time.Second)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.store.Close()
		got := tables(t, path)
		if c := got["contradictions"]; len(c) != 1 || !strings.HasPrefix(c[0], monitor.Equivocation) || !strings.Contains(c[0], "event stream") {
			t.Errorf("contradictions %v, want one %s shown by the event stream", c, monitor.Equivocation)
		}
		if c := got["coverage"]; len(c) != 1 || !strings.HasSuffix(c[0], " 0 210 ") {
			t.Errorf("coverage %v, want all of the honest history", c)
		}
	})
}

// Entries of a filtered subscription are indexed one by one and cover nothing.
func TestStreamFiltered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.add(200)
		path := filepath.Join(t.TempDir(), "stream.db")
		r := s.streamed(path)
		r.stream.Filtered, r.Mode = true, monitor.FollowLookup
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		for i, e := range s.events {
			if e.Attributes["rekor_entry_kind"] == "dsse" {
				s.broker.publish(e)
			}
			if i == 100 {
				s.broker.publish(s.events[0]) // once more
			}
		}
		for s.broker.left() > 0 {
			time.Sleep(time.Second)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.store.Close()
		got := tables(t, path)
		if len(got["entries"]) != 4 || len(got["bindings"]) != 4 || len(got["coverage"]) != 0 {
			t.Errorf("%d entries, %d bindings, coverage %v; want the 4 for known files and no coverage", len(got["entries"]), len(got["bindings"]), got["coverage"])
		}
		if n := r.metric(t, "sigtrail_stream_events_total", "single"); n != 5 {
			t.Errorf("%d messages proven by themselves, want 5", n)
		}
		if len(got["logs"]) != 1 || !strings.Contains(got["logs"][0], "<nil>") {
			t.Errorf("logs %v, want one without a position", got["logs"])
		}
	})
}

// A shard that ends while its last messages are under way, and the first ones of the
// next: both are read whole.
func TestStreamRotation(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.add(100)
		r := s.streamed(filepath.Join(dir, "stream.db"))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		s.broker.publish(s.events[:90]...)
		time.Sleep(time.Second)
		s.lab.V1.Rotate()
		s.add(100)
		s.broker.publish(s.events[95:]...)
		for len(must(r.Logs(ctx))) < 2 || r.position(t) < 100 || s.broker.left() > 0 {
			time.Sleep(time.Second)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := r.metric(t, "sigtrail_stream_events_total", "early"); n == 0 {
			t.Error("no message of the new shard came before it was known: this has tested nothing")
		}
		r.store.Close()
		s.tail(filepath.Join(dir, "tail.db"))
	})
	if d := cmp.Diff(tables(t, filepath.Join(dir, "tail.db")), tables(t, filepath.Join(dir, "stream.db"))); d != "" {
		t.Errorf("the stream's database differs from the tail's (-tail +stream):\n%.3000s", d)
	}
}
