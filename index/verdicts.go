package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"sigtrail/monitor"
)

// An AttestationState is how an attestation stands after it was verified.
type AttestationState string

const (
	AttestationHolds   AttestationState = "holds"
	AttestationInvalid AttestationState = "invalid" // a condition failed
	AttestationUnknown AttestationState = "unknown" // all that can be judged holds, and part of it is of an unknown kind
)

// An AttestationVerdict is what became of one attestation of a provenance object.
type AttestationVerdict struct {
	Bundle, Attestation int // its place in the object, from 0; bundles of later objects follow
	State               AttestationState
	Failed              string // the condition that failed first; "" if all hold
	Error               string // why; printable, at most a few hundred bytes
	Predicate           string // predicate type as signed
	Publisher           string // PyPI's publisher object, JSON as served
	Root                string // SHA-256 of the trusted root that gave the verdict, hex
	At                  time.Time
	Leaves              []monitor.Hash // of its log entries
}

// A Verification is what became of a provenance object.
type Verification struct {
	Root     string // SHA-256 of the trusted root in use, hex
	At       time.Time
	Doubt    bool // another trusted root may come to another verdict
	Verdicts []AttestationVerdict
}

// UnverifiedProvenance returns files whose provenance object has not been held
// against a trusted root, and those whose verdict may be another under this one
// (its SHA-256 in hex).
func (s *Store) UnverifiedProvenance(ctx context.Context, root string, limit int) ([]File, error) {
	var files []File
	err := s.each(ctx, `SELECT `+fileColumns+` FROM files f JOIN projects p ON p.id = f.project_id WHERE f.id IN (
		SELECT file_id FROM (SELECT file_id FROM unverified LIMIT ?2)
		UNION ALL SELECT file_id FROM (SELECT file_id FROM verifications WHERE doubt = 1 AND root < ?1 LIMIT ?2)
		UNION ALL SELECT file_id FROM (SELECT file_id FROM verifications WHERE doubt = 1 AND root > ?1 LIMIT ?2)) ORDER BY f.id LIMIT ?2`, []any{root, limit}, appendFile(&files))
	if err != nil {
		return nil, s.fail("reading which provenance to verify", err)
	}
	return files, nil
}

// unverified puts a file on the list of those whose provenance object is to be
// verified.
func (t *tx) unverified(id FileID) error {
	_, err := t.exec(`INSERT OR IGNORE INTO unverified (file_id) VALUES (?)`, int64(id))
	return err
}

// SaveVerification stores what became of a file's provenance object in place of what
// was stored before. With the first, the object's log entries are noted as not yet
// found in their log.
func (s *Store) SaveVerification(ctx context.Context, id FileID, v Verification) error {
	return s.write(ctx, "storing what became of a provenance", func(t *tx) error {
		s.newsOf(t, id)
		if _, err := t.exec(`INSERT OR IGNORE INTO absent_leaves (file_id, key_id, global, state, at)
			SELECT file_id, key_id, global, 'not-covered', ? FROM provenance_leaves WHERE file_id = ?`,
			v.At.UnixMicro(), int64(id)); err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO unjudged (file_id, entry_id) SELECT file_id, entry_id FROM bindings b WHERE file_id = ? AND evidence = 'provenance'
			AND EXISTS (SELECT 1 FROM verifications w WHERE w.file_id = b.file_id)
			ON CONFLICT (file_id, entry_id) DO UPDATE SET early = 0`, int64(id)); err != nil {
			return err
		}
		judged := true
		for _, a := range v.Verdicts {
			judged = judged && a.State != AttestationInvalid
		}
		if _, err := t.exec(`DELETE FROM unverified WHERE file_id = ?`, int64(id)); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM verdicts WHERE file_id = ?`, int64(id)); err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO verifications (file_id, root, at, doubt, judged) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (file_id) DO UPDATE SET root = excluded.root, at = excluded.at, doubt = excluded.doubt, judged = excluded.judged`,
			int64(id), v.Root, v.At.UnixMicro(), v.Doubt, judged); err != nil {
			return err
		}
		for _, a := range v.Verdicts {
			leaves := []byte{}
			for _, h := range a.Leaves {
				leaves = append(leaves, h[:]...)
			}
			if _, err := t.exec(`INSERT INTO verdicts (file_id, bundle, attestation, verdict, failed, error, predicate, publisher, root, at, leaves) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				int64(id), a.Bundle, a.Attestation, string(a.State), a.Failed, a.Error, a.Predicate, a.Publisher, a.Root, a.At.UnixMicro(), leaves); err != nil {
				return err
			}
		}
		return nil
	})
}

// Verdicts returns what became of each attestation of a file's provenance object, in
// the object's order. verified is false as long as nothing is known.
func (s *Store) Verdicts(ctx context.Context, id FileID) (verdicts []AttestationVerdict, verified bool, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM verifications WHERE file_id = ?)`, int64(id)).Scan(&verified)
	if err == nil {
		verdicts, err = s.verdicts(ctx, id)
	}
	if err != nil {
		return nil, false, s.fail("reading what became of a provenance", err)
	}
	return verdicts, verified, nil
}

func (s *Store) verdicts(ctx context.Context, id FileID) (all []AttestationVerdict, err error) {
	err = s.each(ctx, `SELECT bundle, attestation, verdict, failed, error, predicate, publisher, root, at, leaves FROM verdicts WHERE file_id = ? ORDER BY bundle, attestation`,
		[]any{int64(id)}, func(scan scan) error {
			var a AttestationVerdict
			var at sql.NullInt64
			var leaves []byte
			if err := scan(&a.Bundle, &a.Attestation, &a.State, &a.Failed, &a.Error, &a.Predicate, &a.Publisher, &a.Root, &at, &leaves); err != nil {
				return err
			}
			a.At = timeOf(at)
			var err error
			a.Leaves, err = split(leaves)
			all = append(all, a)
			return err
		})
	return all, err
}

// settleBatch is how many log entries are looked at under one transaction.
const settleBatch = 1000

// SettleLeaves looks again at the log entries of provenance objects that were not
// found in their log so far. Those that are there now are done with; those whose
// place is covered by another leaf are handed to the rules. It returns how many of
// the latter are new.
func (s *Store) SettleLeaves(ctx context.Context, now time.Time) (missing int, err error) {
	type place struct {
		file, global int64
		key          []byte
	}
	after := place{file: math.MinInt64, key: []byte{}}
	for {
		var found, not []place
		rows := 0
		err := s.each(ctx, `SELECT v.file_id, v.key_id, v.global, `+leafStored+`, `+leafCovered+`
			FROM absent_leaves a JOIN provenance_leaves v USING (file_id, key_id, global)
			WHERE a.state = 'not-covered' AND (a.file_id, a.key_id, a.global) > (?, ?, ?) ORDER BY a.file_id, a.key_id, a.global LIMIT ?`,
			[]any{after.file, after.key, after.global, settleBatch}, func(scan scan) error {
				var p place
				var stored, covered bool
				if err := scan(&p.file, &p.key, &p.global, &stored, &covered); err != nil {
					return err
				}
				rows, after = rows+1, p
				switch {
				case stored:
					found = append(found, p)
				case covered:
					not = append(not, p)
				}
				return nil
			})
		if err != nil {
			return missing, s.fail("reading which leaves of provenance are in the log", err)
		}
		if len(found)+len(not) > 0 {
			if err := s.write(ctx, "settling leaves of provenance", func(t *tx) error {
				for _, p := range found {
					if _, err := t.exec(`DELETE FROM absent_leaves WHERE file_id = ? AND key_id = ? AND global = ?`, p.file, p.key, p.global); err != nil {
						return err
					}
				}
				for _, p := range not {
					if _, err := t.exec(`UPDATE absent_leaves SET state = 'not-in-log', at = ? WHERE file_id = ? AND key_id = ? AND global = ?`, now.UnixMicro(), p.file, p.key, p.global); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return missing, err
			}
			missing += len(not)
		}
		if rows < settleBatch {
			return missing, nil
		}
	}
}

// A MissingLeaf is a log entry of a provenance object whose place in the log another
// leaf has.
type MissingLeaf struct {
	ProvenanceLeaf
	Log   monitor.Log
	Since time.Time // when that was found
}

// provenanceCases hands out what the rules have yet to see of provenance objects: those
// that do not hold, and those that name entries which are not in their log. They need
// no history, so they wait for nothing.
func (s *Store) provenanceCases(ctx context.Context, limit int) ([]Case, error) {
	if limit <= 0 {
		return nil, nil
	}
	var ids []caseID
	collect := func(scan scan) error {
		var id caseID
		err := scan(&id.file, &id.verified)
		ids = append(ids, id)
		return err
	}
	if err := s.each(ctx, `SELECT file_id, at FROM verifications WHERE judged = 0 ORDER BY file_id LIMIT ?`, []any{limit}, collect); err != nil {
		return nil, err
	}
	if err := s.each(ctx, `SELECT DISTINCT file_id, 0 FROM absent_leaves WHERE state = 'not-in-log' AND judged = 0 ORDER BY file_id LIMIT ?`, []any{limit - len(ids)}, collect); err != nil {
		return nil, err
	}
	var cases []Case
	for _, id := range ids {
		c := Case{id: id}
		var err error
		if c.File, c.Provenance, err = s.caseFile(ctx, id.file); err != nil {
			return nil, err
		}
		if id.verified != 0 {
			if c.Verdicts, err = s.verdicts(ctx, id.file); err != nil {
				return nil, err
			}
		} else if c.Missing, err = s.missing(ctx, id.file); err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// missing are the log entries of a file's provenance that the rules have yet to see
// as missing.
func (s *Store) missing(ctx context.Context, id FileID) (all []MissingLeaf, err error) {
	err = s.each(ctx, `SELECT v.key_id, v.global, v.leaf_hash, v.predicate, v.publisher, a.at, `+logColumns+`
		FROM absent_leaves a JOIN provenance_leaves v USING (file_id, key_id, global) JOIN logs l ON l.id = (`+logOfGlobal+`)
		WHERE a.file_id = ? AND a.state = 'not-in-log' AND a.judged = 0 ORDER BY a.key_id, a.global`, []any{int64(id)}, func(scan scan) error {
		var m MissingLeaf
		var key, hash []byte
		var at sql.NullInt64
		var log logRow
		if err := scan(append([]any{&key, &m.Global, &hash, &m.Predicate, &m.Publisher, &at}, log.dest()...)...); err != nil {
			return err
		}
		var errs [3]error
		m.KeyID, errs[0] = hashOf(key)
		m.Hash, errs[1] = hashOf(hash)
		m.Log, errs[2] = log.value()
		m.Since = timeOf(at)
		all = append(all, m)
		return errors.Join(errs[:]...)
	})
	return all, err
}

// judgedProvenance marks what a case of provenanceCases was about.
func (t *tx) judgedProvenance(c Case) error {
	if c.id.verified != 0 {
		_, err := t.exec(`UPDATE verifications SET judged = 1 WHERE file_id = ? AND at = ?`, int64(c.id.file), c.id.verified)
		return err
	}
	for _, m := range c.Missing {
		if _, err := t.exec(`UPDATE absent_leaves SET judged = 1 WHERE file_id = ? AND key_id = ? AND global = ?`, int64(c.id.file), m.KeyID[:], int64(m.Global)); err != nil {
			return err
		}
	}
	return nil
}

// verdictOn is what the verdicts on a file's provenance say of one log entry: "" when
// an attestation that contains it holds.
func verdictOn(verdicts []AttestationVerdict, leaf monitor.Hash) string {
	why := notChecked
	for _, v := range verdicts {
		for _, h := range v.Leaves {
			switch {
			case h != leaf:
			case v.State != AttestationInvalid:
				return ""
			default:
				why = strings.TrimSuffix(fmt.Sprintf("%s: %s", v.Failed, v.Error), ": ")
			}
		}
	}
	return why
}
