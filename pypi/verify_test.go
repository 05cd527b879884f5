package pypi

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"sigtrail/index"
	"sigtrail/rekor"
)

func realTrust(t testing.TB, env string) *rekor.Trust {
	t.Helper()
	trust, err := rekor.LoadTrust(filepath.Join(shared(t, "trust"), env, "trusted_root.json"))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func sha256Of(t testing.TB, text string) (d [32]byte) {
	t.Helper()
	if n, err := hex.Decode(d[:], []byte(text)); err != nil || n != len(d) {
		t.Fatalf("digest %q: %v", text, err)
	}
	return d
}

// realObject reads a provenance object; a bare attestation is put into one whose
// publisher is of no known kind.
func realObject(t testing.TB, file string) ProvenanceObject {
	t.Helper()
	body := readFile(t, filepath.Join(shared(t, "attestations"), file))
	if !strings.HasSuffix(file, ".provenance") {
		body = inObject(body)
	}
	o, err := ParseProvenance(body)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func inObject(attestation []byte) []byte {
	return []byte(`{"version":1,"attestation_bundles":[{"publisher":{"kind":"none"},"attestations":[` + string(attestation) + `]}]}`)
}

func failedOf(t testing.TB, all []Verdict) string {
	t.Helper()
	if len(all) != 1 || (all[0].Failed == "") != (all[0].Err == nil) {
		t.Fatalf("verdicts %+v", all)
	}
	return all[0].Failed
}

// realVerdicts are the verdicts on every attestation of the collection under the root
// of its own environment. What is no provenance object has a publisher of no kind put
// around it: then UnknownPublisher, the last condition, says that all before it hold.
var realVerdicts = map[string]string{
	"pypi_attestations-0.0.19.tar.gz.provenance":           "",
	"abi3info-2024.10.8.tar.gz.provenance":                 "",
	"abi3info-2024.10.8-py3-none-any.whl.provenance":       "",
	"pep740-sampleproject-1.0.0.tar.gz.provenance":         "",
	"pypi_attestations-0.0.19.tar.gz.publish.attestation":  UnknownPublisher,
	"gitlab_oidc_project-0.0.3.tar.gz.publish.attestation": UnknownPublisher,
	"pypi_attestation_models-0.0.4a2.tar.gz.attestation":   UnknownPublisher, // line ends in its base64
	"rfc8785-0.1.2-py3-none-any.whl.publish.attestation":   UnknownPublisher,
	"rfc8785-0.1.2-py3-none-any.whl.attestation":           UnknownPublisher,
	"sampleproject-3.0.0.tar.gz.publish.attestation":       UnknownPublisher,
	"pypi.attestation.json":                                UnknownPublisher,

	// Signed by a person, and good: that it is not the project's workflow is for the
	// rules to say.
	"pypi_attestations-0.0.19.tar.gz.publish.attestation.with_timestamp": UnknownPublisher,
	// Its log entry is of type dsse 0.0.2, which sigstore-go cannot judge: here it is
	// our own check that passes it.
	"pypi_attestations-0.0.19.tar.gz.publish.attestation.with_rekor2_timestamp": UnknownPublisher,

	"pypi_attestation_models-0.0.4a2.tar.gz.sigstore":    realBundle,
	"rfc8785-0.1.2-py3-none-any.whl.sigstore":            realBundle,
	"c6bdbda_rfc8785-0.1.2-py3-none-any.whl.sigstore":    realBundle,
	"fc92556_rfc8785-0.1.2-py3-none-any.whl.attestation": oldForm,
	"rfc8785-0.0.2-py3-none-any.whl.json":                oldForm,
}

const (
	realBundle = "a bundle that verifies"
	oldForm    = "of a form before the standard, without an envelope"
)

func TestVerifyReal(t *testing.T) {
	trusts := map[string]*rekor.Trust{"prod": realTrust(t, "prod"), "staging": realTrust(t, "staging")}
	rows := make(map[string]map[string]string)
	for _, row := range records(t, "attestations.tsv") {
		rows[row["file"]] = row
	}
	files, err := os.ReadDir(shared(t, "attestations"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(realVerdicts) {
		t.Errorf("%d files, %d stated verdicts", len(files), len(realVerdicts))
	}
	for _, f := range files {
		t.Run(f.Name(), func(t *testing.T) {
			want, stated := realVerdicts[f.Name()]
			row := rows[f.Name()]
			if !stated || row == nil {
				t.Fatal("has no stated verdict, or no row in the table of attestations")
			}
			for env, trust := range trusts {
				sum := sha256Of(t, row["artifact_sha256"])
				switch got := realVerdict(t, trust, row, sum); {
				case env == row["env"] && got != want:
					t.Errorf("%q fails, want %q", got, want)
				case env != row["env"] && want != oldForm && got != rekor.FailsLog:
					t.Errorf("under the root of %s %q fails", env, got)
				}
				if env != row["env"] || want == oldForm || want == realBundle {
					continue
				}
				o := realObject(t, f.Name())
				if got := failedOf(t, o.Verify(trust, "other-1.0.tar.gz", sum)); got != InvalidSubjectName {
					t.Errorf("for another file %q fails", got)
				}
				sum[0] ^= 1
				if got := failedOf(t, o.Verify(trust, row["filename"], sum)); got != InvalidSubjectDigest {
					t.Errorf("for other bytes %q fails", got)
				}
			}
		})
	}
}

func realVerdict(t *testing.T, trust *rekor.Trust, row map[string]string, sum [32]byte) string {
	t.Helper()
	body := readFile(t, filepath.Join(shared(t, "attestations"), row["file"]))
	switch row["jsonform"] {
	case "tle":
		if _, err := ParseProvenance(inObject(body)); err == nil {
			t.Error("is read")
		}
		return oldForm
	case "bundle":
		var b protobundle.Bundle
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, &b); err != nil {
			t.Fatal(err)
		}
		refusal, ok := errors.AsType[Refusal](trust.VerifyBundle(&b))
		if ok {
			return refusal.Condition()
		}
		return realBundle
	}
	return failedOf(t, realObject(t, row["file"]).Verify(trust, row["filename"], sum))
}

// Each thing that is changed is what the verdict names.
func TestVerifyNamesCondition(t *testing.T) {
	const file = "abi3info-2024.10.8.tar.gz"
	sum := sha256Of(t, "f81f9513cba039a5231d6523ca58b071d1d96afe430cd576bfda3e73c8b4e55f")
	trust := realTrust(t, "prod")
	for want, spoil := range map[string]func(b *Bundle, a *Attestation, e *LogEntry){
		"":                   func(*Bundle, *Attestation, *LogEntry) {},
		rekor.FailsLog:       func(_ *Bundle, _ *Attestation, e *LogEntry) { e.KeyID[0] ^= 1 },
		rekor.FailsSET:       func(_ *Bundle, _ *Attestation, e *LogEntry) { e.IntegratedTime++ },
		rekor.FailsInclusion: func(_ *Bundle, _ *Attestation, e *LogEntry) { e.Proof.Hashes[0][0] ^= 1 },
		rekor.FailsEntry:     func(_ *Bundle, a *Attestation, _ *LogEntry) { a.Signature[len(a.Signature)-1] ^= 1 },
		InvalidPublisher: func(b *Bundle, _ *Attestation, _ *LogEntry) {
			b.Publisher = json.RawMessage(strings.Replace(string(b.Publisher), "abi3info", "abi4info", 1))
		},
		UnknownPublisher: func(b *Bundle, _ *Attestation, _ *LogEntry) { b.Kind = "Forge" },
	} {
		o := realObject(t, file+".provenance")
		b := &o.Bundles[0]
		a := &b.Attestations[0]
		spoil(b, a, &a.Entries[0])
		if got := failedOf(t, o.Verify(trust, file, sum)); got != want {
			t.Errorf("%q fails, want %q", got, want)
		}
	}
}

// The statement is the signer's own, so that only a signer could make one that PyPI
// does not take.
func TestAboutFile(t *testing.T) {
	sum := sha256Of(t, strings.Repeat("ab", 32))
	subject := `{"name":"a-1.tar.gz","digest":{"sha256":"` + strings.Repeat("ab", 32) + `"}}`
	for _, c := range []struct{ kind, subjects, predicate, want string }{
		{"https://in-toto.io/Statement/v1", subject, "https://docs.pypi.org/attestations/publish/v1", ""},
		{"https://in-toto.io/Statement/v1", subject, "https://slsa.dev/provenance/v1", ""},
		{"https://in-toto.io/Statement/v0.1", subject, "https://slsa.dev/provenance/v1", InvalidStatement},
		{"https://in-toto.io/Statement/v1", subject, "https://slsa.dev/provenance/v0.2", ""}, // judged last, as of an unknown kind
		{"https://in-toto.io/Statement/v1", subject + "," + subject, "https://slsa.dev/provenance/v1", InvalidSubjects},
		{"https://in-toto.io/Statement/v1", "", "https://slsa.dev/provenance/v1", InvalidSubjects},
	} {
		a := Attestation{Statement: []byte(`{"_type":"` + c.kind + `","subject":[` + c.subjects + `],"predicateType":"` + c.predicate + `"}`)}
		var err error
		if a.Predicate, a.Subjects, err = parseStatement(a.Statement); err != nil {
			t.Fatal(err)
		}
		if got, err := a.about("a-1.tar.gz", sum); got != c.want || (err == nil) != (got == "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestSameFile(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"a-1.0.tar.gz", "a-1.0.tar.gz", true},
		{"A.b-1.0.tar.gz", "a_b-1.0.0.tar.gz", true},
		{"a-1.0.tar.gz", "a-1.1.tar.gz", false},
		{"a-1.0.tar.gz", "b-1.0.tar.gz", false},
		{"a-1.0-py2.py3-none-any.whl", "a-1.0-py3.py2-none-any.whl", true},
		{"a-1.0-1-py3-none-any.whl", "a-1.0-2-py3-none-any.whl", false},
		{"a-1.0-1-py3-none-any.whl", "a-1.0-py3-none-any.whl", false},
		{"a-1.0-cp39-cp39-linux_x86_64.whl", "a-1.0-cp39-cp39-macosx_11_0_arm64.whl", false},
		{"a-1.0.tar.gz", "a-1.0-py3-none-any.whl", false},
	} {
		if got := sameFile(c.a, c.b); got != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}

// The table of fulcio-identity: what PyPI compares, and what it does not.
func TestPublisherPolicy(t *testing.T) {
	certificate := func(file string) []byte { return realObject(t, file).Bundles[0].Attestations[0].Certificate }
	hub, lab, google := certificate("pypi_attestations-0.0.19.tar.gz.provenance"), certificate("pep740-sampleproject-1.0.0.tar.gz.provenance"), certificate("sampleproject-3.0.0.tar.gz.publish.attestation")
	signer, err := index.ParseSigner(google)
	if err != nil {
		t.Fatal(err)
	}
	pep740 := string(realObject(t, "pep740-sampleproject-1.0.0.tar.gz.provenance").Bundles[0].Publisher)
	for _, c := range []struct {
		publisher   string
		certificate []byte
		want        string
	}{
		{`{"kind":"GitHub","repository":"trailofbits/pypi-attestations","workflow":"release.yml","environment":"any"}`, hub, ""},
		{`{"kind":"GitHub","repository":"Trailofbits/pypi-attestations","workflow":"release.yml"}`, hub, InvalidPublisher},
		{`{"kind":"GitHub","repository":"trailofbits/pypi-attestations","workflow":"other.yml"}`, hub, InvalidPublisher},
		{`{"kind":"GitHub","repository":"trailofbits/pypi-attestations"}`, hub, InvalidPublisher},
		{`{"kind":"GitHub","repository":"trailofbits/pypi-attestations","workflow":"release.yml"}`, lab, InvalidPublisher},
		{pep740, lab, ""},
		{pep740, hub, InvalidPublisher},
		{`{"kind":"Google","email":"` + signer.SAN + `"}`, google, ""},
		{`{"kind":"Google","email":"somebody@example.com"}`, google, InvalidPublisher},
		{`{"kind":"Google"}`, google, InvalidPublisher},
		{`{"kind":"ActiveState"}`, hub, UnknownPublisher},
	} {
		m, err := parseMembers([]byte(c.publisher))
		if err != nil {
			t.Fatal(err)
		}
		b := Bundle{Publisher: json.RawMessage(c.publisher)}
		if b.Kind, err = m.text("kind"); err != nil {
			t.Fatal(err)
		}
		if got, err := b.publisherIs(c.certificate); got != c.want || (err == nil) != (got == "") {
			t.Errorf("%s: %q, %v", c.publisher, got, err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	o, trust := realObject(b, "abi3info-2024.10.8.tar.gz.provenance"), realTrust(b, "prod")
	sum := sha256Of(b, "f81f9513cba039a5231d6523ca58b071d1d96afe430cd576bfda3e73c8b4e55f")
	for b.Loop() {
		for _, v := range o.Verify(trust, "abi3info-2024.10.8.tar.gz", sum) {
			if v.Err != nil {
				b.Fatal(errors.Unwrap(v.Err))
			}
		}
	}
}
