package index

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// explain gives the digest and the statement that a form makes of a file. The digest
// of the leaf is not kept then. It is an error if the leaf's digest is another one:
// the two were bound by it.
func (g *givens) explain(form, filename string, sum []byte) error {
	sha, err := hashOf(sum)
	if err != nil {
		return err
	}
	for _, x := range ExpectedDigests(filename, sha) {
		if x.Form != form {
			continue
		}
		if g.digest != nil && !bytes.Equal(g.digest, x.Digest[:]) {
			return fmt.Errorf("bound to %s as %s, which has another digest; the database is damaged, restore it from a backup", filename, form)
		}
		g.digest, g.explained = x.Digest[:], true
		if form != artifact {
			template, _, _ := strings.Cut(form, "/")
			g.payload, err = Statement(template, filename, sha)
		}
		return err
	}
	return nil // a form of a newer program: the digest is kept
}

// A keptLeaf is a row of leaves.
type keptLeaf struct {
	shape  sql.NullInt64
	digest []byte // NULL: of the form
	rest   []byte
}

const insertLeaf = `INSERT INTO leaves (entry_id, shape_id, digest, rest, set_sig) VALUES (?, ?, ?, ?, ?)`

func (k keptLeaf) args(entry int64, set []byte) []any {
	if set != nil {
		set = packSignature(set)
	}
	return []any{entry, k.shape, k.digest, k.rest, set}
}

// maxShapes bounds the table of shapes. There are a few for each kind of leaf; more
// are made by somebody who varies what a leaf may vary, and those are kept whole.
const maxShapes = 500

// A shapeBook finds shapes and adds them.
type shapeBook struct {
	get func(query string, args []any, dest ...any) error
}

// keep says how a leaf is stored.
func (b *shapeBook) keep(leaf []byte, g givens) (keptLeaf, error) {
	whole := keptLeaf{rest: blob(leaf)}
	if !g.explained {
		whole.digest = g.digest
	}
	if g.cert == nil {
		return whole, nil // a bare key is in no other row
	}
	shape, rest, ok := shapeOf(leaf, g)
	if !ok {
		return whole, nil
	}
	k := keptLeaf{digest: whole.digest, rest: blob(rest)}
	err := b.get(`SELECT id FROM shapes WHERE text = ?`, []any{shape}, &k.shape)
	if errors.Is(err, sql.ErrNoRows) {
		err = b.get(`INSERT INTO shapes (text) SELECT ? WHERE (SELECT count(*) FROM shapes) < ? RETURNING id`, []any{shape, maxShapes}, &k.shape)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return whole, nil
	}
	return k, err
}

// leafColumns are those that leafRow wants, of leaves v, shapes x, signers g, and
// leafTables joins them to entries e.
const (
	leafColumns = `x.text, v.digest, v.rest, v.set_sig, g.der, m.name, f.filename, f.sha256`
	leafTables  = ` JOIN leaves v ON v.entry_id = e.id LEFT JOIN shapes x ON x.id = v.shape_id LEFT JOIN signers g ON g.id = e.signer_id
		LEFT JOIN pairs p ON p.entry_id = e.id AND p.file_id = (SELECT min(q.file_id) FROM pairs q WHERE q.entry_id = e.id AND q.form_id IN (SELECT id FROM binding_forms WHERE name NOT LIKE '%` + underAttestedName + `'))
		LEFT JOIN binding_forms m ON m.id = p.form_id LEFT JOIN files f ON f.id = p.file_id`
)

// A leafRow collects leafColumns.
type leafRow struct {
	shape, digest, rest, set, der, sum []byte
	form, name                         sql.NullString
}

func (r *leafRow) dest() []any {
	return []any{&r.shape, &r.digest, &r.rest, &r.set, &r.der, &r.form, &r.name, &r.sum}
}

// leaf is the leaf byte for byte and the log's signature on its time.
func (r *leafRow) leaf() (leaf, set []byte, err error) {
	if r.set != nil {
		if set, _, err = unpackSignature(r.set); err != nil {
			return nil, nil, err
		}
	}
	if r.shape == nil {
		return r.rest, set, nil
	}
	g := givens{cert: r.der, digest: r.digest}
	if r.form.Valid {
		if err := g.explain(r.form.String, r.name.String, r.sum); err != nil {
			return nil, nil, err
		}
	}
	leaf, err = fillShape(r.shape, r.rest, g)
	return leaf, set, err
}
