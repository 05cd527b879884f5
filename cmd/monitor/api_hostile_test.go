package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sigtrail/api"
	"sigtrail/index"
)

// Whatever is asked, the answer is one of the document's, bounded, and tells nothing
// of the inside.
func TestAPIHostile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "follow: head")
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	s := w.serve()
	long, hash := strings.Repeat("a", 513), strings.Repeat("0", 64)
	for address, want := range map[string]int{
		"projects?limit=0":                                 400,
		"projects?limit=-1":                                400,
		"projects?limit=501":                               400,
		"projects?limit=99999999999999999999":              400,
		"projects?limit=1&limit=2":                         400,
		"projects?limit=500":                               200,
		"projects?offset=1":                                400,
		"projects?after=x":                                 400,
		"projects?after=bnVsbA":                            400,
		"projects?after=WzEsMl0":                           400, // [1,2]
		"projects?after=" + long:                           400,
		"projects?index=" + long:                           400,
		"projects?index=nosuch":                            200,
		"projects?index=%00":                               400,
		"projects?index=%ff":                               400,
		"projects?index=%zz":                               400,
		"projects?a;b":                                     400,
		"projects/":                                        404,
		"projects/nosuch":                                  404,
		"projects/" + long:                                 400,
		"projects/..%2f..%2fetc%2fpasswd":                  400,
		"projects/%00":                                     400,
		"projects/%2e%2e":                                  400,
		"projects/a'%20OR%201=1--":                         400,
		"projects/sampleproject/":                          404,
		"projects/sampleproject?index=nosuch":              404,
		"projects/sampleproject/files?version=%25":         200,
		"projects/sampleproject/releases?after=WzEsImEiXQ": 200, // a cursor beyond the end
		"projects/sampleproject/nosuch":                    404,
		"files/" + hash:                                    404,
		"files/" + hash + "/provenance":                    404,
		"files/" + hash + "0":                              400,
		"files/xyz":                                        400,
		"files/" + hash + "/provenance?filename=../x":      404,
		"entries":                                          400,
		"entries?project=sampleproject&hash=" + hash:       400,
		"entries?log=rekor.lab.test":                       400,
		"entries?number=1":                                 400,
		"entries?log=x&number=-1":                          400,
		"entries?log=x&number=18446744073709551615":        400,
		"entries?log=x&number=9223372036854775807":         200,
		"entries?publisher=1":                              400,
		"entries?publisher=p01":                            400,
		"entries?publisher=p9223372036854775807":           200,
		"entries?hash=" + hash:                             200,
		"entries?project=nosuch":                           404,
		"entries?index=pypi":                               400,
		"publishers?selector=" + long:                      400,
		"publishers?selector=%25_%27%22%1b%5b2J":           200,
		"publishers/p":                                     400,
		"publishers/p999":                                  404,
		"alerts?index=pypi":                                400,
		"alerts?project=nosuch":                            200,
		"coverage?x=1":                                     400,
		"":                                                 404,
	} {
		status, body := s.ask(address)
		if status != want {
			t.Errorf("%.90s: %d, want %d: %s", address, status, want, body)
		}
		if strings.Contains(string(body), w.dir) || strings.Contains(string(body), "SELECT") || len(body) > 64<<10 {
			t.Errorf("%.90s: tells of the inside, or too much: %.300s", address, body)
		}
	}
	for method, want := range map[string]int{http.MethodHead: 200, http.MethodPost: 405, http.MethodPut: 405, http.MethodDelete: 405, http.MethodOptions: 405} {
		resp := must(http.DefaultClient.Do(must(http.NewRequestWithContext(t.Context(), method, s.base+"projects", strings.NewReader("x")))))
		resp.Body.Close()
		if resp.StatusCode != want || want == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
}

// Neither the daemon that writes nor another writer that holds the database keeps
// anybody from reading.
func TestAPIWhileWriting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	s := w.serve()
	const versions = 6
	var stop atomic.Bool
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ; !stop.Load(); time.Sleep(5 * time.Millisecond) {
				for _, address := range []string{"projects", "projects/sampleproject", "projects/sampleproject/files", "entries?project=sampleproject", "publishers", "coverage"} {
					if status, body := s.ask(address); status != 200 && status != 404 {
						t.Errorf("%s: %d %s", address, status, body)
					}
				}
			}
		})
	}
	for i := 1; i < versions; i++ {
		w.release(fmt.Sprintf("1.%d", i), sampleRepo)
	}
	w.wait("every release is known", func() bool {
		p := get[api.Projects](s, "projects").Projects
		return len(p) == 1 && p[0].Releases == versions && p[0].Missing == (api.Missing{})
	})
	stop.Store(true)
	all.Wait()

	db := must(sql.Open("sqlite3", "file:"+filepath.Join(w.dir, "sigtrail.db")+"?_busy_timeout=10000"))
	defer db.Close()
	conn := must(db.Conn(t.Context()))
	defer conn.Close()
	must(conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"))
	defer conn.ExecContext(context.Background(), "ROLLBACK")
	if n := len(get[api.Entries](s, "entries?project=sampleproject").Entries); n != 2*versions {
		t.Errorf("%d entries while another writer holds the database, want %d", n, 2*versions)
	}
}

// A database that does not answer is told as such, and no more.
func TestAPIDatabaseFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	if err := must(index.Open(t.Context(), path, index.Options{})).Close(); err != nil {
		t.Fatal(err)
	}
	store := must(index.OpenReadOnly(t.Context(), path))
	log := &lines{also: t.Output()}
	h := api.NewHandler(api.Reader{Store: store, Now: time.Now}, slog.New(slog.NewTextHandler(log, nil)))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, api.Root+"projects", nil))
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" || strings.Contains(rec.Body.String(), path) || log.count("cannot answer", "closed") != 1 {
		t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
}
