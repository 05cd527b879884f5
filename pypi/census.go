package pypi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"sigtrail/index"
)

// Bounds of the list of all projects: PyPI's has three quarters of a million, in tens
// of megabytes.
const (
	maxProjects   = 5_000_000
	maxCensus     = 512 << 20
	censusTimeout = 20 * time.Minute
	censusBatch   = 1000
	maxElement    = 1 << 20
)

// Projects reads the list of all projects of the index (PEP 691, with PyPI's serials)
// and hands it on as it comes, some at a time, each name in its normal form; the slice
// is used again. A list that breaks off is read again from its start, so a project may
// be handed on twice. It returns the serial that the list is as new as (0: not given)
// and how many projects it names.
func (c *Client) Projects(ctx context.Context, each func([]index.Named) error) (serial int64, n int, err error) {
	r := projectsReader{each: each}
	err = c.do(ctx, ask{call: "projects", method: http.MethodGet, url: c.base.JoinPath("simple", "/"), limit: maxCensus, timeout: censusTimeout,
		header: http.Header{"Accept": {"application/vnd.pypi.simple.v1+json"}},
		read: func(body io.Reader, h http.Header) error {
			r.body = elementReader{r: body, left: maxElement}
			r.walker, r.n, r.serial, r.batch = walker{json.NewDecoder(&r.body)}, 0, 0, r.batch[:0]
			err := r.read()
			r.serial = lowerSerial(r.serial, h.Get("X-PyPI-Last-Serial"))
			return err
		}})
	if err != nil {
		return 0, 0, fmt.Errorf("list of all projects: %w", err)
	}
	return r.serial, r.n, nil
}

// An elementReader bounds what one element takes, because the decoder holds an element
// whole.
type elementReader struct {
	r    io.Reader
	left int
}

func (e *elementReader) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, fmt.Errorf("an element of more than %d bytes", maxElement)
	}
	n, err := e.r.Read(p[:min(len(p), e.left)])
	e.left -= n
	return n, err
}

type projectsReader struct {
	walker
	body   elementReader
	each   func([]index.Named) error
	batch  []index.Named
	serial int64
	n      int
}

func (r *projectsReader) read() error {
	seen := []string{}
	err := r.object(func(key string) error {
		if slices.Contains(seen, key) {
			return fmt.Errorf("two members %.40q", key)
		}
		switch key {
		case "meta":
			var meta simpleMeta
			if err := r.d.Decode(&meta); err != nil {
				return fmt.Errorf("meta: %w", err)
			}
			var err error
			r.serial, err = meta.read()
			seen = append(seen, key)
			return err
		case "projects":
			seen = append(seen, key)
			return r.array(maxProjects, r.project)
		}
		var other json.RawMessage
		return r.d.Decode(&other)
	})
	if err != nil {
		return err
	}
	if _, err := r.d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the list")
	}
	if !slices.Contains(seen, "projects") {
		return errors.New("not a list of projects")
	}
	return r.flush()
}

// project reads one element. An odd one is left out: it must not hide the others.
func (r *projectsReader) project() error {
	var raw json.RawMessage
	if err := r.d.Decode(&raw); err != nil {
		return err
	}
	r.body.left = maxElement
	var p struct {
		Name   string `json:"name"`
		Serial int64  `json:"_last-serial"`
	}
	if json.Unmarshal(raw, &p) != nil || !ValidName(p.Name) {
		return nil
	}
	r.n++
	r.batch = append(r.batch, index.Named{Project: Normalize(p.Name), Serial: max(0, p.Serial)})
	if len(r.batch) < censusBatch {
		return nil
	}
	return r.flush()
}

func (r *projectsReader) flush() error {
	if len(r.batch) == 0 {
		return nil
	}
	err := r.each(r.batch)
	r.batch = r.batch[:0]
	return err
}
