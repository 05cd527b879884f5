package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const shared = "../../shared/data"

// sharedFile reads one of the real records, which tests use in place.
func sharedFile(t testing.TB, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{shared}, parts...)...))
	if os.IsNotExist(err) {
		t.Skip("the collection of real records is not beside this checkout")
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// realLeaves are the leaves inside the attestations and bundles of the collection.
func realLeaves(t testing.TB) map[string][]byte {
	t.Helper()
	sharedFile(t, "attestations.tsv")
	leaves := make(map[string][]byte)
	for _, pattern := range []string{"attestations/*", "bundles/*/*"} {
		files, err := filepath.Glob(filepath.Join(shared, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				continue
			}
			rest := string(b)
			for i := 0; ; i++ {
				_, after, ok := strings.Cut(rest, `"canonicalizedBody":`)
				if !ok {
					break
				}
				rest = after
				text, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimLeft(after, " "), `"`), `"`)
				if leaf, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, `\n`, "")); err == nil {
					leaves[fmt.Sprint(filepath.Base(f), " ", i)] = leaf
				}
			}
		}
	}
	return leaves
}

func TestRealLeaves(t *testing.T) {
	kinds := make(map[string]int)
	for name, leaf := range realLeaves(t) {
		e, err := Decode(leaf)
		var unknown *KindError
		if errors.As(err, &unknown) {
			kinds[unknown.Kind]++
			continue
		}
		if err != nil && strings.Contains(name, "_fail") {
			continue // kept in the collection because nobody should take it
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kinds[e.Kind]++
		fast, ok := scanLeaf(leaf)
		if strict, err := parseLeaf(leaf); ok && (err != nil || cmp.Diff(asText(fast), asText(strict)) != "") {
			t.Errorf("%s: scanned and parsed differ: %v\n%s", name, err, cmp.Diff(asText(fast), asText(strict)))
		}
		if !ok && e.Kind != kindInToto1 && e.Kind != kindInToto2 {
			t.Errorf("%s: %s: the scanner does not take the canonical form", name, e.Kind)
		}
	}
	for _, kind := range []string{kindDSSE1, kindHashed1, kindHashed2, kindDSSE2} {
		if kinds[kind] == 0 {
			t.Errorf("no leaf of kind %s among the real ones: %v", kind, kinds)
		}
	}
}

func asText(o outline) []string {
	return []string{o.kind, o.algorithm, string(o.digest), string(o.signature), string(o.verifier), fmt.Sprint(o.bareKey, o.digest == nil, o.signature == nil)}
}

// The first leaves of the production log are of kinds that say nothing about PyPI.
// They are counted by kind and stop nobody.
func TestFirstProductionLeaves(t *testing.T) {
	decoded := 0
	for _, line := range bytes.Split(bytes.TrimSpace(sharedFile(t, "rekor-v1", "production-entries-1-124.jsonl")), []byte("\n")) {
		var entry struct {
			Body []byte `json:"body"`
		}
		if err := json.Unmarshal(line, &entry); err != nil || len(entry.Body) == 0 {
			t.Fatalf("reading an entry: %v", err)
		}
		_, err := Decode(entry.Body)
		var unknown *KindError
		if err == nil || errors.As(err, &unknown) && unknown.Kind != kindOther {
			decoded++
		} else {
			t.Errorf("%.80s: %v", entry.Body, err)
		}
	}
	if decoded < 124 {
		t.Errorf("%d entries told their kind, want 124", decoded)
	}
}

// The known vector: the sdist of sampleproject 4.0.0, its statement and digests.
func TestStatementVector(t *testing.T) {
	const name = "sampleproject-4.0.0.tar.gz"
	digest := [32]byte(unhex(t, "0ace7980f82c5815ede4cd7bf9f6693684cec2ae47b9b7ade9add533b8627c6b"))
	payload, err := Statement("P1", name, digest)
	if err != nil || len(payload) != 261 {
		t.Fatalf("statement of %d bytes (%v), want 261", len(payload), err)
	}
	want := map[string]string{
		"P1/payload": "95a7d0c7feaed540942edfe70af9d3bb63b63e880d2d7a1c63fd8424a56b45bc",
		"P1/pae":     "beee9a0ea82abe8949a0785b5428b9ca09d762c957db9afdb1133397c38df09d",
		"artifact":   hex.EncodeToString(digest[:]),
	}
	for _, e := range ExpectedDigests(name, digest) {
		if w, ok := want[e.Form]; ok && w != hex.EncodeToString(e.Digest[:]) {
			t.Errorf("%s: %x, want %s", e.Form, e.Digest, w)
		}
		delete(want, e.Form)
	}
	if len(want) > 0 {
		t.Errorf("no digest of the forms %v", want)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A leaf must not say one thing to us and another to the next reader.
func TestStrictness(t *testing.T) {
	good := sampleV2(t)
	if _, err := Decode(good); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"member twice":  strings.Replace(string(good), `{"data":`, `{"data":{"algorithm":"SHA2_256","digest":"AAAA"},"data":`, 1),
		"other case":    strings.Replace(string(good), `"data":`, `"Data":`, 1),
		"text behind":   string(good) + "{}",
		"cut off":       string(good[:len(good)-1]),
		"short digest":  strings.Replace(string(good), `"digest":"`, `"digest":"AAAA`, 1),
		"line break":    strings.Replace(string(good), `"digest":"`, `"digest":"\n`, 1),
		"no spec":       `{"apiVersion":"0.0.2","kind":"hashedrekord"}`,
		"not an object": `[1]`,
		"nested deep":   strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40),
	} {
		if e, err := Decode([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %+v, want ErrMalformed", name, err, e.Kind)
		}
	}
	escaped := strings.Replace(string(good), `"kind"`, `"k\u0069nd"`, 1)
	e, err := Decode([]byte(escaped))
	want, _ := Decode(good)
	if err != nil || cmp.Diff(want, e) != "" {
		t.Errorf("the same leaf with an escape: %v\n%s", err, cmp.Diff(want, e))
	}
	if _, err := Decode([]byte(`{"apiVersion":"0.0.1","kind":"evil\nlabel","spec":{}}`)); err == nil || err.(*KindError).Kind != kindOther {
		t.Errorf("a kind made up by a log: %v", err)
	}
}

// Early v2 servers named the member otherwise. A member nobody knows is an entry that
// cannot be read, and no more than that.
func TestMemberNames(t *testing.T) {
	want, err := Decode(sampleV2(t))
	if err != nil {
		t.Fatal(err)
	}
	rename := func(to string) []byte {
		return []byte(strings.Replace(string(sampleV2(t)), `"hashedRekordV002"`, `"`+to+`"`, 1))
	}
	if got, err := Decode(rename("hashedRekordV0_0_2")); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("the early name: %v\n%s", err, cmp.Diff(want, got))
	}
	if _, err := Decode(rename("hashedRekordV003")); !errors.Is(err, ErrMalformed) {
		t.Errorf("an unknown member: %v", err)
	}
	later := []byte(strings.Replace(string(sampleV2(t)), `"0.0.2"`, `"0.0.3"`, 1))
	if _, err := Decode(later); err == nil || errors.Is(err, ErrMalformed) {
		t.Errorf("an unknown version: %v", err)
	}
}

// sampleV2 is a v2 hashedrekord leaf with any certificate.
func sampleV2(t testing.TB) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte("x"))
	return fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"%s"},"signature":{"content":"c2ln","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"MAA="}}}}}}`,
		base64.StdEncoding.EncodeToString(digest[:]))
}

func FuzzDecode(f *testing.F) {
	f.Add(sampleV2(f))
	f.Add([]byte(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"00"},"payloadHash":{"algorithm":"sha256","value":"` + strings.Repeat("ab", 32) + `"},"signatures":[{"signature":"c2ln","verifier":"` + base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0}})) + `"}]}}`))
	f.Add([]byte(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha512","value":"00"}},"signature":{"content":"c2ln","publicKey":{"content":"LS0t"}}}}`))
	f.Add([]byte(`{"apiVersion":"0.0.2","kind":"dsse","spec":{"dsseV002":{"payloadHash":{"algorithm":"SHA2_256","digest":"AA=="},"signatures":[{"content":"c2ln","verifier":{"keyDetails":"X","publicKey":{"rawBytes":"MAA="}}}]}}}`))
	f.Add([]byte(`{"apiVersion":"0.0.1","kind":"intoto","spec":{"content":{"hash":{"algorithm":"sha256","value":"00"}},"publicKey":"LS0t"}}`))
	f.Fuzz(func(t *testing.T, leaf []byte) {
		e, err := Decode(leaf)
		if fast, ok := scanLeaf(leaf); ok {
			strict, err := parseLeaf(leaf)
			if err != nil || cmp.Diff(asText(fast), asText(strict)) != "" {
				t.Fatalf("scanned %q, parsed %q, %v", asText(fast), asText(strict), err)
			}
		}
		var s Scratch
		kind, digest, ok, _, peekErr := Peek(leaf, &s)
		if err == nil && peekErr == nil && (kind != e.Kind || ok && !bytes.Equal(digest[:], e.Digest)) {
			t.Fatalf("peeked %s %x, decoded %s %x", kind, digest, e.Kind, e.Digest)
		}
	})
}
