package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/transparency-dev/formats/log"
	formatnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

var (
	start    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	upstream = GitHub{Owner: "pypa", Repo: "sampleproject", RepoID: "1001", OwnerID: "11", Environment: "pypi"}
)

func startLab(t *testing.T) *Lab {
	t.Helper()
	l, err := Start(context.Background(), Options{Clock: NewClock(start).Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func sign(t *testing.T, l *Lab, filename string) Signed {
	t.Helper()
	s, err := l.CA.SignPublish(upstream, filename, Digest(filename), l.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fill(t *testing.T, l *Lab, n int) {
	t.Helper()
	s := sign(t, l, "sampleproject-1.0.tar.gz")
	for i := range n {
		s.Statement = fmt.Appendf(nil, "statement %d of %d", i, l.V2.Size())
		s.PAE = append([]byte("PAE of "), s.Statement...)
		if _, err := l.V1.Log(s); err != nil {
			t.Fatal(err)
		}
		l.V2.Log(s)
	}
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

func noteVerifier(t *testing.T, l TrustedLog) note.Verifier {
	t.Helper()
	kind, key := byte(2), l.SPKI
	if l.KeyDetails == "PKIX_ED25519" {
		kind, key = 1, l.SPKI[len(l.SPKI)-32:]
	}
	v, err := formatnote.NewVerifier(fmt.Sprintf("%s+%x+%s", l.Host, l.KeyID[:4], b64(append([]byte{kind}, key...))))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func v1Head(t *testing.T, l *Lab) (*log.Checkpoint, error) {
	t.Helper()
	_, body := get(t, l.Addresses().V1+"/api/v1/log")
	var info struct{ TreeID, SignedTreeHead string }
	if err := json.Unmarshal(body, &info); err != nil {
		t.Fatal(err)
	}
	c, _, _, err := log.ParseCheckpoint([]byte(info.SignedTreeHead), V1Host+" - "+info.TreeID, noteVerifier(t, l.V1.Trusted()))
	return c, err
}

func v2Head(t *testing.T, l *Lab) (*log.Checkpoint, error) {
	t.Helper()
	_, body := get(t, l.Addresses().V2+"checkpoint")
	c, _, _, err := log.ParseCheckpoint(body, V2Origin, noteVerifier(t, l.V2.Trusted()))
	return c, err
}

func TestBundleOfProvenanceVerifies(t *testing.T) {
	l := startLab(t)
	fill(t, l, 3)
	l.V1.Rotate()
	s := sign(t, l, "sampleproject-4.0.0.tar.gz")
	e, err := l.V1.Log(s)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := root.NewTrustedRootFromJSON(l.TrustedRootJSON())
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify.NewVerifier(tr, verify.WithTransparencyLog(1), verify.WithIntegratedTimestamps(1))
	if err != nil {
		t.Fatal(err)
	}
	id, err := verify.NewShortCertificateIdentity(GitHubActions, "", "", `^https://github\.com/pypa/sampleproject/`)
	if err != nil {
		t.Fatal(err)
	}
	b := bundleOf(t, Provenance(upstream.Publisher(), s, e))
	check := func(digest [32]byte) error {
		_, err := v.Verify(b, verify.NewPolicy(verify.WithArtifactDigest("sha256", digest[:]), verify.WithCertificateIdentity(id)))
		return err
	}
	if err := check(s.SHA256); err != nil {
		t.Error(err)
	}
	if check(Digest("another")) == nil {
		t.Error("it verifies for another file")
	}
}

func bundleOf(t *testing.T, provenance []byte) *bundle.Bundle {
	t.Helper()
	var p struct {
		Bundles []struct {
			Attestations []struct {
				Material struct {
					Certificate string            `json:"certificate"`
					Entries     []json.RawMessage `json:"transparency_entries"`
				} `json:"verification_material"`
				Envelope struct{ Statement, Signature string }
			}
		} `json:"attestation_bundles"`
	}
	if err := json.Unmarshal(provenance, &p); err != nil {
		t.Fatal(err)
	}
	a := p.Bundles[0].Attestations[0]
	type m = map[string]any
	text, err := json.Marshal(m{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": m{"certificate": m{"rawBytes": a.Material.Certificate}, "tlogEntries": a.Material.Entries},
		"dsseEnvelope":         m{"payload": a.Envelope.Statement, "payloadType": "application/vnd.in-toto+json", "signatures": []any{m{"sig": a.Envelope.Signature}}}})
	if err != nil {
		t.Fatal(err)
	}
	b := new(bundle.Bundle)
	if err := b.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestV2TilesGiveTheRoot(t *testing.T) {
	l := startLab(t)
	fill(t, l, 300)
	head, err := v2Head(t, l)
	if err != nil {
		t.Fatal(err)
	}
	rebuilt := new(tree)
	for _, path := range []string{"tile/entries/000", "tile/entries/001.p/44"} {
		_, body := get(t, l.Addresses().V2+path)
		for len(body) > 1 {
			n := 2 + int(binary.BigEndian.Uint16(body))
			rebuilt.append(body[2:n])
			body = body[n:]
		}
	}
	if rebuilt.size() != head.Size || !bytes.Equal(rebuilt.root(300), head.Hash) {
		t.Fatalf("bundles give size %d root %x, head says %d %x", rebuilt.size(), rebuilt.root(300), head.Size, head.Hash)
	}
	for _, path := range []string{"tile/0/000.p/255", "tile/entries/000.p/7", "tile/0/001", "tile/0/001.p/45", "tile/0/002", "tile/2/000", "tile/63/000", "tile/9/000"} {
		if status, _ := get(t, l.Addresses().V2+path); status != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, status)
		}
	}
}

func TestLies(t *testing.T) {
	const size = 300
	readers := []struct {
		name string
		head func(*testing.T, *Lab) (*log.Checkpoint, error)
		liar func(*Lab) *history
	}{
		{"v1", v1Head, func(l *Lab) *history { return l.V1.Active() }},
		{"v2", v2Head, func(l *Lab) *history { return l.V2.history }},
	}
	lies := []struct {
		name string
		tell func(*history)
		size uint64
		true bool
	}{
		{"fork", func(h *history) { h.ForkAt(100) }, size, false},
		{"inconsistent", (*history).ServeInconsistent, size + 2, false},
		{"shrink", func(h *history) { h.ShrinkTo(200) }, 200, false},
		{"stale", func(h *history) { h.Stale(200) }, 200, true},
	}
	for _, r := range readers {
		l := startLab(t)
		fill(t, l, size)
		for _, lie := range lies {
			t.Run(r.name+" "+lie.name, func(t *testing.T) {
				h := r.liar(l)
				defer h.Honest()
				lie.tell(h)
				got, err := r.head(t, l)
				if err != nil {
					t.Fatalf("the log did not sign its lie: %v", err)
				}
				honest := got.Size <= size && bytes.Equal(got.Hash, h.honest.root(min(got.Size, size)))
				if got.Size != lie.size || honest != lie.true {
					t.Errorf("size %d, true history %v; want %d, %v", got.Size, honest, lie.size, lie.true)
				}
			})
		}
		t.Run(r.name+" other key", func(t *testing.T) {
			r.liar(l).SignWithOtherKey()
			if _, err := r.head(t, l); err == nil {
				t.Error("the known key signed it")
			}
			r.liar(l).Honest()
			if _, err := r.head(t, l); err != nil {
				t.Errorf("after the lie: %v", err)
			}
		})
	}
}

// What Log returns goes into provenance objects and must hold together.
func TestEntryLoggedDuringALie(t *testing.T) {
	l := startLab(t)
	fill(t, l, 5)
	l.V1.Active().ForkAt(2)
	e, err := l.V1.Log(sign(t, l, "a-1.0.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	c, _, _, err := log.ParseCheckpoint([]byte(e.Checkpoint), fmt.Sprintf("%s - %d", V1Host, l.V1.shards[0].treeID), noteVerifier(t, l.V1.Trusted()))
	if err != nil {
		t.Fatal(err)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, e.Index, c.Size, rfc6962.DefaultHasher.HashLeaf(e.Body), e.Hashes, c.Hash); err != nil {
		t.Error(err)
	}
}

func TestFrozenLog(t *testing.T) {
	l := startLab(t)
	fill(t, l, 3)
	w, err := NewWitness("witness.test", l.Now)
	if err != nil {
		t.Fatal(err)
	}
	l.V2.Cosign([]SignatureLine{w.Cosign}, nil)
	_, before := get(t, l.Addresses().V2+"checkpoint")
	l.V2.Freeze()
	_, after := get(t, l.Addresses().V2+"checkpoint")
	if !bytes.Contains(before, []byte("witness.test")) || bytes.Contains(after, []byte("witness.test")) {
		t.Errorf("cosigned before, or still after the freeze:\n%s\n%s", before, after)
	}
	if c, err := v2Head(t, l); err != nil || c.Size != 3 || !bytes.Contains(after, []byte("\nLog frozen — Sun Mar  1 12:00:00 UTC 2026\n\n— ")) {
		t.Errorf("%v, %v:\n%s", c, err, after)
	}
	write := func() int {
		resp, err := http.Post(l.Addresses().V2+"log/entries", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if got := write(); got != http.StatusMethodNotAllowed {
		t.Errorf("a write is answered with %d", got)
	}
	l.V2.Unfreeze()
	fill(t, l, 1)
	if c, err := v2Head(t, l); err != nil || c.Size != 4 || write() == http.StatusMethodNotAllowed {
		t.Errorf("after unfreezing: %v, %v", c, err)
	}
}

// Heads with everything that heads may bear are opened by the libraries that
// define their format.
func TestNotes(t *testing.T) {
	l := startLab(t)
	fill(t, l, 2)
	w, err := NewWitness("witness.test", l.Now)
	if err != nil {
		t.Fatal(err)
	}
	witness, err := formatnote.NewVerifierForCosignatureV1(w.VKey())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*history{l.V1.Active(), l.V2.history} {
		h.Extend("Timestamp: 1679349379012118479", "another — line")
		h.Cosign([]SignatureLine{UnknownSignature("early.test", 3000)}, []SignatureLine{w.Cosign, UnknownSignature("late.test", 5)})
	}
	_, body := get(t, l.Addresses().V1+"/api/v1/log")
	var info struct{ SignedTreeHead string }
	if err := json.Unmarshal(body, &info); err != nil {
		t.Fatal(err)
	}
	_, v2 := get(t, l.Addresses().V2+"checkpoint")
	for signed, key := range map[string]TrustedLog{info.SignedTreeHead: l.V1.Trusted(), string(v2): l.V2.Trusted()} {
		n, err := note.Open([]byte(signed), note.VerifierList(noteVerifier(t, key), witness))
		if err != nil {
			t.Fatalf("%v:\n%s", err, signed)
		}
		if len(n.Sigs) != 2 || len(n.UnverifiedSigs) != 2 || n.UnverifiedSigs[0].Name != "early.test" || !strings.HasSuffix(n.Text, "479\nanother — line\n") {
			t.Errorf("%d verified and %d other signatures:\n%s", len(n.Sigs), len(n.UnverifiedSigs), signed)
		}
		if at, err := formatnote.CoSigV1Timestamp(n.Sigs[1]); err != nil || !at.Equal(start) {
			t.Errorf("cosigned at %v, %v", at, err)
		}
	}
}

func TestFaults(t *testing.T) {
	var f Faults
	server := httptest.NewServer(f.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "0123456789")
	})))
	defer server.Close()
	ask := func(path string) (int, string, error) {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	for name, c := range map[string]struct {
		spoil func()
		code  int
		body  string
		cut   bool
	}{
		"none":        {func() {}, 200, "0123456789", false},
		"status":      {func() { f.Status("/a/b", -1, 429, "1") }, 429, "Too Many Requests\n", false},
		"cut at once": {func() { f.Cut("/a/", -1, 0) }, 200, "", true},
		"cut":         {func() { f.Cut("", -1, 0.5) }, 200, "01234", true},
		"cut at last": {func() { f.Cut("", -1, 1) }, 200, "012345678", true},
		"dripping":    {func() { f.Drip("", -1, time.Microsecond) }, 200, "0123456789", false},
		"large":       {func() { f.Large("", -1, 70_000) }, 200, strings.Repeat(" ", 70_000), false},
		"bomb":        {func() { f.Bomb("", -1, 100_000) }, 200, strings.Repeat("\x00", 100_000), false},
		"edited":      {func() { f.Edit("", -1, bytes.ToUpper) }, 200, "0123456789", false},
		"elsewhere":   {func() { f.Status("/a", -1, 500, ""); f.Status("/a/b/", -1, 500, "") }, 200, "0123456789", false},
		"passed":      {func() { f.Pass("", 1); f.Status("", -1, 500, "") }, 200, "0123456789", false},
		"none left":   {func() { f.Status("", 0, 500, "") }, 200, "0123456789", false},
	} {
		f.Clear()
		c.spoil()
		code, body, err := ask("/a/b")
		if code != c.code || body != c.body || (err != nil) != c.cut {
			t.Errorf("%s: %d %.40q, %v", name, code, body, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	l := startLab(t)
	fill(t, l, 6)
	foreign, err := startLab(t).V1.Log(sign(t, l, "a-1.0.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	const path = "/api/v1/log/entries/retrieve"
	globals := func() (out []int) {
		resp, err := http.Post(l.Addresses().V1+path, "application/json", strings.NewReader(`{"logIndexes":[0,1,2,3,4,5]}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var all []map[string]struct{ LogIndex int }
		if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
			t.Fatal(err)
		}
		for _, one := range all {
			for _, e := range one {
				out = append(out, e.LogIndex)
			}
		}
		return out
	}
	l.V1Faults.Edit(path, 1, LeaveOut(1, 4))
	if got := globals(); !slices.Equal(got, []int{5, 3, 2, 0}) {
		t.Errorf("left out: %v", got)
	}
	l.V1Faults.Edit(path, 1, Add(foreign.JSON()))
	if got := globals(); !slices.Equal(got, []int{0, 5, 4, 3, 2, 1, 0}) {
		t.Errorf("added: %v", got)
	}
	l.V1Faults.Edit(path, 1, Shuffle)
	if got := globals(); !slices.Equal(slices.Sorted(slices.Values(got)), []int{0, 1, 2, 3, 4, 5}) {
		t.Errorf("shuffled: %v", got)
	}
}

func TestLyingWhileReading(t *testing.T) {
	l := startLab(t)
	fill(t, l, 20)
	e, err := l.V1.Log(sign(t, l, "a-1.0.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	a := l.Addresses()
	id := a.V1 + "/api/v1/log/entries/" + hex.EncodeToString(rfc6962.DefaultHasher.HashLeaf(e.Body))
	var readers sync.WaitGroup
	for _, url := range []string{a.V1 + "/api/v1/log", a.V1 + "/api/v1/log/entries?logIndex=3", id, a.V2 + "checkpoint", a.V2 + "tile/0/000.p/20"} {
		readers.Go(func() {
			for range 30 {
				resp, err := http.Get(url)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	for range 30 {
		for _, h := range []*history{l.V1.Active(), l.V2.history} {
			h.ForkAt(3)
			h.ShrinkTo(5)
			h.SignWithOtherKey()
			h.Honest()
		}
	}
	readers.Wait()
}
