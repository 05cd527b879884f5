package index

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"sigtrail/monitor"
)

// caseID is what a Case is about in the tables, and how much of it was seen.
type caseID struct {
	contradiction int64
	verified      int64 // when the file's provenance was verified, in microseconds; 0: the case is not about that
	file          FileID
	entry         EntryID // 0: the file itself
	bindings      int
	early         bool // without look-ups that may yet be answered
}

// patience is how many times a provenance may fail to be fetched before the rest
// of its project is judged without it: one broken address must not silence the
// alerts of a whole project.
const patience = 10

// pinPatience is the same where there are no pins yet, for a file that was there when
// the project was first listed: pins are learned from what can be had of those, and so
// are judged its entries that no provenance names. It comes to four days and more.
const pinPatience = 100

// Cases hands out what the rules have yet to judge, at most limit:
// contradictions of logs, and what does not hold of provenance objects, at
// once; entries bound to a file, and files as
// such, when their project has been listed and is settled (each file's provenance
// is known and verified, and each look-up has had one answer) or ready says that it need not be,
// because the expected publishers do not have to be learned from it; it is asked about
// Qualified names. A server that
// gives no answer is waited for no longer than lookupPatience: then the case says
// what it lacks, and entries are handed out again when the answers are there. Inside a
// project, entries that its own provenance names come first: pins are learned from
// them. For the same reason a project without pins gives one such entry at a time,
// and its other entries only when those are decided; so call Cases until it
// returns none. A provenance that is refused (403) is waited for where there are no
// pins, for as long as it takes: half a history teaches the wrong publishers.
//
// Most projects may be unsettled for days, so a call examines only those of which
// something new was stored, and some in their turn: RoundProjects once it has found
// cases, and most, or all if there are fewer, to say that there are none. Each project
// has its turn. One none of whose cases was decided since is not handed out again
// before the others had theirs.
func (s *Store) Cases(ctx context.Context, ready func(project string) bool, limit, most int) ([]Case, error) {
	cases, err := s.contradictions(ctx, limit)
	if err != nil {
		return nil, s.fail("reading contradictions to judge", err)
	}
	shown, err := s.provenanceCases(ctx, limit-len(cases))
	if err != nil {
		return nil, s.fail("reading provenance to judge", err)
	}
	cases = append(cases, shown...)
	examined := make(map[int64]bool)
	examine := func(project int64) (gave bool, err error) {
		examined[project] = true
		more, err := s.casesOf(ctx, project, ready, limit-len(cases))
		cases = append(cases, more...)
		return len(more) > 0, err
	}
	news, start := s.turns.take()
	for i, p := range news {
		if len(cases) >= limit {
			s.turns.back(news[i:])
			break
		}
		gave, err := examine(p)
		if err != nil {
			s.turns.back(news[i:])
			return nil, err
		}
		if gave {
			s.turns.hand(p)
		}
	}
	// Once round, from where the last call has stopped.
	at, end := start, int64(math.MaxInt64)
	for n := 0; len(cases) < limit && n < most && (len(cases) == 0 || n < RoundProjects); {
		ask := min(turnsAtOnce, most-n)
		projects, err := s.nextTurns(ctx, at, end, ask)
		if err != nil {
			return nil, s.fail("reading which projects to judge", err)
		}
		for _, p := range projects {
			if len(cases) >= limit {
				break
			}
			n++
			gave := false
			if !examined[p] {
				if gave, err = examine(p); err != nil {
					return nil, err
				}
			}
			s.turns.pass(p, gave)
			at = p
		}
		if len(projects) < ask {
			if end == start || start == 0 {
				break
			}
			at, end = 0, start
		}
	}
	if len(cases) == 0 {
		s.turns.keep(sums{})
	}
	return cases, nil
}

// casesOf returns the cases of a project, none if it has to wait.
func (s *Store) casesOf(ctx context.Context, id int64, ready func(project string) bool, limit int) ([]Case, error) {
	p := projectID{id: id}
	stmt, err := s.prepared(ctx, `SELECT `+indexName+`, p.name FROM projects p WHERE p.id = ? AND p.listed IS NOT NULL`)
	if err == nil {
		err = stmt.QueryRowContext(ctx, id).Scan(&p.index, &p.name)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, s.fail("reading a project to judge", err)
	}
	var lacking []Unanswered
	learning := ready == nil || !ready(Qualified(p.index, p.name))
	if learning {
		var settled bool
		if settled, lacking, err = s.settled(ctx, id); err != nil {
			return nil, s.fail("reading whether a project is settled", err)
		}
		if !settled {
			return nil, nil
		}
	}
	cases, err := s.projectCases(ctx, p, learning, lacking, limit)
	if err != nil {
		return nil, s.fail("reading cases of "+Qualified(p.index, p.name), err)
	}
	return cases, nil
}

func (s *Store) contradictions(ctx context.Context, limit int) ([]Case, error) {
	var cases []Case
	err := s.eachContradiction(ctx, `c.judged = 0 ORDER BY c.id LIMIT ?`, []any{limit}, func(id int64, c monitor.Contradiction) error {
		cases = append(cases, Case{Contradiction: &c, id: caseID{contradiction: id}})
		return nil
	})
	return cases, err
}

type projectID struct {
	id    int64
	index string // "": PyPI
	name  string
}

// givenUp says, in SQL, of a look-up k and what its server v was asked that it is given
// up for now: it, or all that the server was asked, has failed since the time ?2. One
// that waits for its turn is not.
const givenUp = `coalesce(k.error <> '' AND k.first <= ?2 OR v.failing <= ?2, FALSE)`

// unsettled finds something that the project ?1, with its files from ?3 to ?4, has to
// wait for. What most projects wait for comes first.
const unsettled = `SELECT EXISTS (
	SELECT 1 FROM lookups k LEFT JOIN lookup_servers v ON v.server = k.server WHERE k.step = 0 AND k.file_id BETWEEN ?3 AND ?4 AND NOT ` + givenUp + `
	UNION ALL SELECT 1 FROM unverified WHERE file_id BETWEEN ?3 AND ?4
	UNION ALL SELECT 1 FROM files f CROSS JOIN provenance v ON v.file_id = f.id WHERE f.project_id = ?1 AND
		(v.state = 'pending' AND v.tries < ?5 OR (v.state = 'refused' OR v.state = 'pending' AND v.tries < ?6 AND f.first_listing) AND NOT EXISTS (SELECT 1 FROM pins n WHERE n.project_id = ?1)))`

// settled reports whether a project can be judged, and without which answers.
func (s *Store) settled(ctx context.Context, project int64) (settled bool, lacking []Unanswered, err error) {
	stmt, err := s.prepared(ctx, unsettled)
	if err != nil {
		return false, nil, err
	}
	first, last := projectRange(project)
	var waiting bool
	if err := stmt.QueryRowContext(ctx, project, s.now().Add(-lookupPatience).UnixMicro(), first, last, patience, pinPatience).Scan(&waiting); err != nil || waiting {
		return false, nil, err
	}
	err = s.each(ctx, `SELECT k.server, min(coalesce(v.failing, k.first)) FROM lookups k LEFT JOIN lookup_servers v ON v.server = k.server
		WHERE k.step = 0 AND k.file_id BETWEEN ? AND ? GROUP BY k.server ORDER BY k.server`, []any{first, last}, func(scan scan) error {
		var u Unanswered
		var since sql.NullInt64
		err := scan(&u.Server, &since)
		u.Since = timeOf(since)
		lacking = append(lacking, u)
		return err
	})
	return true, lacking, err
}

// A pair is a file and an entry that have yet to be judged together.
type pair struct {
	file  FileID
	entry EntryID
	named bool // by the file's provenance
}

// projectCases builds the cases of one project.
func (s *Store) projectCases(ctx context.Context, p projectID, learning bool, lacking []Unanswered, limit int) ([]Case, error) {
	pins, err := s.pins(ctx, p)
	if err != nil {
		return nil, err
	}
	tries := 0
	if learning {
		tries = pinPatience
	}
	pairs, err := s.pairs(ctx, p.id, len(pins) > 0, len(lacking) > 0, tries, limit)
	if err != nil {
		return nil, err
	}
	files, err := s.unjudgedFiles(ctx, p.id, limit-len(pairs))
	if err != nil {
		return nil, err
	}
	if len(pairs)+len(files) == 0 {
		return nil, nil
	}
	releases, known := s.turns.known(p.id)
	if !known {
		if releases, err = s.releases(ctx, p.id); err != nil {
			return nil, err
		}
	}
	if len(pairs)+len(files) >= limit {
		s.turns.keep(sums{p.id, releases})
	}
	cases := make([]Case, 0, len(pairs)+len(files))
	for _, pr := range append(pairs, files...) {
		c := Case{Pins: pins, Releases: releases, Lacking: lacking, id: caseID{file: pr.file, entry: pr.entry, early: len(lacking) > 0}}
		if c.File, c.Provenance, err = s.caseFile(ctx, pr.file); err != nil {
			return nil, err
		}
		if pr.entry != 0 {
			if c.Bindings, err = s.pairBindings(ctx, pr.file, pr.entry); err != nil {
				return nil, err
			}
			c.id.bindings = len(c.Bindings)
			if c.Shown, err = s.shownElsewhere(ctx, c.File, pr.entry); err != nil {
				return nil, err
			}
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// How long after it was seen an entry that its own index does not show waits for other
// indexes to show it: a release that goes to two of them is signed and uploaded twice,
// and the log is often read first.
const (
	elsewhereGrace = 10 * time.Minute // where another index has a project of the name
	elsewhereWait  = time.Hour        // where another has the file, and its provenance is still to be had
)

// pairs returns one kind at a time: first the entries that provenance names. Early
// are those that have been judged so only when they can be judged for good. Those of
// a file whose provenance has yet to be verified come later, and so do, of a file that
// was listed first, those that its provenance may yet name: it is tried tries times.
func (s *Store) pairs(ctx context.Context, project int64, pinned, early bool, tries, limit int) ([]pair, error) {
	var pairs []pair
	err := s.each(ctx, `SELECT u.file_id, u.entry_id, EXISTS (SELECT 1 FROM bindings b WHERE b.file_id = u.file_id AND b.entry_id = u.entry_id AND b.evidence = 'provenance') AS named
		FROM unjudged u JOIN files f ON f.id = u.file_id JOIN entries e ON e.id = u.entry_id WHERE f.project_id = ? AND NOT (u.early = 1 AND ?)
			AND NOT EXISTS (SELECT 1 FROM unverified n WHERE n.file_id = u.file_id)
			AND (named OR NOT EXISTS (SELECT 1 FROM provenance v WHERE f.first_listing AND v.file_id = f.id AND v.state = 'pending' AND v.tries < ?))
			AND (named OR NOT (e.seen > ? AND EXISTS (SELECT 1 FROM projects p JOIN projects o ON o.name = p.name AND o.id <> p.id WHERE p.id = f.project_id)
				OR e.seen > ? AND EXISTS (SELECT 1 FROM files g JOIN provenance v ON v.file_id = g.id
					WHERE g.sha256 = f.sha256 AND g.filename = f.filename AND g.project_id <> f.project_id AND v.state = 'pending')))
		ORDER BY named DESC, coalesce(f.uploaded, f.first_seen), u.file_id, u.entry_id LIMIT ?`, []any{project, early, tries, s.now().Add(-elsewhereGrace).UnixMicro(), s.now().Add(-elsewhereWait).UnixMicro(), limit}, func(scan scan) error {
		var p pair
		err := scan(&p.file, &p.entry, &p.named)
		pairs = append(pairs, p)
		return err
	})
	if len(pairs) == 0 || !pairs[0].named {
		return pairs, err
	}
	pairs = slices.DeleteFunc(pairs, func(p pair) bool { return !p.named })
	if !pinned {
		pairs = pairs[:1]
	}
	return pairs, err
}

func (s *Store) unjudgedFiles(ctx context.Context, project int64, limit int) ([]pair, error) {
	var files []pair
	err := s.each(ctx, `SELECT f.id FROM files f JOIN provenance v ON v.file_id = f.id
		WHERE f.project_id = ? AND f.judged = 0 AND v.state IN ('present', 'absent', 'unreadable')
		ORDER BY coalesce(f.uploaded, f.first_seen), f.id LIMIT ?`, []any{project, max(limit, 0)}, func(scan scan) error {
		var p pair
		err := scan(&p.file)
		files = append(files, p)
		return err
	})
	return files, err
}

func (s *Store) caseFile(ctx context.Context, id FileID) (*File, ProvenanceState, error) {
	var r fileRow
	var state ProvenanceState
	if err := s.db.QueryRowContext(ctx, `SELECT `+fileColumns+`, v.state FROM files f JOIN projects p ON p.id = f.project_id JOIN provenance v ON v.file_id = f.id WHERE f.id = ?`, int64(id)).
		Scan(append(r.dest(), &state)...); err != nil {
		return nil, "", err
	}
	f, err := r.value()
	return &f, state, err
}

// evidenceOrder ranks evidence, strongest first.
var evidenceOrder = map[Evidence]int{ByStatement: 0, ByProvenance: 1, ByArtifact: 2, BySubject: 3}

// evidenceBits are the rows of evidence_kinds, strongest first.
var evidenceBits = []struct {
	bit      int64
	evidence Evidence
	checked  bool // rests on a form, and its signature was checked
}{
	{1, ByStatement, true}, {2, ByProvenance, false}, {4, ByArtifact, true}, {8, BySubject, false},
}

func (s *Store) pairBindings(ctx context.Context, file FileID, entry EntryID) ([]Binding, error) {
	e, err := s.stored(ctx, entry)
	if err != nil {
		return nil, err
	}
	verdicts, err := s.verdicts(ctx, file)
	if err != nil {
		return nil, err
	}
	var bindings []Binding
	err = s.each(ctx, `SELECT evidence, form, signature FROM bindings WHERE file_id = ? AND entry_id = ?`, []any{int64(file), int64(entry)}, func(scan scan) error {
		b := Binding{Entry: e}
		err := scan(&b.Evidence, &b.Form, &b.Signature)
		if b.Evidence == ByProvenance {
			b.Signature = verdictOn(verdicts, e.Hash)
		}
		bindings = append(bindings, b)
		return err
	})
	slices.SortFunc(bindings, func(a, b Binding) int {
		return cmp.Compare(evidenceOrder[a.Evidence], evidenceOrder[b.Evidence])
	})
	return bindings, err
}

func (s *Store) pins(ctx context.Context, p projectID) ([]Pin, error) {
	var pins []Pin
	err := s.each(ctx, `SELECT b.issuer, b.repository, b.repository_id, b.owner, b.owner_id, b.workflow, b.environment, b.identity, n.state, n.how, n.made
		FROM pins n JOIN publishers b ON b.id = n.publisher_id WHERE n.project_id = ? ORDER BY n.id`, []any{p.id}, func(scan scan) error {
		pin := Pin{Index: p.index, Project: p.name}
		var made sql.NullInt64
		u := &pin.Publisher
		err := scan(&u.Issuer, &u.Repository, &u.RepositoryID, &u.Owner, &u.OwnerID, &u.Workflow, &u.Environment, &u.Identity, &pin.State, &pin.How, &made)
		pin.Made = timeOf(made)
		pins = append(pins, pin)
		return err
	})
	return pins, err
}

// releases sums up the project's versions by their first upload.
func (s *Store) releases(ctx context.Context, project int64) ([]Release, error) {
	var releases []Release
	err := s.each(ctx, `SELECT f.version, min(coalesce(f.uploaded, f.first_seen)) AS first, count(*), sum(v.state = 'present')
		FROM files f JOIN provenance v ON v.file_id = f.id WHERE f.project_id = ? GROUP BY f.version ORDER BY first, f.version`, []any{project}, func(scan scan) error {
		var r Release
		var first sql.NullInt64
		err := scan(&r.Version, &first, &r.Files, &r.Attested)
		r.First = timeOf(first)
		releases = append(releases, r)
		return err
	})
	return releases, err
}

// Decide stores a verdict with the mark that its case has been judged, and
// returns the alerts that are new. Evidence that came after the case was handed
// out is not judged by it: such a case is handed out again.
func (s *Store) Decide(ctx context.Context, c Case, v Verdict) (raised []Alert, err error) {
	err = s.write(ctx, "storing a verdict", func(t *tx) error {
		raised = nil
		for _, p := range v.Pins {
			if err := t.pin(p); err != nil {
				return fmt.Errorf("pin for %s: %w", p.Project, err)
			}
		}
		var err error
		if raised, err = t.raise(v.Alerts, v.Sinks, s.now()); err != nil {
			return err
		}
		return t.judged(c)
	})
	if err != nil {
		return nil, err
	}
	s.turns.decide()
	return raised, nil
}

func (t *tx) pin(p Pin) error {
	publisher, err := t.publisherID(p.Publisher)
	if err != nil {
		return err
	}
	index, err := t.index(p.Index)
	if err != nil {
		return err
	}
	project, err := t.project(index, p.Project, p.Made)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT OR IGNORE INTO pins (project_id, publisher_id, state, how, made) VALUES (?, ?, ?, ?, ?)`,
		project.id, publisher, string(p.State), p.How, p.Made.UnixMicro())
	return err
}

func (t *tx) judged(c Case) error {
	var err error
	switch {
	case c.id.contradiction != 0:
		_, err = t.exec(`UPDATE contradictions SET judged = 1 WHERE id = ?`, c.id.contradiction)
	case c.id.verified != 0 || len(c.Missing) > 0:
		err = t.judgedProvenance(c)
	case c.id.entry != 0 && c.id.early:
		_, err = t.exec(`UPDATE unjudged SET early = 1 WHERE file_id = ? AND entry_id = ? AND (SELECT count(*) FROM bindings WHERE file_id = ? AND entry_id = ?) = ?`,
			int64(c.id.file), int64(c.id.entry), int64(c.id.file), int64(c.id.entry), c.id.bindings)
	case c.id.entry != 0:
		_, err = t.exec(`DELETE FROM unjudged WHERE file_id = ? AND entry_id = ? AND (SELECT count(*) FROM bindings WHERE file_id = ? AND entry_id = ?) = ?`,
			int64(c.id.file), int64(c.id.entry), int64(c.id.file), int64(c.id.entry), c.id.bindings)
	case c.id.file != 0:
		_, err = t.exec(`UPDATE files SET judged = 1 WHERE id = ? AND EXISTS (SELECT 1 FROM provenance WHERE file_id = ? AND state = ?)`,
			int64(c.id.file), int64(c.id.file), string(c.Provenance))
	default:
		return errors.New("a verdict on a case that did not come from Cases")
	}
	return err
}

// storedColumns are those that storedRow wants, of entries e, logs l, heads h,
// (left joined) proofs o, and leafTables.
const storedColumns = `e.id, ` + logColumns + `, e.idx, e.leaf_hash, e.trust, e.integrated, e.set_valid, ` + headColumns + `, o.proof, e.seen, ` + leafColumns

// A storedRow collects storedColumns.
type storedRow struct {
	id         EntryID
	log        logRow
	index      uint64
	hash       []byte
	trust      string
	integrated sql.NullInt64
	setValid   bool
	head       headRow
	proof      []byte
	seen       sql.NullInt64
	leafRow
}

func (r *storedRow) dest() []any {
	d := append([]any{&r.id}, r.log.dest()...)
	d = append(d, &r.index, &r.hash, &r.trust, &r.integrated, &r.setValid)
	d = append(d, r.head.dest()...)
	d = append(d, &r.proof, &r.seen)
	return append(d, r.leafRow.dest()...)
}

func (r *storedRow) value() (Stored, error) {
	l, err := r.log.value()
	errs := []error{err}
	leaf, set, err := r.leaf()
	errs = append(errs, err)
	e := Stored{ID: r.id, Log: l, Trust: r.trust, SETValid: r.setValid, Seen: timeOf(r.seen),
		Leaf: monitor.Leaf{Index: r.index, Data: leaf, IntegratedTime: r.integrated.Int64, SET: set}}
	e.Hash, err = hashOf(r.hash)
	errs = append(errs, err)
	e.Head, err = r.head.value(l.Origin)
	errs = append(errs, err)
	e.Proof, err = split(r.proof)
	errs = append(errs, err)
	e.Entry, _ = decode(leaf)
	if r.der != nil {
		if signer, err := ParseSigner(r.der); err == nil {
			e.Signer = &signer
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Stored{}, fmt.Errorf("entry %d: %w", r.id, err)
	}
	return e, nil
}

const storedTables = `entries e JOIN logs l ON l.id = e.log_id JOIN heads h ON h.id = e.head_id LEFT JOIN proofs o ON o.entry_id = e.id` + leafTables

func (s *Store) stored(ctx context.Context, id EntryID) (Stored, error) {
	var r storedRow
	if err := s.db.QueryRowContext(ctx, strings.Join([]string{`SELECT `, storedColumns, ` FROM `, storedTables, ` WHERE e.id = ?`}, ""), int64(id)).Scan(r.dest()...); err != nil {
		return Stored{}, err
	}
	return r.value()
}
