package rekor

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"

	"sigtrail/monitor"
)

const (
	hashSize = 32
	maxTile  = layout.TileWidth * hashSize
)

// Consistency implements monitor.Source from the tiles of the tree of size to.
func (v *V2) Consistency(ctx context.Context, from, to uint64) ([]monitor.Hash, error) {
	if from == 0 || from >= to {
		return nil, fmt.Errorf("consistency of %s from %d to %d: no such proof", v.origin, from, to)
	}
	nodes, err := proof.Consistency(from, to)
	if err != nil {
		return nil, fmt.Errorf("consistency of %s from %d to %d: %w", v.origin, from, to, err)
	}
	hashes, _, err := v.prove(ctx, nodes, to)
	if err != nil {
		return nil, fmt.Errorf("consistency of %s from %d to %d: %w", v.origin, from, to, err)
	}
	return hashes, nil
}

// Inclusion implements monitor.Source: leaf and proof for the head that was asked
// for.
func (v *V2) Inclusion(ctx context.Context, head monitor.Head, index uint64) (monitor.LeafProof, error) {
	nodes, err := proof.Inclusion(index, head.Size)
	if err != nil {
		return monitor.LeafProof{}, fmt.Errorf("leaf %d of %s: %w: %w", index, v.origin, monitor.ErrNotServed, err)
	}
	leaf := make([]monitor.Leaf, 1)
	if _, err := v.bundle(ctx, index/layout.EntryBundleWidth, head.Size, leaf, index); err != nil {
		return monitor.LeafProof{}, fmt.Errorf("leaf %d of %s: %w", index, v.origin, err)
	}
	hashes, full, err := v.prove(ctx, nodes, head.Size)
	if err != nil {
		return monitor.LeafProof{}, fmt.Errorf("proof of leaf %d of %s: %w", index, v.origin, err)
	}
	// Only tiles that have served a proof that holds are worth keeping: a bad
	// one would spoil every later proof until it is pushed out.
	if monitor.VerifyInclusion(index, monitor.HashLeaf(leaf[0].Data), head, hashes) == nil {
		v.tiles.keep(full)
	}
	// The bundle is not to stay in memory for one leaf.
	leaf[0].Data = append([]byte{}, leaf[0].Data...)
	return monitor.LeafProof{Leaf: leaf[0], Size: head.Size, Hashes: hashes}, nil
}

// prove fetches the tiles of the tree of that size that hold the nodes, and puts
// the proof together. The full tiles it read are returned for the cache.
func (v *V2) prove(ctx context.Context, nodes proof.Nodes, size uint64) ([]monitor.Hash, map[tileID][]byte, error) {
	tiles, full, err := v.fetchTiles(ctx, nodes.IDs, size)
	if err != nil {
		return nil, nil, err
	}
	raw := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		if raw[i], err = nodeIn(tiles[tileOf(id)], id); err != nil {
			return nil, nil, err
		}
	}
	raw, err = nodes.Rehash(raw, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		return nil, nil, err
	}
	out := make([]monitor.Hash, len(raw))
	for i, h := range raw {
		out[i] = monitor.Hash(h)
	}
	return out, full, nil
}

type tileID struct{ level, index uint64 }

func tileOf(n compact.NodeID) tileID {
	level, index, _, _ := layout.NodeCoordsToTileAddress(uint64(n.Level), n.Index)
	return tileID{level, index}
}

// fetchTiles reads the tiles that hold the nodes. Those in full are not from the
// cache.
func (v *V2) fetchTiles(ctx context.Context, ids []compact.NodeID, size uint64) (tiles, full map[tileID][]byte, err error) {
	tiles, full = map[tileID][]byte{}, map[tileID][]byte{}
	var missing []tileID
	for _, n := range ids {
		id := tileOf(n)
		if _, known := tiles[id]; known {
			continue
		}
		tiles[id] = v.tiles.get(id)
		if tiles[id] == nil {
			missing = append(missing, id)
		}
	}
	var mu sync.Mutex
	err = inParallel(ctx, v.pace.width(v.concurrency), len(missing), func(ctx context.Context, i int) error {
		raw, whole, err := v.tile(ctx, missing[i], size)
		mu.Lock()
		defer mu.Unlock()
		tiles[missing[i]] = raw
		if whole {
			full[missing[i]] = raw
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for id, raw := range tiles {
		tiles[id] = cut(raw, layout.PartialTileSize(id.level, id.index, size))
	}
	return tiles, full, nil
}

// tile fetches one tile of the tree of that size, whole or as wide as that tree
// has it.
func (v *V2) tile(ctx context.Context, id tileID, size uint64) (raw []byte, full bool, err error) {
	width := layout.PartialTileSize(id.level, id.index, size)
	path := func(p uint8) string { return layout.TilePath(id.level, id.index, p) }
	raw, full, err = v.partialOrFull(ctx, path, width, maxTile, maxTile)
	if err != nil {
		return nil, false, err
	}
	want := int(width) * hashSize
	if full {
		want = maxTile
	}
	if len(raw) != want {
		return nil, false, fmt.Errorf("%s of %s: %w", path(width), v.origin, v.unusable(fmt.Errorf("%d bytes, want %d", len(raw), want)))
	}
	return raw, full, nil
}

// cut makes a full tile the partial one of that width; 0 is full.
func cut(tile []byte, width uint8) []byte {
	if width == 0 {
		return tile
	}
	return tile[:int(width)*hashSize]
}

// nodeIn computes a tree node from the hashes of its tile.
func nodeIn(tile []byte, n compact.NodeID) ([]byte, error) {
	_, _, level, index := layout.NodeCoordsToTileAddress(uint64(n.Level), n.Index)
	from, to := index<<level, (index+1)<<level
	if to*hashSize > uint64(len(tile)) {
		return nil, fmt.Errorf("node %d at level %d is not complete in its tile", n.Index, n.Level)
	}
	row := make([][]byte, 0, to-from)
	for i := from; i < to; i++ {
		row = append(row, tile[i*hashSize:(i+1)*hashSize])
	}
	for len(row) > 1 {
		for i := range len(row) / 2 {
			row[i] = rfc6962.DefaultHasher.HashChildren(row[2*i], row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0], nil
}

// cachedTiles bounds the cache: 2 MiB.
const cachedTiles = 256

// A tileCache keeps the full tiles used last. They never change.
type tileCache struct {
	mu    sync.Mutex
	tiles map[tileID]*list.Element
	used  *list.List // newest first, of cachedTile
}

type cachedTile struct {
	id  tileID
	raw []byte
}

func (c *tileCache) get(id tileID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.tiles[id]
	if e == nil {
		return nil
	}
	c.used.MoveToFront(e)
	return e.Value.(cachedTile).raw
}

func (c *tileCache) keep(tiles map[tileID][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tiles == nil {
		c.tiles, c.used = map[tileID]*list.Element{}, list.New()
	}
	for id, raw := range tiles {
		if c.tiles[id] == nil {
			c.tiles[id] = c.used.PushFront(cachedTile{id, raw})
		}
	}
	for c.used.Len() > cachedTiles {
		delete(c.tiles, c.used.Remove(c.used.Back()).(cachedTile).id)
	}
}
