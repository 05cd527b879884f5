package pypi

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the reading of PyPI. A nil *Metrics counts nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	files    prometheus.Counter
	serial   prometheus.Gauge
	lag      prometheus.Gauge
}

// NewMetrics registers the package's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_pypi_requests_total", Help: "Requests to the index after retries, by call and outcome."}, []string{"call", "outcome"}),
		files:    prometheus.NewCounter(prometheus.CounterOpts{Name: "sigtrail_pypi_files_total", Help: "Files seen on the index for the first time."}),
		serial:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigtrail_pypi_serial", Help: "Journal serial up to which the index has been read."}),
		lag:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "sigtrail_pypi_serial_lag", Help: "Journal rows that the index has beyond that serial, at the last look."}),
	}
	reg.MustRegister(m.requests, m.files, m.serial, m.lag)
	return m
}

func (m *Metrics) request(call string, err error) {
	if m == nil {
		return
	}
	outcome := "ok"
	switch {
	case errors.Is(err, ErrNotFound):
		outcome = "not_found"
	case errors.Is(err, ErrRefused):
		outcome = "refused"
	case err != nil:
		outcome = "error"
	}
	m.requests.WithLabelValues(call, outcome).Inc()
}

func (m *Metrics) journal(serial, newest int64) {
	if m != nil {
		m.serial.Set(float64(serial))
		m.lag.Set(float64(max(newest-serial, 0)))
	}
}

func (m *Metrics) fresh(n int) {
	if m != nil {
		m.files.Add(float64(n))
	}
}
