// Package monitor follows transparency logs: it verifies their signed heads,
// proves that each head extends every head seen before, ties every leaf to a
// verified head by recomputation, and says which index ranges it has covered.
//
// Nothing leaves this package as true before it is proven. The package knows no
// HTTP (a Source reads a log for it) and no SQL (a Store remembers for it), so
// the rules of trust can be read in one place.
package monitor

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A Hash is an RFC 6962 SHA-256 node, leaf or root hash.
type Hash [32]byte

// String is the hash in lower-case hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 digits of lower-case hex.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("%.80q is not a SHA-256 hash in lower-case hex", text)
	}
	*h = Hash(b)
	return nil
}

// API is the generation of a log's read interface.
type API string

const (
	V1 API = "v1" // Rekor v1: REST over Trillian, one tree a shard
	V2 API = "v2" // Rekor v2: C2SP tlog-tiles
)

// A Log is a single tree: each shard of a v1 server is a log, and so is each v2 log.
// It is known by origin and key id; the address is only where it can be had today.
type Log struct {
	Origin string // first line of its heads, "rekor.sigstore.dev - 1193050959916656506"
	KeyID  Hash   // as in trusted_root.json: v1 SHA-256(SPKI), v2 SHA-256(name LF 0x01 key)
	API    API
	URL    string // read address it was last seen at
	Key    string // what verifies its heads, as a C2SP signed-note verifier key; "" where nobody needs it

	TreeID      uint64 // v1: the shard's Trillian tree; 0 for v2
	FirstGlobal uint64 // v1: global index of the shard's leaf 0; 0 for v2
	Closed      bool   // v1: listed as inactive; v2: its head says that it is frozen
}

// Global turns an index in the tree into the number that people and links use:
// for v1 the index over all shards, for v2 the index itself.
func (l Log) Global(index uint64) uint64 { return l.FirstGlobal + index }

func (l Log) String() string { return l.Origin }

// A Leaf is one record of a log. Data is exactly what the leaf hash covers. The
// other fields accompany v1 leaves and are claims of the log: the tree does not
// cover them, the signed entry timestamp (SET) does.
type Leaf struct {
	Index uint64 // in the tree
	Data  []byte

	IntegratedTime int64  // v1: Unix seconds; 0 for v2
	SET            []byte // v1: ECDSA signature over {body, integratedTime, logID, logIndex}; nil for v2
}

// A LeafProof is a leaf with what ties it to a head. Note is the head that the
// proof leads to, as the log signed it: v1 signs a fresh one for every answer.
type LeafProof struct {
	Leaf   Leaf
	Size   uint64 // tree size that Hashes lead to
	Hashes []Hash // RFC 6962 inclusion proof, leaf to root
	Note   []byte // signed head of that size; nil: the head that was asked for
}

// Source reads one log over whatever protocol it speaks. What it returns is
// hostile until this package has checked it. Implementations bound every read
// in size and time and retry what is worth retrying.
type Source interface {
	// Consistency returns the RFC 6962 consistency proof from a tree of size
	// from to one of size to, 0 < from < to. ErrNotServed when the log answers
	// that it has no such tree; any other error is a failure to ask.
	Consistency(ctx context.Context, from, to uint64) ([]Hash, error)

	// Leaves returns consecutive leaves from index from on, at least one and
	// at most to-from. head is the verified head they will be proven under,
	// so its Size bounds which tiles may be asked for.
	Leaves(ctx context.Context, head Head, from, to uint64) ([]Leaf, error)

	// Inclusion returns the leaf at index with its proof, for head or for a
	// head of the log's own choice that it brings along in Note.
	Inclusion(ctx context.Context, head Head, index uint64) (LeafProof, error)
}

// Served is one log as a server presents it, with its current head, unverified.
type Served struct {
	Log      Log
	Note     []byte          // signed head as served
	Verifier []note.Verifier // the log's keys, from the trusted root; never from the server
	Ends     time.Time       // when its key ends, by the trusted root; zero: it does not
	Source   Source
}

// Server is one read address. A v2 server holds one log, a v1 server one for
// every shard; which ones can change at any time (rotation).
type Server interface {
	// Logs asks the server which logs it holds and for the head of each.
	Logs(ctx context.Context) ([]Served, error)
	// String names the server in logs and errors, without secrets.
	String() string
}

// ErrNotServed reports that a log answered, and that the answer is a refusal: it
// has no such tree, tile or index. A failure to reach it is another error.
var ErrNotServed = fmt.Errorf("not served by the log")
