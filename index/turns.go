package index

import (
	"context"
	"sync"
)

// RoundProjects is how many projects are examined in their turn before those that
// have something new are asked for again.
const RoundProjects = 500

// turnsAtOnce is how many projects are read at a time to give them their turn.
const turnsAtOnce = 100

// maxNews bounds the projects that are examined out of turn. What comes beyond waits
// for its turn.
const maxNews = 4096

// turns says which projects Cases examines next: those of which something new was
// stored by this process, then the others with something to judge, by their ids, round
// and round. It is in memory only: what is to judge is in the tables, and after a
// crash all of it has its turn.
type turns struct {
	mu      sync.Mutex
	news    []int64
	waiting map[int64]bool // in news

	// What follows is between one call of Cases and the next.
	at      int64   // the last project that had its turn
	before  int64   // at before the first that gave cases in its turn; -1: none did
	handed  []int64 // those with news that gave cases
	decided bool    // one of the cases has been
	sums    sums
}

// sums are the releases of a project that has more cases than were asked for, so that
// its files are not read again for each hundred of them.
type sums struct {
	project  int64 // 0: none
	releases []Release
}

func newTurns() *turns {
	return &turns{waiting: make(map[int64]bool), before: -1}
}

// tell notes that there is something new of a project.
func (q *turns) tell(project int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sums.project == project {
		q.sums = sums{}
	}
	if !q.waiting[project] && len(q.news) < maxNews {
		q.news = append(q.news, project)
		q.waiting[project] = true
	}
}

// take hands out the projects with news. Those that gave cases last time are among
// them, and the next turn is theirs too: they may have more. When none of their cases
// could be decided, they have to wait: others must not wait for them.
func (q *turns) take() (news []int64, at int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	news = q.news
	if q.decided {
		for _, p := range q.handed {
			if !q.waiting[p] {
				news = append(news, p)
			}
		}
		if q.before >= 0 {
			q.at = q.before
		}
	}
	q.news, q.handed, q.before, q.decided = nil, nil, -1, false
	clear(q.waiting)
	return news, q.at
}

// back puts projects with news back that were not examined.
func (q *turns) back(projects []int64) {
	for _, p := range projects {
		q.tell(p)
	}
}

// hand notes that a project with news gave cases.
func (q *turns) hand(project int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.handed = append(q.handed, project)
}

// pass notes that a project has had its turn, and whether it gave cases.
func (q *turns) pass(project int64, gave bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if gave && q.before < 0 {
		q.before = q.at
	}
	q.at = project
}

func (q *turns) decide() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.decided = true
}

// known returns the sums of a project, none after something new came of it.
func (q *turns) known(project int64) (releases []Release, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sums.releases, q.sums.project == project
}

func (q *turns) keep(s sums) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sums = s
}

// newsOf has the judge look at the project of a file out of turn, once what is being
// written is there.
func (s *Store) newsOf(t *tx, file FileID) {
	t.then(func() { s.turns.tell(int64(file) >> projectBits) })
}

// nextTurns returns the ids of the projects ?1 < id <= ?2 that have something to judge,
// seeking from one to the next: how much one has costs nothing.
const nextTurns = `WITH RECURSIVE turn (id) AS (SELECT ?1 UNION ALL
	SELECT (SELECT min(id) FROM (
		SELECT (SELECT f.project_id FROM files f WHERE f.judged = 0 AND f.project_id > turn.id ORDER BY f.project_id LIMIT 1) AS id
		UNION ALL SELECT (SELECT u.file_id >> 24 FROM unjudged u WHERE u.file_id >= (turn.id + 1) << 24 AND u.file_id < 1 << 62 ORDER BY u.file_id LIMIT 1)))
	FROM turn WHERE turn.id < ?2 LIMIT ?3 + 1)
	SELECT id FROM turn WHERE id > ?1 AND id <= ?2`

func (s *Store) nextTurns(ctx context.Context, after, last int64, limit int) (ids []int64, err error) {
	stmt, err := s.prepared(ctx, nextTurns)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(ctx, after, last, limit)
	if err != nil {
		return nil, err
	}
	err = drain(rows, func(scan scan) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}
