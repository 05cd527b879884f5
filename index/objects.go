package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// provenanceMissing is how far apart two answers have to be that an object is not
// found: caches answer from an old copy for as long as PyPI does not tell them.
const provenanceMissing = time.Hour

// An answer is one about a file's provenance on its way into the tables.
type answer struct {
	t       *tx
	id      FileID
	p       Provenance
	project int64
	serial  int64 // of the project's listing
	name    string
	url     string
	listed  bool
	hidden  bool // by a quarantine, or one listing lacked it that may be a cache's
	state   ProvenanceState
	first   []byte // object that was served first; nil: none yet
	fetched sql.NullInt64
}

// next is when to ask again.
func (a *answer) next() int64 {
	switch {
	case !a.p.Retry.IsZero():
		return a.p.Retry.UnixMicro()
	case a.p.State == ProvenancePending:
		return a.p.Fetched.Add(pendingRetry).UnixMicro()
	}
	return never
}

func (a *answer) event(kind EventKind, before, after *string, first time.Time) error {
	return a.t.record(a.project, pypiEvent{file: a.id, kind: kind, at: a.p.Fetched, first: first, source: FromIntegrity, serial: 0, since: a.serial, before: before, after: after})
}

func hexOf(body []byte) *string {
	s := fmt.Sprintf("%x", sha256.Sum256(body))
	return &s
}

// later has the object asked for again after an answer that says nothing about it. The
// rest of the project is judged without it: a quarantine is when alerts matter.
func (a *answer) later() error {
	_, err := a.t.exec(`UPDATE provenance SET tries = max(tries + 1, ?), next = ?, error = ? WHERE file_id = ?`,
		patience, a.p.Fetched.Add(pendingRetry).UnixMicro(), "not found while the file is not listed", int64(a.id))
	return err
}

// save stores an answer while there is no object.
func (a *answer) save() error {
	if _, err := a.t.exec(`UPDATE provenance SET state = ?, body = ?, fetched = ?, tries = tries + 1, next = ?, error = ? WHERE file_id = ?`,
		string(a.p.State), a.p.Body, micros(a.p.Fetched), a.next(), a.p.Error, int64(a.id)); err != nil {
		return err
	}
	switch {
	case a.p.Body != nil:
		return a.event(EventProvenanceSeen, nil, hexOf(a.p.Body), time.Time{})
	case a.p.State == ProvenanceAbsent && a.state != ProvenanceAbsent && a.url != "" && a.listed:
		return a.event(EventProvenanceWithdrawn, &a.url, nil, time.Time{})
	}
	return nil
}

// again stores an answer beside the object that was served first.
func (a *answer) again() error {
	if a.p.State == ProvenanceAbsent {
		return a.missing()
	}
	if _, err := a.t.exec(`UPDATE provenance SET next = ?, tries = tries + 1, error = ? WHERE file_id = ?`, a.next(), a.p.Error, int64(a.id)); err != nil || a.p.Body == nil {
		return err
	}
	if _, err := a.t.exec(`DELETE FROM provenance_missing WHERE file_id = ?`, int64(a.id)); err != nil {
		return err
	}
	latest, err := a.latest()
	if err != nil || latest == *hexOf(a.p.Body) {
		return err
	}
	keep, seen := a.p.Body, a.p.Fetched.UnixMicro()
	switch {
	case a.state == ProvenanceUnreadable && a.p.State == ProvenancePresent:
		// The first one that can be read takes the place of one that could not.
		keep, seen = a.first, a.fetched.Int64
		_, err = a.t.exec(`UPDATE provenance SET state = ?, body = ?, fetched = ? WHERE file_id = ?`, string(a.p.State), a.p.Body, a.p.Fetched.UnixMicro(), int64(a.id))
	case bytes.Equal(keep, a.first):
		keep = nil
	}
	if err == nil && keep != nil {
		sum := sha256.Sum256(keep)
		_, err = a.t.exec(`INSERT OR IGNORE INTO provenance_later (file_id, sha256, seen, body) VALUES (?, ?, ?, ?)`, int64(a.id), sum[:], seen, keep)
	}
	if err != nil {
		return err
	}
	return a.event(EventProvenanceChanged, &latest, hexOf(a.p.Body), time.Time{})
}

// latest is the SHA-256 of the object that was served last.
func (a *answer) latest() (sum string, err error) {
	err = a.t.get(`SELECT after FROM pypi_events WHERE project_id = ? AND file_id = ? AND kind = 'provenance-changed' ORDER BY n DESC LIMIT 1`, []any{a.project, int64(a.id)}, &sum)
	if errors.Is(err, sql.ErrNoRows) {
		return *hexOf(a.first), nil
	}
	return sum, err
}

// missing decides what it means that an object is not found any more.
func (a *answer) missing() error {
	if !a.listed || a.url == "" {
		_, err := a.t.exec(`UPDATE provenance SET next = ? WHERE file_id = ?`, never, int64(a.id)) // it went with its file, or was not named any more
		return err
	}
	var micros int64
	err := a.t.get(`SELECT first FROM provenance_missing WHERE file_id = ?`, []any{int64(a.id)}, &micros)
	first := time.UnixMicro(micros).UTC()
	if errors.Is(err, sql.ErrNoRows) {
		first = a.p.Fetched
		_, err = a.t.exec(`INSERT INTO provenance_missing (file_id, first) VALUES (?, ?)`, int64(a.id), first.UnixMicro())
	}
	if err != nil {
		return err
	}
	if a.p.Fetched.Sub(first) < provenanceMissing {
		_, err := a.t.exec(`UPDATE provenance SET next = ? WHERE file_id = ?`, first.Add(provenanceMissing).UnixMicro(), int64(a.id))
		return err
	}
	if _, err := a.t.exec(`UPDATE provenance SET next = ? WHERE file_id = ?`, never, int64(a.id)); err != nil {
		return err
	}
	if _, err := a.t.exec(`DELETE FROM provenance_missing WHERE file_id = ?`, int64(a.id)); err != nil {
		return err
	}
	return a.event(EventProvenanceWithdrawn, &a.url, nil, first)
}

// askAgain has a file's provenance asked for again after the listing has said
// something new about it.
func (t *tx) askAgain(f File, at time.Time) error {
	if f.ProvenanceURL == "" {
		// Nothing is left to ask. What was fetched before stays.
		_, err := t.exec(`UPDATE provenance SET state = CASE WHEN state IN ('pending', 'refused') THEN 'absent' ELSE state END, next = ? WHERE file_id = ?`, never, int64(f.ID))
		return err
	}
	_, err := t.exec(`UPDATE provenance SET state = CASE state WHEN 'absent' THEN 'pending' ELSE state END, tries = 0, next = ?, error = '' WHERE file_id = ?`, at.UnixMicro(), int64(f.ID))
	return err
}

// A ProvenanceObject is one that was served for a file, byte for byte.
type ProvenanceObject struct {
	SHA256 [32]byte
	Seen   time.Time // first
	Body   []byte
}

// ProvenanceObjects hands out all objects that were served for a file, the first one
// first.
func (s *Store) ProvenanceObjects(ctx context.Context, id FileID, each func(ProvenanceObject) error) error {
	err := s.each(ctx, `SELECT 0 AS later, fetched, body FROM provenance WHERE file_id = ?1 AND body IS NOT NULL
		UNION ALL SELECT 1, seen, body FROM provenance_later WHERE file_id = ?1 ORDER BY 2, later`, []any{int64(id)}, func(scan scan) error {
		var later bool
		var seen sql.NullInt64
		var o ProvenanceObject
		if err := scan(&later, &seen, &o.Body); err != nil {
			return err
		}
		o.SHA256, o.Seen = sha256.Sum256(o.Body), timeOf(seen)
		return each(o)
	})
	if err != nil {
		return s.fail("reading provenance objects", err)
	}
	return nil
}
