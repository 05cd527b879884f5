package lab

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// TUFHost is the repository on a Network.
const TUFHost = "tuf.lab.test"

// Lives of the roles' metadata, as in Sigstore's repository: only the timestamp is
// short-lived, and a repository that nobody signs any more goes stale within them.
const (
	TimestampLife = 7 * 24 * time.Hour
	rootLife      = 10 * 365 * 24 * time.Hour
)

// A TUF is a TUF repository with consistent snapshots that offers trusted_root.json
// and, once there is one, the default signing configuration.
type TUF struct {
	SigningConfig []byte // nil: none; offered from the next Publish on

	clock   func() time.Time
	signers map[string]signature.Signer // by role
	root    *metadata.Metadata[metadata.RootType]

	mu      sync.Mutex
	version int64
	files   map[string][]byte // by path
}

var tufRoles = []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS}

// NewTUF makes a repository with fresh keys, one a role, that offers a trusted root.
func NewTUF(clock func() time.Time, trustedRoot []byte) (*TUF, error) {
	t := &TUF{clock: clock, signers: make(map[string]signature.Signer), files: make(map[string][]byte)}
	t.root = metadata.Root(clock().Add(rootLife))
	for _, role := range tufRoles {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		key, err := metadata.KeyFromPublicKey(public)
		if err != nil {
			return nil, fmt.Errorf("key of the %s role: %w", role, err)
		}
		if err := t.root.Signed.AddKey(key, role); err != nil {
			return nil, fmt.Errorf("key of the %s role: %w", role, err)
		}
		if t.signers[role], err = signature.LoadSigner(private, crypto.Hash(0)); err != nil {
			return nil, err
		}
	}
	var err error
	if t.files["1.root.json"], err = signed(t, t.root, metadata.ROOT); err != nil {
		return nil, err
	}
	return t, t.Publish(trustedRoot)
}

// Root is the root metadata that clients start from.
func (t *TUF) Root() []byte { return t.files["1.root.json"] }

// Publish offers another trusted root. The same again signs the timestamp afresh.
func (t *TUF) Publish(trustedRoot []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.version++
	targets := metadata.Targets(t.clock().Add(rootLife))
	targets.Signed.Version = t.version
	offered := map[string][]byte{"trusted_root.json": trustedRoot}
	if t.SigningConfig != nil {
		offered["signing_config.v0.2.json"] = t.SigningConfig
	}
	for name, body := range offered {
		file, err := metadata.TargetFile().FromBytes(name, body, "sha256")
		if err != nil {
			return err
		}
		targets.Signed.Targets[name] = file
		t.files[fmt.Sprintf("targets/%x.%s", sha256.Sum256(body), name)] = body
	}
	snapshot := metadata.Snapshot(t.clock().Add(rootLife))
	snapshot.Signed.Version = t.version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(t.version)
	timestamp := metadata.Timestamp(t.clock().Add(TimestampLife))
	timestamp.Signed.Version = t.version
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(t.version)

	var err error
	if t.files[fmt.Sprintf("%d.targets.json", t.version)], err = signed(t, targets, metadata.TARGETS); err != nil {
		return err
	}
	if t.files[fmt.Sprintf("%d.snapshot.json", t.version)], err = signed(t, snapshot, metadata.SNAPSHOT); err != nil {
		return err
	}
	t.files["timestamp.json"], err = signed(t, timestamp, metadata.TIMESTAMP)
	return err
}

func signed[T metadata.Roles](t *TUF, m *metadata.Metadata[T], role string) ([]byte, error) {
	if _, err := m.Sign(t.signers[role]); err != nil {
		return nil, fmt.Errorf("signing as %s: %w", role, err)
	}
	return m.ToBytes(false)
}

// ServeHTTP serves the repository.
func (t *TUF) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	body, ok := t.files[strings.TrimPrefix(r.URL.Path, "/")]
	t.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Write(body)
}
