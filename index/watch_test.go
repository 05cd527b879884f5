package index

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sigtrail/monitor"
)

// However many digests may be in memory, the same entries are bound: with all of
// them, with none, with a bound that is passed on the way, and beside a monitor.
func TestWatchBound(t *testing.T) {
	const files = 40
	var first []string
	sg, bare := newSigning(t, "o/r"), newSigning(t, "o/r")
	for _, most := range []int{1 << 20, 1, 5 * files / 2, -1} {
		path := filepath.Join(t.TempDir(), "sigtrail.db")
		s := openAt(t, path, Options{Watched: max(most, 0)})
		writer := s
		if most < 0 {
			var err error
			writer, err = OpenBeside(t.Context(), path, Options{Trust: &fakeTrust{}, Now: s.now})
			ok(t, err)
			defer writer.Close()
		}
		tr := begin(t, s, testLog)
		for n := range files {
			f := aFile("p", fmt.Sprint(n))
			pre := f
			if n%4 == 0 {
				pre.Uploaded = templates[2].from // the form of then
			}
			fresh := listFiles(t, writer, "p", int64(n+1), append(listed(t, s), named(pre))...)
			named := sg.noise(1000 + n)
			ok(t, writer.PyPI().SaveProvenance(t.Context(), fresh[0].ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}"),
				Leaves: []ProvenanceLeaf{{KeyID: testLog.KeyID, Global: tr.pos.Next + 4, Hash: monitor.HashLeaf(named)}}}))
			plain := preStandard(f.Name, f.SHA256)
			ok(t, writer.Commit(t.Context(), tr.batch(t, sg.noise(n), sg.attest(t, f), sg.hashedV2(f.SHA256, []byte("s")), sg.noise(-n), named,
				sg.hashedV2(sha256.Sum256(plain), bare.sign(t, plain)), []byte("junk"))))
		}
		rows := bindingRows(t, s)
		for _, table := range []string{`SELECT 'unbound', idx FROM unbound ORDER BY 2`, `SELECT 'wanted', idx FROM wanted ORDER BY 2`} {
			ok(t, s.each(t.Context(), table, nil, func(scan scan) error {
				var what string
				var idx int64
				err := scan(&what, &idx)
				rows = append(rows, fmt.Sprint(what, " ", idx))
				return err
			}))
		}
		if inMemory := s.watch.prefixes != nil; inMemory != (most == 1<<20 || most < 0) {
			t.Errorf("bound %d: in memory %t", most, inMemory)
		}
		if first == nil {
			if len(rows) < 5*files {
				t.Fatalf("only %d rows: %v", len(rows), rows)
			}
			first = rows
		}
		if diff := cmp.Diff(first, rows); diff != "" {
			t.Errorf("bound %d: %s", most, diff)
		}
	}
}

// listed are the files stored of project p, as PyPI lists them.
func listed(t testing.TB, s *Store) []File {
	t.Helper()
	files, err := s.Files(t.Context(), Selection{Project: "p"})
	ok(t, err)
	return files
}

// A database with more digests than fit is opened without reading them all.
func TestWatchLoadsNoMoreThanFits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	s := openAt(t, path, Options{})
	var files []File
	for n := range 30 {
		files = append(files, aFile("p", fmt.Sprint(n)))
	}
	listFiles(t, s, "p", 1, files...)
	if got, want := len(s.watch.prefixes), 5*len(files); got != want {
		t.Errorf("%d digests in memory, want %d", got, want)
	}
	tr := begin(t, s, testLog)
	ok(t, s.Close())
	for _, c := range []struct{ most, want int }{{5 * len(files), 5 * len(files)}, {5*len(files) - 1, 0}, {10, 0}} {
		s = openAt(t, path, Options{Watched: c.most})
		if got := len(s.watch.prefixes); got != c.want {
			t.Errorf("bound %d: %d digests in memory, want %d", c.most, got, c.want)
		}
		ok(t, s.Close())
	}
	s = openAt(t, path, Options{Watched: 10})
	ok(t, s.Commit(t.Context(), tr.batch(t, newSigning(t, "o/r").attest(t, files[29]))))
	expectRows(t, s, `p-29.tar.gz 0 statement P1/pae true ""`)
}

func BenchmarkExpected(b *testing.B) {
	// What a file costs in the table of expected digests, and a batch of foreign
	// leaves when the tables are asked.
	path := filepath.Join(b.TempDir(), "sigtrail.db")
	s := openAt(b, path, Options{Watched: 1})
	const files, project = 20_000, 500
	for p := range files / project {
		var all []File
		for n := range project {
			all = append(all, aFile(fmt.Sprint("p", p), fmt.Sprint(n)))
		}
		listFiles(b, s, fmt.Sprint("p", p), 1, all...)
	}
	sg := newSigning(b, "o/r")
	tr := begin(b, s, testLog)
	var leaves [][]byte
	for n := range 4096 {
		leaves = append(leaves, sg.noise(n))
	}
	batch := tr.batch(b, leaves...)
	glances := make([]glance, len(batch.Leaves))
	var scratch Scratch
	for i := range glances {
		glances[i] = s.glance(testLog, batch.Leaves[i], &scratch)
		glances[i].hash = batch.Hashes[i]
	}
	b.ResetTimer()
	for b.Loop() {
		ok(b, s.mark(glances))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(glances)), "ns/leaf")
	b.StopTimer()
	ok(b, s.write(b.Context(), "test", func(t *tx) error {
		_, err := t.exec(`DROP TABLE expected`) // its pages become free
		return err
	}))
	b.ReportMetric(float64(countRows(b, s, `PRAGMA freelist_count`)*countRows(b, s, `PRAGMA page_size`))/files, "bytes/file")
}
