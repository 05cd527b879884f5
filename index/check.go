package index

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"

	"github.com/mattn/go-sqlite3"

	"sigtrail/monitor"
)

// maxDamage bounds what is said of each kind of damage.
const maxDamage = 20

// A check looks for one kind of damage. It reports what it finds in words, and fails
// where the database cannot be read at all.
type check struct {
	name string
	find func(*checker) error
}

var checks = []check{
	{"pages, indexes and constraints", (*checker).integrity},
	{"references between tables", (*checker).references},
	{"coverage", (*checker).coverage},
	{"positions", (*checker).positions},
	{"heads", (*checker).heads},
	{"certificates", (*checker).certificates},
	{"entries", (*checker).entries},
	{"bindings", (*checker).pairs},
	{"counts", (*checker).counts},
}

type checker struct {
	ctx      context.Context
	tx       *sql.Tx
	name     string
	found    int // of this check
	damage   []string
	progress func(string)
}

// Check reads a whole database and returns what is damaged in it, nil if nothing is.
// It looks at one moment of the database, beside a running monitor too, whose
// write-ahead log grows meanwhile. progress is told each step. An error means that the
// check could not be done.
func Check(ctx context.Context, path string, progress func(string)) ([]string, error) {
	s, err := OpenReadOnly(ctx, path)
	if err != nil {
		if corrupt(err) {
			return []string{err.Error()}, nil
		}
		return nil, err
	}
	defer s.Close()
	c := checker{ctx: ctx, progress: progress}
	if c.tx, err = s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return nil, s.fail("checking", err)
	}
	defer c.tx.Rollback()
	for _, k := range checks {
		c.name, c.found = k.name, 0
		progress(k.name)
		err := k.find(&c)
		switch {
		case err == nil:
		case corrupt(err):
			c.say("%v", err)
		default:
			return c.damage, s.fail("checking "+k.name, err)
		}
		if more := c.found - maxDamage; more > 0 {
			c.damage = append(c.damage, fmt.Sprintf("%s: and %d more", k.name, more))
		}
	}
	return c.damage, nil
}

func corrupt(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}

func (c *checker) say(format string, args ...any) {
	if c.found++; c.found <= maxDamage {
		c.damage = append(c.damage, c.name+": "+fmt.Sprintf(format, args...))
	}
}

func (c *checker) each(query string, f func(scan) error, args ...any) error {
	rows, err := c.tx.QueryContext(c.ctx, query, args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

func (c *checker) integrity() error {
	return c.each(`PRAGMA integrity_check(100)`, func(scan scan) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		if text != "ok" {
			c.say("%s", text)
		}
		return nil
	})
}

func (c *checker) references() error {
	return c.each(`PRAGMA foreign_key_check`, func(scan scan) error {
		var table, parent string
		var row, key sql.NullInt64
		err := scan(&table, &row, &parent, &key)
		c.say("row %d of %s refers to none of %s", row.Int64, table, parent)
		return err
	})
}

// coverage holds that ranges of one log never touch.
func (c *checker) coverage() error {
	return c.each(`SELECT l.origin, c.first, c.past FROM (SELECT log_id, first, past, lead(first) OVER (PARTITION BY log_id ORDER BY first) AS follower FROM coverage) c
		JOIN logs l ON l.id = c.log_id WHERE c.first >= c.past OR c.follower <= c.past`, func(scan scan) error {
		var origin string
		var first, past int64
		err := scan(&origin, &first, &past)
		c.say("log %q: the range from %d to %d is empty or reaches the next one", origin, first, past)
		return err
	})
}

// positions holds that a tail's compact range is one of as many leaves, and that the
// newest verified head of its size has its root.
func (c *checker) positions() error {
	return c.each(`SELECT l.origin, l.next, l.range, (SELECT h.root FROM heads h WHERE h.log_id = l.id AND h.size = l.next AND h.verified = 1) FROM logs l WHERE l.next IS NOT NULL`, func(scan scan) error {
		var origin string
		var next int64
		var hashes, root []byte
		if err := scan(&origin, &next, &hashes, &root); err != nil {
			return err
		}
		left, err := split(hashes)
		if err != nil || len(left) != bits.OnesCount64(uint64(next)) {
			c.say("log %q: position %d with a compact range of %d bytes", origin, next, len(hashes))
			return nil
		}
		if root == nil {
			return nil
		}
		p := monitor.Position{Next: uint64(next), Range: left}
		if got, err := p.Root(); err != nil || string(got[:]) != string(root) {
			c.say("log %q: the tail at %d has another root than the head of that size", origin, next)
		}
		return nil
	})
}

func (c *checker) heads() error {
	return c.each(`SELECT id, text, CAST(note AS TEXT), size FROM heads WHERE instr(text, char(10) || size || char(10)) = 0 OR substr(CAST(note AS TEXT), 1, length(text)) <> text`, func(scan scan) error {
		var id, size int64
		var text, note string
		err := scan(&id, &text, &note, &size)
		c.say("head %d of size %d is not what its text says", id, size)
		return err
	})
}

func (c *checker) certificates() error {
	var der, print sql.RawBytes
	return c.each(`SELECT id, fingerprint, der FROM signers`, func(scan scan) error {
		var id int64
		err := scan(&id, &print, &der)
		if sum := sha256.Sum256(der); string(sum[:]) != string(print) {
			c.say("certificate %d has another fingerprint", id)
		}
		return err
	})
}

// entries holds that each leaf, put together, has the leaf hash that was proven.
func (c *checker) entries() error {
	n := 0
	return c.each(`SELECT e.id, e.leaf_hash, e.log_id, e.idx, EXISTS (SELECT 1 FROM coverage k WHERE k.log_id = e.log_id AND k.first <= e.idx AND k.past > e.idx
			AND k.first = (SELECT max(first) FROM coverage WHERE log_id = e.log_id AND first <= e.idx)), `+leafColumns+` FROM entries e`+leafTables+` ORDER BY e.id`, func(scan scan) error {
		var id, log, index int64
		var hash []byte
		var covered bool
		var r leafRow
		if err := scan(append([]any{&id, &hash, &log, &index, &covered}, r.dest()...)...); err != nil {
			return err
		}
		leaf, _, err := r.leaf()
		sum := monitor.HashLeaf(leaf)
		switch {
		case err != nil:
			c.say("entry %d: %v", id, err)
		case string(sum[:]) != string(hash):
			c.say("entry %d: its leaf is not the one that was proven at %d of log %d", id, index, log)
		case !covered:
			c.say("entry %d: index %d of log %d is not covered", id, index, log)
		}
		if n++; n%100_000 == 0 {
			c.progress(fmt.Sprintf("%s: %d", c.name, n))
		}
		return nil
	})
}

// pairs holds that each entry has its leaf and a file, that a form stands where the
// evidence rests on one, and that rows lie beside their project.
func (c *checker) pairs() error {
	for what, query := range map[string]string{
		"entry %d is bound to no file":                      `SELECT id FROM entries e WHERE NOT EXISTS (SELECT 1 FROM pairs WHERE entry_id = e.id)`,
		"entry %d has no leaf":                              `SELECT id FROM entries e WHERE NOT EXISTS (SELECT 1 FROM leaves WHERE entry_id = e.id)`,
		"entry %d is bound by a form, and none is named":    `SELECT entry_id FROM pairs p WHERE (form_id IS NULL) = EXISTS (SELECT 1 FROM evidence_kinds WHERE checked AND bit & p.evidence)`,
		"entry %d is bound by a kind of evidence not known": `SELECT entry_id FROM pairs WHERE evidence & ~(SELECT sum(bit) FROM evidence_kinds)`,
		"file %d lies beside those of another project":      fmt.Sprintf(`SELECT id FROM files WHERE id >> %d <> project_id AND id <= %d`, projectBits, int64(overflow)),
	} {
		if err := c.each(query, func(scan scan) error {
			var id int64
			err := scan(&id)
			c.say(what, id)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) counts() error {
	return c.each(`SELECT CAST(value AS INTEGER), (SELECT count(*) FROM unbound) FROM settings WHERE key = '`+unboundCount+`'`, func(scan scan) error {
		var said, are int64
		err := scan(&said, &are)
		if said != are {
			c.say("%d unbound leaves are counted, and there are %d", said, are)
		}
		return err
	})
}
