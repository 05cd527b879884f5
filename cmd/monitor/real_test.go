package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/monitor"
	"sigtrail/pypi"
	"sigtrail/rekor"
)

// Real production and staging records, read in place.
const sharedData = "../../../shared/data"

func readShared(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{sharedData}, parts...)...))
	if os.IsNotExist(err) {
		t.Skip("the collection of real records is not beside this checkout")
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rows reads a table with a header line.
func rows(t *testing.T, b []byte) []map[string]string {
	t.Helper()
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	names := strings.Split(lines[0], "\t")
	var out []map[string]string
	for _, l := range lines[1:] {
		row := make(map[string]string)
		for i, f := range strings.Split(l, "\t") {
			row[names[i]] = f
		}
		out = append(out, row)
	}
	return out
}

// A record is one real publish attestation with its log entry.
type record struct {
	row    map[string]string
	trust  *rekor.Trust
	object []byte // provenance object
	entry  pypi.LogEntry
	proven monitor.Proven
	file   index.File
}

func readRecord(t *testing.T, row map[string]string) record {
	t.Helper()
	r := record{row: row, object: provenanceOf(t, row, readShared(t, "attestations", row["file"]))}
	o, err := pypi.ParseProvenance(r.object)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range o.Bundles[0].Attestations {
		if a.Predicate == "https://docs.pypi.org/attestations/publish/v1" {
			r.entry = a.Entries[0]
		}
	}
	if fmt.Sprint(r.entry.LogIndex) != row["logIndex"] || r.entry.Proof == nil {
		t.Fatalf("entry %d, want %s with a proof", r.entry.LogIndex, row["logIndex"])
	}
	r.trust = must(rekor.ParseTrust(readShared(t, "trust", row["env"], "trusted_root.json")))
	r.file = index.File{Project: pypi.Normalize(row["project"]), Version: row["version"], Name: row["filename"],
		SHA256: [32]byte(must(hex.DecodeString(row["artifact_sha256"]))), ProvenanceURL: "https://pypi.org/integrity/x"}
	r.prove(t)
	return r
}

// prove ties the leaf to the signed head that came with it.
func (r *record) prove(t *testing.T) {
	t.Helper()
	p := r.entry.Proof
	origin, _, _ := strings.Cut(string(p.Checkpoint), "\n")
	host, tree, _ := strings.Cut(origin, " - ")
	l := monitor.Log{Origin: origin, KeyID: r.entry.KeyID, API: monitor.V2, URL: "https://" + host}
	if tree != "" {
		l.API, l.TreeID, l.FirstGlobal = monitor.V1, must(strconv.ParseUint(tree, 10, 64)), r.entry.LogIndex-p.Index
	}
	var keys []note.Verifier
	for _, k := range r.trust.Tlogs() {
		if k.KeyID == r.entry.KeyID {
			keys = append(keys, k.Verifier)
		}
	}
	head, err := monitor.ParseHead(p.Checkpoint, origin, keys)
	if err != nil {
		t.Fatal(err)
	}
	head.Seen = time.Now()
	leaf := monitor.Leaf{Index: p.Index, Data: r.entry.Body, IntegratedTime: r.entry.IntegratedTime, SET: r.entry.SET}
	r.proven = monitor.Proven{Log: l, Head: head, Leaf: leaf, Hash: monitor.HashLeaf(leaf.Data), Proof: p.Hashes}
	if err := monitor.VerifyInclusion(p.Index, r.proven.Hash, head, p.Hashes); err != nil {
		t.Fatal(err)
	}
}

// provenanceOf wraps a single attestation, or a Sigstore bundle of one, into the
// object that PyPI serves.
func provenanceOf(t *testing.T, row map[string]string, b []byte) []byte {
	t.Helper()
	if row["jsonform"] == "bundle" {
		b = attestationOf(t, b)
	}
	if strings.Contains(string(b), "attestation_bundles") {
		return b
	}
	publisher := map[string]string{"kind": "GitHub"}
	if _, workflow, ok := strings.Cut(row["san"], "/.github/workflows/"); ok {
		publisher["repository"] = strings.TrimPrefix(row["source_repo"], "https://github.com/")
		publisher["workflow"], _, _ = strings.Cut(workflow, "@")
	}
	return must(json.Marshal(map[string]any{"version": 1, "attestation_bundles": []any{map[string]any{
		"publisher": publisher, "attestations": []any{json.RawMessage(b)}}}}))
}

func attestationOf(t *testing.T, b []byte) []byte {
	t.Helper()
	var bundle struct {
		Material struct {
			Certificate struct {
				RawBytes string `json:"rawBytes"`
			} `json:"certificate"`
			Chain struct {
				Certificates []struct {
					RawBytes string `json:"rawBytes"`
				} `json:"certificates"`
			} `json:"x509CertificateChain"`
			Entries []json.RawMessage `json:"tlogEntries"`
		} `json:"verificationMaterial"`
		Envelope struct {
			Payload    string `json:"payload"`
			Signatures []struct {
				Sig string `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(b, &bundle); err != nil {
		t.Fatal(err)
	}
	cert := bundle.Material.Certificate.RawBytes
	if cert == "" {
		cert = bundle.Material.Chain.Certificates[0].RawBytes
	}
	return must(json.Marshal(map[string]any{"version": 1,
		"verification_material": map[string]any{"certificate": cert, "transparency_entries": bundle.Material.Entries},
		"envelope":              map[string]string{"statement": bundle.Envelope.Payload, "signature": bundle.Envelope.Signatures[0].Sig}}))
}

func openIndex(t *testing.T, trust *rekor.Trust) *index.Store {
	t.Helper()
	s := must(index.Open(t.Context(), filepath.Join(t.TempDir(), "sigtrail.db"), index.Options{Trust: trust}))
	t.Cleanup(func() { s.Close() })
	return s
}

func publishRows(t *testing.T) []map[string]string {
	t.Helper()
	var out []map[string]string
	for _, row := range rows(t, readShared(t, "attestations.tsv")) {
		if row["predicateType"] == "https://docs.pypi.org/attestations/publish/v1" {
			out = append(out, row)
		}
	}
	if len(out) < 14 {
		t.Fatalf("%d publish attestations in the table, want 14 or more", len(out))
	}
	return out
}

// Every real publish attestation is decoded, proven, its SET checked, and bound
// from its file's name and digest alone.
func TestRealAttestationsAreBound(t *testing.T) {
	for _, row := range publishRows(t) {
		t.Run(row["file"], func(t *testing.T) {
			r := readRecord(t, row)
			s := openIndex(t, r.trust)
			f := r.file
			f.ProvenanceURL = "" // no help from PyPI
			fresh := must(s.PyPI().SaveListing(t.Context(), index.Listing{Project: f.Project, Serial: 1, Files: []index.File{f}, Fetched: time.Now()}))
			if err := s.CommitFound(t.Context(), r.proven, 0); err != nil {
				t.Fatal(err)
			}
			signatures := must(s.Signatures(t.Context(), fresh[0].ID))
			if len(signatures) != 1 {
				t.Fatalf("%d entries bound, want 1", len(signatures))
			}
			b := signatures[0][0]
			if b.Evidence != index.ByStatement || b.Signature != "" || b.Entry.Trust != "" {
				t.Errorf("bound by %s (signature %q, trust %q), want by statement, verified and trusted", b.Evidence, b.Signature, b.Entry.Trust)
			}
			if want := row["SET"] == "ok"; b.Entry.SETValid != want {
				t.Errorf("SET valid: %t, want %t", b.Entry.SETValid, want)
			}
			if b.Entry.Signer.SAN != row["san"] || b.Entry.Signer.Issuer() != row["issuer"] || b.Entry.Signer.Publisher().Repository != row["source_repo"] {
				t.Errorf("signer %q of %q in %q, want as in the table", b.Entry.Signer.SAN, b.Entry.Signer.Issuer(), b.Entry.Signer.Publisher().Repository)
			}
		})
	}
}

// oneRoot is a trusted root that never changes.
type oneRoot struct{ *rekor.Trust }

func (r oneRoot) Current() (pypi.BundleVerifier, string) { return r.Trust, rootName(r.Trust) }

func (oneRoot) InUse(context.Context, time.Time) (pypi.BundleVerifier, string, error) {
	return nil, "", nil
}

// One file, signed in the production log by its CI and ten months later by a
// person: the second is the unexpected signer. The two heads lie too far apart for
// a proof to be on record, so that each entry is proven under its own.
func TestRealForeignSignature(t *testing.T) {
	found := make(map[string]record)
	for _, row := range publishRows(t) {
		found[row["logIndex"]] = readRecord(t, row)
	}
	ci, person := found["153454663"], found["598461431"]
	s := openIndex(t, ci.trust)
	fresh := must(s.PyPI().SaveListing(t.Context(), index.Listing{Project: ci.file.Project, Serial: 1, Files: []index.File{ci.file}, Fetched: time.Now()}))
	o := must(pypi.ParseProvenance(ci.object))
	if err := s.PyPI().SaveProvenance(t.Context(), fresh[0].ID, index.Provenance{State: index.ProvenancePresent, Body: ci.object, Fetched: time.Now(), Leaves: o.Leaves()}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []record{person, ci} { // pins do not depend on which is found first
		if err := s.CommitFound(t.Context(), r.proven, fresh[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	verifier := pypi.Verifier{Store: s, Roots: oneRoot{ci.trust}, Log: quiet(t), Now: time.Now}
	if err := verifier.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	judge := alerts.Judge{Store: s, Policy: nil, Log: quiet(t), Now: time.Now, Metrics: alerts.NewMetrics(prometheus.NewRegistry())}
	raised := must(judge.Once(t.Context()))
	if len(raised) != 1 || raised[0].Rule != "unexpected-signer" {
		t.Fatalf("raised %+v, want one unexpected-signer", raised)
	}
	var a alerts.Alert
	if err := json.Unmarshal(raised[0].Body, &a); err != nil {
		t.Fatal(err)
	}
	if a.Seen.Identity != person.row["san"] || *a.Log.Global != 598461431 || !strings.Contains(a.Log.Link, "logIndex=598461431") {
		t.Errorf("alert on %q at %d (%s), want the person's", a.Seen.Identity, *a.Log.Global, a.Log.Link)
	}
}
