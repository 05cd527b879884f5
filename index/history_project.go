package index

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"sigtrail/monitor"
)

// A History is what is known of a project's files: every entry bound to one, with its
// signer and the evidence, without the leaves themselves (Signatures gives those).
type History struct {
	Index   string // "": PyPI
	Project string
	Files   []File         // in the order in which they were first seen
	Entries []HistoryEntry // in the order in which they were indexed
	Bound   []Bound        // by file, then entry
}

// A HistoryEntry is a proven entry. Publisher is nil for a bare key and for a
// certificate that does not parse.
type HistoryEntry struct {
	ID         EntryID
	Log        string // origin
	Index      uint64 // in the tree
	Global     uint64 // v1: over all shards; else Index
	Hash       monitor.Hash
	Kind       string
	Trust      string    // "": the certificate leads to the trusted root; else why not
	Integrated time.Time // v1: as served; zero: v2
	SETValid   bool      // Integrated is a signed claim of the log
	Seen       time.Time
	Publisher  *Publisher
	Run        string // "": the certificate names none
	Commit     string // likewise
}

// Bound is one kind of evidence by which an entry is bound to a file. Signature is ""
// when it verifies over the rebuilt bytes, else why not.
type Bound struct {
	File      FileID
	Entry     EntryID
	Evidence  Evidence
	Form      string
	Signature string
}

// Rows of a project lie side by side (clustered.go), so that each question reads one
// range. What is said of many rows in one word is put in here and not by SQL, which
// would look it up for each.
var (
	historyFiles = packRows(
		[]string{`id`, `size`, orNull(`uploaded`), `first_seen`, orNull(`gone`), `first_listing`, `yanked IS NOT NULL`},
		[]string{`sha256`, `version`, `filename`, `url`, `ifnull(provenance_url, '')`, `ifnull(yanked, '')`},
		`FROM files WHERE id BETWEEN ? AND ?`)
	historyBound = packRows(
		[]string{`b.file_id`, `b.entry_id`, `b.evidence`, orNull(`b.form_id`), `e.log_id`, `e.idx`, `e.kind_id`, orNull(`e.integrated`), `e.set_valid`, `e.seen`, orNull(`e.signer_id`)},
		[]string{`e.leaf_hash`, `b.signature`, `e.trust`},
		`FROM pairs b CROSS JOIN entries e ON e.id = b.entry_id WHERE b.file_id BETWEEN ? AND ?`)
	historySigners = packRows([]string{`id`, `publisher_id`}, []string{`ifnull(run, '')`, `ifnull(commit_id, '')`},
		`FROM signers WHERE id BETWEEN ? AND ?`)
)

const (
	historyWords = `SELECT 0, id, origin, first_global FROM logs UNION ALL SELECT 1, id, name, 0 FROM kinds UNION ALL SELECT 2, id, name, 0 FROM binding_forms`
	// Rows that found no place beside the others.
	historyStray = `SELECT id FROM files WHERE id > ? AND project_id = ? ORDER BY id`
)

// History returns what is known of a project of an index, "" for PyPI. A project that
// nobody has listed has an empty history.
func (s *Store) History(ctx context.Context, index, project string) (History, error) {
	h := historyReader{History: History{Index: index, Project: project}, ctx: ctx, store: s, have: make(map[EntryID]bool), signers: make(map[int64]historySigner), publishers: make(map[int64]*Publisher)}
	if err := h.read(); err != nil {
		return History{}, s.fail("reading the history of "+Qualified(index, project), err)
	}
	return h.History, nil
}

type historyReader struct {
	History
	ctx        context.Context
	store      *Store
	tx         *sql.Tx
	have       map[EntryID]bool
	logs       map[int64]historyLog
	kinds      map[int64]string
	forms      map[int64]string
	signers    map[int64]historySigner
	publishers map[int64]*Publisher
	signed     []int64 // signers of Entries; 0: none
}

type historyLog struct {
	origin string
	first  uint64
}

type historySigner struct {
	publisher   *Publisher
	run, commit string
}

func (h *historyReader) each(query string, args []any, f func(scan) error) error {
	stmt, err := h.store.prepared(h.ctx, query)
	if err != nil {
		return err
	}
	rows, err := h.tx.StmtContext(h.ctx, stmt).QueryContext(h.ctx, args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

// read is one transaction, so that what it puts together belongs together.
func (h *historyReader) read() (err error) {
	if h.tx, err = h.store.db.BeginTx(h.ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return err
	}
	defer h.tx.Rollback()
	project := int64(0)
	if err := h.each(`SELECT p.id FROM projects p JOIN indexes i ON i.id = p.index_id WHERE i.name = ? AND p.name = ?`, []any{orPyPI(h.Index), h.Project}, func(scan scan) error { return scan(&project) }); err != nil || project == 0 {
		return err
	}
	if err := h.words(); err != nil {
		return err
	}
	first, last := projectRange(project)
	if err := h.files(first, last); err != nil {
		return err
	}
	var strays []int64
	if err := h.each(historyStray, []any{int64(overflow), project}, func(scan scan) error {
		var id int64
		err := scan(&id)
		strays = append(strays, id)
		return err
	}); err != nil {
		return err
	}
	for _, id := range strays {
		if err := h.files(id, id); err != nil {
			return err
		}
	}
	return h.sign()
}

// words reads what rows name by number.
func (h *historyReader) words() error {
	h.logs, h.kinds, h.forms = make(map[int64]historyLog), make(map[int64]string), make(map[int64]string)
	return h.each(historyWords, nil, func(scan scan) error {
		var of, id int64
		var name string
		var first uint64
		err := scan(&of, &id, &name, &first)
		switch of {
		case 0:
			h.logs[id] = historyLog{name, first}
		case 1:
			h.kinds[id] = name
		case 2:
			h.forms[id] = name
		}
		return err
	})
}

func (h *historyReader) files(first, last int64) error {
	if err := h.rows(historyFiles, []any{first, last}, h.file); err != nil {
		return err
	}
	return h.rows(historyBound, []any{first, last}, h.bound)
}

// rows hands out packed rows, with how many are left, itself counted.
func (h *historyReader) rows(query string, args []any, f func(p *packedRows, left int)) error {
	return h.each(query, args, func(scan scan) error {
		var p packedRows
		var n int
		if err := scan(&n, &p.rest); err != nil {
			return err
		}
		for ; n > 0 && p.err == nil; n-- {
			f(&p, n)
		}
		return p.err
	})
}

func (h *historyReader) file(p *packedRows, left int) {
	f := File{Index: h.Index, Project: h.Project}
	f.ID, f.Size, f.Uploaded, f.FirstSeen, f.Gone, f.FirstListing = FileID(p.int()), p.int(), p.time(), p.time(), p.time(), p.int() != 0
	yanked := p.int() != 0
	hash, version, name, url, provenance, reason := p.int(), p.int(), p.int(), p.int(), p.int(), p.int()
	f.SHA256, f.Version, f.Name, f.URL, f.ProvenanceURL = p.hash(hash), p.bytes(version), p.bytes(name), p.bytes(url), p.bytes(provenance)
	if why := p.bytes(reason); yanked {
		f.Yanked = &why
	}
	h.Files = append(slices.Grow(h.Files, left), f)
}

// bound takes a pair in, with its entry.
func (h *historyReader) bound(p *packedRows, left int) {
	file, entry, evidence, form := FileID(p.int()), EntryID(p.int()), p.int(), p.int()
	log, index, kind := h.logs[p.int()], uint64(p.int()), p.int()
	integrated, stamped := p.number()
	signed, seen, signer := p.int() != 0, p.time(), p.int()
	hash, signature, trust := p.int(), p.int(), p.int()
	e := HistoryEntry{ID: entry, Log: log.origin, Index: index, Global: log.first + index, Hash: p.hash(hash), Kind: h.kinds[kind], SETValid: signed, Seen: seen}
	why := p.bytes(signature)
	e.Trust = p.bytes(trust)
	if stamped {
		e.Integrated = time.Unix(integrated, 0).UTC()
	}
	h.Bound = slices.Grow(h.Bound, 2*left) // of most entries two kinds are known
	for _, k := range evidenceBits {
		if evidence&k.bit == 0 {
			continue
		}
		b := Bound{File: file, Entry: entry, Evidence: k.evidence, Signature: notChecked}
		if k.checked {
			b.Form, b.Signature = h.forms[form], why
		}
		h.Bound = append(h.Bound, b)
	}
	if !h.have[entry] {
		h.have[entry] = true
		h.Entries, h.signed = append(slices.Grow(h.Entries, left), e), append(h.signed, signer)
	}
}

// sign puts the signers in, and all in order.
func (h *historyReader) sign() error {
	if err := h.readSigners(slices.Clone(h.signed)); err != nil {
		return err
	}
	for i, id := range h.signed {
		s, e := h.signers[id], &h.Entries[i]
		e.Publisher, e.Run, e.Commit = s.publisher, s.run, s.commit
	}
	slices.SortFunc(h.Files, func(a, b File) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortStableFunc(h.Bound, func(a, b Bound) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Entry, b.Entry))
	})
	slices.SortFunc(h.Entries, func(a, b HistoryEntry) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

// readSigners reads those that lie side by side in one go.
func (h *historyReader) readSigners(ids []int64) error {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	for len(ids) > 0 {
		n := 1
		for n < len(ids) && ids[n] < ids[n-1]+16 {
			n++
		}
		if err := h.rows(historySigners, []any{ids[0], ids[n-1]}, func(row *packedRows, _ int) {
			id, publisher, run, commit := row.int(), row.int(), row.int(), row.int()
			p := h.publishers[publisher]
			if p == nil {
				p = new(Publisher)
				h.publishers[publisher] = p
			}
			h.signers[id] = historySigner{p, row.bytes(run), row.bytes(commit)}
		}); err != nil {
			return err
		}
		ids = ids[n:]
	}
	for id, p := range h.publishers {
		if p.Issuer+p.Identity != "" {
			continue // read before
		}
		if err := h.each(`SELECT issuer, repository, repository_id, owner, owner_id, workflow, environment, identity FROM publishers WHERE id = ?`, []any{id}, func(scan scan) error {
			return scan(&p.Issuer, &p.Repository, &p.RepositoryID, &p.Owner, &p.OwnerID, &p.Workflow, &p.Environment, &p.Identity)
		}); err != nil {
			return err
		}
	}
	return nil
}
