package monitor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

// MaxNote bounds a signed head in bytes. Cosignatures by ML-DSA take 3.3 KB each,
// so a head with many witnesses still fits.
const MaxNote = 256 << 10

// A Head is a signed checkpoint: what a log said its tree was.
type Head struct {
	Origin string
	Size   uint64 // leaves
	Root   Hash
	Text   string // what the signature covers, extension lines included
	Note   []byte // the whole signed note, byte for byte
	Seen   time.Time
	Source string // who showed it; "" is the log itself

	Cosigned []Cosignature // signature lines by others than the log
}

// frozenLine begins the extension line that a v2 log is given with its last head
// (rekor-tiles, cmd/freeze-checkpoint).
const frozenLine = "Log frozen — "

// Frozen reports whether a v2 log says with this head that it has ended.
func (h Head) Frozen() bool {
	lines := strings.Split(h.Text, "\n")
	return len(lines) > 3 && slices.ContainsFunc(lines[3:], func(l string) bool { return strings.HasPrefix(l, frozenLine) })
}

// SameTree reports whether two heads claim the same tree. Their bytes may differ
// without harm: v1 signs afresh for every request, and a frozen v2 shard has its
// last head signed again with one more line.
func (h Head) SameTree(o Head) bool { return h.Size == o.Size && h.Root == o.Root }

func (h Head) String() string { return fmt.Sprintf("%s size %d root %s", h.Origin, h.Size, h.Root) }

var (
	// ErrMalformedHead is text that is no signed checkpoint of the expected log.
	ErrMalformedHead = errors.New("malformed head")
	// ErrForeignHead is a well-formed checkpoint of the expected origin that
	// no known key of the log has signed.
	ErrForeignHead = errors.New("head is not signed by a known key of the log")
	// ErrUncosigned is a head that the log has signed and that too few of the
	// witnesses have that the policy asks for.
	ErrUncosigned = errors.New("head lacks cosignatures that the witness policy asks for")
)

// ParseHead opens a signed note (C2SP signed-note and tlog-checkpoint) of the log
// with the given origin. The origin line and the name on the signature line are
// two things: v1 signs "HOST - TREEID" under the name "HOST". Signatures by
// other keys are ignored, as the format demands; one by a known key that does
// not verify makes the whole note foreign.
func ParseHead(signed []byte, origin string, keys []note.Verifier) (Head, error) {
	if len(signed) > MaxNote {
		return Head{}, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformedHead, len(signed), MaxNote)
	}
	n, err := note.Open(signed, note.VerifierList(keys...))
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	foreign := false
	switch {
	case errors.As(err, &unverified):
		n, foreign = unverified.Note, true
	case errors.As(err, &invalid):
		// The text is not handed out with this error: cut it off here only
		// to say whose head this pretends to be.
		end := strings.LastIndex(string(signed), "\n\n")
		n, foreign = &note.Note{Text: string(signed[:end+1])}, true
	case err != nil:
		return Head{}, fmt.Errorf("%w: %w", ErrMalformedHead, err)
	}
	var c log.Checkpoint
	if _, err := c.Unmarshal([]byte(n.Text)); err != nil {
		return Head{}, fmt.Errorf("%w: %w", ErrMalformedHead, err)
	}
	if c.Origin != origin {
		return Head{}, fmt.Errorf("%w: origin %q, want %q", ErrMalformedHead, c.Origin, origin)
	}
	if len(c.Hash) != len(Hash{}) {
		return Head{}, fmt.Errorf("%w: root hash of %d bytes", ErrMalformedHead, len(c.Hash))
	}
	h := Head{Origin: origin, Size: c.Size, Root: Hash(c.Hash), Text: n.Text, Note: append([]byte(nil), signed...)}
	if foreign {
		return h, fmt.Errorf("%w: %s", ErrForeignHead, h)
	}
	if h.Size > 1<<62 {
		return Head{}, fmt.Errorf("%w: size %d", ErrMalformedHead, h.Size)
	}
	return h, nil
}
