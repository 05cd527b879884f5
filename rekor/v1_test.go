package rekor

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/transparency-dev/merkle/proof"

	"sigtrail/monitor"
)

// A testV1 answers the v1 calls for two shards: leaves 0 to 99 in a closed one,
// the rest in an active one.
type testV1 struct {
	trees  [2]*testTree
	key    testKey
	before func(w http.ResponseWriter, r *http.Request) (done bool)
	lacks  map[int64]bool // global indexes left out of retrieve answers
	asked  atomic.Int64
}

var testTreeIDs = [2]uint64{3904496407287907110, 77}

func newTestServerV1(t testing.TB) (*testV1, *V1) {
	t.Helper()
	s := &testV1{key: newTestKey(t, monitor.V1, "rekor.example"), lacks: map[int64]bool{}}
	s.trees[0] = newTestTree(100, shortLeaf)
	s.trees[1] = newTestTree(57, func(i int) []byte { return shortLeaf(100 + i) })
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, newTestV1(t, server.URL, "rekor.example", []Tlog{s.key.tlog})
}

func (s *testV1) signed(shard int) string {
	size := uint64(len(s.trees[shard].leaves))
	return s.key.head(fmt.Sprintf("rekor.example - %d", testTreeIDs[shard]), size, s.trees[shard].root(size))
}

func (s *testV1) info(shard int) map[string]any {
	size := uint64(len(s.trees[shard].leaves))
	return map[string]any{
		"treeID": strconv.FormatUint(testTreeIDs[shard], 10), "treeSize": size,
		"rootHash": hex.EncodeToString(s.trees[shard].root(size)), "signedTreeHead": s.signed(shard),
	}
}

func (s *testV1) entry(global int64) (string, map[string]any) {
	shard, index := 0, global
	if global >= 100 {
		shard, index = 1, global-100
	}
	tree := s.trees[shard]
	if index < 0 || int(index) >= len(tree.leaves) {
		return "", nil
	}
	size := uint64(len(tree.leaves))
	nodes, err := proof.Inclusion(uint64(index), size)
	if err != nil {
		panic(err)
	}
	hashes := []string{}
	for _, h := range tree.nodes(nodes) {
		hashes = append(hashes, hex.EncodeToString(h))
	}
	return fmt.Sprintf("%016x%x", testTreeIDs[shard], tree.levels[0][index]), map[string]any{
		"body": base64.StdEncoding.EncodeToString(tree.leaves[index]), "integratedTime": 1700000000 + global,
		"logID": s.key.tlog.KeyID.String(), "logIndex": global,
		"verification": map[string]any{
			"signedEntryTimestamp": base64.StdEncoding.EncodeToString([]byte("signature")),
			"inclusionProof": map[string]any{
				"checkpoint": s.signed(shard), "hashes": hashes, "logIndex": index,
				"rootHash": hex.EncodeToString(tree.root(size)), "treeSize": size,
			},
		},
	}
}

func (s *testV1) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if s.before != nil && s.before(w, r) {
		return
	}
	answer := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
	refuse := func(status int) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"code":%d,"message":"no"}`, status)
	}
	switch r.URL.Path {
	case "/api/v1/log":
		active := s.info(1)
		active["inactiveShards"] = []any{s.info(0)}
		answer(active)
	case "/api/v1/log/proof":
		q := r.URL.Query()
		from, _ := strconv.ParseUint(q.Get("firstSize"), 10, 64)
		to, _ := strconv.ParseUint(q.Get("lastSize"), 10, 64)
		shard := slices.Index(testTreeIDs[:], func() uint64 { n, _ := strconv.ParseUint(q.Get("treeID"), 10, 64); return n }())
		if shard < 0 || from > to || to > uint64(len(s.trees[shard].leaves)) {
			refuse(400)
			return
		}
		nodes, _ := proof.Consistency(from, to)
		hashes := []string{}
		for _, h := range s.trees[shard].nodes(nodes) {
			hashes = append(hashes, hex.EncodeToString(h))
		}
		answer(map[string]any{"rootHash": strings.Repeat("0", 64), "hashes": hashes})
	case "/api/v1/log/entries":
		global, _ := strconv.ParseInt(r.URL.Query().Get("logIndex"), 10, 64)
		id, e := s.entry(global)
		if e == nil {
			w.WriteHeader(404)
			return
		}
		answer(map[string]any{id: e})
	case "/api/v1/log/entries/retrieve":
		s.retrieve(r, answer, refuse)
	default:
		refuse(404)
	}
}

// retrieve answers backwards and leaves out what it lacks.
func (s *testV1) retrieve(r *http.Request, answer func(any), refuse func(int)) {
	var q struct {
		LogIndexes []int64  `json:"logIndexes"`
		EntryUUIDs []string `json:"entryUUIDs"`
	}
	if json.NewDecoder(r.Body).Decode(&q) != nil || len(q.LogIndexes)+len(q.EntryUUIDs) > 10 {
		refuse(422)
		return
	}
	out := []any{}
	for g := int64(156); g >= 0; g-- {
		id, e := s.entry(g)
		if !s.lacks[g] && (slices.Contains(q.LogIndexes, g) || slices.Contains(q.EntryUUIDs, id) || slices.Contains(q.EntryUUIDs, id[16:])) {
			out = append(out, map[string]any{id: e})
		}
	}
	answer(out)
}

func TestV1Logs(t *testing.T) {
	s, v := newTestServerV1(t)
	served, err := v.Logs(t.Context())
	if err != nil || len(served) != 2 {
		t.Fatal(served, err)
	}
	for i, want := range []monitor.Log{
		{TreeID: testTreeIDs[0], FirstGlobal: 0, Closed: true},
		{TreeID: testTreeIDs[1], FirstGlobal: 100},
	} {
		want.Origin = fmt.Sprintf("rekor.example - %d", want.TreeID)
		want.KeyID, want.Key, want.API, want.URL = s.key.tlog.KeyID, s.key.tlog.VKey, monitor.V1, v.String()
		if served[i].Log != want {
			t.Errorf("shard %d: %+v, want %+v", i, served[i].Log, want)
		}
		h, err := monitor.ParseHead(served[i].Note, want.Origin, served[i].Verifier)
		if err != nil || h.Size != uint64(len(s.trees[i].leaves)) {
			t.Errorf("shard %d: %v %v", i, h, err)
		}
	}
}

func TestV1LogInfoRefused(t *testing.T) {
	s, v := newTestServerV1(t)
	for name, spoil := range map[string]func(info map[string]any){
		"no head":         func(i map[string]any) { delete(i, "signedTreeHead") },
		"other tree":      func(i map[string]any) { i["treeID"] = "78" },
		"tree zero":       func(i map[string]any) { i["treeID"] = "0" },
		"tree with sign":  func(i map[string]any) { i["treeID"] = "+77" },
		"a number":        func(i map[string]any) { i["treeID"] = 77 },
		"empty head":      func(i map[string]any) { i["signedTreeHead"] = "" },
		"negative size":   func(i map[string]any) { i["signedTreeHead"] = "rekor.example - 77\n-1\nAAAA\n" },
		"null shard":      func(i map[string]any) { i["inactiveShards"] = []any{nil} },
		"same tree twice": func(i map[string]any) { i["inactiveShards"] = []any{s.info(1)} },
	} {
		s.before = func(w http.ResponseWriter, r *http.Request) bool {
			info := s.info(1)
			spoil(info)
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(info)
			return true
		}
		if got, err := v.Logs(t.Context()); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestV1Consistency(t *testing.T) {
	s, v := newTestServerV1(t)
	served, err := v.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, sh := range served {
		for _, c := range [][2]uint64{{1, 2}, {3, 50}, {32, 57}} {
			p, err := sh.Source.Consistency(t.Context(), c[0], c[1])
			if err != nil {
				t.Fatal(err)
			}
			tree := s.trees[i]
			if err := monitor.VerifyConsistency(c[0], monitor.Hash(tree.root(c[0])), c[1], monitor.Hash(tree.root(c[1])), p); err != nil {
				t.Errorf("shard %d, %v: %v", i, c, err)
			}
		}
		before := s.asked.Load()
		if _, err := sh.Source.Consistency(t.Context(), 5, 5000); !errors.Is(err, monitor.ErrNotServed) {
			t.Errorf("beyond the shard: %v", err)
		}
		if s.asked.Load() != before+1 {
			t.Error("a refusal was asked for again")
		}
	}
}

func TestV1Inclusion(t *testing.T) {
	s, v := newTestServerV1(t)
	served, err := v.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, sh := range served {
		p, err := sh.Source.Inclusion(t.Context(), monitor.Head{}, 42)
		if err != nil {
			t.Fatal(err)
		}
		head, err := monitor.ParseHead(p.Note, sh.Log.Origin, sh.Verifier)
		if err != nil {
			t.Fatal(err)
		}
		if err := monitor.VerifyInclusion(42, monitor.HashLeaf(p.Leaf.Data), head, p.Hashes); err != nil {
			t.Error(err)
		}
		global := int64(sh.Log.Global(42))
		if want := string(shortLeaf(int(global))); string(p.Leaf.Data) != want || p.Leaf.Index != 42 || p.Leaf.IntegratedTime != 1700000000+global || string(p.Leaf.SET) != "signature" {
			t.Errorf("shard %d: %+v", i, p.Leaf)
		}
	}
	active := served[1]
	if _, err := active.Source.Inclusion(t.Context(), monitor.Head{}, 57); !errors.Is(err, monitor.ErrNotServed) {
		t.Errorf("past the end: %v", err)
	}
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		id, e := s.entry(120) // whatever was asked for
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{id: e})
		return true
	}
	if p, err := active.Source.Inclusion(t.Context(), monitor.Head{}, 21); err == nil {
		t.Errorf("another entry is taken: %+v", p.Leaf)
	}
	if p, err := served[0].Source.Inclusion(t.Context(), monitor.Head{}, 20); err == nil {
		t.Errorf("an entry of another shard is taken: %+v", p.Leaf)
	}
}

func TestV1Leaves(t *testing.T) {
	s, v := newTestServerV1(t)
	served, head := headOf(t, v)
	got, err := served.Source.Leaves(t.Context(), head, 3, 57)
	if err != nil || len(got) != 54 {
		t.Fatal(len(got), err)
	}
	for i, l := range got {
		if l.Index != uint64(3+i) || string(l.Data) != string(shortLeaf(103+i)) {
			t.Fatalf("leaf %d is %d %q", i, l.Index, l.Data)
		}
	}
	// Requests may still come, cancelled, when the next call is made.
	var refusing atomic.Bool
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if refusing.Load() && s.asked.Load()%3 == 0 {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	}
	// Silently left out: the run is shorter.
	s.lacks[100+27] = true
	if got, err = served.Source.Leaves(t.Context(), head, 3, 57); err != nil || len(got) != 24 {
		t.Errorf("with a hole: %d leaves, %v", len(got), err)
	}
	if got, err = served.Source.Leaves(t.Context(), head, 27, 57); !errors.Is(err, monitor.ErrNotServed) {
		t.Errorf("from the hole: %d leaves, %v", len(got), err)
	}
	// One answer of several fails for good.
	refusing.Store(true)
	if got, err = served.Source.Leaves(t.Context(), head, 30, 57); err == nil && len(got) == 27 {
		t.Error("a failed answer is not missed")
	}
}

func TestV1Entries(t *testing.T) {
	s, v := newTestServerV1(t)
	long, _ := s.entry(7)
	short, _ := s.entry(130)
	short = short[16:]
	got, err := v.Entries(t.Context(), []uint64{0, 99, 100, 9999}, []string{long, short})
	if err != nil {
		t.Fatal(err)
	}
	var globals []uint64
	for _, f := range got {
		globals = append(globals, f.Global)
		id, _ := s.entry(int64(f.Global))
		tree := testTreeIDs[0]
		if f.Global >= 100 {
			tree = testTreeIDs[1]
		}
		if f.EntryID != id || f.TreeID != tree {
			t.Errorf("entry %d: %s in tree %d", f.Global, f.EntryID, f.TreeID)
		}
		if string(f.Proof.Leaf.Data) != string(shortLeaf(int(f.Global))) {
			t.Errorf("entry %d: %q", f.Global, f.Proof.Leaf.Data)
		}
	}
	slices.Sort(globals)
	if !slices.Equal(globals, []uint64{0, 7, 99, 100, 130}) {
		t.Errorf("got %v", globals)
	}
	if _, err := v.Entries(t.Context(), make([]uint64, 11), nil); err == nil {
		t.Error("eleven at once")
	}
	if _, err := v.Entries(t.Context(), nil, nil); err == nil {
		t.Error("none at all")
	}
	if _, err := v.Entries(t.Context(), nil, []string{"../log"}); err == nil {
		t.Error("a malformed id")
	}
	// What was not asked for is not handed on.
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		id, e := s.entry(5)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode([]any{map[string]any{id: e}})
		return true
	}
	if got, err := v.Entries(t.Context(), []uint64{6}, nil); err != nil || len(got) != 0 {
		t.Errorf("unasked: %v %v", got, err)
	}
}

func TestV1Search(t *testing.T) {
	s, v := newTestServerV1(t)
	hash := "sha256:" + strings.Repeat("ab", 32)
	id, _ := s.entry(3)
	status, body := 200, fmt.Sprintf(`[%q,%q,%q]`, id, id[16:], id)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		var q map[string]string
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q["hash"] != hash || r.URL.Path != "/api/v1/index/retrieve" {
			t.Errorf("asked %s %v %v", r.URL.Path, q, err)
		}
		if got := r.Header.Get("User-Agent"); got != "sigtrail/test (+https://example.org)" {
			t.Errorf("user agent %q", got)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
		return true
	}
	if got, err := v.Search(t.Context(), hash); err != nil || len(got) != 2 {
		t.Errorf("%v %v", got, err)
	}
	body = "[]"
	if got, err := v.Search(t.Context(), hash); err != nil || len(got) != 0 {
		t.Errorf("empty: %v %v", got, err)
	}
	body = `["xyz"]`
	if _, err := v.Search(t.Context(), hash); err == nil {
		t.Error("malformed id")
	}
	for _, status = range []int{404, 501} {
		if _, err := v.Search(t.Context(), hash); !errors.Is(err, ErrNoIndex) {
			t.Errorf("status %d: %v", status, err)
		}
	}
	status = 500
	if _, err := v.Search(t.Context(), hash); err == nil || errors.Is(err, ErrNoIndex) {
		t.Errorf("status 500: %v", err)
	}
	if _, err := v.Search(t.Context(), "sha256:XY"); err == nil {
		t.Error("malformed hash")
	}
}
