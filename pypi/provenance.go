package pypi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sigtrail/index"
	"sigtrail/monitor"
)

// refusedPause is how long to leave an index alone that has switched attestations
// off.
const refusedPause = 10 * time.Minute

// Provenance fetches the provenance object that a listing names for a file. Only
// addresses on the index's own host are asked: a listing must not make us call
// others.
func (c *Client) Provenance(ctx context.Context, address string) (index.Provenance, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host != c.base.Host || u.Scheme != c.base.Scheme {
		return index.Provenance{State: index.ProvenanceUnreadable, Fetched: time.Now().UTC(),
			Error: "the listing names an address outside the index"}, nil
	}
	a, err := c.call(ctx, "provenance", http.MethodGet, address, nil, http.Header{"Accept": {"application/vnd.pypi.integrity.v1+json"}}, maxProvenance)
	now := time.Now().UTC()
	switch {
	case errors.Is(err, ErrNotFound):
		return index.Provenance{State: index.ProvenanceAbsent, Fetched: now}, nil
	case errors.Is(err, ErrRefused):
		return index.Provenance{State: index.ProvenanceRefused, Fetched: now, Error: "403: attestations are switched off", Retry: now.Add(refusedPause)}, nil
	case err != nil:
		return index.Provenance{}, err
	}
	p := index.Provenance{State: index.ProvenancePresent, Body: a.body, Fetched: now}
	object, err := ParseProvenance(a.body)
	if err != nil {
		p.State, p.Error = index.ProvenanceUnreadable, err.Error()
		return p, nil
	}
	p.Leaves = object.Leaves()
	return p, nil
}

// A ProvenanceObject is what PyPI serves for one file (PEP 740).
type ProvenanceObject struct{ Bundles []Bundle }

// A Bundle groups attestations under the publisher that uploaded them.
type Bundle struct {
	Publisher    json.RawMessage // as served
	Attestations []Attestation
}

// An Attestation is a signed statement with its log entries.
type Attestation struct {
	Certificate []byte // DER
	Statement   []byte
	Signature   []byte
	Predicate   string // predicate type of the statement; "" if it is not JSON
	Entries     []LogEntry
}

// A LogEntry is a transparency log entry as the bundle carries it.
type LogEntry struct {
	LogIndex uint64 // v1: over all shards
	KeyID    monitor.Hash
	Body     []byte // canonicalized body: the leaf
}

// Leaves lists the log entries that the object names.
func (o ProvenanceObject) Leaves() []index.ProvenanceLeaf {
	var out []index.ProvenanceLeaf
	for _, b := range o.Bundles {
		for _, a := range b.Attestations {
			for _, e := range a.Entries {
				out = append(out, index.ProvenanceLeaf{KeyID: e.KeyID, Global: e.LogIndex, Hash: monitor.HashLeaf(e.Body),
					Predicate: a.Predicate, Publisher: string(b.Publisher)})
			}
		}
	}
	return out
}

const maxAttestations = 64 // PyPI takes two a file

// ParseProvenance reads a provenance object, as tolerantly as the objects on PyPI
// demand: both spellings of members, numbers as strings, white space in base64.
func ParseProvenance(b []byte) (ProvenanceObject, error) {
	var raw struct {
		Bundles []struct {
			Publisher    json.RawMessage  `json:"publisher"`
			Attestations []rawAttestation `json:"attestations"`
		} `json:"attestation_bundles"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return ProvenanceObject{}, fmt.Errorf("not a provenance object: %w", err)
	}
	var o ProvenanceObject
	n := 0
	for _, rb := range raw.Bundles {
		bundle := Bundle{Publisher: rb.Publisher}
		for _, ra := range rb.Attestations {
			a, err := ra.attestation()
			if err != nil {
				return ProvenanceObject{}, fmt.Errorf("attestation %d: %w", n, err)
			}
			if n++; n > maxAttestations {
				return ProvenanceObject{}, fmt.Errorf("more than %d attestations", maxAttestations)
			}
			bundle.Attestations = append(bundle.Attestations, a)
		}
		o.Bundles = append(o.Bundles, bundle)
	}
	if n == 0 {
		return ProvenanceObject{}, errors.New("a provenance object without attestations")
	}
	return o, nil
}

// ParseAttestation reads a single PEP 740 attestation.
func ParseAttestation(b []byte) (Attestation, error) {
	var raw rawAttestation
	if err := json.Unmarshal(b, &raw); err != nil {
		return Attestation{}, fmt.Errorf("not an attestation: %w", err)
	}
	return raw.attestation()
}

type rawAttestation struct {
	Material struct {
		Certificate string            `json:"certificate"`
		Entries     []json.RawMessage `json:"transparency_entries"`
	} `json:"verification_material"`
	Envelope struct {
		Statement string `json:"statement"`
		Signature string `json:"signature"`
	} `json:"envelope"`
}

func (r rawAttestation) attestation() (Attestation, error) {
	var a Attestation
	var errs [3]error
	a.Certificate, errs[0] = looseBase64(r.Material.Certificate)
	a.Statement, errs[1] = looseBase64(r.Envelope.Statement)
	a.Signature, errs[2] = looseBase64(r.Envelope.Signature)
	if err := errors.Join(errs[:]...); err != nil {
		return a, err
	}
	if len(a.Certificate) == 0 || len(a.Statement) == 0 || len(r.Material.Entries) == 0 || len(r.Material.Entries) > 8 {
		return a, errors.New("certificate, statement or log entry missing")
	}
	var s struct {
		Predicate string `json:"predicateType"`
	}
	if json.Unmarshal(a.Statement, &s) == nil {
		a.Predicate = s.Predicate
	}
	for _, raw := range r.Material.Entries {
		e, err := parseEntry(raw)
		if err != nil {
			return a, fmt.Errorf("log entry: %w", err)
		}
		a.Entries = append(a.Entries, e)
	}
	return a, nil
}

func parseEntry(raw json.RawMessage) (LogEntry, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return LogEntry{}, err
	}
	var e LogEntry
	var err error
	if e.LogIndex, err = number(member(m, "logIndex", "log_index")); err != nil {
		return e, fmt.Errorf("logIndex: %w", err)
	}
	if e.Body, err = bytesOf(member(m, "canonicalizedBody", "canonicalized_body")); err != nil || len(e.Body) == 0 {
		return e, fmt.Errorf("no canonicalizedBody: %w", err)
	}
	var id map[string]json.RawMessage
	if err := json.Unmarshal(member(m, "logId", "log_id"), &id); err != nil {
		return e, fmt.Errorf("logId: %w", err)
	}
	key, err := bytesOf(member(id, "keyId", "key_id"))
	if err != nil || len(key) != 32 {
		return e, errors.New("logId: no key id of 32 bytes")
	}
	e.KeyID = monitor.Hash(key)
	return e, nil
}

func member(m map[string]json.RawMessage, names ...string) json.RawMessage {
	for _, n := range names {
		if v, ok := m[n]; ok {
			return v
		}
	}
	return json.RawMessage("null")
}

// number reads a 64-bit number, which protobuf JSON writes as a string.
func number(raw json.RawMessage) (uint64, error) {
	return strconv.ParseUint(strings.Trim(string(raw), `"`), 10, 62)
}

func bytesOf(raw json.RawMessage) ([]byte, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, err
	}
	return looseBase64(text)
}

// looseBase64 passes over white space: objects made before September 2024 have
// line breaks inside.
func looseBase64(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
}
