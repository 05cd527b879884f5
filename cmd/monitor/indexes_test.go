package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/timeline"
)

const (
	testHost   = "test.lab.test"
	mirrorHost = "mirror.lab.test"
	attestHost = "attest.lab.test"
)

// besides puts another package index onto the network.
func (b *bubble) besides(host string) *lab.PyPI {
	p := lab.NewPyPI(time.Now)
	p.SetBase("https://" + host)
	b.net.Serve(host, p)
	return p
}

// releaseOn signs a file of sampleproject, logs it to both logs, and uploads it to an
// index, with the bytes that content stands for.
func (b *bubble) releaseOn(p *lab.PyPI, version, content string, id lab.GitHub) {
	b.Helper()
	name := "sampleproject-" + version + ".tar.gz"
	s := must(b.lab.CA.SignPublish(id, name, lab.Digest(content), time.Now()))
	e := must(b.lab.V1.Log(s))
	b.lab.V2.Log(s)
	p.Upload(lab.Upload{Project: "SampleProject", Version: version, Filename: name, SHA256: s.SHA256, Provenance: lab.Provenance(id.Publisher(), s, e)})
}

// told are the alerts received: index, rule, version, in the order of their names.
func (b *bubble) told() map[string]int {
	told := map[string]int{}
	for _, a := range b.got() {
		told[strings.TrimSpace(fmt.Sprintf("%s %s %s", a.Index, a.Rule, a.Version))]++
	}
	return told
}

// One daemon watches PyPI and another index. Both have a project of the same name, with
// other files and other publishers; each is judged by its own, a finding says whose it
// is, and one of them being away does not stop the other.
func TestTwoIndexes(t *testing.T) {
	inBubble(t, byFile+fmt.Sprintf("indexes:\n  - {name: testpypi, url: \"https://%s\", projects: [sampleproject], interval: 5m}\n", testHost), func(b *bubble) {
		b.write("sigtrail.yaml", strings.Replace(string(must(os.ReadFile(b.config))), "interval: 1h", "interval: 5m", 1))
		test := b.besides(testHost)
		rehearsal, evil := sampleRepo, sampleRepo
		rehearsal.Repo, rehearsal.RepoID = "rehearsal", "777"
		evil.Owner, evil.RepoID = "evil", "666"
		for _, v := range []string{"1.0", "1.1"} {
			b.releaseOn(b.lab.PyPI, v, "pypi "+v, sampleRepo)
			b.releaseOn(test, v, "test "+v, rehearsal)
		}
		b.start()
		b.until("both indexes are read", func() bool { p := must(b.d.store.Progress(b.Context())); return p.Files == 4 && p.Waiting == 0 })
		b.pass(3 * time.Hour)

		// Whoever may sign on the one may not on the other.
		b.releaseOn(b.lab.PyPI, "1.2", "pypi 1.2", rehearsal)
		b.releaseOn(test, "1.3", "test 1.3", sampleRepo)
		// A dress rehearsal: the same bytes, shown by TestPyPI as its own alone.
		b.releaseOn(test, "1.4", "1.4", rehearsal)
		b.pass(2 * time.Hour)
		b.releaseOn(b.lab.PyPI, "1.4", "1.4", sampleRepo)
		b.pass(3 * time.Hour)
		want := map[string]int{"unexpected-signer 1.2": 1, "testpypi unexpected-signer 1.3": 1}
		if d := cmp.Diff(want, b.told()); d != "" {
			b.Fatalf("alerts (-want +got):\n%s", d)
		}

		b.net.Remove(testHost)
		b.releaseOn(b.lab.PyPI, "1.5", "pypi 1.5", evil)
		b.releaseOn(test, "1.6", "test 1.6", evil)
		b.pass(3 * time.Hour)
		want["unexpected-signer 1.5"] = 1
		if d := cmp.Diff(want, b.told()); d != "" {
			b.Errorf("alerts while one index is away (-want +got):\n%s", d)
		}
		if n := b.log.count("journal is unavailable", "source=testpypi"); n == 0 {
			b.Error("an index is away without a word")
		}
		b.net.Serve(testHost, test)
		b.pass(3 * time.Hour)
		want["testpypi unexpected-signer 1.6"] = 1
		if d := cmp.Diff(want, b.told()); d != "" {
			b.Errorf("alerts once it is back (-want +got):\n%s", d)
		}
		for _, name := range []string{"pypi", "testpypi"} {
			if n := b.metric(fmt.Sprintf(`sigtrail_pypi_files_total{index=%q}`, name)); n == "" || n == "0" {
				b.Errorf("files counted on %s: %q", name, n)
			}
		}
		b.stop()
		b.shows(func(w io.Writer) int {
			return Main(b.Context(), []string{"status", "--config", b.config}, w, b.Output())
		},
			"testpypi: journal read up to serial ", "1 projects and 5 files")
		b.shows(b.timeline("sampleproject==1.4"), "sampleproject 1.4", "PyPI, seen   #1 file listed", "signed by  github.com/pypa/rehearsal", "!testpypi")
		b.shows(b.timeline("testpypi/sampleproject==1.3"), "testpypi/sampleproject 1.3", " on testpypi\n", "testpypi, seen  #1 file listed", "alert unexpected-signer: testpypi: ", "testpypi's journal up to", "!PyPI, seen")
		b.shows(b.timeline("sampleproject-1.4.tar.gz"), "testpypi, seen  #1 file listed", "PyPI, seen   #2 file listed")
	})
}

// shows checks that a command's output holds texts, and not those after a "!".
func (b *bubble) shows(command func(io.Writer) int, texts ...string) {
	b.Helper()
	var out bytes.Buffer
	code := command(&out)
	for _, text := range texts {
		text, not := strings.CutPrefix(text, "!")
		if strings.Contains(out.String(), text) == not {
			b.Errorf("exit code %d; %q: %t in\n%s", code, text, not, &out)
		}
	}
}

func (b *bubble) timeline(selector string) func(io.Writer) int {
	return func(w io.Writer) int {
		store := must(index.OpenReadOnly(b.Context(), filepath.Join(b.dir, "sigtrail.db")))
		defer store.Close()
		return must(timeline.Write(b.Context(), w, store, selector, timeline.Options{}))
	}
}

// A company's mirror: no journal, credentials for every request, provenance on a
// server of its own that must not see them.
func TestMirror(t *testing.T) {
	text := fmt.Sprintf(`
policy: policy.yaml
indexes:
  - {name: mirror, url: "https://%s/pypi/all", requirements: [requirements.txt], interval: 1h, token_file: token, provenance_hosts: [%s]}
`, mirrorHost, attestHost)
	inBubble(t, byFile+text, func(b *bubble) {
		b.write("token", "robot:s3cret\n")
		b.write("requirements.txt", "sampleproject==1.0\n")
		b.write("policy.yaml", "projects: {mirror/SampleProject: {publishers: [{repository: github.com/pypa/sampleproject}]}}\n")
		origin := lab.NewPyPI(time.Now)
		origin.SetBase("https://" + attestHost)
		leaked := false
		b.net.Serve(attestHost, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			leaked = leaked || r.Header.Get("Authorization") != ""
			origin.ServeHTTP(w, r)
		}))
		b.net.Serve(mirrorHost, mirrorOf(origin, "robot", "s3cret"))
		evil := sampleRepo
		evil.Owner, evil.RepoID = "evil", "666"
		b.releaseOn(origin, "1.0", "1.0", sampleRepo)
		b.start()
		b.until("the mirror is read", func() bool { p := must(b.d.store.Progress(b.Context())); return p.Files == 1 && p.Waiting == 0 })
		b.releaseOn(origin, "1.1", "1.1", evil)
		b.pass(3 * time.Hour)
		if d := cmp.Diff(map[string]int{"mirror unexpected-signer 1.1": 1}, b.told()); d != "" {
			b.Errorf("alerts (-want +got):\n%s", d)
		}
		if n := b.log.count("has no journal", "source=mirror"); n != 1 {
			b.Errorf("told %d times that there is no journal", n)
		}
		if up := b.metric(`sigtrail_pypi_journal_up{index="mirror"}`); up != "" {
			b.Errorf("the journal that it does not have is %s", up)
		}
		if n := b.log.count("level=ERROR", "source=mirror"); n != 0 {
			b.Errorf("%d errors about a mirror that does what it can", n)
		}

		b.write("token", "robot:renewed\n")
		b.net.Serve(mirrorHost, mirrorOf(origin, "robot", "renewed"))
		b.releaseOn(origin, "1.2", "1.2", evil)
		b.pass(3 * time.Hour)
		if b.told()["mirror unexpected-signer 1.2"] != 1 {
			b.Errorf("with renewed credentials: %v", b.told())
		}
		b.write("token", "robot:wrong\n")
		b.pass(3 * time.Hour)
		if b.log.count("source=mirror", "401") == 0 {
			b.Error("credentials are refused without a word")
		}
		if leaked {
			b.Error("another server has seen the credentials")
		}
		b.keptSecret("s3cret", "renewed", "cm9ib3Q6")
	})
}

// mirrorOf serves the simple index alone, under a path, to whoever has a password.
func mirrorOf(origin http.Handler, user, password string) http.Handler {
	simple := http.StripPrefix("/pypi/all", origin)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		switch {
		case u != user || p != password:
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusMethodNotAllowed)
		default:
			rec := httptest.NewRecorder() // a mirror counts nothing
			simple.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				if k != "X-Pypi-Last-Serial" && k != "Etag" {
					w.Header()[k] = v
				}
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		}
	})
}

// keptSecret checks that no text is in the logs, the metrics or the database.
func (b *bubble) keptSecret(texts ...string) {
	b.Helper()
	metrics := b.metric("")
	b.stop()
	for _, secret := range texts {
		if b.log.count(secret) > 0 || strings.Contains(metrics, secret) {
			b.Errorf("%q is in the log or the metrics", secret)
		}
		for _, file := range must(filepath.Glob(filepath.Join(b.dir, "sigtrail.db*"))) {
			if bytes.Contains(must(os.ReadFile(file)), []byte(secret)) {
				b.Errorf("%q is in %s", secret, filepath.Base(file))
			}
		}
	}
}
