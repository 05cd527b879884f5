package index

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// lookupServers is the setting that lists them, as JSON.
const lookupServers = "lookup_servers"

// SetLookupServers says which v1 servers every file is looked up on from now on,
// and makes the look-ups that are missing. What was never answered by a server
// that is no longer listed is dropped, so that nothing waits for it.
func (s *Store) SetLookupServers(ctx context.Context, servers []string) error {
	list, err := json.Marshal(append([]string{}, servers...)) // never null
	if err != nil {
		return err
	}
	return s.write(ctx, "setting the look-up servers", func(t *tx) error {
		var known []string
		if err := t.each(`SELECT DISTINCT server FROM lookups`, nil, func(scan scan) error {
			var server string
			err := scan(&server)
			known = append(known, server)
			return err
		}); err != nil {
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
		}
		for _, server := range servers {
			if _, err := t.exec(`INSERT OR IGNORE INTO lookups (file_id, server, next) SELECT id, ?, ? FROM files`, server, s.now().UnixMicro()); err != nil {
				return err
			}
		}
		return t.set(lookupServers, string(list))
	})
}

// DueLookups returns files that the server is due to be asked about, the longest
// due first. A file whose provenance is pending waits for it: it says where the
// entry is.
func (s *Store) DueLookups(ctx context.Context, server string, now time.Time, limit int) ([]Lookup, error) {
	var due []Lookup
	err := s.each(ctx, `SELECT `+fileColumns+`, k.step FROM lookups k JOIN files f ON f.id = k.file_id JOIN projects p ON p.id = f.project_id
		JOIN provenance v ON v.file_id = k.file_id
		WHERE k.server = ? AND k.next <= ? AND v.state <> 'pending' ORDER BY k.next, k.file_id LIMIT ?`,
		[]any{server, now.UnixMicro(), limit}, func(scan scan) error {
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

// LookupDone stores the outcome of a look-up: how many entries the answer named,
// or in askErr why there was none, in which case its step stays. It is asked
// again at next; zero: not again.
func (s *Store) LookupDone(ctx context.Context, l Lookup, next time.Time, found int, askErr string) error {
	return s.write(ctx, "storing a look-up", func(t *tx) error {
		if askErr != "" {
			_, err := t.exec(`UPDATE lookups SET next = ?, asked = ?, error = ? WHERE file_id = ? AND server = ?`,
				micros(next), s.now().UnixMicro(), askErr, int64(l.File.ID), l.Server)
			return err
		}
		// Against the step that was asked, so that the same outcome twice
		// counts once.
		_, err := t.exec(`UPDATE lookups SET step = ?, next = ?, asked = ?, found = ?, error = '' WHERE file_id = ? AND server = ? AND step = ?`,
			l.Step+1, micros(next), s.now().UnixMicro(), found, int64(l.File.ID), l.Server, l.Step)
		return err
	})
}
