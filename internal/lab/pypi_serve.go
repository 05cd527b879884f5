package lab

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	simpleJSON    = "application/vnd.pypi.simple.v1+json"
	integrityJSON = "application/vnd.pypi.integrity.v1+json"
)

// ServeHTTP answers as PyPI does behind its cache.
func (p *PyPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/pypi":
		p.serveRPC(w, r)
	case r.URL.Path == "/simple/":
		p.serveNames(w, r)
	case len(parts) == 2 && parts[0] == "simple":
		p.serveSimple(w, r, parts[1])
	case len(parts) == 5 && parts[0] == "integrity" && parts[4] == "provenance":
		p.serveProvenance(w, r, parts[1], parts[2], parts[3])
	default:
		http.NotFound(w, r)
	}
}

// accepts reports whether a request names one of the kinds, or any.
func accepts(r *http.Request, kinds ...string) bool {
	for _, accept := range r.Header.Values("Accept") {
		for kind := range strings.SplitSeq(accept, ",") {
			kind, _, _ = strings.Cut(kind, ";")
			if slices.Contains(kinds, strings.TrimSpace(kind)) {
				return true
			}
		}
	}
	return false
}

func (p *PyPI) serveSimple(w http.ResponseWriter, r *http.Request, name string) {
	if key := normalize(name); key != name || !strings.HasSuffix(r.URL.Path, "/") {
		http.Redirect(w, r, "/simple/"+key+"/", http.StatusMovedPermanently)
		return
	}
	p.mu.Lock()
	pr := p.projects[name]
	if pr == nil {
		p.mu.Unlock()
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte("404 Not Found"))
		return
	}
	etag := fmt.Sprintf(`"%d-%d"`, pr.serial, pr.changes)
	h := w.Header()
	h.Set("ETag", etag)
	h.Set("X-PyPI-Last-Serial", strconv.FormatInt(pr.serial, 10))
	h.Set("Cache-Control", "max-age=600, public")
	h.Set("Vary", "Accept")
	var body []byte
	if accepts(r, simpleJSON) {
		h.Set("Content-Type", simpleJSON)
		body = p.page(pr)
	} else {
		h.Set("Content-Type", "text/html; charset=UTF-8")
		body = p.pageHTML(pr)
	}
	p.mu.Unlock() // before the client has any say in how long this takes
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write(body)
}

// page is a project's page. What does not change of it is written once.
func (p *PyPI) page(pr *project) []byte {
	if pr.page != nil {
		return pr.page
	}
	var b bytes.Buffer
	versions := []string{}
	b.WriteString(`{"files":[`)
	sep := ""
	for f := range pr.shown() {
		b.WriteString(sep)
		b.Write(p.text(pr, f))
		sep = ","
	}
	for _, v := range pr.versions {
		if pr.status != quarantined && !pr.releases[v].quarantined {
			versions = append(versions, v)
		}
	}
	fmt.Fprintf(&b, `],"meta":{"_last-serial":%d,"api-version":"1.4"},"name":%s,"project-status":{"status":%q},"versions":%s}`,
		pr.serial, mustJSON(pr.key, ""), pr.status, mustJSON(versions, ""))
	pr.page = b.Bytes()
	return pr.page
}

// shown are the files that nothing hides.
func (pr *project) shown() func(yield func(*file) bool) {
	return func(yield func(*file) bool) {
		for _, f := range pr.files {
			if pr.status != quarantined && !f.release.quarantined && !yield(f) {
				return
			}
		}
	}
}

// text is a file's JSON.
func (p *PyPI) text(pr *project, f *file) []byte {
	if f.text != nil {
		return f.text
	}
	out := map[string]any{"filename": f.Filename, "url": fmt.Sprintf("%s/files/%x/%s", p.base, f.SHA256, f.Filename),
		"hashes": map[string]string{"sha256": hex.EncodeToString(f.SHA256[:])}, "size": f.Size, "requires-python": nil,
		"core-metadata": false, "data-dist-info-metadata": false,
		"upload-time": f.At.UTC().Format("2006-01-02T15:04:05.000000Z"), "yanked": false, "provenance": nil}
	switch reason := f.release.yanked; {
	case reason != nil && *reason != "":
		out["yanked"] = *reason
	case reason != nil:
		out["yanked"] = true
	}
	if f.Provenance != nil {
		out["provenance"] = fmt.Sprintf("%s/integrity/%s/%s/%s/provenance", p.base, pr.key, f.Version, f.Filename)
	}
	f.text = mustJSON(out, "")
	return f.text
}

// pageHTML is what a client gets that does not ask for JSON.
func (p *PyPI) pageHTML(pr *project) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html>\n<head>\n<meta name=\"pypi:repository-version\" content=\"1.4\">\n<title>Links for %s</title>\n</head>\n<body>\n", pr.key)
	for f := range pr.shown() {
		fmt.Fprintf(&b, "<a href=\"%s/files/%x/%s#sha256=%x\">%s</a><br/>\n", p.base, f.SHA256, html.EscapeString(f.Filename), f.SHA256, html.EscapeString(f.Filename))
	}
	b.WriteString("</body>\n</html>\n")
	return b.Bytes()
}

func (p *PyPI) serveProvenance(w http.ResponseWriter, r *http.Request, name, version, filename string) {
	if r.Header.Get("Accept") != "" && !accepts(r, integrityJSON, "application/json", "*/*") {
		reply(w, http.StatusNotAcceptable, map[string]string{"message": "Request not acceptable"})
		return
	}
	p.mu.Lock()
	closed := p.closed
	var body []byte
	serial, etag := int64(0), ""
	if pr := p.projects[normalize(name)]; pr != nil {
		serial = pr.serial
		if f := pr.byName[filename]; f != nil && sameVersion(f.Version, version) {
			body, etag = f.Provenance, fmt.Sprintf(`"%x-%d"`, f.SHA256[:8], len(f.Provenance))
		}
	}
	p.mu.Unlock()
	switch {
	case closed:
		reply(w, http.StatusForbidden, map[string]string{"message": "Attestations temporarily disabled"})
	case body == nil:
		reply(w, http.StatusNotFound, map[string]string{"message": "No provenance available for " + filename})
	default:
		h := w.Header()
		h.Set("Content-Type", integrityJSON)
		h.Set("Cache-Control", "max-age=600, public")
		h.Set("X-PyPI-Last-Serial", strconv.FormatInt(serial, 10))
		h.Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(body)
	}
}

// sameVersion knows of PEP 440 that zeros at the end mean nothing, which is what
// tests are about.
func sameVersion(a, b string) bool {
	trim := func(v string) string {
		for strings.HasSuffix(v, ".0") {
			v = strings.TrimSuffix(v, ".0")
		}
		return v
	}
	return trim(a) == trim(b)
}

// A ballast is names that are listed and nothing else.
type ballast struct{ names, length int }

// Ballast has GET /simple/ list so many more names of so many letters, to make it
// as long as one likes. They cost no memory and have no pages.
func (p *PyPI) Ballast(names, length int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ballast = ballast{names, length}
}

// serveNames lists every project but those in quarantine. The answer is written as
// it goes: PyPI's is tens of megabytes.
func (p *PyPI) serveNames(w http.ResponseWriter, r *http.Request) {
	type row struct {
		name   string
		serial int64
	}
	p.mu.Lock()
	last, more := p.lastSerial(), p.ballast
	rows := make([]row, 0, len(p.projects))
	for _, key := range p.sorted() {
		if pr := p.projects[key]; pr.status != quarantined {
			rows = append(rows, row{pr.name, pr.serial})
		}
	}
	p.mu.Unlock()
	h := w.Header()
	h.Set("X-PyPI-Last-Serial", strconv.FormatInt(last, 10))
	h.Set("Cache-Control", "max-age=600, public")
	h.Set("Vary", "Accept")
	out := bufio.NewWriterSize(w, 64<<10)
	defer out.Flush()
	if !accepts(r, simpleJSON) {
		h.Set("Content-Type", "text/html; charset=UTF-8")
		for _, x := range rows {
			fmt.Fprintf(out, "<a href=\"/simple/%s/\">%s</a><br/>\n", normalize(x.name), html.EscapeString(x.name))
		}
		return
	}
	h.Set("Content-Type", simpleJSON)
	fmt.Fprintf(out, `{"meta":{"_last-serial":%d,"api-version":"1.4"},"projects":[`, last)
	sep := ""
	for _, x := range rows {
		name, _ := json.Marshal(x.name)
		if _, err := fmt.Fprintf(out, `%s{"_last-serial":%d,"name":%s}`, sep, x.serial, name); err != nil {
			return
		}
		sep = ","
	}
	padding := strings.Repeat("x", max(0, more.length-16))
	for n := range more.names {
		if _, err := fmt.Fprintf(out, `%s{"_last-serial":%d,"name":"zz-%s%013d"}`, sep, 1+n%999, padding, n); err != nil {
			return
		}
		sep = ","
	}
	out.WriteString("]}")
}

// sorted are the keys of the projects in order.
func (p *PyPI) sorted() []string {
	if p.names == nil {
		p.names = slices.Sorted(maps.Keys(p.projects))
	}
	return p.names
}
