package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math"
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

// Rekeyed is the log as a trusted root would name it under the key that
// SignWithOtherKey signs with.
func (v *V2) Rekeyed() TrustedLog {
	other := *v
	other.key = v.other
	other.keyID = keyIDv2(v.origin, v.other.Public().(ed25519.PublicKey))
	return other.Trusted()
}

// Log adds an attestation as a hashedrekord over its PAE and returns its index.
func (v *V2) Log(s Signed) uint64 { return v.add(s.leafV2()) }

// LogDSSE adds it in the older form.
func (v *V2) LogDSSE(s Signed) uint64 { return v.add(s.leafV2DSSE()) }

// LogLeaf adds any leaf of less than 64 KiB.
func (v *V2) LogLeaf(leaf []byte) uint64 { return v.add(leaf) }

// Freeze signs the last head again with the line that says that nothing follows.
// Witnesses do not sign it again. A test that then adds a leaf is wrong; the log
// has to be unfrozen before.
func (v *V2) Freeze() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.extensions = append(v.extensions, frozenLine+v.clock().UTC().Format(time.UnixDate))
	v.before, v.after = nil, nil
}

// Unfreeze takes the line off again, as a server does that is started without
// having been told.
func (v *V2) Unfreeze() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.extensions = slices.DeleteFunc(v.extensions, isFrozenLine)
}

const frozenLine = "Log frozen — "

func isFrozenLine(l string) bool { return strings.HasPrefix(l, frozenLine) }

// add appends a leaf, whose length a bundle gives in two bytes.
func (v *V2) add(leaf []byte) uint64 {
	v.mu.Lock()
	frozen := slices.ContainsFunc(v.extensions, isFrozenLine)
	v.mu.Unlock()
	if frozen || len(leaf) > math.MaxUint16 {
		panic(fmt.Sprintf("lab: a v2 log takes no leaf of %d bytes, frozen: %t", len(leaf), frozen))
	}
	return v.append(leaf)
}

func (v *V2) checkpoint() string {
	key, id := v.key, v.keyID
	if v.history.other {
		key = v.other
		id = keyIDv2(v.origin, key.Public().(ed25519.PublicKey))
	}
	text := v.text(v.origin, v.shown.size(), v.shown.root(v.shown.size()))
	return v.note(text, v.origin, id, ed25519.Sign(key, []byte(text)))
}

// ServeHTTP serves checkpoint, tiles and entry bundles. A partial one is gone once
// the full one exists.
func (v *V2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/api/v2/")
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case ok && r.Method == http.MethodPost && path == "log/entries":
		v.serveWrite(w)
		return
	case !ok || r.Method != http.MethodGet:
		http.NotFound(w, r)
		return
	case path == "checkpoint":
		io.WriteString(w, v.checkpoint())
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

// serveWrite refuses: what is in a lab's log comes by Log.
func (v *V2) serveWrite(w http.ResponseWriter) {
	if slices.ContainsFunc(v.extensions, isFrozenLine) {
		refuse(w, http.StatusMethodNotAllowed, "This log has been frozen, please switch to the latest log.")
		return
	}
	refuse(w, http.StatusNotImplemented, "read only")
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
