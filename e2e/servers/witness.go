package servers

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// A Witness cosigns the heads of one log that extend those it has cosigned before
// (C2SP tlog-witness, tlog-cosignature with Ed25519).
type Witness struct {
	URL  string
	VKey string

	name string
	key  ed25519.PrivateKey
	id   [32]byte

	mu   sync.Mutex
	log  note.Verifier
	size uint64
	root []byte
	away bool
}

// StartWitness runs a witness that knows no log yet.
func StartWitness(t testing.TB, name string) *Witness {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("making the key of %s: %v", name, err)
	}
	blob := append([]byte{0x04}, public...)
	w := &Witness{name: name, key: key, id: sha256.Sum256(append([]byte(name+"\n"), blob...))}
	w.VKey = fmt.Sprintf("%s+%x+%s", name, w.id[:4], base64.StdEncoding.EncodeToString(blob))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", w.add)
	w.URL = serve(t, mux)
	return w
}

// Watch has the witness cosign a log with this key.
func (w *Witness) Watch(t testing.TB, vkey string) {
	t.Helper()
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatalf("key of the log that %s is to witness: %v", w.name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = v
}

// Leave makes the witness answer nobody until it is back.
func (w *Witness) Leave(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
}

func (w *Witness) add(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		http.Error(rw, "away", http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	head, signed, ok := bytes.Cut(body, []byte("\n\n"))
	if err != nil || !ok {
		http.Error(rw, "no request", http.StatusBadRequest)
		return
	}
	lines := strings.Split(string(head), "\n")
	old, err := strconv.ParseUint(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if err != nil {
		http.Error(rw, "no old size", http.StatusBadRequest)
		return
	}
	var hashes [][]byte
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil {
			http.Error(rw, "no proof", http.StatusBadRequest)
			return
		}
		hashes = append(hashes, h)
	}
	if w.log == nil {
		http.Error(rw, "unknown log", http.StatusNotFound)
		return
	}
	n, err := note.Open(signed, note.VerifierList(w.log))
	if err != nil {
		http.Error(rw, "not signed by the log", http.StatusForbidden)
		return
	}
	text := strings.Split(n.Text, "\n")
	size, err := strconv.ParseUint(text[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(text[2])
	if err != nil || err2 != nil || size < old {
		http.Error(rw, "no head", http.StatusBadRequest)
		return
	}
	if old != w.size {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintf(rw, "%d\n", w.size)
		return
	}
	if old > 0 {
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old, size, hashes, w.root, root); err != nil {
			http.Error(rw, err.Error(), http.StatusUnprocessableEntity)
			return
		}
	}
	w.size, w.root = size, root
	now := time.Now().Unix()
	line := w.id[:4:4]
	for shift := 56; shift >= 0; shift -= 8 {
		line = append(line, byte(now>>shift))
	}
	line = append(line, ed25519.Sign(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", now, n.Text))...)
	fmt.Fprintf(rw, "\u2014 %s %s\n", w.name, base64.StdEncoding.EncodeToString(line))
}
