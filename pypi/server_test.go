package pypi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"sigtrail/index"
)

// shared opens a folder of real records, which lies beside the project.
func shared(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("..", "..", "shared", "data", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("real records are not here: %v", err)
	}
	return path
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A testIndex answers like PyPI: journal, simple JSON and provenance.
type testIndex struct {
	mu       sync.Mutex
	serial   int64
	rows     []index.JournalRow
	projects map[string]*testProject
	objects  map[string]string // provenance by path
	status   map[string]int    // forced answer by the beginning of the path or the method
	calls    map[string]int    // by path or method
	agents   map[string]bool
	batch    int
	noTags   bool
	before   func(call string) // called first, if set
	asOf     int64             // serial that the list of all projects is as new as; 0: the newest
}

type testProject struct {
	Born   int64
	Serial int64
	Shown  int64 // what a cache shows instead, with no files; 0: the truth
	Status string
	Files  []testFile
}

type testFile struct {
	Name, Provenance string
	Uploaded         string
}

func newTestIndex() *testIndex {
	return &testIndex{projects: map[string]*testProject{}, objects: map[string]string{}, status: map[string]int{}, calls: map[string]int{}, agents: map[string]bool{}, batch: fullBatch}
}

// add writes a row to the journal.
func (x *testIndex) add(name, version, action string) int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.serial += 3 // real serials have gaps
	row := index.JournalRow{Serial: x.serial, Name: name, Action: action}
	if version != "" {
		row.Version = &version
	}
	x.rows = append(x.rows, row)
	return x.serial
}

// upload adds a file, and the rows that go with it.
func (x *testIndex) upload(name, file string, attested bool) {
	f := testFile{Name: file}
	x.mu.Lock()
	if attested {
		f.Provenance = "/integrity/" + name + "/1/" + file + "/provenance"
		x.objects[f.Provenance] = emptyProvenance
	}
	p := x.projects[name]
	if p == nil {
		p = &testProject{Status: "active", Born: x.serial + 1}
		x.projects[name] = p
	}
	p.Files = append(p.Files, f)
	x.mu.Unlock()
	serial := x.add(name, "1.0", "add source file "+file)
	x.mu.Lock()
	p.Serial = serial
	x.mu.Unlock()
}

const emptyProvenance = `{"version":1,"attestation_bundles":[]}`

func (x *testIndex) set(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
}

func (x *testIndex) count(call string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calls[call]
}

func (x *testIndex) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := r.URL.Path
	x.mu.Lock()
	before := x.before
	x.mu.Unlock()
	if before != nil {
		before(call)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var body []byte
	if r.Method == http.MethodPost {
		body, _ = io.ReadAll(r.Body)
		_, rest, _ := strings.Cut(string(body), "<methodName>")
		call, _, _ = strings.Cut(rest, "<")
	}
	x.calls[call]++
	x.agents[r.Header.Get("User-Agent")] = true
	for prefix, status := range x.status {
		if strings.HasPrefix(call, prefix) {
			w.WriteHeader(status)
			return
		}
	}
	switch {
	case r.Method == http.MethodPost:
		x.journal(w, call, string(body))
	case call == "/simple/":
		x.list(w)
	case strings.HasPrefix(call, "/simple/"):
		x.simple(w, r, strings.Trim(strings.TrimPrefix(call, "/simple/"), "/"))
	default:
		object, ok := x.objects[call]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.pypi.integrity.v1+json")
		_, _ = io.WriteString(w, object)
	}
}

func (x *testIndex) journal(w http.ResponseWriter, method, body string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	if method == "changelog_last_serial" {
		fmt.Fprintf(w, "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><int>%d</int></value>\n</param>\n</params>\n</methodResponse>\n", x.serial)
		return
	}
	_, rest, _ := strings.Cut(body, "<int>")
	digits, _, _ := strings.Cut(rest, "<")
	since, _ := strconv.ParseInt(digits, 10, 64)
	var rows []index.JournalRow
	for _, r := range x.rows {
		if r.Serial > since && len(rows) < x.batch {
			rows = append(rows, r)
		}
	}
	_, _ = w.Write(rowsXML(rows))
}

// rowsXML writes rows as Python's xmlrpc module does.
func rowsXML(rows []index.JournalRow) []byte {
	var b bytes.Buffer
	b.WriteString("<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\n")
	text := func(s string) {
		b.WriteString("<value><string>")
		_ = xml.EscapeText(&b, []byte(s))
		b.WriteString("</string></value>\n")
	}
	for _, r := range rows {
		b.WriteString("<value><array><data>\n")
		text(r.Name)
		if r.Version == nil {
			b.WriteString("<value><nil/></value>\n")
		} else {
			text(*r.Version)
		}
		fmt.Fprintf(&b, "<value><int>%d</int></value>\n", max(0, r.At.Unix()))
		text(r.Action)
		fmt.Fprintf(&b, "<value><int>%d</int></value>\n</data></array></value>\n", r.Serial)
	}
	b.WriteString("</data></array></value>\n</param>\n</params>\n</methodResponse>\n")
	return b.Bytes()
}

// list names all projects, as of asOf if that is set.
func (x *testIndex) list(w http.ResponseWriter) {
	asOf := cmp.Or(x.asOf, x.serial)
	projects := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(x.projects)) {
		if p := x.projects[name]; p.Born <= asOf && p.Status != "quarantined" {
			projects = append(projects, map[string]any{"name": strings.ToUpper(name[:1]) + name[1:], "_last-serial": min(p.Serial, asOf)})
		}
	}
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"meta": map[string]any{"api-version": "1.4", "_last-serial": asOf}, "projects": projects})
}

func (x *testIndex) simple(w http.ResponseWriter, r *http.Request, name string) {
	p := x.projects[name]
	if p == nil {
		http.NotFound(w, r)
		return
	}
	page := map[string]any{"name": name, "versions": []string{"1.0"}, "project-status": map[string]string{"status": p.Status}}
	serial, files := p.Serial, []map[string]any{}
	if p.Shown != 0 {
		serial = p.Shown
	} else {
		for _, f := range p.Files {
			files = append(files, f.json("http://"+r.Host))
		}
	}
	page["files"], page["meta"] = files, map[string]any{"api-version": "1.4", "_last-serial": serial}
	body, _ := json.Marshal(page)
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	w.Header().Set("X-PyPI-Last-Serial", strconv.FormatInt(serial, 10))
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	if !x.noTags {
		w.Header().Set("ETag", tag)
	}
	if r.Header.Get("If-None-Match") == tag {
		x.calls["unchanged"]++
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(body)
}

func (f testFile) json(host string) map[string]any {
	sum := sha256.Sum256([]byte(f.Name))
	m := map[string]any{"filename": f.Name, "url": host + "/files/" + f.Name, "hashes": map[string]string{"sha256": hex.EncodeToString(sum[:])},
		"size": len(f.Name), "yanked": false, "provenance": nil}
	if f.Provenance != "" {
		m["provenance"] = host + f.Provenance
	}
	if f.Uploaded != "" {
		m["upload-time"] = f.Uploaded
	}
	return m
}

// inProcess answers requests without a socket, for tests under a fake clock.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	r.Host = r.URL.Host
	p.ServeHTTP(rec, r)
	if rec.Code == 599 {
		return nil, errors.New("connection refused")
	}
	return rec.Result(), nil
}

// metric is the value of the series that has the label value, or of the only one.
func metric(t *testing.T, reg prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			match := f.GetName() == name && label == ""
			for _, l := range m.GetLabel() {
				match = match || f.GetName() == name && l.GetValue() == label
			}
			if match {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// serve starts a real server and a client that loses no time.
func serve(t testing.TB, h http.Handler, change func(*Options)) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	o := Options{URL: s.URL, Rate: rate.Inf, Tries: 3, MaxWait: 1e6}
	if change != nil {
		change(&o)
	}
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
