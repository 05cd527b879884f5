package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"sigtrail/monitor"
)

// A provenance object holds the statement that was signed. That is where the
// templates are put to the test, where a name comes from under which a file was
// signed and is not stored, and where other attestations say what they are about.

// unknownReasons are what can be different in a publish statement that no template
// writes.
var unknownReasons = []string{"unreadable", "type", "subjects", "digests", "other-file", "predicate", "bytes"}

// What of the table forms a form is counted under.
const (
	formBound    = "bound"
	formAttested = "attested"
	formUnknown  = "unknown"
)

// maxAttestedNames bounds the names kept of one file, maxAttestedName their length.
const (
	maxAttestedNames = 4
	maxAttestedName  = 512
)

// A reading is what a statement turns out to be.
type reading struct {
	template string // that writes it; "": none, or it is of another kind
	name     string // for which the template writes it
	unknown  string // why there is no template, for a publish statement
	subject  bool   // of another kind, and names the digest
}

// readStatement compares a signed statement with what the templates write for a file.
func readStatement(raw []byte, filename string, digest [32]byte) reading {
	if t := templateOf(raw, filename, digest); t != "" {
		return reading{template: t, name: filename}
	}
	o, err := parseJSON(raw)
	if err != nil {
		return reading{unknown: "unreadable"}
	}
	subjects, _ := o["subject"].([]any)
	if o["predicateType"] != publishPredicate {
		for _, s := range subjects {
			if sum, _ := subjectOf(s); strings.EqualFold(sum, hex.EncodeToString(digest[:])) {
				return reading{subject: true}
			}
		}
		return reading{}
	}
	if len(subjects) != 1 {
		return reading{unknown: "subjects"}
	}
	subject, _ := subjects[0].(object)
	name, _ := subject["name"].(string)
	if t := templateOf(raw, name, digest); t != "" {
		return reading{template: t, name: name}
	}
	sum, algorithms := subjectOf(subject)
	predicate, isObject := o["predicate"].(object)
	switch {
	case o["_type"] != "https://in-toto.io/Statement/v1":
		return reading{unknown: "type"}
	case algorithms != 1:
		return reading{unknown: "digests"}
	case !strings.EqualFold(sum, hex.EncodeToString(digest[:])):
		return reading{unknown: "other-file"}
	case o["predicate"] != nil && !(isObject && len(predicate) == 0):
		return reading{unknown: "predicate"}
	}
	return reading{unknown: "bytes"} // the same said with other spaces, order or escapes
}

// subjectOf is the SHA-256 in hex that an in-toto subject names, and how many
// digests it has.
func subjectOf(subject any) (sha256 string, algorithms int) {
	o, _ := subject.(object)
	digests, _ := o["digest"].(object)
	sha256, _ = digests["sha256"].(string)
	return sha256, len(digests)
}

func templateOf(raw []byte, filename string, digest [32]byte) string {
	for _, t := range templates {
		if !t.plain && bytes.Equal(raw, t.write(filename, digest)) {
			return t.name
		}
	}
	return ""
}

// sound reports whether the leaf is over the statement: it holds the statement's
// digest or that of its PAE.
func (a Attested) sound() bool {
	e, err := Decode(a.Leaf)
	if err != nil || len(e.Digest) != 32 {
		return false
	}
	sum := sha256.Sum256(a.Statement)
	if e.DigestOf == DigestData {
		sum = sha256.Sum256(PAE(a.Statement))
	}
	return [32]byte(e.Digest) == sum
}

// learn takes from the statements in a file's provenance what they teach. It
// returns the hashes of leaves that are attestations of another kind about the file.
func (s *Store) learn(t *tx, f File, attests []Attested) (subjects map[monitor.Hash]bool, err error) {
	for _, a := range attests {
		r, hash := readStatement(a.Statement, f.Name, f.SHA256), monitor.HashLeaf(a.Leaf)
		var known bool // an object that is served again is not counted again
		if err := t.get(`SELECT EXISTS (SELECT 1 FROM provenance_leaves WHERE file_id = ? AND leaf_hash = ?)`, []any{int64(f.ID), hash[:]}, &known); err != nil {
			return nil, err
		}
		switch {
		case r.subject && a.sound():
			if subjects == nil {
				subjects = make(map[monitor.Hash]bool)
			}
			subjects[hash] = true
		case known:
		case r.unknown != "":
			t.then(func() { s.tellUnknown(f, a.Statement, r.unknown) })
			err = t.countForm(formUnknown, r.unknown, s.now())
		case r.template != "":
			err = t.countForm(formAttested, r.template, s.now())
			if err == nil && r.name != f.Name {
				err = s.learnName(t, f, r.name)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return subjects, nil
}

// tellUnknown is how one hears of a client that writes statements in its own way.
func (s *Store) tellUnknown(f File, statement []byte, different string) {
	s.metrics.unknown.WithLabelValues(different).Inc()
	s.log.Warn("no template writes this publish statement; entries over such statements are recognised by their provenance only",
		"file", f.Name, "different", different, "statement", string(statement[:min(len(statement), 400)]))
}

// learnName has the file expected under a name that it was signed under, too.
func (s *Store) learnName(t *tx, f File, name string) error {
	if len(name) > maxAttestedName {
		return nil
	}
	n, err := t.exec(`INSERT OR IGNORE INTO attested_names (file_id, name) SELECT ?1, ?2 WHERE (SELECT count(*) FROM attested_names WHERE file_id = ?1) < ?3`,
		int64(f.ID), name, maxAttestedNames)
	if err != nil || n == 0 {
		return err
	}
	for _, template := range templates {
		if template.plain {
			continue
		}
		for _, x := range template.digests(name, f.SHA256) {
			if err := s.expectDigest(t, match{file: f.ID, form: x.Form, name: name, attested: true, sha256: f.SHA256}, x.Digest); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tx) countForm(what, form string, at time.Time) error {
	_, err := t.exec(`INSERT INTO forms (what, form, n, last) VALUES (?, ?, 1, ?) ON CONFLICT (what, form) DO UPDATE SET n = n + 1, last = excluded.last`,
		what, form, at.UnixMicro())
	return err
}

// A FormCount is how often a form of the statement templates was met.
type FormCount struct {
	What string    // "bound": entries tied to a file; "attested": statements in provenance objects; "unknown": those of them that no template writes
	Form string    // "P1/payload", …; of attested statements the template; of unknown ones what is different
	N    int64     // all that were ever counted
	Last time.Time // zero: before they were counted
}

// Forms says which forms of signing a file are in use, forms that were never met
// included.
func (s *Store) Forms(ctx context.Context) ([]FormCount, error) {
	var forms []FormCount
	met := make(map[string]bool)
	err := s.each(ctx, `SELECT what, form, n, last FROM forms ORDER BY what, form`, nil, func(scan scan) error {
		var c FormCount
		var last int64
		err := scan(&c.What, &c.Form, &c.N, &last)
		if last != 0 {
			c.Last = time.UnixMicro(last).UTC()
		}
		forms = append(forms, c)
		met[c.What+c.Form] = true
		return err
	})
	if err != nil {
		return nil, s.fail("reading which forms are in use", err)
	}
	for _, x := range ExpectedDigests("", [32]byte{}) {
		if !met[formBound+x.Form] {
			forms = append(forms, FormCount{What: formBound, Form: x.Form})
		}
	}
	return forms, nil
}

// namedBy are the bindings of an entry to a file whose provenance contains it.
func namedBy(file FileID, subject bool) []proposal {
	b := []proposal{{file: file, evidence: ByProvenance, signature: notChecked}}
	if subject {
		b = append(b, proposal{file: file, evidence: BySubject, signature: notChecked})
	}
	return b
}
