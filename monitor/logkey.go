package monitor

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// A LogKey is a key that signs the heads of a log.
type LogKey struct {
	Name     string // on the signature lines
	SPKI     []byte // the public key as DER SubjectPublicKeyInfo
	ID       Hash   // of the log, as in trusted_root.json: v1 SHA-256(SPKI), v2 SHA-256(name LF 0x01 key)
	Verifier note.Verifier
}

// ParseLogKey reads a log's key from its text form, a C2SP signed-note verifier
// key: Ed25519 (type 0x01) for Rekor v2, ECDSA (type 0x02) for v1. Cosigners sign
// with keys of other types, which are refused: what they sign is not their word
// for a tree of their own.
func ParseLogKey(text string) (LogKey, error) {
	k, err := parseVkey(text)
	if err != nil {
		return LogKey{}, fmt.Errorf("log key: %w", err)
	}
	l := LogKey{Name: k.name}
	switch k.kind {
	case ed25519Note:
		if len(k.key) != ed25519.PublicKeySize {
			return LogKey{}, fmt.Errorf("log key %.100q: Ed25519 key of %d bytes", k.name, len(k.key))
		}
		l.ID = sha256.Sum256(append([]byte(k.name+"\n\x01"), k.key...))
		if l.SPKI, err = x509.MarshalPKIXPublicKey(ed25519.PublicKey(k.key)); err != nil {
			return LogKey{}, fmt.Errorf("log key %.100q: %w", k.name, err)
		}
	case ecdsaNote:
		l.ID, l.SPKI = sha256.Sum256(k.key), k.key
	default:
		return LogKey{}, fmt.Errorf("log key %.100q has type %#02x; logs sign with 0x01 (Ed25519) or 0x02 (ECDSA)", k.name, k.kind)
	}
	if l.Verifier, err = formats.NewVerifier(text); err != nil {
		return LogKey{}, fmt.Errorf("log key %.100q: %w", k.name, err)
	}
	return l, nil
}

// Fingerprint is the SHA-256 of the key in DER form, by which people compare keys.
func (l LogKey) Fingerprint() Hash { return sha256.Sum256(l.SPKI) }

// PEM is the key as a PEM block of type PUBLIC KEY.
func (l LogKey) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: l.SPKI}))
}
