package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sigtrail/index"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

// The answer for a busy workflow names hundreds of entries, without a time and in no
// order that could be relied on, and each of them has to be fetched before it can be
// seen whether it concerns a file. So a round makes at most identityRequests requests,
// takes at most identityEntries of one answer, and leaves the rest to the next rounds.
const (
	identityRequests = 100
	identityEntries  = 100
	identityRetry    = 10 * time.Minute
)

// identities asks the search index for the names that projects have used before.
func (q *questions) identities(ctx context.Context) error {
	if err := q.store.ScheduleIdentities(ctx, q.now()); err != nil {
		return err
	}
	due, err := q.store.DueIdentities(ctx, q.server.String(), q.now(), lookupBatch)
	if err != nil || len(due) == 0 {
		return err
	}
	if err := q.begin(ctx); err != nil {
		return err
	}
	var failed error
	for requests := 0; len(due) > 0 && requests < identityRequests; due = due[1:] {
		n, err := q.identity(ctx, due[0])
		if err != nil && !answered(err) {
			return err
		}
		failed = worse(failed, err)
		requests += n
	}
	q.changed()
	return cmp.Or(ctx.Err(), failed)
}

// identity asks for one name, fetches what is new, and records the answer. It returns
// how many requests that took.
func (q *questions) identity(ctx context.Context, san string) (requests int, err error) {
	a := index.IdentityAnswer{At: q.now(), Next: q.next}
	requests = 1
	ids, err := q.server.v1.SearchSubject(ctx, san)
	switch {
	case err == nil:
		a.Found = len(ids)
		var read, n int
		a.Unread, read, n, err = q.readNew(ctx, ids)
		requests += n
		if a.Unread > 0 && read > 0 {
			a.Retry = q.now() // goes on in the next round
		}
	case errors.Is(err, rekor.ErrNoIndex), errors.Is(err, rekor.ErrSubject), answered(err):
		a.Err = err.Error() // and will be the same in a minute
		err = nil
	}
	if contradiction := (*monitor.Contradiction)(nil); err != nil && !errors.As(err, &contradiction) {
		if ctx.Err() != nil {
			return requests, ctx.Err()
		}
		err = fmt.Errorf("looking up %.600q on %s: %w", san, q.server, err)
		if answered(err) {
			a.Note = err.Error()
		} else {
			a.Err, a.Retry = err.Error(), q.now().Add(identityRetry)
		}
	}
	return requests, errors.Join(err, q.store.IdentityDone(ctx, q.server.String(), san, a))
}

// readNew fetches entries that are not known yet and says how many are left. Which
// ones come first is drawn by lot: ids that are never served must not stand in the way
// of those that are.
func (q *questions) readNew(ctx context.Context, ids []string) (left, read, requests int, err error) {
	name := q.server.String()
	unread, err := q.store.UnreadEntries(ctx, name, ids)
	if err != nil {
		return 0, 0, 0, err
	}
	left = len(unread)
	var failed error
	rand.Shuffle(left, func(i, j int) { unread[i], unread[j] = unread[j], unread[i] })
	for chunk := range slices.Chunk(unread[:min(left, identityEntries)], rekor.MaxEntries) {
		requests++
		entries, err := q.server.v1.Entries(ctx, nil, chunk)
		if err != nil && !answered(err) {
			return left, read, requests, err
		}
		failed = worse(failed, err)
		kept := make(map[string]bool)
		for _, e := range entries {
			if err := q.keep(ctx, e, 0); err != nil {
				failed = worse(failed, err)
				continue
			}
			kept[e.EntryID] = true
		}
		got := slices.DeleteFunc(chunk, func(id string) bool { return !kept[id] && !servedAs(kept, id) })
		left, read = left-len(got), read+len(got)
		if err := q.store.EntriesRead(ctx, name, got); err != nil {
			return left, read, requests, err
		}
	}
	return left, read, requests, failed
}

// servedAs reports whether an id that names a leaf alone was served from some tree.
func servedAs(kept map[string]bool, id string) bool {
	for k := range kept {
		if len(k) > len(id) && k[len(k)-len(id):] == id {
			return true
		}
	}
	return false
}
