package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sigtrail/index"
)

// pypiStatus is what is watched on PyPI and what of it is to be read.
type pypiStatus struct {
	Watched  int             `json:"projects_watched"`
	Listings []listingStatus `json:"listings_to_read"`
	Pending  int             `json:"provenance_to_fetch"`
	Past     *pastStatus     `json:"older_journal,omitempty"` // absent: it is not read
}

type listingStatus struct {
	Cause  index.WorkCause `json:"cause"` // journal, bootstrap, direct
	State  index.WorkState `json:"state"`
	Count  int             `json:"count"`
	Oldest *time.Time      `json:"due_since,omitempty"`
}

type pastStatus struct {
	From int64 `json:"from_serial"`
	Next int64 `json:"read_up_to"`
	End  int64 `json:"ends_at"`
}

func readPyPIStatus(ctx context.Context, c *index.Catalogue) (s pypiStatus, err error) {
	work, err := c.WorkSummary(ctx)
	if err != nil {
		return s, err
	}
	s = pypiStatus{Watched: work.Watched, Pending: work.Provenance, Listings: []listingStatus{}}
	for _, w := range work.Work {
		s.Listings = append(s.Listings, listingStatus{w.Cause, w.State, w.Count, moment(w.Oldest)})
	}
	past, begun, err := c.PastJournal(ctx)
	if begun {
		s.Past = &pastStatus{past.From, past.Next, past.End}
	}
	return s, err
}

// text is one line for what is to be read, "" if that is nothing.
func (s pypiStatus) text() string {
	var parts []string
	for _, l := range s.Listings {
		parts = append(parts, fmt.Sprintf("%d %s (%s)", l.Count, l.State, l.Cause))
	}
	text := "PyPI: " + counted(s.Watched, "project", "projects") + " watched"
	if len(parts) > 0 {
		text += "; listings to read: " + strings.Join(parts, ", ")
	}
	if s.Pending > 0 {
		text += fmt.Sprintf("; provenance to fetch: %d", s.Pending)
	}
	if s.Past != nil && s.Past.Next < s.Past.End {
		text += fmt.Sprintf("; older journal read up to serial %d of %d", s.Past.Next, s.Past.End)
	}
	return text
}
