package index

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A span covers the certificates that a publisher had for a project. Whoever only
// claims to be the publisher, or only copied a hash, does not widen it.
func TestSpans(t *testing.T) {
	trust := &fakeTrust{}
	clock := storeEpoch
	s := openTest(t, Options{Trust: trust, Now: func() time.Time { return clock }})
	first, second, forged := named(aFile("p", "1")), aFile("p", "2"), aFile("p", "3")
	listFiles(t, s, "p", 1, first, second, forged)
	listFiles(t, s, "q", 2, aFile("q", "1"))
	l := begin(t, s, testLog)

	ok(t, s.Commit(t.Context(), l.batch(t, newSigningAt(t, "o/r", storeEpoch.Add(2*time.Hour)).attest(t, second))))
	clock = clock.Add(time.Hour)
	ok(t, s.Commit(t.Context(), l.batch(t, newSigningAt(t, "o/r", storeEpoch.Add(time.Hour)).attest(t, first), newSigning(t, "o/other").attest(t, aFile("q", "1")))))
	clock = clock.Add(time.Hour)
	by := newSigningAt(t, "o/r", storeEpoch.Add(9*time.Hour))
	broken := by
	broken.key = newSigning(t, "o/r").key // logged by somebody without the certificate's key
	trust.chain = errors.New("not of this root")
	ok(t, s.Commit(t.Context(), l.batch(t, newSigningAt(t, "o/r", storeEpoch.Add(8*time.Hour)).attest(t, first))))
	trust.chain = nil
	ok(t, s.Commit(t.Context(), l.batch(t, broken.attest(t, forged))))

	want := []Span{{Project: "p", SignedFirst: storeEpoch.Add(time.Hour), SignedLast: storeEpoch.Add(2 * time.Hour), SeenFirst: storeEpoch, SeenLast: storeEpoch.Add(time.Hour)}}
	check := func(when string) {
		t.Helper()
		got, err := s.ProjectSpans(t.Context(), "", "p")
		ok(t, err)
		for i := range got {
			if got[i].Publisher.Repository != "https://github.com/o/r" {
				t.Errorf("%s: publisher %s", when, got[i].Publisher)
			}
			got[i].Publisher = Publisher{}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", when, d)
		}
	}
	check("tailed")

	// The certificate turns out to be good under a later root.
	ok(t, s.Reexamine(t.Context()))
	want[0].SignedLast, want[0].SeenLast = storeEpoch.Add(8*time.Hour), storeEpoch.Add(2*time.Hour)
	check("examined again")

	both, err := s.PublisherSpans(t.Context(), "https://token.actions.githubusercontent.com", "42")
	ok(t, err)
	if len(both) != 2 || both[0].Project != "p" || both[1].Project != "q" {
		t.Errorf("spans of one repository id: %+v", both)
	}

	// As a database of before has it.
	for _, forget := range []string{`DELETE FROM project_publishers`, `UPDATE signers SET not_before = NULL`} {
		_, err := s.writer.conn.ExecContext(t.Context(), forget)
		ok(t, err)
	}
	tx, err := s.writer.conn.BeginTx(t.Context(), nil)
	ok(t, err)
	ok(t, fillSpans(t.Context(), tx))
	ok(t, tx.Commit())
	check("migrated")
}
