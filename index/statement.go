package index

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// An entry names no package. What a signing client would have signed for a file
// is rebuilt from the file's name and digest, and compared by hash.
//
// A template is one way in which a client writes down that it publishes a file: one
// line of JSON, fields in the order in which the client's serialiser writes them.
type template struct {
	name  string
	write func(filename string, sha256 [32]byte) []byte
	plain bool // signed as it is, without a DSSE envelope

	// When files that were signed so were uploaded; zero: without bound. Outside of
	// it no file expects the template, which spares rows.
	from, until time.Time
}

// templates is the registry. A form that is added is expected for files from then
// on; statements in provenance objects that no template writes are counted by
// reason (sigtrail_unknown_statements_total).
var templates = []template{
	{name: "P1", write: publish("null")}, // every Python client since June 2024
	{name: "P2", write: publish("{}")},   // GitHub's attest action
	// pypi-attestation-models before the standard, 0.0.1 to 0.0.3.
	{name: "P0", write: preStandard, plain: true, from: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), until: time.Date(2024, 8, 1, 0, 0, 0, 0, time.UTC)},
}

const (
	payloadType      = "application/vnd.in-toto+json"
	publishPredicate = "https://docs.pypi.org/attestations/publish/v1"
	artifact         = "artifact" // form of a signature over the file itself
)

// Statement rebuilds what a client signs for a file. Template is one of the
// registry: "P1" and "P2" are PEP 740 publish statements, to be signed as PAE of
// them; "P0" is signed as it is.
func Statement(template, filename string, sha256 [32]byte) ([]byte, error) {
	for _, t := range templates {
		if t.name == template {
			return t.write(filename, sha256), nil
		}
	}
	return nil, fmt.Errorf("no statement template %q", template)
}

// publish writes a PEP 740 publish statement with that predicate.
func publish(predicate string) func(string, [32]byte) []byte {
	return func(filename string, digest [32]byte) []byte {
		b := make([]byte, 0, 256+len(filename))
		b = append(b, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":`...)
		b = appendName(b, filename)
		b = append(b, `,"digest":{"sha256":"`...)
		b = hex.AppendEncode(b, digest[:])
		b = append(b, `"}}],"predicateType":"`+publishPredicate+`","predicate":`...)
		b = append(b, predicate...)
		return append(b, '}')
	}
}

// preStandard writes RFC 8785 JSON.
func preStandard(filename string, digest [32]byte) []byte {
	b := append(make([]byte, 0, 112+len(filename)), `{"digest":"`...)
	b = hex.AppendEncode(b, digest[:])
	b = append(b, `","distribution":`...)
	b = appendName(b, filename)
	return append(b, '}')
}

// expects reports whether a file uploaded then (zero: not known) may be signed so.
func (t template) expects(uploaded time.Time) bool {
	return t.from.IsZero() || !uploaded.Before(t.from) && uploaded.Before(t.until)
}

// digests of what the template writes for a file, by form.
func (t template) digests(filename string, digest [32]byte) []Expected {
	payload := t.write(filename, digest)
	if t.plain {
		return []Expected{{sha256.Sum256(payload), t.name + formData}}
	}
	return []Expected{{sha256.Sum256(payload), t.name + formPayload}, {sha256.Sum256(PAE(payload)), t.name + formPAE}}
}

// appendName quotes a file name as the clients do: raw UTF-8, only quotes,
// backslashes and control characters escaped. Names on PyPI are plain ASCII;
// the slow way round is for what a hostile index might list.
func appendName(b []byte, name string) []byte {
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(name)
			if err != nil {
				break
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"')
}

// PAE is DSSE's pre-authentication encoding of an in-toto payload: the bytes that
// the signature covers. (secure-systems-lab DSSE v1)
func PAE(payload []byte) []byte {
	b := make([]byte, 0, 64+len(payload))
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// Endings of a form: what of the template an entry's digest is taken of.
const (
	formPayload = "/payload" // the statement: v1 dsse, v2 dsse
	formPAE     = "/pae"     // what is signed: v2 hashedrekord
	formData    = "/data"    // the same for a template without envelope: hashedrekord
)

// Expected is a digest that a leaf about a file would hold. Form says of what: a
// template and one of "/payload" (v1 dsse, v2 dsse), "/pae" (v2 hashedrekord) and
// "/data" (hashedrekord), as in "P1/payload"; or "artifact" (a hashedrekord over
// the file itself).
type Expected struct {
	Digest [32]byte
	Form   string
}

// ExpectedDigests lists the digests by which leaves about a file are recognised.
func ExpectedDigests(filename string, digest [32]byte) []Expected {
	out := make([]Expected, 0, 2*len(templates)+1)
	for _, t := range templates {
		out = append(out, t.digests(filename, digest)...)
	}
	return append(out, Expected{digest, artifact})
}

// TemplateNames lists the templates of the standard's statements.
func TemplateNames() []string {
	var names []string
	for _, t := range templates {
		if !t.plain {
			names = append(names, t.name)
		}
	}
	return names
}
