package rekor

import (
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sigtrail/monitor"
)

// exported makes evidence and passes it through its file.
func exported(t *testing.T, c monitor.Contradiction) monitor.Evidence {
	t.Helper()
	e, err := monitor.NewEvidence(c)
	if err != nil {
		t.Fatal(err)
	}
	e.Exporter, e.Exported = "test", time.Unix(0, 0).UTC()
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if e, err = monitor.ParseEvidence(b); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return e
}

// keyOf finds the key among all that were ever in a trusted root which signed a head.
func keyOf(keys []Tlog, signed, origin string) (monitor.Head, string, bool) {
	for _, k := range keys {
		if h, err := monitor.ParseHead([]byte(signed), origin, []note.Verifier{k.Verifier}); err == nil {
			return h, k.VKey, true
		}
	}
	return monitor.Head{}, "", false
}

// The real logs have not lied: no two of their heads convict one, whatever is put
// beside them as a proof.
func TestRealHeadsConvictNobody(t *testing.T) {
	var heads []struct {
		Origin, Note, Env string
		OK                bool
	}
	sharedJSON(t, &heads, "checkpoints", "checkpoints.json")
	var vectors []struct {
		Origin    string
		FirstSize uint64 `json:"first_size"`
		FirstRoot string `json:"first_root"`
		LastHead  string `json:"last_checkpoint"`
		Proof     []string
	}
	sharedJSON(t, &vectors, "rekor-v1", "consistency_modern.json")
	var keys []Tlog
	for _, env := range []string{"prod", "staging"} {
		for _, root := range everyRoot(t, env) {
			keys = append(keys, root.Tlogs()...)
		}
	}

	type signed struct {
		head monitor.Head
		key  string
	}
	byOrigin := make(map[string][]signed)
	for _, h := range heads {
		if head, key, ok := keyOf(keys, h.Note, h.Origin); ok {
			byOrigin[h.Origin] = append(byOrigin[h.Origin], signed{head, key})
		}
	}
	proof, err := readHashes(vectors[0].Proof)
	if err != nil {
		t.Fatal(err)
	}
	pairs := 0
	for origin, all := range byOrigin {
		for i, a := range all {
			for _, b := range all[i:] {
				c := monitor.Contradiction{Kind: monitor.Inconsistent, Log: monitor.Log{Origin: origin, Key: a.key}, Ours: a.head, Theirs: b.head, Proof: proof}
				want := monitor.Accused
				if a.head.SameTree(b.head) || a.key != b.key {
					want = monitor.Unfounded
				}
				if v := exported(t, c).Check(); v.Outcome != want {
					t.Errorf("%s and %s: %s, want %s: %s", a.head, b.head, v.Outcome, want, v.Shows)
				}
				pairs++
			}
		}
	}
	if pairs < 1000 {
		t.Errorf("%d pairs of heads", pairs)
	}

	held := 0
	for _, v := range vectors {
		head, key, ok := keyOf(keys, v.LastHead, v.Origin)
		if !ok {
			continue
		}
		p, err := readHashes(v.Proof)
		if err != nil {
			t.Fatal(err)
		}
		c := monitor.Contradiction{Kind: monitor.Inconsistent, Log: monitor.Log{Origin: v.Origin, Key: key}, Ours: head, Theirs: head, Proof: p,
			Claim: &monitor.Claim{What: monitor.ClaimLeaves, At: v.FirstSize, Hash: hashOf(t, v.FirstRoot)}}
		if got := exported(t, c).Check(); got.Outcome != monitor.Unfounded {
			t.Errorf("%s from %d, with its own proof: %s: %s", head, v.FirstSize, got.Outcome, got.Shows)
		}
		c.Claim.Hash[0] ^= 1
		if got := exported(t, c).Check(); got.Outcome != monitor.Accused {
			t.Errorf("%s from %d, with another root: %s: %s", head, v.FirstSize, got.Outcome, got.Shows)
		}
		held++
	}
	if held < 40 {
		t.Errorf("%d vectors with a head that verifies", held)
	}
}
