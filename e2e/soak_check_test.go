package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sameEverywhere are the answers that do not depend on when a monitor came to
// know something. (The server signs a promise of inclusion afresh for each answer.)
var sameEverywhere = map[string]string{
	"logs":     `SELECT origin, hex(key_id) AS key, api, tree_id, first_global, closed, next, hex(range) AS range FROM logs`,
	"heads":    `SELECT origin, size, hex(root) AS root FROM (SELECT log_id, size, root, max(size) OVER (PARTITION BY log_id) AS newest FROM heads WHERE verified = 1) JOIN logs ON logs.id = log_id WHERE size = newest GROUP BY 1, 2, 3`,
	"coverage": `SELECT origin, first, past FROM coverage JOIN logs ON logs.id = log_id`,
	"entries": `SELECT origin, idx, hex(leaf_hash) AS leaf, k.name AS kind, hex(fingerprint) AS certificate, trust, integrated, set_sig IS NOT NULL AS promised, set_valid
		FROM entries e JOIN logs l ON l.id = e.log_id JOIN kinds k ON k.id = e.kind_id JOIN leaves v ON v.entry_id = e.id LEFT JOIN signers s ON s.id = e.signer_id`,
	"bindings": `SELECT origin, idx, filename, hex(f.sha256) AS sha256, evidence, form, signature
		FROM bindings b JOIN entries e ON e.id = b.entry_id JOIN logs l ON l.id = e.log_id JOIN files f ON f.id = b.file_id`,
	"unbound": `SELECT origin, idx, hex(digest) AS digest FROM unbound u JOIN logs l ON l.id = u.log_id`,
	"files":   `SELECT p.name, version, filename, hex(f.sha256) AS sha256, f.size, uploaded, state, hex(body) AS provenance FROM files f JOIN projects p ON p.id = f.project_id LEFT JOIN provenance v ON v.file_id = f.id`,
	"alerts":  `SELECT id, rule, severity, project, version FROM alerts`,
	"pins":    `SELECT name, key, state FROM pins JOIN projects p ON p.id = project_id JOIN publishers u ON u.id = publisher_id`,
	"undone":  `SELECT (SELECT count(*) FROM unjudged) AS unjudged, (SELECT count(*) FROM wanted) AS wanted, (SELECT count(*) FROM contradictions) AS contradictions`,
}

// sizes asks the servers how long their logs are, by origin.
func (s *soak) sizes() map[string]int {
	sizes := make(map[string]int)
	head := func(text string) {
		lines := strings.SplitN(text, "\n", 3)
		if len(lines) < 3 {
			s.t.Fatalf("a head of %d lines: %q", len(lines), text)
		}
		n, err := strconv.Atoi(lines[1])
		if err != nil {
			s.t.Fatalf("a head's size: %v", err)
		}
		sizes[lines[0]] = n
	}
	type shard struct{ SignedTreeHead string }
	var info struct {
		shard
		InactiveShards []shard
	}
	if err := json.Unmarshal(s.read(s.v1.URL+"/api/v1/log"), &info); err != nil {
		s.t.Fatalf("the v1 log's answer: %v", err)
	}
	for _, one := range append(info.InactiveShards, info.shard) {
		head(one.SignedTreeHead)
	}
	for _, log := range s.tilesEver {
		head(string(s.read(log.URL + "checkpoint")))
	}
	return sizes
}

func (s *soak) read(url string) []byte {
	resp, err := http.Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return body
}

func (s *soak) database() string { return filepath.Join(s.folder, "sigtrail.db") }

// settling bounds how long the monitor may need when nothing fails any more. A
// provenance that could not be had is asked for again after five minutes.
const settling = 10 * time.Minute

// settle waits until the monitor has done all that there is to do.
func (s *soak) settle() {
	want := s.sizes()
	db := openDatabase(s.t, s.database())
	s.monitor().within(s.t, settling, "done with everything", func() (bool, string) {
		var behind []string
		for origin, size := range want {
			if n := number(s.t, db, fmt.Sprintf(`SELECT coalesce(max(next), 0) AS n FROM logs WHERE origin = '%s'`, origin)); n != size {
				behind = append(behind, fmt.Sprintf("%s: %d of %d", origin, n, size))
			}
		}
		for what, query := range map[string]string{
			"pairs unjudged":      `SELECT count(*) AS n FROM unjudged`,
			"leaves wanted":       `SELECT count(*) AS n FROM wanted`,
			"alerts undelivered":  `SELECT count(*) AS n FROM outbox WHERE delivered IS NULL`,
			"files to be judged":  `SELECT count(*) AS n FROM files WHERE judged = 0`,
			"provenances missing": `SELECT count(*) AS n FROM files LEFT JOIN provenance ON file_id = id WHERE state IS NOT 'present'`,
			"files not listed":    fmt.Sprintf(`SELECT %d - count(*) AS n FROM files`, s.releases),
		} {
			if n := number(s.t, db, query); n != 0 {
				behind = append(behind, fmt.Sprintf("%d %s", n, what))
			}
		}
		slices.Sort(behind)
		return len(behind) == 0, strings.Join(behind, "; ")
	})
}

// late lets a monitor that has seen nothing catch up once, and returns its database
// and its peak of resident memory in bytes.
func (s *soak) late() (*sql.DB, int64) {
	dir := s.t.TempDir()
	path := filepath.Join(dir, "late.yaml")
	if err := os.WriteFile(path, []byte("listen: \"\"\n"+s.config()), 0o644); err != nil {
		s.t.Fatal(err)
	}
	out, code, peak := s.once(path)
	if code != 1 { // there are findings
		s.t.Errorf("a late monitor --once: exit code %d, want 1\n%s", code, out)
	}
	return openDatabase(s.t, filepath.Join(dir, "sigtrail.db")), peak
}
