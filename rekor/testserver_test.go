package rekor

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"

	formats "github.com/transparency-dev/formats/note"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

func these(keys ...Tlog) func() []Tlog { return func() []Tlog { return keys } }

// testOptions make failures quick: pauses of at most a millisecond.
func testOptions(url, origin string, keys []Tlog) Options {
	return Options{
		URL: url, Origin: origin, Keys: these(keys...), Rate: 1e6, MaxWait: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), UserAgent: "sigtrail/test (+https://example.org)",
	}
}

func newTestV1(t testing.TB, url, origin string, keys []Tlog) *V1 {
	t.Helper()
	v, err := NewV1(testOptions(url, origin, keys))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A testKey is a log key as a trusted root would name it, with its secret half.
type testKey struct {
	tlog   Tlog
	signer func(text string) []byte // signature without the key hint
}

func newTestKey(t testing.TB, api monitor.API, host string) testKey {
	t.Helper()
	var k testKey
	k.tlog = Tlog{Host: host, API: api, From: time.Unix(0, 0)}
	var err error
	if api == monitor.V2 {
		secret := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
		public := secret.Public().(ed25519.PublicKey)
		k.tlog.Key, k.tlog.KeyID = public, keyIDv2(host, public)
		k.tlog.VKey = verifierKey(host, k.tlog.KeyID, 0x01, public)
		k.signer = func(text string) []byte { return ed25519.Sign(secret, []byte(text)) }
	} else {
		var secret *ecdsa.PrivateKey
		if secret, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
		spki, err2 := x509.MarshalPKIXPublicKey(secret.Public())
		if err2 != nil {
			t.Fatal(err2)
		}
		k.tlog.Key, k.tlog.KeyID = secret.Public(), sha256.Sum256(spki)
		k.tlog.VKey = verifierKey(host, k.tlog.KeyID, 0x02, spki)
		k.signer = func(text string) []byte {
			digest := sha256.Sum256([]byte(text))
			sig, err := ecdsa.SignASN1(rand.Reader, secret, digest[:])
			if err != nil {
				panic(err)
			}
			return sig
		}
	}
	if k.tlog.Verifier, err = formats.NewVerifier(k.tlog.VKey); err != nil {
		t.Fatal(err)
	}
	return k
}

// head signs a checkpoint.
func (k testKey) head(origin string, size uint64, root []byte) string {
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root))
	blob := append(append([]byte(nil), k.tlog.KeyID[:4]...), k.signer(text)...)
	return text + "\n— " + k.tlog.Host + " " + base64.StdEncoding.EncodeToString(blob) + "\n"
}

// A testTree is a Merkle tree in memory, by its plain definition.
type testTree struct {
	leaves [][]byte
	levels [][][]byte // complete nodes
}

func newTestTree(n int, leaf func(i int) []byte) *testTree {
	tree := &testTree{}
	var row [][]byte
	for i := range n {
		tree.leaves = append(tree.leaves, leaf(i))
		row = append(row, rfc6962.DefaultHasher.HashLeaf(tree.leaves[i]))
	}
	for ; len(row) > 0; row = parents(row) {
		tree.levels = append(tree.levels, row)
	}
	return tree
}

func parents(row [][]byte) (up [][]byte) {
	for i := 0; i+1 < len(row); i += 2 {
		up = append(up, rfc6962.DefaultHasher.HashChildren(row[i], row[i+1]))
	}
	return up
}

func (tr *testTree) nodes(p proof.Nodes) [][]byte {
	var hashes [][]byte
	for _, id := range p.IDs {
		hashes = append(hashes, tr.levels[id.Level][id.Index])
	}
	out, err := p.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		panic(err)
	}
	return out
}

func (tr *testTree) root(size uint64) []byte {
	var hashes []monitor.Hash
	for _, h := range tr.levels[0][:size] {
		hashes = append(hashes, monitor.Hash(h))
	}
	pos, err := (monitor.Position{}).Fold(hashes)
	if err != nil {
		panic(err)
	}
	root, err := pos.Root()
	if err != nil {
		panic(err)
	}
	return root[:]
}

func (tr *testTree) tile(level, index uint64, width int) []byte {
	row := tr.levels[level*layout.TileHeight]
	row = row[min(int(index*layout.TileWidth), len(row)):]
	if len(row) < width {
		return nil
	}
	return bytes.Join(row[:width], nil)
}

func (tr *testTree) bundle(index uint64, width int) []byte {
	leaves := tr.leaves[min(int(index*layout.EntryBundleWidth), len(tr.leaves)):]
	if len(leaves) < width {
		return nil
	}
	var out []byte
	for _, l := range leaves[:width] {
		out = binary.BigEndian.AppendUint16(out, uint16(len(l)))
		out = append(out, l...)
	}
	return out
}

// A testV2 serves a tree as tiles. Once gone, partial tiles that lie under a full
// one are not to be had.
type testV2 struct {
	*testTree
	key    testKey
	gone   bool
	before func(w http.ResponseWriter, r *http.Request) (done bool)
	asked  atomic.Int64
}

func (s *testV2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if s.before != nil && s.before(w, r) {
		return
	}
	size := uint64(len(s.leaves))
	path := strings.TrimPrefix(r.URL.Path, "/api/v2/")
	if path == "checkpoint" {
		io.WriteString(w, s.key.head(s.key.tlog.Host, size, s.root(size)))
		return
	}
	rest := strings.TrimPrefix(path, "tile/")
	level, n, _ := strings.Cut(rest, "/")
	index, width, err := layout.ParseTileIndexPartial(n)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	var body []byte
	var l uint64
	get := func(width int) []byte { return s.bundle(index, width) }
	if level != "entries" {
		if l, err = layout.ParseTileLevel(level); err != nil || int(l*layout.TileHeight) >= len(s.levels) {
			http.NotFound(w, r)
			return
		}
		get = func(width int) []byte { return s.tile(l, index, width) }
	}
	switch full := get(layout.TileWidth); {
	case width == 0:
		body = full
	case full != nil && s.gone:
	default:
		body = get(int(width))
	}
	if body == nil {
		http.NotFound(w, r)
		return
	}
	w.Write(body)
}

func newTestV2(t testing.TB, n int, leaf func(i int) []byte) (*testV2, *V2) {
	t.Helper()
	s := &testV2{testTree: newTestTree(n, leaf), key: newTestKey(t, monitor.V2, "log.example")}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	v, err := NewV2(testOptions(server.URL+"/api/v2/", "log.example", []Tlog{s.key.tlog}))
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func shortLeaf(i int) []byte { return fmt.Appendf(nil, "leaf %d", i) }

// newLabCA is the lab's signing authority, one for all tests.
var newLabCA = func() func(t *testing.T) *lab.CA {
	ca := sync.OnceValues(lab.NewCA)
	return func(t *testing.T) *lab.CA {
		t.Helper()
		c, err := ca()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}()
