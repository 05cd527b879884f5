package alerts

import "github.com/prometheus/client_golang/prometheus"

// Metrics of judging and delivery.
type Metrics struct {
	findings   *prometheus.CounterVec
	deliveries *prometheus.CounterVec
	seconds    prometheus.Histogram
}

// NewMetrics registers the package's metrics, with a series for each rule from
// the start, so that an increase from nothing is seen.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		findings:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_findings_total", Help: "Alerts raised by this process, by rule and severity."}, []string{"rule", "severity"}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_deliveries_total", Help: "Attempts to deliver an alert, by receiver and outcome."}, []string{"sink", "outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sigtrail_judge_seconds", Help: "Time to judge all that was waiting.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
	}
	for _, r := range Rules {
		m.findings.WithLabelValues(r.Name, string(r.Severity))
	}
	reg.MustRegister(m.findings, m.deliveries, m.seconds)
	return m
}
