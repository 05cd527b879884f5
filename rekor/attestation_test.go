package rekor

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"sigtrail/monitor"
)

// dig finds the first value under a key anywhere in a JSON document.
func dig(v any, key string) any {
	switch v := v.(type) {
	case map[string]any:
		if got, ok := v[key]; ok {
			return got
		}
		for _, x := range v {
			if got := dig(x, key); got != nil {
				return got
			}
		}
	case []any:
		for _, x := range v {
			if got := dig(x, key); got != nil {
				return got
			}
		}
	}
	return nil
}

func number(t testing.TB, v any) uint64 {
	t.Helper()
	if v == nil {
		return 0 // protobuf JSON leaves out zero
	}
	n, err := strconv.ParseUint(fmt.Sprint(v), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func bytesOf(t testing.TB, v any) []byte {
	t.Helper()
	s, _ := v.(string)
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// An attested is one log entry of a real attestation, and the certificate in it.
type attested struct {
	log    monitor.Log
	leaf   monitor.Leaf
	proof  monitor.LeafProof
	signer *x509.Certificate
}

// readAttested reads an attestation, a bundle or a provenance object: they hold the
// same log entry under two spellings.
func readAttested(t testing.TB, file string, row map[string]string) attested {
	t.Helper()
	var doc any
	dec := json.NewDecoder(bytes.NewReader(sharedBytes(t, "attestations", file)))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	entry := doc
	for _, key := range []string{"transparency_entries", "tlogEntries"} {
		if list, ok := dig(doc, key).([]any); ok {
			entry = list[0]
		}
	}
	top, ok := entry.(map[string]any)
	if !ok {
		t.Fatalf("%s: no log entry", file)
	}
	p, ok := dig(top, "inclusionProof").(map[string]any)
	if !ok {
		t.Fatalf("%s: no inclusion proof", file)
	}
	global := number(t, top["logIndex"])
	a := attested{leaf: monitor.Leaf{Index: number(t, p["logIndex"]), Data: bytesOf(t, top["canonicalizedBody"])}}
	a.leaf.IntegratedTime = int64(number(t, top["integratedTime"]))
	a.leaf.SET = bytesOf(t, dig(top, "signedEntryTimestamp"))
	a.log = monitor.Log{Origin: row["log_origin"], KeyID: monitor.Hash(bytesOf(t, dig(top["logId"], "keyId"))), API: monitor.API(row["log_gen"]), FirstGlobal: global - a.leaf.Index}
	a.proof = monitor.LeafProof{Size: number(t, p["treeSize"])}
	for _, h := range p["hashes"].([]any) {
		a.proof.Hashes = append(a.proof.Hashes, monitor.Hash(bytesOf(t, h)))
	}
	note, _ := dig(p["checkpoint"], "envelope").(string)
	a.proof.Note = []byte(note)
	a.signer = certificateIn(t, a.leaf.Data)
	return a
}

// certificateIn takes the signer's certificate out of a leaf, whichever kind.
func certificateIn(t testing.TB, leaf []byte) *x509.Certificate {
	t.Helper()
	var doc any
	if err := json.Unmarshal(leaf, &doc); err != nil {
		t.Fatal(err)
	}
	der := bytesOf(t, dig(dig(doc, "x509Certificate"), "rawBytes"))
	if len(der) == 0 {
		verifier, ok := dig(doc, "verifier").(string)
		if !ok {
			verifier, _ = dig(dig(doc, "publicKey"), "content").(string)
		}
		block, _ := pem.Decode(bytesOf(t, verifier))
		if block == nil {
			t.Fatal("leaf without a certificate")
		}
		der = block.Bytes
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestRealAttestations(t *testing.T) {
	keys := environments(t)
	trusts := map[string]*Trust{"prod": sharedTrust(t, "prod"), "staging": sharedTrust(t, "staging")}
	checked := map[string]int{}
	for _, row := range sharedTSV(t, "attestations.tsv") {
		if row["split"] != "shared" {
			continue
		}
		t.Run(row["file"], func(t *testing.T) {
			a := readAttested(t, row["file"], row)
			trust := trusts[row["env"]]
			at := time.Unix(a.leaf.IntegratedTime, 0)
			if a.leaf.IntegratedTime == 0 {
				at = a.signer.NotBefore
			}
			head, err := monitor.ParseHead(a.proof.Note, a.log.Origin, keys[row["env"]])
			if (err == nil) != (row["checkpoint"] == "ok") {
				t.Errorf("head: %v, the table says %s", err, row["checkpoint"])
			}
			err = monitor.VerifyInclusion(a.leaf.Index, monitor.HashLeaf(a.leaf.Data), head, a.proof.Hashes)
			if (err == nil) != (row["inclusion"] == "ok") {
				t.Errorf("inclusion: %v, the table says %s", err, row["inclusion"])
			}
			err = trust.SET(a.log, a.leaf)
			if (err == nil) != (row["SET"] == "ok") {
				t.Errorf("SET: %v, the table says %s", err, row["SET"])
			}
			for env, trust := range trusts {
				if err := trust.Chain(a.signer, at); (err == nil) != (row["cert_chain"] == env) {
					t.Errorf("chain to %s: %v, the table says %s", env, err, row["cert_chain"])
				}
			}
			if trust.Chain(a.signer, at.Add(24*time.Hour)) == nil {
				t.Error("the chain holds a day later")
			}
			checked[row["env"]]++
		})
	}
	if checked["prod"] < 14 || checked["staging"] < 4 {
		t.Errorf("checked %v", checked)
	}
}

// What a certificate says counts only if its issuer is known and a certificate log
// has promised to show it: anybody can make a certificate, and an authority that is
// led astray must not be able to do so unseen.
func TestChainNeedsSCT(t *testing.T) {
	a := readAttested(t, "pypi_attestations-0.0.19.tar.gz.publish.attestation", map[string]string{"log_gen": "v1"})
	at := time.Unix(a.leaf.IntegratedTime, 0)
	read := func(env string) (root map[string]any) {
		if err := json.Unmarshal(sharedBytes(t, "trust", env, "trusted_root.json"), &root); err != nil {
			t.Fatal(err)
		}
		return root
	}
	for name, spoil := range map[string]func(root map[string]any){
		"":                         func(map[string]any) {},
		"other certificate logs":   func(root map[string]any) { root["ctlogs"] = read("staging")["ctlogs"] },
		"retired certificate logs": func(root map[string]any) { retire(root["ctlogs"], at.Add(-24*time.Hour)) },
		"no authorities":           func(root map[string]any) { delete(root, "certificateAuthorities") },
	} {
		root := read("prod")
		spoil(root)
		raw, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		trust, err := ParseTrust(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := trust.Chain(a.signer, at); (err == nil) != (name == "") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// retire ends the validity of all keys.
func retire(logs any, end time.Time) {
	for _, l := range logs.([]any) {
		key := l.(map[string]any)["publicKey"].(map[string]any)
		key["validFor"].(map[string]any)["end"] = end.UTC().Format(time.RFC3339)
	}
}

// A key signs times within its validity, both ends included.
func TestSETValidity(t *testing.T) {
	a := readAttested(t, "pypi_attestations-0.0.19.tar.gz.publish.attestation", map[string]string{"log_gen": "v1"})
	a.log.Origin = "rekor.sigstore.dev - 1193050959916656506"
	at := time.Unix(a.leaf.IntegratedTime, 0)
	keys := sharedTrust(t, "prod").Tlogs()
	for name, c := range map[string]struct {
		from, until time.Time
		good        bool
	}{
		"no end":       {at.Add(-time.Hour), time.Time{}, true},
		"first second": {at, at.Add(time.Hour), true},
		"last second":  {at.Add(-time.Hour), at, true},
		"too early":    {at.Add(time.Second), time.Time{}, false},
		"too late":     {at.Add(-time.Hour), at.Add(-time.Second), false},
	} {
		for i := range keys {
			keys[i].From, keys[i].Until = c.from, c.until
		}
		if err := VerifySET(keys, a.log, a.leaf); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkChain(b *testing.B) {
	trust := sharedTrust(b, "prod")
	a := readAttested(b, "pypi_attestations-0.0.19.tar.gz.publish.attestation", map[string]string{"log_gen": "v1"})
	at := time.Unix(a.leaf.IntegratedTime, 0)
	b.Run("with SCT", func(b *testing.B) {
		for b.Loop() {
			if err := trust.Chain(a.signer, at); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("issuer alone", func(b *testing.B) {
		for b.Loop() {
			err := errNone
			for _, ca := range trust.authorities {
				if string(ca.issuing.RawSubject) == string(a.signer.RawIssuer) {
					err = ca.issued(withoutCriticalSAN(a.signer), at)
				}
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSET(b *testing.B) {
	trust := sharedTrust(b, "prod")
	a := readAttested(b, "pypi_attestations-0.0.19.tar.gz.publish.attestation", map[string]string{"log_gen": "v1"})
	for b.Loop() {
		if err := trust.SET(a.log, a.leaf); err != nil {
			b.Fatal(err)
		}
	}
}

var errNone = errors.New("no authority of that name")
