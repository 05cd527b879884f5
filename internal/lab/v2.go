package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/transparency-dev/tessera/api/layout"
)

// V2 is a Rekor v2: one tree under an Ed25519 key, served as tiles (C2SP
// tlog-tiles) under /api/v2/. It publishes a head after each entry.
type V2 struct {
	*history
	origin     string
	clock      func() time.Time
	key, other ed25519.PrivateKey
	keyID      [32]byte
	frozen     string // extension line, with its newline
}

// NewV2 makes an empty log.
func NewV2(origin string, clock func() time.Time) (*V2, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return &V2{history: newHistory(), origin: origin, clock: clock, key: key, other: other, keyID: keyIDv2(origin, public)}, nil
}

// Trusted is the log as a trusted root names it.
func (v *V2) Trusted() TrustedLog {
	spki, err := x509.MarshalPKIXPublicKey(v.key.Public())
	if err != nil {
		panic(err) // an Ed25519 key always marshals
	}
	return TrustedLog{Host: v.origin, SPKI: spki, KeyDetails: "PKIX_ED25519", KeyID: v.keyID, From: time.Unix(0, 0)}
}

// Log adds an attestation as a hashedrekord over its PAE and returns its index.
func (v *V2) Log(s Signed) uint64 { return v.append(s.leafV2()) }

// LogDSSE adds it in the older form.
func (v *V2) LogDSSE(s Signed) uint64 { return v.append(s.leafV2DSSE()) }

// LogLeaf adds any leaf.
func (v *V2) LogLeaf(leaf []byte) uint64 { return v.append(leaf) }

// Freeze signs the last head again with the line that says that nothing follows.
func (v *V2) Freeze() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.frozen = "Log frozen — " + v.clock().UTC().Format(time.UnixDate) + "\n"
}

func (v *V2) checkpoint() []byte {
	key, id := v.key, v.keyID
	if v.history.other {
		key = v.other
		id = keyIDv2(v.origin, key.Public().(ed25519.PublicKey))
	}
	return signHead(v.origin, v.shown.size(), v.shown.root(v.shown.size()), v.frozen, key, id)
}

func signHead(origin string, size uint64, root []byte, extension string, key ed25519.PrivateKey, id [32]byte) []byte {
	text := fmt.Sprintf("%s\n%d\n%s\n%s", origin, size, b64(root), extension)
	sig := ed25519.Sign(key, []byte(text))
	return fmt.Appendf(nil, "%s\n— %s %s\n", text, origin, b64(append(slices.Clone(id[:4]), sig...)))
}

// ServeHTTP serves checkpoint, tiles and entry bundles. A partial one is gone once
// the full one exists.
func (v *V2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/api/v2/")
	if !ok || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if path == "checkpoint" {
		w.Write(v.checkpoint())
		return
	}
	level, number, ok := strings.Cut(strings.TrimPrefix(path, "tile/"), "/")
	if !ok || !strings.HasPrefix(path, "tile/") {
		http.NotFound(w, r)
		return
	}
	if level == "entries" {
		level = "0"
	}
	l, n, width, err := layout.ParseTileLevelIndexPartial(level, number)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	body, ok := v.tile(strings.HasPrefix(path, "tile/entries/"), l, n, width)
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(body)
}

// tile returns a tile of hashes or a bundle of leaves; width 0 is a full one.
func (v *V2) tile(entries bool, level, n uint64, width uint8) ([]byte, bool) {
	nodes := v.shown.size() >> (8 * level)
	first := n * layout.TileWidth
	if first >= nodes {
		return nil, false
	}
	have := min(nodes-first, layout.TileWidth)
	want := uint64(width)
	if width == 0 {
		want = layout.TileWidth
	}
	if want > have || width != 0 && have == layout.TileWidth {
		return nil, false
	}
	var body []byte
	for i := first; i < first+want; i++ {
		if entries {
			leaf := v.leaf(v.shown, i)
			body = append(binary.BigEndian.AppendUint16(body, uint16(len(leaf))), leaf...)
		} else {
			body = append(body, v.shown.levels[8*level][i]...)
		}
	}
	return body, true
}
