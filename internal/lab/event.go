package lab

import (
	"encoding/json"
	"fmt"
	"time"

	eventspb "github.com/sigstore/protobuf-specs/gen/pb-go/events/v1"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// transparencyEntry is the entry in protobuf's JSON, as bundles, provenance objects
// and events hold it.
func (e Entry) transparencyEntry() map[string]any {
	type m = map[string]any
	kind, version := e.kind()
	return m{
		"logIndex": fmt.Sprint(e.Global), "logId": m{"keyId": b64(e.KeyID[:])},
		"kindVersion": m{"kind": kind, "version": version}, "integratedTime": fmt.Sprint(e.IntegratedTime),
		"inclusionPromise": m{"signedEntryTimestamp": b64(e.SET)},
		"inclusionProof": m{"logIndex": fmt.Sprint(e.Index), "rootHash": b64(e.Root), "treeSize": fmt.Sprint(e.Size),
			"hashes": e.Hashes, "checkpoint": m{"envelope": e.Checkpoint}},
		"canonicalizedBody": b64(e.Body),
	}
}

func (e Entry) kind() (kind, version string) {
	var body struct{ APIVersion, Kind string }
	json.Unmarshal(e.Body, &body) // a leaf may be anything
	return body.Kind, body.APIVersion
}

const (
	eventType = "dev.sigstore.rekor.events.v1.NewEntry"
	typeJSON  = "application/json"
	typeProto = "application/protobuf"
)

// An Event is a message of the log's event stream.
type Event struct {
	Body       []byte
	Attributes map[string]string
}

// Event is the message that the log publishes for an entry, in JSON.
func (e Entry) Event() (Event, error) {
	data, err := json.Marshal(e.transparencyEntry())
	if err != nil {
		return Event{}, err
	}
	attributes := e.eventAttributes(typeJSON)
	event := map[string]any{"specversion": "1.0", "id": e.ID, "data": string(data)}
	for k, v := range attributes {
		event[k] = v
	}
	body, err := json.Marshal(event)
	return Event{body, attributes}, err
}

// ProtoEvent is the same message in protobuf.
func (e Entry) ProtoEvent() (Event, error) {
	data, err := json.Marshal(e.transparencyEntry())
	if err != nil {
		return Event{}, err
	}
	entry := new(rekorpb.TransparencyLogEntry)
	if err := protojson.Unmarshal(data, entry); err != nil {
		return Event{}, err
	}
	raw, err := proto.Marshal(entry)
	if err != nil {
		return Event{}, err
	}
	body, err := proto.Marshal(&eventspb.CloudEvent{SpecVersion: "1.0", Id: e.ID, Source: "/createLogEntry", Type: eventType,
		Data: &eventspb.CloudEvent_ProtoData{ProtoData: &anypb.Any{TypeUrl: "dev.sigstore.rekor.v1.TransparencyLogEntry", Value: raw}}})
	return Event{body, e.eventAttributes(typeProto)}, err
}

func (e Entry) eventAttributes(contentType string) map[string]string {
	kind, _ := e.kind()
	return map[string]string{"datacontenttype": contentType, "type": eventType, "source": "/createLogEntry",
		"time": time.Unix(e.IntegratedTime, 0).UTC().Format(time.RFC3339), "rekor_entry_kind": kind, "rekor_signing_subjects": ""}
}

// Entry is an entry as the log shows it now, by its index in the active shard.
func (v *V1) Entry(index uint64) (Entry, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.shards[len(v.shards)-1]
	return v.entry(s, s.view(), index)
}
