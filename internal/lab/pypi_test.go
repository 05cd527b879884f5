package lab

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// An indexClient asks a PyPI over HTTP and follows no redirection.
type indexClient struct {
	*testing.T
	url string
}

func serveIndex(t *testing.T, h http.Handler) indexClient {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return indexClient{t, s.URL}
}

func (c indexClient) get(path, accept string, header ...string) (*http.Response, string) {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), http.MethodGet, c.url+path, nil)
	if err != nil {
		c.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	return resp, string(body)
}

type indexPage struct {
	Meta struct {
		Serial int64 `json:"_last-serial"`
	}
	Name     string
	Status   struct{ Status string } `json:"project-status"`
	Versions []string
	Files    []struct {
		Filename   string
		Yanked     any
		Provenance *string
	}
}

func (c indexClient) page(name string) indexPage {
	c.Helper()
	resp, body := c.get("/simple/"+name+"/", simpleJSON)
	var p indexPage
	if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != http.StatusOK {
		c.Fatalf("page of %s: %d, %v: %.200s", name, resp.StatusCode, err, body)
	}
	if got := resp.Header.Get("X-PyPI-Last-Serial"); got != fmt.Sprint(p.Meta.Serial) {
		c.Errorf("page of %s: serial %d, but %s in its header", name, p.Meta.Serial, got)
	}
	return p
}

func (p indexPage) names() (names []string) {
	for _, f := range p.Files {
		names = append(names, f.Filename)
	}
	return names
}

func (c indexClient) call(method string, since int64) string {
	c.Helper()
	body := fmt.Sprintf("<?xml version='1.0'?><methodCall><methodName>%s</methodName><params><param><value><int>%d</int></value></param></params></methodCall>", method, since)
	resp, err := http.Post(c.url+"/pypi", "text/xml", strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.Fatalf("%s: %d, %v", method, resp.StatusCode, err)
	}
	return string(answer)
}

// rows are the journal's, as "name version action", and the serial of each.
func (c indexClient) rows(since int64) (rows []string, serials []int64) {
	c.Helper()
	var answer struct {
		Rows []struct {
			Strings []string `xml:"array>data>value>string"`
			Ints    []int64  `xml:"array>data>value>int"`
		} `xml:"params>param>value>array>data>value"`
	}
	if err := xml.Unmarshal([]byte(c.call("changelog_since_serial", since)), &answer); err != nil {
		c.Fatal(err)
	}
	for _, r := range answer.Rows {
		rows = append(rows, strings.Join(r.Strings, " "))
		serials = append(serials, r.Ints[1])
	}
	return rows, serials
}

func upload(p *PyPI, project, version, filename string) {
	p.Upload(Upload{Project: project, Version: version, Filename: filename, SHA256: Digest(filename), Provenance: []byte("{}")})
}

func TestPyPIPages(t *testing.T) {
	p := NewPyPI(time.Now)
	c := serveIndex(t, p)
	p.SetBase(c.url)
	for _, f := range []string{"a_b-1.0.tar.gz", "a_b-1.0-py3-none-any.whl"} {
		upload(p, "A_b", "1.0", f)
	}
	upload(p, "A_b", "2.0", "a_b-2.0.tar.gz")

	both, all := []string{"1.0", "2.0"}, []string{"a_b-1.0.tar.gz", "a_b-1.0-py3-none-any.whl", "a_b-2.0.tar.gz"}
	for _, step := range []struct {
		what            string
		do              func()
		status          string
		versions, files []string
		rows            []string
	}{
		{"at first", func() {}, "active", both, all, []string{"A_b create", "A_b add Owner maintainer", "A_b 1.0 new release",
			"A_b 1.0 add source file a_b-1.0.tar.gz", "A_b 1.0 add py3 file a_b-1.0-py3-none-any.whl", "A_b 2.0 new release", "A_b 2.0 add source file a_b-2.0.tar.gz"}},
		{"archived", func() { p.Archive("a-b") }, "archived", both, all, nil},
		{"as before", func() { p.Unarchive("a-b") }, "active", both, all, nil},
		{"quarantined", func() { p.Quarantine("a-b") }, "quarantined", nil, nil, []string{"A_b project quarantined"}},
		{"cleared", func() { p.Clear("a-b") }, "active", both, all, []string{"A_b project quarantine cleared"}},
		{"release quarantined", func() { p.QuarantineRelease("a-b", "1.0") }, "active", both[1:], all[2:], []string{"A_b 1.0 release quarantined"}},
		{"release cleared", func() { p.ClearRelease("a-b", "1.0") }, "active", both, all, []string{"A_b 1.0 release quarantine cleared"}},
		{"file removed", func() { p.RemoveFile("a-b", all[0]) }, "active", both, all[1:], []string{"A_b 1.0 remove file a_b-1.0.tar.gz"}},
		{"unknown action", func() { p.Note("A_b", "", "add Maintainer Renée <&>") }, "active", both, all[1:], []string{"A_b add Maintainer Ren&#233;e <&>"}},
		{"release removed", func() { p.RemoveRelease("a-b", "1.0") }, "active", both[1:], all[2:], []string{"A_b 1.0 remove release"}},
		{"registered again", func() {
			p.RemoveProject("a-b")
			p.Upload(Upload{Project: "a.b", Version: "9", Filename: "a_b-9.tar.gz", Owner: "mallory"})
		}, "active", []string{"9"}, []string{"a_b-9.tar.gz"}, []string{"A_b remove project", "a.b create", "a.b add Owner mallory", "a.b 9 new release", "a.b 9 add source file a_b-9.tar.gz"}},
	} {
		before := p.LastSerial()
		if step.what == "at first" {
			before = 0
		}
		step.do()
		got := c.page("a-b")
		if got.Status.Status != step.status || !slices.Equal(got.Versions, step.versions) || !slices.Equal(got.names(), step.files) {
			t.Errorf("%s: %+v", step.what, got)
		}
		rows, serials := c.rows(before)
		if !slices.Equal(rows, step.rows) || !slices.IsSorted(serials) {
			t.Errorf("%s: rows %q with serials %d, want %q", step.what, rows, serials, step.rows)
		}
		if got.Meta.Serial != p.LastSerial() {
			t.Errorf("%s: serial %d of the page, %d of the journal", step.what, got.Meta.Serial, p.LastSerial())
		}
	}
}

func TestPyPIYank(t *testing.T) {
	p := NewPyPI(time.Now)
	c := serveIndex(t, p)
	upload(p, "a", "1.0", "a-1.0.tar.gz")
	for _, step := range []struct {
		do   func()
		want any
	}{
		{func() { p.Yank("a", "1.0", "broken") }, "broken"},
		{func() { p.Yank("a", "1.0", "") }, true},
		{func() { p.Unyank("a", "1.0") }, false},
	} {
		step.do()
		if got := c.page("a").Files[0].Yanked; got != step.want {
			t.Errorf("yanked is %v, want %v", got, step.want)
		}
	}
}

func TestPyPIRefusals(t *testing.T) {
	p := NewPyPI(time.Now)
	c := serveIndex(t, p)
	upload(p, "a", "1.0", "a-1.0.tar.gz")
	const provenance = "/integrity/a/1/a-1.0.tar.gz/provenance"
	for _, x := range []struct {
		path, accept string
		status       int
		kind, body   string
	}{
		{"/simple/A/", simpleJSON, http.StatusMovedPermanently, "", ""},
		{"/simple/a", simpleJSON, http.StatusMovedPermanently, "", ""},
		{"/simple/b/", simpleJSON, http.StatusNotFound, "text/plain", "404 Not Found"},
		{"/simple/a/", "", http.StatusOK, "text/html", "<!DOCTYPE html>"},
		{"/simple/a/", "application/vnd.pypi.simple.v1+html;q=0.2, " + simpleJSON, http.StatusOK, simpleJSON, "{"},
		{"/simple/", simpleJSON, http.StatusOK, simpleJSON, `{"meta":{"_last-serial":1006,"api-version":"1.4"},"projects":[{"_last-serial":1006,"name":"a"}]}`},
		{provenance, "", http.StatusOK, integrityJSON, "{}"},
		{provenance, "application/json", http.StatusOK, integrityJSON, "{}"},
		{provenance, "text/html", http.StatusNotAcceptable, "application/json", `{"message":`},
		{"/integrity/a/2/a-1.0.tar.gz/provenance", "", http.StatusNotFound, "application/json", `{"message":`},
	} {
		resp, body := c.get(x.path, x.accept)
		if resp.StatusCode != x.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), x.kind) || !strings.HasPrefix(body, x.body) {
			t.Errorf("%s as %q: %d %s: %.100s", x.path, x.accept, resp.StatusCode, resp.Header.Get("Content-Type"), body)
		}
		if x.status == http.StatusMovedPermanently && resp.Header.Get("Location") != "/simple/a/" {
			t.Errorf("%s: redirected to %s", x.path, resp.Header.Get("Location"))
		}
	}
	resp, _ := c.get("/simple/a/", simpleJSON)
	if again, _ := c.get("/simple/a/", simpleJSON, "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("the same page again: %d", again.StatusCode)
	}
	p.AttestationsOff(true)
	if resp, body := c.get(provenance, ""); resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "Attestations temporarily disabled") {
		t.Errorf("switched off: %d %s", resp.StatusCode, body)
	}
}

func TestPyPIJournalBatches(t *testing.T) {
	p := NewPyPI(time.Now)
	c := serveIndex(t, p)
	for range journalBatch + 10 {
		p.Note("a", "", "hide")
	}
	all := regexp.MustCompile(`<int>(\d+)</int></value>\n</data>`).FindAllStringSubmatch(c.call("changelog_since_serial", 0), -1)
	var last int64
	if _, err := fmt.Sscan(all[len(all)-1][1], &last); err != nil {
		t.Fatal(err)
	}
	rest, _ := c.rows(last)
	if len(all) != journalBatch || len(rest) != 10 {
		t.Errorf("batches of %d and %d rows", len(all), len(rest))
	}
	if last < 1000+journalBatch+100 {
		t.Error("serials have no gaps")
	}
	p.LimitCalls(1, time.Hour)
	if got := c.call("changelog_last_serial", 0); strings.Contains(got, "fault") {
		t.Errorf("the first call of an hour: %s", got)
	}
	if got := c.call("changelog_last_serial", 0); !strings.Contains(got, "-32500") || !strings.Contains(got, "HTTPTooManyRequests") || !strings.Contains(got, "reset in 3600 seconds") {
		t.Errorf("the second call of an hour: %s", got)
	}
}

func TestPyPIBallast(t *testing.T) {
	p := NewPyPI(time.Now)
	c := serveIndex(t, p)
	upload(p, "A", "1.0", "a-1.0.tar.gz")
	p.Ballast(1000, 100)
	_, body := c.get("/simple/", simpleJSON)
	var got struct{ Projects []struct{ Name string } }
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Projects) != 1001 || len(got.Projects[1000].Name) != 100 {
		t.Errorf("%d projects, %v", len(got.Projects), err)
	}
}

func TestCache(t *testing.T) {
	clock := NewClock(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	p := NewPyPI(clock.Now)
	cache := NewCache(p)
	c := serveIndex(t, cache)
	ask := func(status int, x string, files int) {
		t.Helper()
		resp, body := c.get("/simple/a/", simpleJSON)
		if resp.StatusCode != status || resp.Header.Get("X-Cache") != x || strings.Count(body, `"filename"`) != files {
			t.Errorf("%d %s with %d files, want %d %s with %d", resp.StatusCode, resp.Header.Get("X-Cache"), strings.Count(body, `"filename"`), status, x, files)
		}
	}
	ask(404, "MISS", 0)
	cache.Deaf(true)
	upload(p, "a", "1.0", "a-1.0.tar.gz")
	ask(404, "HIT", 0)
	cache.Deaf(false)
	ask(200, "MISS", 1)
	ask(200, "HIT", 1)

	cache.StaleFor(5 * time.Minute)
	upload(p, "a", "1.1", "a-1.1.tar.gz")
	ask(200, "HIT", 1)
	ask(200, "MISS", 2)
	upload(p, "a", "1.2", "a-1.2.tar.gz")
	clock.Advance(time.Hour)
	ask(200, "MISS", 3)
}
