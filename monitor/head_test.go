package monitor

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

const testOrigin = "log.example"

// A testKey signs notes under a name.
type testKey struct {
	name string
	key  ed25519.PrivateKey
	id   [32]byte
}

func newTestKey(name string, seed byte) testKey {
	k := ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	public := k.Public().(ed25519.PublicKey)
	return testKey{name, k, sha256.Sum256(append([]byte(name+"\n\x01"), public...))}
}

func (k testKey) line(text string) string {
	sig := append(k.id[:4:4], ed25519.Sign(k.key, []byte(text))...)
	return "— " + k.name + " " + base64.StdEncoding.EncodeToString(sig) + "\n"
}

func (k testKey) verifier(t testing.TB) note.Verifier {
	t.Helper()
	v, err := formats.NewVerifier(fmt.Sprintf("%s+%x+%s", k.name, k.id[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, k.key.Public().(ed25519.PublicKey)...))))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func headText(origin, size string, more ...string) string {
	return origin + "\n" + size + "\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n" + strings.Join(more, "")
}

func TestParseHead(t *testing.T) {
	ours, witness, other := newTestKey(testOrigin, 1), newTestKey("witness.example", 2), newTestKey(testOrigin, 3)
	plain := headText(testOrigin, "42")
	frozen := headText(testOrigin, "42", "Log frozen — Fri Nov 20 10:00:00 UTC 2026\n")
	for name, c := range map[string]struct {
		signed string
		want   error
	}{
		"signed":                  {plain + "\n" + ours.line(plain), nil},
		"two of ours":             {plain + "\n" + ours.line(plain) + other.line(plain), nil},
		"cosigned, ours last":     {plain + "\n" + witness.line(plain) + ours.line(plain), nil},
		"extension with a dash":   {frozen + "\n" + ours.line(frozen), nil},
		"long unknown signature":  {plain + "\n" + ours.line(plain) + "— big.example " + base64.StdEncoding.EncodeToString(make([]byte, 2500)) + "\n", nil},
		"only another key":        {plain + "\n" + other.line(plain), ErrForeignHead},
		"only a witness":          {plain + "\n" + witness.line(plain), ErrForeignHead},
		"signature of other text": {plain + "\n" + ours.line(frozen), ErrForeignHead},
		"other origin":            {headText("x.example", "42") + "\n" + ours.line(headText("x.example", "42")), ErrMalformedHead},
		"no signature":            {plain, ErrMalformedHead},
		"no final newline":        {strings.TrimSuffix(plain+"\n"+ours.line(plain), "\n"), ErrMalformedHead},
		"size not a number":       {headText(testOrigin, "4x") + "\n" + ours.line(headText(testOrigin, "4x")), ErrMalformedHead},
		"negative size":           {headText(testOrigin, "-1") + "\n" + ours.line(headText(testOrigin, "-1")), ErrMalformedHead},
		"short root":              {testOrigin + "\n1\nAAAA\n\n" + ours.line(testOrigin+"\n1\nAAAA\n"), ErrMalformedHead},
		"a web page":              {"<!doctype html>", ErrMalformedHead},
		"a megabyte":              {plain + strings.Repeat("x", 1<<20) + "\n", ErrMalformedHead},
	} {
		h, err := ParseHead([]byte(c.signed), testOrigin, []note.Verifier{ours.verifier(t)})
		if !errors.Is(err, c.want) || c.want == nil && (err != nil || h.Size != 42 || string(h.Note) != c.signed) {
			t.Errorf("%s: %+v, %v; want %v", name, h, err, c.want)
		}
	}
}

// What is accepted is what was signed, byte for byte.
func FuzzHead(f *testing.F) {
	k := newTestKey(testOrigin, 1)
	plain := headText(testOrigin, "42")
	f.Add(plain + "\n" + k.line(plain))
	f.Add(plain + "\n— x AAAA\n")
	f.Add("\n\n\n")
	keys := []note.Verifier{k.verifier(f)}
	f.Fuzz(func(t *testing.T, signed string) {
		h, err := ParseHead([]byte(signed), testOrigin, keys)
		if err != nil {
			return
		}
		if h.Origin != testOrigin || string(h.Note) != signed || !strings.HasPrefix(signed, h.Text) || !strings.Contains(signed, k.line(h.Text)) {
			t.Fatalf("accepted %q as %+v", signed, h)
		}
	})
}
