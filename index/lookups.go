package index

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// The settings that list the servers, as JSON.
const (
	lookupServers   = "lookup_servers"
	searchedServers = "searched_servers"
)

// lookupPatience is how long a server that gives no answer is waited for. After that
// the rules judge what is known, and judge again once there is an answer.
const lookupPatience = 10 * time.Minute

// A LookupKind is what a v1 server is asked for about a file.
type LookupKind string

const (
	LookupProvenance LookupKind = "provenance" // the log indexes in the file's provenance
	LookupDigest     LookupKind = "digest"     // the search index, by the file's SHA-256
	LookupPayload    LookupKind = "payload"    // the search index, by the SHA-256 of the statements expected for the file
)

// A LookupAnswer is what came of asking a server about a file.
type LookupAnswer struct {
	At    time.Time
	Next  time.Time          // when to ask again; zero: not
	Found map[LookupKind]int // entries named, for each kind of question that was answered
	Err   string             // why there is no answer; "": there is one
	Note  string             // what could not be asked although there is an answer
}

// SetLookupServers says which v1 servers every file is looked up on from now on, and
// which of them have their search index asked for the identities of projects too. It
// makes the look-ups that are missing. What was never answered by a server that is no
// longer listed is dropped, so that nothing waits for it.
func (s *Store) SetLookupServers(ctx context.Context, servers, searched []string) error {
	list, err := json.Marshal(append([]string{}, servers...)) // never null
	if err != nil {
		return err
	}
	asked, err := json.Marshal(append([]string{}, searched...))
	if err != nil {
		return err
	}
	return s.write(ctx, "setting the look-up servers", func(t *tx) error {
		known, err := t.texts(`SELECT DISTINCT server FROM lookups`)
		if err != nil {
			return err
		}
		for _, server := range known {
			if slices.Contains(servers, server) {
				continue
			}
			if _, err := t.exec(`DELETE FROM lookups WHERE server = ? AND step = 0`, server); err != nil {
				return err
			}
			if _, err := t.exec(`UPDATE lookups SET next = NULL WHERE server = ?`, server); err != nil {
				return err
			}
			if _, err := t.exec(`DELETE FROM lookup_servers WHERE server = ?`, server); err != nil {
				return err
			}
		}
		for _, server := range servers {
			if _, err := t.exec(`INSERT OR IGNORE INTO lookups (file_id, server, next) SELECT id, ?, ? FROM files`, server, s.now().UnixMicro()); err != nil {
				return err
			}
		}
		if err := t.setSearched(searched); err != nil {
			return err
		}
		if err := t.set(searchedServers, string(asked)); err != nil {
			return err
		}
		return t.set(lookupServers, string(list))
	})
}

// texts reads a column of few rows.
func (t *tx) texts(query string, args ...any) ([]string, error) {
	var out []string
	err := t.each(query, args, func(scan scan) error {
		var text string
		err := scan(&text)
		out = append(out, text)
		return err
	})
	return out, err
}

// In the order of the index, ties included: a server that is new makes all files due at
// one time.
const dueLookups = `SELECT ` + fileColumns + `, k.step FROM lookups k CROSS JOIN provenance v ON v.file_id = k.file_id CROSS JOIN files f ON f.id = k.file_id
	CROSS JOIN projects p ON p.id = f.project_id
	WHERE k.server = ? AND k.next <= ? AND v.state <> 'pending' ORDER BY k.next DESC, k.file_id DESC LIMIT ?`

// DueLookups returns files that the server is due to be asked about, the last to
// become due first: what was uploaded just now must not wait for the history of
// projects that have just come to be watched. A file whose provenance is pending waits for it: it says where the
// entry is.
func (s *Store) DueLookups(ctx context.Context, server string, now time.Time, limit int) ([]Lookup, error) {
	var due []Lookup
	err := s.each(ctx, dueLookups, []any{server, now.UnixMicro(), limit}, func(scan scan) error {
		var r fileRow
		l := Lookup{Server: server}
		if err := scan(append(r.dest(), &l.Step)...); err != nil {
			return err
		}
		var err error
		l.File, err = r.value()
		due = append(due, l)
		return err
	})
	for i := range due {
		if err != nil {
			break
		}
		due[i].Leaves, err = s.provenanceLeaves(ctx, due[i].File.ID)
	}
	if err != nil {
		return nil, s.fail("reading which look-ups are due", err)
	}
	return due, nil
}

// ProvenanceLeaves returns the entries that a file's provenance names.
func (s *Store) ProvenanceLeaves(ctx context.Context, id FileID) ([]ProvenanceLeaf, error) {
	leaves, err := s.provenanceLeaves(ctx, id)
	if err != nil {
		return nil, s.fail("reading which entries a provenance names", err)
	}
	return leaves, nil
}

func (s *Store) provenanceLeaves(ctx context.Context, id FileID) ([]ProvenanceLeaf, error) {
	var leaves []ProvenanceLeaf
	err := s.each(ctx, `SELECT key_id, global, leaf_hash, predicate, publisher FROM provenance_leaves WHERE file_id = ? ORDER BY key_id, global`, []any{int64(id)}, func(scan scan) error {
		var l ProvenanceLeaf
		var key, hash []byte
		if err := scan(&key, &l.Global, &hash, &l.Predicate, &l.Publisher); err != nil {
			return err
		}
		var err error
		if l.KeyID, err = hashOf(key); err != nil {
			return err
		}
		l.Hash, err = hashOf(hash)
		leaves = append(leaves, l)
		return err
	})
	return leaves, err
}

// LookupDone stores the outcome of a look-up. Without an answer its step stays.
func (s *Store) LookupDone(ctx context.Context, l Lookup, a LookupAnswer) error {
	return s.write(ctx, "storing a look-up", func(t *tx) error {
		at := a.At.UnixMicro()
		if a.Err != "" {
			_, err := t.exec(`UPDATE lookups SET next = ?, asked = ?, first = coalesce(first, ?), error = ? WHERE file_id = ? AND server = ?`,
				micros(a.Next), at, at, a.Err, int64(l.File.ID), l.Server)
			return err
		}
		s.newsOf(t, l.File.ID)
		found := 0
		for _, n := range a.Found {
			found = max(found, n)
		}
		// Against the step that was asked, so that the same outcome twice
		// counts once.
		n, err := t.exec(`UPDATE lookups SET step = ?, next = ?, asked = ?, first = coalesce(first, ?), found = max(found, ?), error = ? WHERE file_id = ? AND server = ? AND step = ?`,
			l.Step+1, micros(a.Next), at, at, found, a.Note, int64(l.File.ID), l.Server, l.Step)
		if err != nil || n == 0 {
			return err
		}
		for kind, n := range a.Found {
			if _, err := t.exec(`INSERT INTO answers (file_id, server, kind, first, last, times, found) VALUES (?, ?, ?, ?, ?, 1, ?)
				ON CONFLICT (file_id, server, kind) DO UPDATE SET last = excluded.last, times = times + 1, found = max(found, excluded.found)`,
				int64(l.File.ID), l.Server, string(kind), at, at, n); err != nil {
				return err
			}
		}
		return t.answers(l.Server, a.At)
	})
}

// answers notes that a server answers.
func (t *tx) answers(server string, at time.Time) error {
	_, err := t.exec(`INSERT INTO lookup_servers (server, answered) VALUES (?, ?)
		ON CONFLICT (server) DO UPDATE SET answered = excluded.answered, failing = NULL, error = ''`, server, at.UnixMicro())
	return err
}

// LookupFailed notes that a server gave no answer to a question that was put to it
// at that time.
func (s *Store) LookupFailed(ctx context.Context, server string, at time.Time, why string) error {
	return s.write(ctx, "storing that a look-up failed", func(t *tx) error {
		_, err := t.exec(`INSERT INTO lookup_servers (server, failing, error) VALUES (?, ?, ?)
			ON CONFLICT (server) DO UPDATE SET failing = coalesce(failing, excluded.failing), error = excluded.error`, server, at.UnixMicro(), why)
		return err
	})
}
