package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// A SignatureLine makes one line under a head's text, without its newline.
type SignatureLine func(text string) string

// Extend adds lines to the text of every head from now on. The log signs them.
func (h *history) Extend(lines ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.extensions = lines
}

// Cosign adds signature lines to every head from now on, before and after the
// log's own.
func (h *history) Cosign(before, after []SignatureLine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before, h.after = before, after
}

// text is what a head's signatures cover. The caller holds the history.
func (h *history) text(origin string, size uint64, root []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d\n%s\n", origin, size, b64(root))
	for _, l := range h.extensions {
		b.WriteString(l + "\n")
	}
	return b.String()
}

// note puts signatures under a text. The caller holds the history.
func (h *history) note(text, name string, keyID [32]byte, signature []byte) string {
	var b strings.Builder
	b.WriteString(text + "\n")
	for _, l := range h.before {
		b.WriteString(l(text) + "\n")
	}
	b.WriteString(signatureLine(name, keyID, signature) + "\n")
	for _, l := range h.after {
		b.WriteString(l(text) + "\n")
	}
	return b.String()
}

func signatureLine(name string, keyID [32]byte, signature []byte) string {
	return "— " + name + " " + b64(append(keyID[:4:4], signature...))
}

// A Witness cosigns heads (C2SP tlog-cosignature, Ed25519).
type Witness struct {
	name  string
	clock func() time.Time
	key   ed25519.PrivateKey
	blob  []byte // of the verifier key: type and public key
}

// NewWitness makes a witness with a fresh key.
func NewWitness(name string, clock func() time.Time) (*Witness, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Witness{name: name, clock: clock, key: key, blob: append([]byte{4}, public...)}, nil
}

func (w *Witness) keyID() [32]byte {
	return sha256.Sum256(append([]byte(w.name+"\n"), w.blob...))
}

// VKey is the witness's key as a signed-note verifier key.
func (w *Witness) VKey() string {
	id := w.keyID()
	return fmt.Sprintf("%s+%x+%s", w.name, id[:4], b64(w.blob))
}

// Cosign is a SignatureLine.
func (w *Witness) Cosign(text string) string {
	now := w.clock().Unix()
	signature := binary.BigEndian.AppendUint64(nil, uint64(now))
	signature = append(signature, ed25519.Sign(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", now, text))...)
	return signatureLine(w.name, w.keyID(), signature)
}

// UnknownSignature is of n bytes, by a key and of a kind that nobody knows.
func UnknownSignature(name string, n int) SignatureLine {
	return func(string) string { return signatureLine(name, sha256.Sum256([]byte(name)), make([]byte, n)) }
}
