package rekor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A tufFetcher downloads TUF files within the caller's context and in bounded
// time; go-tuf's own takes no context. A file is tried once: the caller repeats
// the whole update.
type tufFetcher struct {
	ctx    context.Context
	client *http.Client
	agent  string
}

func newTUFFetcher(ctx context.Context, agent string) *tufFetcher {
	return &tufFetcher{
		ctx:    ctx,
		client: &http.Client{Transport: defaultTransport(1), Timeout: 30 * time.Second},
		agent:  orDefault(agent, "sigtrail"),
	}
}

// DownloadFile implements go-tuf's Fetcher. A 404 must come back as ErrDownloadHTTP:
// it is how the updater finds the newest root.
func (f *tufFetcher) DownloadFile(address string, maxLength int64, _ time.Duration) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("downloading: %w", err)
	}
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("downloading %s: %w", u.Path, err)
	}
	req.Header.Set("User-Agent", f.agent)
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot reach %s: %w", u.Host, withoutURL(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: resp.StatusCode, URL: redact(address)}
	}
	body, err := readBody(resp, maxLength, 16<<10)
	if err != nil {
		return nil, fmt.Errorf("downloading %s: %w", u.Path, err)
	}
	return body, nil
}
