// Package dashboards holds what Prometheus and Grafana show of sigtrail, and the
// test that holds it, and the list of metrics in the docs, to the code.
package dashboards

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/monitor"
	"sigtrail/pypi"
	"sigtrail/rekor"
)

// A recorder takes down what is registered, whether or not it has samples yet.
type recorder struct {
	*prometheus.Registry
	names map[string]bool
}

var descName = regexp.MustCompile(`fqName: "([^"]+)"`)

func (r *recorder) note(c prometheus.Collector) {
	descs := make(chan *prometheus.Desc, 64)
	go func() { c.Describe(descs); close(descs) }()
	for d := range descs {
		if m := descName.FindStringSubmatch(d.String()); m != nil {
			r.names[m[1]] = true
		}
	}
}

func (r *recorder) Register(c prometheus.Collector) error {
	r.note(c)
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// exported are the names of all metrics that the daemon registers.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	r := &recorder{prometheus.NewRegistry(), map[string]bool{"sigtrail_build_info": true, "sigtrail_trusted_root_age_seconds": true, "sigtrail_default_v2_logs": true}} // those are cmd/monitor's own
	monitor.NewMetrics(r, time.Now)
	pypi.NewMetrics(r)
	pypi.NewVerdictMetrics(r)
	alerts.NewMetrics(r)
	s, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), index.Options{Registerer: r})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := rekor.ParseTrust(l.TrustedRootJSON())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rekor.NewV1(rekor.Options{URL: "http://127.0.0.1:9", Origin: lab.V1Host, Keys: trust.Tlogs, Registerer: r}); err != nil {
		t.Fatal(err)
	}
	return r.names
}

var metricName = regexp.MustCompile(`\bsigtrail_[a-z0-9_]+`)

func TestMetricNames(t *testing.T) {
	names := exported(t)
	for _, file := range []string{"prometheus/sigtrail.yml", "grafana/operations.json", "../docs/operations.md"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		used := metricName.FindAllString(string(b), -1)
		if len(used) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, n := range used {
			if !names[n] && !names[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(n, "_bucket"), "_sum"), "_count")] {
				t.Errorf("%s names %s, which nothing exports", file, n)
			}
		}
		if strings.HasSuffix(file, ".md") {
			for n := range names {
				if strings.HasPrefix(n, "sigtrail_") && !slices.Contains(used, n) {
					t.Errorf("%s does not list %s", file, n)
				}
			}
		}
	}
}

func TestRules(t *testing.T) {
	b, err := os.ReadFile("prometheus/sigtrail.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert       string
				Expr        string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(b, &rules, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules.Groups[0].Rules {
		if r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: expression, severity, summary or description is missing", r.Alert)
		}
		page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		text, err := os.ReadFile(filepath.Join("..", page))
		if err != nil {
			t.Errorf("%s: runbook: %v", r.Alert, err)
		}
		if heading := strings.ReplaceAll(anchor, "-", " "); anchor != "" && !strings.Contains(strings.ToLower(string(text)), "## "+heading) {
			t.Errorf("%s: no heading %q in %s", r.Alert, heading, page)
		}
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", "prometheus/sigtrail.yml").CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	}
}

func TestDashboard(t *testing.T) {
	b, err := os.ReadFile("grafana/operations.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		SchemaVersion int
		Panels        []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.SchemaVersion != 39 || len(d.Panels) < 10 {
		t.Errorf("schema version %d, %d panels", d.SchemaVersion, len(d.Panels))
	}
	for _, p := range d.Panels {
		if p.Title == "" || len(p.Targets) == 0 || !strings.Contains(p.Targets[0].Expr, `instance=~"$instance"`) {
			t.Errorf("panel %q: no title, or a query that does not heed the instance", p.Title)
		}
	}
}
