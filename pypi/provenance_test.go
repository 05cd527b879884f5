package pypi

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
	"sigtrail/monitor"
)

// checkReal holds an attestation against the row of the table that describes it. The
// leaf hash is right if it leads, along the object's inclusion proof, to the root
// in the log's signed head, which the table's author verified.
func checkReal(t *testing.T, a Attestation, row map[string]string) {
	t.Helper()
	if _, err := x509.ParseCertificate(a.Certificate); err != nil {
		t.Error(err)
	}
	sum := sha256.Sum256(a.Statement)
	if got := hex.EncodeToString(sum[:]); got != row["payload_sha256"] || a.Predicate != row["predicateType"] {
		t.Errorf("statement %s, %s", got, a.Predicate)
	}
	if len(a.Subjects) != 1 || a.Subjects[0].Name != row["filename"] || a.Subjects[0].SHA256 != row["artifact_sha256"] {
		t.Errorf("subjects %+v", a.Subjects)
	}
	if len(a.Entries) != 1 {
		t.Fatalf("%d entries", len(a.Entries))
	}
	e := a.Entries[0]
	got := map[string]string{
		"logIndex": strconv.FormatUint(e.LogIndex, 10), "treeIndex": strconv.FormatUint(e.Proof.Index, 10), "treeSize": strconv.FormatUint(e.Proof.Size, 10),
		"logKeyId": base64.StdEncoding.EncodeToString(e.KeyID[:]), "entry_kind": e.Kind + "/" + e.Version, "integratedTime": strconv.FormatInt(e.IntegratedTime, 10),
	}
	for column, v := range got {
		if v != row[column] {
			t.Errorf("%s %s, want %s", column, v, row[column])
		}
	}
	if (len(e.SET) == 0) != (row["SET"] == "absent") || len(a.Signature) == 0 {
		t.Errorf("timestamp of %d bytes, signature of %d", len(e.SET), len(a.Signature))
	}
	head := monitor.Head{Size: e.Proof.Size, Root: e.Proof.Root}
	if err := monitor.VerifyInclusion(e.Proof.Index, monitor.HashLeaf(e.Body), head, e.Proof.Hashes); err != nil {
		t.Errorf("inclusion: %v", err)
	}
	lines := strings.Split(string(e.Proof.Checkpoint), "\n")
	if len(lines) < 3 || lines[0] != row["log_origin"] || lines[2] != base64.StdEncoding.EncodeToString(e.Proof.Root[:]) {
		t.Errorf("head %q", lines)
	}
}

func TestProvenanceReal(t *testing.T) {
	dir, objects, attestations := shared(t, "attestations"), 0, 0
	for _, row := range records(t, "attestations.tsv") {
		if row["jsonform"] != "pep740" {
			continue
		}
		t.Run(row["file"], func(t *testing.T) {
			body, err := os.ReadFile(filepath.Join(dir, row["file"]))
			if err != nil {
				t.Skip("not among the real records")
			}
			if !strings.HasSuffix(row["file"], ".provenance") {
				a, err := parseAttestation(body)
				if err != nil {
					t.Fatal(err)
				}
				checkReal(t, a, row)
				attestations++
				return
			}
			o, err := ParseProvenance(body)
			if err != nil {
				t.Fatal(err)
			}
			if len(o.Bundles) != 1 || len(o.Bundles[0].Attestations) != 1 {
				t.Fatalf("%+v", o)
			}
			a := o.Bundles[0].Attestations[0]
			checkReal(t, a, row)
			want := []index.ProvenanceLeaf{{KeyID: a.Entries[0].KeyID, Global: a.Entries[0].LogIndex, Hash: monitor.HashLeaf(a.Entries[0].Body),
				Predicate: row["predicateType"], Publisher: string(o.Bundles[0].Publisher)}}
			if d := cmp.Diff(want, o.Leaves()); d != "" {
				t.Error(d)
			}
			if k := o.Bundles[0].Kind; k != "GitHub" && k != "GitLab" {
				t.Errorf("publisher %q", k)
			}
			objects++
		})
	}
	if objects < 4 || attestations < 5 {
		t.Errorf("only %d objects and %d attestations checked", objects, attestations)
	}
}

// The object of sampleproject 4.0.0 holds the leaf whose hash is known.
func TestSampleProject(t *testing.T) {
	o, err := ParseProvenance(readFile(t, filepath.Join(shared(t, "pypi-api"), "warehouse-docs_integrity_1.json")))
	if err != nil {
		t.Fatal(err)
	}
	leaves := o.Leaves()
	if len(leaves) != 1 || leaves[0].Global != 147137139 || leaves[0].Hash.String() != "0004aaa6a89f41c3d07079c6be8ee0f6fc9ee3e23c159e101140f31036f014db" {
		t.Errorf("%+v", leaves)
	}
	if p := leaves[0].Publisher; !strings.Contains(p, `"pypa/sampleproject"`) || !json.Valid([]byte(p)) {
		t.Errorf("publisher %s", p)
	}
}

var camel = regexp.MustCompile(`"([a-z]+)([A-Z][a-zA-Z]*)":`)

func snake(text string) string {
	return camel.ReplaceAllStringFunc(text, func(key string) string {
		var b strings.Builder
		for _, r := range key {
			if r >= 'A' && r <= 'Z' {
				b.WriteByte('_')
			}
			b.WriteString(strings.ToLower(string(r)))
		}
		return b.String()
	})
}

var (
	oneKey    = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	oneObject = `{"version":1,"attestation_bundles":[{"publisher":{"kind":"GitHub","repository":"o/r","workflow":"w.yml","environment":null},"attestations":[` + oneAttestation + `]}]}`

	oneAttestation = `{"version":1,"verification_material":{"certificate":"Y2VydA==","transparency_entries":[` + oneEntry + `]},` +
		`"envelope":{"statement":"` + base64.StdEncoding.EncodeToString([]byte(oneStatement)) + `","signature":"c2ln"}}`
	oneStatement = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a-1.tar.gz","digest":{"sha256":"00"}}],"predicateType":"https://docs.pypi.org/attestations/publish/v1","predicate":null}`
	oneEntry     = `{"logIndex":"12","logId":{"keyId":"` + oneKey + `"},"kindVersion":{"kind":"dsse","version":"0.0.1"},"integratedTime":"1700000000",` +
		`"inclusionPromise":{"signedEntryTimestamp":"c2V0"},"inclusionProof":{"logIndex":"3","rootHash":"` + oneKey + `","treeSize":"4","hashes":["` + oneKey + `"],` +
		`"checkpoint":{"envelope":"head\n4\n"}},"canonicalizedBody":"Ym9keQ=="}`
)

func TestProvenanceSpellings(t *testing.T) {
	want, err := ParseProvenance([]byte(oneObject))
	if err != nil {
		t.Fatal(err)
	}
	e := want.Bundles[0].Attestations[0].Entries[0]
	if e.LogIndex != 12 || e.IntegratedTime != 1700000000 || string(e.SET) != "set" || string(e.Body) != "body" || e.Kind != "dsse" || e.Version != "0.0.1" {
		t.Errorf("entry %+v", e)
	}
	if p := e.Proof; p == nil || p.Index != 3 || p.Size != 4 || len(p.Hashes) != 1 || string(p.Checkpoint) != "head\n4\n" {
		t.Errorf("proof %+v", e.Proof)
	}
	for name, text := range map[string]string{
		"underscores":      snake(oneObject),
		"capitals":         strings.NewReplacer("attestation_bundles", "attestationBundles", "verification_material", "verificationMaterial", "transparency_entries", "transparencyEntries").Replace(oneObject),
		"numbers":          regexp.MustCompile(`"(\d+)"`).ReplaceAllString(oneObject, "$1"),
		"version as text":  strings.ReplaceAll(oneObject, `"version":1`, `"version":"1"`),
		"line ends":        strings.NewReplacer("Y2VydA==", `Y2Vy\ndA==\n`, "Ym9keQ==", ` Ym9k\r\neQ==`, "c2ln", `c2\tln`).Replace(oneObject),
		"head as text":     strings.Replace(oneObject, `{"envelope":"head\n4\n"}`, `"head\n4\n"`, 1),
		"unknown members":  strings.Replace(oneObject, `"version":1`, `"version":1,"signed_by":{"x":[1]}`, 1),
		"version left out": strings.ReplaceAll(oneObject, `"version":1,`, ``),
	} {
		got, err := ParseProvenance([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestProvenanceShapes(t *testing.T) {
	v2 := strings.NewReplacer(`"integratedTime":"1700000000",`, ``, `"inclusionPromise":{"signedEntryTimestamp":"c2V0"},`, ``, `"hashes":["`+oneKey+`"],`, ``, `"logIndex":"12",`, ``).Replace(oneEntry)
	several := strings.Replace(oneObject, `"attestations":[`, `"attestations":[`+strings.Replace(oneAttestation, oneEntry, v2+","+oneEntry, 1)+`,`, 1)
	several = strings.Replace(several, `"attestation_bundles":[`, `"attestation_bundles":[{"publisher":{"kind":"Sourcehut","new":true},"attestations":[`+oneAttestation+`]},`, 1)
	o, err := ParseProvenance([]byte(several))
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Bundles) != 2 || o.Bundles[0].Kind != "Sourcehut" || len(o.Bundles[1].Attestations) != 2 {
		t.Fatalf("%+v", o)
	}
	leaves := o.Leaves()
	if len(leaves) != 4 || leaves[0].Publisher != `{"kind":"Sourcehut","new":true}` || leaves[1].Global != 0 || leaves[3].Global != 12 {
		t.Errorf("%+v", leaves)
	}
	if e := o.Bundles[1].Attestations[0].Entries[0]; e.SET != nil || e.IntegratedTime != 0 || len(e.Proof.Hashes) != 0 {
		t.Errorf("entry without a promise: %+v", e)
	}
	o, err = ParseProvenance([]byte(strings.Replace(emptyProvenance, "[]", `[{"publisher":{},"attestations":[]}]`, 1)))
	if err != nil || len(o.Bundles) != 1 || o.Bundles[0].Kind != "" {
		t.Errorf("a publisher without a kind: %+v, %v", o, err)
	}
}

func TestProvenanceThatIsRefused(t *testing.T) {
	in := func(old, replacement string) string {
		if !strings.Contains(oneObject, old) {
			t.Fatalf("nothing to replace: %s", old)
		}
		return strings.Replace(oneObject, old, replacement, 1)
	}
	statement := base64.StdEncoding.EncodeToString([]byte(oneStatement))
	encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, text := range map[string]string{
		"empty":              ``,
		"HTML":               `<html>`,
		"array":              `[]`,
		"null":               `null`,
		"no bundles":         `{"version":1}`,
		"bundles null":       `{"version":1,"attestation_bundles":null}`,
		"later version":      in(`{"version":1`, `{"version":2`),
		"later attestation":  in(`[{"version":1`, `[{"version":2`),
		"torn":               oneObject[:len(oneObject)-2],
		"more behind":        oneObject + "{}",
		"member twice":       in(`{"version":1`, `{"version":1,"version":1`),
		"member in two ways": in(`"logIndex":"12"`, `"logIndex":"12","log_index":"13"`),
		"no publisher":       in(`"publisher"`, `"publishers"`),
		"publisher a text":   in(`"publisher":{`, `"publisher":"x","p":{`),
		"kind a number":      in(`"kind":"GitHub"`, `"kind":1`),
		"publisher too long": in(`"kind":"GitHub"`, `"kind":"GitHub","x":"`+strings.Repeat("x", maxPublisher)+`"`),
		"not base64":         in("Y2VydA==", "Y2Vy!"),
		"no padding":         in("Y2VydA==", "Y2VydA"),
		"loose base64":       in("Y2VydA==", "Y2VydB=="),
		"no certificate":     in(`"certificate"`, `"certificates"`),
		"no signature":       in(`"c2ln"`, `""`),
		"no envelope":        in(`"envelope":{"statement"`, `"sealed":{"statement"`),
		"no body":            in(`"canonicalizedBody"`, `"body"`),
		"no log":             in(`"logId"`, `"log"`),
		"short key id":       in(`"keyId":"`+oneKey, `"keyId":"AAAA`),
		"negative index":     in(`"logIndex":"12"`, `"logIndex":"-1"`),
		"fraction":           in(`"logIndex":"12"`, `"logIndex":1.5`),
		"power":              in(`"logIndex":"12"`, `"logIndex":1e3`),
		"index too large":    in(`"logIndex":"12"`, `"logIndex":"18446744073709551616"`),
		"time too large":     in(`"1700000000"`, `"18446744073709551615"`),
		"short hash":         in(`"hashes":["`+oneKey, `"hashes":["AAAA`),
		"hash a number":      in(`"hashes":["`+oneKey+`"`, `"hashes":[7`),
		"too many hashes":    in(`"hashes":["`+oneKey+`"`, `"hashes":["`+oneKey+`"`+strings.Repeat(`,"`+oneKey+`"`, maxHashes)),
		"too many bundles":   `{"version":1,"attestation_bundles":[{}` + strings.Repeat(",{}", maxBundles) + `]}`,
		"statement no JSON":  in(statement, encoded("x")),
		"statement no type":  in(statement, encoded(strings.Replace(oneStatement, "predicateType", "predicate_kind", 1))),
		"two predicates":     in(statement, encoded(strings.Replace(oneStatement, `"predicateType"`, `"predicate_type":"x","predicateType"`, 1))),
		"no subject":         in(statement, encoded(strings.Replace(oneStatement, `"subject"`, `"subjects"`, 1))),
		"too large":          oneObject + strings.Repeat(" ", maxProvenance),
	} {
		if o, err := ParseProvenance([]byte(text)); err == nil {
			t.Errorf("%s: taken as %+v", name, o)
		}
	}
}
