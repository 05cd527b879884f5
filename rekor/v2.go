package rekor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/mod/sumdb/note"

	"sigtrail/monitor"
)

// A V2 reads one Rekor v2 log (C2SP tlog-tiles). Proofs are computed here, from
// tiles; the interface has no call for them.
type V2 struct {
	*fetcher
	base        *url.URL
	origin      string
	url         string
	keys        func() []Tlog // at least one
	concurrency int
	tiles       tileCache
	bundleSize  atomic.Int64 // length of the last full bundle
}

var (
	_ monitor.Server = (*V2)(nil)
	_ monitor.Source = (*V2)(nil)
)

// NewV2 makes a reader of the v2 log whose "checkpoint" is directly under o.URL. It
// asks nothing yet.
func NewV2(o Options) (*V2, error) {
	o, u, err := o.withDefaults(monitor.V2)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	f, err := newFetcher(o, redact(o.URL))
	if err != nil {
		return nil, err
	}
	return &V2{fetcher: f, base: u, origin: o.Origin, url: redact(o.URL), keys: func() []Tlog { return o.keys(monitor.V2) }, concurrency: o.Concurrency}, nil
}

// String is the read address.
func (v *V2) String() string { return v.url }

// Logs asks for the log's head.
func (v *V2) Logs(ctx context.Context) ([]monitor.Served, error) {
	signed, err := v.get(ctx, "checkpoint", monitor.MaxNote, 1024)
	if errors.Is(err, monitor.ErrNotServed) {
		err = fmt.Errorf("%w; the read address must be the prefix that \"checkpoint\" is under, mostly HOST/api/v2/", err)
	}
	if err != nil {
		return nil, fmt.Errorf("head of %s: %w", v.origin, err)
	}
	if first, _, _ := strings.Cut(string(signed), "\n"); first != v.origin {
		return nil, fmt.Errorf("head of %s: %w", v.origin, v.unusable(fmt.Errorf("it begins with %.80q; is this the address of the log?", first)))
	}
	key := v.keyOf(string(signed))
	return []monitor.Served{{
		Log:      monitor.Log{Origin: v.origin, KeyID: key.KeyID, API: monitor.V2, URL: v.url, Key: key.VKey},
		Note:     signed,
		Verifier: []note.Verifier{key.Verifier},
		Ends:     key.Until,
		Source:   v,
	}}, nil
}

// keyOf is the known key whose hint is on a head, else the first.
func (v *V2) keyOf(head string) Tlog {
	keys := v.keys()
	for _, k := range keys {
		if signedBy(head, k.Verifier) {
			return k
		}
	}
	return keys[0]
}

// get fetches one resource. ErrNotServed when the log says it has none.
func (v *V2) get(ctx context.Context, path string, limit int64, hint int) ([]byte, error) {
	u := *v.base
	u.Path += path
	body, _, err := v.do(ctx, ask{method: http.MethodGet, url: &u, limit: limit, hint: hint})
	if refused(err, http.StatusNotFound, http.StatusGone) {
		err = fmt.Errorf("%w: %w", monitor.ErrNotServed, err)
	}
	return body, err
}

// partialOrFull fetches a resource that is width entries wide in some tree, 0 for
// full. A log may delete a partial one as soon as the full one exists; then the
// full one is fetched, and full says so.
func (v *V2) partialOrFull(ctx context.Context, path func(p uint8) string, width uint8, limit int64, hint int) (raw []byte, full bool, err error) {
	raw, err = v.get(ctx, path(width), limit, hint)
	if width == 0 || !errors.Is(err, monitor.ErrNotServed) {
		return raw, width == 0, err
	}
	raw, err = v.get(ctx, path(0), limit, hint)
	return raw, true, err
}

// maxRunBundles bounds the bundles of one call of Leaves.
const maxRunBundles = 256

// Leaves implements monitor.Source. The leaves are slices of the bundles as they
// were read: whoever keeps one for long keeps its whole bundle, so copy it then.
func (v *V2) Leaves(ctx context.Context, head monitor.Head, from, to uint64) ([]monitor.Leaf, error) {
	to = min(to, head.Size)
	if from >= to {
		return nil, fmt.Errorf("leaves %d to %d of %s: no such leaves in a tree of %d", from, to, v.origin, head.Size)
	}
	const width = layout.EntryBundleWidth
	first := from / width
	to = min(to, (first+maxRunBundles)*width)
	leaves := make([]monitor.Leaf, to-from)
	var read atomic.Int64
	err := inParallel(ctx, v.pace.width(v.concurrency), int((to-1)/width-first)+1, func(ctx context.Context, i int) error {
		if i > 0 && read.Load() > maxRunBytes {
			return errEnough
		}
		b := first + uint64(i)
		start, end := max(from, b*width), min(to, (b+1)*width)
		n, err := v.bundle(ctx, b, head.Size, leaves[start-from:end-from], start)
		read.Add(int64(n))
		return err
	})
	if n := run(leaves); n > 0 {
		return leaves[:n], nil
	}
	return nil, fmt.Errorf("leaf %d of %s: %w", from, v.origin, err)
}

// bundle reads the leaves from index first on that lie in bundle b, and returns
// the length of the bundle in bytes.
func (v *V2) bundle(ctx context.Context, b, size uint64, into []monitor.Leaf, first uint64) (int, error) {
	width := layout.PartialTileSize(0, b, size)
	path := func(p uint8) string { return layout.EntriesPath(b, p) }
	raw, full, err := v.partialOrFull(ctx, path, width, maxBundle, int(v.bundleSize.Load()))
	if err != nil {
		return 0, err
	}
	n := int(width)
	if full {
		n = layout.EntryBundleWidth
		v.bundleSize.Store(int64(len(raw)) * 9 / 8)
	}
	if err := splitBundle(raw, n, into, int(first-b*layout.EntryBundleWidth), first); err != nil {
		clear(into)
		return len(raw), fmt.Errorf("%s of %s: %w", path(width), v.origin, v.unusable(err))
	}
	return len(raw), nil
}
