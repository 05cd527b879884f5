package rekor

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/transparency-dev/tessera/api"

	"sigtrail/monitor"
)

// seed adds a file of the real data when it is there.
func seed(f *testing.F, path ...string) {
	if b, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "shared", "data"}, path...)...)); err == nil {
		f.Add(b)
	}
}

func FuzzBundle(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0, 0, 0, 2, 'b', 'c'}, 3)
	f.Add([]byte{0}, 1)
	f.Add([]byte{0xff, 0xff, 1}, 1)
	f.Fuzz(func(t *testing.T, raw []byte, width int) {
		width &= 0xff
		into := make([]monitor.Leaf, width)
		err := splitBundle(raw, width, into, 0, 7)
		var plain api.EntryBundle // the same format, read by its reference
		plainErr := plain.UnmarshalText(raw)
		if want := plainErr == nil && len(plain.Entries) == width; (err == nil) != want {
			t.Fatalf("%v, the reference says %d leaves, %v", err, len(plain.Entries), plainErr)
		}
		if err != nil {
			return
		}
		for i, l := range into {
			if l.Index != uint64(7+i) || !bytes.Equal(l.Data, plain.Entries[i]) || cap(l.Data) != len(l.Data) {
				t.Fatalf("leaf %d: %+v", i, l)
			}
		}
	})
}

func FuzzLogInfo(f *testing.F) {
	f.Add([]byte(`{"treeID":"77","treeSize":1,"rootHash":"00","signedTreeHead":"rekor.sigstore.dev - 77\n1\nAAAA\n\n— x y\n","inactiveShards":[null]}`))
	seed(f, "rekor-v1", "log-info-562247982.json")
	v := newTestV1(f, "http://127.0.0.1:1", "rekor.sigstore.dev", []Tlog{newTestKey(f, monitor.V1, "rekor.sigstore.dev").tlog})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var info *models.LogInfo
		if json.Unmarshal(raw, &info) != nil {
			return
		}
		served, err := v.shards(info)
		if err != nil {
			return
		}
		first := uint64(0)
		for i, s := range served {
			_, size, err := noteLines(string(s.Note))
			if err != nil || s.Log.FirstGlobal != first || s.Log.Origin != v.originOf(s.Log.TreeID) || s.Log.Closed != (i < len(served)-1) {
				t.Fatalf("shard %d: %+v %v", i, s.Log, err)
			}
			first += size
		}
	})
}

func FuzzRetrieve(f *testing.F) {
	f.Add([]byte(`[{"24296fb24b8ad77a0000000000000000000000000000000000000000000000000000000000000000":{"body":"e30=","integratedTime":1,"logID":"00","logIndex":3,"verification":{"inclusionProof":{"checkpoint":"","hashes":[],"logIndex":0,"rootHash":"00","treeSize":1},"signedEntryTimestamp":"AA=="}}},{"x":null}]`))
	v := newTestV1(f, "http://127.0.0.1:1", "rekor.sigstore.dev", []Tlog{newTestKey(f, monitor.V1, "rekor.sigstore.dev").tlog})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var answer []models.LogEntry
		if json.Unmarshal(raw, &answer) != nil {
			return
		}
		for _, e := range answer {
			got, err := v.found(e)
			if err != nil {
				continue
			}
			p := got.Proof
			if len(got.EntryID) != 80 || p.Leaf.Index >= p.Size || p.Leaf.Index > got.Global || p.Leaf.Data == nil {
				t.Fatalf("%+v", got)
			}
			if tree, ok := treeOf(got.EntryID); !ok || tree != got.TreeID {
				t.Fatalf("%s is of tree %d", got.EntryID, got.TreeID)
			}
		}
	})
}

func FuzzTrust(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[{"baseUrl":"x","hashAlgorithm":"SHA2_256","publicKey":{"rawBytes":"AAAA","validFor":{"start":"2021-01-12T11:53:27Z"}},"logId":{"keyId":"AAAA"}}]}`))
	seed(f, "trust", "prod", "trusted_root.json")
	seed(f, "trust", "staging", "trusted_root.json")
	f.Fuzz(func(t *testing.T, raw []byte) {
		tr, err := ParseTrust(raw)
		if err != nil {
			return
		}
		for _, l := range tr.Tlogs() {
			if l.Verifier == nil || l.Verifier.Name() != l.Host || l.Host == "" || l.Key == nil {
				t.Fatalf("%+v", l)
			}
			if h := l.Verifier.KeyHash(); byte(h>>24) != l.KeyID[0] || byte(h) != l.KeyID[3] {
				t.Fatalf("hint %08x of key %s", h, l.KeyID)
			}
		}
	})
}
