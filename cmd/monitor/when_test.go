package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

var logEpoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// An era is a world whose log was filled at known times.
type era struct {
	*world
	clock  *lab.Clock
	d      *daemon
	served monitor.Served
	head   monitor.Head
	logged []time.Time // when each leaf of the log was
}

func newEra(t *testing.T) *era {
	clock := lab.NewClock(logEpoch)
	return &era{world: newWorldWith(t, "follow: head, rate: 1e6", lab.Options{Clock: clock.Now}), clock: clock}
}

// open takes the log's head, as seen at the clock's time.
func (e *era) open(name string) {
	e.Helper()
	if e.d == nil {
		e.d = must(openBeside(e.Context(), must(loadConfig(e.config)), slog.New(slog.NewTextHandler(e.Output(), nil))))
		e.Cleanup(func() { e.d.close() })
		must(e.d.trust.refresh(e.Context()))
		e.d.keeper.Now = e.clock.Now
	}
	_, served, err := e.d.findLog(e.Context(), scanOptions{log: name})
	if err != nil {
		e.Fatal(err)
	}
	e.served = served
	e.head = must(e.d.keeper.Check(e.Context(), served, served.Note))
}

// locate checks that what is said of a time holds for every leaf.
func (e *era) locate(at time.Time) monitor.Place {
	e.Helper()
	p, err := e.d.locator(e.served.Log).Locate(e.Context(), e.served, e.head, at)
	if err != nil {
		e.Fatal(err)
	}
	if p.Below > p.Above || p.Above > e.head.Size {
		e.Fatalf("%s: from %d to %d", at, p.Below, p.Above)
	}
	for i, logged := range e.logged {
		if uint64(i) < p.Below && !logged.Before(at) {
			e.Fatalf("%s is said to lie at %d to %d; leaf %d before that was logged at %s", at, p.Below, p.Above, i, logged)
		}
		if uint64(i) >= p.Above && logged.Before(at) {
			e.Fatalf("%s is said to lie at %d to %d; leaf %d behind that was logged at %s", at, p.Below, p.Above, i, logged)
		}
	}
	return p
}

// around calls f for times before, between and after the leaves.
func (e *era) around(f func(at time.Time)) {
	f(logEpoch.Add(-24 * time.Hour))
	for i := 0; i < len(e.logged); i += 17 {
		f(e.logged[i])
		f(e.logged[i].Add(500 * time.Millisecond))
	}
	f(e.clock.Now().Add(24 * time.Hour))
}

// Integrated times are equal in bursts, out of order by up to a minute, and not all
// signed: what is said of a time holds all the same.
func TestLocateV1(t *testing.T) {
	for _, c := range []struct {
		name   string
		step   func(i int) time.Duration // to the next leaf
		jitter int                       // seconds either way
		unset  int                       // one leaf in so many has a signed entry timestamp that does not hold; 0: none
		widest uint64                    // leaves
	}{
		{"in order", func(int) time.Duration { return 10 * time.Second }, 0, 0, 13},
		{"all equal", func(int) time.Duration { return 0 }, 0, 0, 200},
		{"bursts", func(i int) time.Duration { return time.Duration(i%20/19) * 5 * time.Minute }, 0, 0, 20},
		{"out of order", func(int) time.Duration { return 10 * time.Second }, 29, 0, 20},
		{"unsigned", func(int) time.Duration { return 10 * time.Second }, 29, 2, 30},
		{"none signed", func(int) time.Duration { return 10 * time.Second }, 0, 1, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			e := newEra(t)
			s := must(e.lab.CA.SignPublish(sampleRepo, "a-1.tar.gz", lab.Digest("a"), logEpoch))
			at := logEpoch
			for i := range 200 {
				shown := at
				if c.jitter > 0 {
					shown = at.Add(time.Duration(r.IntN(2*c.jitter+1)-c.jitter) * time.Second)
				}
				e.clock.Set(shown)
				must(e.lab.V1.LogFile(lab.Digest(fmt.Sprint(i)), []byte("signature"), s.Cert))
				e.logged = append(e.logged, shown)
				at = at.Add(c.step(i))
			}
			e.clock.Set(at.Add(time.Hour))
			e.open(lab.V1Host)
			if c.unset > 0 {
				e.lab.V1Faults.Edit("/api/v1/log/entries", -1, unsetOneIn(c.unset))
			}
			e.around(func(at time.Time) {
				if p := e.locate(at); p.Above-p.Below > c.widest {
					t.Errorf("%s: %d wide, want at most %d", at, p.Above-p.Below, c.widest)
				}
			})
			p := e.locate(logEpoch.Add(1000 * time.Second))
			if c.name == "none signed" {
				if !strings.Contains(p.Of(e.served.Log), "no entry there has a time that can be trusted") {
					t.Errorf("said: %s", p.Of(e.served.Log))
				}
			} else if c.name != "all equal" && !strings.Contains(p.Of(e.served.Log), " in time") {
				t.Errorf("said: %s", p.Of(e.served.Log))
			}
		})
	}
}

// unsetOneIn spoils the integrated time of one entry in n, so that its signed entry
// timestamp does not hold: it pretends to be of another year.
func unsetOneIn(n int) func([]byte) []byte {
	return func(body []byte) []byte {
		text := string(body)
		var global int
		_, after, _ := strings.Cut(text, `"logIndex":`)
		fmt.Sscan(strings.FieldsFunc(after, func(r rune) bool { return r < '0' || r > '9' })[0], &global)
		if global%n == 0 {
			text = strings.Replace(text, `"integratedTime":1`, `"integratedTime":2`, 1)
		}
		return []byte(text)
	}
}

// In v2 only trusted certificates tell the time. Leaves without one, and with one
// that somebody made up, do not mislead.
func TestLocateV2(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	e := newEra(t)
	at := logEpoch
	for i := range 160 {
		e.clock.Set(at)
		name := fmt.Sprintf("a-%d.tar.gz", i)
		issued := at.Add(-time.Duration(r.IntN(540)) * time.Second)
		switch r.IntN(4) {
		case 0:
			e.lab.V2.LogLeaf([]byte(fmt.Sprintf(`{"kind":"other","n":%d}`, i)))
		case 1:
			forged := logEpoch.Add(time.Duration(r.IntN(100)-50) * 24 * time.Hour)
			e.lab.V2.Log(must(lab.SignUntrusted(sampleRepo, name, lab.Digest(name), forged)))
		default:
			e.lab.V2.Log(must(e.lab.CA.SignPublish(sampleRepo, name, lab.Digest(name), issued)))
		}
		e.logged = append(e.logged, at)
		at = at.Add(time.Minute)
	}
	e.clock.Set(at.Add(time.Hour))
	e.open(lab.V2Origin)
	e.around(func(at time.Time) {
		if p := e.locate(at); p.Above-p.Below > 50 {
			t.Errorf("%s: %d wide", at, p.Above-p.Below)
		}
	})
}

// Heads that were seen at the time say where it lies when all certificates are of
// the same minutes.
func TestLocateByHeads(t *testing.T) {
	e := newEra(t)
	for round := range 5 {
		for i := range 10 {
			name := fmt.Sprintf("a-%d.%d.tar.gz", round, i)
			e.lab.V2.Log(must(e.lab.CA.SignPublish(sampleRepo, name, lab.Digest(name), logEpoch)))
			e.logged = append(e.logged, e.clock.Advance(time.Second))
		}
		e.open(lab.V2Origin)
		e.clock.Advance(time.Second)
	}
	p := e.locate(e.logged[25])
	if p.Below != 20 || p.Above != 30 || !p.ByHeads || !strings.Contains(p.Of(e.served.Log), "by heads seen at the time") {
		t.Errorf("%+v: %s", p, p.Of(e.served.Log))
	}
}

// A scan by times reads all that was logged between them, and says how far that is
// certain; a lie in the way there convicts the log.
func TestScanTimes(t *testing.T) {
	for api, name := range scanned {
		t.Run(string(api), func(t *testing.T) {
			e := newEra(t)
			for i := range 100 {
				at := logEpoch.Add(time.Duration(i) * time.Minute)
				e.clock.Set(at)
				file := fmt.Sprintf("a-%d.tar.gz", i)
				s := must(e.lab.CA.SignPublish(sampleRepo, file, lab.Digest(file), at))
				must(e.lab.V1.Log(s))
				e.lab.V2.Log(s)
			}
			r, _ := e.scan(exitFine, name, "--from", "2026-03-01T12:30", "--to", "2026-03-01T15:00:00+02:00")
			if r.From > 30 || r.From < 18 || r.To < 60 || r.To > 72 || len(r.Bounds) != 2 || !strings.Contains(r.Bounds[0], " wide") {
				t.Errorf("report: %+v", r)
			}
			if api == monitor.V2 {
				e.lab.V2.FlipLeaf(50)
				e.scan(exitConvicts, name, "--from", "2026-03-01T12:50")
			}
		})
	}
}
