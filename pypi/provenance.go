package pypi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"sigtrail/index"
	"sigtrail/monitor"
)

// Bounds of a provenance object. PyPI takes two attestations a file today.
const (
	maxBundles      = 64
	maxAttestations = 64
	maxEntries      = 16
	maxHashes       = 64
	maxSubjects     = 4096
	maxPublisher    = 64 << 10
	maxText         = 4096
)

// A ProvenanceObject is PyPI's answer of the integrity API (PEP 740), parsed and
// not verified: everything in it is a claim.
type ProvenanceObject struct {
	Bundles []Bundle
}

// A Bundle is the attestations that one Trusted Publisher uploaded.
type Bundle struct {
	Kind         string          // "GitHub", "GitLab", "Google", or what comes later
	Publisher    json.RawMessage // as served; its members depend on the kind
	Attestations []Attestation
}

// An Attestation is one signed statement with what verifies it.
type Attestation struct {
	Certificate []byte // DER
	Statement   []byte // the signed in-toto statement, byte for byte
	Signature   []byte // over the DSSE PAE of Statement, type application/vnd.in-toto+json
	Predicate   string // predicateType of Statement
	Subjects    []Subject
	Entries     []LogEntry
	Timestamps  [][]byte // RFC 3161; PyPI drops them today
}

// A Subject is what a statement is about.
type Subject struct {
	Name   string
	SHA256 string // hex as written; "" where the statement has none
}

// A LogEntry is a Rekor entry in the protobuf-JSON form.
type LogEntry struct {
	LogIndex       uint64 // v1: over all shards
	KeyID          monitor.Hash
	Kind, Version  string
	IntegratedTime int64  // Unix seconds; 0: none (v2)
	SET            []byte // nil: none (v2)
	Proof          *InclusionProof
	Body           []byte // canonicalized body: the leaf
}

// An InclusionProof ties an entry to a head.
type InclusionProof struct {
	Index, Size uint64 // in the tree
	Root        monitor.Hash
	Hashes      []monitor.Hash
	Checkpoint  []byte // the signed head; nil: none
}

// Leaves lists the log entries that the object contains. Their hashes are computed
// here from the bodies, not taken over.
func (o ProvenanceObject) Leaves() []index.ProvenanceLeaf {
	var leaves []index.ProvenanceLeaf
	for _, b := range o.Bundles {
		for _, a := range b.Attestations {
			for _, e := range a.Entries {
				leaves = append(leaves, index.ProvenanceLeaf{
					KeyID: e.KeyID, Global: e.LogIndex, Hash: monitor.HashLeaf(e.Body), Predicate: a.Predicate, Publisher: string(b.Publisher),
				})
			}
		}
	}
	return leaves
}

// Attests lists the statements that the object holds, with their leaves.
func (o ProvenanceObject) Attests() []index.Attested {
	var all []index.Attested
	for _, b := range o.Bundles {
		for _, a := range b.Attestations {
			for _, e := range a.Entries {
				all = append(all, index.Attested{Statement: a.Statement, Leaf: e.Body})
			}
		}
	}
	return all
}

// Heads lists the signed heads that the object's entries bring, unverified.
func (o ProvenanceObject) Heads() [][]byte {
	var heads [][]byte
	for _, b := range o.Bundles {
		for _, a := range b.Attestations {
			for _, e := range a.Entries {
				if e.Proof != nil && e.Proof.Checkpoint != nil {
					heads = append(heads, e.Proof.Checkpoint)
				}
			}
		}
	}
	return heads
}

// ParseProvenance reads a provenance object. The standard and the server spell
// members differently (log_index, logIndex), 64-bit numbers come as numbers and as
// strings, and base64 of 2024 has line ends in it: all of these are taken. Members
// given twice, under one spelling or two, are an error, because readers would
// differ on which one counts.
func ParseProvenance(body []byte) (ProvenanceObject, error) {
	if len(body) > maxProvenance {
		return ProvenanceObject{}, ErrTooLarge
	}
	m, err := parseMembers(body)
	if err != nil {
		return ProvenanceObject{}, err
	}
	if err := m.version(); err != nil {
		return ProvenanceObject{}, err
	}
	var o ProvenanceObject
	o.Bundles, err = list(m, "attestation_bundles", maxBundles, parseBundle)
	if err != nil {
		return ProvenanceObject{}, err
	}
	return o, nil
}

func parseBundle(raw []byte) (b Bundle, err error) {
	m, err := parseMembers(raw)
	if err != nil {
		return b, err
	}
	b.Publisher = m["publisher"]
	if len(b.Publisher) > maxPublisher {
		return b, errors.New("publisher: too long")
	}
	p, err := parseMembers(b.Publisher)
	if err != nil {
		return b, fmt.Errorf("publisher: %w", err)
	}
	if b.Kind, err = p.text("kind"); err != nil {
		return b, fmt.Errorf("publisher: %w", err)
	}
	b.Attestations, err = list(m, "attestations", maxAttestations, parseAttestation)
	return b, err
}

func parseAttestation(raw []byte) (a Attestation, err error) {
	m, err := parseMembers(raw)
	if err != nil {
		return a, err
	}
	if err := m.version(); err != nil {
		return a, err
	}
	envelope, err := m.object("envelope")
	if err != nil {
		return a, err
	}
	material, err := m.object("verification_material")
	if err != nil {
		return a, err
	}
	for _, f := range []struct {
		to   *[]byte
		from members
		key  string
	}{{&a.Statement, envelope, "statement"}, {&a.Signature, envelope, "signature"}, {&a.Certificate, material, "certificate"}} {
		if *f.to, err = f.from.bytes(f.key); err != nil {
			return a, err
		}
		if len(*f.to) == 0 {
			return a, fmt.Errorf("%s: missing", f.key)
		}
	}
	if a.Predicate, a.Subjects, err = parseStatement(a.Statement); err != nil {
		return a, fmt.Errorf("statement: %w", err)
	}
	if a.Entries, err = list(material, "transparency_entries", maxEntries, parseLogEntry); err != nil {
		return a, err
	}
	if material.get("timestamps") != nil {
		a.Timestamps, err = list(material, "timestamps", maxEntries, func(raw []byte) ([]byte, error) { return members{"": raw}.bytes("") })
	}
	return a, err
}

func parseStatement(raw []byte) (predicate string, subjects []Subject, err error) {
	m, err := parseMembers(raw)
	if err != nil {
		return "", nil, err
	}
	if predicate, err = m.text("predicateType"); err != nil {
		return "", nil, err
	}
	if predicate == "" {
		return "", nil, errors.New("predicateType: missing")
	}
	subjects, err = list(m, "subject", maxSubjects, func(raw []byte) (s Subject, err error) {
		m, err := parseMembers(raw)
		if err != nil {
			return s, err
		}
		if s.Name, err = m.text("name"); err != nil {
			return s, err
		}
		digest, err := m.object("digest")
		if err != nil {
			return s, err
		}
		s.SHA256, err = digest.text("sha256")
		return s, err
	})
	return predicate, subjects, err
}

func parseLogEntry(raw []byte) (e LogEntry, err error) {
	m, err := parseMembers(raw)
	if err != nil {
		return e, err
	}
	if e.LogIndex, err = m.number("logIndex"); err != nil {
		return e, err
	}
	id, err := m.object("logId")
	if err != nil {
		return e, err
	}
	if e.KeyID, err = id.hash("keyId"); err != nil {
		return e, err
	}
	kind, err := m.optional("kindVersion")
	if err != nil {
		return e, err
	}
	if e.Kind, err = kind.text("kind"); err != nil {
		return e, err
	}
	if e.Version, err = kind.text("version"); err != nil {
		return e, err
	}
	at, err := m.number("integratedTime")
	if err != nil {
		return e, err
	}
	if at > math.MaxInt64 {
		return e, errors.New("integratedTime: out of range")
	}
	e.IntegratedTime = int64(at)
	promise, err := m.optional("inclusionPromise")
	if err != nil {
		return e, err
	}
	if e.SET, err = promise.bytes("signedEntryTimestamp"); err != nil {
		return e, err
	}
	if e.Body, err = m.bytes("canonicalizedBody"); err != nil {
		return e, err
	}
	if len(e.Body) == 0 {
		return e, errors.New("canonicalizedBody: missing")
	}
	e.Proof, err = parseProof(m)
	return e, err
}

func parseProof(entry members) (*InclusionProof, error) {
	m, err := entry.optional("inclusionProof")
	if err != nil || m == nil {
		return nil, err
	}
	p := new(InclusionProof)
	if p.Index, err = m.number("logIndex"); err != nil {
		return nil, err
	}
	if p.Size, err = m.number("treeSize"); err != nil {
		return nil, err
	}
	if p.Root, err = m.hash("rootHash"); err != nil {
		return nil, err
	}
	if m.get("hashes") != nil { // a tree of one leaf needs none
		p.Hashes, err = list(m, "hashes", maxHashes, func(raw []byte) (monitor.Hash, error) {
			return members{"": raw}.hash("")
		})
	}
	if err != nil {
		return nil, err
	}
	p.Checkpoint, err = m.checkpoint()
	return p, err
}

// members is a JSON object with the spelling taken out of its keys.
type members map[string]json.RawMessage

// fold makes one key of log_index, logIndex and LogIndex.
func fold(key string) string { return strings.ToLower(strings.ReplaceAll(key, "_", "")) }

func parseMembers(raw []byte) (members, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	m := members{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("reading JSON: %w", err)
		}
		key := fold(t.(string)) // the decoder takes nothing else for a key
		if _, twice := m[key]; twice {
			return nil, fmt.Errorf("two members %.40q", key)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("reading JSON: %w", err)
		}
		m[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("reading JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	return m, nil
}

// get is a member's value; nil where it is missing or null.
func (m members) get(key string) json.RawMessage {
	v := m[fold(key)]
	if string(v) == "null" {
		return nil
	}
	return v
}

func (m members) object(key string) (members, error) {
	o, err := m.optional(key)
	if err == nil && o == nil {
		err = fmt.Errorf("%s: missing", key)
	}
	return o, err
}

// optional is nil for an object that is missing; reading from nil finds nothing.
func (m members) optional(key string) (members, error) {
	raw := m.get(key)
	if raw == nil {
		return nil, nil
	}
	o, err := parseMembers(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return o, nil
}

// text is "" for a member that is missing.
func (m members) text(key string) (string, error) {
	s, err := m.str(key)
	if err == nil && len(s) > maxText {
		err = fmt.Errorf("%s: too long", key)
	}
	return s, err
}

func (m members) str(key string) (s string, err error) {
	raw := m.get(key)
	if raw == nil {
		return "", nil
	}
	if json.Unmarshal(raw, &s) != nil {
		return "", fmt.Errorf("%s: not a text", key)
	}
	return s, nil
}

// bytes decodes base64, white space taken out; nil for a member that is missing.
func (m members) bytes(key string) ([]byte, error) {
	s, err := m.str(key)
	if err != nil || s == "" {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return b, nil
}

func (m members) hash(key string) (h monitor.Hash, err error) {
	b, err := m.bytes(key)
	if err != nil {
		return h, err
	}
	if len(b) != len(h) {
		return h, fmt.Errorf("%s: %d bytes, want %d", key, len(b), len(h))
	}
	return monitor.Hash(b), nil
}

// number reads a number or a text of digits. Protobuf's JSON leaves out zeros, so
// that 0 is also what is missing.
func (m members) number(key string) (uint64, error) {
	raw := string(m.get(key))
	if raw == "" {
		return 0, nil
	}
	if raw[0] == '"' {
		raw = strings.Trim(raw, `"`)
	}
	n, err := strconv.ParseUint(raw, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %.40q is no number", key, raw)
	}
	return n, nil
}

func (m members) version() error {
	n, err := m.number("version")
	if err == nil && n > 1 {
		err = fmt.Errorf("version %d is unknown", n)
	}
	return err
}

// checkpoint reads {"envelope": "…"}, or the text alone as other APIs of the log
// have it.
func (m members) checkpoint() ([]byte, error) {
	from, key := m, "checkpoint"
	if raw := m.get(key); len(raw) > 0 && raw[0] == '{' {
		o, err := m.object(key)
		if err != nil {
			return nil, err
		}
		from, key = o, "envelope"
	}
	s, err := from.str(key)
	if err != nil || s == "" {
		return nil, err
	}
	return []byte(s), nil
}

// list reads a member that must be an array.
func list[T any](m members, key string, most int, parse func([]byte) (T, error)) ([]T, error) {
	raw := m.get(key)
	if raw == nil {
		return nil, fmt.Errorf("%s: missing", key)
	}
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil {
		return nil, fmt.Errorf("%s: not an array", key)
	}
	if len(elements) > most {
		return nil, fmt.Errorf("%s: more than %d elements", key, most)
	}
	all := make([]T, len(elements))
	for i, e := range elements {
		var err error
		if all[i], err = parse(e); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", key, i, err)
		}
	}
	return all, nil
}
