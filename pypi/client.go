// Package pypi reads what PyPI says about projects: the journal of changes, the
// simple index (PEP 691) and the provenance of files (PEP 740), and puts it into
// the index. Nothing signs the simple index: what it says is a claim, which the
// logs confirm or do not.
package pypi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"
)

// Bounds of what is read in one answer.
const (
	maxJournal    = 64 << 20
	maxSimple     = 64 << 20
	maxProvenance = 8 << 20
	maxWait       = time.Minute // however long Retry-After asks for
)

// Answers that are states of their own rather than failures.
var (
	ErrNotFound = errors.New("not found on the index")
	ErrRefused  = errors.New("refused by the index for now")
)

// Options of a Client. URL is required.
type Options struct {
	URL       string // https://pypi.org
	UserAgent string
	HTTP      *http.Client
	Rate      rate.Limit // requests a second; 0: 10
	Tries     uint       // attempts for one request; 0: 4
	Metrics   *Metrics
}

// A Client asks one index. It paces itself, and repeats what failed for a reason
// that may pass.
type Client struct {
	base    *url.URL
	http    *http.Client
	agent   string
	pace    *rate.Limiter
	tries   uint
	metrics *Metrics
	tags    tags
}

// NewClient makes a client for the index at o.URL.
func NewClient(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, fmt.Errorf("address %q of the index: want http(s)://HOST", o.URL)
	}
	c := &Client{base: base, agent: o.UserAgent, tries: o.Tries, metrics: o.Metrics, tags: newTags()}
	if c.tries == 0 {
		c.tries = 4
	}
	if o.Rate == 0 {
		o.Rate = 10
	}
	c.pace = rate.NewLimiter(o.Rate, 1+int(o.Rate))
	c.http = &http.Client{Timeout: 2 * time.Minute}
	if o.HTTP != nil {
		c.http.Transport = o.HTTP.Transport
	}
	// A redirect may normalise a name; it may not lead us to another host.
	c.http.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Host != base.Host || len(via) > 3 {
			return fmt.Errorf("redirect to %s is not followed", r.URL.Host)
		}
		return nil
	}
	return c, nil
}

// answer is what is kept of a response.
type answer struct {
	body   []byte
	header http.Header
	status int
}

// call sends a request until it is answered with something other than a passing
// failure. 404 and 403 come back as ErrNotFound and ErrRefused.
func (c *Client) call(ctx context.Context, name, method, address string, body []byte, header http.Header, limit int64) (answer, error) {
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = maxWait
	a, err := backoff.Retry(ctx, func() (answer, error) {
		if err := c.pace.Wait(ctx); err != nil {
			return answer{}, backoff.Permanent(err)
		}
		return c.attempt(ctx, method, address, body, header, limit)
	}, backoff.WithBackOff(pause), backoff.WithMaxTries(c.tries))
	c.metrics.request(name, err)
	if err != nil {
		return a, fmt.Errorf("%s %s: %w", method, redact(address), err)
	}
	return a, nil
}

func (c *Client) attempt(ctx context.Context, method, address string, body []byte, header http.Header, limit int64) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return answer{}, backoff.Permanent(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.agent)
	resp, err := c.http.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // its text repeats the address
		}
		return answer{}, err
	}
	defer resp.Body.Close()
	switch s := resp.StatusCode; {
	case s == http.StatusOK || s == http.StatusNotModified:
	case s == http.StatusNotFound:
		return answer{}, backoff.Permanent(ErrNotFound)
	case s == http.StatusForbidden:
		return answer{}, backoff.Permanent(ErrRefused)
	case s == http.StatusTooManyRequests || s >= 500:
		if wait := retryAfter(resp.Header); wait > 0 {
			return answer{}, &backoff.RetryAfterError{Duration: wait}
		}
		return answer{}, fmt.Errorf("answered %s", resp.Status)
	default:
		return answer{}, backoff.Permanent(fmt.Errorf("answered %s", resp.Status))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return answer{}, fmt.Errorf("reading the answer: %w", err)
	}
	if int64(len(b)) > limit {
		return answer{}, backoff.Permanent(fmt.Errorf("the answer is larger than %d bytes", limit))
	}
	return answer{body: b, header: resp.Header, status: resp.StatusCode}, nil
}

// retryAfter reads the delay in seconds; dates are left to our own back-off.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n <= 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxWait)
}

// redact leaves out what an address may carry in secret.
func redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(address)"
	}
	return strings.SplitN(u.Redacted(), "?", 2)[0]
}

func (c *Client) address(path string) string { return c.base.JoinPath(path).String() }
