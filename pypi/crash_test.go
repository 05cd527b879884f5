package pypi

import (
	"context"
	"errors"
	"sync"
	"testing"

	"sigtrail/index"
)

var errDisk = errors.New("no space left on the disk")

// A failing store breaks one call in one of the two ways there are: nothing was
// written, or all was and nobody heard of it. A process that ends there writes
// nothing after it either.
type failing struct {
	Store
	call    string
	applied bool
	ends    bool
	failed  bool
	after   int // calls that go well

	mu sync.Mutex
}

func (s *failing) fail(call string, write func() error) error {
	s.mu.Lock()
	dead, due := s.failed && s.ends, call == s.call && !s.failed
	if due && s.after > 0 {
		s.after--
		due = false
	}
	s.failed = s.failed || due
	s.mu.Unlock()
	switch {
	case dead:
		return errDisk
	case !due:
		return write()
	}
	if s.applied {
		return errors.Join(errDisk, write())
	}
	return errDisk
}

func (s *failing) Watch(ctx context.Context, projects []string, all bool) (n int, err error) {
	err = s.fail("Watch", func() error {
		n, err = s.Store.Watch(ctx, projects, all)
		return err
	})
	return n, err
}

func (s *failing) BeginJournal(ctx context.Context, serial int64) error {
	return s.fail("BeginJournal", func() error { return s.Store.BeginJournal(ctx, serial) })
}

func (s *failing) FollowJournal(ctx context.Context, rows []index.JournalRow, upTo int64, all bool) (n int, err error) {
	err = s.fail("FollowJournal", func() error {
		n, err = s.Store.FollowJournal(ctx, rows, upTo, all)
		return err
	})
	return n, err
}

func (s *failing) ListingRead(ctx context.Context, w index.Work, serial int64, etag string) error {
	return s.fail("ListingRead", func() error { return s.Store.ListingRead(ctx, w, serial, etag) })
}

func (s *failing) Enlist(ctx context.Context, projects []index.Named) error {
	return s.fail("Enlist", func() error { return s.Store.Enlist(ctx, projects) })
}

func (s *failing) Enlisted(ctx context.Context) error {
	return s.fail("Enlisted", func() error { return s.Store.Enlisted(ctx) })
}

func (s *failing) SaveListing(ctx context.Context, l index.Listing) (fresh []index.File, err error) {
	err = s.fail("SaveListing", func() error {
		fresh, err = s.Store.SaveListing(ctx, l)
		return err
	})
	return fresh, err
}

func (s *failing) SaveProvenance(ctx context.Context, id index.FileID, p index.Provenance) error {
	return s.fail("SaveProvenance", func() error { return s.Store.SaveProvenance(ctx, id, p) })
}

// Wherever a write fails, in the first round or a later one, and whether or not the
// process survives it: the next round brings the store to where it would have been.
func TestFailedWritesAreMadeUpFor(t *testing.T) {
	first := []string{"Watch", "BeginJournal", "SaveListing", "ListingRead", "SaveProvenance"}
	following := []string{"FollowJournal", "SaveListing", "ListingRead", "SaveProvenance"}
	for later, calls := range map[bool][]string{false: first, true: following} {
		for _, call := range calls {
			for _, applied := range []bool{false, true} {
				for _, restart := range []bool{false, true} {
					name := call
					for label, set := range map[string]bool{"applied": applied, "restart": restart, "later": later} {
						if set {
							name += " " + label
						}
					}
					t.Run(name, func(t *testing.T) {
						underFakeClock(t, func(b *bench) { failOnce(b, call, applied, restart, later) }, "sample")
					})
				}
			}
		}
	}
}

func failOnce(b *bench, call string, applied, restart, later bool) {
	b.x.upload("sample", "sample-1.0.tar.gz", true)
	if later {
		b.once()
		b.x.upload("sample", "sample-2.0.tar.gz", true)
	}
	b.w.Store = &failing{Store: b.store.PyPI(), call: call, applied: applied, ends: restart}
	if err := b.w.Once(b.Context()); !errors.Is(err, errDisk) {
		b.Errorf("error %v", err)
	}
	if restart {
		b.restart("sample")
	}
	b.once()
	b.once()
	p := b.x.projects["sample"]
	if b.position() != b.x.serial || b.serial("sample") != p.Serial || len(b.due()) != 0 {
		b.Errorf("position %d of %d, listing %d of %d, due %v", b.position(), b.x.serial, b.serial("sample"), p.Serial, b.due())
	}
	// Every file is in the store: another listing brings nothing new.
	l, err := b.w.Client.Listing(b.Context(), "sample")
	if err != nil {
		b.Fatal(err)
	}
	if fresh, err := b.store.PyPI().SaveListing(b.Context(), l); err != nil || len(fresh) != 0 {
		b.Errorf("%d files were not stored, %v", len(fresh), err)
	}
	b.calls()
	b.once()
	b.wantCalls(map[string]int{})
}
