package rekor

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"golang.org/x/mod/sumdb/note"

	"sigtrail/monitor"
)

// What of a bundle does not hold, for Unverified.
const (
	FailsForm      = "form"      // no bundle that can be judged
	FailsLog       = "log"       // no key of the entry's log is trusted
	FailsSET       = "set"       // the signed entry timestamp
	FailsInclusion = "inclusion" // the proof or the signed head
	FailsEntry     = "entry"     // the log entry is about something else
	FailsTime      = "time"      // nobody who is trusted says when it was signed
	FailsChain     = "chain"     // the certificate's path to the trusted root
	FailsSCT       = "sct"       // the certificate's signed certificate timestamp
	FailsSignature = "signature" // over the envelope
	FailsOther     = "other"     // sigstore-go refuses it, and each check of ours passes
)

// Unverified is a bundle that does not hold, and the first condition that failed.
type Unverified struct {
	Failed string // one of Fails…
	Err    error
}

func (u *Unverified) Error() string { return "bundle: " + u.Failed + ": " + u.Err.Error() }
func (u *Unverified) Unwrap() error { return u.Err }

// Condition names what failed.
func (u *Unverified) Condition() string { return u.Failed }

// Unsure reports that each check of ours passes and that sigstore-go refuses the bundle
// all the same.
func (u *Unverified) Unsure() bool { return u.Failed == FailsOther }

// Doubt reports whether another trusted root may come to another verdict: one that
// names more logs, authorities or time stampers, or ends a key's validity later.
func (u *Unverified) Doubt() bool {
	switch u.Failed {
	case FailsLog, FailsSET, FailsTime, FailsChain, FailsSCT, FailsOther:
		return true
	}
	return false
}

// VerifyBundle verifies a Sigstore bundle that was signed with a certificate:
// log entry, time, certificate, signature. Whom the certificate names and what
// the signed statement says is the caller's to judge. The error is an *Unverified.
//
// sigstore-go gives the verdict. It cannot judge log entries of type dsse 0.0.2,
// which v2 logs took until that type was withdrawn; those are judged here. For
// what sigstore-go refuses the same checks are gone through one by one, because
// its errors do not tell them apart.
func (t *Trust) VerifyBundle(pb *protobundle.Bundle) (err error) {
	defer func() {
		// The bundle comes from anybody, and much code reads it that is not ours.
		if p := recover(); p != nil {
			err = &Unverified{FailsForm, fmt.Errorf("the verifier fell over: %v", p)}
		}
	}()
	if _, ok := pb.GetVerificationMaterial().GetContent().(*protobundle.VerificationMaterial_PublicKey); ok {
		return &Unverified{FailsForm, errors.New("signed with a bare key, which no trusted root vouches for")}
	}
	if onlyDSSE002(pb) {
		return t.retrace(&bundle.Bundle{Bundle: pb})
	}
	b, err := bundle.NewBundle(pb)
	if err != nil {
		return malformed(pb, err)
	}
	refused := t.judge(b)
	if refused == nil {
		return nil
	}
	if err := t.retrace(b); err != nil {
		return err
	}
	return &Unverified{FailsOther, refused}
}

// malformed tells a missing inclusion proof from other faults of form.
func malformed(pb *protobundle.Bundle, err error) error {
	if errors.Is(err, bundle.ErrUnsupportedMediaType) {
		return &Unverified{FailsForm, err}
	}
	for _, e := range pb.GetVerificationMaterial().GetTlogEntries() {
		if e.GetLogIndex() >= 0 && e.GetInclusionProof() == nil {
			return &Unverified{FailsInclusion, err}
		}
	}
	return &Unverified{FailsForm, err}
}

// judge is sigstore-go's verdict. A root that names no certificate log asks for
// no signed certificate timestamp (a private instance may have none).
func (t *Trust) judge(b *bundle.Bundle) error {
	options := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	if len(t.material.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	v, err := verify.NewVerifier(t.material, options...)
	if err != nil {
		return err
	}
	of := verify.WithoutArtifactUnsafe()
	if m := b.GetMessageSignature(); m != nil {
		name, ok := digestNames[m.GetMessageDigest().GetAlgorithm()]
		if !ok {
			return errors.New("no digest beside the signature")
		}
		of = verify.WithArtifactDigest(name, m.GetMessageDigest().GetDigest())
	}
	_, err = v.Verify(b, verify.NewPolicy(of, verify.WithoutIdentitiesUnsafe()))
	return err
}

var digestNames = map[protocommon.HashAlgorithm]string{
	protocommon.HashAlgorithm_SHA2_256: "sha256",
	protocommon.HashAlgorithm_SHA2_384: "sha384",
	protocommon.HashAlgorithm_SHA2_512: "sha512",
}

func onlyDSSE002(pb *protobundle.Bundle) bool {
	entries := pb.GetVerificationMaterial().GetTlogEntries()
	for _, e := range entries {
		if e.GetKindVersion().GetKind() != "dsse" || e.GetKindVersion().GetVersion() != "0.0.2" {
			return false
		}
	}
	return len(entries) > 0
}

// retrace goes through the conditions in the order in which they build on each
// other.
func (t *Trust) retrace(b *bundle.Bundle) error {
	content, err := b.VerificationContent()
	if err != nil || content.Certificate() == nil {
		return &Unverified{FailsForm, errors.New("no certificate")}
	}
	cert := content.Certificate()
	entries := b.GetVerificationMaterial().GetTlogEntries()
	if len(entries) == 0 {
		return &Unverified{FailsInclusion, errors.New("no log entry")}
	}
	var times []time.Time
	for _, e := range entries {
		at, err := t.retraceEntry(b, cert, e)
		if err != nil {
			return err
		}
		if !at.IsZero() {
			times = append(times, at)
		}
	}
	stamps, unsure, err := verify.VerifySignedTimestamp(b, t.material)
	if err != nil {
		return &Unverified{FailsTime, err}
	}
	for _, s := range stamps {
		times = append(times, s.Time)
	}
	if len(times) == 0 {
		return &Unverified{FailsTime, fmt.Errorf("no signed time: %w", errors.Join(unsure...))}
	}
	for _, at := range times {
		if err := t.Chain(cert, at); errors.Is(err, ErrNoSCT) {
			return &Unverified{FailsSCT, err}
		} else if err != nil {
			return &Unverified{FailsChain, err}
		}
	}
	if err := verifyEnvelope(b, cert); err != nil {
		return &Unverified{FailsSignature, err}
	}
	return nil
}

// retraceEntry checks one log entry and returns the time that its log signed, zero
// for none.
func (t *Trust) retraceEntry(b *bundle.Bundle, cert *x509.Certificate, e *protorekor.TransparencyLogEntry) (at time.Time, err error) {
	key, ok := t.tlog(e.GetLogId().GetKeyId())
	if !ok {
		return at, &Unverified{FailsLog, fmt.Errorf("no key with the id %x is trusted", e.GetLogId().GetKeyId())}
	}
	if set := e.GetInclusionPromise().GetSignedEntryTimestamp(); key.API == monitor.V1 && len(set) > 0 {
		leaf := monitor.Leaf{Index: uint64(e.GetLogIndex()), Data: e.GetCanonicalizedBody(), IntegratedTime: e.GetIntegratedTime(), SET: set}
		if err := t.SET(monitor.Log{Origin: key.Host, KeyID: key.KeyID, API: key.API}, leaf); err != nil {
			return at, &Unverified{FailsSET, err}
		}
		at = time.Unix(e.GetIntegratedTime(), 0)
	} else if key.API == monitor.V1 && len(b.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps()) == 0 {
		return at, &Unverified{FailsSET, errors.New("no signed entry timestamp")}
	}
	if e.GetInclusionProof() != nil || key.API == monitor.V2 {
		if err := included(key, e); err != nil {
			return at, &Unverified{FailsInclusion, err}
		}
	}
	if err := sameContent(b, cert, e); err != nil {
		return at, &Unverified{FailsEntry, err}
	}
	return at, nil
}

func (t *Trust) tlog(id []byte) (Tlog, bool) {
	for _, k := range t.tlogs {
		if bytes.Equal(k.KeyID[:], id) {
			return k, true
		}
	}
	return Tlog{}, false
}

func included(key Tlog, e *protorekor.TransparencyLogEntry) error {
	p := e.GetInclusionProof()
	signed := p.GetCheckpoint().GetEnvelope()
	if signed == "" {
		return errors.New("no inclusion proof under a signed head")
	}
	origin, _, _ := strings.Cut(signed, "\n")
	head, err := monitor.ParseHead([]byte(signed), origin, []note.Verifier{key.Verifier})
	if err != nil {
		return err
	}
	if int64(head.Size) != p.GetTreeSize() || !bytes.Equal(head.Root[:], p.GetRootHash()) {
		return errors.New("the proof is for another tree than the signed head")
	}
	if p.GetLogIndex() < 0 || len(p.GetHashes()) > 64 {
		return errors.New("the proof cannot be one")
	}
	path := make([]monitor.Hash, len(p.GetHashes()))
	for i, h := range p.GetHashes() {
		if copy(path[i][:], h) != len(h) || len(h) != len(path[i]) {
			return fmt.Errorf("hash %d of the proof has %d bytes", i, len(h))
		}
	}
	return monitor.VerifyInclusion(uint64(p.GetLogIndex()), monitor.HashLeaf(e.GetCanonicalizedBody()), head, path)
}

// sameContent compares what the log holds with what the bundle holds.
func sameContent(b *bundle.Bundle, cert *x509.Certificate, e *protorekor.TransparencyLogEntry) error {
	content, err := b.SignatureContent()
	if err != nil {
		return err
	}
	if v := e.GetKindVersion(); v.GetVersion() == "0.0.2" && v.GetKind() != "intoto" {
		return sameV2(b, cert, content.Signature(), e.GetCanonicalizedBody())
	}
	entry, err := tlog.ParseTransparencyLogEntry(e)
	if err != nil {
		return err
	}
	if !bytes.Equal(entry.Signature(), content.Signature()) {
		return errors.New("the log holds another signature")
	}
	if logged, ok := entry.PublicKey().(*x509.Certificate); !ok || !logged.Equal(cert) {
		return errors.New("the log holds another certificate")
	}
	if env := b.GetDsseEnvelope(); env != nil {
		sum := sha256.Sum256(env.GetPayload())
		if digest, ok := entry.GetDssePayloadHash(); !ok || !bytes.Equal(digest, sum[:]) {
			return errors.New("the log holds the hash of another statement")
		}
	}
	return nil
}

// bodyV2 is the part of a v2 leaf that says what was signed (rekor-tiles,
// entry.proto in protobuf JSON).
type bodyV2 struct {
	Spec struct {
		Hashedrekord struct {
			Data struct {
				Digest []byte `json:"digest"`
			} `json:"data"`
			Signature signatureV2 `json:"signature"`
		} `json:"hashedRekordV002"`
		DSSE struct {
			PayloadHash struct {
				Digest []byte `json:"digest"`
			} `json:"payloadHash"`
			Signatures []signatureV2 `json:"signatures"`
		} `json:"dsseV002"`
	} `json:"spec"`
}

type signatureV2 struct {
	Content  []byte `json:"content"`
	Verifier struct {
		Certificate struct {
			Raw []byte `json:"rawBytes"`
		} `json:"x509Certificate"`
	} `json:"verifier"`
}

func sameV2(b *bundle.Bundle, cert *x509.Certificate, signature, body []byte) error {
	var leaf bodyV2
	if err := json.Unmarshal(body, &leaf); err != nil {
		return fmt.Errorf("reading the log entry: %w", err)
	}
	logged, digest := leaf.Spec.Hashedrekord.Signature, leaf.Spec.Hashedrekord.Data.Digest
	signed := b.GetMessageSignature().GetMessageDigest().GetDigest()
	if env := b.GetDsseEnvelope(); env != nil {
		signed = digestOf(pae(env.GetPayloadType(), env.GetPayload()))
	}
	if d := leaf.Spec.DSSE; len(d.Signatures) > 0 {
		if len(d.Signatures) > 1 {
			return errors.New("the log entry has more than one signature")
		}
		logged, digest, signed = d.Signatures[0], d.PayloadHash.Digest, digestOf(b.GetDsseEnvelope().GetPayload())
	}
	switch {
	case !bytes.Equal(logged.Content, signature):
		return errors.New("the log holds another signature")
	case !bytes.Equal(logged.Verifier.Certificate.Raw, cert.Raw):
		return errors.New("the log holds another certificate")
	case !bytes.Equal(digest, signed):
		return errors.New("the log holds the hash of another statement")
	}
	return nil
}

func digestOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// pae is DSSE's pre-authentication encoding, what a signature covers.
func pae(kind string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload)
}

func verifyEnvelope(b *bundle.Bundle, cert *x509.Certificate) error {
	v, err := signature.LoadDefaultVerifier(cert.PublicKey)
	if err != nil {
		return err
	}
	if m := b.GetMessageSignature(); m != nil {
		// Old clients signed a SHA-256 digest whatever the curve.
		if key, ok := cert.PublicKey.(*ecdsa.PublicKey); ok && ecdsa.VerifyASN1(key, m.GetMessageDigest().GetDigest(), m.GetSignature()) {
			return nil
		}
		return v.VerifySignature(bytes.NewReader(m.GetSignature()), nil, options.WithDigest(m.GetMessageDigest().GetDigest()))
	}
	env := b.GetDsseEnvelope()
	if len(env.GetSignatures()) != 1 {
		return fmt.Errorf("%d signatures, want one", len(env.GetSignatures()))
	}
	return v.VerifySignature(bytes.NewReader(env.GetSignatures()[0].GetSig()), bytes.NewReader(pae(env.GetPayloadType(), env.GetPayload())))
}
