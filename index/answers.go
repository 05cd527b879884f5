package index

import (
	"context"
	"database/sql"
	"time"
)

// An Asked look-up is a question to a v1 server about a file.
type Asked struct {
	Server   string
	Answered int       // how many times
	At       time.Time // of the last question; zero: never
	Found    int       // the most entries that were named for one kind of question
	Error    string
	Kinds    []KindAsked
}

// KindAsked is what one kind of question about a file has come to.
type KindAsked struct {
	Kind        LookupKind
	First, Last time.Time // answers
	Times       int
	Found       int // the most entries that one answer named; 0 proves nothing
}

// LookupsOf says which servers were asked about a file, and what came of it.
func (s *Store) LookupsOf(ctx context.Context, file FileID) ([]Asked, error) {
	var out []Asked
	err := s.each(ctx, `SELECT server, step, asked, found, error FROM lookups WHERE file_id = ? ORDER BY server`, []any{int64(file)}, func(scan scan) error {
		var a Asked
		var at sql.NullInt64
		err := scan(&a.Server, &a.Answered, &at, &a.Found, &a.Error)
		a.At = timeOf(at)
		out = append(out, a)
		return err
	})
	if err == nil {
		err = s.each(ctx, `SELECT server, kind, first, last, times, found FROM answers WHERE file_id = ? ORDER BY server, kind`, []any{int64(file)}, func(scan scan) error {
			var server string
			var k KindAsked
			var first, last sql.NullInt64
			err := scan(&server, &k.Kind, &first, &last, &k.Times, &k.Found)
			k.First, k.Last = timeOf(first), timeOf(last)
			for i := range out {
				if out[i].Server == server {
					out[i].Kinds = append(out[i].Kinds, k)
				}
			}
			return err
		})
	}
	if err != nil {
		return nil, s.fail("reading look-ups", err)
	}
	return out, nil
}

// AskedIdentity is a v1 server's answer for a name that a project has used.
type AskedIdentity struct {
	Server      string
	Identity    string
	First, Last time.Time // questions; zero: never
	Times       int       // answers
	Found       int       // entries in the last answer; 0 proves nothing
	Unread      int       // of them, not fetched yet
	Error       string
}

// IdentitiesOf says which names the entries of a project of an index, "" for PyPI,
// were looked up by.
func (s *Store) IdentitiesOf(ctx context.Context, index, project string) ([]AskedIdentity, error) {
	var out []AskedIdentity
	err := s.each(ctx, `SELECT k.server, k.identity, k.first, k.asked, k.times, k.found, k.unread, k.error FROM identity_lookups k JOIN projects p ON p.id = k.project_id JOIN indexes i ON i.id = p.index_id
		WHERE i.name = ? AND p.name = ? ORDER BY k.server, k.asked DESC, k.identity`, []any{orPyPI(index), project}, func(scan scan) error {
		var a AskedIdentity
		var first, last sql.NullInt64
		err := scan(&a.Server, &a.Identity, &first, &last, &a.Times, &a.Found, &a.Unread, &a.Error)
		a.First, a.Last = timeOf(first), timeOf(last)
		out = append(out, a)
		return err
	})
	if err != nil {
		return nil, s.fail("reading look-ups of identities", err)
	}
	return out, nil
}

// SilentServers are the v1 servers that fail to answer now.
func (s *Store) SilentServers(ctx context.Context) ([]Unanswered, error) {
	var out []Unanswered
	err := s.each(ctx, `SELECT server, failing FROM lookup_servers WHERE failing IS NOT NULL ORDER BY server`, nil, func(scan scan) error {
		var u Unanswered
		var since sql.NullInt64
		err := scan(&u.Server, &since)
		u.Since = timeOf(since)
		out = append(out, u)
		return err
	})
	if err != nil {
		return nil, s.fail("reading which servers do not answer", err)
	}
	return out, nil
}

// A LookupSummary is how the look-ups on one v1 server stand.
type LookupSummary struct {
	Server     string       // as in monitor.Log.URL
	Files      LookupCounts // of one file each
	Identities LookupCounts // of one project and one name each
	Answered   time.Time    // the last answer; zero: none yet
	Failing    time.Time    // since then it has answered nothing; zero: it answers
	Error      string       // with Failing
}

// LookupCounts counts look-ups. Due ones and failed ones are among the others.
type LookupCounts struct {
	Due        int // to be asked now
	Unanswered int // never answered yet
	Empty      int // answered, and no answer has named an entry: unverifiable
	Found      int
	Failed     int // the last question failed, or could not be asked
}

// LookupSummary sums up the look-ups of each server.
func (s *Store) LookupSummary(ctx context.Context) ([]LookupSummary, error) {
	var out []LookupSummary
	of := func(server string) *LookupSummary {
		for i := range out {
			if out[i].Server == server {
				return &out[i]
			}
		}
		out = append(out, LookupSummary{Server: server})
		return &out[len(out)-1]
	}
	read := func(query string, counts func(*LookupSummary) *LookupCounts) error {
		return s.each(ctx, query, []any{s.now().UnixMicro()}, func(scan scan) error {
			var server string
			var c LookupCounts
			err := scan(&server, &c.Due, &c.Unanswered, &c.Empty, &c.Found, &c.Failed)
			*counts(of(server)) = c
			return err
		})
	}
	err := read(`SELECT server, coalesce(sum(next <= ?), 0), sum(step = 0), sum(step > 0 AND found = 0 AND error = ''), sum(step > 0 AND found > 0), sum(error <> '')
		FROM lookups GROUP BY server ORDER BY server`, func(l *LookupSummary) *LookupCounts { return &l.Files })
	if err == nil {
		err = read(`SELECT server, coalesce(sum(next <= ?), 0), sum(times = 0), sum(times > 0 AND found = 0 AND error = ''), sum(times > 0 AND found > 0), sum(error <> '')
			FROM identity_lookups GROUP BY server ORDER BY server`, func(l *LookupSummary) *LookupCounts { return &l.Identities })
	}
	if err == nil {
		err = s.each(ctx, `SELECT server, answered, failing, error FROM lookup_servers ORDER BY server`, nil, func(scan scan) error {
			var server, text string
			var answered, failing sql.NullInt64
			err := scan(&server, &answered, &failing, &text)
			l := of(server)
			l.Answered, l.Failing, l.Error = timeOf(answered), timeOf(failing), text
			return err
		})
	}
	if err != nil {
		return nil, s.fail("counting look-ups", err)
	}
	return out, nil
}
