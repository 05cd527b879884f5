package pypi

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"sigtrail/index"
)

// A BundleVerifier verifies a Sigstore bundle against a trusted root: log entry,
// time, certificate, signature. Whom the certificate names is not its business.
// Its errors should be Refusals; any other stands for a bundle that is none.
type BundleVerifier interface {
	VerifyBundle(*protobundle.Bundle) error
}

// A Refusal says what of a bundle does not hold.
type Refusal interface {
	error
	Condition() string // what failed first, in one word
	Doubt() bool       // another trusted root may come to another verdict
	Unsure() bool      // each condition was checked and holds, and a library refuses it all the same
}

// What of an attestation does not hold besides what a BundleVerifier names.
const (
	InvalidStatement     = "statement"      // not an in-toto statement v1
	InvalidSubjects      = "subjects"       // not exactly one
	InvalidSubjectName   = "subject-name"   // of another file
	InvalidSubjectDigest = "subject-digest" // of other bytes
	InvalidPublisher     = "publisher"      // the certificate is another publisher's
	UnknownPublisher     = "publisher-kind" // all else holds; nobody knows what the certificate must say
	UnknownPredicate     = "predicate"      // all else holds; of a type that PyPI does not take today
	UnknownRefusal       = "other"          // all that we check holds; the BundleVerifier refuses it all the same
	invalidForm          = "form"
)

// A Verdict is what became of one attestation of a provenance object.
type Verdict struct {
	Bundle, Attestation int    // its place in the object, from 0
	Predicate           string // predicate type, as signed
	Failed              string // the condition that failed first, "" if all hold
	Err                 error  // why; nil if all hold
	Doubt               bool   // another trusted root may come to another verdict
}

// State tells what is of an unknown kind from what does not hold: PyPI takes new
// kinds before sigtrail knows them.
func (v Verdict) State() index.AttestationState {
	switch v.Failed {
	case "":
		return index.AttestationHolds
	case UnknownPublisher, UnknownPredicate, UnknownRefusal:
		return index.AttestationUnknown
	}
	return index.AttestationInvalid
}

// Verify judges each attestation of the object as PyPI does before it takes an
// upload (warehouse attestations/services.py, pypi-attestations): the bundle, that
// its statement is about this file, and that the certificate is the publisher's.
func (o ProvenanceObject) Verify(v BundleVerifier, filename string, sha256 [32]byte) []Verdict {
	var all []Verdict
	for i, b := range o.Bundles {
		for j, a := range b.Attestations {
			r := Verdict{Bundle: i, Attestation: j, Predicate: a.Predicate}
			r.Failed, r.Err = b.verify(a, v, filename, sha256)
			if refusal, ok := errors.AsType[Refusal](r.Err); ok {
				r.Doubt = refusal.Doubt()
			}
			all = append(all, r)
		}
	}
	return all
}

// verify asks for what is unknown last, so that nothing invalid passes for unknown.
func (b Bundle) verify(a Attestation, v BundleVerifier, filename string, sha256 [32]byte) (failed string, err error) {
	pb, err := a.SigstoreBundle()
	if err != nil {
		return invalidForm, err
	}
	refused := v.VerifyBundle(pb)
	if refused != nil {
		refusal, ok := errors.AsType[Refusal](refused)
		if !ok {
			return invalidForm, refused
		}
		if !refusal.Unsure() {
			return refusal.Condition(), refused
		}
	}
	if failed, err := a.about(filename, sha256); err != nil {
		return failed, err
	}
	if failed, err := b.publisherIs(a.Certificate); err != nil {
		return failed, err
	}
	if refused != nil {
		return UnknownRefusal, refused
	}
	if !slices.Contains(predicates, a.Predicate) {
		return UnknownPredicate, fmt.Errorf("PyPI does not take the predicate type %.100q", a.Predicate)
	}
	return "", nil
}

// SigstoreBundle is the attestation in the form that verifiers of Sigstore read.
// Bytes are carried over, nothing is recomputed.
func (a Attestation) SigstoreBundle() (*protobundle.Bundle, error) {
	material := &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: a.Certificate}},
	}
	for _, e := range a.Entries {
		pb, err := e.proto()
		if err != nil {
			return nil, err
		}
		material.TlogEntries = append(material.TlogEntries, pb)
	}
	if len(a.Timestamps) > 0 {
		material.TimestampVerificationData = new(protobundle.TimestampVerificationData)
		for _, t := range a.Timestamps {
			material.TimestampVerificationData.Rfc3161Timestamps = append(material.TimestampVerificationData.Rfc3161Timestamps,
				&protocommon.RFC3161SignedTimestamp{SignedTimestamp: t})
		}
	}
	return &protobundle.Bundle{
		MediaType:            "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: material,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: a.Statement, PayloadType: "application/vnd.in-toto+json",
			Signatures: []*protodsse.Signature{{Sig: a.Signature}},
		}},
	}, nil
}

func (e LogEntry) proto() (*protorekor.TransparencyLogEntry, error) {
	pb := &protorekor.TransparencyLogEntry{
		LogIndex: int64(e.LogIndex), LogId: &protocommon.LogId{KeyId: e.KeyID[:]},
		KindVersion:    &protorekor.KindVersion{Kind: e.Kind, Version: e.Version},
		IntegratedTime: e.IntegratedTime, CanonicalizedBody: e.Body,
	}
	if len(e.SET) > 0 {
		pb.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: e.SET}
	}
	if p := e.Proof; p != nil {
		if p.Index > math.MaxInt64 || p.Size > math.MaxInt64 {
			return nil, errors.New("inclusion proof for a tree that no log can have")
		}
		pb.InclusionProof = &protorekor.InclusionProof{LogIndex: int64(p.Index), TreeSize: int64(p.Size), RootHash: p.Root[:],
			Checkpoint: &protorekor.Checkpoint{Envelope: string(p.Checkpoint)}}
		for _, h := range p.Hashes {
			pb.InclusionProof.Hashes = append(pb.InclusionProof.Hashes, slices.Clone(h[:]))
		}
	}
	if e.LogIndex > math.MaxInt64 {
		return nil, errors.New("log index that no log can have")
	}
	return pb, nil
}

// predicates are the types that PyPI takes (warehouse attestations/services.py). What
// the predicate holds it does not look at.
var predicates = []string{"https://docs.pypi.org/attestations/publish/v1", "https://slsa.dev/provenance/v1"}

// about checks that the signed statement is about one file, this one.
func (a Attestation) about(filename string, sha256 [32]byte) (failed string, err error) {
	var m struct {
		Type string `json:"_type"`
	}
	if err := json.Unmarshal(a.Statement, &m); err != nil {
		return InvalidStatement, err
	}
	if kind := m.Type; kind != "https://in-toto.io/Statement/v1" {
		return InvalidStatement, fmt.Errorf("statement of type %.100q", kind)
	}
	if len(a.Subjects) != 1 {
		return InvalidSubjects, fmt.Errorf("%d subjects, want one", len(a.Subjects))
	}
	s := a.Subjects[0]
	if !sameFile(s.Name, filename) {
		return InvalidSubjectName, fmt.Errorf("the statement is about %.200q, the file is %.200q", s.Name, filename)
	}
	if want := hex.EncodeToString(sha256[:]); s.SHA256 != want {
		return InvalidSubjectDigest, fmt.Errorf("the statement is about sha256 %.80q, the file has %s", s.SHA256, want)
	}
	return "", nil
}

// sameFile compares file names as PyPI compares the attested name with the uploaded
// one: project and version in any spelling and, of a wheel, the build number and the
// sets of tags.
func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	wheelA, okA := strings.CutSuffix(a, ".whl")
	wheelB, okB := strings.CutSuffix(b, ".whl")
	if okA && okB {
		return sameWheel(strings.Split(wheelA, "-"), strings.Split(wheelB, "-"))
	}
	nameA, versionA, okA := parseSource(a)
	nameB, versionB, okB := parseSource(b)
	return okA && okB && nameA == nameB && SameVersion(versionA, versionB)
}

// parseSource splits the name of a source distribution at its last hyphen.
func parseSource(filename string) (name, version string, ok bool) {
	stem, ok := strings.CutSuffix(filename, ".tar.gz")
	if !ok {
		stem, ok = strings.CutSuffix(filename, ".zip")
	}
	i := strings.LastIndexByte(stem, '-')
	if !ok || i <= 0 || len(filename) > maxFilename {
		return "", "", false
	}
	_, ok = canonicalVersion(stem[i+1:])
	return Normalize(stem[:i]), stem[i+1:], ok
}

// sameWheel compares NAME, VERSION, maybe BUILD, PYTHON, ABI, PLATFORM.
func sameWheel(a, b []string) bool {
	if len(a) != len(b) || len(a) < 5 || len(a) > 6 || Normalize(a[0]) != Normalize(b[0]) || !SameVersion(a[1], b[1]) {
		return false
	}
	if len(a) == 6 && a[2] != b[2] {
		return false
	}
	for i := len(a) - 3; i < len(a); i++ {
		if tagSet(a[i]) != tagSet(b[i]) {
			return false
		}
	}
	return true
}

// tagSet is the one spelling of a set of tags.
func tagSet(tags string) string {
	all := strings.Split(strings.ToLower(tags), ".")
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ".")
}

// publisherIs holds the certificate against the policy that PyPI makes of a
// publisher object (pypi-attestations, _as_policy). The environment, numeric ids
// and, for GitHub and GitLab, the subject alternative name are no part of it.
func (b Bundle) publisherIs(certificate []byte) (failed string, err error) {
	signer, err := index.ParseSigner(certificate)
	if err != nil {
		return InvalidPublisher, err
	}
	p, err := parseMembers(b.Publisher)
	if err != nil {
		return InvalidPublisher, err
	}
	switch b.Kind {
	case "GitHub":
		err = hosted(p, signer, "https://token.actions.githubusercontent.com", "https://github.com/", "workflow", "/.github/workflows/", false)
	case "GitLab":
		err = hosted(p, signer, "https://gitlab.com", "https://gitlab.com/", "workflow_filepath", "//", true)
	case "Google":
		err = mailed(p, signer)
	default:
		return UnknownPublisher, fmt.Errorf("publisher of kind %.100q", b.Kind)
	}
	if err != nil {
		return InvalidPublisher, err
	}
	return "", nil
}

// hosted is the policy for a workflow in a repository. The build configuration may be
// named at the commit or at the ref; GitLab's policy needs both to be there.
func hosted(p members, s index.Signer, issuer, host, key, between string, both bool) error {
	repository, err := p.str("repository")
	if err != nil {
		return err
	}
	workflow, err := p.str(key)
	if err != nil {
		return err
	}
	if repository == "" || workflow == "" {
		return fmt.Errorf("the publisher names no repository or no %s", key)
	}
	if got := s.Fields[index.ExtIssuer]; !got.Set || got.Value != issuer {
		return fmt.Errorf("the certificate's issuer is %.200q, the publisher's %q", got.Value, issuer)
	}
	source := host + repository
	if got := s.Get(index.ExtSourceRepositoryURI); got != source {
		return fmt.Errorf("the certificate's repository is %.200q, the publisher's %.200q", got, source)
	}
	digest, ref := s.Fields[index.ExtSourceRepositoryDigest], s.Fields[index.ExtSourceRepositoryRef]
	if both && !(digest.Set && ref.Set) {
		return errors.New("the certificate lacks the source's commit or ref")
	}
	config, built := source+between+workflow+"@", s.Get(index.ExtBuildConfigURI)
	for _, at := range []index.Field{digest, ref} {
		if at.Set && built == config+at.Value {
			return nil
		}
	}
	return fmt.Errorf("the certificate's build configuration is %.300q, the publisher's is %.300q at the source's commit or ref", built, config)
}

func mailed(p members, s index.Signer) error {
	email, err := p.str("email")
	if err != nil {
		return err
	}
	const issuer = "https://accounts.google.com"
	if email == "" || s.SANType != "email" || s.SAN != email || s.Issuer() != issuer {
		return fmt.Errorf("the certificate names %.200q of %.200q, the publisher is %.200q of %s", s.SAN, s.Issuer(), email, issuer)
	}
	return nil
}
