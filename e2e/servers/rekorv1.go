package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A RekorV1 is a real rekor-server with its Trillian and its search index.
type RekorV1 struct {
	URL  string // base address, no trailing slash; the same over rotations
	Host string // name on the signature line of its heads

	key     *ecdsa.PrivateKey
	keyPath string
	dir     string
	front   front
	trees   *trees
	redis   string
	pubsub  string  // address of a Pub/Sub server that entries are published on; "": none
	shards  []int64 // tree ids, the last one active
	process *Process
	since   time.Time
}

// StartRekorV1 runs a v1 log with one empty shard. The server names its signing
// host after itself; nothing listens there.
func StartRekorV1(t testing.TB, host string) *RekorV1 {
	t.Helper()
	return startRekorV1(t, host, "")
}

// StartPublishingRekorV1 is StartRekorV1 for a log that publishes its entries, in
// both forms, as Sigstore's own does.
func StartPublishingRekorV1(t testing.TB, host string, p *PubSub) *RekorV1 {
	t.Helper()
	p.topic(t, NewEntries)
	return startRekorV1(t, host, p.Address)
}

func startRekorV1(t testing.TB, host, pubsub string) *RekorV1 {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making the key of %s: %v", host, err)
	}
	r := &RekorV1{Host: host, key: key, dir: t.TempDir(), pubsub: pubsub, since: time.Now().Add(-time.Hour)}
	r.keyPath = writeKey(t, r.dir, "signer.pem", key)
	r.trees = startTrillian(t)
	r.redis = startRedis(t)
	r.shards = []int64{r.trees.newTree(t)}
	r.start(t)
	r.URL = r.View(t).URL
	return r
}

// start runs rekor-server over the shards there are. Its metrics port is fixed
// (2112); where that is taken, it goes without metrics and says nothing.
func (r *RekorV1) start(t testing.TB) {
	t.Helper()
	active := r.shards[len(r.shards)-1]
	args := []string{"serve",
		"--rekor_server.address=127.0.0.1", "--rekor_server.hostname=" + r.Host, "--rekor_server.signer=" + r.keyPath,
		"--trillian_log_server.address=127.0.0.1", "--trillian_log_server.port=" + r.trees.port,
		"--trillian_log_server.tlog_id=" + treeName(active),
		"--search_index.storage_provider=redis", "--redis_server.address=127.0.0.1", "--redis_server.port=" + r.redis,
		"--log_type=prod", "--graceful-timeout=1s",
	}
	if closed := r.shards[:len(r.shards)-1]; len(closed) > 0 {
		args = append(args, "--trillian_log_server.sharding_config="+r.shardingConfig(t, closed))
	}
	var env []string
	if r.pubsub != "" {
		env = []string{EmulatorVar + "=" + r.pubsub}
		args = append(args, "--rekor_server.new_entry_publisher=gcppubsub://"+NewEntries,
			"--rekor_server.publish_events_json=true", "--rekor_server.publish_events_protobuf=true")
	}
	process, port := run(t, binary(t, rekorServer), env, 1,
		func(port []string) []string { return append(args, "--port="+port[0]) },
		func(port []string) error { return answers("http://127.0.0.1:" + port[0] + "/api/v1/log") })
	r.process = process
	r.front.point(t, port[0])
}

// shardingConfig writes the list of closed shards, oldest first. The server takes
// YAML, of which JSON is a part.
func (r *RekorV1) shardingConfig(t testing.TB, closed []int64) string {
	t.Helper()
	type signing struct {
		Key string `json:"signingSchemeOrKeyPath"`
	}
	type shard struct {
		TreeID  int64   `json:"treeID"`
		Signing signing `json:"signingConfig"`
	}
	var shards []shard
	for _, id := range closed {
		shards = append(shards, shard{id, signing{r.keyPath}})
	}
	body, err := json.Marshal(shards)
	if err != nil {
		t.Fatalf("encoding the closed shards: %v", err)
	}
	path := filepath.Join(r.dir, "shards.yaml")
	if err := os.WriteFile(path, body, 0o644); err != nil {
		t.Fatalf("writing the closed shards: %v", err)
	}
	return path
}

// Rotate closes the active shard and opens an empty one, as operators do: the
// server goes away and comes back with the old tree in its list of inactive
// ones. Global indexes go on.
func (r *RekorV1) Rotate(t testing.TB) {
	t.Helper()
	r.process.Stop()
	r.shards = append(r.shards, r.trees.newTree(t))
	r.start(t)
}

// Restart stops the server and starts it again over the same shards.
func (r *RekorV1) Restart(t testing.TB) {
	t.Helper()
	r.process.Stop()
	r.start(t)
}

// Crash kills the server and starts it again. Its trees and its search index live
// on, as they do where they are servers of their own.
func (r *RekorV1) Crash(t testing.TB) {
	t.Helper()
	r.process.Kill()
	r.start(t)
}

// Origins are the first lines of the shards' heads, oldest first.
func (r *RekorV1) Origins() []string {
	var origins []string
	for _, id := range r.shards {
		origins = append(origins, r.Host+" - "+treeName(id))
	}
	return origins
}

// View makes an address for one reader. It stays over rotations.
func (r *RekorV1) View(t testing.TB) *View { return newView(t, &r.front, "", "/api/v1/log") }

// Trusted is the log as a trusted root names it: one key for all shards.
func (r *RekorV1) Trusted(t testing.TB) TrustedLog {
	t.Helper()
	spki := publicKey(t, &r.key.PublicKey)
	return TrustedLog{Host: r.Host, SPKI: spki, Details: "PKIX_ECDSA_P256_SHA_256", KeyID: sha256.Sum256(spki), From: r.since}
}
