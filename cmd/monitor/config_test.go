package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sigtrail/monitor"
)

const example = `database: sigtrail.db
listen: 127.0.0.1:9464            # metrics, health
trusted_root: trusted_root.json   # default: Sigstore's own, refreshed by TUF
logs:                             # default: every log in the trusted root
  - {api: v2, origin: log2025-1.rekor.sigstore.dev, url: "https://log2025-1.rekor.sigstore.dev/api/v2/", follow: tail, start: 0}
  - {api: v1, url: "https://rekor.sigstore.dev", follow: lookup}
pypi: {url: "https://pypi.org", projects: [sampleproject], requirements: [r.txt, /etc/uv.lock], interval: 90s, all: true, journal_since: 7}
indexes:
  - {name: testpypi, url: "https://test.pypi.org", projects: [a]}
  - {name: mirror, url: "https://pkg.example.org/pypi/all", requirements: [r.txt], interval: 5m, rate: 2, token_file: token, provenance_hosts: ["attest.example.org:8443"]}
retention: {unbound: 240h}
policy: policy.yaml               # who may sign what
webhooks: [{url: "http://127.0.0.1:9000/hook", secret_file: hook.key}]
`

func TestConfig(t *testing.T) {
	got, err := parseConfig(defaultConfig(), "etc/sigtrail.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Database: "etc/sigtrail.db", Listen: "127.0.0.1:9464", TrustedRoot: "etc/trusted_root.json", Policy: "etc/policy.yaml", Interval: "30s",
		Logs: []LogConfig{
			{API: monitor.V2, Origin: "log2025-1.rekor.sigstore.dev", URL: "https://log2025-1.rekor.sigstore.dev/api/v2/", Follow: monitor.FollowTail, Start: "0"},
			{API: monitor.V1, URL: "https://rekor.sigstore.dev", Follow: monitor.FollowLookup},
		},
		PyPI: PyPIConfig{URL: "https://pypi.org", Projects: []string{"sampleproject"}, Requirements: []string{"etc/r.txt", "/etc/uv.lock"}, Interval: "90s", All: true, JournalSince: 7},
		Indexes: []IndexConfig{
			{"testpypi", PyPIConfig{URL: "https://test.pypi.org", Projects: []string{"a"}, Interval: "60s"}},
			{"mirror", PyPIConfig{URL: "https://pkg.example.org/pypi/all", Requirements: []string{"etc/r.txt"}, Interval: "5m", Rate: 2, TokenFile: "etc/token", ProvenanceHosts: []string{"attest.example.org:8443"}}},
		},
		Webhooks:  []WebhookConfig{{URL: "http://127.0.0.1:9000/hook", SecretFile: "etc/hook.key"}},
		Retention: RetentionConfig{Unbound: "240h"},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(LogConfig{})); d != "" {
		t.Error(d)
	}
}

func TestConfigDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		got, err := parseConfig(defaultConfig(), "sigtrail.yaml", []byte(text))
		if d := cmp.Diff(defaultConfig(), got, cmpopts.IgnoreUnexported(LogConfig{})); err != nil || d != "" {
			t.Errorf("%q: %v\n%s", text, err, d)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"databse: x\n":                                                "1:1: ",
		"\nlisten: a\nfoo: 1\n":                                       "3:1: ",
		"logs:\n  - {api: v1, utl: x}\n":                              "2:15: ",
		"logs:\n  - api: v3\n    url: http://x\n":                     "2:10: ",
		"logs:\n  - api: v1\n    url: ftp://x\n":                      "3:10: ",
		"logs:\n  - api: v1\n":                                        "2:8: ",
		"logs:\n  - api: v1\n    url: http://x\n    follow: all\n":    "4:13: ",
		"logs:\n  - api: v2\n    url: http://x\n    follow: lookup\n": "4:13: ",
		"logs:\n  - api: v2\n    url: http://x\n    start: soon\n":    "4:12: ",
		"logs:\n  - api: v2\n    url: http://x\n    start: -1\n":      "4:12: ",
		"logs:\n  - api: v1\n    url: http://x\n    rate: -1\n":       "4:11: ",
		"logs:\n  - api: v1\n    url: http://x\n    rate: .nan\n":     "4:11: ",
		"logs:\n  - api: v1\n    url: http://x\n    max_rate: -1\n":   "4:15: ",
		"logs:\n  - {api: v1, url: http://x, rate: 9, max_rate: 8}\n": "2:36: ",
		"logs: [{api: v1, url: 'http://x:1'}, {api: v2, url: 'http://x:1'}, {api: v1, url: 'http://x:2', origin: x}]\n": "1:68: the v1 log \"x\" is named twice",
		"pypi:\n  rate: fast\n":                                                                "2:9: \"fast\" is not what can stand here",
		"logs: [{api: v1, url: 'http://x', batch: -1}]\n":                                      "1:42: \"-1\" is not what can stand here",
		"pypi:\n  rate: .nan\n":                                                                "2:9: ",
		"pypi:\n  interval: fast\n":                                                            "2:13: ",
		"pypi:\n  interval: -1s\n":                                                             "2:13: ",
		"pypi:\n  url: pypi\n":                                                                 "2:8: ",
		"pypi:\n  journal_since: -1\n":                                                         "2:18: journal_since is negative",
		"pypi:\n  all: many\n":                                                                 "2:8: ",
		"pypi:\n  projects: [a]\n  colour: b\n":                                                "3:3: ",
		"pypi:\n  requirements: [a, \"\"]\n":                                                   "2:21: ",
		"webhooks:\n  - url: hook\n":                                                           "2:10: ",
		"indexes:\n  - url: https://x\n":                                                       "2:8: an index needs a name",
		"indexes:\n  - name: x\n":                                                              "2:9: an index needs a url",
		"indexes: [{name: pypi, url: 'https://x'}]\n":                                          "1:18: pypi is the name",
		"indexes: [{name: A/b, url: 'https://x'}]\n":                                           "1:18: ",
		"indexes: [{name: a, url: 'https://x', uri: 1}]\n":                                     "1:39: ",
		"indexes: [{name: a, url: 'https://x'}, {name: a, url: 'https://y'}]\n":                "1:47: two indexes are named a",
		"indexes:\n  - name: a\n    url: x\n":                                                  "3:10: ",
		"indexes:\n  - name: a\n    url: https://x\n    interval: never\n":                     "4:15: ",
		"indexes:\n  - name: a\n    url: https://x\n    rate: -1\n":                            "4:11: ",
		"indexes:\n  - name: a\n    url: https://x\n    requirements: ['']\n":                  "4:20: ",
		"indexes:\n  - name: a\n    url: https://x\n    provenance_hosts: [b, 'https://c/']\n": "4:27: ",
		"indexes:\n  - name: a\n    url: http://x.example\n    token_file: t\n":                "4:17: the token would go",
		"logs: 5\n":                         "1:7: ",
		"a: [\n":                            "1:",
		"interval: 1m\n---\ninterval: 2m\n": "more than one document",
		"retention: {unbound: 30d}\n":       "1:22: ",
	} {
		_, err := parseConfig(defaultConfig(), "sigtrail.yaml", []byte(text))
		if !errors.Is(err, errConfig) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "sigtrail.yaml") {
			t.Errorf("%q: %v, want it refused at %s", text, err, want)
		}
	}
}

func TestConfigFileMissing(t *testing.T) {
	if _, err := loadConfig(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, errConfig) {
		t.Errorf("a missing file: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(example)
	f.Add("logs: [{api: v1, origin: x, start: now}]")
	f.Add("pypi: {interval: 1h}\nwebhooks: []")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseConfig(defaultConfig(), "f.yaml", []byte(text))
		if err == nil {
			if problem, _ := c.check(); problem != "" {
				t.Fatalf("accepted with %s", problem)
			}
		} else if !errors.Is(err, errConfig) {
			t.Fatal(err)
		}
	})
}
