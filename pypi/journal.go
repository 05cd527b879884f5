package pypi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sigtrail/index"
)

// fullBatch is how many rows PyPI gives at most: a batch of that length means that
// there may be more.
const fullBatch = 50_000

// Bounds of one row in bytes. PyPI's own limits are tighter; text beyond ours is
// cut, because one odd row must not stop the journal.
const (
	maxRows    = 4 * fullBatch
	maxName    = 512
	maxVersion = 512
	maxAction  = 4096
)

// LastSerial asks for the newest serial of PyPI's journal (changelog_last_serial
// over XML-RPC). A *Fault is the server's own refusal.
func (c *Client) LastSerial(ctx context.Context) (int64, error) {
	var serial int64
	err := c.xmlrpc(ctx, func(x *response) error {
		v, err := x.scalar()
		if err == nil && (v.kind != "int" || v.n < 0) {
			err = errors.New("answer is no serial")
		}
		serial = v.n
		return err
	}, "changelog_last_serial")
	return serial, err
}

// Changes asks for the journal's rows beyond a serial, oldest first and at most
// 50,000 (changelog_since_serial over XML-RPC). Serials have gaps; one that does
// not grow makes the whole answer an error. A *Fault is the server's own refusal.
func (c *Client) Changes(ctx context.Context, since int64) ([]index.JournalRow, error) {
	var rows []index.JournalRow
	err := c.xmlrpc(ctx, func(x *response) (err error) {
		rows, err = readRows(x, since)
		return err
	}, "changelog_since_serial", since)
	if err != nil {
		return nil, err
	}
	return rows, nil
}

func readRows(x *response, since int64) ([]index.JournalRow, error) {
	var rows []index.JournalRow
	last := since
	err := x.each(func() error {
		if len(rows) == maxRows {
			return fmt.Errorf("more than %d rows", maxRows)
		}
		row, err := readRow(x)
		if err != nil {
			return fmt.Errorf("row %d: %w", len(rows), err)
		}
		if row.Serial <= last {
			return fmt.Errorf("row %d: serial %d after %d", len(rows), row.Serial, last)
		}
		last = row.Serial
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

// readRow reads [name, version or nil, Unix seconds, action, serial].
func readRow(x *response) (index.JournalRow, error) {
	var f []scalar
	err := x.each(func() error {
		v, err := x.scalar()
		if f = append(f, v); err == nil && len(f) > 5 {
			err = errors.New("more than five fields")
		}
		return err
	})
	if err != nil {
		return index.JournalRow{}, err
	}
	if len(f) != 5 {
		return index.JournalRow{}, fmt.Errorf("%d fields", len(f))
	}
	if f[0].kind != "string" || f[1].kind == "int" || f[2].kind != "int" || f[3].kind != "string" || f[4].kind != "int" {
		return index.JournalRow{}, errors.New("a field of another type")
	}
	const year3000 = 32503680000
	if f[2].n < 0 || f[2].n > year3000 {
		return index.JournalRow{}, fmt.Errorf("time %d", f[2].n)
	}
	row := index.JournalRow{
		Serial: f[4].n, Name: cut(f[0].text, maxName), At: time.Unix(f[2].n, 0).UTC(), Action: cut(f[3].text, maxAction),
	}
	row.Project = Normalize(row.Name)
	if f[1].kind == "string" {
		v := cut(f[1].text, maxVersion)
		row.Version = &v
	}
	return row, nil
}

// xmlrpc calls a method. An answer is read as it arrives: a full batch of rows is
// tens of megabytes of tags around five of text.
func (c *Client) xmlrpc(ctx context.Context, value func(*response) error, method string, params ...any) error {
	if l := c.limited.Load(); l != nil && time.Now().Before(l.until) {
		return fmt.Errorf("%s: not asked before %s: %w", method, l.until.UTC().Format(time.RFC3339), l.fault)
	}
	body, err := methodCall(method, params...)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	err = c.do(ctx, ask{
		call: method, method: http.MethodPost, url: c.base.JoinPath("pypi"), body: body, limit: maxJournal,
		header: http.Header{"Content-Type": {"text/xml"}},
		read:   func(body io.Reader, _ http.Header) error { return readResponse(body, value) },
	})
	if f := (*Fault)(nil); errors.As(err, &f) {
		if reset, ok := f.RateLimited(); ok {
			c.limited.Store(&limitedBy{fault: f, until: time.Now().Add(reset)})
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// limitedBy is a rate limit of the journal and when it ends.
type limitedBy struct {
	fault *Fault
	until time.Time
}

// RateLimited reports whether the fault is PyPI's rate limit, which comes as one
// under status 200, and for how long at most an hour. PyPI words it
// "HTTPTooManyRequests: … Limit may reset in N seconds."
func (f *Fault) RateLimited() (time.Duration, bool) {
	if !strings.Contains(f.Text, "HTTPTooManyRequests") {
		return 0, false
	}
	reset := time.Minute
	if _, after, ok := strings.Cut(f.Text, "reset in "); ok {
		digits, _, _ := strings.Cut(after, " ")
		if n, err := strconv.ParseUint(digits, 10, 31); err == nil {
			reset = time.Duration(n) * time.Second
		}
	}
	return min(reset, time.Hour), true
}

func isLimit(err error) bool {
	var f *Fault
	if !errors.As(err, &f) {
		return false
	}
	_, limited := f.RateLimited()
	return limited
}
