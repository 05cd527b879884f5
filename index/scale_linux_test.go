package index

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sigtrail/monitor"
)

var (
	scaleEntries  = flag.Int("store.entries", 0, "BenchmarkStore: bound entries to generate")
	scaleProjects = flag.Int("store.projects", 50_000, "BenchmarkStore: projects to spread them over")
	scaleArrival  = flag.Bool("store.arrival", false, "BenchmarkStore: write rows in the order of the log, as a monitor does, and not by project, as a vacuum leaves them")
	scaleDir      = flag.String("store.dir", "", "BenchmarkStore: folder for the database, which stays and is measured again next time; empty: a temporary one")
)

// BenchmarkStore generates a database of bound entries and prints what each table
// takes and how long the everyday questions take. It is a report and no loop: each
// question is asked of many projects, and its median and 99th percentile printed.
//
// Sizes are those of GitHub's certificates and of v1 dsse leaves; hashes, keys and
// signatures are random. Three files make a release, and share a certificate.
func BenchmarkStore(b *testing.B) {
	if *scaleEntries == 0 {
		b.Skip("-store.entries says how many")
	}
	dir := *scaleDir
	if dir == "" {
		dir = b.TempDir()
	}
	g := newGenerator(b, filepath.Join(dir, "scale.db"))
	fmt.Printf("\n%d entries of %d files in %d projects\n", *scaleEntries, *scaleEntries, *scaleProjects)
	if g.empty(b) {
		began := time.Now()
		g.generate(b)
		fmt.Printf("generated in %s\n", time.Since(began).Round(time.Second))
		g.report(b)
	}
	g.measure(b)
}

const releaseFiles = 3

// A generator fills a database without asking anything of it.
type generator struct {
	path    string
	conn    *sql.Conn
	rand    *rand.Rand
	chacha  *rand.ChaCha8
	cert    []byte
	sizes   []int // entries by project
	numbers []int // rows of a project so far
	written int   // rows so far
	stmts   map[string]*sql.Stmt
}

func newGenerator(b *testing.B, path string) *generator {
	ctx := context.Background()
	s, err := Open(ctx, path, Options{})
	ok(b, err)
	_, begun, err := s.Position(ctx, testLog)
	ok(b, err)
	if !begun {
		ok(b, s.Begin(ctx, testLog, monitor.Position{}))
	}
	ok(b, s.Close())
	db, err := sql.Open("sqlite3", dsn(path, nil))
	ok(b, err)
	b.Cleanup(func() { ok(b, db.Close()) })
	conn, err := db.Conn(ctx)
	ok(b, err)
	g := &generator{path: path, conn: conn, chacha: rand.NewChaCha8([32]byte{1}), stmts: map[string]*sql.Stmt{}}
	g.rand = rand.New(g.chacha)
	_, g.cert = benchLeaf(b)
	for _, pragma := range []string{`journal_mode = OFF`, `synchronous = OFF`, `cache_size = -800000`, `foreign_keys = OFF`} {
		g.once(b, `PRAGMA `+pragma)
	}
	g.skew()
	return g
}

// empty is false for a database that an earlier run has left in -store.dir: then it is
// measured once more.
func (g *generator) empty(b *testing.B) (empty bool) {
	ok(b, g.conn.QueryRowContext(context.Background(), `SELECT NOT EXISTS (SELECT 1 FROM entries)`).Scan(&empty))
	return empty
}

// skew gives projects entries by Zipf's law, the first tenth of them in the middle of
// the ids.
func (g *generator) skew() {
	n := *scaleProjects
	g.sizes, g.numbers = make([]int, n), make([]int, n)
	sum := 0.0
	weight := func(i int) float64 { return 1 / math.Pow(float64(i+20), 0.9) }
	for i := range n {
		sum += weight(i)
	}
	left := *scaleEntries
	order := g.rand.Perm(n)
	for i, p := range order {
		g.sizes[p] = min(left, max(1, int(weight(i)/sum*float64(*scaleEntries))))
		left -= g.sizes[p]
	}
	g.sizes[order[0]] += left
}

func (g *generator) exec(b *testing.B, query string, args ...any) {
	stmt := g.stmts[query]
	if stmt == nil {
		var err error
		if stmt, err = g.conn.PrepareContext(context.Background(), query); err != nil {
			b.Fatalf("%s: %v", query, err)
		}
		g.stmts[query] = stmt
	}
	if _, err := stmt.Exec(args...); err != nil {
		b.Fatalf("%s: %v", query, err)
	}
}

// once is exec for what is said once; a statement that is kept would hold its tables.
func (g *generator) once(b *testing.B, query string) {
	if _, err := g.conn.ExecContext(context.Background(), query); err != nil {
		b.Fatalf("%s: %v", query, err)
	}
}

func (g *generator) random() (h [32]byte) {
	g.chacha.Read(h[:])
	return h
}

// late are indexes that are made when all rows are there: sorting is faster than
// inserting in no order.
var late = []string{"entries_by_leaf", "entries_by_signer", "pairs_by_entry", "files_by_sha256", "files_by_name", "files_unjudged", "signers_by_age"}

func (g *generator) generate(b *testing.B) {
	var again []string
	if !*scaleArrival {
		for _, name := range late {
			var text string
			ok(b, g.conn.QueryRowContext(context.Background(), `SELECT sql FROM sqlite_schema WHERE name = ?`, name).Scan(&text))
			g.once(b, `DROP INDEX `+name)
			again = append(again, text)
		}
	}
	g.once(b, `BEGIN`)
	g.exec(b, `INSERT INTO kinds (id, name) VALUES (1, 'dsse/0.0.1')`)
	g.exec(b, `INSERT INTO binding_forms (id, name) VALUES (1, 'P1/payload')`)
	g.exec(b, `INSERT INTO shapes (id, text) VALUES (1, ?)`, []byte(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"`+string(byte(holeEnvelope1))+
		`"},"payloadHash":{"algorithm":"sha256","value":"`+string(byte(holeDigestHex))+`"},"signatures":[{"signature":"`+string(byte(holeSignature))+`","verifier":"`+string(byte(holePEM))+`"}]}}`))
	g.once(b, `CREATE TEMP TABLE unsorted (prefix BLOB, file_id INTEGER)`)
	for i := range *scaleEntries/headEntries + 1 {
		h := g.random()
		g.exec(b, `INSERT INTO heads (id, log_id, size, root, text, note, seen, verified) VALUES (?, 1, ?, ?, ?, ?, ?, 1)`, i+1, i+1, h[:], fmt.Sprintf("%s\n%d\n%s\n", testLog.Origin, i+1, b64(h[:])), make([]byte, 300), storeEpoch.UnixMicro())
	}
	var releases []int32
	for p, size := range g.sizes {
		g.project(b, p)
		for range (size + releaseFiles - 1) / releaseFiles {
			releases = append(releases, int32(p))
		}
	}
	if *scaleArrival {
		g.rand.Shuffle(len(releases), func(i, j int) { releases[i], releases[j] = releases[j], releases[i] })
		for _, p := range releases {
			g.rows(b, int(p), releaseFiles)
		}
	} else {
		for p, size := range g.sizes {
			g.rows(b, p, size)
		}
	}
	g.once(b, `INSERT INTO expected (prefix, file_id) SELECT prefix, file_id FROM temp.unsorted ORDER BY 1, 2`)
	g.once(b, `DROP TABLE temp.unsorted`)
	for _, text := range again {
		g.once(b, text)
	}
	g.once(b, `COMMIT`)
}

func (g *generator) project(b *testing.B, p int) {
	id, name := p+1, fmt.Sprintf("project-%05d", p)
	g.exec(b, `INSERT INTO projects (id, index_id, name, first_seen) VALUES (?, 0, ?, ?)`, id, name, storeEpoch.UnixMicro())
	repo := "https://github.com/owner-" + name + "/" + name
	g.exec(b, `INSERT INTO publishers (id, key, issuer, repository, repository_id, owner, owner_id, workflow, environment, identity) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, name, "https://token.actions.githubusercontent.com", repo, fmt.Sprint(1e8+p), "https://github.com/owner-"+name, fmt.Sprint(1e7+p), repo+"/.github/workflows/release.yml", "pypi", "")
}

// headEntries are the entries under one head.
const headEntries = 3000

// rowsOf gives the next n files of a project (?1) from number ?2 on, and the number ?4
// over all projects with which they begin.
const rowsOf = `WITH RECURSIVE i (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n + 1 < ?3),
	r AS (SELECT ?1 << 24 | (?2 + n) AS id, ?1 AS project, (?2 + n - 1) / 3 AS release, (?2 + n - 1) % 3 AS nth, ?4 + n AS seq, printf('project-%05d', ?1 - 1) AS name FROM i) `

// rows writes the next files of a project with their certificates and entries. SQLite
// makes up all of it, which is ten times as fast as handing it rows.
func (g *generator) rows(b *testing.B, p, n int) {
	n = min(n, g.sizes[p]-g.numbers[p])
	args := []any{p + 1, g.numbers[p] + 1, n, g.written}
	g.numbers[p] += n
	g.written += n
	version := `printf('%d.%d.0', release / 10, release % 10)`
	g.exec(b, rowsOf+`INSERT INTO signers (id, fingerprint, der, publisher_id, run, commit_id) SELECT project << 24 | (release + 1), randomblob(32), CAST(?5 || randomblob(32) AS BLOB), project,
		'https://github.com/owner-' || name || '/' || name || '/actions/runs/' || (20000000000 + seq) || '/attempts/1', lower(hex(randomblob(20))) FROM r WHERE nth = 0`, append(args, g.cert[:len(g.cert)-32])...)
	g.exec(b, rowsOf+`, f AS (SELECT r.*, `+version+` AS version, name || '-' || `+version+` || CASE nth WHEN 0 THEN '.tar.gz' WHEN 1 THEN '-py3-none-any.whl' ELSE '-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl' END AS filename FROM r)
		INSERT INTO files (id, project_id, version, filename, sha256, size, uploaded, url, provenance_url, first_seen, first_listing, judged)
		SELECT id, project, version, filename, randomblob(32), 123456, ?5 + seq, 'https://files.pythonhosted.org/packages/ab/cd/' || lower(hex(randomblob(30))) || '/' || filename,
			'https://pypi.org/integrity/' || name || '/' || version || '/' || filename || '/provenance', ?5 + seq, 0, 1 FROM f`, append(args, storeEpoch.UnixMicro())...)
	g.exec(b, rowsOf+`INSERT INTO temp.unsorted SELECT randomblob(6), r.id FROM r, json_each('[1, 2, 3, 4]')`, args...)
	// A log of three thousand million leaves, of which these are a few.
	index := `seq * 2654435761 % 2999999929`
	if *scaleArrival {
		index = `seq * (3000000000 / ` + fmt.Sprint(*scaleEntries) + `)`
	}
	g.exec(b, rowsOf+`INSERT INTO entries (id, log_id, idx, leaf_hash, kind_id, signer_id, trust, integrated, set_valid, head_id, seen)
		SELECT id, 1, `+index+`, randomblob(32), 1, project << 24 | (release + 1), '', ?5 / 1000000, 1, seq / ?6 + 1, ?5 + seq FROM r`, append(args, storeEpoch.UnixMicro(), headEntries)...)
	g.exec(b, rowsOf+`INSERT INTO leaves (entry_id, shape_id, rest, set_sig) SELECT id, 1, CAST(x'40' || randomblob(64) AS BLOB), CAST(x'40' || randomblob(64) AS BLOB) FROM r`, args...)
	g.exec(b, rowsOf+`INSERT INTO pairs (file_id, entry_id, evidence, form_id) SELECT id, id, 3, 1 FROM r`, args...)
}

// probe draws a hash by lot.
func (g *generator) probe(b *testing.B, kind string) (hash [32]byte) {
	ctx := context.Background()
	p := g.rand.IntN(len(g.sizes))
	first, _ := projectRange(int64(p + 1))
	id := first + int64(1+g.rand.IntN(max(1, g.sizes[p])))
	if kind == "leaf" {
		var raw []byte
		ok(b, g.conn.QueryRowContext(ctx, `SELECT leaf_hash FROM entries WHERE id = ?`, id).Scan(&raw))
		return [32]byte(raw)
	}
	var name string
	var raw []byte
	ok(b, g.conn.QueryRowContext(ctx, `SELECT filename, sha256 FROM files WHERE id = ?`, id).Scan(&name, &raw))
	for _, x := range ExpectedDigests(name, [32]byte(raw)) {
		if x.Form == kind {
			hash = x.Digest
		}
	}
	if kind != artifact { // those of the generator are drawn by lot
		_, err := g.conn.ExecContext(ctx, `INSERT OR IGNORE INTO expected (prefix, file_id) VALUES (?, ?)`, hash[:prefixBytes], id)
		ok(b, err)
	}
	return hash
}

// perEntry are the tables that an entry adds to; dbstat counts whole pages.
var perEntry = []string{"entries", "pairs", "leaves"}

func (g *generator) report(b *testing.B) {
	rows, err := g.conn.QueryContext(context.Background(), `SELECT m.tbl_name, s.name, sum(s.pgsize), sum(s.payload) FROM dbstat s JOIN sqlite_schema m ON m.name = s.name GROUP BY 1, 2 HAVING sum(s.pgsize) > 65536 ORDER BY 1, m.type DESC, 2`)
	ok(b, err)
	total, all := 0.0, 0.0
	fmt.Printf("%-14s %-30s %14s %14s\n", "table", "tree", "bytes/entry", "payload/entry")
	ok(b, drain(rows, func(scan scan) error {
		var table, tree string
		var size, payload float64
		err := scan(&table, &tree, &size, &payload)
		n := float64(*scaleEntries)
		fmt.Printf("%-14s %-30s %14.1f %14.1f\n", table, tree, size/n, payload/n)
		if slices.Contains(perEntry, table) {
			total += size / n
		}
		all += size / n
		return err
	}))
	fmt.Printf("an entry adds %.1f bytes to %v and their indexes; the whole database is %.1f bytes an entry\n", total, perEntry, all)
}

func (g *generator) measure(b *testing.B) {
	ctx := context.Background()
	var projects []string
	for p, size := range g.sizes {
		if size >= 90 && size <= 110 {
			projects = append(projects, fmt.Sprintf("project-%05d", p))
		}
	}
	g.rand.Shuffle(len(projects), func(i, j int) { projects[i], projects[j] = projects[j], projects[i] })
	projects = projects[:min(len(projects), 500)]
	history := func(s *Store, project string) {
		h, err := s.History(ctx, "", project)
		ok(b, err)
		if len(h.Entries) < 90 || len(h.Bound) != 2*len(h.Files) {
			b.Fatalf("%d entries, %d files, %d bound", len(h.Entries), len(h.Files), len(h.Bound))
		}
	}
	g.once(b, `PRAGMA journal_mode = WAL`) // as a monitor has it
	s, err := OpenReadOnly(ctx, g.path)
	ok(b, err)
	defer s.Close()
	var warm, cpu, cold, read []float64
	for _, p := range projects {
		history(s, p)
		before := processor(b)
		warm = append(warm, seconds(func() { history(s, p) }))
		cpu = append(cpu, processor(b)-before)
	}
	percentiles("history of a project with 100 entries, warm", warm, 1e3, "ms")
	percentiles("  processor time of it, for busy machines", cpu, 1e3, "ms")
	find := func(hash [32]byte) {
		if f, err := s.Find(ctx, hash); err != nil || len(f.Files)+len(f.Entries) == 0 {
			b.Fatal(f, err)
		}
	}
	for _, kind := range []string{artifact, "leaf", "P1/payload", "P1/pae"} {
		hashes := make([][32]byte, 3000)
		for i := range hashes {
			hashes[i] = g.probe(b, kind)
			find(hashes[i])
		}
		// Pages are in the system's cache; those of the last few hashes in SQLite's too.
		var took []float64
		for _, h := range hashes {
			took = append(took, seconds(func() { find(h) }))
		}
		percentiles("look-up by "+kind+" hash, warm", took, 1e6, "µs")
	}
	for _, p := range projects {
		s, err := OpenReadOnly(ctx, g.path)
		ok(b, err)
		forget(b, g.path)
		before := diskRead(b)
		cold = append(cold, seconds(func() { history(s, p) }))
		read = append(read, float64(diskRead(b)-before))
		ok(b, s.Close())
	}
	percentiles("the same, cold", cold, 1e3, "ms")
	percentiles("  read from the disk for it", read, 1./1024, "KiB")
	if slices.Max(read) == 0 {
		fmt.Println("  nothing was read from the disk: this system does not let its cache be dropped, and cold is warm")
	}
}

func seconds(f func()) float64 {
	began := time.Now()
	f()
	return time.Since(began).Seconds()
}

func percentiles(what string, values []float64, unit float64, name string) {
	if len(values) == 0 {
		fmt.Printf("%s: no sample\n", what)
		return
	}
	slices.Sort(values)
	fmt.Printf("%-46s median %8.2f %s, 99th percentile %8.2f %s, of %d\n", what, values[len(values)/2]*unit, name, values[len(values)*99/100]*unit, name, len(values))
}
