package rekor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	httptransport "github.com/go-openapi/runtime/client"
	"github.com/go-openapi/strfmt"
	"github.com/sigstore/rekor/pkg/generated/client"
	"github.com/sigstore/rekor/pkg/generated/client/entries"
	"github.com/sigstore/rekor/pkg/generated/client/index"
	"github.com/sigstore/rekor/pkg/generated/client/tlog"
	"github.com/sigstore/rekor/pkg/generated/models"
)

// Bounds of the answers of a v1 server, in bytes, decompressed.
const (
	maxInfo    = 1 << 20
	maxProof   = 64 << 10
	maxEntries = 8 << 20 // 10 entries; one is at most some 100 KB
	maxIDs     = 4 << 20 // some 50,000 ids
)

// newV1Client sets the generated client on top of the fetcher, which does pacing,
// repeating and bounding. The generated code then sees only whole JSON answers
// with status 200; everything else has become an error below it.
func newV1Client(f *fetcher, u *url.URL) *client.Rekor {
	rt := httptransport.NewWithClient(u.Host, u.Path, []string{u.Scheme}, &http.Client{Transport: v1Transport{f, u.User}})
	rt.Debug = false // else the environment variable DEBUG prints whole answers
	return client.New(rt, strfmt.Default)
}

// v1Transport makes a fetcher an http.RoundTripper for the calls of the v1 API.
type v1Transport struct {
	*fetcher
	user *url.Userinfo
}

// RoundTrip implements http.RoundTripper. Its response is complete in memory.
func (t v1Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	a := ask{method: req.Method, url: req.URL, header: http.Header{"Accept": {"application/json"}}, limit: bound(req.URL.Path)}
	if t.user != nil {
		withUser := *req.URL
		withUser.User = t.user
		a.url = &withUser
	}
	if req.Body != nil {
		var err error
		a.body, err = io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("making a request: %w", err)
		}
		a.header["Content-Type"] = []string{"application/json"}
	}
	body, kind, err := t.do(req.Context(), a)
	if err != nil {
		return nil, err
	}
	if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
		return nil, t.unusable(fmt.Errorf("%s is %.60q instead of JSON; is this the address of a Rekor v1 log?", req.URL.Path, kind))
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)), Request: req,
	}, nil
}

func bound(path string) int64 {
	switch {
	case strings.HasSuffix(path, "/log"):
		return maxInfo
	case strings.HasSuffix(path, "/log/proof"):
		return maxProof
	case strings.HasSuffix(path, "/index/retrieve"):
		return maxIDs
	}
	return maxEntries
}

// The calls below turn off the generated client's own time limit: the fetcher
// has one for each attempt, and waiting for a turn must not use it up.

func (v *V1) getInfo(ctx context.Context) (*models.LogInfo, error) {
	ok, err := v.api.Tlog.GetLogInfoContext(ctx, tlog.NewGetLogInfoParams().WithTimeout(0))
	if err != nil {
		return nil, v.plain(err)
	}
	return ok.GetPayload(), nil
}

func (v *V1) getProof(ctx context.Context, treeID string, from, to int64) (*models.ConsistencyProof, error) {
	ok, err := v.api.Tlog.GetLogProofContext(ctx, tlog.NewGetLogProofParams().WithTimeout(0).
		WithTreeID(&treeID).WithFirstSize(&from).WithLastSize(to))
	if err != nil {
		return nil, v.plain(err)
	}
	return ok.GetPayload(), nil
}

func (v *V1) getEntry(ctx context.Context, global int64) (models.LogEntry, error) {
	ok, err := v.api.Entries.GetLogEntryByIndexContext(ctx, entries.NewGetLogEntryByIndexParams().WithTimeout(0).WithLogIndex(global))
	if err != nil {
		return nil, v.plain(err)
	}
	return ok.GetPayload(), nil
}

// retrieve fetches entries. When they are too large for one answer, as entries that
// embed what they are about can be, it asks for fewer at a time.
func (v *V1) retrieve(ctx context.Context, globals []int64, ids []string) ([]models.LogEntry, error) {
	query := &models.SearchLogQuery{}
	if len(ids) > 0 { // an empty list is refused, none is not
		query.EntryUUIDs = ids
	}
	for i := range globals {
		query.LogIndexes = append(query.LogIndexes, &globals[i])
	}
	ok, err := v.api.Entries.SearchLogQueryContext(ctx, entries.NewSearchLogQueryParams().WithTimeout(0).WithEntry(query))
	if err == nil {
		return ok.GetPayload(), nil
	}
	err = v.plain(err)
	if !errors.Is(err, ErrTooLarge) || len(globals)+len(ids) < 2 {
		return nil, err
	}
	g, i := (len(globals)+1)/2, len(ids)/2
	first, err := v.retrieve(ctx, globals[:g], ids[:i])
	if err != nil {
		return nil, err
	}
	rest, err := v.retrieve(ctx, globals[g:], ids[i:])
	return append(first, rest...), err
}

func (v *V1) searchIndex(ctx context.Context, query *models.SearchIndex) ([]string, error) {
	ok, err := v.api.Index.SearchIndexContext(ctx, index.NewSearchIndexParams().WithTimeout(0).WithQuery(query))
	if err != nil {
		return nil, v.plain(err)
	}
	return ok.GetPayload(), nil
}

// plain takes off what net/http wraps around a RoundTripper's error.
func (v *V1) plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return v.unusable(err)
}

// refused reports whether a server answered with one of these statuses.
func refused(err error, statuses ...int) bool {
	var e *StatusError
	if !errors.As(err, &e) {
		return false
	}
	for _, s := range statuses {
		if e.Status == s {
			return true
		}
	}
	return false
}
