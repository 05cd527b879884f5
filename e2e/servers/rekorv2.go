package servers

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"os"
	"path"
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
	storage string
	front   front
	since   time.Time
}

// StartRekorV2 runs an empty v2 log of version V2New or V2Old.
func StartRekorV2(t testing.TB, version, origin string) *RekorV2 {
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
	r := &RekorV2{Origin: origin, Version: version, key: key, storage: t.TempDir(), since: time.Now().Add(-time.Hour)}
	args := []string{"serve", "--hostname=" + origin, "--storage-dir=" + r.storage,
		"--signer-filepath=" + writeKey(t, dir, "signer.pem", key),
		"--checkpoint-interval=1s", "--batch-max-age=100ms"} // one second is the least it takes
	_, port := run(t, binary(t, p), nil, 3,
		func(port []string) []string {
			return append(args, "--http-port="+port[0], "--grpc-port="+port[1], "--http-metrics-port="+port[2])
		},
		func(port []string) error { return answers("http://127.0.0.1:" + port[0] + "/healthz") })
	r.front.point(t, port[0])
	r.URL = r.View(t).URL
	return r
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

// Trusted is the log as a trusted root names it. The key id is that of signed
// notes: SHA-256 over name, newline, 0x01 for Ed25519, key.
func (r *RekorV2) Trusted(t testing.TB) TrustedLog {
	t.Helper()
	public := r.key.Public().(ed25519.PublicKey)
	id := sha256.Sum256(append([]byte(r.Origin+"\n\x01"), public...))
	return TrustedLog{Host: r.Origin, SPKI: publicKey(t, public), Details: "PKIX_ED25519", KeyID: id, From: r.since}
}
