package index

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The strict way through a leaf: any JSON, but no member twice, names in their
// exact case, nothing behind the end, bounded depth. encoding/json alone would
// take the last of two members and ignore case, so that a leaf could say one
// thing to us and another to the next reader.

const maxDepth = 16

type object map[string]any

func parseLeaf(leaf []byte) (outline, error) {
	if len(leaf) > maxLeafBytes {
		return outline{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(leaf))
	}
	top, err := parseJSON(leaf)
	if err != nil {
		return outline{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	kind, okKind := top["kind"].(string)
	version, okVersion := top["apiVersion"].(string)
	spec, okSpec := top["spec"].(object)
	if !okKind || !okVersion || !okSpec {
		return outline{}, fmt.Errorf("%w: no kind, apiVersion or spec", ErrMalformed)
	}
	return parseSpec(kind+"/"+version, spec)
}

func parseSpec(kind string, spec object) (outline, error) {
	r := reader{}
	var o outline
	switch kind {
	case kindDSSE1:
		o = r.dsse1(spec)
	case kindHashed1:
		o = r.hashed1(spec)
	case kindInToto1:
		o = r.inToto1(spec)
	case kindInToto2:
		o = r.inToto2(spec)
	case kindDSSE2:
		o = r.dsse2(r.member(spec, "dsseV002", "dsseV0_0_2"))
	case kindHashed2:
		o = r.hashed2(r.member(spec, "hashedRekordV002", "hashedRekordV0_0_2"))
	default:
		return outline{}, &KindError{Kind: knownKind(kind)}
	}
	if r.err != nil {
		return outline{}, fmt.Errorf("%w: %s: %w", ErrMalformed, kind, r.err)
	}
	return o, nil
}

// knownKind bounds what a log can make into a label.
func knownKind(kind string) string {
	switch kind {
	case "rekord/0.0.1", "rpm/0.0.1", "jar/0.0.1", "alpine/0.0.1", "helm/0.0.1", "tuf/0.0.1", "cose/0.0.1", "rfc3161/0.0.1":
		return kind
	}
	return kindOther
}

// A reader takes members out of parsed JSON and remembers the first that is
// missing or of another type.
type reader struct{ err error }

func (r *reader) fail(name string) {
	if r.err == nil {
		r.err = fmt.Errorf("no %s", name)
	}
}

// member is the object under the first of the names that is there.
func (r *reader) member(o object, names ...string) object {
	for _, n := range names {
		if m, ok := o[n].(object); ok {
			return m
		}
	}
	r.fail(names[0])
	return nil
}

func (r *reader) first(o object, name string) object {
	list, _ := o[name].([]any)
	if len(list) == 0 {
		r.fail(name)
		return nil
	}
	m, ok := list[0].(object)
	if !ok {
		r.fail(name)
	}
	return m
}

func (r *reader) text(o object, name string) []byte {
	t, ok := o[name].(string)
	if !ok {
		r.fail(name)
	}
	return []byte(t)
}

func (r *reader) algorithm(name []byte, known func([]byte) string) string {
	a := known(name)
	if a == "" {
		r.fail("known hash algorithm")
	}
	return a
}

func (r *reader) dsse1(spec object) outline {
	hash := r.member(spec, "payloadHash")
	sig := r.first(spec, "signatures")
	return outline{kind: kindDSSE1, algorithm: r.algorithm(r.text(hash, "algorithm"), algorithmV1),
		digest: r.text(hash, "value"), signature: r.text(sig, "signature"), verifier: r.text(sig, "verifier")}
}

func (r *reader) hashed1(spec object) outline {
	hash := r.member(r.member(spec, "data"), "hash")
	sig := r.member(spec, "signature")
	return outline{kind: kindHashed1, algorithm: r.algorithm(r.text(hash, "algorithm"), algorithmV1),
		digest: r.text(hash, "value"), signature: r.text(sig, "content"), verifier: r.text(r.member(sig, "publicKey"), "content")}
}

// inToto1 keeps no signature, and in old leaves no payload hash.
func (r *reader) inToto1(spec object) outline {
	o := outline{kind: kindInToto1, verifier: r.text(spec, "publicKey")}
	if hash, ok := r.member(spec, "content")["payloadHash"].(object); ok {
		o.algorithm = r.algorithm(r.text(hash, "algorithm"), algorithmV1)
		o.digest = r.text(hash, "value")
	}
	return o
}

func (r *reader) inToto2(spec object) outline {
	content := r.member(spec, "content")
	hash := r.member(content, "payloadHash")
	sig := r.first(r.member(content, "envelope"), "signatures")
	return outline{kind: kindInToto2, algorithm: r.algorithm(r.text(hash, "algorithm"), algorithmV1),
		digest: r.text(hash, "value"), signature: r.text(sig, "sig"), verifier: r.text(sig, "publicKey")}
}

func (r *reader) dsse2(spec object) outline {
	hash := r.member(spec, "payloadHash")
	sig := r.first(spec, "signatures")
	o := outline{kind: kindDSSE2, algorithm: r.algorithm(r.text(hash, "algorithm"), algorithmV2),
		digest: r.text(hash, "digest"), signature: r.text(sig, "content")}
	o.verifier, o.bareKey = r.verifierV2(sig)
	return o
}

func (r *reader) hashed2(spec object) outline {
	data := r.member(spec, "data")
	sig := r.member(spec, "signature")
	o := outline{kind: kindHashed2, algorithm: r.algorithm(r.text(data, "algorithm"), algorithmV2),
		digest: r.text(data, "digest"), signature: r.text(sig, "content")}
	o.verifier, o.bareKey = r.verifierV2(sig)
	return o
}

func (r *reader) verifierV2(sig object) (material []byte, bareKey bool) {
	v := r.member(sig, "verifier")
	if key, ok := v["publicKey"].(object); ok {
		return r.text(key, "rawBytes"), true
	}
	return r.text(r.member(v, "x509Certificate"), "rawBytes"), false
}

// parseJSON reads one JSON object.
func parseJSON(b []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := parseValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text behind the end")
	}
	o, ok := v.(object)
	if !ok {
		return nil, errors.New("not an object")
	}
	return o, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		return parseObject(dec, depth)
	case json.Delim('['):
		var list []any
		for dec.More() {
			v, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	}
	return t, nil
}

func parseObject(dec *json.Decoder, depth int) (object, error) {
	o := object{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := name.(string)
		if !ok {
			return nil, errors.New("member without a name")
		}
		if _, twice := o[key]; twice {
			return nil, fmt.Errorf("member %.40q twice", key)
		}
		if o[key], err = parseValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return o, err
}
