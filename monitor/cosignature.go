package monitor

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// A Witness is a party outside the log that signs a head only after checking
// that it extends every head it signed before. Its cosignature is what a log
// that shows different trees to different people cannot get for both.
type Witness struct {
	Name     string        // key name, as on its signature lines
	Verifier note.Verifier // C2SP tlog-cosignature, Ed25519 (0x04)
}

// The signature types of C2SP signed-note that matter here.
const (
	ed25519Note        = 0x01
	ecdsaNote          = 0x02
	ed25519Cosignature = 0x04
	mldsaCosignature   = 0x06
)

// ParseWitness reads a witness's verifier key (C2SP signed-note):
// NAME+HEX_ID+BASE64, the key of type 0x04. The id must be the one that follows
// from name and key, so that a mistyped name is found here and not as a
// cosignature that is forever missing.
func ParseWitness(vkey string) (Witness, error) {
	k, err := parseVkey(vkey)
	if err != nil {
		return Witness{}, fmt.Errorf("witness key: %w", err)
	}
	switch k.kind {
	case ed25519Cosignature:
	case ed25519Note:
		return Witness{}, fmt.Errorf("witness key %q has type 0x01, which signs notes; a cosignature key has type 0x04: ask the witness for that one", k.name)
	case mldsaCosignature:
		return Witness{}, fmt.Errorf("witness key %q has type 0x06 (ML-DSA-44), which is not supported: use the witness's Ed25519 key of type 0x04", k.name)
	default:
		return Witness{}, fmt.Errorf("witness key %q has type %#02x, want an Ed25519 cosignature key of type 0x04", k.name, k.kind)
	}
	v, err := formats.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		return Witness{}, fmt.Errorf("witness key %q: %w", k.name, err)
	}
	if v.KeyHash() != k.id {
		return Witness{}, fmt.Errorf("witness key %q has id %08x, but its name and key give %08x: copy all of it again", k.name, k.id, v.KeyHash())
	}
	return Witness{Name: v.Name(), Verifier: v}, nil
}

// A vkey is a note verifier key taken apart, its parts not yet checked against
// each other.
type vkey struct {
	name string
	id   uint32
	kind byte
	key  []byte
}

func parseVkey(s string) (vkey, error) {
	name, rest, _ := strings.Cut(s, "+")
	hexID, encoded, ok := strings.Cut(rest, "+")
	if !ok || name == "" {
		return vkey{}, fmt.Errorf("%.100q is not of the form NAME+ID+KEY", s)
	}
	id, err := strconv.ParseUint(hexID, 16, 32)
	if err != nil || len(hexID) != 8 {
		return vkey{}, fmt.Errorf("%.100q: id %.20q is not 8 hexadecimal digits", name, hexID)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(key) < 2 || strings.ContainsAny(encoded, "\r\n") {
		return vkey{}, fmt.Errorf("%.100q: the key after the id is not base64 of a type and a key", name)
	}
	return vkey{name, uint32(id), key[0], key[1:]}, nil
}

// A Cosignature is a signature line on a head that is not by the log itself.
type Cosignature struct {
	Name string // key name on the line
	Hint uint32 // key id on the line: with Name it says whose signature it claims to be

	// At is when the cosigner says it signed, in whole seconds. Zero when the
	// signature is of no known kind, claims no time or a year past 9999.
	// Unless Verified it is the word of whoever served the head.
	At time.Time

	Line     string // the signature line as served, without its newline
	Verified bool   // by the key of a configured witness
}

// Cosignatures reads the signature lines of the head h that are not by the
// log's own keys, in the order served; exact repetitions are left out. Kinds
// that cannot be verified here (ML-DSA, or any to come) are returned too, some
// are kilobytes long. signed is the note that ParseHead made h from.
//
// The rule is C2SP signed-note's: a line by an unknown key is no reason to
// refuse a head, but one that carries the name and id of a configured witness
// and does not verify is. The error is then ErrMalformedHead and so it is when
// signed is no note, or not that of h.
//
// Whether a time is plausible is left to the caller: there is no clock here.
func Cosignatures(signed []byte, h Head, own []note.Verifier, witnesses []Witness) ([]Cosignature, error) {
	if len(signed) > MaxNote {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformedHead, len(signed), MaxNote)
	}
	// Opened without any key, the note is parsed (100 signatures at most) and
	// nothing is dropped: with keys, Open keeps only the first line by each.
	_, err := note.Open(signed, note.VerifierList())
	var opened *note.UnverifiedNoteError
	if !errors.As(err, &opened) {
		return nil, fmt.Errorf("%w: %w", ErrMalformedHead, err)
	}
	if opened.Note.Text != h.Text {
		return nil, fmt.Errorf("%w: signatures of another head than %s", ErrMalformedHead, h)
	}
	var all []Cosignature
	for _, line := range opened.Note.UnverifiedSigs {
		if signedBy(line, own) {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(line.Base64)
		if err != nil || len(blob) < 4 {
			return nil, fmt.Errorf("%w: signature line of %q", ErrMalformedHead, line.Name)
		}
		c := Cosignature{Name: line.Name, Hint: line.Hash, At: claimedTime(blob[4:]), Line: "— " + line.Name + " " + line.Base64}
		for _, w := range witnesses {
			if line.Name != w.Verifier.Name() || line.Hash != w.Verifier.KeyHash() {
				continue
			}
			if !w.Verifier.Verify([]byte(h.Text), blob[4:]) {
				return nil, fmt.Errorf("%w: invalid cosignature by witness %q (key id %08x) on %s", ErrMalformedHead, line.Name, line.Hash, h)
			}
			c.Verified = true
		}
		all = append(all, c)
	}
	return all, nil
}

func signedBy(line note.Signature, keys []note.Verifier) bool {
	for _, k := range keys {
		if line.Name == k.Name() && line.Hash == k.KeyHash() {
			return true
		}
	}
	return false
}

// claimedTime reads the time that C2SP tlog-cosignature puts before the
// signature proper, as big-endian Unix seconds. A line does not say its kind,
// so the kind is told by the length.
func claimedTime(signature []byte) time.Time {
	const (
		ed25519Size   = 8 + 64
		mldsa44Size   = 8 + 2420
		lastOfRFC3339 = 253402300799 // the end of the year 9999: later times have no JSON
	)
	if len(signature) != ed25519Size && len(signature) != mldsa44Size {
		return time.Time{}
	}
	seconds := binary.BigEndian.Uint64(signature)
	if seconds == 0 || seconds > lastOfRFC3339 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}
