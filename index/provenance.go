package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"sigtrail/monitor"
)

// never is when what is not to be asked again is due.
const never = math.MaxInt64

// PendingProvenance returns the index's files whose provenance is due to be fetched, the
// longest due first. An object that is there is due again when the listing has named
// another address, and comes before those that are not.
func (c *Catalogue) PendingProvenance(ctx context.Context, now time.Time, limit int) (files []File, err error) {
	for _, due := range []string{dueAgain, dueFirst} {
		// CROSS JOIN: in the order of the index on next, and no further than the limit.
		err := c.s.each(ctx, `SELECT `+fileColumns+` FROM provenance v CROSS JOIN files f ON f.id = v.file_id CROSS JOIN projects p ON p.id = f.project_id
			WHERE p.index_id = ? AND `+due+` AND v.next <= ? AND f.provenance_url IS NOT NULL ORDER BY v.next, v.file_id LIMIT ?`,
			[]any{c.id, now.UnixMicro(), limit - len(files)}, appendFile(&files))
		if err != nil {
			return nil, c.s.fail("reading which provenance is due", err)
		}
	}
	return files, nil
}

// The conditions of the indexes provenance_again, with what never means in it, and
// provenance_pending.
const (
	dueFirst = `v.state IN ('pending', 'refused')`
	dueAgain = `v.state IN ('present', 'unreadable') AND v.next < 9223372036854775807`
)

// pendingRetry is when a provenance without an answer is asked for again where
// the caller does not say.
const pendingRetry = time.Hour

// SaveProvenance stores the index's answer for one of its files, and what changes by it
// as an event. The first object that it gave stands, because PyPI deletes provenance
// together with the file: another one is kept beside it, and one that is no longer
// found is withdrawn when it is missing for the second time, an hour later, of a file
// that is still listed. That it is not found while its file is hidden, by a quarantine
// or in a listing that is in doubt, says nothing. Entries stored already that an object names are bound.
func (c *Catalogue) SaveProvenance(ctx context.Context, id FileID, p Provenance) error {
	return c.s.write(ctx, "storing a provenance", func(t *tx) error {
		c.s.newsOf(t, id)
		a := answer{t: t, id: id, p: p}
		var sum []byte
		err := t.get(`SELECT f.sha256, f.project_id, p.serial, f.filename, coalesce(f.provenance_url, ''), f.gone IS NULL, p.status = 'quarantined' OR EXISTS (SELECT 1 FROM unlisted u WHERE u.project_id = f.project_id AND u.file_id = f.id), v.state, v.body, v.fetched FROM provenance v JOIN files f ON f.id = v.file_id JOIN projects p ON p.id = f.project_id WHERE v.file_id = ? AND p.index_id = ?`,
			[]any{int64(id), c.id}, &sum, &a.project, &a.serial, &a.name, &a.url, &a.listed, &a.hidden, &a.state, &a.first, &a.fetched)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("there is no file %d", id)
		}
		if err != nil {
			return err
		}
		if a.hidden && p.State == ProvenanceAbsent {
			return a.later()
		}
		if a.first != nil {
			err = a.again()
		} else {
			err = a.save()
		}
		if err != nil || p.State != ProvenancePresent {
			return err
		}
		var heads []monitor.Shown
		for _, note := range p.Heads {
			heads = append(heads, monitor.Shown{Note: note, Source: "provenance of " + a.name, Seen: p.Fetched})
		}
		if err := t.show(heads); err != nil {
			return err
		}
		if err := t.unverified(id); err != nil {
			return err
		}
		digest, err := hashOf(sum)
		if err != nil {
			return err
		}
		subjects, err := c.s.learn(t, File{ID: id, Name: a.name, SHA256: digest}, p.Attests)
		if err != nil {
			return err
		}
		return c.s.saveLeaves(t, id, p.Leaves, subjects)
	})
}

func (s *Store) saveLeaves(t *tx, id FileID, leaves []ProvenanceLeaf, subjects map[monitor.Hash]bool) error {
	var hashes [][32]byte
	for _, leaf := range leaves {
		if leaf.Global > math.MaxInt64 {
			continue // no log is that large: nothing to find
		}
		if _, err := t.exec(`INSERT OR IGNORE INTO provenance_leaves (file_id, key_id, global, leaf_hash, predicate, publisher, subject) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			int64(id), leaf.KeyID[:], int64(leaf.Global), leaf.Hash[:], leaf.Predicate, leaf.Publisher, subjects[leaf.Hash]); err != nil {
			return err
		}
		hashes = append(hashes, leaf.Hash)
		if err := s.joinLeaf(t, id, leaf, subjects[leaf.Hash]); err != nil {
			return err
		}
	}
	t.grown = t.grown || len(hashes) > 0
	t.then(func() { s.watch.add(hashes...) })
	return nil
}

// joinLeaf binds the entry that a provenance object names, if it is stored. If
// the leaf was proven and found to concern no file, it is fetched again.
func (s *Store) joinLeaf(t *tx, id FileID, leaf ProvenanceLeaf, subject bool) error {
	var entries []EntryID
	if err := t.each(`SELECT e.id FROM entries e JOIN logs l ON l.id = e.log_id WHERE substr(e.leaf_hash, 1, 8) = ? AND e.leaf_hash = ? AND l.key_id = ?`, []any{leaf.Hash[:8], leaf.Hash[:], leaf.KeyID[:]}, func(scan scan) error {
		var e EntryID
		err := scan(&e)
		entries = append(entries, e)
		return err
	}); err != nil {
		return err
	}
	for _, e := range entries {
		for _, b := range namedBy(id, subject) {
			if err := s.bind(t, e, b); err != nil {
				return err
			}
		}
	}
	if len(entries) > 0 {
		return nil
	}
	return t.want(leaf.KeyID, leaf.Global)
}

// want asks for a leaf again by the number that people use, if it is covered.
func (t *tx) want(key monitor.Hash, global uint64) error {
	var log, first int64
	err := t.get(`SELECT id, first_global FROM logs WHERE key_id = ? AND first_global <= ? ORDER BY first_global DESC, id LIMIT 1`, []any{key[:], int64(global)}, &log, &first)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	index := int64(global) - first
	_, err = t.exec(`INSERT OR IGNORE INTO wanted (log_id, idx) SELECT log_id, ? FROM coverage
		WHERE log_id = ? AND first = (SELECT max(first) FROM coverage WHERE log_id = ? AND first <= ?) AND past > ?`,
		index, log, log, index, index)
	return err
}
