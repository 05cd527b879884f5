package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

// A suspect is a v2 log, and a keeper that looks at its heads.
type suspect struct {
	*testing.T
	*monitor.Keeper
	log    *lab.V2
	server *rekor.V2
	store  *index.Store
	now    time.Time
	ends   time.Time
	silent error // why no proof is served; nil: they are
}

func newSuspect(t *testing.T) *suspect {
	t.Helper()
	l := must(lab.New(lab.Options{}))
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s := &suspect{T: t, log: l.V2, now: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)}
	s.server = must(rekor.NewV2(rekor.Options{URL: "http://log.test/api/v2/", Origin: lab.V2Origin, Keys: must(rekor.ParseTrust(l.TrustedRootJSON())).Tlogs,
		Log: log, HTTP: &http.Client{Transport: direct{l.V2}}}))
	s.store = must(index.Open(t.Context(), filepath.Join(t.TempDir(), "sigtrail.db"), index.Options{Log: log}))
	t.Cleanup(func() { s.store.Close() })
	s.Keeper = &monitor.Keeper{Store: s.store, Log: log, Now: func() time.Time { return s.now }, Metrics: monitor.NewMetrics(prometheus.NewRegistry(), time.Now),
		Patience: time.Millisecond, Grace: 15 * time.Minute}
	return s
}

func (s *suspect) grow(n int) {
	for range n {
		s.log.LogLeaf(fmt.Appendf(nil, "leaf %d", s.log.Size()))
	}
}

func (s *suspect) served() monitor.Served {
	s.Helper()
	served := must(s.server.Logs(s.Context()))[0]
	served.Source, served.Ends = &sulker{served.Source, &s.silent}, s.ends
	return served
}

// look takes the head that the log shows now.
func (s *suspect) look() error {
	s.Helper()
	served := s.served()
	_, err := s.Check(s.Context(), served, served.Note)
	return err
}

// convicted fails the test unless err is a contradiction between a head of that
// size and others.
func (s *suspect) convicted(err error, kind string, size uint64) {
	s.Helper()
	c := (*monitor.Contradiction)(nil)
	if !errors.As(err, &c) || c.Kind != kind || c.Theirs.Size != size && c.Ours.Size != size {
		s.Errorf("got %v, want %s about a head of size %d", err, kind, size)
	}
}

// A sulker serves no proofs while there is a reason not to.
type sulker struct {
	monitor.Source
	why *error
}

func (s *sulker) Consistency(ctx context.Context, from, to uint64) ([]monitor.Hash, error) {
	if *s.why != nil {
		return nil, *s.why
	}
	return s.Source.Consistency(ctx, from, to)
}

// A larger head of another history that was shown once, without a proof, is held
// against what the log shows later.
func TestLargerForkShownOnce(t *testing.T) {
	for name, silence := range map[string]error{"refuses": monitor.ErrNotServed, "hangs up": errors.New("connection reset")} {
		t.Run(name, func(t *testing.T) {
			s := newSuspect(t)
			s.grow(3)
			if err := s.look(); err != nil {
				t.Fatal(err)
			}
			s.grow(2)
			s.log.ForkAt(4)
			s.silent = silence
			if err := s.look(); !errors.Is(err, silence) {
				t.Fatalf("without a proof: %v", err)
			}
			s.log.Honest()
			s.silent = nil
			s.grow(1)
			s.convicted(s.look(), monitor.Inconsistent, 5)
			if err := s.look(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// A smaller head of another history is not hidden by an honest one that was shown
// before it.
func TestForkBehindStaleHead(t *testing.T) {
	s := newSuspect(t)
	s.grow(6)
	if err := s.look(); err != nil {
		t.Fatal(err)
	}
	s.silent = monitor.ErrNotServed
	s.log.Stale(3)
	if err := s.look(); !errors.Is(err, monitor.ErrNotServed) {
		t.Fatalf("stale: %v", err)
	}
	s.log.ShrinkTo(4)
	if err := s.look(); !errors.Is(err, monitor.ErrNotServed) {
		t.Fatalf("forked: %v", err)
	}
	s.silent = nil
	s.log.Honest()
	s.convicted(s.look(), monitor.Inconsistent, 4)
	if err := s.look(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Heads that too few witnesses have cosigned do not count, and are still the log's
// word.
func TestUncosignedFork(t *testing.T) {
	for _, grown := range []int{0, 1} {
		t.Run(fmt.Sprint(grown, " more leaves"), func(t *testing.T) {
			s := newSuspect(t)
			w := must(lab.NewWitness("witness.example", func() time.Time { return s.now }))
			s.Witnesses = must(monitor.ParsePolicy([]byte("witness w " + w.VKey() + "\nquorum w\n")))
			s.log.Cosign(nil, []lab.SignatureLine{w.Cosign})
			s.grow(3)
			if err := s.look(); err != nil {
				t.Fatal(err)
			}
			s.log.Cosign(nil, nil)
			s.grow(2)
			s.log.ForkAt(4)
			if err := s.look(); !errors.Is(err, monitor.ErrUncosigned) {
				t.Fatalf("the fork: %v", err)
			}
			s.log.Honest()
			s.grow(grown)
			kind := monitor.Equivocation
			if grown > 0 {
				kind = monitor.Inconsistent
			}
			s.convicted(s.look(), kind, 5)
			s.log.Cosign(nil, []lab.SignatureLine{w.Cosign})
			s.grow(1)
			for range 2 {
				if err := s.look(); err == nil {
					return
				}
			}
			t.Errorf("afterwards: %v", s.look())
		})
	}
}

// A clock that was wrong once must not leave a log accused and standing still.
func TestClockAheadOfKeysEnd(t *testing.T) {
	s := newSuspect(t)
	s.ends = s.now.Add(24 * time.Hour)
	right := s.now
	s.grow(3)
	s.now = right.AddDate(5, 0, 0)
	if err := s.look(); err != nil {
		t.Fatal(err)
	}
	s.now = right.Add(time.Minute)
	s.grow(1)
	if err := s.look(); err != nil {
		t.Errorf("after the clock was set right: %v", err)
	}
}

// What comes with a head that the log has not signed changes nothing of what is
// known of the log.
func TestForeignHeadMovesNothing(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprint("known ", known), func(t *testing.T) {
			s := newSuspect(t)
			s.grow(3)
			if known {
				if err := s.look(); err != nil {
					t.Fatal(err)
				}
			}
			s.log.SignWithOtherKey()
			forged := s.served()
			forged.Log.FirstGlobal = 1000
			_, err := s.Check(t.Context(), forged, forged.Note)
			s.convicted(err, monitor.KeyChanged, 3)
			s.log.Honest()
			s.grow(1)
			if err := s.look(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if m, _, err := s.store.Known(t.Context(), lab.V2Origin); err != nil || m.Log.FirstGlobal != 0 {
				t.Errorf("first index %d, %v; want 0", m.Log.FirstGlobal, err)
			}
		})
	}
}

// A fork of a log that no server shows any more is found out where its size is known.
func TestForkOfAbsentLog(t *testing.T) {
	s := newSuspect(t)
	s.grow(3)
	honest := s.served()
	if err := s.look(); err != nil {
		t.Fatal(err)
	}
	s.log.ForkAt(2)
	forked := s.served()
	s.log.Honest()
	s.grow(1)
	larger := s.served()
	later := &monitor.Keeper{Store: s.store, Log: s.Keeper.Log, Now: s.Now, Metrics: s.Metrics}
	check := func(note []byte) error {
		_, err := later.CheckShown(t.Context(), monitor.Shown{Note: note, Source: "a friend"})
		return err
	}
	if err := check(honest.Note); err != nil {
		t.Errorf("the head that is known: %v", err)
	}
	s.convicted(check(forked.Note), monitor.Equivocation, 3)
	if err := check(larger.Note); err == nil || errors.Is(err, monitor.ErrUnknownLog) || errors.As(err, new(*monitor.Contradiction)) {
		t.Errorf("a head that cannot be compared: %v", err)
	}
	if err := check([]byte(strings.Replace(string(honest.Note), lab.V2Origin, "other.example", 1))); !errors.Is(err, monitor.ErrUnknownLog) {
		t.Errorf("another log: %v", err)
	}
	if err := check([]byte(strings.Replace(string(honest.Note), "\n3\n", "\n2\n", 1))); !errors.Is(err, monitor.ErrForeignHead) {
		t.Errorf("not signed: %v", err)
	}
}
