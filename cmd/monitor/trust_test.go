package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

const newOrigin = "log2027.rekor.lab.test"

// addLog adds a log of three leaves to the lab, served under its own name.
func (b *bubble) addLog() *lab.V2 {
	b.Helper()
	v := must(b.lab.JoinV2(newOrigin))
	leaves(v, 3)
	b.net.Serve(newOrigin, v)
	return v
}

// A log that a new trusted root names is followed from its first leaf, by a daemon
// that goes on running, and every root is kept with when it was seen.
func TestTrustByTUF(t *testing.T) {
	inBubble(t, byTUF, func(b *bubble) {
		leaves(b.lab.V2, 2)
		began := time.Now()
		b.start()
		b.until("the log of the first root is followed", func() bool { return b.of(lab.V2Origin).Next != nil })
		if s := b.of(lab.V2Origin); *s.Next != 2 || len(s.Coverage) != 0 {
			b.Errorf("first log: position %d, coverage %v; want its end at the start, 2", *s.Next, s.Coverage)
		}
		v := b.addLog()
		first := b.lab.TrustedRootJSON()
		if err := b.tuf.Publish(first); err != nil {
			b.Fatal(err)
		}
		b.until("the new log is read", func() bool { return b.read(newOrigin, 0, 3) })
		if age := time.Since(began); age < trustEvery || age > trustEvery+time.Hour {
			b.Errorf("the new log was read after %s, want the next daily refresh", age)
		}
		leaves(v, 2)
		b.until("the new log is tailed", func() bool { return b.read(newOrigin, 0, 5) })

		b.pass(trustEvery)
		roots := must(b.d.store.TrustedRoots(b.Context()))
		if len(roots) != 2 || roots[1].Body != string(first) || roots[0].Source != "TUF https://"+lab.TUFHost {
			b.Fatalf("roots kept: %+v, want two by TUF", roots)
		}
		for i, want := range []struct{ first, last time.Duration }{{0, 0}, {trustEvery, 2 * trustEvery}} {
			if f, l := roots[i].FirstSeen.Sub(began).Round(time.Minute), roots[i].LastSeen.Sub(began).Round(time.Minute); f != want.first || l != want.last {
				b.Errorf("root %d: seen first after %s, last after %s; want %s and %s", i, f, l, want.first, want.last)
			}
		}
		if n := len(b.got()); n != 0 {
			b.Errorf("%d alerts", n)
		}
	})
}

const notRefreshed = "the trusted root cannot be refreshed"

// A root that cannot be refreshed is spoken of more loudly the longer it lasts.
func TestTrustGrowsStale(t *testing.T) {
	inBubble(t, byTUF, func(b *bubble) {
		b.keepTrust(func() error { return nil })
		b.net.Remove(lab.TUFHost)
		for _, step := range []struct {
			pass       time.Duration
			warn, fail bool
			age        string
		}{
			{71 * time.Hour, false, false, "255600"},
			{2 * time.Hour, true, false, "262800"},
			{4 * 24 * time.Hour, true, true, "608400"},
		} {
			b.pass(step.pass)
			warned, failed := b.log.count("level=WARN", notRefreshed) > 0, b.log.count("level=ERROR", notRefreshed) > 0
			if warned != step.warn || failed != step.fail {
				b.Errorf("%s after the last refresh: warned %t, said that it is an error %t", time.Since(b.d.trust.had()), warned, failed)
			}
			if age := b.metric("sigtrail_trusted_root_age_seconds "); age != step.age {
				b.Errorf("age by the metrics %s, want %s", age, step.age)
			}
		}
		if n := b.log.count(notRefreshed); n > 8*24 {
			b.Errorf("said %d times in a week", n)
		}
		b.net.Serve(lab.TUFHost, b.tuf)
		if err := b.tuf.Publish(b.lab.TrustedRootJSON()); err != nil {
			b.Fatal(err)
		}
		b.pass(trustRetry)
		if age := time.Since(b.d.trust.had()); age > trustRetry {
			b.Errorf("the repository is back and the root %s old", age)
		}
	})
}

// A repository that nobody signs any more is believed for as long as it has promised.
func TestTrustExpires(t *testing.T) {
	inBubble(t, byTUF, func(b *bubble) {
		signed := time.Now()
		b.keepTrust(func() error { return nil })
		b.pass(lab.TimestampLife + trustEvery)
		if age := b.d.trust.had().Sub(signed); age < lab.TimestampLife-trustEvery || age > lab.TimestampLife || b.log.count(notRefreshed, "expired") == 0 {
			b.Errorf("believed %s after it was signed last, want %s", age, lab.TimestampLife)
		}
		b.pass(trustWarn)
		if b.log.count("level=WARN", notRefreshed) == 0 {
			b.Error("no warning")
		}
	})
}

// keepTrust runs a daemon's trust keeper alone.
func (b *bubble) keepTrust(changed func() error) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	b.d = b.open(ctx)
	if err := b.d.trust.await(ctx); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.d.trust.run(ctx, changed) }()
	b.stop = func() {
		cancel()
		if err := errors.Join(<-done, b.d.close()); err != nil {
			b.Error(err)
		}
	}
}

// What an earlier run kept is enough to go on with.
func TestTrustKept(t *testing.T) {
	inBubble(t, byTUF, func(b *bubble) {
		leaves(b.lab.V2, 2)
		b.net.Remove(lab.TUFHost)
		b.start()
		b.pass(time.Hour)
		if n := b.log.count("level=ERROR", "no trusted root"); b.d.ready.Load() || n != 1 {
			b.Errorf("ready without any trusted root, or not said once but %d times", n)
		}
		b.net.Serve(lab.TUFHost, b.tuf)
		b.until("logs are followed once there is a root", func() bool { return b.of(lab.V2Origin).Next != nil })
		b.stop()

		b.net.Remove(lab.TUFHost)
		if err := os.RemoveAll(os.Getenv("XDG_CACHE_HOME")); err != nil {
			b.Fatal(err)
		}
		leaves(b.lab.V2, 3)
		b.start()
		b.until("what was added is read", func() bool { return b.read(lab.V2Origin, 2, 5) })
		if b.log.count("level=WARN", notRefreshed) != 1 {
			b.Error("nothing is said about the repository that is down")
		}
		b.stop()

		leaves(b.lab.V2, 1)
		if code := Main(b.Context(), []string{"--config", b.config, "--once"}, io.Discard, b.log); code != exitCould {
			b.Errorf("--once without the repository: exit code %d, want %d", code, exitCould)
		}
		if b.log.count("monitor:", "fetching the trusted root") != 1 {
			b.Error("--once says nothing about the repository that is down")
		}
		b.start()
		if !b.read(lab.V2Origin, 2, 6) {
			b.Error("--once has not read what was added")
		}
	})
}

// A service without a home of its own has no folder for a cache, and needs none.
func TestTrustWithoutCache(t *testing.T) {
	inBubble(t, byTUF, func(b *bubble) {
		if err := os.Setenv("XDG_CACHE_HOME", b.config); err != nil { // a file: nothing can be made in it
			b.Fatal(err)
		}
		leaves(b.lab.V2, 2)
		b.start()
		b.until("logs are followed", func() bool { return b.of(lab.V2Origin).Next != nil })
		if b.log.count("level=ERROR", "no trusted root") != 0 {
			b.Error("the missing folder held up the trusted root")
		}
	})
}

// A trusted root in a file is looked at all the time. One that cannot be read leaves
// the last one in force. Nothing but the logs and the index is asked for anything.
func TestTrustByFile(t *testing.T) {
	const elsewhere = "tiles.lab.test"
	waits := byFile + "logs: [{api: v2, origin: " + newOrigin + ", url: \"https://" + elsewhere + "/log/api/v2\"}]\n"
	for _, test := range []struct{ name, config, host string }{{"by itself", byFile, newOrigin}, {"waited for", waits, elsewhere}} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, test.config, func(b *bubble) {
				leaves(b.lab.V2, 2)
				b.start()
				b.until("the log of the first root is followed", func() bool { return b.of(lab.V2Origin).Next != nil })
				v := b.addLog()
				b.net.Remove(newOrigin)
				b.net.Serve(test.host, http.StripPrefix("/log", v))
				if test.host == newOrigin {
					b.net.Serve(test.host, v)
				}

				b.write("trusted_root.json", "<!doctype html>")
				b.pass(time.Hour)
				if err := os.Remove(filepath.Join(b.dir, "trusted_root.json")); err != nil {
					b.Fatal(err)
				}
				b.pass(time.Hour)
				if n := b.log.count(notRefreshed); n < 2 || n > 4 {
					b.Errorf("said %d times in two hours that there is no file, or a wrong one", n)
				}
				leaves(b.lab.V2, 1)
				b.until("the first log goes on meanwhile", func() bool { return b.read(lab.V2Origin, 2, 3) })

				mended := time.Now()
				broken := must(lab.NewV2("::1", time.Now)).Trusted() // no address comes of this
				broken.Host = "[::1]"
				b.write("trusted_root.json", string(lab.TrustedRoot(b.lab.CA, b.lab.V1.Trusted(), b.lab.V2.Trusted(), broken, v.Trusted())))
				b.until("the new log is read", func() bool { return b.read(newOrigin, 0, 3) })
				if took := time.Since(mended); took > time.Hour {
					b.Errorf("it took %s until the new file was taken up", took)
				}
				if roots := must(b.d.store.TrustedRoots(b.Context())); len(roots) != 2 {
					b.Errorf("%d roots kept, want the first and the last", len(roots))
				}
				if d := cmp.Diff([]string{lab.V2Origin, lab.PyPIHost, lab.V1Host, test.host}, b.net.Asked(), cmpopts.SortSlices(strings.Compare)); d != "" {
					b.Errorf("hosts that were asked (-want +got):\n%s", d)
				}
				if n := len(b.got()); n != 0 {
					b.Errorf("%d alerts", n)
				}
				b.pass(trustEvery + time.Hour)
				if age := b.metric("sigtrail_trusted_root_age_seconds "); len(age) > len("86400") {
					b.Errorf("age of a file that is there: %s", age)
				}
			})
		})
	}
}

// The network of these tests does notice who is asked.
func TestTrustWithoutFileAsksSigstore(t *testing.T) {
	inBubble(t, "", func(b *bubble) {
		b.once(exitCould)
		if d := cmp.Diff([]string{"tuf-repo-cdn.sigstore.dev"}, b.net.Asked()); d != "" {
			b.Errorf("asked (-want +got):\n%s", d)
		}
	})
}

// What a new root asks for is tried until it is done.
func TestTrustFollowedUp(t *testing.T) {
	inBubble(t, byTUF, func(b *bubble) {
		calls := 0
		b.keepTrust(func() error {
			if calls++; calls < 3 {
				return errors.New("the disk is full")
			}
			return nil
		})
		b.addLog()
		if err := b.tuf.Publish(b.lab.TrustedRootJSON()); err != nil {
			b.Fatal(err)
		}
		b.pass(trustEvery + 4*trustRetry)
		if calls != 3 || b.log.count("level=ERROR", "the disk is full") != 2 {
			b.Errorf("called %d times, want 3, until it succeeded", calls)
		}
	})
}

// A log whose key has ended is read to the end by a monitor that is new to it. What it
// signs later is an alarm and is not believed, but it may be frozen.
func TestTrustRetired(t *testing.T) {
	inBubble(t, byFile, func(b *bubble) {
		leaves(b.lab.V2, 3)
		retired := b.lab.V2.Trusted()
		retired.Until = time.Now().Add(-30 * 24 * time.Hour)
		b.write("trusted_root.json", string(lab.TrustedRoot(b.lab.CA, b.lab.V1.Trusted(), retired)))
		b.start()
		b.until("the retired log is read", func() bool { return b.read(lab.V2Origin, 0, 3) })
		if n := len(b.got()); n != 0 {
			b.Errorf("%d alerts for what it signed before", n)
		}
		leaves(b.lab.V2, 1)
		b.until("what it adds is an alarm", func() bool { return len(b.got()) > 0 })
		b.pass(time.Hour)
		if got := b.got(); len(got) != 1 || got[0].Rule != monitor.ClosedChanged || !strings.Contains(got[0].Reason, "key ended") {
			b.Errorf("received %+v, want one closed-shard-changed", got)
		}
		if s := b.of(lab.V2Origin); s.Head.Size != 3 || *s.Next != 3 {
			b.Errorf("size %d, position %d, want 3 of both: what is signed with an ended key does not count", s.Head.Size, *s.Next)
		}
	})
}

// A key that ends while the log is followed: what comes within the hour may have been
// signed before, and the log may be frozen at any time.
func TestTrustKeyEnds(t *testing.T) {
	inBubble(t, byFile, func(b *bubble) {
		leaves(b.lab.V2, 3)
		ending := b.lab.V2.Trusted()
		ending.Until = time.Now().Add(2 * time.Hour)
		b.write("trusted_root.json", string(lab.TrustedRoot(b.lab.CA, b.lab.V1.Trusted(), ending)))
		b.start()
		b.until("the log is followed", func() bool { return b.of(lab.V2Origin).Next != nil })
		b.pass(2*time.Hour + 10*time.Minute)
		leaves(b.lab.V2, 1)
		b.until("what came just after the end is read", func() bool { return *b.of(lab.V2Origin).Next == 4 })
		b.pass(2 * time.Hour)
		b.lab.V2.Freeze()
		b.until("the log is closed", func() bool { return b.of(lab.V2Origin).ClosedSize != nil })
		if n := len(b.got()); n != 0 {
			b.Errorf("%d alerts, want none", n)
		}
	})
}

// Sigstore's default signing configuration decides which log most clients write to.
func TestTrustDefaultIsV2(t *testing.T) {
	inBubble(t, byTUF, func(b *bubble) {
		config := func(version int) []byte {
			return fmt.Appendf(nil, `{"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
				"rekorTlogUrls": [{"url": "https://log.example", "majorApiVersion": %d, "validFor": {"start": "2026-01-01T00:00:00Z"}, "operator": "sigstore.dev"}],
				"rekorTlogConfig": {"selector": "ANY"}, "tsaConfig": {"selector": "ANY"}}`, version)
		}
		publish := func(version int) {
			b.tuf.SigningConfig = config(version)
			if err := b.tuf.Publish(b.lab.TrustedRootJSON()); err != nil {
				b.Fatal(err)
			}
		}
		publish(1)
		b.start()
		b.until("the trusted root is had", func() bool { return b.d.trust.current() != nil })
		if v := b.metric("sigtrail_default_v2_logs "); v != "0" {
			b.Errorf("v2 logs by default: %s, want 0", v)
		}
		publish(2)
		b.pass(2 * (trustEvery + time.Hour))
		if v, n := b.metric("sigtrail_default_v2_logs "), b.log.count("the default signing configuration names v2 logs", "https://log.example"); v != "1" || n != 1 {
			b.Errorf("v2 logs by default: %s, said %d times; want 1 and once", v, n)
		}
	})
}

// A trusted root that gives a known log another key does not make that key's heads
// believed: they are an alarm, and those by the first key go on being believed. A
// log that the root leaves out goes on being followed.
func TestTrustOtherKey(t *testing.T) {
	for _, api := range []monitor.API{monitor.V1, monitor.V2} {
		t.Run(string(api), func(t *testing.T) {
			inBubble(t, bothTails, func(b *bubble) {
				v1 := v1Leaves{b.lab.V1}
				log, origin := interface{ LogLeaf([]byte) uint64 }(b.lab.V2), lab.V2Origin
				bad, named := liar(b.lab.V2), lab.TrustedRoot(b.lab.CA, b.lab.V1.Trusted(), b.lab.V2.Rekeyed())
				if api == monitor.V1 {
					log, origin = v1, v1Origin(0)
					bad, named = b.lab.V1.Active(), lab.TrustedRoot(b.lab.CA, b.lab.V1.Rekeyed())
				}
				leaves(log, 3)
				b.start()
				b.until("the log is read", func() bool { return b.read(origin, 0, 3) })

				b.write("trusted_root.json", string(named))
				leaves(log, 1)
				b.until("heads by the first key go on", func() bool { return b.read(origin, 0, 4) })
				if n := len(b.got()); n != 0 {
					b.Errorf("%d alerts before any head bears the other key", n)
				}

				bad.SignWithOtherKey()
				leaves(log, 2)
				b.until("the alarm is raised", func() bool { return len(b.got()) > 0 })
				b.pass(2 * time.Hour)
				if a := b.only(monitor.KeyChanged); a.Log.Origin != origin || a.Severity != "critical" || a.Heads.Theirs == "" {
					b.Errorf("alert: %+v", a)
				}
				if !b.read(origin, 0, 4) {
					b.Errorf("coverage %v, although nothing by the first key has been added", b.of(origin).Coverage)
				}
				b.start() // a new process has only what is kept
				b.pass(2 * time.Hour)
				b.only(monitor.KeyChanged)

				bad.Honest()
				b.until("heads by the first key go on", func() bool { return b.read(origin, 0, 6) })
				if api == monitor.V1 {
					leaves(b.lab.V2, 2)
					b.until("the log that the root leaves out goes on", func() bool { return b.read(lab.V2Origin, 0, 2) })
				}
			})
		})
	}
}

// What the repository has not signed is not believed; what was believed before goes
// on.
func TestTrustForged(t *testing.T) {
	inBubble(t, byTUF, func(b *bubble) {
		leaves(b.lab.V2, 2)
		faults := new(lab.Faults)
		b.net.Serve(lab.TUFHost, faults.Wrap(b.tuf))
		b.start()
		b.until("the log of the first root is followed", func() bool { return b.of(lab.V2Origin).Next != nil })
		first := b.lab.TrustedRootJSON()
		b.addLog()
		forged := b.lab.TrustedRootJSON()
		faults.Edit("/targets/", -1, func([]byte) []byte { return forged })
		if err := b.tuf.Publish(append(first, '\n')); err != nil { // as the repository goes on
			b.Fatal(err)
		}
		b.pass(trustEvery + time.Hour)
		if b.log.count(notRefreshed) == 0 || len(must(b.d.store.TrustedRoots(b.Context()))) != 1 || b.of(newOrigin).Next != nil {
			b.Error("a root is believed that the repository has not signed")
		}
		faults.Clear()
		b.pass(2 * trustRetry)
		if len(must(b.d.store.TrustedRoots(b.Context()))) != 2 {
			b.Error("the root that it has signed is not taken up")
		}
		leaves(b.lab.V2, 1)
		b.until("the log goes on", func() bool { return b.read(lab.V2Origin, 2, 3) })
	})
}
