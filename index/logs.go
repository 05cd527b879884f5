package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"sigtrail/monitor"
)

// logColumns are those that scanLog wants, of a table or alias l.
const logColumns = `l.origin, l.key_id, l.api, l.url, l.key, l.tree_id, l.first_global, l.closed`

// A logRow collects logColumns.
type logRow struct {
	log  monitor.Log
	key  []byte
	api  string
	tree string
}

func (r *logRow) dest() []any {
	return []any{&r.log.Origin, &r.key, &r.api, &r.log.URL, &r.log.Key, &r.tree, &r.log.FirstGlobal, &r.log.Closed}
}

func (r *logRow) value() (monitor.Log, error) {
	l := r.log
	var err error
	if l.KeyID, err = hashOf(r.key); err != nil {
		return l, err
	}
	l.API = monitor.API(r.api)
	l.TreeID, err = strconv.ParseUint(r.tree, 10, 64)
	return l, err
}

func hashOf(b []byte) (monitor.Hash, error) {
	if len(b) != len(monitor.Hash{}) {
		return monitor.Hash{}, fmt.Errorf("a hash of %d bytes", len(b))
	}
	return monitor.Hash(b), nil
}

// logID makes the log's row, or brings what may change of it up to date. A log
// that has closed stays closed until Contradict says that it was opened again. Its
// first index is the server's word, and stays once a head was verified.
func (t *tx) logID(l monitor.Log) (int64, error) {
	if l.FirstGlobal > math.MaxInt64 {
		return 0, fmt.Errorf("log %q: first index %d", l.Origin, l.FirstGlobal)
	}
	var id int64
	err := t.get(`INSERT INTO logs (origin, key_id, api, url, key, tree_id, first_global, closed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (origin, key_id) DO UPDATE SET url = excluded.url, key = iif(excluded.key = '', key, excluded.key),
			first_global = iif(EXISTS (SELECT 1 FROM heads h WHERE h.log_id = logs.id AND h.verified = 1), first_global, excluded.first_global), closed = max(closed, excluded.closed)
		RETURNING id`,
		[]any{l.Origin, l.KeyID[:], string(l.API), l.URL, l.Key, strconv.FormatUint(l.TreeID, 10), int64(l.FirstGlobal), l.Closed}, &id)
	return id, err
}

const headColumns = `h.size, h.root, h.text, h.note, h.seen, h.source`

type headRow struct {
	head monitor.Head
	root []byte
	seen sql.NullInt64
}

func (r *headRow) dest() []any {
	return []any{&r.head.Size, &r.root, &r.head.Text, &r.head.Note, &r.seen, &r.head.Source}
}

func (r *headRow) value(origin string) (monitor.Head, error) {
	h := r.head
	var err error
	h.Root, err = hashOf(r.root)
	h.Origin, h.Seen = origin, timeOf(r.seen)
	return h, err
}

// Latest implements monitor.Store.
func (s *Store) Latest(ctx context.Context, l monitor.Log) (monitor.Head, bool, error) {
	return s.head(ctx, l, "loading the newest head",
		`SELECT `+headColumns+` FROM heads h JOIN logs l ON l.id = h.log_id
		WHERE l.origin = ? AND l.key_id = ? AND h.verified = 1 ORDER BY h.size DESC, h.id DESC LIMIT 1`)
}

// HeadAt implements monitor.Store.
func (s *Store) HeadAt(ctx context.Context, l monitor.Log, size uint64) (monitor.Head, bool, error) {
	if size > math.MaxInt64 {
		return monitor.Head{}, false, nil
	}
	return s.head(ctx, l, "loading a head",
		`SELECT `+headColumns+` FROM heads h JOIN logs l ON l.id = h.log_id
		WHERE l.origin = ? AND l.key_id = ? AND h.verified = 1 AND h.size = ? ORDER BY h.id LIMIT 1`, int64(size))
}

func (s *Store) head(ctx context.Context, l monitor.Log, doing, query string, more ...any) (monitor.Head, bool, error) {
	var r headRow
	err := s.db.QueryRowContext(ctx, query, append([]any{l.Origin, l.KeyID[:]}, more...)...).Scan(r.dest()...)
	if errors.Is(err, sql.ErrNoRows) {
		return monitor.Head{}, false, nil
	}
	h, bad := r.value(l.Origin)
	if err = errors.Join(err, bad); err != nil {
		return monitor.Head{}, false, s.fail(doing, err)
	}
	return h, true, nil
}

// LatestHeads returns the largest verified head of every log that has one, with
// the cosignatures that were seen on it, by origin.
func (s *Store) LatestHeads(ctx context.Context) ([]monitor.Head, error) {
	logs, err := s.logs(ctx, `ORDER BY l.origin, l.id`)
	if err != nil {
		return nil, err
	}
	var heads []monitor.Head
	for _, l := range logs {
		h, ok, err := s.Latest(ctx, l)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if h.Cosigned, err = s.cosignatures(ctx, l, h.Text); err != nil {
			return nil, s.fail("reading cosignatures", err)
		}
		heads = append(heads, h)
	}
	return heads, nil
}

// SaveHead implements monitor.Store.
func (s *Store) SaveHead(ctx context.Context, l monitor.Log, h, ours monitor.Head) error {
	return s.write(ctx, "keeping a head", func(t *tx) error {
		log, err := t.logID(l)
		if err != nil {
			return err
		}
		var largest sql.NullInt64
		if err := t.get(`SELECT max(size) FROM heads WHERE log_id = ? AND verified = 1`, []any{log}, &largest); err != nil {
			return err
		}
		if uint64(largest.Int64) != ours.Size {
			return monitor.ErrConflict
		}
		id, err := t.headID(log, h)
		if err == nil {
			err = t.cosigned(id, h.Cosigned)
		}
		if err != nil {
			return err
		}
		if h.Source != "" {
			return nil
		}
		if err := t.habit(log, h, !largest.Valid || int64(h.Size) > largest.Int64); err != nil || !l.Closed {
			return err
		}
		_, err = t.exec(`UPDATE logs SET closed_size = (SELECT max(size) FROM heads WHERE log_id = logs.id AND verified = 1) WHERE id = ? AND closed_size IS NULL`, log)
		return err
	})
}

// maxCosignatures bounds those kept of one head: a server may add other ones with
// each answer. A note has as many lines at most.
const maxCosignatures = 100

// cosigned keeps the cosignatures of a head. The same witness signs again with
// another time; what a configured witness has signed stays.
func (t *tx) cosigned(head int64, all []monitor.Cosignature) error {
	for _, c := range all {
		var at any
		if !c.At.IsZero() {
			at = c.At.UnixMicro()
		}
		if _, err := t.exec(`INSERT INTO cosignatures (head_id, name, hint, at, line, verified)
			SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE ?6 OR (SELECT count(*) FROM cosignatures WHERE head_id = ?1) < ?7
			ON CONFLICT (head_id, name, hint) DO UPDATE SET at = excluded.at, line = excluded.line, verified = excluded.verified WHERE excluded.verified > verified`,
			head, c.Name, int64(c.Hint), at, c.Line, c.Verified, maxCosignatures); err != nil {
			return err
		}
	}
	return nil
}

// cosignatures reads those of one head of a log, the verified ones first.
func (s *Store) cosignatures(ctx context.Context, l monitor.Log, text string) (all []monitor.Cosignature, err error) {
	err = s.each(ctx, `SELECT c.name, c.hint, c.at, c.line, c.verified FROM cosignatures c JOIN heads h ON h.id = c.head_id JOIN logs l ON l.id = h.log_id
		WHERE l.origin = ? AND l.key_id = ? AND h.text = ? ORDER BY c.verified DESC, c.name, c.hint`, []any{l.Origin, l.KeyID[:], text}, func(scan scan) error {
		var c monitor.Cosignature
		var at sql.NullInt64
		err := scan(&c.Name, &c.Hint, &at, &c.Line, &c.Verified)
		c.At = timeOf(at)
		all = append(all, c)
		return err
	})
	return all, err
}

// habit notes that the log was asked, and whether it has grown since. How long it
// had rested is counted up to when it was last asked in vain: nobody knows for how
// long it did while nobody asked. An old rest fades, so that one bad day does not
// blind us for good.
func (t *tx) habit(log int64, h monitor.Head, grown bool) error {
	now := h.Seen.UnixMicro()
	if !grown {
		_, err := t.exec(`UPDATE logs SET checked = ? WHERE id = ?`, now, log)
		return err
	}
	_, err := t.exec(`UPDATE logs SET rest = max(rest * 15 / 16, coalesce(checked - grown, 0)), growths = growths + 1, grown = ?, checked = ? WHERE id = ?`, now, now, log)
	return err
}

// Known implements monitor.Store.
func (s *Store) Known(ctx context.Context, origin string) (monitor.Memory, bool, error) {
	var r logRow
	var m monitor.Memory
	var grown, size, checked sql.NullInt64
	var rest int64
	err := s.db.QueryRowContext(ctx, `SELECT `+logColumns+`, l.closed_size, l.grown, l.rest, l.growths, l.checked FROM logs l WHERE l.origin = ? ORDER BY l.id LIMIT 1`, origin).
		Scan(append(r.dest(), &size, &grown, &rest, &m.Habit.Growths, &checked)...)
	if errors.Is(err, sql.ErrNoRows) {
		return m, false, nil
	}
	if err == nil {
		m.Log, err = r.value()
	}
	if err != nil {
		return m, false, s.fail("remembering a log", err)
	}
	m.Closed, m.ClosedSize, m.Checked = size.Valid, uint64(size.Int64), timeOf(checked)
	m.Habit.Grown, m.Habit.Rest = timeOf(grown), time.Duration(rest)*time.Microsecond
	return m, true, nil
}

// LogsAt implements monitor.Store.
func (s *Store) LogsAt(ctx context.Context, url string) ([]monitor.Log, error) {
	return s.logs(ctx, `WHERE l.url = ? ORDER BY l.id`, url)
}

// logs reads the logs that the rest of a query picks.
func (s *Store) logs(ctx context.Context, which string, args ...any) ([]monitor.Log, error) {
	var logs []monitor.Log
	err := s.each(ctx, `SELECT `+logColumns+` FROM logs l `+which, args, func(scan scan) error {
		var r logRow
		if err := scan(r.dest()...); err != nil {
			return err
		}
		l, err := r.value()
		logs = append(logs, l)
		return err
	})
	if err != nil {
		return nil, s.fail("reading the logs", err)
	}
	return logs, nil
}

// SeenBy implements monitor.Store.
func (s *Store) SeenBy(ctx context.Context, l monitor.Log, index uint64) (time.Time, error) {
	if index > math.MaxInt64 {
		return time.Time{}, nil
	}
	var seen sql.NullInt64
	err := s.db.QueryRowContext(ctx, `SELECT h.seen FROM heads h JOIN logs l ON l.id = h.log_id
		WHERE l.origin = ? AND l.key_id = ? AND h.verified = 1 AND h.size > ? ORDER BY h.size LIMIT 1`, l.Origin, l.KeyID[:], int64(index)).Scan(&seen)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, s.fail("reading when a head was seen", err)
	}
	return timeOf(seen), nil
}

// headID keeps a verified head and returns its row. A text that was one side of a
// contradiction may prove true later (a replica that lagged); then it stands with
// the note that was verified.
func (t *tx) headID(log int64, h monitor.Head) (int64, error) {
	if h.Size > math.MaxInt64 {
		return 0, fmt.Errorf("head of size %d", h.Size)
	}
	var id int64
	var verified bool
	err := t.get(`SELECT id, verified FROM heads WHERE log_id = ? AND text = ?`, []any{log, h.Text}, &id, &verified)
	if err == nil && verified {
		return id, nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	err = t.get(`INSERT INTO heads (log_id, size, root, text, note, seen, source, verified) VALUES (?, ?, ?, ?, ?, ?, ?, 1)
		ON CONFLICT (log_id, text) DO UPDATE SET verified = 1, note = excluded.note, seen = excluded.seen, source = excluded.source
		RETURNING id`, []any{log, int64(h.Size), h.Root[:], h.Text, blob(h.Note), h.Seen.UnixMicro(), h.Source}, &id)
	return id, err
}

// maxEvidence bounds the statements kept of one incident: a log may add to its fork
// with every answer, and the first statements convict it as well as the last.
const maxEvidence = 100

// Contradict implements monitor.Store. What a log said against itself may not be
// said twice, so it is on the disk when this returns.
func (s *Store) Contradict(ctx context.Context, c monitor.Contradiction) error {
	err := s.write(ctx, "keeping evidence against a log", func(t *tx) error {
		log, err := t.logID(c.Log)
		if err != nil {
			return err
		}
		return t.contradict(log, c)
	})
	if err != nil {
		return err
	}
	return s.checkpoint(ctx)
}

func (t *tx) contradict(log int64, c monitor.Contradiction) error {
	for _, h := range []monitor.Head{c.Ours, c.Theirs} {
		if err := t.keepSide(log, c, h); err != nil {
			return err
		}
	}
	claim, err := claimText(c.Claim)
	if err != nil {
		return err
	}
	if _, err = t.exec(`INSERT OR IGNORE INTO contradictions (kind, log_id, subject, ours, ours_seen, ours_source, theirs, theirs_seen, theirs_source, text, proof, claim, detail, seen)
		SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14 WHERE (SELECT count(*) FROM contradictions WHERE kind = ?1 AND log_id = ?2 AND subject = ?3) < ?15`,
		c.Kind, log, c.Subject, blob(c.Ours.Note), micros(c.Ours.Seen), c.Ours.Source, blob(c.Theirs.Note), micros(c.Theirs.Seen), c.Theirs.Source,
		c.Theirs.Text, join(c.Proof), claim, c.Detail, c.At.UnixMicro(), maxEvidence); err != nil {
		return err
	}
	if c.Kind == monitor.ClosedChanged && len(c.Theirs.Note) > 0 {
		_, err = t.exec(`UPDATE logs SET closed = 0, closed_size = NULL WHERE id = ?`, log)
	}
	return err
}

// keepSide keeps a head that counts for nothing.
func (t *tx) keepSide(log int64, c monitor.Contradiction, h monitor.Head) error {
	if len(h.Note) == 0 || h.Size > math.MaxInt64 {
		return nil // the contradiction itself has what there is
	}
	_, err := t.exec(`INSERT OR IGNORE INTO heads (log_id, size, root, text, note, seen, source, verified)
		SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 0 WHERE (SELECT count(*) FROM contradictions WHERE kind = ?8 AND log_id = ?1 AND subject = ?9) < ?10`,
		log, int64(h.Size), h.Root[:], h.Text, h.Note, h.Seen.UnixMicro(), h.Source, c.Kind, c.Subject, maxEvidence)
	return err
}

// checkpoint syncs the WAL to the disk, and moves from it what readers let it.
func (s *Store) checkpoint(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.writer == nil {
		return nil
	}
	t := &tx{ctx: context.WithoutCancel(ctx), w: s.writer}
	var busy, pages, moved int
	if err := t.get(`PRAGMA wal_checkpoint(PASSIVE)`, nil, &busy, &pages, &moved); err != nil {
		return s.fail("syncing to the disk", err)
	}
	return nil
}

// Position implements monitor.Store.
func (s *Store) Position(ctx context.Context, l monitor.Log) (monitor.Position, bool, error) {
	var next sql.NullInt64
	var hashes []byte
	err := s.db.QueryRowContext(ctx, `SELECT next, range FROM logs WHERE origin = ? AND key_id = ?`, l.Origin, l.KeyID[:]).Scan(&next, &hashes)
	if errors.Is(err, sql.ErrNoRows) || err == nil && !next.Valid {
		return monitor.Position{}, false, nil
	}
	p := monitor.Position{Next: uint64(next.Int64)}
	var bad error
	p.Range, bad = split(hashes)
	if err = errors.Join(err, bad); err != nil {
		return monitor.Position{}, false, s.fail("loading a position", err)
	}
	return p, true, nil
}

// Begin implements monitor.Store.
func (s *Store) Begin(ctx context.Context, l monitor.Log, p monitor.Position) error {
	return s.write(ctx, "setting the first position", func(t *tx) error {
		log, err := t.logID(l)
		if err != nil {
			return err
		}
		n, err := t.exec(`UPDATE logs SET next = ?1, began = ?1, range = ?2 WHERE id = ?3 AND next IS NULL`, int64(p.Next), join(p.Range), log)
		if err == nil && n == 0 {
			return monitor.ErrConflict
		}
		return err
	})
}

// Skip implements monitor.Store.
func (s *Store) Skip(ctx context.Context, l monitor.Log, from, to monitor.Position, gap monitor.Contradiction) error {
	return s.write(ctx, "skipping leaves", func(t *tx) error {
		log, err := t.logID(l)
		if err != nil {
			return err
		}
		if err := t.move(log, from, to); err != nil {
			return err
		}
		return t.contradict(log, gap)
	})
}

// move is a compare-and-swap of the position.
func (t *tx) move(log int64, from, to monitor.Position) error {
	if to.Next > math.MaxInt64 {
		return fmt.Errorf("position %d", to.Next)
	}
	n, err := t.exec(`UPDATE logs SET next = ?, range = ? WHERE id = ? AND next = ? AND range = ?`,
		int64(to.Next), join(to.Range), log, int64(from.Next), join(from.Range))
	if err == nil && n == 0 {
		return monitor.ErrConflict
	}
	return err
}

// join is the stored form of a list of hashes.
func join(hashes []monitor.Hash) []byte {
	b := make([]byte, 0, len(hashes)*len(monitor.Hash{}))
	for i := range hashes {
		b = append(b, hashes[i][:]...)
	}
	return b
}

func split(b []byte) ([]monitor.Hash, error) {
	const size = len(monitor.Hash{})
	if len(b)%size != 0 {
		return nil, fmt.Errorf("hashes of %d bytes in all", len(b))
	}
	if len(b) == 0 {
		return nil, nil
	}
	hashes := make([]monitor.Hash, len(b)/size)
	for i := range hashes {
		hashes[i] = monitor.Hash(b[i*size:])
	}
	return hashes, nil
}

// cover adds [first, past) to what is proven and indexed of the log. Ranges are
// disjoint and never touch, so that only the one before and those that begin
// inside can be part of the new one.
func (t *tx) cover(log int64, first, past uint64) error {
	if first >= past {
		return nil
	}
	if past > math.MaxInt64 {
		return fmt.Errorf("coverage up to %d", past)
	}
	lo, hi := int64(first), int64(past)
	err := t.get(`SELECT first, max(past, ?) FROM coverage WHERE log_id = ? AND first <= ? AND past >= ? AND first = (SELECT max(first) FROM coverage WHERE log_id = ? AND first <= ?)`,
		[]any{hi, log, lo, lo, log, lo}, &lo, &hi)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var last sql.NullInt64
	if err := t.get(`SELECT max(past) FROM coverage WHERE log_id = ? AND first >= ? AND first <= ?`, []any{log, lo, hi}, &last); err != nil {
		return err
	}
	if _, err := t.exec(`DELETE FROM coverage WHERE log_id = ? AND first >= ? AND first <= ?`, log, lo, hi); err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO coverage (log_id, first, past) VALUES (?, ?, ?)`, log, lo, max(hi, last.Int64))
	return err
}

// LogStatuses says how far each log is verified and indexed, by origin.
func (s *Store) LogStatuses(ctx context.Context) ([]LogStatus, error) {
	var statuses []LogStatus
	var ids []int64
	err := s.each(ctx, `SELECT l.id, `+logColumns+`, l.next, l.began, l.closed_size, l.grown, l.rest, l.growths, l.checked,
		EXISTS (SELECT 1 FROM contradictions c WHERE c.log_id = l.id AND c.kind NOT IN ('`+monitor.Stalled+`', '`+monitor.CoverageGap+`')) FROM logs l ORDER BY l.origin, l.id`, nil, func(scan scan) error {
		var r logRow
		var id int64
		var next, began, closed, grown, checked sql.NullInt64
		var rest int64
		var st LogStatus
		if err := scan(append(append([]any{&id}, r.dest()...), &next, &began, &closed, &grown, &rest, &st.Habit.Growths, &checked, &st.Conflict)...); err != nil {
			return err
		}
		if next.Valid {
			n := uint64(next.Int64)
			st.Next, st.Began = &n, uint64(began.Int64)
		}
		if closed.Valid {
			n := uint64(closed.Int64)
			st.ClosedSize = &n
		}
		st.Habit.Grown, st.Habit.Rest, st.Checked = timeOf(grown), time.Duration(rest)*time.Microsecond, timeOf(checked)
		var err error
		st.Log, err = r.value()
		statuses, ids = append(statuses, st), append(ids, id)
		return err
	})
	for i := range statuses {
		if err != nil {
			break
		}
		if statuses[i].Head, _, err = s.Latest(ctx, statuses[i].Log); err != nil {
			return nil, err
		}
		if st := &statuses[i]; st.Next != nil && *st.Next < st.Head.Size {
			if st.Waiting, err = s.SeenBy(ctx, st.Log, *st.Next); err != nil {
				return nil, err
			}
		}
		if statuses[i].Head.Cosigned, err = s.cosignatures(ctx, statuses[i].Log, statuses[i].Head.Text); err != nil {
			break
		}
		err = s.each(ctx, `SELECT first, past FROM coverage WHERE log_id = ? ORDER BY first`, []any{ids[i]}, func(scan scan) error {
			var r monitor.Range
			err := scan(&r.From, &r.To)
			statuses[i].Coverage = append(statuses[i].Coverage, r)
			return err
		})
	}
	if err != nil {
		return nil, s.fail("reading how far the logs are indexed", err)
	}
	return statuses, nil
}
