package lab

import (
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PyPI is an index with a journal (XML-RPC), simple JSON (PEP 691) and the
// integrity API (PEP 740).
type PyPI struct {
	clock func() time.Time

	mu       sync.Mutex
	base     string
	journal  []journalRow
	projects map[string]*project
}

type journalRow struct {
	name, version, action string
	at                    time.Time
	serial                int64
}

type project struct {
	name   string
	serial int64
	status string
	files  []*Upload
}

// An Upload is a file as it is given to PyPI.
type Upload struct {
	Project    string
	Version    string
	Filename   string
	SHA256     [32]byte
	Size       int64
	At         time.Time // zero: now, by the lab's clock
	Provenance []byte    // nil: not attested
	yanked     *string
}

// NewPyPI makes an empty index.
func NewPyPI(clock func() time.Time) *PyPI {
	return &PyPI{clock: clock, projects: make(map[string]*project)}
}

// SetBase tells the index its own address, which its answers contain.
func (p *PyPI) SetBase(url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.base = url
}

func normalize(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-_.", r) }), "-")
}

func (p *PyPI) note(name, version, action string, at time.Time) {
	row := journalRow{name: name, version: version, action: action, at: at, serial: int64(len(p.journal)) + 1000}
	p.journal = append(p.journal, row)
	if pr := p.projects[normalize(name)]; pr != nil {
		pr.serial = row.serial
	}
}

// Upload publishes a file.
func (p *PyPI) Upload(u Upload) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.At.IsZero() {
		u.At = p.clock()
	}
	pr := p.projects[normalize(u.Project)]
	if pr == nil {
		pr = &project{name: u.Project, status: "active"}
		p.projects[normalize(u.Project)] = pr
		p.note(u.Project, "", "create", u.At)
		p.note(u.Project, "", "add Owner maintainer", u.At)
	}
	first := true
	for _, f := range pr.files {
		first = first && f.Version != u.Version
	}
	if first {
		p.note(u.Project, u.Version, "new release", u.At)
	}
	tag := "source"
	if strings.HasSuffix(u.Filename, ".whl") {
		tag = "py3"
	}
	pr.files = append(pr.files, &u)
	p.note(u.Project, u.Version, "add "+tag+" file "+u.Filename, u.At)
}

// Yank marks a release.
func (p *PyPI) Yank(name, version, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.projects[normalize(name)].files {
		if f.Version == version {
			f.yanked = &reason
		}
	}
	p.note(name, version, "yank release", p.clock())
}

// RemoveRelease deletes a release with its files and their provenance.
func (p *PyPI) RemoveRelease(name, version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pr := p.projects[normalize(name)]
	kept := pr.files[:0:0]
	for _, f := range pr.files {
		if f.Version != version {
			kept = append(kept, f)
		}
	}
	pr.files = kept
	p.note(name, version, "remove release", p.clock())
}

// Quarantine hides a project's files.
func (p *PyPI) Quarantine(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.projects[normalize(name)].status = "quarantined"
	p.note(name, "", "project quarantined", p.clock())
}

// ServeHTTP answers as PyPI does.
func (p *PyPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/pypi":
		p.serveRPC(w, r)
	case len(parts) == 2 && parts[0] == "simple":
		p.serveSimple(w, r, parts[1])
	case len(parts) == 5 && parts[0] == "integrity" && parts[4] == "provenance":
		p.serveProvenance(w, parts[1], parts[3])
	default:
		http.NotFound(w, r)
	}
}

func (p *PyPI) serveSimple(w http.ResponseWriter, r *http.Request, name string) {
	pr := p.projects[name]
	if pr == nil {
		http.NotFound(w, r)
		return
	}
	etag := fmt.Sprintf(`"%d-%s"`, pr.serial, pr.status)
	w.Header().Set("ETag", etag)
	w.Header().Set("X-PyPI-Last-Serial", fmt.Sprint(pr.serial))
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	files, versions := []any{}, []string{}
	for _, f := range pr.files {
		if pr.status == "quarantined" {
			break
		}
		file := map[string]any{"filename": f.Filename, "url": fmt.Sprintf("%s/files/%x/%s", p.base, f.SHA256, f.Filename),
			"hashes": map[string]string{"sha256": hex.EncodeToString(f.SHA256[:])}, "size": f.Size, "requires-python": nil,
			"upload-time": f.At.UTC().Format("2006-01-02T15:04:05.000000Z"), "yanked": false, "provenance": nil}
		if f.yanked != nil {
			file["yanked"] = *f.yanked
		}
		if f.Provenance != nil {
			file["provenance"] = fmt.Sprintf("%s/integrity/%s/%s/%s/provenance", p.base, name, f.Version, f.Filename)
		}
		files = append(files, file)
		if !slices.Contains(versions, f.Version) {
			versions = append(versions, f.Version)
		}
	}
	json.NewEncoder(w).Encode(map[string]any{"meta": map[string]any{"api-version": "1.4", "_last-serial": pr.serial},
		"name": name, "project-status": map[string]string{"status": pr.status}, "versions": versions, "files": files})
}

func (p *PyPI) serveProvenance(w http.ResponseWriter, name, filename string) {
	if pr := p.projects[normalize(name)]; pr != nil {
		for _, f := range pr.files {
			if f.Filename == filename && f.Provenance != nil {
				w.Header().Set("Content-Type", "application/vnd.pypi.integrity.v1+json")
				w.Write(f.Provenance)
				return
			}
		}
	}
	reply(w, http.StatusNotFound, map[string]string{"message": "No provenance available"})
}

func (p *PyPI) serveRPC(w http.ResponseWriter, r *http.Request) {
	var call struct {
		Method string `xml:"methodName"`
		Since  string `xml:"params>param>value>int"`
	}
	if err := xml.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	last := int64(999)
	if n := len(p.journal); n > 0 {
		last = p.journal[n-1].serial
	}
	switch call.Method {
	case "changelog_last_serial":
		fmt.Fprintf(w, "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><int>%d</int></value>\n</param>\n</params>\n</methodResponse>\n", last)
	case "changelog_since_serial":
		since, _ := strconv.ParseInt(call.Since, 10, 64)
		p.serveChanges(w, since)
	default:
		fmt.Fprint(w, "<?xml version='1.0'?><methodResponse><fault><value><struct><member><name>faultCode</name><value><int>-32500</int></value></member><member><name>faultString</name><value><string>RuntimeError: not here</string></value></member></struct></value></fault></methodResponse>")
	}
}

func (p *PyPI) serveChanges(w io.Writer, since int64) {
	fmt.Fprint(w, "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\n")
	rows := 0
	for _, j := range p.journal {
		if j.serial <= since || rows == 50_000 {
			continue
		}
		rows++
		version := "<nil/>"
		if j.version != "" {
			version = "<string>" + escapeXML(j.version) + "</string>"
		}
		fmt.Fprintf(w, "<value><array><data>\n<value><string>%s</string></value>\n<value>%s</value>\n<value><int>%d</int></value>\n<value><string>%s</string></value>\n<value><int>%d</int></value>\n</data></array></value>\n",
			escapeXML(j.name), version, j.at.Unix(), escapeXML(j.action), j.serial)
	}
	fmt.Fprint(w, "</data></array></value>\n</param>\n</params>\n</methodResponse>\n")
}

func escapeXML(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}
