package index

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of indexing. Labels are bounded: kinds by Decode, evidence by its
// names, forms by the registry, rules and sinks by the program and its configuration, origins by the
// trusted root.
type metrics struct {
	entries       *prometheus.CounterVec
	bindings      *prometheus.CounterVec
	unknown       *prometheus.CounterVec
	expired       prometheus.Counter
	unsigned      *prometheus.CounterVec
	commitSeconds prometheus.Histogram

	reg  prometheus.Registerer
	mine []prometheus.Collector
}

func newMetrics() *metrics {
	return &metrics{
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_entries_total",
			Help: "Proven leaves indexed, by kind; malformed and other are covered and not looked into."}, []string{"kind"}),
		bindings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_bindings_total",
			Help: "Entries tied to a file, by the evidence for it and the form in which it was signed."}, []string{"evidence", "form"}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_unknown_statements_total",
			Help: "Publish statements in provenance objects that no template writes, by what is different: entries over such ones cannot be recognised."}, []string{"reason"}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{Name: "sigtrail_unbound_expired_total",
			Help: "Unbound leaves forgotten because no file has appeared for them."}),
		unsigned: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_set_failures_total",
			Help: "Leaves of v1 logs whose signed entry timestamp does not verify; their integrated time is not used."}, []string{"origin"}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sigtrail_commit_seconds",
			Help: "Time to decode, bind and store one batch of leaves.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
	}
}

// leaves counts a committed batch by kind.
func (m *metrics) leaves(kinds map[string]int) {
	for kind, n := range kinds {
		m.entries.WithLabelValues(kind).Add(float64(n))
	}
}

func (m *metrics) register(reg prometheus.Registerer, s *Store) error {
	for _, x := range ExpectedDigests("", [32]byte{}) {
		if x.Form != artifact {
			m.bindings.WithLabelValues(string(ByStatement), x.Form)
		}
	}
	m.bindings.WithLabelValues(string(ByArtifact), artifact)
	for _, e := range []Evidence{ByProvenance, BySubject} {
		m.bindings.WithLabelValues(string(e), "")
	}
	for _, reason := range unknownReasons {
		m.unknown.WithLabelValues(reason)
	}
	if reg == nil {
		return nil
	}
	m.reg = reg
	for _, c := range []prometheus.Collector{m.entries, m.bindings, m.unknown, m.expired, m.unsigned, m.commitSeconds, &tables{s: s, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sigtrail_scrape_failures_total", Help: "Scrapes that could not read the database; they lack what is counted there."})}} {
		if err := reg.Register(c); err != nil {
			return err
		}
		m.mine = append(m.mine, c)
	}
	return nil
}

// unregister lets another Store of the same process take over.
func (m *metrics) unregister() {
	for _, c := range m.mine {
		m.reg.Unregister(c)
	}
	m.mine = nil
}

var (
	findingsDesc   = prometheus.NewDesc("sigtrail_findings", "Alerts on record.", []string{"rule", "severity"}, nil)
	outboxDesc     = prometheus.NewDesc("sigtrail_outbox_depth", "Alerts that a sink has yet to receive.", []string{"sink"}, nil)
	unjudgedDesc   = prometheus.NewDesc("sigtrail_unjudged", "Entries bound to a file that no rule has judged yet.", nil, nil)
	unverifiedDesc = prometheus.NewDesc("sigtrail_provenance_unverified", "Files whose provenance object has yet to be verified.", nil, nil)
	absentDesc     = prometheus.NewDesc("sigtrail_provenance_leaves_pending", "Log entries of provenance objects whose place in the log has not been read yet.", nil, nil)
	lookupsDesc    = prometheus.NewDesc("sigtrail_lookups_due", "Files due to be looked up in a v1 log.", nil, nil)
	indexedDesc    = prometheus.NewDesc("sigtrail_indexed_size", "Where the tail of the log stands: leaves before this are indexed.", []string{"origin"}, nil)
	coveredDesc    = prometheus.NewDesc("sigtrail_covered_entries", "Leaves of the log that are proven and indexed.", []string{"origin"}, nil)
	gapDesc        = prometheus.NewDesc("sigtrail_gap_entries", "Leaves that the tail has passed and not read: only a scan closes that.", []string{"origin"}, nil)
	unboundDesc    = prometheus.NewDesc("sigtrail_unbound", "Leaves kept for files that may appear.", nil, nil)
)

// tables is read at each scrape, so that it says what the database says.
type tables struct {
	s      *Store
	failed prometheus.Counter
}

// scrapeTimeout bounds what one scrape may wait for the database.
const scrapeTimeout = 5 * time.Second

func (c *tables) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{findingsDesc, outboxDesc, unjudgedDesc, unverifiedDesc, absentDesc, lookupsDesc, indexedDesc, coveredDesc, gapDesc, unboundDesc} {
		ch <- d
	}
	c.failed.Describe(ch)
}

func (c *tables) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	now := c.s.now().UnixMicro()
	for _, q := range []struct {
		desc   *prometheus.Desc
		labels int
		query  string
		args   []any
	}{
		{findingsDesc, 2, `SELECT rule, severity, count(*) FROM alerts GROUP BY 1, 2`, nil},
		{outboxDesc, 1, `SELECT sink, sum(delivered IS NULL) FROM outbox GROUP BY 1`, nil},
		{unjudgedDesc, 0, `SELECT count(*) FROM unjudged WHERE early = 0`, nil},
		{unverifiedDesc, 0, `SELECT count(*) FROM unverified`, nil},
		{absentDesc, 0, `SELECT count(*) FROM absent_leaves WHERE state = 'not-covered'`, nil},
		{lookupsDesc, 0, `SELECT count(*) FROM lookups WHERE next <= ?`, []any{now}},
		{unboundDesc, 0, `SELECT CAST(value AS INTEGER) FROM settings WHERE key = '` + unboundCount + `'`, nil},
		{indexedDesc, 1, `SELECT origin, max(next) FROM logs WHERE next IS NOT NULL GROUP BY 1`, nil},
		{coveredDesc, 1, `SELECT l.origin, coalesce(sum(c.past - c.first), 0) FROM logs l LEFT JOIN coverage c ON c.log_id = l.id GROUP BY 1`, nil},
		{gapDesc, 1, `SELECT origin, sum(next - began - (SELECT coalesce(sum(min(c.past, l.next) - max(c.first, l.began)), 0) FROM coverage c
			WHERE c.log_id = l.id AND c.past > l.began AND c.first < l.next)) FROM logs l WHERE next IS NOT NULL GROUP BY 1`, nil},
	} {
		if err := c.s.each(ctx, q.query, q.args, func(scan scan) error {
			labels := make([]string, q.labels)
			var v float64
			dest := []any{}
			for i := range labels {
				dest = append(dest, &labels[i])
			}
			if err := scan(append(dest, &v)...); err != nil {
				return err
			}
			ch <- prometheus.MustNewConstMetric(q.desc, prometheus.GaugeValue, v, labels...)
			return nil
		}); err != nil {
			c.failed.Inc()
			c.s.log.Error("cannot read the database for a scrape", "error", c.s.fail("counting", err))
		}
	}
	c.failed.Collect(ch)
}
