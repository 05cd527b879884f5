package rekor

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what the logs are asked. All servers share one set, told apart by
// a label.
type metrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	limit     *prometheus.GaugeVec
	slowdowns *prometheus.CounterVec
	unusable  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sigtrail_log_requests_total",
			Help: "Requests to transparency logs by server and HTTP status; failed: no whole answer.",
		}, []string{"server", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sigtrail_log_request_seconds",
			Help:    "Time of one request to a transparency log, body included.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2.5, 10),
		}, []string{"server"}),
		unusable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sigtrail_log_unusable_total",
			Help: "Answers of transparency logs, or entries in them, that came whole and were not what was asked for.",
		}, []string{"server"}),
		limit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sigtrail_log_rate_limit",
			Help: "Requests a second that a transparency log is asked at most, at present; +Inf: no limit.",
		}, []string{"server"}),
		slowdowns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sigtrail_log_slowdowns_total",
			Help: "Times that the limit was lowered because the transparency log was overloaded.",
		}, []string{"server"}),
	}
	if r == nil {
		return m, nil
	}
	var err error
	if m.requests, err = register(r, m.requests); err != nil {
		return nil, err
	}
	if m.seconds, err = register(r, m.seconds); err != nil {
		return nil, err
	}
	if m.unusable, err = register(r, m.unusable); err != nil {
		return nil, err
	}
	if m.limit, err = register(r, m.limit); err != nil {
		return nil, err
	}
	if m.slowdowns, err = register(r, m.slowdowns); err != nil {
		return nil, err
	}
	return m, nil
}

// register returns the collector that is registered already when another server
// came first.
func register[C prometheus.Collector](r prometheus.Registerer, c C) (C, error) {
	err := r.Register(c)
	var before prometheus.AlreadyRegisteredError
	if errors.As(err, &before) {
		if known, ok := before.ExistingCollector.(C); ok {
			return known, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("registering the metrics of the logs: %w", err)
	}
	return c, nil
}

func (m *metrics) asked(server, status string, took time.Duration) {
	m.requests.WithLabelValues(server, status).Inc()
	m.seconds.WithLabelValues(server).Observe(took.Seconds())
}
