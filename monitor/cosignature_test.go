package monitor

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// A testWitness cosigns at the time it is told, or by the library's signer now.
type testWitness struct {
	name string
	key  ed25519.PrivateKey
}

func newTestWitness(name string, seed byte) testWitness {
	return testWitness{name, ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))}
}

func (w testWitness) typed(kind byte) (id [4]byte, encoded string) {
	public := append([]byte{kind}, w.key.Public().(ed25519.PublicKey)...)
	sum := sha256.Sum256(append([]byte(w.name+"\n"), public...))
	return [4]byte(sum[:4]), base64.StdEncoding.EncodeToString(public)
}

func (w testWitness) vkey() string {
	id, key := w.typed(ed25519Cosignature)
	return fmt.Sprintf("%s+%x+%s", w.name, id, key)
}

func (w testWitness) hint() uint32 {
	id, _ := w.typed(ed25519Cosignature)
	return binary.BigEndian.Uint32(id[:])
}

func (w testWitness) witness(t testing.TB) Witness {
	t.Helper()
	parsed, err := ParseWitness(w.vkey())
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// line is the cosignature of text at the Unix time at, by the words of the
// specification and not by the code that verifies it.
func (w testWitness) line(text string, at uint64) string {
	id, _ := w.typed(ed25519Cosignature)
	blob := binary.BigEndian.AppendUint64(id[:], at)
	blob = append(blob, ed25519.Sign(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text))...)
	return "— " + w.name + " " + base64.StdEncoding.EncodeToString(blob)
}

// signed is the line that the library's own signer makes.
func (w testWitness) signed(t testing.TB, text string) string {
	t.Helper()
	id, _ := w.typed(ed25519Note)
	secret := base64.StdEncoding.EncodeToString(append([]byte{ed25519Note}, w.key.Seed()...))
	s, err := formats.NewSignerForCosignatureV1(fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", w.name, id, secret))
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(n), text+"\n"), "\n")
}

func unknownLine(name string, id uint32, signature []byte) string {
	return "— " + name + " " + base64.StdEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, id), signature...))
}

func TestCosignatures(t *testing.T) {
	own, rotated := newTestKey(testOrigin, 1), newTestKey(testOrigin, 2)
	n, s, stranger := newTestWitness("witness.example/n", 10), newTestWitness("witness.example/s", 11), newTestWitness("east.example", 12)
	const at = 1748031814
	stamp := time.Unix(at, 0).UTC()
	plain := headText(testOrigin, "42")
	frozen := headText(testOrigin, "42", "Log frozen — Fri Nov 20 10:00:00 UTC 2026\n")

	verified := func(w testWitness, text string) Cosignature {
		return Cosignature{Name: w.name, Hint: w.hint(), At: stamp, Line: w.line(text, at), Verified: true}
	}
	unverified := func(w testWitness, text string) Cosignature {
		c := verified(w, text)
		c.Verified = false
		return c
	}
	mldsa := unknownLine(n.name, 0x06060606, append(binary.BigEndian.AppendUint64(nil, at), make([]byte, 2420)...))
	huge := unknownLine("future.example", 7, make([]byte, 9000))
	short := unknownLine("future.example", 8, []byte{1})
	dated := func(seconds uint64) string {
		return unknownLine("far.example", 9, append(binary.BigEndian.AppendUint64(nil, seconds), make([]byte, 64)...))
	}
	broken := n.line(headText(testOrigin, "43"), at)

	for name, c := range map[string]struct {
		text  string
		lines []string
		want  []Cosignature
		bad   string // part of the error
	}{
		"none":                     {plain, nil, nil, ""},
		"one":                      {plain, []string{n.line(plain, at)}, []Cosignature{verified(n, plain)}, ""},
		"two, in the order served": {plain, []string{s.line(plain, at), n.line(plain, at)}, []Cosignature{verified(s, plain), verified(n, plain)}, ""},
		"extension lines":          {frozen, []string{n.line(frozen, at)}, []Cosignature{verified(n, frozen)}, ""},
		"extension line missing":   {frozen, []string{n.line(plain, at)}, nil, "invalid cosignature by witness"},
		"a witness nobody configured": {plain, []string{stranger.line(plain, at), n.line(plain, at)},
			[]Cosignature{unverified(stranger, plain), verified(n, plain)}, ""},
		"signed twice by one witness": {plain, []string{n.line(plain, at), n.line(plain, at+1)}, []Cosignature{
			verified(n, plain), {Name: n.name, Hint: n.hint(), At: stamp.Add(time.Second), Line: n.line(plain, at+1), Verified: true}}, ""},
		"one line twice": {plain, []string{stranger.line(plain, at), stranger.line(plain, at)}, []Cosignature{unverified(stranger, plain)}, ""},
		"ML-DSA under a known name": {plain, []string{mldsa, n.line(plain, at)}, []Cosignature{
			{Name: n.name, Hint: 0x06060606, At: stamp, Line: mldsa}, verified(n, plain)}, ""},
		"kinds to come": {plain, []string{huge, short}, []Cosignature{
			{Name: "future.example", Hint: 7, Line: huge}, {Name: "future.example", Hint: 8, Line: short}}, ""},
		"no time":        {plain, []string{dated(0)}, []Cosignature{{Name: "far.example", Hint: 9, Line: dated(0)}}, ""},
		"negative time":  {plain, []string{dated(math.MaxUint64)}, []Cosignature{{Name: "far.example", Hint: 9, Line: dated(math.MaxUint64)}}, ""},
		"the year 10000": {plain, []string{dated(253402300800)}, []Cosignature{{Name: "far.example", Hint: 9, Line: dated(253402300800)}}, ""},
		"a second key of the log": {plain, []string{strings.TrimSuffix(rotated.line(plain), "\n"), n.line(plain, at)},
			[]Cosignature{verified(n, plain)}, ""},

		"invalid":                      {plain, []string{broken}, nil, "invalid cosignature by witness"},
		"invalid after a valid one":    {plain, []string{n.line(plain, at), broken}, nil, "invalid cosignature by witness"},
		"invalid before a valid one":   {plain, []string{broken, n.line(plain, at)}, nil, "invalid cosignature by witness"},
		"invalid beside another's":     {plain, []string{s.line(plain, at), broken}, nil, "invalid cosignature by witness"},
		"a known key, truncated":       {plain, []string{unknownLine(n.name, n.hint(), []byte("short"))}, nil, "invalid cosignature by witness"},
		"more lines than a note holds": {plain, manyLines(101), nil, "malformed note"},
	} {
		t.Run(name, func(t *testing.T) {
			configured := []Witness{n.witness(t), s.witness(t)}
			keys := []note.Verifier{own.verifier(t), rotated.verifier(t)}
			ours := strings.TrimSuffix(own.line(c.text), "\n")
			// The log's own line may stand anywhere among the others.
			for i := range len(c.lines) + 1 {
				lines := append(append(append([]string(nil), c.lines[:i]...), ours), c.lines[i:]...)
				signed := []byte(c.text + "\n" + strings.Join(lines, "\n") + "\n")
				h := Head{Origin: testOrigin, Size: 42, Text: c.text}
				got, err := Cosignatures(signed, h, keys, configured)
				if c.bad != "" {
					if !errors.Is(err, ErrMalformedHead) || !strings.Contains(err.Error(), c.bad) || got != nil {
						t.Fatalf("own line at %d: %v, %v; want %q", i, got, err, c.bad)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Fatalf("own line at %d (-want +got):\n%s", i, d)
				}
				if _, err := json.Marshal(got); err != nil {
					t.Fatalf("own line at %d: no JSON: %v", i, err)
				}
				if parsed, err := ParseHead(signed, testOrigin, keys); err != nil || parsed.Text != c.text {
					t.Fatalf("own line at %d: ParseHead: %v, %v", i, parsed, err)
				}
			}
		})
	}
}

func manyLines(n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = unknownLine("many.example", uint32(i), make([]byte, 72))
	}
	return lines
}

// The most lines a note may hold are read, all of them.
func TestCosignaturesMany(t *testing.T) {
	own, w := newTestKey(testOrigin, 1), newTestWitness("witness.example", 10)
	text := headText(testOrigin, "42")
	lines := append(manyLines(98), w.line(text, 1748031814))
	signed := []byte(text + "\n" + own.line(text) + strings.Join(lines, "\n") + "\n")
	got, err := Cosignatures(signed, Head{Text: text}, []note.Verifier{own.verifier(t)}, []Witness{w.witness(t)})
	if err != nil || len(got) != 99 || !got[98].Verified {
		t.Fatalf("%d cosignatures, %v; want 99, the last verified", len(got), err)
	}
}

// The signer that witnesses use makes lines that are accepted here.
func TestCosignatureByLibrary(t *testing.T) {
	own, w := newTestKey(testOrigin, 1), newTestWitness("witness.example", 10)
	text := headText(testOrigin, "42")
	before := time.Now().Truncate(time.Second)
	signed := []byte(text + "\n" + own.line(text) + w.signed(t, text) + "\n")
	got, err := Cosignatures(signed, Head{Text: text}, []note.Verifier{own.verifier(t)}, []Witness{w.witness(t)})
	if err != nil || len(got) != 1 || !got[0].Verified || got[0].Hint != w.hint() {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].At.Before(before) || got[0].At.After(time.Now()) {
		t.Errorf("signed at %v, want now", got[0].At)
	}
}

func TestCosignaturesRefused(t *testing.T) {
	own := newTestKey(testOrigin, 1)
	text, other := headText(testOrigin, "42"), headText(testOrigin, "43")
	for name, signed := range map[string]string{
		"another head":         other + "\n" + own.line(other),
		"no signatures at all": text,
		"an empty answer":      "",
		"over the bound":       text + "\n" + own.line(text) + strings.Repeat("— big.example "+base64.StdEncoding.EncodeToString(make([]byte, 4000))+"\n", 60),
	} {
		got, err := Cosignatures([]byte(signed), Head{Text: text}, []note.Verifier{own.verifier(t)}, nil)
		if !errors.Is(err, ErrMalformedHead) || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestParseWitness(t *testing.T) {
	w := newTestWitness("witness.example/w1", 10)
	good := w.vkey()
	if got, err := ParseWitness(good); err != nil || got.Name != w.name || got.Verifier.KeyHash() != w.hint() {
		t.Fatalf("%+v, %v", got, err)
	}
	id1, key1 := w.typed(ed25519Note)
	id6, _ := w.typed(mldsaCosignature)
	_, mldsa, err := formats.GenerateMLDSAKey("witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	name, rest, _ := strings.Cut(good, "+")
	for vkey, want := range map[string]string{
		"":                            "NAME+ID+KEY",
		name:                          "NAME+ID+KEY",
		"+" + rest:                    "NAME+ID+KEY",
		name + "+zzzzzzzz" + rest[8:]: "hexadecimal",
		name + "+0" + rest:            "hexadecimal",
		"other.example+" + rest:       "copy all of it again",
		good + "=":                    "base64",
		good[:len(good)-4] + "\n" + good[len(good)-4:]: "base64",
		good[:len(good)-8]:                           "malformed",
		fmt.Sprintf("%s+%x+%s", w.name, id1, key1):   "type 0x01",
		fmt.Sprintf("%s+%x+%s", w.name, id6, "BgA="): "ML-DSA",
		mldsa: "ML-DSA",
		fmt.Sprintf("%s+%x+%s", w.name, id1, "/wAA"): "type 0xff",
		"two words+" + rest:                          "malformed",
	} {
		if got, err := ParseWitness(vkey); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, %v; want %q", vkey, got, err, want)
		}
	}
}

// Heads of Sigstore's staging log as three public witnesses cosigned them.
func TestCosignaturesOfStaging(t *testing.T) {
	const file = "../../shared/data/checkpoints/checkpoints.json"
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no %s: real cosigned heads are not checked", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	var heads []struct{ Origin, Note string }
	if err := json.Unmarshal(text, &heads); err != nil {
		t.Fatal(err)
	}
	policy, err := ParsePolicy([]byte(stagingPolicy))
	if err != nil {
		t.Fatal(err)
	}
	own, err := formats.NewVerifier(alpha3Key)
	if err != nil {
		t.Fatal(err)
	}
	keys := []note.Verifier{own}
	cosigned := 0
	for _, head := range heads {
		if head.Origin != "log2025-alpha3.rekor.sigstage.dev" || !strings.Contains(head.Note, "navigli") {
			continue
		}
		cosigned++
		h, err := ParseHead([]byte(head.Note), head.Origin, keys)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Cosignatures(h.Note, h, keys, policy.Witnesses())
		if err != nil {
			t.Fatal(err)
		}
		verified := 0
		for _, c := range got {
			if c.Verified {
				verified++
				if c.At.Year() != 2026 {
					t.Errorf("%s signed at %v", c.Name, c.At)
				}
			}
		}
		if verified != 3 || len(got) != 3 || !policy.Met(got) || !policy.Applies(head.Origin, keys) {
			t.Errorf("%d verified of %+v; policy met: %t", verified, got, policy.Met(got))
		}
		changed := strings.Replace(head.Note, "\n", ".example\n", 1)
		h.Text = changed[:strings.LastIndex(changed, "\n\n")+1]
		if _, err := Cosignatures([]byte(changed), h, keys, policy.Witnesses()); !errors.Is(err, ErrMalformedHead) {
			t.Errorf("cosignatures of another origin: %v", err)
		}
	}
	if cosigned == 0 {
		t.Fatalf("%s holds no cosigned head", file)
	}
}

// What is called verified is verified by the signed-note library too, and every
// line returned is one that was served.
func FuzzCosignatures(f *testing.F) {
	own, w := newTestKey(testOrigin, 1), newTestWitness("witness.example", 10)
	text := headText(testOrigin, "42")
	f.Add("")
	f.Add(w.line(text, 1748031814) + "\n")
	f.Add(w.line(headText(testOrigin, "43"), 1748031814) + "\n")
	f.Add(unknownLine("future.example", 7, make([]byte, 5000)) + "\n" + w.line(text, 0) + "\n")
	f.Add(unknownLine("witness.example", 0x06060606, make([]byte, 2428)) + "\n")
	f.Add("\n— x AAAA\n")
	keys, configured := []note.Verifier{own.verifier(f)}, []Witness{w.witness(f)}
	f.Fuzz(func(t *testing.T, lines string) {
		signed := text + "\n" + own.line(text) + lines
		h, err := ParseHead([]byte(signed), testOrigin, keys)
		if err != nil {
			return
		}
		got, err := Cosignatures([]byte(signed), h, keys, configured)
		opened, openErr := note.Open([]byte(signed), note.VerifierList(configured[0].Verifier))
		if err != nil {
			if !errors.Is(err, ErrMalformedHead) || got != nil {
				t.Fatalf("%v, %v", got, err)
			}
			return
		}
		verified := false
		for _, c := range got {
			verified = verified || c.Verified
			if !strings.Contains(lines, c.Line+"\n") {
				t.Fatalf("%q was not served in %q", c.Line, lines)
			}
		}
		if len(got) > 99 || verified != (openErr == nil && len(opened.Sigs) == 1) {
			t.Fatalf("%+v; the library says %v", got, openErr)
		}
	})
}
