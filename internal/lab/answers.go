package lab

import (
	"encoding/json"
	"math/rand/v2"
)

// What a proxy or a forgetful server can do to the answer of v1's
// entries/retrieve, an array of objects with one key each, for Faults.Edit.

// Shuffle changes the order of the entries.
func Shuffle(body []byte) []byte {
	return elements(body, func(all []json.RawMessage) []json.RawMessage {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all
	})
}

// LeaveOut takes entries out, by their global index.
func LeaveOut(globals ...uint64) func([]byte) []byte {
	out := make(map[uint64]bool)
	for _, g := range globals {
		out[g] = true
	}
	return func(body []byte) []byte {
		return elements(body, func(all []json.RawMessage) []json.RawMessage {
			kept := []json.RawMessage{}
			for _, e := range all {
				var one map[string]struct {
					LogIndex uint64 `json:"logIndex"`
				}
				if err := json.Unmarshal(e, &one); err != nil {
					panic(err) // the lab's own answer
				}
				for _, entry := range one {
					if !out[entry.LogIndex] {
						kept = append(kept, e)
					}
				}
			}
			return kept
		})
	}
}

// Add puts further elements in front of the others.
func Add(first ...json.RawMessage) func([]byte) []byte {
	return func(body []byte) []byte {
		return elements(body, func(all []json.RawMessage) []json.RawMessage {
			return append(append([]json.RawMessage{}, first...), all...)
		})
	}
}

func elements(body []byte, change func([]json.RawMessage) []json.RawMessage) []byte {
	var all []json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		return body // a refusal
	}
	return mustJSON(change(all), "")
}

// JSON is the entry as an element of an answer.
func (e Entry) JSON() json.RawMessage { return mustJSON(e.answer(), "") }
