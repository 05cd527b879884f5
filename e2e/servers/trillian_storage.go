package servers

import (
	"context"
	"sync"
	"time"

	"github.com/google/trillian"
	"github.com/google/trillian/storage"
	"google.golang.org/protobuf/proto"
)

// alone lets one transaction at a time into Trillian's in-memory storage. The
// storage lets readers of a tree run side by side, and each of them changes what
// they share (a B-tree clones itself copy-on-write, and a reader's commit writes).
type alone struct {
	storage.LogStorage
	mu *sync.Mutex
}

// SnapshotForTree starts a read transaction. The storage hands one out beside an
// error when a tree has not been initialised, and then too it has to be closed.
func (a alone) SnapshotForTree(ctx context.Context, tree *trillian.Tree) (storage.ReadOnlyLogTreeTX, error) {
	a.mu.Lock()
	tx, err := a.LogStorage.SnapshotForTree(ctx, tree)
	if tx == nil {
		a.mu.Unlock()
		return nil, err
	}
	return &snapshot{ReadOnlyLogTreeTX: tx, end: sync.OnceFunc(a.mu.Unlock)}, err
}

func (a alone) ReadWriteTransaction(ctx context.Context, tree *trillian.Tree, f storage.LogTXFunc) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.LogStorage.ReadWriteTransaction(ctx, tree, f)
}

func (a alone) QueueLeaves(ctx context.Context, tree *trillian.Tree, leaves []*trillian.LogLeaf, at time.Time) ([]*trillian.QueuedLogLeaf, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	queued, err := a.LogStorage.QueueLeaves(ctx, tree, leaves, at)
	// The storage keeps the very leaves that it hands back, and the sequencer
	// goes on to write into them while the server still encodes its answer.
	for _, q := range queued {
		if q != nil && q.Leaf != nil {
			q.Leaf = proto.Clone(q.Leaf).(*trillian.LogLeaf)
		}
	}
	return queued, err
}

// A snapshot gives the storage back when it ends. Users commit it and close it,
// or only close it.
type snapshot struct {
	storage.ReadOnlyLogTreeTX
	end func()
}

func (s *snapshot) Commit(ctx context.Context) error {
	defer s.end()
	return s.ReadOnlyLogTreeTX.Commit(ctx)
}

func (s *snapshot) Close() error {
	defer s.end()
	return s.ReadOnlyLogTreeTX.Close()
}
