package rekor

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

// labEntry is an entry of the lab's log and a reader of that log.
func labEntry(t testing.TB) (lab.Entry, *V1) {
	t.Helper()
	l, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := ParseTrust(l.TrustedRootJSON())
	if err != nil {
		t.Fatal(err)
	}
	var e lab.Entry
	for _, name := range []string{"a", "b", "c"} {
		s, err := l.CA.SignPublish(lab.GitHub{Owner: "o", Repo: "r"}, name, lab.Digest(name), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if e, err = l.V1.Log(s); err != nil {
			t.Fatal(err)
		}
	}
	return e, newTestV1(t, "http://127.0.0.1:9", lab.V1Host, trust.Tlogs())
}

func TestEvent(t *testing.T) {
	e, v := labEntry(t)
	want := monitor.Published{Origin: lab.V1Host + " - 1193050959916656506", Global: 2, Proof: monitor.LeafProof{
		Leaf: monitor.Leaf{Index: 2, Data: e.Body, IntegratedTime: e.IntegratedTime, SET: e.SET}, Size: 3, Note: []byte(e.Checkpoint)}}
	for _, h := range e.Hashes {
		want.Proof.Hashes = append(want.Proof.Hashes, monitor.Hash(h))
	}
	for name, make := range map[string]func() (lab.Event, error){"JSON": e.Event, "protobuf": e.ProtoEvent} {
		event, err := make()
		if err != nil {
			t.Fatal(err)
		}
		for _, attributes := range []map[string]string{event.Attributes, nil} {
			got, err := v.Event(event.Body, attributes)
			if err != nil {
				t.Errorf("%s with attributes %v: %v", name, attributes, err)
			} else if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s with attributes %v (-want +got):\n%s", name, attributes, d)
			}
		}
	}
}

func TestEventRefused(t *testing.T) {
	e, v := labEntry(t)
	good, err := e.Event()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := e.ProtoEvent()
	if err != nil {
		t.Fatal(err)
	}
	entry := func(change func(*lab.Entry)) lab.Event {
		c := e
		change(&c)
		event, err := c.Event()
		if err != nil {
			t.Fatal(err)
		}
		return event
	}
	member := func(name string, value any) lab.Event {
		var m map[string]any
		if err := json.Unmarshal(good.Body, &m); err != nil {
			t.Fatal(err)
		}
		if m[name] = value; value == nil {
			delete(m, name)
		}
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return lab.Event{Body: body, Attributes: good.Attributes}
	}
	typed := func(e lab.Event, contentType string) lab.Event {
		a := maps.Clone(e.Attributes)
		a["datacontenttype"] = contentType
		return lab.Event{Body: e.Body, Attributes: a}
	}
	for name, c := range map[string]struct {
		event lab.Event
		want  string
	}{
		"nothing":                {lab.Event{}, "content type"},
		"too long":               {lab.Event{Body: bytes.Repeat([]byte(" "), maxEvent+1)}, "at most"},
		"another content":        {typed(good, "text/html"), "content type"},
		"JSON as protobuf":       {typed(good, typeProtobuf), "event"},
		"protobuf as JSON":       {typed(binary, typeJSON), "event"},
		"another version":        {member("specversion", "2.0"), "version"},
		"another type":           {member("type", "dev.sigstore.rekor.events.v1.Other"), "no new entry"},
		"data of another kind":   {member("datacontenttype", "text/plain"), "no new entry"},
		"no data":                {member("data", nil), "no new entry"},
		"data that is no string": {member("data", map[string]any{}), "data"},
		"an unknown field":       {member("data", `{"logIndex":"1","surprise":1}`), "surprise"},
		"an empty entry":         {member("data", `{}`), "no body"},
		"no id":                  {member("id", nil), "malformed id"},
		"a short id":             {member("id", "12"), "malformed id"},
		"the id of another leaf": {member("id", e.ID[:79]+string("01"[e.ID[79]&1^1])), "leaf hash"},
		"the id of another tree": {member("id", "0000000000000001"+e.ID[16:]), "by its id"},
		"a hash of one byte":     {entry(func(e *lab.Entry) { e.Hashes = [][]byte{{1}} }), "hash 0"},
		"too many hashes":        {entry(func(e *lab.Entry) { e.Hashes = slices.Repeat(e.Hashes[:1], 200) }), "200 hashes"},
		"no head":                {entry(func(e *lab.Entry) { e.Checkpoint = "" }), "no head"},
		"a head of a megabyte":   {entry(func(e *lab.Entry) { e.Checkpoint += strings.Repeat("x", monitor.MaxNote) }), "head of"},
		"a head of another log":  {entry(func(e *lab.Entry) { e.Checkpoint = "other - 1\n3\n" }), "want a shard"},
		"index beyond the tree":  {entry(func(e *lab.Entry) { e.Index = e.Size }), "in a shard of"},
		"index beyond the log":   {entry(func(e *lab.Entry) { e.Global = 1 }), "in a shard of"},
	} {
		if _, err := v.Event(c.event.Body, c.event.Attributes); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

func FuzzEvent(f *testing.F) {
	e, v := labEntry(f)
	for _, make := range []func() (lab.Event, error){e.Event, e.ProtoEvent} {
		event, err := make()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(event.Body)
	}
	f.Add([]byte(`{"specversion":"1.0","data":"{}"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := v.Event(body, nil)
		if err != nil {
			return
		}
		if l := p.Proof.Leaf; len(l.Data) == 0 || l.Index >= p.Proof.Size || p.Global < l.Index || len(p.Proof.Note) > monitor.MaxNote || !strings.HasPrefix(p.Origin, lab.V1Host+" - ") {
			t.Fatalf("accepted: %+v", p)
		}
	})
}
