package monitor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"
	"unicode/utf8"
)

// EvidenceSchema names the format of Evidence as a file. A change that an older
// program would misread gets another number.
const EvidenceSchema = "sigtrail.evidence/1"

// MaxEvidence bounds an evidence file in bytes: two heads of MaxNote, escaped.
const MaxEvidence = 2 << 20

// maxProof bounds the hashes of a proof: a path down each side of the tree.
const maxProof = 128

// Evidence is a contradiction on its way to people who know nothing of it: the
// signed bytes, the key they are signed with, and the proof that failed. Everything
// but these is the word of whoever wrote the file, and Check does not rely on it.
//
// As a file it is one JSON object; docs/evidence.md describes each member.
type Evidence struct {
	Schema   string    `json:"schema"`       // EvidenceSchema
	Exporter string    `json:"exporter"`     // program and version that wrote the file
	Exported time.Time `json:"exported"`     // when, by the exporter's clock, as all times here
	ID       int64     `json:"id,omitempty"` // of the contradiction, in the exporter's database

	Kind   string    `json:"kind"`   // what it accuses the log of: Equivocation, Inconsistent, KeyChanged, ClosedChanged
	Detail string    `json:"detail"` // the accusation in one sentence
	Found  time.Time `json:"found"`

	Log    EvidenceLog  `json:"log"`
	Ours   *SignedHead  `json:"ours,omitempty"`   // seen and verified first
	Theirs *SignedHead  `json:"theirs,omitempty"` // what contradicts it
	Claim  *Claim       `json:"claim,omitempty"`  // what contradicts it, if that is no head
	Proof  *FailedProof `json:"proof,omitempty"`
}

// EvidenceLog says which log is accused.
type EvidenceLog struct {
	Origin string `json:"origin"` // first line of both heads
	URL    string `json:"url"`    // read address
	VKey   string `json:"vkey"`   // the key as a C2SP signed-note verifier key
	PEM    string `json:"pem"`    // the same key
}

// A SignedHead is a head as somebody showed it.
type SignedHead struct {
	Note   string    `json:"note"` // byte for byte; signed notes are UTF-8
	Seen   time.Time `json:"seen,omitzero"`
	Source string    `json:"source"` // who showed it; "" is the log itself
}

// What a Claim may be.
const (
	ClaimLeaf   = "leaf"   // the leaf with index At has the leaf hash Hash
	ClaimLeaves = "leaves" // the first At leaves, as served, make a tree with the root Hash
)

// A Claim is what a log served of its leaves. Nobody has signed it.
type Claim struct {
	What string `json:"what"`
	At   uint64 `json:"at"`
	Hash Hash   `json:"hash"`
}

// A FailedProof is a proof that was to tie the two sides together and did not.
type FailedProof struct {
	Of     string `json:"of"`   // "consistency" or "inclusion" (RFC 6962)
	From   uint64 `json:"from"` // consistency: leaves in the smaller tree; inclusion: index of the leaf
	To     uint64 `json:"to"`   // leaves in the larger tree
	Hashes []Hash `json:"hashes"`
}

// NewEvidence makes evidence out of a contradiction that accuses its log. Who
// exports it and when is left to the caller.
func NewEvidence(c Contradiction) (Evidence, error) {
	if !c.Accuses() {
		return Evidence{}, fmt.Errorf("%s of log %q: the log has said nothing wrong, so there is nothing to prove", c.Kind, c.Log.Origin)
	}
	if c.Log.Key == "" {
		return Evidence{}, fmt.Errorf("log %q: its key is not on record yet; let monitor follow it once, which keeps it", c.Log.Origin)
	}
	key, err := ParseLogKey(c.Log.Key)
	if err != nil {
		return Evidence{}, fmt.Errorf("log %q: %w", c.Log.Origin, err)
	}
	e := Evidence{Schema: EvidenceSchema, Kind: c.Kind, Detail: c.Detail, Found: c.At.UTC(), Claim: c.Claim,
		Log:  EvidenceLog{Origin: c.Log.Origin, URL: c.Log.URL, VKey: c.Log.Key, PEM: key.PEM()},
		Ours: signedHead(c.Ours), Theirs: signedHead(c.Theirs)}
	if e.Claim != nil {
		e.Theirs = nil // the same head again
	}
	if of, from, to, ok := proofSizes(c.Ours, c.Theirs, c.Claim); ok && len(c.Proof) > 0 {
		e.Proof = &FailedProof{of, from, to, c.Proof}
	}
	return e, nil
}

func signedHead(h Head) *SignedHead {
	if len(h.Note) == 0 {
		return nil
	}
	return &SignedHead{string(h.Note), h.Seen.UTC(), h.Source}
}

// proofSizes says what a proof has to prove, false if nothing.
func proofSizes(ours, theirs Head, claim *Claim) (of string, from, to uint64, ok bool) {
	const consistency, inclusion = "consistency", "inclusion"
	switch {
	case claim != nil && claim.What == ClaimLeaf:
		return inclusion, claim.At, ours.Size, true
	case claim != nil:
		return consistency, claim.At, ours.Size, true
	}
	return consistency, min(ours.Size, theirs.Size), max(ours.Size, theirs.Size), ours.Size != theirs.Size
}

// ErrEvidence is a file that is no evidence in a form that this program reads.
var ErrEvidence = errors.New("not readable as evidence")

// ParseEvidence reads a file. It takes nothing that it does not understand to the
// last member: two programs that read one file must not see two things in it.
func ParseEvidence(b []byte) (Evidence, error) {
	if len(b) > MaxEvidence {
		return Evidence{}, fmt.Errorf("%w: more than %d bytes", ErrEvidence, MaxEvidence)
	}
	if err := unambiguous(b); err != nil {
		return Evidence{}, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	var version struct {
		Schema string `json:"schema"`
	}
	if json.Unmarshal(b, &version) == nil && version.Schema != EvidenceSchema {
		return Evidence{}, fmt.Errorf("%w: its schema is %.100q, this program reads %q; use the version of sigtrail that knows it", ErrEvidence, version.Schema, EvidenceSchema)
	}
	var e Evidence
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return Evidence{}, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	if e.Proof != nil && len(e.Proof.Hashes) > maxProof {
		return Evidence{}, fmt.Errorf("%w: a proof of %d hashes", ErrEvidence, len(e.Proof.Hashes))
	}
	// encoding/json takes names in any case, null for anything, and more; what it
	// took otherwise than it would write it is found by writing it again.
	again, err := e.Marshal()
	if err != nil {
		return Evidence{}, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	if !reflect.DeepEqual(plain(b), plain(again)) {
		return Evidence{}, fmt.Errorf("%w: a member is missing, or not in its exact form", ErrEvidence)
	}
	return e, nil
}

// Marshal writes the file.
func (e Evidence) Marshal() ([]byte, error) {
	for _, s := range []*SignedHead{e.Ours, e.Theirs} {
		if s != nil && !utf8.ValidString(s.Note) {
			return nil, errors.New("a head that is not UTF-8 is no signed note")
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(e)
	return out.Bytes(), err
}

func plain(b []byte) (v any) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return nil
	}
	return v
}

// unambiguous refuses what JSON readers differ on: bytes that are no UTF-8, a
// member twice, text behind the end, deep nesting.
func unambiguous(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := unambiguousValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text behind the end")
	}
	return nil
}

func unambiguousValue(dec *json.Decoder, depth int) error {
	if depth > 8 {
		return errors.New("nested too deep")
	}
	t, err := dec.Token()
	if err != nil {
		return incomplete(err)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := make(map[string]bool)
	for dec.More() {
		if open == '{' {
			name, err := dec.Token()
			if err != nil {
				return incomplete(err)
			}
			if seen[name.(string)] {
				return fmt.Errorf("member %.100q twice", name)
			}
			seen[name.(string)] = true
		}
		if err := unambiguousValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return incomplete(err)
}

func incomplete(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
