package pypi

import (
	"errors"
	"net/http"
	"time"
)

// errNoJournal reports an index that serves no journal. Mirrors and most indexes
// besides PyPI have the simple index alone; their listings are read round after round.
var errNoJournal = errors.New("the index has no journal")

// A lacking is the answer of such an index.
type lacking struct{ error }

func (l lacking) Unwrap() error        { return l.error }
func (l lacking) Is(target error) bool { return target == errNoJournal }

// journalAgain is how long such an index is not asked for one again.
const journalAgain = 15 * time.Minute

// lacksJournal tells an index that does not know the journal's calls from one that
// cannot answer now. Indexes say so in many ways: not found, another method, a page
// for people, a fault for the name of the call.
func lacksJournal(err error) bool {
	for _, e := range []error{ErrNotFound, ErrRefused, errElsewhere, errKind} {
		if errors.Is(err, e) {
			return true
		}
	}
	if f := (*Fault)(nil); errors.As(err, &f) {
		return !isLimit(err)
	}
	if s := (*StatusError)(nil); errors.As(err, &s) {
		switch s.Status {
		case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
			return false
		}
		return s.Status < 500 || s.Status == http.StatusNotImplemented
	}
	var u unreadable
	return errors.As(err, &u)
}
