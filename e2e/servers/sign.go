package servers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
)

// statementType is the DSSE payload type of in-toto statements.
const statementType = "application/vnd.in-toto+json"

// A Signed is a publish attestation: a statement about one file, signed once with
// a key that was certified for it.
type Signed struct {
	Certificate []byte // DER
	Statement   []byte
	Signature   []byte // ASN.1, over the PAE of the statement
}

// PAE is what is signed in place of the statement (DSSE's pre-authentication
// encoding).
func (s Signed) PAE() []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(s.Statement), s.Statement)
}

// Sign signs a file's publish statement as PyPI's clients do: the job gets a
// certificate for a fresh key and uses the key once.
func (f *Fulcio) Sign(ctx context.Context, job Job, filename string, content [32]byte) (Signed, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Signed{}, fmt.Errorf("making a signing key: %w", err)
	}
	s := Signed{Statement: publishStatement(filename, content)}
	if s.Certificate, err = f.Certify(ctx, job, key); err != nil {
		return Signed{}, fmt.Errorf("having %s certified: %w", job.Repository, err)
	}
	digest := sha256.Sum256(s.PAE())
	if s.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
		return Signed{}, fmt.Errorf("signing %s: %w", filename, err)
	}
	return s, nil
}

// publishStatement is the in-toto statement of PEP 740's publish attestation,
// byte for byte as the Python clients write it.
func publishStatement(filename string, content [32]byte) []byte {
	return []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"` + filename +
		`","digest":{"sha256":"` + hex.EncodeToString(content[:]) +
		`"}}],"predicateType":"https://docs.pypi.org/attestations/publish/v1","predicate":null}`)
}

// A V1Entry is a v1 log's answer to an upload.
type V1Entry struct {
	UUID           string
	Body           string `json:"body"` // base64 of the leaf
	IntegratedTime int64  `json:"integratedTime"`
	LogID          string `json:"logID"`
	LogIndex       int64  `json:"logIndex"` // over all shards
	Verification   struct {
		Promise string `json:"signedEntryTimestamp"`
		Proof   struct {
			Checkpoint string   `json:"checkpoint"`
			Hashes     []string `json:"hashes"`
			LogIndex   int64    `json:"logIndex"` // in the shard
			RootHash   string   `json:"rootHash"`
			TreeSize   int64    `json:"treeSize"`
		} `json:"inclusionProof"`
	} `json:"verification"`
}

// Upload logs an attestation as dsse 0.0.1.
func (r *RekorV1) Upload(ctx context.Context, s Signed) (V1Entry, error) {
	envelope, err := json.Marshal(map[string]any{
		"payload": s.Statement, "payloadType": statementType,
		"signatures": []any{map[string]any{"sig": s.Signature}},
	})
	if err != nil {
		return V1Entry{}, fmt.Errorf("encoding an envelope: %w", err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate})
	return r.propose(ctx, map[string]any{
		"apiVersion": "0.0.1", "kind": "dsse",
		"spec": map[string]any{"proposedContent": map[string]any{"envelope": string(envelope), "verifiers": [][]byte{cert}}},
	})
}

// UploadHash logs the attestation's bare PAE digest as hashedrekord 0.0.1: an
// entry that concerns no PyPI file.
func (r *RekorV1) UploadHash(ctx context.Context, s Signed) (V1Entry, error) {
	digest := sha256.Sum256(s.PAE())
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate})
	return r.propose(ctx, map[string]any{
		"apiVersion": "0.0.1", "kind": "hashedrekord",
		"spec": map[string]any{
			"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(digest[:])}},
			"signature": map[string]any{"content": s.Signature, "publicKey": map[string]any{"content": cert}},
		},
	})
}

// UploadDigest logs a file's digest as hashedrekord 0.0.1 under a bare key.
func (r *RekorV1) UploadDigest(ctx context.Context, key *ecdsa.PrivateKey, digest [32]byte) (V1Entry, error) {
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return V1Entry{}, fmt.Errorf("encoding a public key: %w", err)
	}
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return V1Entry{}, fmt.Errorf("signing %x: %w", digest, err)
	}
	return r.propose(ctx, map[string]any{
		"apiVersion": "0.0.1", "kind": "hashedrekord",
		"spec": map[string]any{
			"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(digest[:])}},
			"signature": map[string]any{"content": signature, "publicKey": map[string]any{"content": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})}},
		},
	})
}

func (r *RekorV1) propose(ctx context.Context, entry map[string]any) (V1Entry, error) {
	var answer map[string]V1Entry
	if err := post(ctx, r.URL+"/api/v1/log/entries", entry, &answer); err != nil {
		return V1Entry{}, fmt.Errorf("logging in %s: %w", r.Host, err)
	}
	for uuid, e := range answer {
		e.UUID = uuid
		return e, nil
	}
	return V1Entry{}, fmt.Errorf("logging in %s: an empty answer", r.Host)
}

// Upload logs an attestation in the form that the server's version asks for:
// dsse 0.0.2 at V2Old, hashedrekord 0.0.2 over the PAE at V2New. It returns the
// entry's index, once a published head covers it.
func (r *RekorV2) Upload(ctx context.Context, s Signed) (int64, error) {
	verifier := map[string]any{
		"x509Certificate": map[string]any{"rawBytes": s.Certificate}, "keyDetails": "PKIX_ECDSA_P256_SHA_256",
	}
	digest := sha256.Sum256(s.PAE())
	request := map[string]any{"hashedRekordRequestV002": map[string]any{
		"digest":    digest[:],
		"signature": map[string]any{"content": s.Signature, "verifier": verifier},
	}}
	if r.Version == V2Old {
		request = map[string]any{"dsseRequestV002": map[string]any{
			"envelope": map[string]any{
				"payload": s.Statement, "payloadType": statementType,
				"signatures": []any{map[string]any{"sig": s.Signature, "keyid": ""}},
			},
			"verifiers": []any{verifier},
		}}
	}
	var entry struct {
		LogIndex int64 `json:"logIndex,string"`
	}
	if err := post(ctx, strings.TrimSuffix(r.URL, "/")+"/log/entries", request, &entry); err != nil {
		return 0, fmt.Errorf("logging in %s: %w", r.Origin, err)
	}
	return entry.LogIndex, nil
}

// Attestation is PEP 740's attestation object, as PyPI serves it, of a signature
// and its entry in a v1 log.
func Attestation(s Signed, e V1Entry) (json.RawMessage, error) {
	unhex := func(text string) ([]byte, error) { return hex.DecodeString(text) }
	key, err := unhex(e.LogID)
	if err != nil {
		return nil, fmt.Errorf("the log id of entry %d: %w", e.LogIndex, err)
	}
	root, err := unhex(e.Verification.Proof.RootHash)
	if err != nil {
		return nil, fmt.Errorf("the root of entry %d: %w", e.LogIndex, err)
	}
	hashes := [][]byte{}
	for _, text := range e.Verification.Proof.Hashes {
		h, err := unhex(text)
		if err != nil {
			return nil, fmt.Errorf("the proof of entry %d: %w", e.LogIndex, err)
		}
		hashes = append(hashes, h)
	}
	var leaf struct{ APIVersion, Kind string }
	body, err := base64.StdEncoding.DecodeString(e.Body)
	if err != nil {
		return nil, fmt.Errorf("the body of entry %d: %w", e.LogIndex, err)
	}
	if err := json.Unmarshal(body, &leaf); err != nil {
		return nil, fmt.Errorf("the body of entry %d: %w", e.LogIndex, err)
	}
	number := func(n int64) string { return fmt.Sprint(n) } // 64-bit numbers are strings in protobuf's JSON
	return json.Marshal(map[string]any{
		"version": 1,
		"verification_material": map[string]any{
			"certificate": s.Certificate,
			"transparency_entries": []any{map[string]any{
				"logIndex": number(e.LogIndex), "logId": map[string]any{"keyId": key},
				"kindVersion":      map[string]string{"kind": leaf.Kind, "version": leaf.APIVersion},
				"integratedTime":   number(e.IntegratedTime),
				"inclusionPromise": map[string]any{"signedEntryTimestamp": e.Verification.Promise},
				"inclusionProof": map[string]any{
					"logIndex": number(e.Verification.Proof.LogIndex), "rootHash": root,
					"treeSize": number(e.Verification.Proof.TreeSize), "hashes": hashes,
					"checkpoint": map[string]string{"envelope": e.Verification.Proof.Checkpoint},
				},
				"canonicalizedBody": e.Body,
			}},
		},
		"envelope": map[string]any{"statement": s.Statement, "signature": s.Signature},
	})
}
