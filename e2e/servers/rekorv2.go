package servers

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The two generations of Rekor v2 servers whose leaves are found in public logs.
const (
	V2New = "v2.3.0" // takes hashedrekord 0.0.2 only
	V2Old = "v2.2.1" // takes dsse 0.0.2 as well
)

// readPrefix is where the read API of a log begins.
const readPrefix = "/api/v2/"

// A RekorV2 is a real Rekor v2 server: the write API is its own, its tiles are
// served as files, as in deployments.
type RekorV2 struct {
	URL     string // read prefix, ends in "/api/v2/"
	Origin  string
	Version string

	key     ed25519.PrivateKey
	exe     string
	args    []string // of every start
	storage string
	front   front
	process *Process
	frozen  bool
	since   time.Time
}

// StartRekorV2 runs an empty v2 log of version V2New or V2Old.
func StartRekorV2(t testing.TB, version, origin string) *RekorV2 {
	t.Helper()
	return startRekorV2(t, version, origin, nil)
}

// StartWitnessedRekorV2 runs an empty v2 log that has its heads cosigned.
func StartWitnessedRekorV2(t testing.TB, version, origin string, w *Witness) *RekorV2 {
	t.Helper()
	return startRekorV2(t, version, origin, w)
}

func startRekorV2(t testing.TB, version, origin string, w *Witness) *RekorV2 {
	t.Helper()
	programs := map[string]program{V2New: rekorTilesNew, V2Old: rekorTilesOld}
	p, ok := programs[version]
	if !ok {
		t.Fatalf("no Rekor v2 server of version %s", version)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("making the key of %s: %v", origin, err)
	}
	dir := t.TempDir()
	r := &RekorV2{Origin: origin, Version: version, key: key, exe: binary(t, p), storage: t.TempDir(), since: time.Now().Add(-time.Hour)}
	r.args = []string{"serve", "--hostname=" + origin, "--storage-dir=" + r.storage,
		"--signer-filepath=" + writeKey(t, dir, "signer.pem", key),
		"--checkpoint-interval=1s", "--batch-max-age=100ms"} // one second is the least it takes
	if w != nil {
		w.Watch(t, r.VKey())
		policy := filepath.Join(dir, "witnesses")
		if err := os.WriteFile(policy, []byte("witness w "+w.VKey+" "+w.URL+"\nquorum w\n"), 0o644); err != nil {
			t.Fatalf("writing the witness policy of %s: %v", origin, err)
		}
		r.args = append(r.args, "--witness-policy-path="+policy)
	}
	r.start(t)
	r.URL = r.View(t).URL
	return r
}

// start runs the server over its storage folder.
func (r *RekorV2) start(t testing.TB) {
	t.Helper()
	args := r.args
	if r.frozen {
		args = append(args[:len(args):len(args)], "--read-only")
	}
	process, port := run(t, r.exe, nil, 3,
		func(port []string) []string {
			return append(args[:len(args):len(args)], "--http-port="+port[0], "--grpc-port="+port[1], "--http-metrics-port="+port[2])
		},
		func(port []string) error { return answers("http://127.0.0.1:" + port[0] + "/healthz") })
	r.process = process
	r.front.point(t, port[0])
}

// Restart stops the server and starts it again over the same log.
func (r *RekorV2) Restart(t testing.TB) {
	t.Helper()
	r.process.Stop()
	r.start(t)
}

// Crash kills the server and starts it again over the same log.
func (r *RekorV2) Crash(t testing.TB) {
	t.Helper()
	r.process.Kill()
	r.start(t)
}

// Freeze closes the log as its operators do: the server stops, the last head is
// signed again with a line that says so, and the server comes back for reading
// only. Nobody may be writing meanwhile.
func (r *RekorV2) Freeze(t testing.TB) {
	t.Helper()
	r.process.Stop()
	path := filepath.Join(r.storage, "checkpoint")
	last, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("reading the last head of %s: %v", r.Origin, err)
	}
	text, _, ok := strings.Cut(string(last), "\n\n")
	if !ok {
		t.Fatalf("the last head of %s has no signature: %q", r.Origin, last)
	}
	text += "\nLog frozen \u2014 " + time.Now().UTC().Format(time.UnixDate) + "\n"
	if err := os.WriteFile(path, r.SignHead(t, text), 0o644); err != nil {
		t.Fatalf("freezing %s: %v", r.Origin, err)
	}
	r.frozen = true
	r.start(t)
}

// Unfreeze lets a frozen log take entries again, which no operator may do.
func (r *RekorV2) Unfreeze(t testing.TB) {
	t.Helper()
	r.process.Stop()
	r.frozen = false
	r.start(t)
}

// SignHead signs a head's text with the log's own key.
func (r *RekorV2) SignHead(t testing.TB, text string) []byte {
	t.Helper()
	id := r.keyID()
	line := append(id[:4:4], ed25519.Sign(r.key, []byte(text))...)
	return []byte(text + "\n\u2014 " + r.Origin + " " + base64.StdEncoding.EncodeToString(line) + "\n")
}

// VKey is the log's key as a signed-note verifier key.
func (r *RekorV2) VKey() string {
	id := r.keyID()
	return fmt.Sprintf("%s+%x+%s", r.Origin, id[:4], base64.StdEncoding.EncodeToString(append([]byte{0x01}, r.key.Public().(ed25519.PublicKey)...)))
}

// keyID is the one of signed notes: SHA-256 over name, newline, 0x01 for Ed25519,
// key.
func (r *RekorV2) keyID() [32]byte {
	public := r.key.Public().(ed25519.PublicKey)
	return sha256.Sum256(append([]byte(r.Origin+"\n\x01"), public...))
}

// handler sends writes to the server and reads to its storage folder.
func (r *RekorV2) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+readPrefix+"log/entries", &r.front)
	mux.Handle("GET "+readPrefix, http.StripPrefix(readPrefix, tileFiles(r.storage)))
	return mux
}

// tileFiles serves the files of a log's storage folder and nothing else of it:
// no listings, and none of the server's own state, which lies beside the tiles
// under names with a dot in front.
func tileFiles(dir string) http.Handler {
	root := os.DirFS(dir)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := path.Clean(r.URL.Path)
		for part := range strings.SplitSeq(name, "/") {
			if strings.HasPrefix(part, ".") {
				http.NotFound(w, r)
				return
			}
		}
		f, err := root.Open(name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		f.Close()
		if info, err := os.Stat(dir + "/" + name); err != nil || !info.Mode().IsRegular() {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		if name == "checkpoint" {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-cache")
		}
		http.ServeFileFS(w, r, root, name)
	})
}

// View makes an address for one reader: the prefix of the read API.
func (r *RekorV2) View(t testing.TB) *View {
	return newView(t, r.handler(), readPrefix, readPrefix+"checkpoint")
}

// Trusted is the log as a trusted root names it.
func (r *RekorV2) Trusted(t testing.TB) TrustedLog {
	t.Helper()
	spki := publicKey(t, r.key.Public())
	return TrustedLog{Host: r.Origin, SPKI: spki, Details: "PKIX_ED25519", KeyID: r.keyID(), From: r.since}
}
