package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/transparency-dev/merkle/rfc6962"
)

// V1 is a Rekor v1: Merkle trees (shards) under one ECDSA key, a REST interface,
// signed entry timestamps and a search index.
type V1 struct {
	host       string
	clock      func() time.Time
	key, other *ecdsa.PrivateKey

	mu     sync.Mutex
	shards []*shard
	index  map[string][]string      // key in lower case → entry ids
	shifts map[uint64]time.Duration // lies about integrated times, by global index

	searched map[string]int // key in lower case → how often
}

type shard struct {
	*history
	treeID uint64
	key    *ecdsa.PrivateKey
	times  []int64 // integrated time of each leaf
}

// NewV1 makes a log with one empty shard.
func NewV1(host string, clock func() time.Time) (*V1, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	v := &V1{host: host, clock: clock, key: key, other: other, index: make(map[string][]string), shifts: make(map[uint64]time.Duration), searched: make(map[string]int)}
	v.Rotate()
	return v, nil
}

// V1Tree is the tree id of a log's first shard; the others count on from it.
const V1Tree uint64 = 1193050959916656506

// Rotate closes the active shard, if any, and starts a new one.
func (v *V1) Rotate() { v.rotate(v.key) }

// RotateKey is Rotate, and the new shard has a key of its own: that of Rekeyed.
func (v *V1) RotateKey() { v.rotate(v.other) }

func (v *V1) rotate(key *ecdsa.PrivateKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shards = append(v.shards, &shard{history: newHistory(), treeID: V1Tree + uint64(len(v.shards)), key: key})
}

// Active is the shard that takes entries, to make it lie.
func (v *V1) Active() *history {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shards[len(v.shards)-1].history
}

// BadSET serves an entry, by its global index, with a time other than the one that
// its signed entry timestamp is for. Heads and proofs do not tell: the tree does not
// cover the time.
func (v *V1) BadSET(global uint64, shift time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shifts[global] = shift
}

// Honest ends every lie of every shard.
func (v *V1) Honest() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.shifts)
	for _, s := range v.shards {
		s.Honest()
	}
}

// Trusted is the log as a trusted root names it.
func (v *V1) Trusted() TrustedLog {
	spki, id := spkiOf(v.key)
	return TrustedLog{Host: v.host, SPKI: spki, KeyDetails: "PKIX_ECDSA_P256_SHA_256", KeyID: id, From: time.Unix(0, 0)}
}

// Rekeyed is the log as a trusted root would name it under the key that
// SignWithOtherKey signs with.
func (v *V1) Rekeyed() TrustedLog {
	t := v.Trusted()
	t.SPKI, t.KeyID = spkiOf(v.other)
	return t
}

func spkiOf(key *ecdsa.PrivateKey) (spki []byte, id [32]byte) {
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		panic(err) // a P-256 key always marshals
	}
	return spki, sha256.Sum256(spki)
}

// An Entry is a logged leaf with what the log said about it at once.
type Entry struct {
	ID             string // 80 hex digits
	Index          uint64 // in the shard
	Global         uint64
	Body           []byte
	KeyID          [32]byte
	IntegratedTime int64
	SET            []byte
	Size           uint64
	Root           []byte
	Hashes         [][]byte
	Checkpoint     string
}

// Log adds an attestation as a dsse entry and to the search index.
func (v *V1) Log(s Signed) (Entry, error) {
	keys := append(subjects(s.Cert), "sha256:"+hexSum(certPEM(s.Cert)), "sha256:"+hexSum(s.envelope()), "sha256:"+hexSum(s.Statement), "sha256:"+hex.EncodeToString(s.SHA256[:]))
	return v.LogLeaf(s.leafV1(), keys...)
}

// LogUnder is Log with an index that lists the entry under keys alone: the real one
// is written with delay, and not always.
func (v *V1) LogUnder(s Signed, keys ...string) (Entry, error) {
	return v.LogLeaf(s.leafV1(), keys...)
}

// Searched is how often the search index has been asked for a key.
func (v *V1) Searched(key string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.searched[strings.ToLower(key)]
}

// LogFile adds a hashedrekord over a file's own digest, as signing tools do
// outside PyPI. The signature is taken as it is.
func (v *V1) LogFile(digest [32]byte, signature, cert []byte) (Entry, error) {
	leaf := fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"%x"}},"signature":{"content":"%s","publicKey":{"content":"%s"}}}}`,
		digest, b64(signature), b64(certPEM(cert)))
	return v.LogLeaf(leaf, append(subjects(cert), hexSum(certPEM(cert)), "sha256:"+hex.EncodeToString(digest[:]))...)
}

// subjects are a certificate's names, by which entries are indexed too.
func subjects(der []byte) []string {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	names := slices.Clone(cert.EmailAddresses)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	return names
}

// LogLeaf adds any leaf to the active shard, and to the search index under keys.
func (v *V1) LogLeaf(leaf []byte, keys ...string) (Entry, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.add(v.shards[len(v.shards)-1], leaf, keys)
}

// LogInto adds a leaf to a shard of any age: a closed one that has been opened again.
func (v *V1) LogInto(shard int, leaf []byte) (Entry, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.add(v.shards[shard], leaf, nil)
}

func (v *V1) add(s *shard, leaf []byte, keys []string) (Entry, error) {
	idx := s.append(leaf)
	s.times = append(s.times, v.clock().Unix())
	id := entryID(s.treeID, leaf)
	v.addToIndex(id, keys)
	return v.entry(s, s.honest, idx)
}

// Index adds an entry id to the search index under keys, whether or not there is such
// an entry: the index proves nothing.
func (v *V1) Index(id string, keys ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.addToIndex(id, keys)
}

func (v *V1) addToIndex(id string, keys []string) {
	for _, k := range keys {
		k = strings.ToLower(k)
		v.index[k] = append(v.index[k], id)
	}
}

func entryID(treeID uint64, leaf []byte) string {
	return fmt.Sprintf("%016x%x", treeID, rfc6962.DefaultHasher.HashLeaf(leaf))
}

// first is the global index of a shard's leaf 0.
func (v *V1) first(s *shard) uint64 {
	n := uint64(0)
	for _, o := range v.shards {
		if o == s {
			break
		}
		n += o.honest.size()
	}
	return n
}

// entry is a leaf of a tree of the shard, the honest or the shown one.
func (v *V1) entry(s *shard, t *tree, idx uint64) (Entry, error) {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	if idx >= t.size() || idx >= uint64(len(s.times)) {
		return Entry{}, fmt.Errorf("no entry %d", idx)
	}
	_, keyID := spkiOf(s.key)
	e := Entry{Index: idx, Global: v.first(s) + idx, Body: s.leaf(t, idx), KeyID: keyID, IntegratedTime: s.times[idx], Size: t.size()}
	e.ID = entryID(s.treeID, t.leaves[idx])
	e.Root = t.root(e.Size)
	var err error
	if e.Hashes, err = t.inclusion(idx, e.Size); err != nil {
		return Entry{}, err
	}
	if e.Checkpoint, err = v.sign(s, t); err != nil {
		return Entry{}, err
	}
	message := fmt.Sprintf(`{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`, b64(e.Body), e.IntegratedTime, keyID, e.Global)
	sum := sha256.Sum256([]byte(message))
	e.SET, err = ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	e.IntegratedTime += int64(v.shifts[e.Global].Seconds())
	return e, err
}

// sign makes the head of one of the shard's trees, afresh for every request as the real log does. The
// caller holds the history.
func (v *V1) sign(s *shard, t *tree) (string, error) {
	key := s.key
	if s.other {
		key = v.other
	}
	_, id := spkiOf(key)
	size := t.size()
	text := s.text(fmt.Sprintf("%s - %d", v.host, s.treeID), size, t.root(size))
	sum := sha256.Sum256([]byte(text))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	return s.note(text, v.host, id, sig), nil
}

// ServeHTTP answers the calls that a reader makes.
func (v *V1) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch path := strings.TrimPrefix(r.URL.Path, "/api/v1/"); {
	case r.Method == http.MethodGet && path == "log":
		v.serveInfo(w)
	case r.Method == http.MethodGet && path == "log/proof":
		v.serveProof(w, r)
	case r.Method == http.MethodGet && path == "log/publicKey":
		w.Header().Set("Content-Type", "application/x-pem-file")
		spki, _ := spkiOf(v.shards[len(v.shards)-1].key)
		pem.Encode(w, &pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	case r.Method == http.MethodGet && path == "log/entries":
		n, err := strconv.ParseUint(r.URL.Query().Get("logIndex"), 10, 63)
		v.serveOne(w, func(s *shard, _ *tree, i uint64) bool { return err == nil && v.first(s)+i == n })
	case r.Method == http.MethodGet && strings.HasPrefix(path, "log/entries/"):
		id := strings.TrimPrefix(path, "log/entries/")
		v.serveOne(w, func(s *shard, t *tree, i uint64) bool { return v.named(s, t, i, id) })
	case r.Method == http.MethodPost && path == "log/entries/retrieve":
		v.serveRetrieve(w, r)
	case r.Method == http.MethodPost && path == "index/retrieve":
		v.serveIndex(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (v *V1) named(s *shard, t *tree, i uint64, id string) bool {
	full := entryID(s.treeID, t.leaves[i])
	return full == id || full[16:] == id
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, why string) {
	reply(w, status, map[string]any{"code": status, "message": why})
}

func (v *V1) serveInfo(w http.ResponseWriter) {
	infos := make([]map[string]any, len(v.shards))
	for i, s := range v.shards {
		s.history.mu.Lock()
		head, err := v.sign(s, s.shown)
		size := s.shown.size()
		infos[i] = map[string]any{"rootHash": hex.EncodeToString(s.shown.root(size)), "treeSize": size, "signedTreeHead": head, "treeID": fmt.Sprint(s.treeID)}
		s.history.mu.Unlock()
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
	}
	active := infos[len(infos)-1]
	active["inactiveShards"] = infos[:len(infos)-1]
	reply(w, http.StatusOK, active)
}

func (v *V1) serveProof(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, to := uint64(1), uint64(0)
	if q.Has("firstSize") {
		from, _ = strconv.ParseUint(q.Get("firstSize"), 10, 63)
	}
	to, _ = strconv.ParseUint(q.Get("lastSize"), 10, 63)
	s := v.shards[len(v.shards)-1]
	if id := q.Get("treeID"); id != "" {
		i := slices.IndexFunc(v.shards, func(s *shard) bool { return fmt.Sprint(s.treeID) == id })
		if i < 0 {
			refuse(w, http.StatusBadRequest, "unknown tree")
			return
		}
		s = v.shards[i]
	}
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	if from < 1 || from > to || to > s.shown.size() {
		refuse(w, http.StatusBadRequest, "sizes out of range")
		return
	}
	hashes, err := s.shown.consistency(from, to)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	texts := make([]string, len(hashes))
	for i, h := range hashes {
		texts[i] = hex.EncodeToString(h)
	}
	reply(w, http.StatusOK, map[string]any{"rootHash": hex.EncodeToString(s.shown.root(s.shown.size())), "hashes": texts})
}

func (e Entry) answer() map[string]any {
	hashes := make([]string, len(e.Hashes))
	for i, h := range e.Hashes {
		hashes[i] = hex.EncodeToString(h)
	}
	return map[string]any{e.ID: map[string]any{
		"body": b64(e.Body), "integratedTime": e.IntegratedTime, "logID": hex.EncodeToString(e.KeyID[:]), "logIndex": e.Global,
		"verification": map[string]any{
			"signedEntryTimestamp": b64(e.SET),
			"inclusionProof": map[string]any{"checkpoint": e.Checkpoint, "hashes": hashes, "logIndex": e.Index,
				"rootHash": hex.EncodeToString(e.Root), "treeSize": e.Size},
		}}}
}

// find returns the first entry that matches.
func (v *V1) find(match func(s *shard, t *tree, i uint64) bool) (Entry, bool) {
	for _, s := range v.shards {
		t := s.view()
		for i := range t.size() {
			if match(s, t, i) {
				e, err := v.entry(s, t, i)
				return e, err == nil
			}
		}
	}
	return Entry{}, false
}

// at finds an entry by its global index.
func (v *V1) at(global uint64) (Entry, bool) {
	for _, s := range v.shards {
		t := s.view()
		if first := v.first(s); global >= first && global < first+t.size() {
			e, err := v.entry(s, t, global-first)
			return e, err == nil
		}
	}
	return Entry{}, false
}

func (v *V1) serveOne(w http.ResponseWriter, match func(s *shard, t *tree, i uint64) bool) {
	e, ok := v.find(match)
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	reply(w, http.StatusOK, e.answer())
}

func (v *V1) serveRetrieve(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Indexes []uint64 `json:"logIndexes"`
		IDs     []string `json:"entryUUIDs"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&q); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if n := len(q.Indexes) + len(q.IDs); n == 0 || n > 10 {
		refuse(w, http.StatusUnprocessableEntity, "1 to 10 entries")
		return
	}
	if q.Indexes != nil && len(q.Indexes) == 0 || q.IDs != nil && len(q.IDs) == 0 {
		refuse(w, http.StatusUnprocessableEntity, "a list in body should have at least 1 items")
		return
	}
	answers := []any{}
	for _, id := range q.IDs {
		if e, ok := v.find(func(s *shard, t *tree, i uint64) bool { return v.named(s, t, i, id) }); ok {
			answers = append(answers, e.answer())
		}
	}
	for _, n := range slices.Backward(q.Indexes) { // not in the order of the request
		if e, ok := v.at(n); ok {
			answers = append(answers, e.answer())
		}
	}
	reply(w, http.StatusOK, answers)
}

// serveIndex answers a query by hash, e-mail address or certificate name, or for all
// that match any of them.
func (v *V1) serveIndex(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Hash    string `json:"hash"`
		Email   string `json:"email"`
		Subject string `json:"subject"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&q); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if _, err := mail.ParseAddress(q.Email); q.Email != "" && err != nil {
		refuse(w, http.StatusUnprocessableEntity, "email in body must be of type email")
		return
	}
	if utf8.RuneCountInString(q.Subject) > 512 {
		refuse(w, http.StatusUnprocessableEntity, "subject in body should be at most 512 chars long")
		return
	}
	ids := []string{}
	for _, key := range []string{q.Hash, q.Email, q.Subject} {
		v.searched[strings.ToLower(key)]++
		ids = append(ids, v.index[strings.ToLower(key)]...)
	}
	slices.Sort(ids)
	reply(w, http.StatusOK, slices.Compact(ids))
}

// keyIDv2 is C2SP signed-note's key id for Ed25519, whole.
func keyIDv2(name string, key []byte) [32]byte {
	return sha256.Sum256(append([]byte(name+"\n\x01"), key...))
}
