package pypi

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

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
		body = []byte(`{"version":1,"attestation_bundles":[{"publisher":{"kind":"none"},"attestations":[` + string(body) + `]}]}`)
	}
	o, err := ParseProvenance(body)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func failedOf(t testing.TB, all []Verdict) string {
	t.Helper()
	if len(all) != 1 || (all[0].Failed == "") != (all[0].Err == nil) {
		t.Fatalf("verdicts %+v", all)
	}
	return all[0].Failed
}

// Every real attestation holds under the root of its own environment and under no
// other. with_rekor2_timestamp has a log entry of type dsse 0.0.2, which sigstore-go
// cannot judge: there it is our own check that passes it.
func TestVerifyReal(t *testing.T) {
	trusts := map[string]*rekor.Trust{"prod": realTrust(t, "prod"), "staging": realTrust(t, "staging")}
	checked := 0
	for _, row := range records(t, "attestations.tsv") {
		if row["jsonform"] != "pep740" || row["split"] != "shared" {
			continue
		}
		t.Run(row["file"], func(t *testing.T) {
			o := realObject(t, row["file"])
			want := ""
			if o.Bundles[0].Kind == "none" {
				want = UnknownPublisher // the last condition: all before it hold
			}
			sum := sha256Of(t, row["artifact_sha256"])
			for env, trust := range trusts {
				got := failedOf(t, o.Verify(trust, row["filename"], sum))
				if env == row["env"] && got != want {
					t.Errorf("%q fails, want %q: %v", got, want, o.Verify(trust, row["filename"], sum))
				}
				if env != row["env"] && got != rekor.FailsLog {
					t.Errorf("under the root of %s %q fails", env, got)
				}
			}
			trust := trusts[row["env"]]
			if got := failedOf(t, o.Verify(trust, "other-1.0.tar.gz", sum)); got != InvalidSubjectName {
				t.Errorf("for another file %q fails", got)
			}
			sum[0] ^= 1
			if got := failedOf(t, o.Verify(trust, row["filename"], sum)); got != InvalidSubjectDigest {
				t.Errorf("for other bytes %q fails", got)
			}
			checked++
		})
	}
	if checked < 12 {
		t.Errorf("%d attestations checked", checked)
	}
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
		{"https://in-toto.io/Statement/v1", subject, "https://slsa.dev/provenance/v0.2", InvalidPredicate},
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
