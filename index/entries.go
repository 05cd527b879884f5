package index

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigtrail/monitor"
)

// A found leaf concerns at least one file.
type found struct {
	leaf  monitor.Leaf
	hash  monitor.Hash
	kind  string
	entry Entry // zero where the leaf does not decode

	signer   *Signer
	setValid bool
	trust    string
	bindings []proposal
}

// A proposal is a binding on its way into the table.
type proposal struct {
	file      FileID
	evidence  Evidence
	form      string
	signature string
}

// notChecked stands for the signature where there are no rebuilt bytes to check
// it over.
const notChecked = "not checked"

// A match is a file that expects a digest.
type match struct {
	file     FileID
	form     string
	name     string // as signed
	attested bool   // the name is not the file's, but one that its provenance attests
	sha256   [32]byte
}

// compare orders by file, its own name first.
func (m match) compare(o match) int {
	if m.file == o.file && m.attested != o.attested {
		if o.attested {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(m.file, o.file), cmp.Compare(m.name, o.name))
}

// underAttestedName ends the form of what was signed under a name that only
// provenance attests: from the stored name the form makes something else.
const underAttestedName = " under attested name"

// stored is the form as it is kept.
func (m match) stored() string {
	if m.attested {
		return m.form + underAttestedName
	}
	return m.form
}

// The names under which a file is looked for are its own and those that statements
// in its provenance have for it. A file may come several times: to have SQLite sort
// that out takes it a table in memory, and longer than all the rest.
const (
	filesByDigest = `SELECT f.id, 0, f.filename, f.sha256 FROM expected x JOIN files f ON f.id = x.file_id WHERE x.prefix = ?1
		UNION ALL SELECT f.id, 1, a.name, f.sha256 FROM expected x JOIN attested_names a ON a.file_id = x.file_id JOIN files f ON f.id = a.file_id WHERE x.prefix = ?1
		UNION ALL SELECT id, 0, filename, sha256 FROM files WHERE sha256 = ?2
		UNION ALL SELECT f.id, 1, a.name, f.sha256 FROM files f JOIN attested_names a ON a.file_id = f.id WHERE f.sha256 = ?2`
	filesByLeaf = `SELECT file_id, max(subject) FROM provenance_leaves WHERE leaf_hash = ? AND key_id = ? GROUP BY file_id`
)

// matches are the files that expect a digest, each with the form by which they do.
func (s *Store) matches(ctx context.Context, digest [32]byte) ([]match, error) {
	return matches(digest, func(args []any, f func(scan) error) error { return s.eachPrepared(ctx, filesByDigest, args, f) })
}

// matches works the forms out again for the answer to filesByDigest.
func matches(digest [32]byte, ask func(args []any, f func(scan) error) error) ([]match, error) {
	var candidates, found []match
	if err := ask([]any{digest[:prefixBytes], digest[:]}, func(scan scan) error {
		var m match
		var sum []byte
		if err := scan(&m.file, &m.attested, &m.name, &sum); err != nil {
			return err
		}
		var err error
		m.sha256, err = hashOf(sum)
		candidates = append(candidates, m)
		return err
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(candidates, match.compare)
	for _, m := range slices.Compact(candidates) {
		for _, x := range ExpectedDigests(m.name, m.sha256) {
			if x.Digest == digest && !(m.attested && x.Form == artifact) {
				m.form = x.Form
				found = append(found, m)
			}
		}
	}
	return found, nil
}

// propose binds an entry to a file that expects its digest. False where the digest
// is of something else than the form: a payload is no artifact.
func (m match) propose(e Entry) (proposal, bool) {
	payload := strings.HasSuffix(m.form, formPayload)
	if payload != (e.DigestOf == DigestPayload) {
		return proposal{}, false
	}
	b := proposal{file: m.file, evidence: ByStatement, form: m.stored()}
	if m.form == artifact {
		b.evidence = ByArtifact
	}
	if err := VerifySignature(e, m.form, m.name, m.sha256); err != nil {
		b.signature = orUnknown(err.Error())
	}
	return b, true
}

// save writes a sifting under a head. The proof is that of the one leaf found by
// look-up; nil for a tailed batch.
func (s *Store) save(t *tx, w *sifting, log int64, head monitor.Head, proof []monitor.Hash) error {
	if len(w.bound) > 0 {
		headID, err := t.headID(log, head)
		if err != nil {
			return err
		}
		for _, f := range w.bound {
			id, err := t.saveEntry(log, headID, f, proof, s.now().UnixMicro())
			if err != nil {
				return fmt.Errorf("leaf %d: %w", f.leaf.Index, err)
			}
			for _, b := range f.bindings {
				if err := s.bind(t, id, b); err != nil {
					return fmt.Errorf("leaf %d: %w", f.leaf.Index, err)
				}
			}
			if f.setValid { // it may be trusted only now
				if err := t.widen(id); err != nil {
					return fmt.Errorf("leaf %d: %w", f.leaf.Index, err)
				}
			}
			if err := t.noLongerUnbound(f.entry.Digest, log, f.leaf.Index); err != nil {
				return err
			}
		}
	}
	if err := t.saveMalformed(w.malformed, log, s.now().UnixMicro()); err != nil {
		return err
	}
	return s.saveFree(t, w.free, log)
}

// saveEntry stores the entry or finds it: look-up and tail may both come by. A
// later copy of a leaf adds the log's signed time where the first one lacked it.
func (t *tx) saveEntry(log, head int64, f *found, proof []monitor.Hash, now int64) (EntryID, error) {
	var integrated any
	if f.leaf.SET != nil || f.leaf.IntegratedTime != 0 {
		integrated = f.leaf.IntegratedTime
	}
	var id EntryID
	var hash []byte
	var signed bool
	err := t.get(`SELECT id, leaf_hash, set_valid FROM entries WHERE log_id = ? AND idx = ?`, []any{log, int64(f.leaf.Index)}, &id, &hash, &signed)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return t.addEntry(log, head, f, integrated, proof, now)
	case err != nil:
		return 0, err
	case !bytes.Equal(hash, f.hash[:]):
		return 0, errors.New("another leaf is stored as proven at this index; the database is damaged, restore it from a backup")
	case signed || !f.setValid:
		return id, nil
	}
	if _, err := t.exec(`UPDATE entries SET integrated = ?, set_valid = 1, trust = ? WHERE id = ?`, integrated, f.trust, int64(id)); err != nil {
		return 0, err
	}
	_, err = t.exec(`UPDATE leaves SET set_sig = ? WHERE entry_id = ?`, packSignature(f.leaf.SET), int64(id))
	return id, err
}

// addEntry gives the entry an id beside those of the project of its first file.
func (t *tx) addEntry(log, head int64, f *found, integrated any, proof []monitor.Hash, now int64) (EntryID, error) {
	var project int64
	if err := t.get(`SELECT project_id FROM files WHERE id = ?`, []any{int64(f.bindings[0].file)}, &project); err != nil {
		return 0, fmt.Errorf("the file that it is bound to: %w", err)
	}
	g := givens{digest: f.entry.Digest}
	var signer any
	if f.signer != nil {
		id, err := t.signerID(f.signer, project)
		if err != nil {
			return 0, err
		}
		signer, g.cert = id, f.signer.DER
	}
	kind, err := t.wordID("kinds", f.kind)
	if err != nil {
		return 0, err
	}
	id, err := t.nextID("entries", project)
	if err != nil {
		return 0, err
	}
	if _, err := t.exec(`INSERT INTO entries (id, log_id, idx, leaf_hash, kind_id, signer_id, trust, integrated, set_valid, head_id, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, log, int64(f.leaf.Index), f.hash[:], kind, signer, f.trust, integrated, f.setValid, head, now); err != nil {
		return 0, err
	}
	if err := t.explainLeaf(&g, f.bindings); err != nil {
		return 0, err
	}
	shapes := shapeBook{get: t.get}
	kept, err := shapes.keep(f.leaf.Data, g)
	if err != nil {
		return 0, err
	}
	if _, err := t.exec(insertLeaf, kept.args(id, f.leaf.SET)...); err != nil {
		return 0, err
	}
	if proof != nil {
		_, err = t.exec(`INSERT INTO proofs (entry_id, proof) VALUES (?, ?)`, id, join(proof))
	}
	return EntryID(id), err
}

// explainLeaf is givens.explain by the bindings that rest on a form.
func (t *tx) explainLeaf(g *givens, bindings []proposal) error {
	for _, b := range bindings {
		if b.form == "" || strings.HasSuffix(b.form, underAttestedName) {
			continue
		}
		var name string
		var sum []byte
		if err := t.get(`SELECT filename, sha256 FROM files WHERE id = ?`, []any{int64(b.file)}, &name, &sum); err != nil {
			return err
		}
		return g.explain(b.form, name, sum)
	}
	return nil
}

// wordID is the row of a word that repeats.
func (t *tx) wordID(table, name string) (int64, error) {
	var id int64
	err := t.get(`SELECT id FROM `+table+` WHERE name = ?`, []any{name}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		err = t.get(`INSERT INTO `+table+` (name) VALUES (?) RETURNING id`, []any{name}, &id)
	}
	return id, err
}

// signerID keeps a certificate beside those of the project.
func (t *tx) signerID(s *Signer, project int64) (int64, error) {
	var id int64
	err := t.get(`SELECT id FROM signers WHERE fingerprint = ?`, []any{s.Fingerprint[:]}, &id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	publisher, err := t.publisherID(s.Publisher())
	if err != nil {
		return 0, err
	}
	if id, err = t.nextID("signers", project); err != nil {
		return 0, err
	}
	_, err = t.exec(`INSERT INTO signers (id, fingerprint, der, publisher_id, run, commit_id, not_before) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		id, s.Fingerprint[:], s.DER, publisher, s.field(ExtRunInvocationURI), s.field(ExtSourceRepositoryDigest), s.NotBefore.UnixMicro())
	return id, err
}

// field is NULL for an absent extension.
func (s *Signer) field(n int) sql.NullString {
	return sql.NullString{String: s.Fields[n].Value, Valid: s.Fields[n].Set}
}

func (t *tx) publisherID(p Publisher) (int64, error) {
	var id int64
	err := t.get(`SELECT id FROM publishers WHERE key = ?`, []any{p.Key()}, &id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = t.get(`INSERT INTO publishers (key, issuer, repository, repository_id, owner, owner_id, workflow, environment, identity) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		[]any{p.Key(), p.Issuer, p.Repository, p.RepositoryID, p.Owner, p.OwnerID, p.Workflow, p.Environment, p.Identity}, &id)
	return id, err
}

// bind adds a binding, and asks for judgement where it is new and says more than
// that a search index named the entry.
func (s *Store) bind(t *tx, entry EntryID, b proposal) error {
	var form any
	signature := ""
	if b.form != "" {
		id, err := t.wordID("binding_forms", b.form)
		if err != nil {
			return err
		}
		form, signature = id, b.signature
	}
	n, err := t.exec(`INSERT INTO pairs (file_id, entry_id, evidence, form_id, signature) VALUES (?, ?, (SELECT bit FROM evidence_kinds WHERE name = ?), ?, ?)
		ON CONFLICT (file_id, entry_id) DO UPDATE SET evidence = evidence | excluded.evidence, form_id = coalesce(form_id, excluded.form_id),
			signature = iif(form_id IS NULL, excluded.signature, signature) WHERE evidence & excluded.evidence = 0`,
		int64(b.file), int64(entry), string(b.evidence), form, signature)
	if err != nil || n == 0 {
		return err
	}
	signed := strings.TrimSuffix(b.form, underAttestedName)
	t.then(func() { s.metrics.bindings.WithLabelValues(string(b.evidence), signed).Inc() })
	if signed != "" {
		if err := t.countForm(formBound, signed, s.now()); err != nil {
			return err
		}
	}
	if b.evidence == BySubject {
		return nil
	}
	if err := t.widen(entry); err != nil {
		return err
	}
	s.newsOf(t, b.file)
	// What was judged early is judged again, now with this.
	if _, err := t.exec(`INSERT INTO unjudged (file_id, entry_id) VALUES (?, ?) ON CONFLICT (file_id, entry_id) DO UPDATE SET early = 0`, int64(b.file), int64(entry)); err != nil {
		return err
	}
	_, err = t.exec(`UPDATE projects SET identities = 1 WHERE identities = 0 AND id = (SELECT project_id FROM files WHERE id = ?)`, int64(b.file))
	return err
}
