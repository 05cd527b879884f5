package api

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sigtrail/pypi"
)

// How much one request, and all of them together, may take.
const (
	Timeout    = 5 * time.Second // of one answer
	MaxAtOnce  = 16              // requests that are being answered
	maxText    = 512             // bytes of a parameter
	retryAfter = "1"             // seconds
)

// Root is the path under which everything is served.
const Root = "/api/v1/"

//go:embed openapi.json
var document []byte

// A route is one kind of question.
type route struct {
	path   string // below Root, as http.ServeMux takes it
	params []string
	answer func(context.Context, Reader, question) (any, error)
}

// raw is an answer that is served as it is.
type raw struct {
	kind string
	body []byte
}

var routes = []route{
	{"projects", []string{"index", "limit", "after"}, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.Projects(ctx, q.text("index"), q.page)
	}},
	{"projects/{name}", []string{"index", "limit", "after"}, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.Project(ctx, q.text("index"), q.name, q.page)
	}},
	{"projects/{name}/releases", []string{"index", "limit", "after"}, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.Releases(ctx, q.text("index"), q.name, q.page)
	}},
	{"projects/{name}/files", []string{"index", "version", "limit", "after"}, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.Files(ctx, q.text("index"), q.name, q.text("version"), q.page)
	}},
	{"files/{sha256}", nil, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.File(ctx, q.sha256)
	}},
	{"files/{sha256}/provenance", []string{"index", "filename"}, func(ctx context.Context, r Reader, q question) (any, error) {
		body, err := r.Provenance(ctx, q.sha256, q.text("index"), q.text("filename"))
		return raw{"application/vnd.pypi.integrity.v1+json", body}, err
	}},
	{"entries", []string{"index", "project", "publisher", "hash", "log", "number", "limit", "after"}, func(ctx context.Context, r Reader, q question) (any, error) {
		of := EntriesOf{Index: q.text("index"), Project: pypi.Normalize(q.text("project")), Publisher: q.text("publisher"), Hash: q.text("hash"), Log: q.text("log")}
		if q.values.Has("number") {
			n, err := strconv.ParseUint(q.text("number"), 10, 63)
			if err != nil {
				return nil, fmt.Errorf("%w: number is no index of a log", ErrAsked)
			}
			of.Number = &n
		}
		return r.Entries(ctx, of, q.page)
	}},
	{"publishers", []string{"selector", "limit", "after"}, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.Publishers(ctx, q.text("selector"), q.page)
	}},
	{"publishers/{id}", nil, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.Publisher(ctx, q.id)
	}},
	{"alerts", []string{"index", "project", "limit", "after"}, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.Alerts(ctx, q.text("index"), pypi.Normalize(q.text("project")), q.page)
	}},
	{"coverage", nil, func(ctx context.Context, r Reader, q question) (any, error) {
		return r.Coverage(ctx)
	}},
	{"openapi.json", nil, func(context.Context, Reader, question) (any, error) {
		return raw{"application/json", document}, nil
	}},
}

// A Handler serves the answers under Root.
type Handler struct {
	reader  Reader
	log     *slog.Logger
	mux     *http.ServeMux
	turns   chan struct{}
	timeout time.Duration
}

// NewHandler returns a handler that answers from a store, which should be open for
// reading only.
func NewHandler(r Reader, log *slog.Logger) *Handler {
	h := &Handler{reader: r, log: log, mux: http.NewServeMux(), turns: make(chan struct{}, MaxAtOnce), timeout: Timeout}
	for _, t := range routes {
		h.mux.HandleFunc(Root+t.path, func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, t) })
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, http.StatusNotFound, "there is nothing at this address; "+Root+"openapi.json lists what there is")
	})
	return h
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// What is answered now may be wrong in a second.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem(w, http.StatusMethodNotAllowed, "this API only reads")
		return
	}
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	default:
		w.Header().Set("Retry-After", retryAfter)
		problem(w, http.StatusServiceUnavailable, "too many requests are being answered; ask again in a moment")
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, t route) {
	q, err := read(r, t.params)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.timeout)
	defer cancel()
	a, err := t.answer(ctx, h.reader, q)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	kind, body := "application/json", []byte(nil)
	if served, ok := a.(raw); ok {
		kind, body = served.kind, served.body
	} else if body, err = Marshal(a); err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // who went away needs no answer
}

// Marshal writes an answer as the commands and the server do.
func Marshal(a any) ([]byte, error) {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	err := out.Encode(a)
	return b.Bytes(), err
}

// fail says why there is no answer. What went wrong inside is told to the log alone.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, ErrAsked):
		problem(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, ErrNotFound):
		problem(w, http.StatusNotFound, err.Error())
	case r.Context().Err() != nil: // nobody waits
	default:
		h.log.WarnContext(r.Context(), "cannot answer a request", "path", r.URL.Path, "error", err)
		w.Header().Set("Retry-After", retryAfter)
		problem(w, http.StatusServiceUnavailable, fmt.Sprintf("the database has not answered in %s, or not at all; the monitor's log says more", Timeout))
	}
}

// A Problem says why there is no answer (RFC 9457).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func problem(w http.ResponseWriter, status int, detail string) {
	body, _ := Marshal(Problem{http.StatusText(status), status, strings.ToValidUTF8(detail, "�")})
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// A question is what a request asks, checked for form.
type question struct {
	name, sha256, id string
	values           url.Values
	page             Page
}

func (q question) text(name string) string { return q.values.Get(name) }

func read(r *http.Request, params []string) (question, error) {
	q := question{sha256: r.PathValue("sha256"), id: r.PathValue("id")}
	var err error
	if q.values, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return q, fmt.Errorf("%w: the query cannot be read", ErrAsked)
	}
	for name, values := range q.values {
		if !slices.Contains(params, name) {
			return q, fmt.Errorf("%w: no parameter %.50q here", ErrAsked, name)
		}
		if len(values) != 1 {
			return q, fmt.Errorf("%w: %s is given %d times", ErrAsked, name, len(values))
		}
		if v := values[0]; len(v) > maxText || !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			return q, fmt.Errorf("%w: %s is longer than %d bytes or no text", ErrAsked, name, maxText)
		}
	}
	if name := r.PathValue("name"); name != "" {
		if len(name) > maxText || !pypi.ValidName(name) {
			return q, fmt.Errorf("%w: %.80q cannot be the name of a project", ErrAsked, name)
		}
		q.name = pypi.Normalize(name)
	}
	q.page.After = q.text("after")
	if q.values.Has("limit") {
		// 0 would mean the default.
		if q.page.Limit, err = strconv.Atoi(q.text("limit")); err != nil || q.page.Limit == 0 {
			return q, fmt.Errorf("%w: limit is not a number from 1 to %d", ErrAsked, MaxLimit)
		}
	}
	return q, nil
}
