package pypi

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"sigtrail/index"
)

// A schedule is when to ask again: after first, then after twice as long each time,
// and no later than after most.
type schedule struct{ first, most time.Duration }

func (s schedule) pause(tries int) time.Duration {
	d := s.first
	for ; tries > 0 && d < s.most; tries-- {
		d *= 2
	}
	d = min(d, s.most)
	return d + rand.N(d/4+1)
}

// Listings that could not be read, by what came of the try.
var listingSchedules = map[index.WorkState]schedule{
	index.WorkStale:   {2 * time.Second, 5 * time.Minute}, // a cache that has not been told yet
	index.WorkMissing: {15 * time.Second, time.Hour},      // a cache's, a typing error, or a project that is gone
	index.WorkRefused: {5 * time.Minute, time.Hour},
	index.WorkLimited: {time.Minute, time.Hour},             // at least as long as Retry-After asks
	index.WorkFailing: {30 * time.Second, 10 * time.Minute}, // 5xx, a broken connection, an answer that makes no sense
	index.WorkTooLong: {time.Hour, 24 * time.Hour},          // tens of megabytes for nothing, each time
}

// Provenance, likewise. What is found, absent or unreadable is not asked for again.
var provenanceSchedules = map[index.WorkState]schedule{
	index.WorkMissing: {retryNegative, retryNegative}, // of a file that a cache may know nothing of
	index.WorkRefused: {refusedFor, time.Hour},        // attestations are switched off
	index.WorkLimited: {time.Minute, time.Hour},
	index.WorkFailing: {30 * time.Second, time.Hour},
}

// Everything of a kind, when it is the site that refuses, limits or fails.
var siteSchedules = map[index.WorkState]schedule{
	index.WorkRefused: {5 * time.Minute, time.Hour},
	index.WorkLimited: {time.Minute, time.Hour},
	index.WorkFailing: {30 * time.Second, 5 * time.Minute},
}

// stateOf is what an error makes of work, and how long the server wants to be left
// alone; 0 if it does not say.
func stateOf(err error) (index.WorkState, time.Duration) {
	var refused *refusedError
	var status *StatusError
	switch {
	case errors.Is(err, ErrTooLarge):
		return index.WorkTooLong, 0
	case errors.Is(err, ErrNotFound):
		return index.WorkMissing, 0
	case errors.As(err, &refused):
		return index.WorkRefused, min(refused.wait, time.Hour)
	case errors.As(err, &status) && status.Status == http.StatusTooManyRequests:
		return index.WorkLimited, min(status.After, time.Hour)
	case errors.As(err, &status):
		return index.WorkFailing, min(status.After, time.Hour)
	}
	return index.WorkFailing, 0
}

// A gate stands before one kind of request. It closes when the whole site refuses or
// limits, or when failure follows failure: then there is no sense in trying one
// project after the other. After the pause one request goes first.
type gate struct {
	until  time.Time
	closed int // times in a row
	inRow  int // failures
}

// failuresInRow is after how many failures one after the other, of whatever they were
// asked, the site itself is taken to be failing.
const failuresInRow = 8

// open is how many requests may be under way.
func (g *gate) open(now time.Time, most int) int {
	switch {
	case now.Before(g.until):
		return 0
	case g.closed > 0:
		return 1
	}
	return most
}

// takeIn takes in what came of a request; "": an answer.
func (g *gate) takeIn(now time.Time, state index.WorkState, wait time.Duration) {
	if now.Before(g.until) {
		return // sent before it closed
	}
	switch state {
	case "", index.WorkStale, index.WorkMissing, index.WorkTooLong:
		g.closed, g.inRow = 0, 0
		return
	case index.WorkFailing:
		if g.inRow++; g.inRow < failuresInRow && g.closed == 0 && wait == 0 {
			return
		}
	}
	g.until = now.Add(max(siteSchedules[state].pause(g.closed), wait))
	g.closed++
}
