package rekor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/rekor/pkg/generated/models"
	"golang.org/x/mod/sumdb/note"

	"sigtrail/monitor"
)

func verifiersOf(trusts ...*Trust) []note.Verifier {
	var out []note.Verifier
	seen := map[monitor.Hash]bool{}
	for _, tr := range trusts {
		for _, l := range tr.Tlogs() {
			if !seen[l.KeyID] {
				seen[l.KeyID] = true
				out = append(out, l.Verifier)
			}
		}
	}
	return out
}

// environments are the verifiers of each environment's root and of every root it
// had before: keys that were retired have left the newest one.
func environments(t testing.TB) map[string][]note.Verifier {
	t.Helper()
	out := map[string][]note.Verifier{}
	for _, env := range []string{"prod", "staging"} {
		out[env] = verifiersOf(everyRoot(t, env)...)
	}
	return out
}

func everyRoot(t testing.TB, env string) []*Trust {
	t.Helper()
	trusts := []*Trust{sharedTrust(t, env)}
	old, err := filepath.Glob(shared(t, "trust", env, "history") + "/*trusted_root.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		tr, err := LoadTrust(path)
		if err != nil {
			t.Logf("%s: %v", filepath.Base(path), err)
			continue
		}
		trusts = append(trusts, tr)
	}
	return trusts
}

func TestRealHeads(t *testing.T) {
	var heads []struct {
		Origin, Root, Note, Env string
		Size                    uint64
		OK                      bool
	}
	sharedJSON(t, &heads, "checkpoints", "checkpoints.json")
	keys := environments(t)
	good, bad := 0, 0
	for _, h := range heads {
		if !h.OK {
			bad++
			for env, keys := range keys {
				if _, err := monitor.ParseHead([]byte(h.Note), h.Origin, keys); err == nil {
					t.Errorf("%s size %d verifies in %s", h.Origin, h.Size, env)
				}
			}
			continue
		}
		got, err := monitor.ParseHead([]byte(h.Note), h.Origin, keys[h.Env])
		if err != nil {
			t.Errorf("%s size %d: %v", h.Origin, h.Size, err)
			continue
		}
		if got.Size != h.Size {
			t.Errorf("%s: size %d, want %d", h.Origin, got.Size, h.Size)
		}
		good++
	}
	want := map[string]int{}
	for _, row := range sharedTSV(t, "checkpoints", "checkpoints.tsv") {
		want[row["signature"]]++
	}
	if good != want["sig-ok"] || bad != len(heads)-want["sig-ok"] || good < 100 {
		t.Errorf("%d verify and %d do not, the table says %v", good, bad, want)
	}
}

func TestRealHeadByAnotherKey(t *testing.T) {
	keys := environments(t)
	var heads []struct{ Origin, Note, Env string }
	sharedJSON(t, &heads, "checkpoints", "checkpoints.json")
	for _, h := range heads {
		if h.Env != "prod" {
			continue
		}
		if _, err := monitor.ParseHead([]byte(h.Note), h.Origin, keys["staging"]); !errors.Is(err, monitor.ErrForeignHead) {
			t.Fatalf("under the staging keys: %v", err)
		}
	}
}

func TestRealConsistency(t *testing.T) {
	environments := environments(t)
	keys := append(environments["prod"], environments["staging"]...)
	for _, file := range []string{"consistency_modern.json", "consistency_early.json"} {
		var vectors []struct {
			Origin      string
			FirstSize   uint64 `json:"first_size"`
			FirstRoot   string `json:"first_root"`
			LastSize    uint64 `json:"last_size"`
			LastRoot    string `json:"last_root"`
			LastHead    string `json:"last_checkpoint"`
			Proof       []string
			DerivedFrom any `json:"derived_from"`
		}
		sharedJSON(t, &vectors, "rekor-v1", file)
		if len(vectors) < 6 {
			t.Fatalf("%s: %d vectors", file, len(vectors))
		}
		for _, v := range vectors {
			p, err := readHashes(v.Proof)
			if err != nil {
				t.Fatal(err)
			}
			first, last := hashOf(t, v.FirstRoot), hashOf(t, v.LastRoot)
			if err := monitor.VerifyConsistency(v.FirstSize, first, v.LastSize, last, p); err != nil {
				t.Errorf("%s: %d to %d: %v", file, v.FirstSize, v.LastSize, err)
			}
			first[7] ^= 1
			if monitor.VerifyConsistency(v.FirstSize, first, v.LastSize, last, p) == nil {
				t.Errorf("%s: %d to %d holds with another first root", file, v.FirstSize, v.LastSize)
			}
			if v.LastHead == "" {
				continue
			}
			h, err := monitor.ParseHead([]byte(v.LastHead), v.Origin, keys)
			if err != nil || h.Root != last || h.Size != v.LastSize {
				t.Errorf("%s: head of size %d: %v %v", file, v.LastSize, h, err)
			}
		}
	}
}

// earlyEntries are production entries 1 to 124 as their API returned them, in order.
func earlyEntries(t testing.TB) (entries []models.LogEntryAnon) {
	t.Helper()
	in := bufio.NewScanner(bytes.NewReader(sharedBytes(t, "rekor-v1", "production-entries-1-124.jsonl")))
	in.Buffer(nil, 4<<20)
	for in.Scan() {
		var e models.LogEntryAnon
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if err := in.Err(); err != nil || len(entries) != 124 {
		t.Fatalf("%d entries: %v", len(entries), err)
	}
	return entries
}

func TestRealFirstEntries(t *testing.T) {
	trust := sharedTrust(t, "prod")
	log := monitor.Log{Origin: "rekor.sigstore.dev - 3904496407287907110", KeyID: trust.Tlogs()[0].KeyID, API: monitor.V1}
	roots := map[uint64]monitor.Hash{}
	var vectors []struct {
		FirstSize uint64 `json:"first_size"`
		FirstRoot string `json:"first_root"`
	}
	sharedJSON(t, &vectors, "rekor-v1", "consistency_early.json")
	for _, v := range vectors {
		roots[v.FirstSize] = hashOf(t, v.FirstRoot)
	}

	var pos monitor.Position
	met := 0
	for i, e := range earlyEntries(t) {
		leaf, global, err := readLeaf(e)
		if err != nil || global != uint64(i+1) {
			t.Fatalf("entry %d: index %d: %v", i+1, global, err)
		}
		leaf.Index = global // the first shard
		p, err := readInclusion(e.Verification.InclusionProof)
		if err != nil || p.Leaf.Index != global {
			t.Fatalf("entry %d: proof for %d: %v", global, p.Leaf.Index, err)
		}
		if err := trust.SET(log, leaf); err != nil {
			t.Errorf("entry %d: %v", global, err)
		}
		hash := monitor.HashLeaf(leaf.Data)
		head := monitor.Head{Size: p.Size, Root: hashOf(t, *e.Verification.InclusionProof.RootHash)}
		if err := monitor.VerifyInclusion(global, hash, head, p.Hashes); err != nil {
			t.Errorf("entry %d: %v", global, err)
		}
		if i == 0 {
			if pos, err = monitor.PositionBefore(global, p.Size, p.Hashes); err != nil {
				t.Fatal(err)
			}
		}
		if pos, err = pos.Fold([]monitor.Hash{hash}); err != nil {
			t.Fatal(err)
		}
		if want, ok := roots[pos.Next]; ok {
			met++
			if got, err := pos.Root(); err != nil || got != want {
				t.Errorf("root at size %d: %s, want %s (%v)", pos.Next, got, want, err)
			}
		}
	}
	if met != 6 || len(vectors) != 6 {
		t.Errorf("met %d roots of %d, want 6", met, len(vectors))
	}

	leaf, _, _ := readLeaf(earlyEntries(t)[0])
	leaf.Index = 1
	for name, bad := range map[string]monitor.Leaf{
		"time":  {Index: 1, Data: leaf.Data, SET: leaf.SET, IntegratedTime: leaf.IntegratedTime + 1},
		"index": {Index: 2, Data: leaf.Data, SET: leaf.SET, IntegratedTime: leaf.IntegratedTime},
		"body":  {Index: 1, Data: append([]byte("x"), leaf.Data...), SET: leaf.SET, IntegratedTime: leaf.IntegratedTime},
		"none":  {Index: 1, Data: leaf.Data, IntegratedTime: leaf.IntegratedTime},
	} {
		if trust.SET(log, bad) == nil {
			t.Errorf("SET verifies with another %s", name)
		}
	}
	log.KeyID[0] ^= 1
	if trust.SET(log, leaf) == nil {
		t.Error("SET verifies under an unknown log")
	}
}

func TestRealLogInfo(t *testing.T) {
	var info models.LogInfo
	sharedJSON(t, &info, "rekor-v1", "log-info-562247982.json")
	trust := sharedTrust(t, "prod")
	v := newTestV1(t, "http://127.0.0.1:1", "rekor.sigstore.dev", trust.Tlogs())
	served, err := v.shards(&info)
	if err != nil {
		t.Fatal(err)
	}
	if len(served) != 2 {
		t.Fatalf("%d shards, want 2", len(served))
	}
	for _, s := range served {
		if _, err := monitor.ParseHead(s.Note, s.Log.Origin, s.Verifier); err != nil {
			t.Errorf("%s: %v", s.Log, err)
		}
	}
	first := served[0].Log
	if !first.Closed || first.TreeID != 3904496407287907110 || first.FirstGlobal != 0 || served[1].Log.Closed {
		t.Errorf("first shard: %+v", first)
	}
	// The file lacks the second shard, so the third seems to begin there.
	if got := served[1].Log.FirstGlobal; got != 4163431 {
		t.Errorf("active shard begins at %d", got)
	}
	if first.KeyID.String() != "c0d23d6ad406973f9559f3ba2d1ca01f84147d8ffc5b8445c224f98b9591801d" {
		t.Errorf("key id %s", first.KeyID)
	}
}

func TestRealTrust(t *testing.T) {
	prod := sharedTrust(t, "prod")
	logs := prod.Tlogs()
	if len(logs) != 2 || len(prod.Problems()) != 0 {
		t.Fatalf("%d logs, problems %v", len(logs), prod.Problems())
	}
	v1, v2 := logs[0], logs[1]
	if v1.API != monitor.V1 || v1.Host != "rekor.sigstore.dev" || v1.Verifier.KeyHash() != 0xc0d23d6a {
		t.Errorf("v1: %+v", v1)
	}
	if v2.API != monitor.V2 || v2.Host != "log2025-1.rekor.sigstore.dev" || v2.Verifier.KeyHash() != 0xcf119915 {
		t.Errorf("v2: %+v", v2)
	}
	if v1.Until != v2.Until || !v1.Until.IsZero() || v2.From.Year() != 2025 {
		t.Errorf("validity: %v to %v, %v to %v", v1.From, v1.Until, v2.From, v2.Until)
	}
	if !bytes.Equal(prod.RawJSON(), sharedBytes(t, "trust", "prod", "trusted_root.json")) {
		t.Error("RawJSON is not the file")
	}
	if staging := sharedTrust(t, "staging"); len(staging.Tlogs()) < 5 {
		t.Errorf("staging: %d logs, problems %v", len(staging.Tlogs()), staging.Problems())
	}
}

func TestTrustKeyMismatch(t *testing.T) {
	raw := string(sharedBytes(t, "trust", "prod", "trusted_root.json"))
	const id = "wNI9atQGlz+VWfO6LRygH4QUfY/8W4RFwiT5i5WRgB0="
	bad, err := ParseTrust([]byte(strings.Replace(raw, id, "wNI9atQGlz+VWfO6LRygH4QUfY/8W4RFwiT5i5WRgB4=", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if len(bad.Tlogs()) != 1 || len(bad.Problems()) != 1 || !strings.Contains(bad.Problems()[0].Error(), "rekor.sigstore.dev") {
		t.Errorf("logs %v, problems %v", bad.Tlogs(), bad.Problems())
	}
	// A v2 key is named after its host too.
	bad, err = ParseTrust([]byte(strings.Replace(raw, "https://log2025-1.", "https://log2026-1.", 1)))
	if err != nil || len(bad.Tlogs()) != 1 || len(bad.Problems()) != 1 {
		t.Errorf("v2 under another name: %v, problems %v", err, bad.Problems())
	}
	// The newer media type says it twice.
	newer := strings.Replace(raw, "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "application/vnd.dev.sigstore.trustedroot.v0.2+json", 1)
	for value, want := range map[string]int{"wNI9ag==": 2, id: 2, "wNI9aw==": 1} {
		with := strings.Replace(newer, `"baseUrl": "https://rekor.sigstore.dev",`, `"baseUrl": "https://rekor.sigstore.dev", "operator": "sigstore.dev", "someday": 1, "checkpointKeyId": {"keyId": "`+value+`"},`, 1)
		if with == newer {
			t.Fatal("the file has another form")
		}
		tr, err := ParseTrust([]byte(with))
		if err != nil || len(tr.Tlogs()) != want {
			t.Errorf("checkpointKeyId %s: %v, %v", value, err, tr)
		}
	}
}
