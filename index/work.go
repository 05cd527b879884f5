package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// WorkCause is why a listing is to be read.
type WorkCause string

const (
	ByJournal   WorkCause = "journal"   // the journal has named the project
	ByBootstrap WorkCause = "bootstrap" // the project is new here
	ByPoll      WorkCause = "direct"    // there is no journal that would name it
)

// workCauses are in the order in which they are served: what has just happened comes
// before what has been there for years.
var workCauses = []WorkCause{ByJournal, ByPoll, ByBootstrap}

// WorkState is what came of the last try to read a listing.
type WorkState string

const (
	WorkDue     WorkState = "due"      // not tried yet
	WorkStale   WorkState = "stale"    // answered with a listing older than the journal
	WorkMissing WorkState = "missing"  // 404
	WorkRefused WorkState = "refused"  // 403
	WorkLimited WorkState = "limited"  // 429
	WorkFailing WorkState = "failing"  // any other failure
	WorkTooLong WorkState = "too-long" // an answer beyond what is read of one
)

// WorkStates are all of them.
var WorkStates = []WorkState{WorkDue, WorkStale, WorkMissing, WorkRefused, WorkLimited, WorkFailing, WorkTooLong}

// Work is a listing that is to be read.
type Work struct {
	Project string // PEP 503
	Serial  int64  // that the listing must have reached; 0: any will do
	Removed bool   // the journal's last word is that the project was deleted
	Cause   WorkCause
	State   WorkState
	Tries   int
	Since   time.Time // when it was first due

	Stored int64  // serial of the newest listing stored
	Listed bool   // a whole list of its files has been stored
	ETag   string // of that listing; "": none was given
}

// Watch says which of the index's projects are watched from now on: those named, in
// their normal form, or each one that the index has. A project that was not watched
// before is to be read; of one that is left out nothing is asked any more. It returns
// how many projects were taken up by name.
func (c *Catalogue) Watch(ctx context.Context, projects []string, all bool) (entered int, err error) {
	names, err := json.Marshal(projects)
	if err != nil {
		return 0, err
	}
	now := c.s.now().UnixMicro()
	// Of projects that come to be watched, the older journal has to be read again.
	const again = `UPDATE readings SET past_next = past_from, past_end = (SELECT coalesce(serial, past_end) FROM indexes WHERE id = index_id)
		WHERE index_id = ? AND past_from IS NOT NULL`
	err = c.s.write(ctx, "taking up the projects to watch", func(t *tx) error {
		if all {
			_, err := t.exec(again+` AND census IS NULL`, c.id)
			return err
		}
		if _, err := t.exec(`UPDATE readings SET census = NULL WHERE index_id = ?`, c.id); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM watched WHERE index_id = ? AND project NOT IN (SELECT value FROM json_each(?))`, c.id, string(names)); err != nil {
			return err
		}
		n, err := t.exec(`INSERT INTO listing_work (index_id, project, serial, why, state, since, next) SELECT ?1, value, 0, 'bootstrap', 'due', ?3, ?3
			FROM json_each(?2) WHERE value NOT IN (SELECT project FROM watched WHERE index_id = ?1) GROUP BY value`, c.id, string(names), now)
		if err != nil {
			return err
		}
		if entered = int(n); entered > 0 {
			if _, err := t.exec(again, c.id); err != nil {
				return err
			}
		}
		_, err = t.exec(`INSERT OR IGNORE INTO watched (index_id, project) SELECT ?, value FROM json_each(?)`, c.id, string(names))
		return err
	})
	return entered, err
}

// BeginJournal sets the serial that the journal is followed from. What came before it
// is unknown, so each watched project is to be read.
func (c *Catalogue) BeginJournal(ctx context.Context, serial int64) error {
	now := c.s.now().UnixMicro()
	return c.s.write(ctx, "beginning to follow the journal", func(t *tx) error {
		if _, err := t.exec(`INSERT OR IGNORE INTO listing_work (index_id, project, serial, why, state, since, next)
			SELECT index_id, project, 0, 'bootstrap', 'due', ?, ? FROM watched WHERE index_id = ?`, now, now, c.id); err != nil {
			return err
		}
		return t.saveJournal(c.id, nil, serial, c.s.now())
	})
}

// FollowJournal stores those rows of the journal that concern a watched project,
// the work that they make, and the serial up to which the journal has been read. With
// all, every project is watched. It returns how many rows were kept.
func (c *Catalogue) FollowJournal(ctx context.Context, rows []JournalRow, upTo int64, all bool) (kept int, err error) {
	now := c.s.now().UnixMicro()
	err = c.s.write(ctx, "storing journal lines", func(t *tx) error {
		mine, err := t.watchedRows(c.id, rows, all)
		if err != nil {
			return err
		}
		for _, r := range mine {
			if _, err := t.exec(`INSERT INTO listing_work (index_id, project, serial, removed, why, state, since, next) VALUES (?1, ?2, ?3, ?4 = 1, 'journal', 'due', ?5, ?5)
				ON CONFLICT (index_id, project) DO UPDATE SET serial = max(serial, excluded.serial), removed = CASE ?4 WHEN -1 THEN removed ELSE ?4 END,
				why = 'journal', state = 'due', tries = 0, since = CASE why WHEN 'journal' THEN since ELSE excluded.since END, next = excluded.next, error = ''`,
				c.id, r.Project, r.Serial, removal(r.Action), now); err != nil {
				return err
			}
		}
		kept = len(mine)
		return t.saveJournal(c.id, mine, upTo, c.s.now())
	})
	return kept, err
}

// removal is 1 for an action that deletes a project, 0 for one that shows that it is
// there (again), -1 for any other.
func removal(action string) int {
	switch {
	case action == "remove project":
		return 1
	case action == "create", action == "new release", strings.HasPrefix(action, "add ") && strings.Contains(action, " file "):
		return 0
	}
	return -1
}

// watchedRows are the rows of watched projects; with all, all of them, and their
// projects are watched.
func (t *tx) watchedRows(index int64, rows []JournalRow, all bool) (mine []JournalRow, err error) {
	for _, r := range rows {
		if all {
			_, err := t.exec(`INSERT OR IGNORE INTO watched (index_id, project) VALUES (?, ?)`, index, r.Project)
			if err != nil {
				return nil, err
			}
			mine = append(mine, r)
			continue
		}
		var watched bool
		if err := t.get(`SELECT EXISTS (SELECT 1 FROM watched WHERE index_id = ? AND project = ?)`, []any{index, r.Project}, &watched); err != nil {
			return nil, err
		}
		if watched {
			mine = append(mine, r)
		}
	}
	return mine, nil
}

// PollListings has watched projects read that were not asked about for a while, and
// returns how many.
func (c *Catalogue) PollListings(ctx context.Context, age time.Duration, limit int) (int, error) {
	now := c.s.now().UnixMicro()
	var n int64
	err := c.s.write(ctx, "choosing listings to read", func(t *tx) (err error) {
		n, err = t.exec(`INSERT INTO listing_work (index_id, project, serial, why, state, since, next)
			SELECT index_id, project, 0, 'direct', 'due', ?1, ?1 FROM watched w WHERE index_id = ?2 AND asked <= ?3
			AND NOT EXISTS (SELECT 1 FROM listing_work k WHERE k.index_id = w.index_id AND k.project = w.project) LIMIT ?4`, now, c.id, now-age.Microseconds(), limit)
		return err
	})
	return int(n), err
}

// DueListings returns work of one cause that is due, at most limit, the longest due
// first.
func (c *Catalogue) DueListings(ctx context.Context, cause WorkCause, limit int) ([]Work, error) {
	var work []Work
	err := c.s.each(ctx, `SELECT k.project, k.serial, k.removed, k.why, k.state, k.tries, k.since, coalesce(p.serial, 0), p.listed IS NOT NULL, w.etag
		FROM listing_work k JOIN watched w ON w.index_id = k.index_id AND w.project = k.project LEFT JOIN projects p ON p.index_id = k.index_id AND p.name = k.project
		WHERE k.index_id = ? AND k.why = ? AND k.next <= ? ORDER BY k.next LIMIT ?`, []any{c.id, string(cause), c.s.now().UnixMicro(), limit}, func(scan scan) error {
		var w Work
		var since int64
		err := scan(&w.Project, &w.Serial, &w.Removed, &w.Cause, &w.State, &w.Tries, &since, &w.Stored, &w.Listed, &w.ETag)
		w.Since = time.UnixMicro(since).UTC()
		work = append(work, w)
		return err
	})
	if err != nil {
		return nil, c.s.fail("reading which listings are due", err)
	}
	return work, nil
}

// ListingRead takes in that a listing with a serial (0: it has none) and a tag is
// stored. The work is done unless the journal has asked for a newer one meanwhile.
func (c *Catalogue) ListingRead(ctx context.Context, w Work, serial int64, etag string) error {
	return c.s.write(ctx, "taking in that a listing was read", func(t *tx) error {
		if _, err := t.exec(`UPDATE watched SET etag = ?, asked = ? WHERE index_id = ? AND project = ?`, etag, c.s.now().UnixMicro(), c.id, w.Project); err != nil {
			return err
		}
		if serial == 0 {
			serial = w.Serial
		}
		_, err := t.exec(`DELETE FROM listing_work WHERE index_id = ? AND project = ? AND serial <= ?`, c.id, w.Project, serial)
		return err
	})
}

// PostponeListing takes in what came of a try and when the next one is due. Work that
// the journal has renewed meanwhile stays due.
func (c *Catalogue) PostponeListing(ctx context.Context, w Work, state WorkState, next time.Time, problem string) error {
	return c.s.write(ctx, "postponing a listing", func(t *tx) error {
		if _, err := t.exec(`UPDATE watched SET asked = ? WHERE index_id = ? AND project = ?`, c.s.now().UnixMicro(), c.id, w.Project); err != nil {
			return err
		}
		_, err := t.exec(`UPDATE listing_work SET state = ?, tries = tries + 1, next = ?, error = ? WHERE index_id = ? AND project = ? AND serial = ?`,
			string(state), next.UnixMicro(), problem, c.id, w.Project, w.Serial)
		return err
	})
}

// NextWork is when the next listing or provenance is due; the zero time if none ever
// is.
func (c *Catalogue) NextWork(ctx context.Context) (time.Time, error) {
	var next sql.NullInt64
	var terms []string
	for _, cause := range workCauses {
		terms = append(terms, fmt.Sprintf(`SELECT min(next) AS next FROM listing_work WHERE index_id = ?1 AND why = '%s'`, cause))
	}
	for _, due := range []string{dueAgain, dueFirst} {
		terms = append(terms, `SELECT * FROM (SELECT v.next FROM provenance v CROSS JOIN files f ON f.id = v.file_id CROSS JOIN projects p ON p.id = f.project_id
			WHERE p.index_id = ?1 AND `+due+` ORDER BY v.next LIMIT 1)`)
	}
	if err := c.s.db.QueryRowContext(ctx, `SELECT min(next) FROM (`+strings.Join(terms, " UNION ALL ")+`)`, c.id).Scan(&next); err != nil {
		return time.Time{}, c.s.fail("reading when work is due", err)
	}
	return timeOf(next), nil
}

// ProvenanceTries is how often a file's provenance has been asked for.
func (c *Catalogue) ProvenanceTries(ctx context.Context, id FileID) (tries int, err error) {
	err = c.s.db.QueryRowContext(ctx, `SELECT tries FROM provenance WHERE file_id = ?`, int64(id)).Scan(&tries)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, c.s.fail("reading how often a provenance was asked for", err)
	}
	return tries, nil
}

// WorkCount is how much work of one kind there is.
type WorkCount struct {
	Cause  WorkCause
	State  WorkState
	Count  int
	Oldest time.Time // when the oldest of it was first due
}

// A WorkSummary is what is to be read of an index.
type WorkSummary struct {
	Watched    int
	Work       []WorkCount
	Provenance int // files whose provenance is to be fetched, now or later
	Census     time.Time
}

// WorkSummary counts what is to be read of the index.
func (c *Catalogue) WorkSummary(ctx context.Context) (WorkSummary, error) {
	var s WorkSummary
	var census sql.NullInt64
	err := c.s.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM watched WHERE index_id = ?1), (SELECT census FROM readings WHERE index_id = ?1),
		(SELECT count(*) FROM provenance v JOIN files f ON f.id = v.file_id JOIN projects p ON p.id = f.project_id WHERE v.state IN ('pending', 'refused') AND p.index_id = ?1)`, c.id).
		Scan(&s.Watched, &census, &s.Provenance)
	if err == nil {
		s.Census = timeOf(census)
		err = c.s.each(ctx, `SELECT why, state, count(*), min(since) FROM listing_work WHERE index_id = ? GROUP BY why, state ORDER BY why, state`, []any{c.id}, func(scan scan) error {
			var w WorkCount
			var oldest sql.NullInt64
			err := scan(&w.Cause, &w.State, &w.Count, &oldest)
			w.Oldest = timeOf(oldest)
			s.Work = append(s.Work, w)
			return err
		})
	}
	if err != nil {
		return s, c.s.fail("counting what is to be read", err)
	}
	return s, nil
}
