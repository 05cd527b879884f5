package pypi

import (
	"bytes"
	"cmp"
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
)

// Bounds of one answer in bytes, counted after decompression: a small body that
// unpacks to a large one is cut off as well.
const (
	maxJournal    = 64 << 20
	maxSimple     = 64 << 20
	maxProvenance = 16 << 20
)

// A StatusError is an answer that is neither success nor one of the answers with
// an error of their own.
type StatusError struct {
	Status int
	After  time.Duration // as Retry-After asks, at most a day; 0: it does not
	wait   time.Duration // the same, as far as this process waits for one request
}

func (e *StatusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("answered %d %s", e.Status, http.StatusText(e.Status)))
}

// As lets the retry loop see the wait that the server asked for.
func (e *StatusError) As(target any) bool {
	r, ok := target.(**backoff.RetryAfterError)
	if ok && e.wait > 0 {
		*r = &backoff.RetryAfterError{Duration: e.wait}
		return true
	}
	return false
}

// refusedError is 403 with the wait that came with it.
type refusedError struct{ wait time.Duration }

func (e *refusedError) Error() string { return ErrRefused.Error() }
func (e *refusedError) Unwrap() error { return ErrRefused }

// An ask is one request. read is handed the answer's body, at most limit bytes of
// it, and is called again from the start when an attempt breaks off.
type ask struct {
	call   string // for metrics: one of a few words
	method string
	url    *url.URL
	body   []byte
	header http.Header
	limit  int64
	// timeout of one attempt; 0: as for all
	timeout time.Duration
	read    func(body io.Reader, header http.Header) error
}

// do asks until there is an answer, a refusal, or no more tries.
func (c *Client) do(ctx context.Context, a ask) error {
	wait := backoff.NewExponentialBackOff() // randomised by half
	wait.InitialInterval = min(500*time.Millisecond, c.o.MaxWait)
	wait.MaxInterval = c.o.MaxWait
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := c.once(ctx, a)
		if err != nil && (ctx.Err() != nil || !mayPass(err)) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(uint(c.o.Tries)), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, pause time.Duration) {
			c.log.DebugContext(ctx, "asking the index again", "call", a.call, "error", err, "pause", pause)
		}))
	if p := (*backoff.PermanentError)(nil); errors.As(err, &p) {
		err = p.Unwrap()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", a.method, redact(a.url), err)
	}
	return nil
}

// unreadable marks a whole answer that makes no sense: the same request would
// bring the same.
type unreadable struct{ error }

func (e unreadable) Unwrap() error { return e.error }

// mayPass reports whether the same request may succeed a little later.
func mayPass(err error) bool {
	for _, e := range []error{ErrNotFound, ErrRefused, ErrUnchanged, ErrTooLarge, errElsewhere, errKind, errEncoding, errCredentials} {
		if errors.Is(err, e) {
			return false
		}
	}
	if s := (*StatusError)(nil); errors.As(err, &s) {
		if s.After > maxPatience && s.After > s.wait {
			return false
		}
		return s.Status == http.StatusTooManyRequests || s.Status == http.StatusRequestTimeout || s.Status >= 500 && s.Status != http.StatusNotImplemented
	}
	var u unreadable
	return !errors.As(err, &u) // what is left broke on the way
}

// once makes one attempt. Its time limit covers the body, so a server that drips
// bytes cannot hold it.
func (c *Client) once(ctx context.Context, a ask) (err error) {
	if err := c.turn(ctx); err != nil {
		return err
	}
	defer func() { c.metrics.asked(a.call, err) }()
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(a.timeout, c.o.Timeout))
	defer cancel()
	var body io.Reader
	if a.body != nil {
		body = bytes.NewReader(a.body)
	}
	req, err := http.NewRequestWithContext(ctx, a.method, a.url.String(), body)
	if err != nil {
		return unreadable{errors.New("address cannot be requested")}
	}
	for k, v := range a.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	if err := c.authorize(req); err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return withoutURL(err)
	}
	defer resp.Body.Close()
	if err := c.refusal(resp); err != nil {
		return err
	}
	return readAnswer(a, resp)
}

func readAnswer(a ask, resp *http.Response) error {
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return errEncoding // the transport has undone the one that it asked for
	}
	// Nothing asked for here comes as HTML. A page for people is somebody else's
	// answer, a proxy's or a portal's, and says nothing about PyPI.
	if t := resp.Header.Get("Content-Type"); strings.Contains(strings.ToLower(t), "html") {
		return fmt.Errorf("%w: %.80q", errKind, t)
	}
	body := &bounded{r: resp.Body, left: a.limit}
	err := a.read(body, resp.Header)
	switch {
	case body.err != nil: // whatever read makes of a torn answer
		return body.err
	case err != nil:
		return unreadable{err}
	}
	return nil
}

// bounded reads a body up to a bound, and remembers what went wrong, because a
// parser's own error hides it.
type bounded struct {
	r    io.Reader
	left int64
	err  error
}

// Read fills p as far as the body goes. The JSON decoder looks through all that it
// holds after each reading: in small pieces, megabytes of spaces would take minutes.
func (b *bounded) Read(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = b.some(p[n:])
		n += more
	}
	if n > 0 && err == io.EOF {
		return n, nil // the next reading has the end to itself
	}
	return n, err
}

func (b *bounded) some(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	// One byte beyond the bound may be read, to tell the end from more.
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	switch {
	case b.left < 0:
		b.err = ErrTooLarge
		return 0, b.err
	case err != nil && err != io.EOF:
		b.err = fmt.Errorf("reading the answer: %w", err)
		return n, b.err
	}
	return n, err
}

// turn waits for this request's turn under the rate limit and for the end of a
// pause that the server asked for.
func (c *Client) turn(ctx context.Context) error {
	if err := c.pace.Wait(ctx); err != nil {
		return err
	}
	return sleep(ctx, time.Until(time.Unix(0, c.hold.Load())))
}

// refusal turns a status other than 200 into an error and heeds Retry-After.
func (c *Client) refusal(resp *http.Response) error {
	wait := min(retryAfter(resp.Header.Get("Retry-After"), time.Now()), maxRetryAfter)
	switch s := resp.StatusCode; s {
	case http.StatusOK:
		return nil
	case http.StatusNotModified:
		return ErrUnchanged
	case http.StatusNotFound, http.StatusGone:
		return ErrNotFound
	case http.StatusForbidden:
		return &refusedError{wait}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		asked := wait
		wait = min(wait, c.o.MaxWait)
		if wait > 0 {
			c.hold.Store(time.Now().Add(wait).UnixNano())
		}
		return &StatusError{Status: s, After: asked, wait: wait}
	default:
		return &StatusError{Status: s}
	}
}

// maxPatience is for how long a server may ask and still be asked again by the same
// call. Whoever has other things to do comes back later.
const maxPatience = 2 * time.Minute

// maxRetryAfter bounds how far off a server can push us.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads a Retry-After value, seconds or a date; 0 for none.
func retryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// withoutURL drops the address that net/http puts into its errors: it may carry a
// password, and the error names the address already.
func withoutURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// sleep waits, or returns the cause of ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
