package monitor

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the following of logs. The label origin is bounded by the logs that
// the trusted root and the configuration name.
type Metrics struct {
	contradictions *prometheus.CounterVec
	leaves         *prometheus.CounterVec
	polls          *prometheus.CounterVec
	uncosigned     *prometheus.CounterVec
	shown          *prometheus.CounterVec
	events         *prometheus.CounterVec
	fetched        *prometheus.CounterVec

	now  func() time.Time
	mu   sync.Mutex
	logs map[string]*logGauge
}

type logGauge struct {
	size, next uint64
	behind     time.Duration
	tailed     bool
	stalled    bool
	closed     bool
	grown      time.Time // when a larger head was last verified
	checked    time.Time // when any head was last verified
}

var (
	sizeDesc    = prometheus.NewDesc("sigtrail_verified_size", "Leaves in the largest verified head of the log.", []string{"origin"}, nil)
	ageDesc     = prometheus.NewDesc("sigtrail_head_age_seconds", "Seconds since the log last showed a larger verified head.", []string{"origin"}, nil)
	checkedDesc = prometheus.NewDesc("sigtrail_head_checked_seconds", "Seconds since any head of the log was last verified.", []string{"origin"}, nil)
	stalledDesc = prometheus.NewDesc("sigtrail_log_stalled", "1 while the log has not grown for longer than its habit, else 0.", []string{"origin"}, nil)
	closedDesc  = prometheus.NewDesc("sigtrail_log_closed", "1 for a log that has ended: its head is looked at once a day, else 0.", []string{"origin"}, nil)
	behindDesc  = prometheus.NewDesc("sigtrail_lag_seconds", "Time since the log showed the leaf that the tail indexes next; 0 when the tail has caught up.", []string{"origin"}, nil)
	lagDesc     = prometheus.NewDesc("sigtrail_lag_entries", "Leaves under the verified head that the tail has not indexed yet.", []string{"origin"}, nil)
)

// NewMetrics registers the package's metrics.
func NewMetrics(reg prometheus.Registerer, now func() time.Time) *Metrics {
	m := &Metrics{
		contradictions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_contradictions_total", Help: "Contradictions found in what a log said, each time it was seen."}, []string{"origin", "kind"}),
		leaves:         prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_leaves_proven_total", Help: "Leaves that the tail has read and proven."}, []string{"origin"}),
		polls:          prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_polls_total", Help: "Rounds of following a server, by outcome."}, []string{"server", "outcome"}),
		uncosigned:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_heads_uncosigned_total", Help: "Heads that do not count because too few witnesses have cosigned them."}, []string{"origin"}),
		shown:          prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_heads_compared_total", Help: "Heads from elsewhere that were compared with the logs' own, by outcome."}, []string{"outcome"}),
		events:         prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_stream_events_total", Help: "Messages of the event stream, by what became of them."}, []string{"outcome"}),
		fetched:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_stream_fetched_total", Help: "Leaves that the event stream has not brought in time and that the log was asked for."}, []string{"origin"}),
		now:            now, logs: make(map[string]*logGauge),
	}
	reg.MustRegister(m.contradictions, m.leaves, m.polls, m.uncosigned, m.shown, m.events, m.fetched, m)
	return m
}

// Describe and Collect make the ages true at the moment of the scrape.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sizeDesc, ageDesc, checkedDesc, stalledDesc, closedDesc, lagDesc, behindDesc} {
		ch <- d
	}
}

func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, origin string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, origin)
	}
	for origin, l := range m.logs {
		gauge(sizeDesc, float64(l.size), origin)
		gauge(ageDesc, m.now().Sub(l.grown).Seconds(), origin)
		gauge(checkedDesc, m.now().Sub(l.checked).Seconds(), origin)
		gauge(stalledDesc, truth(l.stalled), origin)
		gauge(closedDesc, truth(l.closed), origin)
		if l.tailed {
			gauge(behindDesc, l.behind.Seconds(), origin)
			gauge(lagDesc, float64(l.size-min(l.next, l.size)), origin)
		}
	}
}

func (m *Metrics) gauge(origin string) *logGauge {
	l := m.logs[origin]
	if l == nil {
		l = new(logGauge)
		m.logs[origin] = l
	}
	return l
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *Metrics) verified(l Log, size uint64, at time.Time, grown bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.gauge(l.Origin)
	g.size, g.checked, g.closed = size, at, l.Closed
	if grown || g.grown.IsZero() {
		g.grown = at
	}
}

func (m *Metrics) tailed(origin string, next uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.gauge(origin)
	l.next, l.tailed = next, true
}

func (m *Metrics) behind(origin string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gauge(origin).behind = d
}

// stall is for logs whose head has been verified; of others there is nothing to say.
func (m *Metrics) stall(origin string, stalled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.logs[origin]; l != nil {
		l.stalled = stalled
	}
}
