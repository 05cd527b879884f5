package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"sigtrail/index"
	"sigtrail/pypi"
)

// A packageIndex is PyPI, or another index, as it is watched.
type packageIndex struct {
	name     string
	scope    *pypi.Scope
	watcher  *pypi.Watcher
	progress *bootstrapProgress
}

// sources are all package indexes, PyPI first.
func (c Config) sources() []IndexConfig {
	return append([]IndexConfig{{Name: index.PyPI, PyPIConfig: c.PyPI}}, c.Indexes...)
}

// source finds a package index by its name, PyPI's included.
func (c Config) source(name string) (IndexConfig, bool) {
	for _, s := range c.sources() {
		if s.Name == name {
			return s, true
		}
	}
	return IndexConfig{}, false
}

// indexNames are the names of the indexes beside PyPI.
func (c Config) indexNames() []string {
	var names []string
	for _, x := range c.Indexes {
		names = append(names, x.Name)
	}
	return names
}

// openIndex makes what watches one index, with a pace, a position and projects of its
// own: none waits for another.
func (d *daemon) openIndex(ctx context.Context, c IndexConfig) (*packageIndex, error) {
	wrong := func(err error) error { return fmt.Errorf("%w: index %s: %w", errConfig, c.Name, err) }
	metrics := pypi.NewMetrics(prometheus.WrapRegistererWith(prometheus.Labels{"index": c.Name}, d.registry))
	client, err := newIndexClient(c.PyPIConfig, metrics)
	if err != nil {
		return nil, wrong(err)
	}
	catalogue, err := d.store.Catalogue(ctx, c.Name, client.String())
	if err != nil {
		return nil, err
	}
	log := d.log
	if c.Name != index.PyPI {
		log = log.With("source", c.Name)
	}
	x := &packageIndex{name: c.Name, progress: &bootstrapProgress{log: log, every: bootstrapLogEvery}}
	x.scope = &pypi.Scope{Names: c.Projects, Files: c.Requirements, Log: log,
		Changed: func(projects []string) { x.watcher.SetProjects(projects) }}
	projects, err := x.scope.Load(ctx)
	if err != nil {
		return nil, wrong(err)
	}
	x.watcher = &pypi.Watcher{Client: client, Store: catalogue, Projects: projects, All: c.All, JournalSince: c.JournalSince, Interval: c.Interval.Value(),
		Log: log, Metrics: metrics, Changed: d.wakeAll, Progress: x.progress.show}
	return x, nil
}

// newIndexClient makes a client; credentials that cannot be read are told now.
func newIndexClient(c PyPIConfig, metrics *pypi.Metrics) (*pypi.Client, error) {
	o := pypi.Options{URL: c.URL, UserAgent: userAgent, Rate: rate.Limit(c.Rate), ProvenanceHosts: c.ProvenanceHosts, Metrics: metrics}
	if c.TokenFile != "" {
		o.Authorization = pypi.CredentialsFile(c.TokenFile)
		if _, err := o.Authorization(); err != nil {
			return nil, err
		}
	}
	return pypi.NewClient(o)
}

// watchedSources says what is watched.
func watchedSources(c Config, named int) string {
	what := counted(named, "project", "projects")
	for _, s := range c.sources() {
		if s.All {
			what = "all of " + s.Name + ", " + what
		}
	}
	return what
}

// checkSources reads what the sources name, and counts the projects on all of them.
func checkSources(ctx context.Context, c Config) (projects int, err error) {
	for _, s := range c.sources() {
		scope := pypi.Scope{Names: s.Projects, Files: s.Requirements}
		names, err := scope.Load(ctx)
		if err == nil {
			_, err = newIndexClient(s.PyPIConfig, nil)
		}
		if err != nil {
			return 0, fmt.Errorf("%w: index %s: %w", errConfig, s.Name, err)
		}
		if !s.All {
			projects += len(names)
		}
	}
	return projects, nil
}

// readIndexes makes one round over all indexes at the same time.
func (d *daemon) readIndexes(ctx context.Context) error {
	errs := make([]error, len(d.indexes))
	var g errgroup.Group
	for i, x := range d.indexes {
		g.Go(func() error {
			if errs[i] = x.watcher.Once(ctx); errs[i] != nil && x.name != index.PyPI {
				errs[i] = fmt.Errorf("index %s: %w", x.name, errs[i])
			}
			return nil
		})
	}
	_ = g.Wait() // errors are in errs, each index's own
	return errors.Join(errs...)
}

// indexName is what a package index may be called. It stands before a slash in
// policies and alerts.
var indexName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

const maxIndexName = 40

// relativeTo makes file names relative to the configuration file.
func (p *PyPIConfig) relativeTo(config string) {
	for i := range p.Requirements {
		p.Requirements[i] = beside(config, p.Requirements[i])
	}
	p.TokenFile = beside(config, p.TokenFile)
}

// check returns the first value that cannot be meant, and its key.
func (p PyPIConfig) check() (problem, key string) {
	for i, f := range p.Requirements {
		if f == "" {
			return "the name of a file is empty", fmt.Sprintf(".requirements[%d]", i)
		}
	}
	for i, h := range p.ProvenanceHosts {
		if u, err := url.Parse("https://" + h); err != nil || u.Host != h || h == "" {
			return fmt.Sprintf("%q is no host; write HOST or HOST:PORT", redact(h)), fmt.Sprintf(".provenance_hosts[%d]", i)
		}
	}
	if problem := p.Interval.problem(); problem != "" {
		return problem, ".interval"
	}
	if p.JournalSince < 0 {
		return "journal_since is negative", ".journal_since"
	}
	if !(p.Rate >= 0) {
		return "rate is negative", ".rate"
	}
	u, err := url.Parse(p.URL)
	switch {
	case err != nil || !isHTTP(p.URL):
		return fmt.Sprintf("url %q is no http or https address", redact(p.URL)), ".url"
	case p.TokenFile != "" && u.Scheme == "http" && !isLoopback(u.Hostname()):
		return "the token would go over the network in clear text; the url must be https", ".token_file"
	}
	return "", ""
}

// checkIndexes returns the first value that cannot be meant, and its YAML path.
func checkIndexes(indexes []IndexConfig) (problem, at string) {
	named := map[string]bool{index.PyPI: true}
	for i, x := range indexes {
		at := fmt.Sprintf("$.indexes[%d]", i)
		switch {
		case x.Name == "":
			return "an index needs a name", at
		case x.Name == index.PyPI:
			return "pypi is the name of PyPI itself, which has a key of its own", at + ".name"
		case !indexName.MatchString(x.Name) || len(x.Name) > maxIndexName:
			return fmt.Sprintf("%.50q is no name of an index; write lower-case letters, digits and single hyphens, at most %d", x.Name, maxIndexName), at + ".name"
		case named[x.Name]:
			return fmt.Sprintf("two indexes are named %s", x.Name), at + ".name"
		case x.URL == "":
			return "an index needs a url: what comes before /simple/", at
		}
		named[x.Name] = true
		if problem, key := x.check(); problem != "" {
			return problem, at + key
		}
	}
	return "", ""
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
