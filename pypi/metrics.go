package pypi

import (
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
)

// Metrics of the reading of PyPI. A nil *Metrics counts nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	files    prometheus.Counter
	skipped  *prometheus.CounterVec
	serial   prometheus.Gauge
	lag      prometheus.Gauge
	up       *prometheus.GaugeVec // no labels; without a sample where there is no journal
	listings *prometheus.GaugeVec
	oldest   prometheus.Gauge
	pending  prometheus.Gauge
	watched  prometheus.Gauge
	initial  prometheus.Gauge
	closed   *prometheus.GaugeVec
}

// NewMetrics registers the package's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_pypi_requests_total",
			Help: "Requests to PyPI, each attempt counted, by what was asked and what came of it."}, []string{"call", "outcome"}),
		files: prometheus.NewCounter(prometheus.CounterOpts{Name: "sigtrail_pypi_files_total",
			Help: "Files of watched projects stored for the first time."}),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_pypi_files_skipped_total",
			Help: "Files in listings that cannot be watched, counted at each reading, by reason."}, []string{"reason"}),
		serial: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigtrail_pypi_serial",
			Help: "Serial up to which PyPI's journal has been read."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigtrail_pypi_serial_lag",
			Help: "How far PyPI's newest serial is beyond the one read, when it was last asked."}),
	}
	m.up = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sigtrail_pypi_journal_up",
		Help: "1 when PyPI's journal could be read the last time; without it named projects are polled, and of all others nothing new is seen. Absent for an index without a journal."}, nil)
	m.listings = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sigtrail_pypi_listings_due",
		Help: "Projects whose file list is to be read, by what came of the last try."}, []string{"state"})
	m.oldest = prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigtrail_pypi_listings_oldest_seconds",
		Help: "How long the file list that has waited longest was due, of those that the journal has named, missing and too long ones left out; 0 for none."})
	m.pending = prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigtrail_pypi_provenance_pending",
		Help: "Files whose provenance is to be fetched, now or later."})
	m.watched = prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigtrail_pypi_projects_watched",
		Help: "Projects that are watched."})
	m.initial = prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigtrail_pypi_bootstrap_remaining",
		Help: "Projects that have yet to be read for the first time."})
	m.closed = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sigtrail_pypi_unanswering",
		Help: "1 while PyPI as a whole refuses, limits or fails requests of a kind, which are then made one at a time and seldom."}, []string{"kind"})
	for _, state := range index.WorkStates {
		m.listings.WithLabelValues(string(state))
	}
	for _, kind := range []string{"listings", "provenance"} {
		m.closed.WithLabelValues(kind)
	}
	for _, reason := range skipReasons {
		m.skipped.WithLabelValues(reason)
	}
	reg.MustRegister(m.requests, m.files, m.skipped, m.serial, m.lag, m.up, m.listings, m.oldest, m.pending, m.watched, m.initial, m.closed)
	return m
}

func (m *Metrics) asked(call string, err error) {
	if m != nil {
		m.requests.WithLabelValues(call, outcome(err)).Inc()
	}
}

// outcome is one of a few words, whatever a server answers. All that is neither an
// answer nor a known refusal is "error"; alerting rules go by that word.
func outcome(err error) string {
	var s *StatusError
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrUnchanged):
		return "unchanged"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrRefused):
		return "refused"
	case errors.Is(err, ErrTooLarge):
		return "too_large"
	case errors.As(err, &s) && s.Status == http.StatusTooManyRequests, isLimit(err):
		return "limited"
	}
	return "error"
}

func (m *Metrics) journal(serial, newest int64) {
	if m != nil {
		m.serial.Set(float64(serial))
		m.lag.Set(float64(max(newest-serial, 0)))
	}
}

func (m *Metrics) listed(fresh int) {
	if m != nil {
		m.files.Add(float64(fresh))
	}
}

func (m *Metrics) skip(reason string, n int) {
	if m != nil {
		m.skipped.WithLabelValues(reason).Add(float64(n))
	}
}

func (m *Metrics) journalIs(now journalState) {
	switch {
	case m == nil:
	case now == journalNone:
		m.up.Reset()
	default:
		m.up.WithLabelValues().Set(oneIf(now == journalFollowed))
	}
}

func (m *Metrics) gate(kind string, closed bool) {
	if m != nil {
		m.closed.WithLabelValues(kind).Set(oneIf(closed))
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *Metrics) work(s index.WorkSummary, now time.Time, bootstrap int) {
	if m == nil {
		return
	}
	states, oldest := map[index.WorkState]int{}, now
	for _, c := range s.Work {
		states[c.State] += c.Count
		if c.State == index.WorkMissing || c.State == index.WorkTooLong {
			continue // an answer about that project, not a delay
		}
		if c.Cause == index.ByJournal && c.Oldest.Before(oldest) {
			oldest = c.Oldest
		}
	}
	for _, state := range index.WorkStates {
		m.listings.WithLabelValues(string(state)).Set(float64(states[state]))
	}
	m.oldest.Set(now.Sub(oldest).Seconds())
	m.pending.Set(float64(s.Provenance))
	m.watched.Set(float64(s.Watched))
	m.initial.Set(float64(bootstrap))
}
