package rekor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"google.golang.org/protobuf/encoding/protojson"
)

// sharedBundle reads a bundle from the real data; nil if the file holds none.
func sharedBundle(t testing.TB, path ...string) *protobundle.Bundle {
	t.Helper()
	b := new(protobundle.Bundle)
	err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(sharedBytes(t, path...), b)
	if err != nil || b.GetVerificationMaterial() == nil {
		return nil
	}
	return b
}

// refusedBundles are the real bundles that must not verify, by file name without
// the digest that tells versions apart, and what of them fails.
var refusedBundles = map[string]string{
	"sigstoreBundle-invalid-mismatched-signatures.json":         FailsEntry,
	"sigstoreBundle-invalid-signature.json":                     FailsEntry,
	"bundle-negative-log-index_fail":                            FailsForm,
	"bundle-unknown-version_fail":                               FailsForm,
	"inclusion-proof-corrupted-hash_fail":                       FailsInclusion,
	"integrated-time-in-future_fail":                            FailsChain, // the certificate had expired
	"managed-key-and-trusted-root":                              FailsForm,  // a bare key
	"managed-key-no-key_fail":                                   FailsForm,
	"bundle-publish.json":                                       FailsForm, // npm's own key
	"rekor2-checkpoint-missing-origin_fail":                     FailsInclusion,
	"rekor2-checkpoint-missing-root-hash_fail":                  FailsInclusion,
	"rekor2-checkpoint-missing-size_fail":                       FailsInclusion,
	"rekor2-checkpoint-no-matching-signature_fail":              FailsInclusion,
	"rekor2-dsse-invalid-sig_fail":                              FailsEntry,
	"rekor2-dsse-mismatch-envelope_fail":                        FailsEntry,
	"rekor2-dsse-mismatch-sig_fail":                             FailsEntry,
	"rekor2-no-inclusion-proof_fail":                            FailsInclusion,
	"rekor2-timestamp-outside-tsa-cert-validity_fail":           FailsTime,
	"rekor2-timestamp-untrusted-tsa-with-embedded-cert_fail":    FailsTime,
	"rekor2-timestamp-untrusted-tsa-without-embedded-cert_fail": FailsTime,
	"set-invalid-signature_fail":                                FailsSET,
	"trust-root-tlog-missing-validity-start_fail":               FailsLog,
	"bundle.dsse.bad-signature.sigstore":                        FailsEntry,
	"bundle.dsse.rekor-v2.bad-signature.sigstore":               FailsEntry,
	"bundle.dsse.rekor-v2.mismatched-payload.sigstore":          FailsEntry,
	"bundle.v3.no.inclusion.sigstore":                           FailsInclusion,
	"bundle.many_timestamp.sigstore":                            FailsTime,
	"bundle.txt.ec_sig.sigstore":                                FailsChain, // logged by staging, issued by neither authority
	"bundle_cve_2022_36056.txt.sigstore":                        FailsEntry,
	"payload_mismatch_bundle.json":                              FailsTime, // stamped over another signature
}

// noBundles hold something else than a bundle, or one that nobody can read.
var noBundles = map[string]string{
	"rekor2-timestamp-with-incorrect-time_fail": "its signature is no base64",
	"dd7ddf_query-response.json":                "an answer of a v1 log",
	"query-response.json":                       "an answer of a v1 log",
	"response.json":                             "an answer of a v1 log",
	"jar-response.json":                         "an answer of a v1 log",
	"jar-entry.json":                            "a log entry",
	"entry-rekor-v2.json":                       "a log entry",
	"rekor-entry-dsse-workflow-inputs.json":     "a log entry",
}

// statedGood are the bundles that the collection's list says nothing against: what it
// checked of proof, head and timestamp is right or not there, and no word of the name
// says otherwise.
func statedGood(t *testing.T) map[string]bool {
	good := make(map[string]bool)
	for line := range strings.Lines(string(sharedBytes(t, "MANIFEST.md"))) {
		cells := strings.Split(line, " | ")
		if len(cells) < 3 || !strings.HasPrefix(cells[0], "| bundles/") {
			continue
		}
		name := strings.TrimPrefix(cells[0], "| bundles/")
		good[name] = checkedWell.MatchString(cells[1]) && !negative.MatchString(name)
	}
	return good
}

var (
	checkedWell = regexp.MustCompile(`proof=(ok|absent) ckpt=(ok|absent) set=(ok|absent)\b`)
	negative    = regexp.MustCompile(`_fail|invalid|mismatch|bad-signature|no\.inclusion`)
)

var shaSuffix = regexp.MustCompile(`__[0-9a-f]{6}\.json$`)

// bundleRoots are the roots that a bundle is to be judged by: its own where the
// data has one, else both environments'.
func bundleRoots(t *testing.T, rel, name string) []string {
	if strings.HasPrefix(rel, "conformance/") {
		own := filepath.Join(shared(t, "bundles"), "conformance-roots", name+"__trusted_root.json")
		if _, err := os.Stat(own); err == nil {
			return []string{own}
		}
	}
	return []string{shared(t, "trust", "prod", "trusted_root.json"), shared(t, "trust", "staging", "trusted_root.json")}
}

// Every file of the collection has a stated verdict and gets it: refused as in the
// table, or good as its name and the collection's list say. One bundle's head is signed
// by a log of its own root, which the list did not know.
func TestRealBundles(t *testing.T) {
	dir := shared(t, "bundles")
	good, bad, own := 0, map[string]bool{}, 0
	stated := statedGood(t)
	stated["conformance/bundle-with-sct-with-extensions__028506.json"] = true
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "conformance-roots") {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b := sharedBundle(t, "bundles", rel)
		name := shaSuffix.ReplaceAllString(filepath.Base(rel), "")
		if _, none := noBundles[name]; none != (b == nil) {
			t.Errorf("%s: holds a bundle: %t", rel, b != nil)
		}
		if b == nil {
			return nil
		}
		if refusedBundles[name] == "" && !stated[filepath.ToSlash(rel)] {
			t.Errorf("%s: has no stated verdict", rel)
		}
		var verdicts []string
		for _, root := range bundleRoots(t, rel, name) {
			trust, err := LoadTrust(root)
			if err != nil {
				t.Fatalf("%s: %v", rel, err)
			}
			verdict := ""
			if err := trust.VerifyBundle(b); err != nil {
				u, ok := errors.AsType[*Unverified](err)
				if !ok || u.Condition() == "" {
					t.Fatalf("%s: %v is no verdict", rel, err)
				}
				verdict = u.Failed
			}
			if verdict != FailsLog || len(verdicts) == 0 { // the other environment's
				verdicts = append(verdicts, verdict)
			}
		}
		verdict := verdicts[len(verdicts)-1]
		if want := refusedBundles[name]; verdict != want {
			t.Errorf("%s: %q fails, want %q", rel, verdict, want)
		}
		if _, err := bundle.NewBundle(b); err != nil && verdict == "" {
			own++ // sigstore-go does not even read it: dsse 0.0.2
			if !onlyDSSE002(b) {
				t.Errorf("%s: passes although sigstore-go says %v", rel, err)
			}
		}
		if verdict == "" {
			good++
		} else {
			bad[name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if good < 50 || len(bad) != len(refusedBundles) || own < 2 {
		t.Errorf("%d verify, %d of them by our own check, %d of %d refused", good, own, len(bad), len(refusedBundles))
	}
}

// Our own check alone must come to the verdict of sigstore-go, or it could not name
// what failed, nor stand in for it.
func TestRetraceAgrees(t *testing.T) {
	dir, agreed := shared(t, "bundles"), 0
	trusts := []*Trust{sharedTrust(t, "prod"), sharedTrust(t, "staging")}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "conformance-roots") {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		pb := sharedBundle(t, "bundles", rel)
		if pb == nil {
			return nil
		}
		b, err := bundle.NewBundle(pb)
		if err != nil {
			return nil
		}
		for _, trust := range trusts {
			theirs, ours := trust.judge(b), trust.retrace(b)
			if pb.GetVerificationMaterial().GetPublicKey() != nil {
				continue
			}
			if (theirs == nil) != (ours == nil) {
				t.Errorf("%s: sigstore-go says %v, we say %v", rel, theirs, ours)
			}
			agreed++
		}
		return nil
	})
	if err != nil || agreed < 100 {
		t.Errorf("%d compared, %v", agreed, err)
	}
}

func BenchmarkVerifyBundle(b *testing.B) {
	trust := sharedTrust(b, "prod")
	pb := sharedBundle(b, "attestations", "pypi_attestation_models-0.0.4a2.tar.gz.sigstore")
	read, err := bundle.NewBundle(pb)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("sigstore-go", func(b *testing.B) {
		for b.Loop() {
			if err := trust.VerifyBundle(pb); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("step by step", func(b *testing.B) {
		for b.Loop() {
			if err := trust.retrace(read); err != nil {
				b.Fatal(err)
			}
		}
	})
}
