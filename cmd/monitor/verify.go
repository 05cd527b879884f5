package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"sigtrail/pypi"
	"sigtrail/rekor"
)

var _ pypi.Roots = (*trustKeeper)(nil)

// Current is the newest root with its SHA-256 in hex; nil as long as there is none.
func (t *trustKeeper) Current() (pypi.BundleVerifier, string) {
	r := t.current()
	if r == nil {
		return nil, ""
	}
	return r, rootName(r)
}

func rootName(r *rekor.Trust) string {
	sum := sha256.Sum256(r.RawJSON())
	return hex.EncodeToString(sum[:])
}

// InUse is the kept root of the same source that was in use at a time; nil if none
// was, or if it is the current one. What another configuration trusted counts for
// nothing.
func (t *trustKeeper) InUse(ctx context.Context, at time.Time) (pypi.BundleVerifier, string, error) {
	kept, ok, err := t.store.TrustedRootAt(ctx, t.source(), at)
	if err != nil || !ok {
		return nil, "", err
	}
	if r := t.current(); r != nil && rootName(r) == kept.SHA256 {
		return nil, "", nil
	}
	r, err := rekor.ParseTrust([]byte(kept.Body))
	if err != nil {
		return nil, "", nil // recall has said so
	}
	return r, kept.SHA256, nil
}
