package pypi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sigtrail/index"
)

// Bounds of a listing. The largest projects have some ten thousand files.
const (
	maxFiles    = 200_000
	maxVersions = 200_000
	maxURL      = 4096
	maxReason   = 1024
	maxStatus   = 64
)

// Why a file of a listing cannot be watched.
const (
	skipName      = "name"      // no name that a file could have
	skipDigest    = "digest"    // no SHA-256: nothing to look for in a log
	skipMalformed = "malformed" // members of other types
)

var skipReasons = []string{skipName, skipDigest, skipMalformed}

// Listing reads a project's file list from the simple index. The name is
// normalised first. ErrNotFound when the index has no such project.
func (c *Client) Listing(ctx context.Context, project string) (index.Listing, error) {
	l, _, err := c.ListingIfChanged(ctx, project, "")
	return l, err
}

// ListingIfChanged is Listing with the entity tag of an earlier answer: while that
// one still holds, it is ErrUnchanged. It returns the tag of the new answer, ""
// if the server gives none.
func (c *Client) ListingIfChanged(ctx context.Context, project, etag string) (index.Listing, string, error) {
	project = Normalize(project)
	if !ValidName(project) {
		return index.Listing{}, "", fmt.Errorf("listing of %.80q: not the name of a project", project)
	}
	header := http.Header{"Accept": {"application/vnd.pypi.simple.v1+json"}}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	at := c.base.JoinPath("simple", project, "/")
	var p page
	var tag string
	err := c.do(ctx, ask{call: "simple", method: http.MethodGet, url: at, header: header, limit: maxSimple,
		read: func(body io.Reader, h http.Header) (err error) {
			p, err = parseSimple(body, at, project)
			p.listing.Serial = lowerSerial(p.listing.Serial, h.Get("X-PyPI-Last-Serial"))
			if tag = h.Get("ETag"); len(tag) > 256 {
				tag = ""
			}
			return err
		}})
	if err != nil {
		return index.Listing{}, "", fmt.Errorf("listing of %s: %w", project, err)
	}
	p.listing.Fetched = time.Now().UTC()
	for reason, n := range p.skipped {
		c.metrics.skip(reason, n)
		c.log.WarnContext(ctx, "files in a listing cannot be watched", "project", project, "reason", reason, "files", n)
	}
	return p.listing, tag, nil
}

// lowerSerial joins the serial of the body with the one of the header. They are the
// same unless a cache has mixed two answers; the lower one promises less.
func lowerSerial(body int64, header string) int64 {
	n, err := strconv.ParseInt(header, 10, 64)
	if err != nil || n <= 0 {
		return body
	}
	if body == 0 {
		return n
	}
	return min(body, n)
}

// A page is a parsed listing, and how many of its files were left out.
type page struct {
	listing index.Listing
	skipped map[string]int
}

// parseSimple reads a project's page of the simple index in JSON (PEP 691, 700,
// 792; provenance by PEP 740). at is the page's own address, which relative ones
// start from. It is strict about what decides: whose page it is, and that there is
// a list of files at all, because a page without one would make every file look
// deleted. A single odd file is left out and counted, so that it cannot hide the
// others.
func parseSimple(body io.Reader, at *url.URL, project string) (page, error) {
	s := &simpleReader{walker: walker{json.NewDecoder(body)}, at: at, p: page{skipped: map[string]int{}}}
	seen := map[string]bool{}
	err := s.object(func(key string) error {
		if seen[key] {
			return fmt.Errorf("two members %.40q", key)
		}
		seen[key] = true
		return s.member(key)
	})
	if err != nil {
		return page{}, err
	}
	if _, err := s.d.Token(); !errors.Is(err, io.EOF) {
		return page{}, errors.New("something follows the page")
	}
	if !seen["files"] || !seen["name"] {
		return page{}, errors.New("not a project's page: no name or no files")
	}
	if Normalize(s.name) != project {
		return page{}, fmt.Errorf("page of another project, %.80q", s.name)
	}
	s.p.listing.Project = project
	spelling := newSpelling(s.versions)
	for i := range s.p.listing.Files {
		f := &s.p.listing.Files[i]
		f.Project = project
		f.Version = spelling.of(f.Name, project)
	}
	return s.p, nil
}

type simpleReader struct {
	walker
	at       *url.URL
	p        page
	name     string
	versions []string
}

func (s *simpleReader) member(key string) error {
	switch key {
	case "meta":
		var meta simpleMeta
		if err := s.d.Decode(&meta); err != nil {
			return fmt.Errorf("meta: %w", err)
		}
		serial, err := meta.read()
		s.p.listing.Serial = serial
		return err
	case "name":
		return s.d.Decode(&s.name)
	case "project-status":
		var status struct {
			Status string `json:"status"`
		}
		if err := s.d.Decode(&status); err != nil {
			return fmt.Errorf("project-status: %w", err)
		}
		s.p.listing.Status = printable(status.Status, maxStatus)
		return nil
	case "versions":
		return s.array(maxVersions, func() error {
			var v string
			err := s.d.Decode(&v)
			s.versions = append(s.versions, v)
			return err
		})
	case "files":
		return s.array(maxFiles, s.file)
	}
	var other json.RawMessage
	return s.d.Decode(&other)
}

type simpleMeta struct {
	API    string `json:"api-version"`
	Serial *int64 `json:"_last-serial"`
}

// read returns the serial, 0 for none.
func (m simpleMeta) read() (serial int64, err error) {
	if m.API != "" && !strings.HasPrefix(m.API, "1.") {
		return 0, fmt.Errorf("version %.20q of the simple API is unknown", m.API)
	}
	if m.Serial != nil {
		serial = max(0, *m.Serial)
	}
	return serial, nil
}

type simpleFile struct {
	Filename string `json:"filename"`
	URL      string `json:"url"`
	Hashes   struct {
		SHA256 string `json:"sha256"`
	} `json:"hashes"`
	Size       json.RawMessage `json:"size"`
	Uploaded   *string         `json:"upload-time"`
	Yanked     json.RawMessage `json:"yanked"`
	Provenance *string         `json:"provenance"`
}

func (s *simpleReader) file() error {
	var raw json.RawMessage
	if err := s.d.Decode(&raw); err != nil {
		return err
	}
	var in simpleFile
	if json.Unmarshal(raw, &in) != nil {
		s.p.skipped[skipMalformed]++
		return nil
	}
	if !validFilename(in.Filename) {
		s.p.skipped[skipName]++
		return nil
	}
	sum, ok := parseDigest(in.Hashes.SHA256)
	if !ok {
		s.p.skipped[skipDigest]++
		return nil
	}
	f := index.File{Name: in.Filename, SHA256: sum, Size: parseSize(in.Size), URL: s.absolute(in.URL), Yanked: parseYanked(in.Yanked)}
	if in.Uploaded != nil {
		f.Uploaded = parseUploaded(*in.Uploaded)
	}
	if in.Provenance != nil {
		f.ProvenanceURL = s.absolute(*in.Provenance)
	}
	s.p.listing.Files = append(s.p.listing.Files, f)
	return nil
}

// absolute resolves an address against the page's. One that cannot be read is kept
// as it is, cut: that something is named is a fact of its own.
func (s *simpleReader) absolute(address string) string {
	u, err := url.Parse(address)
	if err != nil || address == "" || len(address) > maxURL {
		return cut(address, maxURL)
	}
	return cut(s.at.ResolveReference(u).String(), maxURL)
}

// parseDigest reads 64 lower-case hexadecimal digits and nothing else.
func parseDigest(text string) (sum [32]byte, ok bool) {
	if len(text) != 64 || strings.ToLower(text) != text {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(text))
	return sum, err == nil
}

func parseSize(raw json.RawMessage) int64 {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// parseUploaded reads "2021-06-05T00:15:37.534150Z"; zero for what is no such time,
// or none that PyPI can have seen.
func parseUploaded(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 2000 || t.Year() >= 3000 {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// parseYanked reads false, true or a reason. Like installers, it takes an empty
// reason for false.
func parseYanked(raw json.RawMessage) *string {
	var reason string
	switch text := string(raw); {
	case text == "true":
		return &reason
	case json.Unmarshal(raw, &reason) != nil || reason == "":
		return nil
	}
	reason = printable(reason, maxReason)
	return &reason
}

// A spelling gives each file the version as the project's own list spells it, so
// that a release is one release however its files spell it.
type spelling struct {
	exact     map[string]bool
	canonical map[string]string // to the list's spelling
	known     map[string]string // texts out of file names: one release has many files
}

func newSpelling(versions []string) *spelling {
	s := &spelling{exact: make(map[string]bool, len(versions)), canonical: make(map[string]string, len(versions)), known: map[string]string{}}
	for _, v := range versions {
		if v == "" || len(v) > maxVersion || !isPrintable(v) {
			continue
		}
		s.exact[v] = true
		if c, ok := canonicalVersion(v); ok && s.canonical[c] == "" {
			s.canonical[c] = v
		}
	}
	return s
}

// of is the version of a file; what stands in its place where no rule finds one;
// "" where nothing does.
func (s *spelling) of(filename, project string) string {
	text, err := ParseFilename(filename, project)
	if err != nil {
		return s.search(filename, project)
	}
	if v, ok := s.known[text]; ok {
		return v
	}
	v := text
	if c, _ := canonicalVersion(text); !s.exact[text] && s.canonical[c] != "" {
		v = s.canonical[c]
	}
	s.known[text] = v
	return v
}

// search finds the longest version of the list that the name goes on with: versions
// of old were any text.
func (s *spelling) search(filename, project string) string {
	stem, ok := cutEnding(filename)
	if !ok {
		stem = strings.TrimSuffix(filename, ".whl")
	}
	rest, ok := afterName(stem, project)
	if !ok {
		return ""
	}
	for end := len(rest); end > 0; end = strings.LastIndexAny(rest[:end], "-.") {
		if s.exact[rest[:end]] {
			return rest[:end]
		}
	}
	return rest
}
