package pypi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"sigtrail/index"
)

// refusedFor is how long a refusal stands: attestations are switched off for the
// whole site at once, and not for a minute.
const refusedFor = 15 * time.Minute

// Provenance asks for a file's provenance at the address that the listing names.
// An object that cannot be read, and an address that may not be called, are
// answers (unreadable, Error says why); so are 404 (absent) and 403 (refused, Retry
// says until when). An error is a failure to ask, to be tried again.
func (c *Client) Provenance(ctx context.Context, address string) (index.Provenance, error) {
	u, err := url.Parse(address)
	if err != nil || !c.mayAsk(u) {
		return index.Provenance{State: index.ProvenanceUnreadable, Fetched: now(), Error: "not fetched: its address is on another server than the index"}, nil
	}
	var body []byte
	err = c.do(ctx, ask{call: "provenance", method: http.MethodGet, url: u, limit: maxProvenance,
		header: http.Header{"Accept": {"application/vnd.pypi.integrity.v1+json"}},
		read: func(r io.Reader, _ http.Header) (err error) {
			body, err = io.ReadAll(r)
			return err
		}})
	p := index.Provenance{Fetched: now()}
	var refused *refusedError
	switch {
	case errors.Is(err, ErrNotFound):
		p.State = index.ProvenanceAbsent
		return p, nil
	case errors.As(err, &refused):
		p.State, p.Error = index.ProvenanceRefused, err.Error()
		p.Retry = p.Fetched.Add(max(refused.wait, refusedFor))
		return p, nil
	case errors.Is(err, ErrTooLarge):
		p.State, p.Error = index.ProvenanceUnreadable, err.Error()
		return p, nil
	case err != nil:
		return index.Provenance{}, fmt.Errorf("provenance: %w", err)
	}
	p.Body = body
	o, err := ParseProvenance(body)
	if err != nil {
		p.State, p.Error = index.ProvenanceUnreadable, printable(err.Error(), 300)
		return p, nil
	}
	p.State, p.Leaves, p.Attests, p.Heads = index.ProvenancePresent, o.Leaves(), o.Attests(), o.Heads()
	return p, nil
}

func now() time.Time { return time.Now().UTC() }
