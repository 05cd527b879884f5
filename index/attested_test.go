package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func mustStatement(t testing.TB, template, name string, digest [32]byte) []byte {
	t.Helper()
	b, err := Statement(template, name, digest)
	ok(t, err)
	return b
}

func TestReadStatement(t *testing.T) {
	f := aFile("p", "1")
	p1 := string(mustStatement(t, "P1", f.Name, f.SHA256))
	sum := hex.EncodeToString(f.SHA256[:])
	other := sha256.Sum256(nil)
	edit := func(from, to string) string {
		t.Helper()
		if !strings.Contains(p1, from) {
			t.Fatalf("no %s in %s", from, p1)
		}
		return strings.Replace(p1, from, to, 1)
	}
	slsa := edit(publishPredicate, "https://slsa.dev/provenance/v1")
	for name, c := range map[string]struct {
		statement string
		want      reading
	}{
		"as Python writes it":      {p1, reading{template: "P1", name: f.Name}},
		"as GitHub writes it":      {edit("null", "{}"), reading{template: "P2", name: f.Name}},
		"under another name":       {edit(f.Name, "P-1.tar.gz"), reading{template: "P1", name: "P-1.tar.gz"}},
		"with a predicate":         {edit("null", `{"a":1}`), reading{unknown: "predicate"}},
		"with spaces":              {edit(`,"predicate"`, `, "predicate"`), reading{unknown: "bytes"}},
		"without predicate":        {edit(`,"predicate":null`, ``), reading{unknown: "bytes"}},
		"in upper case":            {edit(sum, strings.ToUpper(sum)), reading{unknown: "bytes"}},
		"with a line end":          {p1 + "\n", reading{unknown: "bytes"}},
		"of another file":          {edit(sum, hex.EncodeToString(other[:])), reading{unknown: "other-file"}},
		"with two digests":         {edit(`{"sha256"`, `{"sha512":"ab","sha256"`), reading{unknown: "digests"}},
		"without SHA-256":          {edit(`"sha256"`, `"sha512"`), reading{unknown: "other-file"}},
		"with two subjects":        {edit(`"subject":[`, `"subject":[{},`), reading{unknown: "subjects"}},
		"without subject":          {`{"predicateType":"` + publishPredicate + `"}`, reading{unknown: "subjects"}},
		"of an old type":           {edit("Statement/v1", "Statement/v0.1"), reading{unknown: "type"}},
		"twice the same member":    {edit(`{"_type"`, `{"predicateType":"x","_type"`), reading{unknown: "unreadable"}},
		"no JSON":                  {"\x00", reading{unknown: "unreadable"}},
		"SLSA about the file":      {slsa, reading{subject: true}},
		"SLSA among others":        {strings.Replace(slsa, `"subject":[`, `"subject":[7,{"digest":3},`, 1), reading{subject: true}},
		"SLSA about another file":  {strings.Replace(slsa, sum, hex.EncodeToString(other[:]), 1), reading{}},
		"an object and no more":    {"{}", reading{}},
		"subjects that are a text": {`{"predicateType":"x","subject":"y"}`, reading{}},
	} {
		got := readStatement([]byte(c.statement), f.Name, f.SHA256)
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(reading{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if got.unknown != "" && !strings.Contains(strings.Join(unknownReasons, " "), got.unknown) {
			t.Errorf("%s: %q is no label of the metric", name, got.unknown)
		}
	}
}

// An attestation of another kind whose subject is the file is bound as such, whether
// its leaf or PyPI's object comes first, if the leaf is over that statement.
func TestSubjectByProvenance(t *testing.T) {
	for _, leafFirst := range []bool{false, true} {
		s := openTest(t, Options{})
		f := named(aFile("p", "1"))
		fresh := listFiles(t, s, "p", 1, f)
		sg := newSigning(t, "o/r")
		tr := begin(t, s, testLog)
		slsa := bytes.Replace(mustStatement(t, "P1", f.Name, f.SHA256), []byte(publishPredicate), []byte("https://slsa.dev/provenance/v1"), 1)
		pae := PAE(slsa)
		leaves := [][]byte{sg.attest(t, f), sg.hashedV2(sha256.Sum256(pae), sg.sign(t, pae)), sg.dsseV1(sha256.Sum256(slsa), []byte("sig")), sg.noise(1)}
		b := tr.batch(t, leaves...)
		commit := func() { ok(t, s.Commit(t.Context(), b)) }
		if leafFirst {
			commit()
		}
		p := Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}")}
		for i, statement := range [][]byte{mustStatement(t, "P1", f.Name, f.SHA256), slsa, slsa, slsa} { // the last leaf is over something else
			p.Leaves = append(p.Leaves, ProvenanceLeaf{KeyID: testLog.KeyID, Global: uint64(i), Hash: b.Hashes[i]})
			p.Attests = append(p.Attests, Attested{Statement: statement, Leaf: leaves[i]})
		}
		ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, p))
		if leafFirst {
			wants, err := s.Wanted(t.Context(), testLog.Origin, 10)
			ok(t, err)
			for _, w := range wants {
				ok(t, s.CommitFound(t.Context(), proven(b, int(w.Index)), 0))
			}
		} else {
			commit()
		}
		expectRows(t, s,
			`p-1.tar.gz 0 provenance  false ""`, `p-1.tar.gz 0 statement P1/pae true ""`,
			`p-1.tar.gz 1 provenance  false ""`, `p-1.tar.gz 1 subject  false ""`,
			`p-1.tar.gz 2 provenance  false ""`, `p-1.tar.gz 2 subject  false ""`,
			`p-1.tar.gz 3 provenance  false ""`)
	}
}

// A file that was signed under another name than PyPI stores is recognised, once a
// provenance object has told the name, in entries of before and after.
func TestAttestedName(t *testing.T) {
	path := t.TempDir() + "/sigtrail.db"
	s := openAt(t, path, Options{})
	f := named(aFile("p", "1"))
	f.Name = "p-1-py3.py2-none-any.whl"
	signed := f
	signed.Name = "p-1-py2.py3-none-any.whl"
	fresh := listFiles(t, s, "p", 1, f)
	sg := newSigning(t, "o/r")
	tr := begin(t, s, testLog)
	before := tr.batch(t, sg.attest(t, signed))
	ok(t, s.Commit(t.Context(), before))
	expectRows(t, s)
	attested := Attested{Statement: mustStatement(t, "P1", signed.Name, f.SHA256), Leaf: sg.noise(1)}
	ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}"), Attests: []Attested{attested, attested}}))
	wants, err := s.Wanted(t.Context(), testLog.Origin, 10)
	if err != nil || len(wants) != 1 {
		t.Fatalf("wanted: %v %v", wants, err)
	}
	ok(t, s.CommitFound(t.Context(), proven(before, 0), 0))
	ok(t, s.Close())
	s = openAt(t, path, Options{})
	ok(t, s.Commit(t.Context(), tr.batch(t, sg.attest(t, signed), sg.attest(t, f), sg.hashedV2(f.SHA256, nil))))
	expectRows(t, s,
		`p-1-py3.py2-none-any.whl 0 statement P1/pae under attested name true ""`, `p-1-py3.py2-none-any.whl 1 statement P1/pae under attested name true ""`,
		`p-1-py3.py2-none-any.whl 2 statement P1/pae true ""`, `p-1-py3.py2-none-any.whl 3 artifact artifact false ""`)
	if n := countRows(t, s, `SELECT count(*) FROM attested_names WHERE name = ?`, signed.Name); n != 1 {
		t.Errorf("%d rows for the name", n)
	}
}

// What is signed in which form is counted, and so is what no template writes.
func TestForms(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	path := t.TempDir() + "/sigtrail.db"
	s := openAt(t, path, Options{Registerer: reg, Log: slog.New(slog.NewTextHandler(&log, nil))})
	old := named(aFile("p", "1"))
	old.Uploaded = templates[2].from
	fresh := listFiles(t, s, "p", 1, old, aFile("p", "2"))
	sg := newSigning(t, "o/r")
	plain := preStandard(old.Name, old.SHA256)
	if want := `{"digest":"` + hex.EncodeToString(old.SHA256[:]) + `","distribution":"p-1.tar.gz"}`; string(plain) != want {
		t.Errorf("%s, want %s", plain, want)
	}
	late := preStandard("p-2.tar.gz", fresh[1].SHA256)
	ok(t, s.Commit(t.Context(), begin(t, s, testLog).batch(t, sg.attest(t, old), sg.attest(t, old),
		sg.hashedV2(sha256.Sum256(plain), sg.sign(t, plain)), sg.hashedV2(sha256.Sum256(late), sg.sign(t, late)))))
	expectRows(t, s, `p-1.tar.gz 0 statement P1/pae true ""`, `p-1.tar.gz 1 statement P1/pae true ""`, `p-1.tar.gz 2 statement P0/data true ""`)
	ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}"), Attests: []Attested{
		{Statement: mustStatement(t, "P2", old.Name, old.SHA256), Leaf: sg.noise(1)},
		{Statement: append(mustStatement(t, "P2", old.Name, old.SHA256), ' '), Leaf: sg.noise(2)},
	}}))

	want := []FormCount{{What: "attested", Form: "P2", N: 1}, {What: "bound", Form: "P0/data", N: 1}, {What: "bound", Form: "P1/pae", N: 2}, {What: "unknown", Form: "bytes", N: 1},
		{What: "bound", Form: "P1/payload"}, {What: "bound", Form: "P2/payload"}, {What: "bound", Form: "P2/pae"}, {What: "bound", Form: "artifact"}}
	check := func() {
		t.Helper()
		got, err := s.Forms(t.Context())
		ok(t, err)
		for i := range got {
			if got[i].Last.IsZero() != (got[i].N == 0) {
				t.Errorf("%s %s: %d, last %s", got[i].What, got[i].Form, got[i].N, got[i].Last)
			}
			got[i].Last = want[0].Last
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	check()
	values := gathered(t, reg)
	for series, want := range map[string]float64{"sigtrail_bindings_total{statement,P0/data}": 1, "sigtrail_bindings_total{statement,P1/pae}": 2, "sigtrail_bindings_total{statement,P2/pae}": 0,
		"sigtrail_unknown_statements_total{bytes}": 1, "sigtrail_unknown_statements_total{predicate}": 0} {
		if got, found := values[series]; !found || got != want {
			t.Errorf("%s is %v (%t), want %v", series, got, found, want)
		}
	}
	if text := log.String(); strings.Count(text, "no template writes") != 1 || !strings.Contains(text, "different=bytes") || !strings.Contains(text, "file=p-1.tar.gz") {
		t.Errorf("log: %s", text)
	}
	ok(t, s.Close())
	s = openAt(t, path, Options{})
	check()
}

// A real entry of May 2024: production log, index 90818200, over the form of before
// the standard.
func TestPreStandardOfOld(t *testing.T) {
	sum, err := hex.DecodeString("c4e92e9ecc828bef2aa7dba1de8ac983511f7532a0df11c770d39099a25cf201")
	ok(t, err)
	const want = "f146ff85c10fc18883405c1d9374623eb7c29f4ea4ba62c6f5e2c6f1793fbd10"
	for _, x := range ExpectedDigests("rfc8785-0.1.2-py3-none-any.whl", [32]byte(sum)) {
		if x.Form == "P0/data" && hex.EncodeToString(x.Digest[:]) != want {
			t.Errorf("%x, want %s", x.Digest, want)
		}
	}
}
