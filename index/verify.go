package index

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// VerifySignature checks an entry's signature over what its form says was signed,
// rebuilt from the file's name and digest. form is one of ExpectedDigests'. The
// key is that of the entry's certificate, or the bare key; whether it belongs to
// anybody is another question (Trust.Chain).
func VerifySignature(e Entry, form, filename string, digest [32]byte) error {
	key, err := e.publicKey()
	if err != nil {
		return err
	}
	return verifyForm(key, e, form, filename, digest)
}

func verifyForm(key crypto.PublicKey, e Entry, form, filename string, digest [32]byte) error {
	if e.Signature == nil {
		return errors.New("the log keeps no signature for this kind of entry")
	}
	if form == artifact {
		return verifyDigest(key, digest, e.Signature)
	}
	template, _, _ := strings.Cut(form, "/")
	payload, err := Statement(template, filename, digest)
	if err != nil {
		return err
	}
	message := payload
	if !strings.HasSuffix(form, formData) {
		message = PAE(payload)
	}
	if k, ok := key.(ed25519.PublicKey); ok {
		if !ed25519.Verify(k, message, e.Signature) {
			return errSignature
		}
		return nil
	}
	return verifyDigest(key, sha256.Sum256(message), e.Signature)
}

var errSignature = errors.New("the signature does not verify over the rebuilt statement")

func verifyDigest(key crypto.PublicKey, digest [32]byte, signature []byte) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(k, digest[:], signature) {
			return nil
		}
		return errSignature
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], signature) == nil {
			return nil
		}
		return errSignature
	case ed25519.PublicKey:
		return errors.New("an Ed25519 signature over a file cannot be checked from its digest")
	}
	return fmt.Errorf("no way to check signatures by a key of type %T", key)
}

func (e Entry) publicKey() (crypto.PublicKey, error) {
	if e.Cert == nil {
		key, err := x509.ParsePKIXPublicKey(e.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the entry's public key: %w", err)
		}
		return key, nil
	}
	cert, err := x509.ParseCertificate(e.Cert)
	if err != nil {
		return nil, fmt.Errorf("reading the entry's certificate: %w", err)
	}
	return cert.PublicKey, nil
}
