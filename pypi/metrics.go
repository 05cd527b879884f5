package pypi

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the reading of PyPI. A nil *Metrics counts nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	files    prometheus.Counter
	skipped  *prometheus.CounterVec
	serial   prometheus.Gauge
	lag      prometheus.Gauge
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
	for _, reason := range skipReasons {
		m.skipped.WithLabelValues(reason)
	}
	reg.MustRegister(m.requests, m.files, m.skipped, m.serial, m.lag)
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
