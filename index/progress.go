package index

import "context"

// Progress is how much is stored, and how much of it waits for something.
type Progress struct {
	Files   int
	Waiting int // provenance to fetch, look-ups never answered, leaves to fetch, entries and files to judge
}

// Progress counts. It is for people who wait, not for the daemon's own decisions.
func (s *Store) Progress(ctx context.Context) (Progress, error) {
	var p Progress
	err := s.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM files),
		(SELECT count(*) FROM provenance WHERE state = 'pending') + (SELECT count(*) FROM lookups WHERE step = 0) +
		(SELECT count(*) FROM wanted) + (SELECT count(*) FROM unjudged WHERE early = 0) + (SELECT count(*) FROM files WHERE judged = 0)`).Scan(&p.Files, &p.Waiting)
	if err != nil {
		return p, s.fail("counting what waits", err)
	}
	return p, nil
}
