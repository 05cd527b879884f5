package index

import (
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

// A claimed is a publisher that the certificate of an unbound leaf names. The
// certificate has not been checked: whoever makes one up can name anybody.
type claimed struct {
	Publisher
	id  int64  // in claimed_publishers, as of gen; guarded by the writer's turn
	gen uint64 // of claims
}

// claims keeps the publishers that were claimed of late. Nearly every leaf has a
// certificate of its own and a publisher that was there before, so what a publisher
// is made of is compared as it stands in the certificate, and read once.
type claims struct {
	mu    sync.Mutex
	known map[string]*claimed
	gen   uint64 // moves when rows are deleted; guarded by the writer's turn
}

// claimsKept bounds the publishers kept, at half a kilobyte each; maxClaim, in
// bytes, what a certificate may say of one.
const (
	claimsKept = 8192
	maxClaim   = 2048
)

func newClaims() *claims { return &claims{known: make(map[string]*claimed), gen: 1} }

// of returns the publisher that the certificate in the scratch names, nil where it
// cannot be read, and when it was issued in Unix seconds, 0 likewise.
func (c *claims) of(s *Scratch) (*claimed, int64) {
	issued := int64(0)
	s.claim = s.claim[:0]
	if err := walk(s.cert, func(validity der) error {
		issued = notBefore(validity)
		return nil
	}, func(oid, value der) error {
		n := fulcioArc(oid)
		switch {
		case publishes>>n&1 == 1:
		case string(oid) == string(oidSAN):
		default:
			return nil
		}
		s.claim = append(s.claim, byte(n))
		s.claim = binary.BigEndian.AppendUint32(s.claim, uint32(len(value)))
		s.claim = append(s.claim, value...)
		return nil
	}); err != nil || len(s.claim) > maxClaim {
		return nil, issued
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.known[string(s.claim)]; ok {
		return known, issued
	}
	signer, err := ParseSigner(s.cert)
	if err != nil {
		return nil, issued
	}
	if len(c.known) >= claimsKept {
		clear(c.known)
	}
	known := &claimed{Publisher: signer.Publisher()}
	c.known[string(s.claim)] = known
	return known, issued
}

// publishes has a bit for each extension that Signer.Publisher reads.
const publishes = 1<<ExtIssuerV1 | 1<<ExtGitHubRepository | 1<<ExtIssuer | 1<<ExtSourceRepositoryURI | 1<<ExtSourceRepositoryID |
	1<<ExtSourceRepositoryOwnerURI | 1<<ExtSourceRepositoryOwnerID | 1<<ExtBuildConfigURI | 1<<ExtDeploymentEnvironment

// notBefore is the begin of a certificate in Unix seconds; 0 where it is not the
// UTCTime that certificates of this century have.
func notBefore(validity der) int64 {
	text, ok := validity.take(tagUTCTime)
	if !ok || len(text) != len("060102150405Z") || text[12] != 'Z' {
		return 0
	}
	var n [6]int
	for i := range n {
		a, b := text[2*i]-'0', text[2*i+1]-'0'
		if a > 9 || b > 9 {
			return 0
		}
		n[i] = 10*int(a) + int(b)
	}
	return time.Date(2000+n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC).Unix()
}

// claimedID is the row of a publisher, NULL for none. Ids are remembered once their
// transaction has committed; not beside a monitor, which may delete the row.
func (s *Store) claimedID(t *tx, p *claimed) (any, error) {
	if p == nil {
		return nil, nil
	}
	if p.gen == s.claims.gen {
		return p.id, nil
	}
	sum := sha256.Sum256([]byte(p.Key()))
	var id int64
	err := t.get(`SELECT id FROM claimed_publishers WHERE key = ?`, []any{sum[:16]}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		err = t.get(`INSERT INTO claimed_publishers (key, issuer, repository, repository_id, owner, owner_id, workflow, environment, identity)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			[]any{sum[:16], p.Issuer, p.Repository, p.RepositoryID, p.Owner, p.OwnerID, p.Workflow, p.Environment, p.Identity}, &id)
	}
	if err == nil && !s.beside {
		t.then(func() { p.id, p.gen = id, s.claims.gen })
	}
	return id, err
}
