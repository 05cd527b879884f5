package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigtrail/internal/lab"
)

// publish signs a file of any project, logs it to both logs, and uploads it.
func (w *world) publish(project, version string, id lab.GitHub) {
	w.Helper()
	s, e := w.sign(project+"-"+version+".tar.gz", id)
	w.lab.V2.Log(s)
	w.lab.PyPI.Upload(lab.Upload{Project: project, Version: version, Filename: s.Filename, SHA256: s.SHA256, Provenance: lab.Provenance(id.Publisher(), s, e)})
}

// asked counts the requests for each project's listing.
type asked struct {
	mu    sync.Mutex
	times map[string]int
	next  http.Handler
}

func (a *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name, ok := strings.CutPrefix(r.URL.Path, "/simple/"); ok {
		a.mu.Lock()
		a.times[strings.Trim(name, "/")]++
		a.mu.Unlock()
	}
	a.next.ServeHTTP(w, r)
}

func (a *asked) of(project string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.times[project]
}

// The projects of a requirements file are watched. One that the file gains is
// alerted on by the daemon that runs, one that it loses is not asked for any more.
func TestRequirementsChange(t *testing.T) {
	inBubble(t, byFile, func(b *bubble) {
		index := &asked{times: map[string]int{}, next: b.lab.PyPI}
		b.net.Serve(lab.PyPIHost, index)
		config := string(must(os.ReadFile(b.config)))
		b.write("sigtrail.yaml", strings.Replace(config, "projects: [SampleProject]", "requirements: [requirements.txt, more/uv.lock]", 1))
		must(0, os.Mkdir(filepath.Join(b.dir, "more"), 0o755))
		b.write("requirements.txt", "-r base.txt\n")
		b.write("base.txt", "old_project ==1.0  # for now\n")
		lock := func(names ...string) {
			text := "version = 1\n"
			for _, n := range names {
				text += fmt.Sprintf("[[package]]\nname = %q\nversion = \"1.0\"\nsource = { registry = \"https://pypi.org/simple\" }\n", n)
			}
			b.write("more/uv.lock", text)
		}
		lock("steady")

		evil := sampleRepo
		evil.Owner, evil.RepoID = "evil", "666"
		for _, p := range []string{"old-project", "newcomer", "steady"} {
			b.publish(p, "1.0", sampleRepo)
			b.publish(p, "1.1", sampleRepo)
		}
		b.start()
		b.until("the projects of the files are read", func() bool { return index.of("old-project") > 0 && index.of("steady") > 0 })
		b.pass(24 * time.Hour)
		if n := index.of("newcomer"); n != 0 {
			b.Errorf("newcomer was asked for %d times before any file named it", n)
		}

		b.write("base.txt", "newcomer\n")
		before := time.Now()
		b.until("the new project is read", func() bool { return index.of("newcomer") > 0 })
		if took := time.Since(before); took > 10*time.Minute {
			b.Errorf("the new project was read after %s; it must not wait for the next round", took)
		}
		b.pass(24 * time.Hour) // its publisher is learned
		left := index.of("old-project")
		for _, p := range []string{"old-project", "newcomer"} {
			b.publish(p, "2.0", evil)
		}
		b.until("the new project is alerted on", func() bool { return len(b.got()) > 0 })
		b.pass(24 * time.Hour)
		for _, a := range b.got() {
			if a.Rule != "unexpected-signer" || a.Project != "newcomer" || a.Version != "2.0" {
				b.Errorf("alert %s about %s %s", a.Rule, a.Project, a.Version)
			}
		}
		if n := index.of("old-project"); n != left {
			b.Errorf("old-project was asked for %d times after no file named it any more", n-left)
		}

		// A file that cannot be read costs nothing that is watched.
		told := len(b.got())
		b.write("more/uv.lock", "version = 1\n[[package]\n")
		b.pass(time.Hour)
		b.publish("steady", "2.0", evil)
		b.until("steady is alerted on", func() bool { return len(b.got()) > told })
		if b.log.count("level=ERROR", "cannot read requirements", "uv.lock:2:") != 1 {
			b.Error("the file that cannot be read is not told once")
		}
	})
}

// Requirements that cannot be read keep a daemon from starting, and check-config
// says so too, with the line.
func TestRequirementsUnreadable(t *testing.T) {
	inBubble(t, byFile, func(b *bubble) {
		config := string(must(os.ReadFile(b.config)))
		b.write("sigtrail.yaml", strings.Replace(config, "projects: [SampleProject]", "projects: [a], requirements: [requirements.txt]", 1))
		for text, want := range map[string]string{"x\nx =\n": "requirements.txt:2: ", "-r gone.txt": "requirements.txt:1: "} {
			b.write("requirements.txt", text)
			if d, err := newDaemon(context.Background(), must(loadConfig(b.config)), nil); err == nil || !strings.Contains(err.Error(), want) {
				b.Errorf("%v, %v; want an error with %q", d, err, want)
			}
			var stderr strings.Builder
			if code := Main(b.Context(), []string{"check-config", "--config", b.config}, &strings.Builder{}, &stderr); code != exitUsage || !strings.Contains(stderr.String(), want) {
				b.Errorf("check-config: exit code %d, %q; want an error with %q", code, stderr.String(), want)
			}
		}
		b.write("requirements.txt", "x\nA\n")
		var stdout strings.Builder
		if code := Main(b.Context(), []string{"check-config", "--config", b.config}, &stdout, b.Output()); code != exitFine || !strings.Contains(stdout.String(), "2 projects watched") {
			b.Errorf("check-config: exit code %d, %q", code, stdout.String())
		}

		b.write("sigtrail.yaml", strings.Replace(config, "projects: [SampleProject]", "all: true, projects: [a]", 1))
		stdout.Reset()
		if code := Main(b.Context(), []string{"check-config", "--config", b.config}, &stdout, b.Output()); code != exitFine || !strings.Contains(stdout.String(), "all wins") || !strings.Contains(stdout.String(), "all of pypi, 0 projects watched") {
			b.Errorf("check-config: exit code %d, %q", code, stdout.String())
		}
	})
}
