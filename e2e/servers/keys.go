package servers

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

// writePEM writes blocks of one type into a file of a folder and returns its
// path.
func writePEM(t testing.TB, dir, name, kind string, blocks ...[]byte) string {
	t.Helper()
	var out []byte
	for _, b := range blocks {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})...)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatalf("writing a key or a certificate: %v", err)
	}
	return path
}

// writeKey writes a private key as PKCS#8.
func writeKey(t testing.TB, dir, name string, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("encoding a key: %v", err)
	}
	return writePEM(t, dir, name, "PRIVATE KEY", der)
}

// publicKey is a key's DER SubjectPublicKeyInfo.
func publicKey(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatalf("encoding a public key: %v", err)
	}
	return der
}
