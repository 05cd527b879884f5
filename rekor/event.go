package rekor

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	eventspb "github.com/sigstore/protobuf-specs/gen/pb-go/events/v1"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"sigtrail/monitor"
)

// What a message of the event stream says of itself (sigstore/rekor,
// pkg/events/newentry).
const (
	eventType    = "dev.sigstore.rekor.events.v1.NewEntry"
	eventSpec    = "1.0"
	entryMessage = "dev.sigstore.rekor.v1.TransparencyLogEntry"

	typeJSON     = "application/json"
	typeProtobuf = "application/protobuf"
)

// maxEvent bounds a message in bytes. Pub/Sub itself stops at 10 MB; an entry is at
// most some 100 KB, which base64 and JSON make half as much again.
const maxEvent = 1 << 20

// Event decodes a message of a v1 server's event stream: a CloudEvent in JSON or in
// protobuf with a new entry inside. What it says is a claim until its proof has
// been checked. The attribute datacontenttype tells the form; where a relay has lost
// it, the first byte does.
func (v *V1) Event(body []byte, attributes map[string]string) (monitor.Published, error) {
	if len(body) > maxEvent {
		return monitor.Published{}, fmt.Errorf("event of %d bytes, at most %d", len(body), maxEvent)
	}
	form, ok := attributes["datacontenttype"]
	if !ok && len(body) > 0 {
		form = typeProtobuf
		if body[0] == '{' {
			form = typeJSON
		}
	}
	var id string
	var e *rekorpb.TransparencyLogEntry
	var err error
	switch form {
	case typeJSON:
		id, e, err = jsonEvent(body)
	case typeProtobuf:
		id, e, err = protoEvent(body)
	default:
		err = fmt.Errorf("content type %.80q", form)
	}
	if err != nil {
		return monitor.Published{}, fmt.Errorf("event: %w", err)
	}
	p, err := v.published(id, e)
	if err != nil {
		return p, fmt.Errorf("event %.100q: %w", id, err)
	}
	return p, nil
}

// jsonEvent reads the JSON form, whose data is a string that holds JSON again. Other
// members are allowed: CloudEvents has them as extension attributes.
func jsonEvent(body []byte) (string, *rekorpb.TransparencyLogEntry, error) {
	var c struct {
		SpecVersion string  `json:"specversion"`
		Type        string  `json:"type"`
		ID          string  `json:"id"`
		ContentType string  `json:"datacontenttype"`
		Data        *string `json:"data"`
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return "", nil, err
	}
	if c.SpecVersion != eventSpec || c.Type != eventType || c.ContentType != typeJSON || c.Data == nil {
		return "", nil, fmt.Errorf("version %.20q, type %.100q, content %.80q: no new entry", c.SpecVersion, c.Type, c.ContentType)
	}
	e := new(rekorpb.TransparencyLogEntry)
	if err := protojson.Unmarshal([]byte(*c.Data), e); err != nil {
		return "", nil, err
	}
	return c.ID, e, nil
}

func protoEvent(body []byte) (string, *rekorpb.TransparencyLogEntry, error) {
	c := new(eventspb.CloudEvent)
	if err := proto.Unmarshal(body, c); err != nil {
		return "", nil, err
	}
	// The server writes the bare name of the message as its type address.
	if c.GetSpecVersion() != eventSpec || c.GetType() != eventType || c.GetProtoData().GetTypeUrl() != entryMessage {
		return "", nil, fmt.Errorf("version %.20q, type %.100q, data %.100q: no new entry", c.GetSpecVersion(), c.GetType(), c.GetProtoData().GetTypeUrl())
	}
	e := new(rekorpb.TransparencyLogEntry)
	if err := proto.Unmarshal(c.GetProtoData().GetValue(), e); err != nil {
		return "", nil, err
	}
	return c.GetId(), e, nil
}

func (v *V1) published(id string, e *rekorpb.TransparencyLogEntry) (monitor.Published, error) {
	out := monitor.Published{Proof: monitor.LeafProof{Leaf: monitor.Leaf{
		Data: e.GetCanonicalizedBody(), IntegratedTime: e.GetIntegratedTime(), SET: e.GetInclusionPromise().GetSignedEntryTimestamp()}}}
	if !entryID.MatchString(id) {
		return out, errors.New("malformed id")
	}
	p := e.GetInclusionProof()
	switch note := p.GetCheckpoint().GetEnvelope(); {
	case len(out.Proof.Leaf.Data) == 0 || p == nil || note == "":
		return out, errors.New("no body, no inclusion proof or no head")
	case len(note) > monitor.MaxNote:
		return out, fmt.Errorf("head of %d bytes", len(note))
	case p.LogIndex < 0 || p.LogIndex >= p.TreeSize || e.LogIndex < p.LogIndex || e.LogIndex == math.MaxInt64:
		return out, fmt.Errorf("index %d, %d in a shard of %d", e.LogIndex, p.LogIndex, p.TreeSize)
	case len(p.Hashes) > 128:
		return out, fmt.Errorf("inclusion proof of %d hashes", len(p.Hashes))
	default:
		out.Proof.Note = []byte(note)
	}
	out.Global, out.Proof.Leaf.Index, out.Proof.Size = uint64(e.LogIndex), uint64(p.LogIndex), uint64(p.TreeSize)
	for i, h := range p.Hashes {
		if len(h) != len(monitor.Hash{}) {
			return out, fmt.Errorf("inclusion proof: hash %d of %d bytes", i, len(h))
		}
		out.Proof.Hashes = append(out.Proof.Hashes, monitor.Hash(h))
	}
	tree, err := v.treeOfEntry(id, out.Proof)
	if err != nil {
		return out, err
	}
	if leaf := monitor.HashLeaf(out.Proof.Leaf.Data).String(); leafPart(id) != leaf {
		return out, fmt.Errorf("its leaf hash is %s", leaf)
	}
	out.Origin = v.originOf(tree)
	return out, nil
}
