package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"sigtrail/monitor"
)

// Config is the configuration file. Every key is optional; the zero file follows
// Sigstore's public logs from now on.
type Config struct {
	Database    string          `yaml:"database"`     // SQLite file
	Listen      string          `yaml:"listen"`       // address of metrics and health
	TrustedRoot string          `yaml:"trusted_root"` // file; empty: Sigstore's own by TUF
	TUF         TUFConfig       `yaml:"tuf"`          // where the trusted root comes from, without a file
	Logs        []LogConfig     `yaml:"logs"`         // besides those in the trusted root, or how to follow one of them
	PyPI        PyPIConfig      `yaml:"pypi"`
	Indexes     []IndexConfig   `yaml:"indexes"` // package indexes beside PyPI
	Policy      string          `yaml:"policy"`  // file: who may sign what
	Webhooks    []WebhookConfig `yaml:"webhooks"`
	Interval    Duration        `yaml:"interval"` // between looks at a log's head
	Retention   RetentionConfig `yaml:"retention"`

	WitnessPolicy string   `yaml:"witness_policy"` // file (C2SP tlog-policy): cosignatures that a head needs before it counts
	Monitors      []string `yaml:"monitors"`       // other sigtrails, whose heads are compared with ours
}

// TUFConfig is another TUF repository than Sigstore's own.
type TUFConfig struct {
	URL  string `yaml:"url"`
	Root string `yaml:"root"` // file: TUF root metadata to start from
}

// LogConfig is one log, or for v1 one server with all its shards.
type LogConfig struct {
	API     monitor.API  `yaml:"api"`      // v1 or v2
	Origin  string       `yaml:"origin"`   // host part of the heads' first line; default: the URL's host
	URL     string       `yaml:"url"`      // read address; default: https://ORIGIN, v2 with /api/v2/
	Key     string       `yaml:"key"`      // PEM file; default: the trusted root's key for the origin
	Follow  monitor.Mode `yaml:"follow"`   // head, lookup (v1), stream (v1), tail, or none
	Start   Start        `yaml:"start"`    // first leaf of a new tail: an index, or now
	Rate    float64      `yaml:"rate"`     // requests a second to begin with; 0: 5 for Sigstore's v1, 100 for other v1, no limit for v2
	MaxRate float64      `yaml:"max_rate"` // requests a second that a quiet server may come to; 0: rate
	Batch   uint64       `yaml:"batch"`    // leaves a transaction, at most; 0: 1024 for v2, 500 for v1
	MaxLag  uint64       `yaml:"max_lag"`  // leaves; a tail further behind skips to the head; 0: it never does

	Subscription string `yaml:"subscription"` // follow: stream; where the log's events come from, as gocloud.dev/pubsub writes it
	Filtered     bool   `yaml:"filtered"`     // the subscription leaves entries out

	explicit bool // origin was given
	rooted   bool // named by the trusted root alone
}

// followNone leaves a log of the trusted root alone.
const followNone monitor.Mode = "none"

// PyPIConfig says what is watched on PyPI, or on another package index.
type PyPIConfig struct {
	URL          string   `yaml:"url"` // what comes before /simple/
	Projects     []string `yaml:"projects"`
	Requirements []string `yaml:"requirements"` // files whose projects are watched: requirements.txt, pylock.toml, uv.lock, poetry.lock
	All          bool     `yaml:"all"`          // watch every project; projects and requirements then add nothing
	Interval     Duration `yaml:"interval"`
	Rate         float64  `yaml:"rate"` // requests a second, at most; 0: 10

	JournalSince int64 `yaml:"journal_since"` // serial from which the journal's older rows about watched projects are read; 0: none are

	TokenFile       string   `yaml:"token_file"`       // file: USER:PASSWORD, or a bearer token
	ProvenanceHosts []string `yaml:"provenance_hosts"` // HOST or HOST:PORT of further servers that provenance is read from
}

// IndexConfig is a package index beside PyPI.
type IndexConfig struct {
	Name       string `yaml:"name"`
	PyPIConfig `yaml:",inline"`
}

// WebhookConfig is a receiver of alerts.
type WebhookConfig struct {
	URL        string `yaml:"url"`
	SecretFile string `yaml:"secret_file"` // key of the signature; none: unsigned
}

// Start is an index, or now, which is also what an empty one means.
type Start string

// Duration is written as Go writes it: 60s, 5m.
type Duration string

// Index is the first leaf to read.
func (s Start) Index() (uint64, error) {
	if s == "" || s == "now" {
		return monitor.Now, nil
	}
	n, err := strconv.ParseUint(string(s), 10, 62)
	if err != nil {
		return 0, fmt.Errorf("start is %q; it must be an index or now", string(s))
	}
	return n, nil
}

// Value is the duration, 0 for one that check would refuse.
func (d Duration) Value() time.Duration {
	v, err := time.ParseDuration(string(d))
	if err != nil || v <= 0 {
		return 0
	}
	return v
}

// problem says why a duration cannot be meant, "" if it can.
func (d Duration) problem() string {
	if d.Value() == 0 {
		return fmt.Sprintf("%q is no duration; write 60s or 5m", string(d))
	}
	return ""
}

// indexInterval is between rounds of reading a package index, unless it is given.
const indexInterval = "60s"

func defaultConfig() Config {
	return Config{
		Database: "sigtrail.db",
		Listen:   "127.0.0.1:9464",
		PyPI:     PyPIConfig{URL: "https://pypi.org", Interval: indexInterval},
		Interval: "30s",

		Retention: RetentionConfig{Unbound: "720h"},
	}
}

// errConfig is a configuration that cannot be used: exit code 2.
var errConfig = errors.New("configuration")

// loadConfig reads a configuration file over the defaults. File names in it are
// relative to it.
func loadConfig(path string) (Config, error) {
	c := defaultConfig()
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("%w: %w", errConfig, err)
	}
	return parseConfig(c, path, b)
}

// parseConfig turns a panic of the YAML library, which some malformed files
// provoke, into the error that it should have been.
func parseConfig(c Config, path string, b []byte) (_ Config, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %s:1:1: not readable as YAML (%v)", errConfig, path, r)
		}
	}()
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return c, located(path, err)
	}
	if len(file.Docs) > 1 {
		return c, fmt.Errorf("%w: %s: more than one document", errConfig, path)
	}
	if len(file.Docs) == 1 && file.Docs[0].Body != nil {
		if err := yaml.NodeToValue(file.Docs[0].Body, &c, yaml.Strict()); err != nil {
			return c, located(path, err)
		}
	}
	for _, f := range []*string{&c.Database, &c.TrustedRoot, &c.TUF.Root, &c.Policy, &c.WitnessPolicy} {
		*f = beside(path, *f)
	}
	for i := range c.Webhooks {
		c.Webhooks[i].SecretFile = beside(path, c.Webhooks[i].SecretFile)
	}
	c.PyPI.relativeTo(path)
	for i := range c.Indexes {
		c.Indexes[i].relativeTo(path)
		c.Indexes[i].Interval = cmp.Or(c.Indexes[i].Interval, indexInterval)
	}
	for i := range c.Logs {
		c.Logs[i].Key = beside(path, c.Logs[i].Key)
	}
	if problem, at := c.check(); problem != "" {
		line, column := position(file, at)
		return c, fmt.Errorf("%w: %s:%d:%d: %s", errConfig, path, line, column, problem)
	}
	return c, nil
}

// located turns the parser's error into file:line:column.
func located(path string, err error) error {
	if e := yaml.Error(nil); errors.As(err, &e) && e.GetToken() != nil && e.GetToken().Position != nil {
		p, what := e.GetToken().Position, e.GetMessage()
		if errors.As(err, new(*yaml.TypeError)) || errors.As(err, new(*yaml.OverflowError)) { // which speak of Go's types
			what = fmt.Sprintf("%q is not what can stand here", e.GetToken().Value)
		}
		return fmt.Errorf("%w: %s:%d:%d: %s", errConfig, path, p.Line, p.Column, what)
	}
	return fmt.Errorf("%w: %s:1:1: %w", errConfig, path, err)
}

// position finds a value by its path, for problems that the parser cannot see.
func position(file *ast.File, at string) (line, column int) {
	p, err := yaml.PathString(at)
	if err != nil {
		return 1, 1
	}
	n, err := p.FilterFile(file)
	if err != nil || n == nil || n.GetToken() == nil {
		return 1, 1
	}
	return n.GetToken().Position.Line, n.GetToken().Position.Column
}

func beside(config, file string) string {
	if file == "" || filepath.IsAbs(file) || config == "" {
		return file
	}
	return filepath.Join(filepath.Dir(config), file)
}

// check returns the first value that cannot be meant, and its YAML path.
func (c Config) check() (problem, at string) {
	named := make(map[string]bool)
	for i, l := range c.Logs {
		at := fmt.Sprintf("$.logs[%d]", i)
		switch {
		case l.API != monitor.V1 && l.API != monitor.V2:
			return fmt.Sprintf("api is %q; it must be v1 or v2", l.API), at + ".api"
		case l.URL == "" && l.Origin == "":
			return "a log needs a url or an origin", at
		case l.URL != "" && !isHTTP(l.URL):
			return fmt.Sprintf("url %q is no http or https address", redact(l.URL)), at + ".url"
		case l.Follow != "" && l.Follow != monitor.FollowHead && l.Follow != monitor.FollowTail && l.Follow != monitor.FollowLookup && l.Follow != followStream && l.Follow != followNone:
			return fmt.Sprintf("follow is %q; it must be head, lookup, stream, tail or none", l.Follow), at + ".follow"
		case l.Follow == monitor.FollowLookup && l.API == monitor.V2:
			return "a v2 log has no search index to look up in; follow head or tail", at + ".follow"
		case l.startProblem() != "":
			return l.startProblem(), at + ".start"
		case !(l.Rate >= 0):
			return "rate is negative", at + ".rate"
		case !(l.MaxRate >= 0):
			return "max_rate is negative", at + ".max_rate"
		case l.MaxRate > 0 && l.Rate > l.MaxRate:
			return "rate is above max_rate", at + ".rate"
		}
		if problem, key := l.streamProblem(); problem != "" {
			return problem, at + key
		}
		if full, err := l.withDefaults(); err == nil {
			if named[string(l.API)+full.Origin] {
				return fmt.Sprintf("the %s log %q is named twice; it is read at one address", l.API, full.Origin), at
			}
			named[string(l.API)+full.Origin] = true
		}
	}
	for at, d := range map[string]Duration{"$.interval": c.Interval, "$.retention.unbound": c.Retention.Unbound} {
		if problem := d.problem(); problem != "" {
			return problem, at
		}
	}
	for i, w := range c.Webhooks {
		if !isHTTP(w.URL) {
			return "webhook url is no http or https address", fmt.Sprintf("$.webhooks[%d].url", i)
		}
	}
	for i, m := range c.Monitors {
		if !isHTTP(m) {
			return fmt.Sprintf("%q is no http or https address", redact(m)), fmt.Sprintf("$.monitors[%d]", i)
		}
	}
	switch {
	case c.TUF.URL != "" && !isHTTP(c.TUF.URL):
		return fmt.Sprintf("url %q is no http or https address", redact(c.TUF.URL)), "$.tuf.url"
	case c.TUF.URL != "" && c.TUF.Root == "":
		return "another repository needs its own root to start from: give the file with root", "$.tuf.url"
	}
	if problem, key := c.PyPI.check(); problem != "" {
		return problem, "$.pypi" + key
	}
	return checkIndexes(c.Indexes)
}

func (l LogConfig) startProblem() string {
	if _, err := l.Start.Index(); err != nil {
		return err.Error()
	}
	return ""
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
