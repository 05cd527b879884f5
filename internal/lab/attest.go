package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"
)

// SignStatement is SignPublish for a statement of the caller's, as attestations beside
// the publish one are made.
func (c *CA) SignStatement(id Identity, statement string, at time.Time) (Signed, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Signed{}, err
	}
	cert, err := c.Issue(id, &key.PublicKey, at)
	if err != nil {
		return Signed{}, err
	}
	s := Signed{Cert: cert, Statement: []byte(statement)}
	s.PAE = fmt.Appendf(nil, "DSSEv1 28 application/vnd.in-toto+json %d %s", len(s.Statement), s.Statement)
	sum := sha256.Sum256(s.PAE)
	s.Signature, err = ecdsa.SignASN1(rand.Reader, key, sum[:])
	return s, err
}

// LogHidden signs an entry with all that goes with it, time, proof and head, and shows
// it to nobody else: the next leaf takes its place in the log.
func (v *V1) LogHidden(s Signed) (Entry, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	shard := v.shards[len(v.shards)-1]
	place := shard.honest.size()
	times := shard.times
	shard.times = append(times[:len(times):len(times)], v.clock().Unix())
	defer func() { shard.times = times }()
	return v.entry(shard, shard.honest.with(place, s.leafV1()), place)
}
