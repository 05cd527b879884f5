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
const (
	historyFiles = `SELECT id, version, filename, sha256, size, uploaded, url, provenance_url, yanked, first_seen, gone, first_listing FROM files WHERE id BETWEEN ? AND ? ORDER BY id`
	historyBound = `SELECT b.file_id, b.entry_id, b.evidence, b.form_id, b.signature, e.log_id, e.idx, e.leaf_hash, e.kind_id, e.trust, e.integrated, e.set_valid, e.seen, e.signer_id
		FROM pairs b CROSS JOIN entries e ON e.id = b.entry_id WHERE b.file_id BETWEEN ? AND ? ORDER BY b.file_id, b.entry_id`
	// Rows that found no place beside the others.
	historyStray = `SELECT id FROM files WHERE id > ? AND project_id = ? ORDER BY id`
)

// History returns what is known of a project of an index, "" for PyPI. A project that
// nobody has listed has an empty history.
func (s *Store) History(ctx context.Context, index, project string) (History, error) {
	h := historyReader{History: History{Index: index, Project: project}, ctx: ctx, store: s, have: make(map[int64]bool), signers: make(map[int64]historySigner), publishers: make(map[int64]*Publisher)}
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
	have       map[int64]bool
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

func (h *historyReader) words() error {
	h.logs, h.kinds, h.forms = make(map[int64]historyLog), make(map[int64]string), make(map[int64]string)
	if err := h.each(`SELECT id, origin, first_global FROM logs`, nil, func(scan scan) error {
		var id int64
		var l historyLog
		err := scan(&id, &l.origin, &l.first)
		h.logs[id] = l
		return err
	}); err != nil {
		return err
	}
	for query, words := range map[string]map[int64]string{`SELECT id, name FROM kinds`: h.kinds, `SELECT id, name FROM binding_forms`: h.forms} {
		if err := h.each(query, nil, func(scan scan) error {
			var id int64
			var name string
			err := scan(&id, &name)
			words[id] = name
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (h *historyReader) files(first, last int64) error {
	if err := h.each(historyFiles, []any{first, last}, h.file); err != nil {
		return err
	}
	return h.each(historyBound, []any{first, last}, h.bound)
}

// file takes a file in. What may be NULL goes into any, as the driver gives it: that
// costs no conversion.
func (h *historyReader) file(scan scan) error {
	f := File{Index: h.Index, Project: h.Project}
	var id, seen, first int64
	var uploaded, provenance, yanked, gone any
	var hash sql.RawBytes
	if err := scan(&id, &f.Version, &f.Name, &hash, &f.Size, &uploaded, &f.URL, &provenance, &yanked, &seen, &gone, &first); err != nil {
		return err
	}
	sum, err := hashOf(hash)
	f.ID, f.SHA256, f.FirstSeen, f.FirstListing = FileID(id), sum, time.UnixMicro(seen).UTC(), first != 0
	if at, ok := uploaded.(int64); ok {
		f.Uploaded = time.UnixMicro(at).UTC()
	}
	if at, ok := gone.(int64); ok {
		f.Gone = time.UnixMicro(at).UTC()
	}
	f.ProvenanceURL, _ = provenance.(string)
	if reason, ok := yanked.(string); ok {
		f.Yanked = &reason
	}
	h.Files = append(h.Files, f)
	return err
}

// bound takes a pair in, with its entry.
func (h *historyReader) bound(scan scan) error {
	var file, entry, evidence, log, index, kind, seen, signed int64
	var form, integrated, signer any
	var signature, trust string
	var hash sql.RawBytes
	if err := scan(&file, &entry, &evidence, &form, &signature, &log, &index, &hash, &kind, &trust, &integrated, &signed, &seen, &signer); err != nil {
		return err
	}
	for _, k := range evidenceBits {
		if evidence&k.bit == 0 {
			continue
		}
		b := Bound{File: FileID(file), Entry: EntryID(entry), Evidence: k.evidence, Signature: notChecked}
		if k.checked {
			id, _ := form.(int64)
			b.Form, b.Signature = h.forms[id], signature
		}
		h.Bound = append(h.Bound, b)
	}
	if h.have[entry] {
		return nil
	}
	h.have[entry] = true
	sum, err := hashOf(hash)
	e := HistoryEntry{ID: EntryID(entry), Log: h.logs[log].origin, Index: uint64(index), Global: h.logs[log].first + uint64(index),
		Hash: sum, Kind: h.kinds[kind], Trust: trust, SETValid: signed != 0, Seen: time.UnixMicro(seen).UTC()}
	if at, ok := integrated.(int64); ok {
		e.Integrated = time.Unix(at, 0).UTC()
	}
	id, _ := signer.(int64)
	h.Entries, h.signed = append(h.Entries, e), append(h.signed, id)
	return err
}

// sign puts the signers in, and the entries in order.
func (h *historyReader) sign() error {
	if err := h.readSigners(slices.Clone(h.signed)); err != nil {
		return err
	}
	for i, id := range h.signed {
		s, e := h.signers[id], &h.Entries[i]
		e.Publisher, e.Run, e.Commit = s.publisher, s.run, s.commit
	}
	slices.SortFunc(h.Entries, func(a, b HistoryEntry) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

const historySigners = `SELECT id, publisher_id, run, commit_id FROM signers WHERE id BETWEEN ? AND ? ORDER BY id`

// readSigners reads those that lie side by side in one go.
func (h *historyReader) readSigners(ids []int64) error {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	for len(ids) > 0 {
		n := 1
		for n < len(ids) && ids[n] < ids[n-1]+16 {
			n++
		}
		if err := h.each(historySigners, []any{ids[0], ids[n-1]}, func(scan scan) error {
			var id, publisher int64
			var run, commit sql.NullString
			err := scan(&id, &publisher, &run, &commit)
			p := h.publishers[publisher]
			if p == nil {
				p = new(Publisher)
				h.publishers[publisher] = p
			}
			h.signers[id] = historySigner{p, run.String, commit.String}
			return err
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
