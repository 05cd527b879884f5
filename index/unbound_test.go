package index

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/monitor"
)

// moved is a clock that a test sets.
type moved struct{ time.Time }

func (m *moved) now() time.Time { return m.Time }

// What is never published is forgotten after a while, the oldest first, and with it
// the publisher that nobody claims any more.
func TestExpire(t *testing.T) {
	clock, reg := &moved{storeEpoch}, prometheus.NewRegistry()
	s := openTest(t, Options{Now: clock.now, Registerer: reg})
	tr := begin(t, s, testLog)
	old, young := newSigning(t, "o/old"), newSigningOf(t, "o/young", "43")
	var leaves [][]byte
	for i := range expireChunk + 10 {
		leaves = append(leaves, old.noise(i))
	}
	f := aFile("p", "1")
	leaves = append(leaves, old.attest(t, f))
	ok(t, s.Commit(t.Context(), tr.batch(t, leaves...)))
	clock.Time = storeEpoch.Add(time.Hour)
	ok(t, s.Commit(t.Context(), tr.batch(t, young.noise(-1), young.noise(-2))))

	expire := func(before time.Time, want int, wantMore bool) {
		t.Helper()
		n, more, err := s.Expire(t.Context(), before)
		if n != want || more != wantMore || err != nil {
			t.Fatalf("%d forgotten, more %t, %v; want %d, %t", n, more, err, want, wantMore)
		}
		expectCounts(t, s)
	}
	expire(storeEpoch, 0, false)
	expire(storeEpoch.Add(time.Minute), expireChunk, true)
	expire(storeEpoch.Add(time.Minute), 11, false)
	expire(storeEpoch.Add(time.Minute), 0, false)
	if next, err := s.ExpireClaims(t.Context(), 0); next != 0 || err != nil {
		t.Errorf("next %d, %v", next, err)
	}
	claimed := func() (all []string) {
		ok(t, s.each(t.Context(), `SELECT c.repository, count(u.id) FROM claimed_publishers c LEFT JOIN unbound u ON u.claimed = c.id GROUP BY c.id ORDER BY 1`, nil, func(scan scan) error {
			var repository string
			var n int
			err := scan(&repository, &n)
			all = append(all, fmt.Sprint(repository, " ", n))
			return err
		}))
		return all
	}
	if diff := cmp.Diff([]string{"https://github.com/o/young 2"}, claimed()); diff != "" {
		t.Errorf("claimed: %s", diff)
	}
	// The publisher comes again, and gets a row again.
	ok(t, s.Commit(t.Context(), tr.batch(t, old.noise(-3))))
	if diff := cmp.Diff([]string{"https://github.com/o/old 1", "https://github.com/o/young 2"}, claimed()); diff != "" {
		t.Errorf("claimed: %s", diff)
	}
	// Too late for the file.
	listFiles(t, s, "p", 1, f)
	if wants, err := s.Wanted(t.Context(), testLog.Origin, 10); len(wants) != 0 || err != nil {
		t.Errorf("wanted: %v %v", wants, err)
	}
	values := gathered(t, reg)
	if values["sigtrail_unbound_expired_total{}"] != expireChunk+11 || values["sigtrail_unbound{}"] != 3 {
		t.Errorf("%v expired, %v left", values["sigtrail_unbound_expired_total{}"], values["sigtrail_unbound{}"])
	}
}

// A leaf that was kept is forgotten when it becomes bound, whichever way it is read
// again.
func TestBoundIsNoLongerUnbound(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	sg := newSigning(t, "o/r")
	first := (&tree{log: testLog}).batch(t, sg.noise(0), sg.attest(t, f))
	ok(t, s.CommitFound(t.Context(), proven(first, 1), 0))
	if n, err := s.Unbound(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d unbound (%v)", n, err)
	}
	listFiles(t, s, "p", 1, f)
	ok(t, s.Begin(t.Context(), testLog, monitor.Position{}))
	ok(t, s.Commit(t.Context(), first))
	expectRows(t, s, `p-1.tar.gz 1 statement P1/pae true ""`)
	if n, err := s.Unbound(t.Context()); n != 1 || err != nil { // the noise
		t.Errorf("%d unbound (%v)", n, err)
	}
	expectCounts(t, s)
}

// Six bytes of a digest may be those of another: the leaf is fetched in vain, and
// goes on waiting.
func TestPrefixOfAnother(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	sg := newSigning(t, "o/r")
	digest := ExpectedDigests(f.Name, f.SHA256)[1].Digest
	digest[31] ^= 1
	b := begin(t, s, testLog).batch(t, sg.hashedV2(digest, []byte("sig")))
	ok(t, s.Commit(t.Context(), b))
	listFiles(t, s, "p", 1, f)
	wants, err := s.Wanted(t.Context(), testLog.Origin, 10)
	if err != nil || len(wants) != 1 {
		t.Fatalf("wanted: %v %v", wants, err)
	}
	ok(t, s.CommitFound(t.Context(), proven(b, 0), 0))
	expectRows(t, s)
	if wants, err := s.Wanted(t.Context(), testLog.Origin, 10); len(wants) != 0 || err != nil {
		t.Errorf("still wanted: %v %v", wants, err)
	}
	expectCounts(t, s)
	if n, _ := s.Unbound(t.Context()); n != 1 {
		t.Errorf("%d unbound", n)
	}
}

// fillUnbound gives a store with so many unbound leaves, and how many bytes of its
// file each of them costs with all its indexes.
func fillUnbound(t testing.TB, rows int) (*Store, float64) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	s := openAt(t, path, Options{})
	const batch, publishers = 4096, 5000
	signings := make([]*claimed, publishers)
	for i := range signings {
		signings[i] = &claimed{Publisher: Publisher{Issuer: "https://token.actions.githubusercontent.com", Repository: fmt.Sprintf("https://github.com/owner-%d/repository", i),
			RepositoryID: fmt.Sprint(100_000_000 + i), Owner: fmt.Sprintf("https://github.com/owner-%d", i), OwnerID: fmt.Sprint(1_000_000 + i), Workflow: ".github/workflows/release.yml"}}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	size := func() int64 {
		ok(t, s.Close())
		info, err := os.Stat(path)
		ok(t, err)
		s = openAt(t, path, Options{})
		return info.Size()
	}
	before := size()
	next := uint64(3_000_000_000) // as in the public log
	for left := rows; left > 0; left -= batch {
		free := make([]freeLeaf, min(left, batch))
		for i := range free {
			for k := range free[i].digest {
				free[i].digest[k] = byte(rnd.Uint32())
			}
			free[i].index, free[i].claimed, free[i].signedAt = next, signings[rnd.IntN(publishers)], 1_780_000_000+int64(next%1e7)
			next += 1 + rnd.Uint64N(5)
		}
		ok(t, s.write(context.Background(), "test", func(x *tx) error {
			log, err := x.logID(testLog)
			if err != nil {
				return err
			}
			return s.saveFree(x, free, log)
		}))
	}
	bytes := float64(size()-before) / float64(rows)
	return s, bytes
}

// The figures for a million rows are BenchmarkUnbound's.
func TestUnboundSize(t *testing.T) {
	if _, size := fillUnbound(t, 60_000); size > 100 {
		t.Errorf("%.0f bytes an unbound leaf, publishers included", size)
	}
}

func BenchmarkUnbound(b *testing.B) {
	s, size := fillUnbound(b, 1_000_000)
	longest := time.Duration(0)
	b.ResetTimer()
	for b.Loop() {
		began := time.Now()
		if n, _, err := s.Expire(b.Context(), storeEpoch.Add(24*time.Hour)); n != expireChunk || err != nil {
			b.Fatal(n, err)
		}
		longest = max(longest, time.Since(began))
	}
	b.ReportMetric(size, "bytes/leaf")
	b.ReportMetric(float64(longest.Milliseconds()), "ms-longest")
}

// A database of before keeps what it expects and what is unbound; whom those leaves
// claim is not known.
func TestUnboundOfBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	f, other := aFile("p", "1"), aFile("p", "2")
	db, err := sql.Open("sqlite3", dsn(path, nil))
	ok(t, err)
	p, err := provider(db)
	ok(t, err)
	_, err = p.UpTo(t.Context(), 4)
	ok(t, err)
	exec := func(query string, args ...any) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), query, args...)
		ok(t, err)
	}
	exec(`INSERT INTO logs (id, origin, key_id, api, url) VALUES (1, ?, ?, 'v2', ?)`, testLog.Origin, testLog.KeyID[:], testLog.URL)
	exec(`INSERT INTO projects (id, name, first_seen, listed) VALUES (1, 'p', 0, 1)`)
	exec(`INSERT INTO files (id, project_id, version, filename, sha256, size, url, first_seen, first_listing) VALUES (1, 1, '1', ?, ?, 1, '', 0, 1)`, f.Name, f.SHA256[:])
	exec(`INSERT INTO provenance (file_id, state) VALUES (1, 'absent')`)
	for _, x := range ExpectedDigests(f.Name, f.SHA256) {
		exec(`INSERT INTO expected (digest, file_id, form) VALUES (?, 1, ?)`, x.Digest[:], x.Form)
	}
	waiting := ExpectedDigests(other.Name, other.SHA256)[1].Digest
	exec(`INSERT INTO unbound (digest, log_id, idx, seen) VALUES (?, 1, 7, ?), (?, 1, 8, ?)`, waiting[:], storeEpoch.Unix(), f.SHA256[:], storeEpoch.Unix()-10)
	exec(`INSERT INTO settings (key, value) VALUES (?, '2')`, unboundCount)
	ok(t, db.Close())

	s := openAt(t, path, Options{})
	expectCounts(t, s)
	tr := &tree{log: testLog}
	ok(t, s.Begin(t.Context(), testLog, monitor.Position{}))
	sg := newSigning(t, "o/r")
	ok(t, s.Commit(t.Context(), tr.batch(t, sg.attest(t, f), sg.hashedV2(f.SHA256, nil))))
	expectRows(t, s, `p-1.tar.gz 0 statement P1/pae true ""`, `p-1.tar.gz 1 artifact artifact false ""`)
	listFiles(t, s, "p", 1, f, other)
	wants, err := s.Wanted(t.Context(), testLog.Origin, 10)
	if diff := cmp.Diff([]Want{{Log: testLog, Index: 7}}, wants); err != nil || diff != "" {
		t.Errorf("wanted: %v %s", err, diff)
	}
	if n, _, err := s.Expire(t.Context(), storeEpoch); n != 1 || err != nil {
		t.Errorf("%d forgotten (%v), want the older one", n, err)
	}
}
