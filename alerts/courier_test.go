package alerts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
	"sigtrail/monitor"
)

// A hook is a receiver that fails on command and notes what it was given.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	answer []int // status of the next answers; 0: say 200 and cut the answer; none left: 200
	ids    []string
}

func newHook(t *testing.T, answer ...int) *hook {
	t.Helper()
	h := &hook{answer: answer}
	h.Server = receiver(t, h.take)
	return h
}

func (h *hook) take(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids = append(h.ids, r.Header.Get("webhook-id"))
	status := http.StatusOK
	if len(h.answer) > 0 {
		status, h.answer = h.answer[0], h.answer[1:]
	}
	if status == 0 {
		w.Header().Set("Content-Length", "100")
		status = http.StatusOK
	}
	w.WriteHeader(status)
}

func (h *hook) got() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ids)
}

// alarm raises n alerts for the sinks, and returns their ids in order.
func (w *world) alarm(n int, sinks ...string) []string {
	w.t.Helper()
	var ids []string
	for i := range n {
		w.serial++
		check(w.t, w.store.Contradict(w.t.Context(), monitor.Contradiction{Kind: monitor.Equivocation, Log: testLog, Subject: fmt.Sprint(w.serial, i), At: epoch}))
		raised, err := w.judge(nil, sinks...).Once(w.t.Context())
		check(w.t, err)
		ids = append(ids, raised[0].ID)
	}
	return ids
}

func (w *world) courier(sinks ...Sink) *Courier {
	return &Courier{Outbox: w.store, Sinks: sinks, Log: quiet, Now: w.clock, Metrics: NewMetrics(prometheus.NewRegistry()), Every: time.Hour, Pause: 5 * time.Second}
}

func same(t testing.TB, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("received: %s", diff)
	}
}

// A receiver that is down, wrong or lying for a while loses nothing, and knows
// what comes twice by its id.
func TestCourierRetries(t *testing.T) {
	w := newWorld(t)
	h := newHook(t, 500, 0, 302, 410)
	sink := webhook(t, h.URL, nil)
	c := w.courier(sink)
	ids := w.alarm(2, c.Names()...)
	for range 4 {
		if err := c.Once(t.Context()); err == nil {
			t.Error("a failure is no error")
		}
		w.advance(2 * MaxPause)
	}
	same(t, h.got(), ids[0], ids[0], ids[0], ids[0]) // the second waits behind the first
	check(t, c.Once(t.Context()))
	same(t, h.got()[4:], ids[0], ids[1])
	w.advance(2 * MaxPause)
	check(t, c.Once(t.Context()))
	if extra := h.got()[6:]; len(extra) > 0 {
		t.Errorf("delivered, and sent again: %q", extra)
	}
	same(t, counted(t, c.Metrics.deliveries), "outcome=error sink="+sink.Name()+" 4", "outcome=ok sink="+sink.Name()+" 2")
}

// What is in the outbox outlives the process.
func TestCourierAfterRestart(t *testing.T) {
	w := newWorld(t)
	h := newHook(t)
	c := w.courier(webhook(t, h.URL, nil))
	ids := w.alarm(3, c.Names()...)
	check(t, w.store.Close())
	w.open()
	check(t, w.courier(c.Sinks...).Once(t.Context()))
	same(t, h.got(), ids...)
}

// A receiver that is down holds up no other.
func TestCourierSinksAreApart(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	slow := receiver(t, func(http.ResponseWriter, *http.Request) { <-release })
	fast := newHook(t)
	c := w.courier(webhook(t, slow.URL, nil), webhook(t, fast.URL, nil))
	c.Wake = []chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}
	c.Every = time.Millisecond
	ids := w.alarm(2, c.Names()...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	for len(fast.got()) < 2 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	close(release)
	check(t, <-done)
	same(t, fast.got(), ids...)
}

// One alert that a receiver cannot take does not hold up the others for ever.
func TestCourierPoison(t *testing.T) {
	w := newWorld(t)
	var ids, got []string
	s := receiver(t, func(rw http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("webhook-id"))
		if r.Header.Get("webhook-id") == ids[0] {
			rw.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	})
	c := w.courier(webhook(t, s.URL, nil))
	ids = w.alarm(2, c.Names()...)
	for range patience + 1 {
		if err := c.Once(t.Context()); err == nil {
			t.Error("a failure is no error")
		}
		w.advance(2 * MaxPause)
	}
	if len(got) != patience+2 || got[patience+1] != ids[1] {
		t.Errorf("received %q", got)
	}
}

// memo is an outbox in memory, for tests of time: a database waits on real locks.
type memo struct {
	mu      sync.Mutex
	waiting []string
	next    map[string]time.Time
	tries   map[string]int
}

func (m *memo) DueDeliveries(_ context.Context, sink string, now time.Time, limit int) (due []index.Delivery, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.waiting {
		if !m.next[id].After(now) && len(due) < limit {
			due = append(due, index.Delivery{Alert: index.Alert{ID: id}, Sink: sink, Tries: m.tries[id]})
		}
	}
	return due, nil
}

func (m *memo) Delivered(_ context.Context, id, _ string, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = slices.DeleteFunc(m.waiting, func(s string) bool { return s == id })
	return nil
}

func (m *memo) DeliveryFailed(_ context.Context, id, _ string, next time.Time, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next[id] = next
	m.tries[id]++
	return nil
}

func (m *memo) add(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = append(m.waiting, id)
}

func (m *memo) tried(id string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tries[id]
}

// sinkFunc is a sink without a network.
type sinkFunc func(index.Alert) error

func (sinkFunc) Name() string                                     { return "func" }
func (f sinkFunc) Deliver(_ context.Context, a index.Alert) error { return f(a) }

// The pauses grow from Pause to MaxPause, later alerts keep behind earlier ones,
// and a wake-up is answered at once.
func TestCourierTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // held by the test except while the courier's time passes
		pass := func(d time.Duration) {
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		mu.Lock()
		begin, up := time.Now(), false
		var tries []time.Duration
		var got []string
		out := &memo{waiting: []string{"a", "b"}, next: make(map[string]time.Time), tries: make(map[string]int)}
		c := &Courier{Outbox: out, Log: quiet, Now: time.Now, Metrics: NewMetrics(prometheus.NewRegistry()), Every: time.Second, Pause: 5 * time.Second, Wake: []chan struct{}{make(chan struct{}, 1)},
			Sinks: []Sink{sinkFunc(func(a index.Alert) error {
				mu.Lock()
				defer mu.Unlock()
				tries = append(tries, time.Since(begin))
				if !up {
					return errors.New("down")
				}
				got = append(got, a.ID)
				return nil
			})}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		pass(70 * time.Second)
		for i := 1; i < len(tries); i++ {
			low, high := 5*time.Second<<(i-1), 5*time.Second<<(i-1)*5/4+2*time.Second // a quarter of jitter, a look each second
			if pause := tries[i] - tries[i-1]; pause < low || pause > high {
				t.Errorf("pause %d is %s, want %s to %s", i, pause, low, high)
			}
		}
		if len(tries) < 4 || out.tried("b") != 0 {
			t.Errorf("tries after 70 s: %s; b was tried %d times", tries, out.tried("b"))
		}
		up = true
		out.add("c")
		c.Wake[0] <- struct{}{}
		pass(0)
		same(t, got, "b", "c")
		pass(MaxPause)
		same(t, got, "b", "c", "a")
		mu.Unlock()
		cancel()
		check(t, <-done)
	})
}

func TestPause(t *testing.T) {
	c := &Courier{Pause: 5 * time.Second}
	for tries, want := range map[int]time.Duration{0: 5 * time.Second, 3: 40 * time.Second, 7: MaxPause, 1000: MaxPause} {
		if got := c.pause(tries, errors.New("down")); got < want || got > want*5/4 {
			t.Errorf("after %d tries %s, want %s and some", tries, got, want)
		}
	}
	if got := c.pause(0, fmt.Errorf("hook: %w", ErrGone)); got < MaxPause {
		t.Errorf("a receiver that has gone is asked again after %s", got)
	}
}
