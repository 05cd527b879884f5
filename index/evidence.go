package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"sigtrail/monitor"
)

// ErrNoContradiction reports an id that no contradiction has.
var ErrNoContradiction = errors.New("no such contradiction")

// Contradictions calls each for every contradiction that accuses a log, the oldest
// first, with its id. An error of each ends it and is returned.
func (s *Store) Contradictions(ctx context.Context, each func(id int64, c monitor.Contradiction) error) error {
	if err := s.eachContradiction(ctx, `c.kind NOT IN (?, ?) ORDER BY c.id`, []any{monitor.Stalled, monitor.CoverageGap}, each); err != nil {
		return s.fail("reading contradictions", err)
	}
	return nil
}

// Contradiction returns one, ErrNoContradiction if there is none with that id.
func (s *Store) Contradiction(ctx context.Context, id int64) (monitor.Contradiction, error) {
	var found *monitor.Contradiction
	err := s.eachContradiction(ctx, `c.id = ?`, []any{id}, func(_ int64, c monitor.Contradiction) error {
		found = &c
		return nil
	})
	switch {
	case err != nil:
		return monitor.Contradiction{}, s.fail("reading a contradiction", err)
	case found == nil:
		return monitor.Contradiction{}, fmt.Errorf("%w: %d", ErrNoContradiction, id)
	}
	return *found, nil
}

func (s *Store) eachContradiction(ctx context.Context, where string, args []any, each func(int64, monitor.Contradiction) error) error {
	return s.each(ctx, `SELECT `+contradictionColumns+` FROM contradictions c JOIN logs l ON l.id = c.log_id WHERE `+where, args, func(scan scan) error {
		id, c, err := scanContradiction(scan)
		if err != nil {
			return fmt.Errorf("contradiction %d: %w", id, err)
		}
		return each(id, c)
	})
}

// contradictionColumns are those that scanContradiction wants, of contradictions c
// and logs l.
const contradictionColumns = `c.id, c.kind, ` + logColumns + `, c.subject, c.ours, c.ours_seen, c.ours_source,
	c.theirs, c.theirs_seen, c.theirs_source, c.proof, c.claim, c.detail, c.seen`

func scanContradiction(scan scan) (id int64, c monitor.Contradiction, err error) {
	var r logRow
	var ours, theirs struct {
		note   []byte
		seen   sql.NullInt64
		source string
	}
	var proof, claim []byte
	var seen sql.NullInt64
	if err := scan(append(append([]any{&id, &c.Kind}, r.dest()...), &c.Subject, &ours.note, &ours.seen, &ours.source,
		&theirs.note, &theirs.seen, &theirs.source, &proof, &claim, &c.Detail, &seen)...); err != nil {
		return id, c, err
	}
	if c.Log, err = r.value(); err != nil {
		return id, c, err
	}
	c.Ours, c.Theirs = readSide(ours.note, c.Log.Origin), readSide(theirs.note, c.Log.Origin)
	c.Ours.Seen, c.Ours.Source = timeOf(ours.seen), ours.source
	c.Theirs.Seen, c.Theirs.Source = timeOf(theirs.seen), theirs.source
	c.At = timeOf(seen)
	if len(claim) > 0 {
		if err := json.Unmarshal(claim, &c.Claim); err != nil {
			return id, c, err
		}
	}
	c.Proof, err = split(proof)
	return id, c, err
}

// claimText is the stored form of a claim, NULL for none.
func claimText(c *monitor.Claim) (any, error) {
	if c == nil {
		return nil, nil
	}
	b, err := json.Marshal(c)
	return string(b), err
}

// readSide reads one side of a contradiction again from its signed bytes, which
// are the evidence. Nobody vouches for them here: they were judged when kept.
func readSide(note []byte, origin string) monitor.Head {
	if len(note) == 0 {
		return monitor.Head{}
	}
	h, err := monitor.ParseHead(note, origin, nil)
	if err != nil && !errors.Is(err, monitor.ErrForeignHead) {
		return monitor.Head{Origin: origin, Note: note}
	}
	return h
}
