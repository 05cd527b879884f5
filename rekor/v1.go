package rekor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-openapi/strfmt"
	"github.com/sigstore/rekor/pkg/generated/client"
	"github.com/sigstore/rekor/pkg/generated/models"
	"golang.org/x/mod/sumdb/note"

	"sigtrail/monitor"
)

// A V1 reads a Rekor v1 server (sigstore/rekor, openapi.yaml): a log for each of
// its shards, and its search index.
type V1 struct {
	*fetcher
	api         *client.Rekor
	origin      string
	url         string
	keys        func() []Tlog // at least one
	concurrency int
	runBytes    int64 // see maxRunBytes
}

var (
	_ monitor.Server = (*V1)(nil)
	_ monitor.Source = (*shard)(nil)
)

// ErrNoIndex reports that a v1 server has no search index, or none for the public.
var ErrNoIndex = errors.New("the log has no search index")

// NewV1 makes a reader of the v1 server at o.URL. It asks nothing yet.
func NewV1(o Options) (*V1, error) {
	o, u, err := o.withDefaults(monitor.V1)
	if err != nil {
		return nil, err
	}
	f, err := newFetcher(o, redact(o.URL))
	if err != nil {
		return nil, err
	}
	return &V1{fetcher: f, api: newV1Client(f, u), origin: o.Origin, url: redact(o.URL), keys: func() []Tlog { return o.keys(monitor.V1) }, concurrency: o.Concurrency, runBytes: maxRunBytes}, nil
}

// String is the read address.
func (v *V1) String() string { return v.url }

// Logs asks for the server's shards, oldest first, the active one last.
func (v *V1) Logs(ctx context.Context) ([]monitor.Served, error) {
	info, err := v.getInfo(ctx)
	if err != nil {
		return nil, fmt.Errorf("log info: %w", err)
	}
	logs, err := v.shards(info)
	if err != nil {
		return nil, fmt.Errorf("log info: %w", v.unusable(err))
	}
	return logs, nil
}

// shards reads a log info. The server's global index of a shard's first leaf is the
// sum of the sizes of the older shards.
func (v *V1) shards(info *models.LogInfo) ([]monitor.Served, error) {
	if info == nil {
		return nil, errors.New("empty")
	}
	var out []monitor.Served
	var first uint64
	seen := map[uint64]bool{}
	add := func(treeID, head *string, closed bool) error {
		s, size, err := v.shard(treeID, head)
		if err != nil {
			return err
		}
		if seen[s.Log.TreeID] {
			return fmt.Errorf("tree %d is listed twice", s.Log.TreeID)
		}
		if size > math.MaxInt64-first {
			return fmt.Errorf("tree %d: size %d", s.Log.TreeID, size)
		}
		seen[s.Log.TreeID] = true
		s.Log.FirstGlobal, s.Log.Closed = first, closed
		s.Source = &shard{v: v, log: s.Log}
		first += size
		out = append(out, s)
		return nil
	}
	for i, s := range info.InactiveShards {
		if s == nil {
			return nil, fmt.Errorf("inactive shard %d: empty", i)
		}
		if err := add(s.TreeID, s.SignedTreeHead, true); err != nil {
			return nil, fmt.Errorf("inactive shard %d: %w", i, err)
		}
	}
	if err := add(info.TreeID, info.SignedTreeHead, false); err != nil {
		return nil, fmt.Errorf("active shard: %w", err)
	}
	return out, nil
}

// shard reads one shard of a log info. Size and root come from the signed head;
// the same figures beside it are signed by nobody and not looked at.
func (v *V1) shard(treeID, head *string) (monitor.Served, uint64, error) {
	if treeID == nil || head == nil {
		return monitor.Served{}, 0, errors.New("no tree id or no head")
	}
	id, err := parseTreeID(*treeID)
	if err != nil {
		return monitor.Served{}, 0, err
	}
	if len(*head) > monitor.MaxNote {
		return monitor.Served{}, 0, fmt.Errorf("head of %d bytes", len(*head))
	}
	origin, size, err := noteLines(*head)
	if err != nil {
		return monitor.Served{}, 0, err
	}
	if want := v.originOf(id); origin != want {
		return monitor.Served{}, 0, fmt.Errorf("tree %d has the head of %.200q, want %q", id, origin, want)
	}
	key := v.keyOf(*head)
	return monitor.Served{
		Log:      monitor.Log{Origin: origin, KeyID: key.KeyID, API: monitor.V1, URL: v.url, Key: key.VKey, TreeID: id},
		Note:     []byte(*head),
		Verifier: []note.Verifier{key.Verifier},
		Ends:     key.Until,
	}, size, nil
}

func (v *V1) originOf(treeID uint64) string {
	return v.origin + " - " + strconv.FormatUint(treeID, 10)
}

// keyOf is the known key whose hint is on a head, else the newest one: then the
// head will be found foreign. One key only: two keys that sign for one tree would
// be two histories of it.
func (v *V1) keyOf(head string) Tlog {
	keys := v.keys()
	for _, k := range keys {
		if signedBy(head, k.Verifier) {
			return k
		}
	}
	return slices.MaxFunc(keys, func(a, b Tlog) int { return a.From.Compare(b.From) })
}

// signedBy reports whether a note bears a signature line of that name and key
// hint, valid or not.
func signedBy(signed string, k note.Verifier) bool {
	_, err := note.Open([]byte(signed), note.VerifierList(k))
	var invalid *note.InvalidSignatureError
	return err == nil || errors.As(err, &invalid)
}

// noteLines reads the first two lines of a checkpoint, unverified.
func noteLines(signed string) (origin string, size uint64, err error) {
	origin, rest, ok := strings.Cut(signed, "\n")
	line, _, ok2 := strings.Cut(rest, "\n")
	if !ok || !ok2 {
		return "", 0, errors.New("head without the lines of a checkpoint")
	}
	size, err = strconv.ParseUint(line, 10, 63)
	if err != nil {
		return "", 0, fmt.Errorf("head with size %.40q", line)
	}
	return origin, size, nil
}

// parseTreeID reads a tree id as v1 prints it: decimal, without leading zeroes.
func parseTreeID(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 10, 63)
	if err != nil || id == 0 || strconv.FormatUint(id, 10) != s {
		return 0, fmt.Errorf("tree id %.40q", s)
	}
	return id, nil
}

var (
	hashQuery = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$`)
	entryID   = regexp.MustCompile(`^([0-9a-f]{16})?[0-9a-f]{64}$`)
)

// Search asks the search index for the ids of entries under a hash, "sha256:HEX" in
// lower case: of a file, a payload, a subject of an attestation. The index is best
// effort; an empty answer proves nothing. ErrNoIndex when there is no index.
func (v *V1) Search(ctx context.Context, hash string) ([]string, error) {
	if !hashQuery.MatchString(hash) {
		return nil, fmt.Errorf("searching the log for %.150q: want sha256:HEX", hash)
	}
	return v.search(ctx, hash, &models.SearchIndex{Hash: hash})
}

// maxSubject is the longest subject, in characters, that a server takes.
const maxSubject = 512

// ErrSubject is a name that no server can be asked for.
var ErrSubject = errors.New("the search index cannot be asked for this name")

// SearchSubject asks the search index for the ids of entries whose certificate bears
// a name: a whole SAN, the e-mail address of a person or the URI of a workflow with
// its "@refs/…". Case does not count, beginnings do not match. The index is best
// effort, and a server before v1.5.4 answers nothing for names that are no e-mail
// addresses; an empty answer proves nothing. Anybody can log a certificate with
// anybody's name. Errors: ErrSubject for a name that cannot be asked for, ErrNoIndex
// when there is no index, ErrTooLarge for more than some 50,000 entries.
func (v *V1) SearchSubject(ctx context.Context, san string) ([]string, error) {
	if !utf8.ValidString(san) || san == "" || utf8.RuneCountInString(san) > maxSubject {
		return nil, fmt.Errorf("%w: %.150q: want 1 to %d characters of UTF-8", ErrSubject, san, maxSubject)
	}
	query := &models.SearchIndex{Subject: san}
	if strfmt.IsEmail(san) {
		query = &models.SearchIndex{Email: strfmt.Email(san)} // all versions know this one
	}
	return v.search(ctx, strconv.Quote(san), query)
}

// search asks the search index; what is for errors.
func (v *V1) search(ctx context.Context, what string, query *models.SearchIndex) ([]string, error) {
	ids, err := v.searchIndex(ctx, query)
	if refused(err, http.StatusNotFound, http.StatusNotImplemented) {
		return nil, fmt.Errorf("%w: %w", ErrNoIndex, err)
	}
	if err != nil {
		return nil, fmt.Errorf("searching the log for %s: %w", what, err)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	for _, id := range ids {
		if !entryID.MatchString(id) {
			return nil, fmt.Errorf("searching the log for %s: entry id %.100q", what, id)
		}
	}
	return ids, nil
}

// MaxEntries is how many entries a v1 server gives in one answer.
const MaxEntries = 10

// Entries fetches entries by global index and by id (64 or 80 hex digits), at most
// MaxEntries in all, with their proofs. What the server does not have is left out,
// and so is what it sends unasked. Entries that came come with an error too, when
// others that were asked for may be among what could not be read.
func (v *V1) Entries(ctx context.Context, globals []uint64, ids []string) ([]Found, error) {
	if n := len(globals) + len(ids); n == 0 || n > MaxEntries {
		return nil, fmt.Errorf("asking for %d entries: want 1 to %d", n, MaxEntries)
	}
	wanted := map[uint64]bool{}
	var indexes []int64
	for _, g := range globals {
		if g > math.MaxInt64 {
			return nil, fmt.Errorf("asking for entry %d: no such index", g)
		}
		wanted[g], indexes = true, append(indexes, int64(g))
	}
	named := map[string]bool{}
	for _, id := range ids {
		if !entryID.MatchString(id) {
			return nil, fmt.Errorf("asking for entry %.100q: want 64 or 80 hex digits", id)
		}
		named[leafPart(id)] = true
	}
	answer, err := v.retrieve(ctx, indexes, ids)
	if err != nil {
		return nil, fmt.Errorf("entries of %s: %w", v, err)
	}
	var out []Found
	var unread error
	got, answered := map[string]bool{}, map[string]bool{} // by entry id; by index or leaf hash, once each
	for _, e := range answer {
		f, err := v.found(e)
		if err != nil {
			unread = err
			continue
		}
		asked := wanted[f.Global] || named[leafPart(f.EntryID)]
		if wanted[f.Global] {
			answered[strconv.FormatUint(f.Global, 10)] = true
		}
		if named[leafPart(f.EntryID)] {
			answered[leafPart(f.EntryID)] = true
		}
		if asked && !got[f.EntryID] {
			got[f.EntryID] = true
			out = append(out, f)
		}
	}
	if unread != nil && len(answered) < len(wanted)+len(named) {
		return out, fmt.Errorf("entries of %s: %w", v, unread)
	}
	return out, nil
}

func leafPart(id string) string { return id[len(id)-2*len(monitor.Hash{}):] }

// fullID is an entry id with its tree: 16 hex digits of the tree id, then the leaf
// hash. The same leaf can be in two shards, so the short form names too little.
func fullID(treeID uint64, id string) string {
	return fmt.Sprintf("%016x", treeID) + leafPart(id)
}

// treeOf is the tree that an entry id names; false when it names a leaf alone.
func treeOf(id string) (uint64, bool) {
	tree, err := strconv.ParseUint(strings.TrimSuffix(id, leafPart(id)), 16, 64)
	return tree, err == nil
}
