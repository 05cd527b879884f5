package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"sigtrail/internal/lab"
)

// With pypi.all nobody has to name a project: those that were there are read with
// their history, one that is made later is learned from its first releases, and both
// are alerted on.
func TestAllOfPyPI(t *testing.T) {
	inBubble(t, byFile, func(b *bubble) {
		named := []string{"quiet", "old-project"}
		b.net.Serve(lab.PyPIHost, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/simple/" {
				b.lab.PyPI.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
			fmt.Fprintf(w, `{"meta":{"api-version":"1.4"},"projects":[{"name":%q},{"name":%q}]}`, named[0], named[1])
		}))
		config := string(must(os.ReadFile(b.config)))
		b.write("sigtrail.yaml", strings.Replace(config, "projects: [SampleProject]", "all: true", 1))
		for _, p := range named {
			b.publish(p, "1.0", sampleRepo)
			b.publish(p, "1.1", sampleRepo)
		}
		b.start()
		b.pass(24 * time.Hour)
		if n := b.log.count("pin learned", "project=old-project") + b.log.count("pin learned", "project=quiet"); n != 2 {
			b.Errorf("%d projects of two have been learned from their history", n)
		}
		b.publish("later", "1.0", sampleRepo)
		b.pass(time.Hour)
		evil := sampleRepo
		evil.Owner, evil.RepoID = "evil", "666"
		for _, p := range []string{"old-project", "later"} {
			b.publish(p, "2.0", evil)
		}
		b.pass(24 * time.Hour)
		alerted := map[string]bool{}
		for _, a := range b.got() {
			alerted[a.Rule+" "+a.Project+" "+a.Version] = true
		}
		if len(alerted) != 2 || !alerted["unexpected-signer old-project 2.0"] || !alerted["unexpected-signer later 2.0"] {
			b.Errorf("alerts: %v", alerted)
		}
		var status strings.Builder
		if code := b.monitor(&status, "status"); code != exitFine || !strings.Contains(status.String(), "PyPI: 3 projects watched\n") {
			b.Errorf("status: exit code %d\n%s", code, &status)
		}
	})
}
