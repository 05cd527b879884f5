package rekor

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// ErrTooLarge is an answer that is longer than its kind can be. It is counted after
// decompression, so a small body that unpacks to a large one is cut off as well.
var ErrTooLarge = errors.New("answer is too large")

// A StatusError is an answer with another status than 200.
type StatusError struct {
	Status int
	Path   string // of the request, without host and query
	Said   string // beginning of the body, printable

	pause time.Duration // Retry-After; 0: none
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s: status %d", e.Path, e.Status)
	if e.Said != "" {
		s += ": " + strconv.Quote(e.Said)
	}
	return s
}

// A fetcher makes bounded, paced requests to one server and repeats what may
// well succeed the next time.
type fetcher struct {
	name    string // of the server, for logs and metrics
	client  *http.Client
	pace    *pace
	timeout time.Duration
	tries   int
	maxWait time.Duration
	agent   string
	log     *slog.Logger
	metrics *metrics
}

func newFetcher(o Options, name string) (*fetcher, error) {
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	f := &fetcher{
		name: name, pace: newPace(o.Rate, o.MaxRate, m.limit.WithLabelValues(name), m.slowdowns.WithLabelValues(name)), timeout: o.Timeout, tries: o.Tries,
		maxWait: o.MaxWait, agent: o.UserAgent, log: o.Log, metrics: m,
	}
	f.client = &http.Client{Transport: defaultTransport(o.Concurrency), CheckRedirect: sameHost}
	if o.HTTP != nil && o.HTTP.Transport != nil {
		f.client.Transport = o.HTTP.Transport
	}
	return f, nil
}

func defaultTransport(conns int) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = conns
	t.ResponseHeaderTimeout = 30 * time.Second
	t.MaxResponseHeaderBytes = 64 << 10
	return t
}

// sameHost follows a redirection only within the server: a log must not be able
// to send its monitor elsewhere.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) > 3 {
		return errors.New("more than three redirections")
	}
	if from := via[0].URL; req.URL.Host != from.Host || req.URL.Scheme != from.Scheme {
		return fmt.Errorf("redirected to another server, %s", req.URL.Host)
	}
	return nil
}

// An ask is one request. Limit bounds the answer in bytes, decompressed.
type ask struct {
	method string
	url    *url.URL
	body   []byte
	header http.Header
	limit  int64
	hint   int // expected length of the answer, saves copying
}

// do asks until there is an answer, a refusal, or no more tries. It returns the
// body and content type of an answer with status 200, else *StatusError,
// ErrTooLarge, or the failure to ask.
func (f *fetcher) do(ctx context.Context, a ask) ([]byte, string, error) {
	type answer struct {
		body []byte
		kind string
	}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval = min(500*time.Millisecond, f.maxWait)
	wait.MaxInterval = f.maxWait
	got, err := backoff.Retry(ctx, func() (answer, error) {
		body, kind, err := f.once(ctx, a)
		if err != nil && (ctx.Err() != nil || !worthRetrying(err)) {
			err = backoff.Permanent(err)
		}
		return answer{body, kind}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(uint(f.tries)), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, pause time.Duration) {
			f.log.DebugContext(ctx, "asking the log again", "server", f.name, "error", err, "pause", pause)
		}))
	if permanent := (*backoff.PermanentError)(nil); errors.As(err, &permanent) {
		err = permanent.Unwrap()
	}
	if err != nil {
		return nil, "", fmt.Errorf("asking %s: %w%s", f.name, err, advice(err))
	}
	return got.body, got.kind, nil
}

// once makes one attempt, and tells pace and metrics how it went.
func (f *fetcher) once(ctx context.Context, a ask) ([]byte, string, error) {
	if err := f.pace.wait(ctx); err != nil {
		return nil, "", err
	}
	sent := time.Now()
	body, kind, err := f.attempt(ctx, a)
	took := time.Since(sent)
	f.metrics.asked(f.name, outcome(err), took)
	switch {
	case err == nil:
		f.pace.answered(took)
	case ctx.Err() == nil && overloaded(err):
		f.pace.overloaded(sent, pauseOf(err))
	}
	return body, kind, err
}

// outcome is how an attempt went, for the metrics.
func outcome(err error) string {
	var status *StatusError
	switch {
	case err == nil:
		return "200"
	case errors.As(err, &status):
		return strconv.Itoa(status.Status)
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return "failed"
}

// pauseOf is how long the server asks to be left alone; 0: it does not say.
func pauseOf(err error) time.Duration {
	var status *StatusError
	if errors.As(err, &status) {
		return status.pause
	}
	return 0
}

// attempt asks once. The time limit covers the body too, so a server that drips
// bytes cannot hold it.
func (f *fetcher) attempt(ctx context.Context, a ask) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, a.method, a.url.String(), bytes.NewReader(a.body))
	if err != nil {
		return nil, "", fmt.Errorf("making a request: %w", err)
	}
	for k, v := range a.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", f.agent)
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, "", withoutURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", f.refusal(a, resp)
	}
	body, err := readBody(resp, a.limit, a.hint)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", a.url.Path, err)
	}
	return body, resp.Header.Get("Content-Type"), nil
}

// refusal turns a status other than 200 into an error.
func (f *fetcher) refusal(a ask, resp *http.Response) error {
	e := &StatusError{Status: resp.StatusCode, Path: a.url.Path}
	if a.url.User == nil { // else the answer may repeat the password
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		e.Said = printable(said)
	}
	pause, _ := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	e.pause = min(pause, f.maxWait)
	return e
}

// retryAfter reads a Retry-After value: seconds, or a date.
func retryAfter(v string, now time.Time) (time.Duration, bool) {
	v = strings.TrimSpace(v)
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, false
}

// overloaded reports whether an attempt failed as it does on a server that has too
// much to do: with 429, with an error of its own, or too late.
func overloaded(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		switch status.Status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests:
			return true
		case http.StatusNotImplemented:
			return false
		}
		return status.Status >= 500
	}
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

// worthRetrying reports whether the same request may succeed later: an overload, or
// a failure on the way. A refusal and an answer out of bounds will be the same
// again.
func worthRetrying(err error) bool {
	var status *StatusError
	return overloaded(err) || !errors.As(err, &status) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrUnusable)
}

// readBody reads a whole body of at most limit bytes, unpacked if it is gzip that
// the transport has left alone.
func readBody(resp *http.Response, limit int64, hint int) ([]byte, error) {
	var r io.Reader = resp.Body
	switch strings.ToLower(resp.Header.Get("Content-Encoding")) {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			return nil, fmt.Errorf("unpacking the answer: %w", err)
		}
		r, resp.ContentLength = z, -1
	default:
		return nil, fmt.Errorf("answer in an encoding nobody asked for")
	}
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, resp.ContentLength, limit)
	}
	room := int64(hint)
	if resp.ContentLength >= 0 {
		room = resp.ContentLength
	}
	// One byte more than expected, so that the read that finds the end does
	// not grow the buffer. A length that the server only claims buys no
	// memory beyond 1 MiB.
	buf := make([]byte, 0, min(room, limit, 1<<20)+1)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):min(int64(cap(buf)), limit+1)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
	}
}

// withoutURL drops the address that net/http puts into its errors: it may carry
// a password, and the error names the server already.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// printable is text from outside, made fit for a log line.
func printable(b []byte) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return ' '
		}
		return r
	}, string(b))
	return strings.Join(strings.Fields(s[:min(len(s), 200)]), " ")
}
