package index

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// However many malformed leaves a log holds: all are covered and counted, the first
// ones are kept, and the good one behind them is bound.
func TestMalformedAreBounded(t *testing.T) {
	s := openTest(t, Options{})
	f := aFile("p", "1")
	listFiles(t, s, "p", 1, f)
	tr := begin(t, s, testLog)
	for range 3 {
		leaves := make([][]byte, maxMalformed)
		for i := range leaves {
			leaves[i] = fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"dsse","spec":{"%d":1}`, i)
		}
		ok(t, s.Commit(t.Context(), tr.batch(t, leaves...)))
	}
	last := tr.batch(t, []byte("{"+strings.Repeat("\xe2\x82\xac", 1000)), newSigning(t, "o/r").attest(t, f))
	ok(t, s.Commit(t.Context(), last))
	expectRows(t, s, `p-1.tar.gz 3001 statement P1/pae true ""`)
	if n := countRows(t, s, `SELECT count(*) FROM malformed`); n != maxMalformed {
		t.Errorf("%d malformed leaves on record, want %d", n, maxMalformed)
	}
	st, err := s.LogStatuses(t.Context())
	ok(t, err)
	if *st[0].Next != 3002 {
		t.Errorf("position %d, want 3002", *st[0].Next)
	}
	var w sifting
	w.malform(last.Leaves[0], last.Hashes[0], fmt.Errorf("%w: %s", ErrMalformed, last.Leaves[0].Data))
	if why := w.malformed[0].why; len(why) > maxWhy+3 || !utf8.ValidString(why) {
		t.Errorf("reason of %d bytes: %q", len(why), why)
	}
}
