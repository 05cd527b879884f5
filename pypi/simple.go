package pypi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sigtrail/index"
)

// tags remembers the last whole answer for each project, to ask conditionally.
type tags struct {
	mu   *sync.Mutex
	etag map[string]string
}

func newTags() tags { return tags{new(sync.Mutex), make(map[string]string)} }

func (t tags) get(project string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.etag[project]
}

func (t tags) set(project, etag string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if etag == "" || len(etag) > 256 {
		delete(t.etag, project)
		return
	}
	t.etag[project] = etag
}

// ErrUnchanged is the answer to a conditional request: nothing is new.
var ErrUnchanged = fmt.Errorf("unchanged on the index")

// Listing reads a project's simple JSON. ErrNotFound when there is no such
// project, ErrUnchanged when it is as at the last call of Confirm.
func (c *Client) Listing(ctx context.Context, project string) (l index.Listing, confirm func(), err error) {
	h := http.Header{"Accept": {"application/vnd.pypi.simple.v1+json"}}
	if tag := c.tags.get(project); tag != "" {
		h.Set("If-None-Match", tag)
	}
	a, err := c.call(ctx, "simple", http.MethodGet, c.address("/simple/"+project)+"/", nil, h, maxSimple)
	if err != nil {
		return index.Listing{}, nil, err
	}
	if a.status == http.StatusNotModified {
		return index.Listing{}, nil, ErrUnchanged
	}
	l, err = ParseListing(project, a.body)
	if err != nil {
		return index.Listing{}, nil, fmt.Errorf("simple index of %s: %w", project, err)
	}
	if n, err := strconv.ParseInt(a.header.Get("X-Pypi-Last-Serial"), 10, 64); err == nil && n >= 0 {
		l.Serial = n
	}
	l.Fetched = time.Now().UTC()
	// Remembered only once the caller has stored it: what was lost on the way
	// must not be taken for known.
	return l, func() { c.tags.set(project, a.header.Get("Etag")) }, nil
}

type simpleJSON struct {
	Meta struct {
		Serial int64 `json:"_last-serial"`
	} `json:"meta"`
	Status struct {
		Status string `json:"status"`
	} `json:"project-status"`
	Files []simpleFile `json:"files"`
}

type simpleFile struct {
	Name       string            `json:"filename"`
	URL        string            `json:"url"`
	Hashes     map[string]string `json:"hashes"`
	Size       int64             `json:"size"`
	Uploaded   string            `json:"upload-time"`
	Yanked     any               `json:"yanked"`
	Provenance *string           `json:"provenance"`
}

// maxFiles bounds a project; the largest on PyPI have some 20,000.
const maxFiles = 200_000

// ParseListing reads PEP 691 JSON (with PEP 700, 740 and 792). Files that lack a
// SHA-256 or whose name gives no version are left out: nothing can be bound to
// them.
func ParseListing(project string, b []byte) (index.Listing, error) {
	var s simpleJSON
	if err := json.Unmarshal(b, &s); err != nil {
		return index.Listing{}, fmt.Errorf("not simple JSON: %w", err)
	}
	if len(s.Files) > maxFiles {
		return index.Listing{}, fmt.Errorf("%d files, at most %d", len(s.Files), maxFiles)
	}
	if s.Files == nil {
		return index.Listing{}, fmt.Errorf("not simple JSON: no files member")
	}
	l := index.Listing{Project: project, Serial: max(s.Meta.Serial, 0), Status: s.Status.Status}
	for _, f := range s.Files {
		if file, ok := f.file(project); ok {
			l.Files = append(l.Files, file)
		}
	}
	return l, nil
}

func (f simpleFile) file(project string) (index.File, bool) {
	sum, err := hex.DecodeString(f.Hashes["sha256"])
	if err != nil || len(sum) != 32 || f.Size < 0 || len(f.URL) > 4096 {
		return index.File{}, false
	}
	version, err := ParseFilename(f.Name, project)
	if err != nil {
		return index.File{}, false
	}
	file := index.File{Project: project, Version: version, Name: f.Name, SHA256: [32]byte(sum), Size: f.Size, URL: f.URL}
	if t, err := time.Parse(time.RFC3339Nano, f.Uploaded); err == nil {
		file.Uploaded = t.UTC()
	}
	if f.Provenance != nil && len(*f.Provenance) <= 4096 {
		file.ProvenanceURL = strings.TrimSpace(*f.Provenance)
	}
	switch y := f.Yanked.(type) {
	case string:
		file.Yanked = &y
	case bool:
		if y {
			file.Yanked = new(string)
		}
	}
	return file, true
}
