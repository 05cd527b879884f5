package index

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/monitor"
)

// bindingRows shows what is bound to what, in order.
func bindingRows(t testing.TB, s *Store) []string {
	t.Helper()
	var rows []string
	ok(t, s.each(t.Context(), `SELECT f.filename, e.idx, b.evidence, b.form, b.signature = '', e.trust FROM bindings b JOIN files f ON f.id = b.file_id JOIN entries e ON e.id = b.entry_id ORDER BY 1, 2, 3`, nil, func(scan scan) error {
		var name, evidence, form, trust string
		var idx int64
		var verified bool
		err := scan(&name, &idx, &evidence, &form, &verified, &trust)
		rows = append(rows, fmt.Sprintf("%s %d %s %s %v %q", name, idx, evidence, form, verified, trust))
		return err
	}))
	return rows
}

func expectRows(t testing.TB, s *Store, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, bindingRows(t, s)); diff != "" {
		t.Errorf("bindings: %s", diff)
	}
}

func TestCommitBindsKnownFiles(t *testing.T) {
	trust := &fakeTrust{}
	reg := prometheus.NewRegistry()
	s := openTest(t, Options{Trust: trust, Registerer: reg})
	f := aFile("p", "1")
	listFiles(t, s, "p", 1, f)
	sg := newSigning(t, "o/r")
	tr := begin(t, s, testLog)
	artifact := sg.hashedV2(f.SHA256, []byte("signature over something else"))
	leaves := [][]byte{
		sg.noise(1), sg.attest(t, f), artifact,
		[]byte(`{"apiVersion":"0.0.1","kind":"rpm","spec":{}}`), []byte(`{"apiVersion":"9","kind":"surprise","spec":{}}`), []byte("\x00junk"), {},
		sg.attest(t, f),
	}
	ok(t, s.Commit(t.Context(), tr.batch(t, leaves...)))
	expectRows(t, s,
		"p-1.tar.gz 1 statement P1/pae true \"\"",
		"p-1.tar.gz 2 artifact artifact false \"\"",
		"p-1.tar.gz 7 statement P1/pae true \"\"")
	if trust.calls != 1 {
		t.Errorf("%d chain checks of one certificate", trust.calls)
	}
	if n := countRows(t, s, `SELECT count(*) FROM unbound`); n != 1 {
		t.Errorf("%d unbound leaves, want the one over nothing known", n)
	}
	if n := countRows(t, s, `SELECT count(*) FROM unjudged`); n != 3 {
		t.Errorf("%d pairs to judge", n)
	}
	if n := countRows(t, s, `SELECT count(*) FROM malformed WHERE idx IN (5, 6)`); n != 2 {
		t.Errorf("%d malformed leaves on record, want 2", n)
	}
	st, err := s.LogStatuses(t.Context())
	ok(t, err)
	if diff := cmp.Diff([]monitor.Range{{From: 0, To: 8}}, st[0].Coverage); diff != "" || *st[0].Next != 8 {
		t.Errorf("coverage: %s, next %d", diff, *st[0].Next)
	}
	values := gathered(t, reg)
	for series, want := range map[string]float64{
		"sigtrail_bindings_total{artifact,artifact}": 1, "sigtrail_bindings_total{provenance,}": 0, "sigtrail_bindings_total{statement,P1/pae}": 2,
		"sigtrail_indexed_size{log.example}": 8, "sigtrail_unbound{}": 1, "sigtrail_unjudged{}": 3, "sigtrail_lookups_due{}": 0,
		"sigtrail_entries_total{hashedrekord/0.0.2}": 4, "sigtrail_entries_total{malformed}": 2, "sigtrail_commit_seconds{}": 1,
	} {
		if got, found := values[series]; !found || got != want {
			t.Errorf("%s is %v (%v), want %v", series, got, found, want)
		}
	}
}

// gathered is what a scrape gives: counters and gauges by value, histograms by
// their count.
func gathered(t testing.TB, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	ok(t, err)
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			values[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = v
		}
	}
	return values
}

func TestCommitCountsNothingTwice(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := openTest(t, Options{Registerer: reg})
	tr := begin(t, s, testLog)
	b := tr.batch(t, newSigning(t, "o/r").noise(1))
	ok(t, s.Commit(t.Context(), b))
	if err := s.Commit(t.Context(), b); !errors.Is(err, monitor.ErrConflict) {
		t.Fatal(err)
	}
	if got := gathered(t, reg)["sigtrail_entries_total{hashedrekord/0.0.2}"]; got != 1 {
		t.Errorf("%v leaves counted", got)
	}
	if n, _, err := s.Setting(t.Context(), unboundCount); n != "1" || err != nil {
		t.Errorf("%s unbound counted (%v)", n, err)
	}
}

func TestStoredEntryComesBack(t *testing.T) {
	s := openTest(t, Options{})
	f := named(aFile("p", "1"))
	fresh := listFiles(t, s, "p", 1, f)
	v1 := monitor.Log{Origin: "rekor.example - 18446744073709551615", KeyID: monitor.Hash{3}, API: monitor.V1, URL: "https://rekor.example", TreeID: 1<<64 - 1, FirstGlobal: 1000}
	sg := newSigning(t, "o/r")
	tr := begin(t, s, v1)
	b := tr.batch(t, sg.noise(1), sg.attestV1(t, f))
	ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, Provenance{State: ProvenancePresent, Body: []byte("{}"), Fetched: storeEpoch,
		Leaves: []ProvenanceLeaf{{KeyID: v1.KeyID, Global: 1001, Hash: b.Hashes[1], Predicate: "publish", Publisher: "{}"}}}))
	holds(t, s, fresh[0].ID, b.Hashes[1])
	ok(t, s.Commit(t.Context(), b))
	cases := allCases(t, s)
	if len(cases) != 2 {
		t.Fatalf("%d cases, want the pair and the file", len(cases))
	}
	c := cases[0]
	if len(c.Bindings) != 2 || c.Bindings[0].Evidence != ByStatement || c.Bindings[1].Evidence != ByProvenance || c.Bindings[0].Signature != "" || c.Bindings[0].Form != "P1/payload" {
		t.Fatalf("bindings: %+v", c.Bindings)
	}
	e := c.Bindings[0].Entry
	if cmp.Diff(v1, e.Log) != "" || cmp.Diff(b.Leaves[1], e.Leaf) != "" || e.Hash != b.Hashes[1] || !e.SETValid || e.Trust != "" || cmp.Diff(b.Head, e.Head) != "" || e.Proof != nil {
		t.Errorf("entry came back as %+v", e)
	}
	if e.Signer == nil || e.Signer.Publisher().Repository != "https://github.com/o/r" {
		t.Errorf("signer: %+v", e.Signer)
	}
	want := fresh[0]
	if diff := cmp.Diff(want, *c.File); diff != "" || c.Provenance != ProvenancePresent {
		t.Errorf("file: %s %s", diff, c.Provenance)
	}
	if diff := cmp.Diff([]Release{{Version: "1", First: storeEpoch, Files: 1, Attested: 1}}, c.Releases); diff != "" {
		t.Errorf("releases: %s", diff)
	}
	if last := cases[1]; last.Bindings != nil || last.File.ID != want.ID {
		t.Errorf("the file as such: %+v", last)
	}
}

func TestTimeOfTrust(t *testing.T) {
	sg := newSigning(t, "o/r")
	signer, err := ParseSigner(sg.cert)
	ok(t, err)
	trust := &fakeTrust{}
	c := newTrustCache(trust)
	for range 3 {
		if why := c.check(&signer, storeEpoch.Add(time.Minute)); why != "" {
			t.Error(why)
		}
	}
	if why := c.check(&signer, storeEpoch.Add(time.Hour)); !strings.Contains(why, "outside the certificate's validity") {
		t.Errorf("a certificate used after its end: %q", why)
	}
	if why := c.check(&signer, storeEpoch.Add(-time.Second)); why == "" {
		t.Error("a certificate used before its start is trusted")
	}
	if trust.calls != 1 {
		t.Errorf("%d chain checks", trust.calls)
	}
	if why := newTrustCache(nil).check(&signer, storeEpoch); why == "" {
		t.Error("trusted without a trusted root")
	}
	for i := range trustCacheSize + 10 {
		other := signer
		other.Fingerprint = sha256.Sum256(fmt.Appendf(nil, "%d", i))
		c.check(&other, storeEpoch)
	}
	if len(c.known) != trustCacheSize || c.recent.Len() != trustCacheSize {
		t.Errorf("%d answers kept", len(c.known))
	}
}

func TestUntrustedIsStoredWithItsReason(t *testing.T) {
	s := openTest(t, Options{Trust: &fakeTrust{chain: errors.New("unknown authority"), set: errors.New("no")}})
	f := aFile("p", "1")
	listFiles(t, s, "p", 1, f)
	ok(t, s.Commit(t.Context(), begin(t, s, testLog).batch(t, newSigning(t, "o/r").attest(t, f))))
	expectRows(t, s, "p-1.tar.gz 0 statement P1/pae true \"unknown authority\"")
}

// The leaf is there first, the file appears, the leaf is fetched again and bound.
func TestFileAfterLeaf(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	sg := newSigning(t, "o/r")
	b := begin(t, s, testLog).batch(t, sg.noise(1), sg.attest(t, f))
	ok(t, s.Commit(t.Context(), b))
	expectRows(t, s)
	listFiles(t, s, "p", 1, f)
	wants, err := s.Wanted(t.Context(), testLog.Origin, 10)
	ok(t, err)
	if diff := cmp.Diff([]Want{{Log: testLog, Index: 1}}, wants); diff != "" {
		t.Fatalf("wanted: %s", diff)
	}
	for range 2 { // committing it again adds nothing
		ok(t, s.CommitFound(t.Context(), proven(b, 1), 0))
		expectRows(t, s, "p-1.tar.gz 1 statement P1/pae true \"\"")
	}
	if wants, _ := s.Wanted(t.Context(), testLog.Origin, 10); len(wants) != 0 {
		t.Errorf("still wanted: %v", wants)
	}
	if n := countRows(t, s, `SELECT count(*) FROM unbound`); n != 1 || n != countRows(t, s, `SELECT value FROM settings WHERE key = ?`, unboundCount) {
		t.Errorf("%d unbound rows", n)
	}
	cases := allCases(t, s)
	if len(cases) != 2 || cmp.Diff([]monitor.Hash{{9}}, cases[0].Bindings[0].Entry.Proof) != "" {
		t.Errorf("cases: %+v", cases)
	}
	// The same bytes under another name: the entry over its statement is not
	// of that file, one over the artifact would be.
	other := f
	other.Name = "q-1.tar.gz"
	listFiles(t, s, "q", 1, other)
	expectRows(t, s, "p-1.tar.gz 1 statement P1/pae true \"\"")
}

func TestStoredArtifactJoinsSecondFile(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	listFiles(t, s, "p", 1, f)
	sg := newSigning(t, "o/r")
	ok(t, s.Commit(t.Context(), begin(t, s, testLog).batch(t, sg.hashedV2(f.SHA256, []byte("s")))))
	other := f
	other.Name = "q-1.tar.gz"
	listFiles(t, s, "q", 1, other)
	expectRows(t, s, "p-1.tar.gz 0 artifact artifact false \"\"", "q-1.tar.gz 0 artifact artifact false \"\"")
}

// A file stored between the sifting of a batch and its transaction is not missed.
func TestFileBetweenSiftAndSave(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	tr := begin(t, s, testLog)
	b := tr.batch(t, newSigning(t, "o/r").attest(t, f))
	sifts := 0
	ok(t, s.index(t.Context(), "test", b.Log, func() (*sifting, error) {
		w, err := s.sift(b.Log, b.Leaves, b.Hashes)
		if sifts++; sifts == 1 {
			listFiles(t, s, "p", 1, f)
		}
		return w, err
	}, func(x *tx, w *sifting) error {
		log, err := x.logID(b.Log)
		if err != nil {
			return err
		}
		return s.save(x, w, log, b.Head, nil)
	}))
	if sifts != 2 {
		t.Errorf("sifted %d times", sifts)
	}
	expectRows(t, s, "p-1.tar.gz 0 statement P1/pae true \"\"")
}

func TestCommitFoundEvidence(t *testing.T) {
	s := openTest(t, Options{})
	fresh := listFiles(t, s, "p", 1, named(aFile("p", "1")), aFile("p", "2"))
	one, two := fresh[0], fresh[1]
	sg := newSigning(t, "o/r")
	v1 := testLog
	v1.API, v1.FirstGlobal = monitor.V1, 100
	tr := &tree{log: v1}
	slsa := sg.dsseV1(sha256.Sum256([]byte("slsa")), []byte("sig"))
	b := tr.batch(t, slsa, sg.attestV1(t, one), sg.noise(5), sg.dsseV1(sha256.Sum256([]byte("other")), []byte("sig")))
	ok(t, s.CommitFound(t.Context(), proven(b, 0), one.ID)) // before its provenance is known
	ok(t, s.PyPI().SaveProvenance(t.Context(), one.ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Body: []byte("{}"), Leaves: []ProvenanceLeaf{
		{KeyID: v1.KeyID, Global: 100, Hash: b.Hashes[0]}, {KeyID: v1.KeyID, Global: 101, Hash: b.Hashes[1]},
		{KeyID: v1.KeyID, Global: 1 << 63, Hash: b.Hashes[1]}, {KeyID: v1.KeyID, Global: 999999, Hash: b.Hashes[2]}}}))
	ok(t, s.CommitFound(t.Context(), proven(b, 1), one.ID))
	ok(t, s.CommitFound(t.Context(), proven(b, 1), two.ID))
	ok(t, s.CommitFound(t.Context(), proven(b, 3), 0)) // binds to nothing
	expectRows(t, s,
		"p-1.tar.gz 0 provenance  false \"\"", "p-1.tar.gz 0 subject  false \"\"",
		"p-1.tar.gz 1 provenance  false \"\"", "p-1.tar.gz 1 statement P1/payload true \"\"",
		"p-2.tar.gz 1 subject  false \"\"")
	if n := countRows(t, s, `SELECT count(*) FROM entries`); n != 2 {
		t.Errorf("%d entries", n)
	}
	if n := countRows(t, s, `SELECT count(*) FROM unbound`); n != 1 {
		t.Errorf("%d unbound: a leaf that binds to nothing must wait for its file", n)
	}
	if n := countRows(t, s, `SELECT count(*) FROM unjudged`); n != 2 {
		t.Errorf("%d pairs to judge: a search index's word alone is none", n)
	}
	st, err := s.LogStatuses(t.Context())
	ok(t, err)
	if diff := cmp.Diff([]monitor.Range{{From: 0, To: 2}, {From: 3, To: 4}}, st[0].Coverage); diff != "" || st[0].Next != nil {
		t.Errorf("coverage: %s", diff)
	}
	if err := s.CommitFound(t.Context(), proven(b, 2), 12345); err == nil {
		t.Error("bound to a file that does not exist")
	}
}

// The tail came by before PyPI's provenance named the leaf, whose digest nobody
// could have expected.
func TestProvenanceWantsCoveredLeaf(t *testing.T) {
	s := openTest(t, Options{})
	fresh := listFiles(t, s, "p", 1, named(aFile("p", "1")))
	b := begin(t, s, testLog).batch(t, newSigning(t, "o/r").noise(1))
	ok(t, s.Commit(t.Context(), b))
	ok(t, s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, Provenance{State: ProvenancePresent, Fetched: storeEpoch, Leaves: []ProvenanceLeaf{
		{KeyID: testLog.KeyID, Global: 0, Hash: b.Hashes[0]}, {KeyID: testLog.KeyID, Global: 1, Hash: monitor.Hash{4}}, {KeyID: monitor.Hash{77}, Global: 0, Hash: monitor.Hash{4}}}}))
	wants, err := s.Wanted(t.Context(), testLog.Origin, 10)
	if err != nil || len(wants) != 1 || wants[0].Index != 0 {
		t.Fatalf("wanted: %v %v", wants, err)
	}
	ok(t, s.CommitFound(t.Context(), proven(b, 0), 0))
	expectRows(t, s, "p-1.tar.gz 0 provenance  false \"\"")
	if n := countRows(t, s, `SELECT count(*) FROM unbound`); n != 0 {
		t.Errorf("%d unbound", n)
	}
	ok(t, s.Unwant(t.Context(), Want{Log: testLog, Index: 5}))
}

func TestReopenedStoreKnowsItsFiles(t *testing.T) {
	path := t.TempDir() + "/sigtrail.db"
	s := openAt(t, path, Options{})
	f := aFile("p", "1")
	listFiles(t, s, "p", 1, f)
	tr := begin(t, s, testLog)
	sg := newSigning(t, "o/r")
	ok(t, s.Commit(t.Context(), tr.batch(t, sg.noise(1))))
	ok(t, s.Close())
	s = openAt(t, path, Options{})
	ok(t, s.Commit(t.Context(), tr.batch(t, sg.attest(t, f))))
	expectRows(t, s, "p-1.tar.gz 1 statement P1/pae true \"\"")
	if n, _, err := s.Setting(t.Context(), unboundCount); n != "1" || err != nil {
		t.Errorf("%s unbound counted (%v)", n, err)
	}
}

func benchmarkCommit(b *testing.B, boundEvery int) {
	s := openTest(b, Options{})
	const size = 4096
	f := aFile("p", "1")
	listFiles(b, s, "p", 1, f)
	sg := newSigning(b, "o/r")
	ok(b, s.Begin(context.Background(), testLog, monitor.Position{}))
	tr := &tree{log: testLog}
	attested := sg.attest(b, f)
	n := 0
	next := func() monitor.Batch {
		leaves := make([][]byte, size)
		for i := range leaves {
			n++
			leaves[i] = sg.noise(n)
			if boundEvery > 0 && i%boundEvery == 0 {
				leaves[i] = attested
			}
		}
		return tr.batch(b, leaves...)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		batch := next()
		b.StartTimer()
		ok(b, s.Commit(context.Background(), batch))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/leaf")
}

// BenchmarkCommit commits batches of 4096 leaves that all are kept for files to
// come: the most that an unbound leaf costs.
func BenchmarkCommit(b *testing.B) {
	b.Run("unbound", func(b *testing.B) { benchmarkCommit(b, 0) })
	b.Run("bound 1 in 20", func(b *testing.B) { benchmarkCommit(b, 20) })
}

// What was read with a bad signed entry timestamp gets its time when it is read with
// a good one, and does not lose it again.
func TestTimeSignedLater(t *testing.T) {
	trust, registry := &fakeTrust{set: errors.New("no")}, prometheus.NewPedanticRegistry()
	s := openTest(t, Options{Trust: trust, Registerer: registry})
	f := aFile("p", "1")
	listFiles(t, s, "p", 1, f)
	v1 := monitor.Log{Origin: "rekor.example - 7", KeyID: monitor.Hash{3}, API: monitor.V1, URL: "https://rekor.example", TreeID: 7}
	sg := newSigning(t, "o/r")
	b := begin(t, s, v1).batch(t, sg.noise(1), sg.attestV1(t, f))
	good := b.Leaves[1].IntegratedTime
	expect := func(when string, valid bool, at int64) {
		t.Helper()
		e := allCases(t, s)[0].Bindings[0].Entry
		if e.SETValid != valid || e.Leaf.IntegratedTime != at || e.Trust != "" {
			t.Errorf("%s: SET valid %t, time %d, trust %q; want %t, %d", when, e.SETValid, e.Leaf.IntegratedTime, e.Trust, valid, at)
		}
	}
	b.Leaves[1].IntegratedTime = 5 // long before the certificate
	ok(t, s.Commit(t.Context(), b))
	expect("tailed with a bad SET", false, 5)

	trust.set = nil
	b.Leaves[1].IntegratedTime = good
	ok(t, s.CommitFound(t.Context(), proven(b, 1), 0))
	expect("found with a good SET", true, good)

	trust.set = errors.New("no")
	b.Leaves[1].IntegratedTime = 6
	ok(t, s.CommitFound(t.Context(), proven(b, 1), 0))
	expect("found with a bad SET again", true, good)
	families, err := registry.Gather()
	ok(t, err)
	for _, family := range families {
		if family.GetName() == "sigtrail_set_failures_total" && family.GetMetric()[0].GetCounter().GetValue() == 3 { // two leaves, then one
			return
		}
	}
	t.Errorf("three failures are not counted: %v", families)
}
