package index

import (
	"context"
	"database/sql"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A v1 search index can be asked for the exact subject alternative name (SAN) of a
// certificate. For each project that is asked for the names that it has used, so that
// entries come up which the index does not list under any digest of a file.
//
// The names are those of trusted certificates whose entries are bound to the project's
// files. A project whose workflow runs on tags has a new one for each release, so that
// only the newest are asked for.
const (
	identitiesPerProject = 20
	signersRead          = 1000        // certificates of a project that are looked through for them
	maxIdentity          = 512         // bytes; servers take no longer name
	identityRest         = time.Minute // between two beginnings of a schedule: the files of a release come one by one
)

// setSearched drops the schedules of servers that are no longer asked for identities,
// and has every project looked through for one that is new.
func (t *tx) setSearched(searched []string) error {
	known, err := t.texts(`SELECT DISTINCT server FROM identity_lookups`)
	if err != nil {
		return err
	}
	for _, server := range known {
		if slices.Contains(searched, server) {
			continue
		}
		if _, err := t.exec(`DELETE FROM identity_lookups WHERE server = ? AND times = 0`, server); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE identity_lookups SET next = NULL WHERE server = ?`, server); err != nil {
			return err
		}
	}
	for _, server := range searched {
		if slices.Contains(known, server) {
			continue
		}
		if _, err := t.exec(`UPDATE projects SET identities = 1 WHERE identities = 0`); err != nil {
			return err
		}
	}
	return nil
}

// ScheduleIdentities looks through the projects that have new files or newly bound
// entries. A name that is new to a project is due at once; a new file makes all of the
// project's due again, at most once in identityRest.
func (s *Store) ScheduleIdentities(ctx context.Context, now time.Time) error {
	for ctx.Err() == nil {
		left := false
		if err := s.write(ctx, "scheduling the look-ups of identities", func(t *tx) error {
			searched, err := t.texts(`SELECT value FROM json_each((SELECT value FROM settings WHERE key = '` + searchedServers + `'))`)
			if err != nil || len(searched) == 0 {
				return err
			}
			var project int64
			switch err := t.get(`SELECT id FROM projects WHERE identities = 1 ORDER BY id LIMIT 1`, nil, &project); {
			case err == sql.ErrNoRows:
				return nil
			case err != nil:
				return err
			}
			left = true
			return t.scheduleIdentities(project, searched, now)
		}); err != nil || !left {
			return err
		}
	}
	return ctx.Err()
}

func (t *tx) scheduleIdentities(project int64, servers []string, now time.Time) error {
	identities, err := t.identities(project)
	if err != nil {
		return err
	}
	var newest sql.NullInt64
	if err := t.get(`SELECT max(first_seen) FROM files WHERE project_id = ?`, []any{project}, &newest); err != nil {
		return err
	}
	for _, server := range servers {
		// One that is no longer among the newest rests.
		old, err := t.texts(`SELECT identity FROM identity_lookups WHERE project_id = ? AND server = ? AND next IS NOT NULL`, project, server)
		if err != nil {
			return err
		}
		for _, identity := range old {
			if slices.Contains(identities, identity) {
				continue
			}
			if _, err := t.exec(`UPDATE identity_lookups SET next = NULL WHERE project_id = ? AND server = ? AND identity = ?`, project, server, identity); err != nil {
				return err
			}
		}
		for _, identity := range identities {
			if _, err := t.exec(`INSERT INTO identity_lookups (project_id, server, identity, next, newest) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (project_id, server, identity) DO UPDATE SET step = 0, next = max(excluded.next, coalesce(asked, 0) + ?), newest = excluded.newest
					WHERE newest < excluded.newest`,
				project, server, identity, now.UnixMicro(), newest.Int64, identityRest.Microseconds()); err != nil {
				return err
			}
		}
	}
	_, err = t.exec(`UPDATE projects SET identities = 0 WHERE id = ?`, project)
	return err
}

// identities are the newest names that a project has used. Those that PyPI's own
// provenance names come first: whoever holds any certificate can sign what is public
// about a file, and must not push them out.
func (t *tx) identities(project int64) ([]string, error) {
	var signers []int64
	if err := t.each(`SELECT e.signer_id, max(b.evidence = 'provenance') AS named, max(coalesce(f.uploaded, f.first_seen)) AS used
		FROM files f JOIN bindings b ON b.file_id = f.id JOIN entries e ON e.id = b.entry_id
		WHERE f.project_id = ? AND e.signer_id IS NOT NULL AND e.trust = '' AND (b.evidence = 'provenance' OR b.signature = '')
		GROUP BY e.signer_id ORDER BY named DESC, used DESC, e.signer_id DESC LIMIT ?`, []any{project, signersRead}, func(scan scan) error {
		var signer, named, used int64
		err := scan(&signer, &named, &used)
		signers = append(signers, signer)
		return err
	}); err != nil {
		return nil, err
	}
	var identities []string
	for _, id := range signers {
		var der []byte
		if err := t.get(`SELECT der FROM signers WHERE id = ?`, []any{id}, &der); err != nil {
			return nil, err
		}
		signer, err := ParseSigner(der)
		if err != nil || signer.SAN == "" || len(signer.SAN) > maxIdentity || slices.Contains(identities, signer.SAN) {
			continue
		}
		if identities = append(identities, signer.SAN); len(identities) == identitiesPerProject {
			break
		}
	}
	return identities, nil
}

// DueIdentities returns the names that the server is due to be asked for, the longest
// due first, each once, however many projects have used it.
func (s *Store) DueIdentities(ctx context.Context, server string, now time.Time, limit int) ([]string, error) {
	var due []string
	err := s.each(ctx, `SELECT identity, min(next) AS since FROM identity_lookups WHERE server = ? AND next <= ? GROUP BY identity ORDER BY since, identity LIMIT ?`,
		[]any{server, now.UnixMicro(), limit}, func(scan scan) error {
			var identity string
			var since int64
			err := scan(&identity, &since)
			due = append(due, identity)
			return err
		})
	if err != nil {
		return nil, s.fail("reading which identities are due", err)
	}
	return due, nil
}

// An IdentityAnswer is what came of asking a server for an identity.
type IdentityAnswer struct {
	At     time.Time
	Found  int       // entries named
	Unread int       // of them, not fetched yet
	Retry  time.Time // when to go on, as the question stays open; zero: at the next step
	Err    string    // why there is no answer; "": there is one
	Note   string    // what of the answer could not be used

	// Next is when to ask for the n-th time again; zero: not.
	Next func(n int) time.Time
}

// IdentityDone stores the outcome for all projects that were due at that time.
func (s *Store) IdentityDone(ctx context.Context, server, identity string, a IdentityAnswer) error {
	type due struct{ project, step int64 }
	return s.write(ctx, "storing a look-up of an identity", func(t *tx) error {
		var rows []due
		at := a.At.UnixMicro()
		if err := t.each(`SELECT project_id, step FROM identity_lookups WHERE server = ? AND next <= ? AND identity = ?`, []any{server, at, identity}, func(scan scan) error {
			var d due
			err := scan(&d.project, &d.step)
			rows = append(rows, d)
			return err
		}); err != nil {
			return err
		}
		for _, d := range rows {
			next, step, answered := a.Retry, d.step, 1
			if a.Retry.IsZero() {
				next, step = a.Next(int(d.step)), d.step+1
			}
			if a.Err != "" {
				answered = 0
			}
			if _, err := t.exec(`UPDATE identity_lookups SET step = ?, next = ?, first = coalesce(first, ?), asked = ?, times = times + ?, error = ?,
					found = CASE ? WHEN 1 THEN ? ELSE found END, unread = CASE ? WHEN 1 THEN ? ELSE unread END
				WHERE project_id = ? AND server = ? AND identity = ?`,
				step, micros(next), at, at, answered, a.Err+a.Note, answered, a.Found, answered, a.Unread, d.project, server, identity); err != nil {
				return err
			}
		}
		if a.Err != "" {
			return nil
		}
		return t.answers(server, a.At)
	})
}

// idChunk is how many entry ids are asked for in one statement.
const idChunk = 100

// UnreadEntries returns those of the entry ids (64 or 80 hex digits) that have neither
// been fetched for an identity nor stored for a file.
func (s *Store) UnreadEntries(ctx context.Context, server string, ids []string) ([]string, error) {
	var unread []string
	for chunk := range slices.Chunk(ids, idChunk) {
		known := make(map[string]bool)
		args, leaves := []any{server}, []any{server}
		for _, id := range chunk {
			raw, err := hex.DecodeString(id)
			if err != nil || len(raw) < 32 {
				return nil, s.fail("reading entry ids", strconv.ErrSyntax)
			}
			args, leaves = append(args, raw), append(leaves, raw[len(raw)-32:][:8])
		}
		marks := strings.Repeat(", ?", len(chunk))[2:]
		err := s.each(ctx, `SELECT id FROM identity_entries WHERE server = ? AND id IN (`+marks+`)`, args, func(scan scan) error {
			var id []byte
			err := scan(&id)
			known[hex.EncodeToString(id)] = true
			return err
		})
		if err == nil {
			err = s.each(ctx, `SELECT l.tree_id, e.leaf_hash FROM entries e JOIN logs l ON l.id = e.log_id WHERE l.url = ? AND substr(e.leaf_hash, 1, 8) IN (`+marks+`)`, leaves, func(scan scan) error {
				var tree string
				var hash []byte
				if err := scan(&tree, &hash); err != nil {
					return err
				}
				n, err := strconv.ParseUint(tree, 10, 64)
				known[entryID(n, hash)] = true
				return err
			})
		}
		if err != nil {
			return nil, s.fail("reading which entries are known", err)
		}
		for _, id := range chunk {
			if !known[id] {
				unread = append(unread, id)
			}
		}
	}
	return unread, nil
}

// UnboundEntries returns those of the entry ids that are not bound to the file.
func (s *Store) UnboundEntries(ctx context.Context, server string, file FileID, ids []string) ([]string, error) {
	bound := make(map[string]bool)
	err := s.each(ctx, `SELECT DISTINCT l.tree_id, e.leaf_hash FROM bindings b JOIN entries e ON e.id = b.entry_id JOIN logs l ON l.id = e.log_id
		WHERE b.file_id = ? AND l.url = ?`, []any{int64(file), server}, func(scan scan) error {
		var tree string
		var hash []byte
		if err := scan(&tree, &hash); err != nil {
			return err
		}
		n, err := strconv.ParseUint(tree, 10, 64)
		bound[entryID(n, hash)] = true
		return err
	})
	if err != nil {
		return nil, s.fail("reading the entries of a file", err)
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return bound[id] }), nil
}

// entryID is how a v1 server names an entry: tree id and leaf hash.
func entryID(tree uint64, leaf []byte) string {
	id := strconv.FormatUint(tree, 16)
	return strings.Repeat("0", 16-len(id)) + id + hex.EncodeToString(leaf)
}

// EntriesRead notes ids whose entries have been fetched and committed.
func (s *Store) EntriesRead(ctx context.Context, server string, ids []string) error {
	return s.write(ctx, "storing which entries were fetched", func(t *tx) error {
		for _, id := range ids {
			raw, err := hex.DecodeString(id)
			if err != nil {
				return err
			}
			if _, err := t.exec(`INSERT OR IGNORE INTO identity_entries (server, id) VALUES (?, ?)`, server, raw); err != nil {
				return err
			}
		}
		return nil
	})
}
