package index

import (
	"container/list"
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// trustCacheSize bounds the answers kept. A signing job uses one certificate for
// all its files, and they are logged within minutes of each other.
const trustCacheSize = 4096

// A trustCache asks for each certificate once: a chain check costs a millisecond.
type trustCache struct {
	trust Trust

	mu     sync.Mutex
	recent *list.List // of *trustAnswer, the last used first
	known  map[trustKey]*list.Element
}

// A trustKey is a certificate and a time to ten minutes: what the trusted root
// accepted then it accepts a moment later. Whether the time lies within the
// certificate's own validity is checked exactly, and each time.
type trustKey struct {
	fingerprint [32]byte
	slot        int64
}

type trustAnswer struct {
	key trustKey
	why string
}

func newTrustCache(t Trust) *trustCache {
	return &trustCache{trust: t, recent: list.New(), known: make(map[trustKey]*list.Element)}
}

// check returns "" when the certificate leads to the trusted root at that time,
// else why not.
func (c *trustCache) check(s *Signer, at time.Time) string {
	if c.trust == nil {
		return "there is no trusted root to check against"
	}
	if at.Before(s.NotBefore) || at.After(s.NotAfter) {
		return fmt.Sprintf("logged at %s, outside the certificate's validity from %s to %s",
			at.UTC().Format(time.RFC3339), s.NotBefore.UTC().Format(time.RFC3339), s.NotAfter.UTC().Format(time.RFC3339))
	}
	key := trustKey{s.Fingerprint, at.Unix() / 600}
	c.mu.Lock()
	if e := c.known[key]; e != nil {
		defer c.mu.Unlock()
		c.recent.MoveToFront(e)
		return e.Value.(*trustAnswer).why
	}
	c.mu.Unlock()
	why := c.chain(s.DER, at)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[key] == nil {
		c.known[key] = c.recent.PushFront(&trustAnswer{key, why})
	}
	if c.recent.Len() > trustCacheSize {
		delete(c.known, c.recent.Remove(c.recent.Back()).(*trustAnswer).key)
	}
	return why
}

func (c *trustCache) chain(der []byte, at time.Time) string {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "unreadable certificate: " + err.Error()
	}
	if err := c.trust.Chain(cert, at); err != nil {
		return orUnknown(err.Error())
	}
	return ""
}

// orUnknown keeps a reason from reading as "none".
func orUnknown(why string) string {
	if why == "" {
		return "failed without a reason"
	}
	return why
}

// forget drops every answer: the trusted root has changed.
func (c *trustCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent.Init()
	clear(c.known)
}
