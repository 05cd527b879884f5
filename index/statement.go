package index

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
)

// An entry names no package. What a signing client would have signed for a file
// is rebuilt from the file's name and digest, and compared by hash.
//
// Templates of the publish statement, by name. Each is one line of JSON, fields
// in the order in which the client's serialiser writes them.
var templates = []struct{ name, predicate string }{
	{"P1", "null"}, // every Python client since June 2024
	{"P2", "{}"},   // GitHub's attest action
}

const (
	payloadType = "application/vnd.in-toto+json"
	artifact    = "artifact" // form of a signature over the file itself
)

// Statement rebuilds the PEP 740 publish statement of a file. Template is "P1"
// or "P2".
func Statement(template, filename string, sha256 [32]byte) ([]byte, error) {
	for _, t := range templates {
		if t.name == template {
			return statement(t.predicate, filename, sha256), nil
		}
	}
	return nil, fmt.Errorf("no statement template %q", template)
}

func statement(predicate, filename string, digest [32]byte) []byte {
	b := make([]byte, 0, 256+len(filename))
	b = append(b, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":`...)
	b = appendName(b, filename)
	b = append(b, `,"digest":{"sha256":"`...)
	b = hex.AppendEncode(b, digest[:])
	b = append(b, `"}}],"predicateType":"https://docs.pypi.org/attestations/publish/v1","predicate":`...)
	b = append(b, predicate...)
	return append(b, '}')
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

// Expected is a digest that a leaf about a file would hold. Form says of what:
// "P1/payload" (v1 dsse, v2 dsse), "P1/pae" (v2 hashedrekord), likewise P2, and
// "artifact" (a hashedrekord over the file itself).
type Expected struct {
	Digest [32]byte
	Form   string
}

// ExpectedDigests lists the digests by which leaves about a file are recognised.
func ExpectedDigests(filename string, digest [32]byte) []Expected {
	out := make([]Expected, 0, 2*len(templates)+1)
	for _, t := range templates {
		payload := statement(t.predicate, filename, digest)
		out = append(out,
			Expected{sha256.Sum256(payload), t.name + "/payload"},
			Expected{sha256.Sum256(PAE(payload)), t.name + "/pae"})
	}
	return append(out, Expected{digest, artifact})
}

// TemplateNames lists the statement templates.
func TemplateNames() []string {
	names := make([]string, len(templates))
	for i, t := range templates {
		names[i] = t.name
	}
	return names
}
