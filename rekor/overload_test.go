package rekor

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"sigtrail/internal/lab"
)

// A labV1 is the lab's v1 log behind its faults, over HTTP in memory. Call it in a
// bubble.
type labV1 struct {
	*V1
	log    *lab.V1
	faults *lab.Faults
	crowd  *crowd

	mu   sync.Mutex
	came []time.Duration // when each request came
}

func newLabV1(t *testing.T, leaves int, o Options) *labV1 {
	t.Helper()
	log, err := lab.NewV1(lab.V1Host, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range leaves {
		if _, err := log.LogLeaf(shortLeaf(i)); err != nil {
			t.Fatal(err)
		}
	}
	l := &labV1{log: log, faults: new(lab.Faults)}
	began := time.Now()
	l.crowd = &crowd{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.came = append(l.came, time.Since(began))
		l.mu.Unlock()
		l.faults.Wrap(log).ServeHTTP(w, r)
	})}
	trust, err := ParseTrust(lab.TrustedRoot(newLabCA(t), log.Trusted()))
	if err != nil {
		t.Fatal(err)
	}
	o.URL, o.Origin, o.Keys, o.HTTP = "http://log.test", lab.V1Host, these(trust.Tlogs()...), serveInMemory(t, l.crowd)
	if l.V1, err = NewV1(o); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRetryAfterHoldsEverybody(t *testing.T) {
	for name, retryAfter := range map[string]func() string{
		"seconds": func() string { return "30" },
		"date":    func() string { return time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		for _, status := range []int{429, 503, 502} {
			t.Run(fmt.Sprint(status, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLabV1(t, 1, Options{Rate: 5})
					l.faults.Status("/api/v1/log", 1, status, retryAfter())
					var all sync.WaitGroup
					for i := range 4 {
						all.Go(func() {
							time.Sleep(time.Duration(i) * time.Second)
							if _, err := l.Logs(t.Context()); err != nil {
								t.Error(err)
							}
						})
					}
					all.Wait()
					want := []time.Duration{0, 30 * time.Second, 30*time.Second + 400*time.Millisecond}
					if len(l.came) != 5 || !slices.Equal(l.came[:3], want) {
						t.Errorf("requests came at %v, want %v and two more", l.came, want)
					}
				})
			})
		}
	}
}

// However long the server asks to be left alone, MaxWait is the end of it.
func TestRetryAfterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabV1(t, 1, Options{Rate: 5})
		l.faults.Status("/api/v1/log", 1, 429, "86400")
		if _, err := l.Logs(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []time.Duration{0, time.Minute}; !slices.Equal(l.came, want) {
			t.Errorf("requests came at %v, want %v", l.came, want)
		}
	})
}

// What slows the reading down and what does not; quiet brings the rate back.
func TestOverloadLowersTheRate(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(f *lab.Faults)
		tries int
		want  rate.Limit
	}{
		"429":      {func(f *lab.Faults) { f.Status("/", 1, 429, "") }, 1, 2.5},
		"500":      {func(f *lab.Faults) { f.Status("/", 1, 500, "") }, 1, 2.5},
		"503":      {func(f *lab.Faults) { f.Status("/", 1, 503, "") }, 1, 2.5},
		"503 four": {func(f *lab.Faults) { f.Status("/", 4, 503, "7") }, 4, 5. / 16},
		"timeout":  {func(f *lab.Faults) { f.Latency(time.Hour) }, 1, 2.5},
		"404":      {func(f *lab.Faults) { f.Status("/", 1, 404, "") }, 4, 5},
		"501":      {func(f *lab.Faults) { f.Status("/", 1, 501, "") }, 4, 5},
		"cut":      {func(f *lab.Faults) { f.Cut("/", 1, 0.5) }, 4, 5},
		"HTML":     {func(f *lab.Faults) { f.HTML("/", 1) }, 4, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := prometheus.NewPedanticRegistry()
				l := newLabV1(t, 1, Options{Rate: 5, Tries: c.tries, Registerer: registry})
				c.spoil(l.faults)
				_, err := l.Logs(t.Context())
				lowest := samples(t, registry)
				if got := lowest["sigtrail_log_rate_limit"]; got < float64(c.want) || got > float64(c.want)+0.1 {
					t.Errorf("%v requests a second, want %v (%v)", got, c.want, err)
				}
				if lowered := lowest["sigtrail_log_slowdowns_total"] > 0; lowered != (c.want < 5) {
					t.Errorf("%v slow-downs", lowest["sigtrail_log_slowdowns_total"])
				}
				l.faults.Clear()
				for range 20 {
					time.Sleep(30 * time.Second)
					if _, err := l.Logs(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if got := samples(t, registry)["sigtrail_log_rate_limit"]; got != 5 {
					t.Errorf("%v requests a second after ten minutes of quiet, want 5", got)
				}
			})
		})
	}
}

// samples are the sums of the gauges and counters by name.
func samples(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// The whole allowed rate is used whatever the latency, by no more requests at a
// time than that takes.
func TestLeavesUseTheRate(t *testing.T) {
	for _, c := range []struct {
		rate    rate.Limit
		latency time.Duration
		most    int64         // requests at a time
		took    time.Duration // for 50 requests; the first second's worth goes at once
	}{
		{5, 500 * time.Millisecond, 5, 9500 * time.Millisecond},
		{5, 50 * time.Millisecond, 5, 9050 * time.Millisecond},
		{5, 2 * time.Second, 12, 11 * time.Second},
		{2, 500 * time.Millisecond, 3, 24500 * time.Millisecond},
		{1000, time.Second, 16, 4 * time.Second}, // bounded by Concurrency: 4 rounds
	} {
		t.Run(fmt.Sprint(float64(c.rate), " a second at ", c.latency), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLabV1(t, 500, Options{Rate: c.rate})
				l.faults.Latency(c.latency)
				served, head := headOf(t, l.V1)
				for range 20 { // learn the latency
					time.Sleep(time.Second)
					headOf(t, l.V1)
				}
				time.Sleep(time.Minute)
				began := time.Now()
				l.crowd.most.Store(0)
				leaves, err := served.Source.Leaves(t.Context(), head, 0, 500)
				if err != nil || len(leaves) != 500 {
					t.Fatal(len(leaves), err)
				}
				if took := time.Since(began); took > c.took+c.latency {
					t.Errorf("took %v, want about %v", took, c.took)
				}
				if most := l.crowd.most.Load(); most > c.most {
					t.Errorf("%d requests at a time, want at most %d", most, c.most)
				}
			})
		})
	}
}

// A limiter refuses more requests a second than its server puts up with.
type limiter struct {
	http.Handler
	bucket     *rate.Limiter
	retryAfter string
	refused    atomic.Int64
}

func (l *limiter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.bucket.Allow() {
		l.Handler.ServeHTTP(w, r)
		return
	}
	l.refused.Add(1)
	if l.retryAfter != "" {
		w.Header().Set("Retry-After", l.retryAfter)
	}
	w.WriteHeader(http.StatusTooManyRequests)
}

// Whatever a server puts up with, most of it is used and few requests are refused,
// though the configuration allows ten times as much.
func TestPaceFindsTheServersLimit(t *testing.T) {
	const leaves = 3000
	for retryAfter, limit := range map[string]rate.Limit{"": 8, "2": 2} {
		t.Run(fmt.Sprintf("%v a second, Retry-After %q", limit, retryAfter), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLabV1(t, leaves, Options{Rate: 5, MaxRate: 10 * limit})
				served, head := headOf(t, l.V1)
				l.faults.Latency(100 * time.Millisecond)
				server := &limiter{Handler: l.crowd.Handler, bucket: rate.NewLimiter(limit, 10), retryAfter: retryAfter}
				l.crowd.Handler = server
				began := time.Now()
				requests := len(l.came)
				failed := 0
				for at := uint64(0); at < leaves; {
					got, err := served.Source.Leaves(t.Context(), head, at, leaves)
					if err != nil {
						failed++
					}
					at += uint64(len(got))
				}
				answered := float64(len(l.came) - requests)
				if used := answered / time.Since(began).Seconds() / float64(limit); used < 0.5 {
					t.Errorf("%.0f %% of the limit is used", 100*used)
				}
				if refused := float64(server.refused.Load()); refused == 0 || refused > answered/10 {
					t.Errorf("%v requests refused, %v answered", refused, answered)
				}
				if failed > 0 {
					t.Errorf("%d runs failed altogether", failed)
				}
				t.Logf("%v for %v answered, %d refused", time.Since(began), answered, server.refused.Load())
			})
		})
	}
}
