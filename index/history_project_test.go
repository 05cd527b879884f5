package index

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

func TestHistory(t *testing.T) {
	s := openTest(t, Options{})
	f, other := named(aFile("p", "1")), aFile("q", "1")
	p := listFiles(t, s, "p", 1, f, aFile("p", "2"))
	q := listFiles(t, s, "q", 1, other)
	v1 := monitor.Log{Origin: "rekor.example", KeyID: monitor.Hash{3}, API: monitor.V1, URL: "https://rekor.example", TreeID: 5, FirstGlobal: 1000}
	sg := newSigning(t, "o/r")
	tr := begin(t, s, v1)
	b := tr.batch(t, sg.noise(1), sg.attestV1(t, f), sg.attestV1(t, other))
	ok(t, s.PyPI().SaveProvenance(t.Context(), p[0].ID, Provenance{State: ProvenancePresent, Body: []byte("{}"), Fetched: storeEpoch, Leaves: []ProvenanceLeaf{
		{KeyID: v1.KeyID, Global: 1001, Hash: b.Hashes[1]}, {KeyID: v1.KeyID, Global: 1002, Hash: b.Hashes[2]}}}))
	ok(t, s.Commit(t.Context(), b))
	h, err := s.History(t.Context(), "", "p")
	ok(t, err)
	listed, err := s.Files(t.Context(), Selection{Project: "p"})
	ok(t, err)
	if diff := cmp.Diff(listed, h.Files); diff != "" || len(listed) != 2 {
		t.Errorf("files: %s", diff)
	}
	signer, err := ParseSigner(sg.cert)
	ok(t, err)
	publisher := signer.Publisher()
	entry := func(id EntryID, index int) HistoryEntry {
		return HistoryEntry{ID: id, Log: v1.Origin, Index: uint64(index), Global: 1000 + uint64(index), Hash: b.Hashes[index], Kind: "dsse/0.0.1",
			Integrated: storeEpoch.Add(time.Minute), SETValid: true, Seen: storeEpoch.Add(time.Hour), Publisher: &publisher, Run: "https://github.com/o/r/actions/runs/1/attempts/1"}
	}
	own, foreign := EntryID(1<<24|1), EntryID(2<<24|1)
	want := []HistoryEntry{entry(own, 1), entry(foreign, 2)}
	if diff := cmp.Diff(want, h.Entries); diff != "" {
		t.Errorf("entries: %s", diff)
	}
	// The second one is another project's by its statement, and this one's because
	// PyPI's provenance names it.
	bound := []Bound{{p[0].ID, own, ByStatement, "P1/payload", ""}, {p[0].ID, own, ByProvenance, "", notChecked}, {p[0].ID, foreign, ByProvenance, "", notChecked}}
	if diff := cmp.Diff(bound, h.Bound); diff != "" {
		t.Errorf("bound: %s", diff)
	}
	h, err = s.History(t.Context(), "", "q")
	ok(t, err)
	if diff := cmp.Diff([]Bound{{q[0].ID, foreign, ByStatement, "P1/payload", ""}}, h.Bound); diff != "" || len(h.Entries) != 1 {
		t.Errorf("bound to the other project: %s", diff)
	}
	if h, err = s.History(t.Context(), "", "nobody"); err != nil || len(h.Files)+len(h.Entries) != 0 {
		t.Errorf("a history of nothing: %+v, %v", h, err)
	}
}

// Texts of PyPI hold whatever it likes, and its times are whenever it says.
func TestHistoryOfOddFiles(t *testing.T) {
	s := openTest(t, Options{})
	var files []File
	for i, reason := range []string{"", " ", "-", "7 7 -", "no\x00t\nthis", "é \xff 3"} {
		f := aFile("p", fmt.Sprint(i))
		f.Yanked, f.Uploaded, f.URL = &reason, time.UnixMicro(-5*int64(i)).UTC(), reason
		files = append(files, f)
	}
	listFiles(t, s, "p", 1, files...)
	listed, err := s.Files(t.Context(), Selection{Project: "p"})
	ok(t, err)
	slices.SortFunc(listed, func(a, b File) int { return int(a.ID - b.ID) })
	h, err := s.History(t.Context(), "", "p")
	ok(t, err)
	if diff := cmp.Diff(listed, h.Files); diff != "" || len(listed) != len(files) {
		t.Errorf("files: %s", diff)
	}
}

// Rows that are not what the query makes are an error, and never a loop.
func TestPackedRows(t *testing.T) {
	for _, text := range []string{"", " ", "x ", "1", "-1", "--1 ", "1x "} {
		if p := (packedRows{rest: text}); p.int() != 0 || p.err == nil || p.rest != "" {
			t.Errorf("%q is taken for a number", text)
		}
	}
	for _, n := range []int64{-1, 3, 4, 1 << 62} {
		if p := (packedRows{rest: "ab "}); p.bytes(n) != "" || p.err == nil {
			t.Errorf("%d bytes of 2", n)
		}
	}
	p := packedRows{rest: "-9223372036854775808 - 12 ab  "}
	least, none, twelve := p.int(), p.int(), p.int()
	if least != math.MinInt64 || none != 0 || twelve != 12 || p.bytes(2) != "ab" || p.bytes(0) != "" || p.rest != "" || p.err != nil {
		t.Errorf("%d %d %d, %q left, %v", least, none, twelve, p.rest, p.err)
	}
}

// A project that has used up its numbers goes on at the end of the tables.
func TestHistoryOverflow(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	listFiles(t, s, "p", 1, f)
	_, last := projectRange(1)
	for _, query := range []string{`UPDATE expected SET file_id = ?`, `UPDATE provenance SET file_id = ?`, `UPDATE files SET id = ?`} {
		_, err := s.writer.conn.ExecContext(t.Context(), `PRAGMA foreign_keys = OFF`)
		ok(t, err)
		_, err = s.writer.conn.ExecContext(t.Context(), query, last)
		ok(t, err)
	}
	listFiles(t, s, "p", 2, f, aFile("p", "2"))
	listFiles(t, s, "q", 2, aFile("q", "1"))
	tr := begin(t, s, testLog)
	ok(t, s.Commit(t.Context(), tr.batch(t, newSigning(t, "o/r").attest(t, aFile("p", "2")))))
	h, err := s.History(t.Context(), "", "p")
	ok(t, err)
	if len(h.Files) != 2 || h.Files[1].ID <= overflow || len(h.Entries) != 1 || len(h.Bound) != 1 {
		t.Errorf("history: %+v", h)
	}
}

func TestFind(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	id := listFiles(t, s, "p", 1, f)[0].ID
	v1 := monitor.Log{Origin: "rekor.example", KeyID: monitor.Hash{3}, API: monitor.V1, URL: "https://rekor.example", TreeID: 5}
	sg := newSigning(t, "o/r")
	tr, tr1 := begin(t, s, testLog), begin(t, s, v1)
	v2 := tr.batch(t, sg.attest(t, f), sg.hashedV2(f.SHA256, []byte("a signature")))
	ok(t, s.Commit(t.Context(), v2))
	b := tr1.batch(t, sg.attestV1(t, f))
	ok(t, s.Commit(t.Context(), b))
	pae, artifact, payload := EntryID(1<<24|1), EntryID(1<<24|2), EntryID(1<<24|3)
	hashes := map[string][32]byte{}
	for _, x := range ExpectedDigests(f.Name, f.SHA256) {
		hashes[x.Form] = x.Digest
	}
	for _, c := range []struct {
		name string
		hash [32]byte
		want Found
	}{
		{"the file", f.SHA256, Found{[]FileID{id}, []EntryID{artifact}}},
		{"a payload", hashes["P1/payload"], Found{[]FileID{id}, []EntryID{payload}}},
		{"a PAE", hashes["P1/pae"], Found{[]FileID{id}, []EntryID{pae}}},
		{"a PAE that nobody has signed", hashes["P2/pae"], Found{[]FileID{id}, nil}},
		{"a v2 leaf", v2.Hashes[0], Found{nil, []EntryID{pae}}},
		{"a v1 leaf", b.Hashes[0], Found{nil, []EntryID{payload}}},
		{"nothing", [32]byte{1}, Found{}},
	} {
		got, err := s.Find(t.Context(), c.hash)
		ok(t, err)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}
