package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

const v1Tail = byFile + "logs: [{api: v1, origin: " + lab.V1Host + ", follow: tail, start: 0}]\n"

const bothTails = byFile + "logs: [{api: v1, origin: " + lab.V1Host + ", follow: tail, start: 0}, {api: v2, origin: " + lab.V2Origin + ", start: 0}]\n"

// Rotation is no news: the old shard is read to its end and closed, the new one is
// read from its first leaf, and neither is mixed up with the other. The new shard
// may have a key of its own.
func TestShardRotation(t *testing.T) {
	rotations := map[string]func(*lab.V1){"same key": (*lab.V1).Rotate, "other key": (*lab.V1).RotateKey}
	for name, rotate := range rotations {
		t.Run(name, func(t *testing.T) {
			inBubble(t, v1Tail, func(b *bubble) {
				b.write("trusted_root.json", string(lab.TrustedRoot(b.lab.CA, b.lab.V1.Trusted(), b.lab.V1.Rekeyed())))
				leaves(v1Leaves{b.lab.V1}, 3)
				b.start()
				b.until("the first shard is read", func() bool { return b.read(v1Origin(0), 0, 3) })

				leaves(v1Leaves{b.lab.V1}, 2) // unseen when it closes
				rotate(b.lab.V1)
				b.until("the first shard is read to its end", func() bool { return b.read(v1Origin(0), 0, 5) })
				leaves(v1Leaves{b.lab.V1}, 4)
				b.until("the second shard is read", func() bool { return b.read(v1Origin(1), 0, 4) })
				first, second := b.of(v1Origin(0)), b.of(v1Origin(1))
				if first.ClosedSize == nil || *first.ClosedSize != 5 || first.Head.Size != 5 || !first.Log.Closed {
					b.Errorf("first shard: %+v, want it closed at 5", first)
				}
				if second.ClosedSize != nil || second.Log.FirstGlobal != 5 || second.Log.TreeID != lab.V1Tree+1 {
					b.Errorf("second shard: %+v, want it open, its first leaf the sixth of all", second)
				}

				b.pass(25 * time.Hour)
				if checked := b.of(v1Origin(0)).Checked; time.Since(checked) > 24*time.Hour {
					b.Errorf("the closed shard was looked at last at %s, now it is %s", checked, time.Now())
				}
				rotate(b.lab.V1) // once more, while nobody looks
				b.stop()
				leaves(v1Leaves{b.lab.V1}, 2)
				b.once(exitFine)
				b.start()
				if !b.read(v1Origin(2), 0, 2) || b.of(v1Origin(2)).Log.FirstGlobal != 9 || *b.of(v1Origin(1)).ClosedSize != 4 {
					b.Errorf("third shard: %+v, want two leaves after nine others", b.of(v1Origin(2)))
				}
				if n := len(b.got()); n != 0 {
					b.Errorf("%d alerts", n)
				}
			})
		})
	}
}

// A closed shard that grows is an alarm, and is read all the same.
func TestClosedShardGrows(t *testing.T) {
	inBubble(t, v1Tail, func(b *bubble) {
		leaves(v1Leaves{b.lab.V1}, 3)
		b.lab.V1.Rotate()
		b.start()
		b.until("the first shard is read", func() bool { return b.read(v1Origin(0), 0, 3) })
		must(b.lab.V1.LogInto(0, []byte(`{"late":1}`)))
		b.until("what was added is read", func() bool { return b.read(v1Origin(0), 0, 4) })
		must(b.lab.V1.LogInto(0, []byte(`{"late":2}`)))
		b.until("what was added is read", func() bool { return b.read(v1Origin(0), 0, 5) })
		b.pass(time.Hour)
		if got := b.alerts(v1Origin(0)); !slices.Equal(got, []string{monitor.ClosedChanged, monitor.ClosedChanged}) || len(b.got()) != 2 {
			b.Errorf("alerts %v, want one for each time that it grew", b.got())
		}
		if s := b.of(v1Origin(0)); s.ClosedSize == nil || *s.ClosedSize != 5 {
			b.Errorf("the shard: %+v, want it closed again at 5", s)
		}
	})
}

// logInfo changes v1's answer to what its shards are.
func logInfo(change func(inactive []any) []any) func([]byte) []byte {
	return func(body []byte) []byte {
		var info map[string]any
		if err := json.Unmarshal(body, &info); err != nil {
			panic(err)
		}
		info["inactiveShards"] = change(info["inactiveShards"].([]any))
		return must(json.Marshal(info))
	}
}

// A shard that is not listed any more is not forgotten. As it also renumbers the
// shards after it, nothing is read from those until it is back.
func TestShardUnlisted(t *testing.T) {
	inBubble(t, v1Tail, func(b *bubble) {
		for n := range 3 {
			leaves(v1Leaves{b.lab.V1}, n+2)
			b.lab.V1.Rotate()
		}
		leaves(v1Leaves{b.lab.V1}, 1)
		b.start()
		b.until("all shards are read", func() bool { return b.read(v1Origin(3), 0, 1) && b.read(v1Origin(1), 0, 3) })
		b.lab.V1Faults.Edit("/api/v1/log", -1, logInfo(func(inactive []any) []any { return slices.Delete(inactive, 1, 2) }))
		leaves(v1Leaves{b.lab.V1}, 2)
		b.until("the shard is missed", func() bool { return len(b.got()) > 0 })
		b.pass(2 * time.Hour)
		if a := b.only(monitor.ClosedChanged); a.Log.Origin != v1Origin(1) || a.Heads.Ours == "" {
			b.Errorf("alert: %+v, want the second shard and its last head", a)
		}
		if !b.read(v1Origin(3), 0, 1) || b.log.count("cannot follow", "global index") == 0 {
			b.Error("leaves were read under another number, or nothing is said about it")
		}
		b.lab.V1Faults.Clear()
		b.until("it goes on when the list is whole", func() bool { return b.read(v1Origin(3), 0, 3) })
		if s := b.of(v1Origin(3)); s.Log.FirstGlobal != 9 {
			b.Errorf("the last shard begins at %d, want 9", s.Log.FirstGlobal)
		}
		b.only(monitor.ClosedChanged)
	})
}

// Look-ups find entries in whichever shard they are.
func TestLookupAcrossShards(t *testing.T) {
	inBubble(t, byFile+"logs: [{api: v1, origin: "+lab.V1Host+", follow: lookup}]\n", func(b *bubble) {
		b.release("1.0", sampleRepo)
		b.start()
		b.until("the first entry is found", func() bool { return b.read(v1Origin(0), 0, 1) })
		b.lab.V1.Rotate()
		b.release("1.1", sampleRepo)
		b.until("the second entry is found", func() bool { return b.read(v1Origin(1), 0, 1) })
		if s := b.of(v1Origin(1)); s.Log.FirstGlobal != 1 || *b.of(v1Origin(0)).ClosedSize != 1 || s.Next != nil {
			b.Errorf("second shard: %+v, want its first leaf the second of all, and no tail", s)
		}
		if n := len(b.got()); n != 0 {
			b.Errorf("%d alerts", n)
		}
	})
}

// A head that is smaller than one that was seen before is a replica that lags, if it
// belongs to the same history; else it is an alarm.
func TestSmallerHead(t *testing.T) {
	for _, api := range []monitor.API{monitor.V1, monitor.V2} {
		for _, test := range []struct {
			name  string
			at    int // size of the smaller head
			fork  bool
			alarm string
		}{
			{"seen before", 5, false, ""},
			{"never seen", 6, false, ""},
			{"seen before, other history", 5, true, monitor.Equivocation},
			{"never seen, other history", 6, true, monitor.Inconsistent},
		} {
			t.Run(string(api)+" "+test.name, func(t *testing.T) {
				inBubble(t, bothTails, func(b *bubble) {
					log, lies, faults, path, origin := interface{ LogLeaf([]byte) uint64 }(b.lab.V2), liar(b.lab.V2), b.lab.V2Faults, "/api/v2/checkpoint", lab.V2Origin
					if api == monitor.V1 {
						log, lies, faults, path, origin = v1Leaves{b.lab.V1}, b.lab.V1.Active(), b.lab.V1Faults, "/api/v1/log", v1Origin(0)
					}
					leaves(log, 5)
					b.start()
					b.until("five leaves are read", func() bool { return b.read(origin, 0, 5) })
					b.stop()
					leaves(log, test.at-5)
					if test.fork {
						lies.ForkAt(1)
					}
					small := b.get("https://" + map[monitor.API]string{monitor.V1: lab.V1Host, monitor.V2: lab.V2Origin}[api] + path)
					lies.Honest()
					leaves(log, 8-test.at)
					b.start()
					b.until("eight leaves are read", func() bool { return b.read(origin, 0, 8) })

					faults.Edit(path, -1, func([]byte) []byte { return small })
					leaves(log, 1)
					b.pass(3 * time.Hour)
					if test.alarm != "" {
						if a := b.only(test.alarm); a.Log.Origin != origin || a.Heads.Ours == "" || a.Heads.Theirs == "" {
							b.Errorf("alert: %+v", a)
						}
					} else if b.log.count("stale head") == 0 && test.at == 6 || b.log.count("cannot follow") > 0 || len(b.got()) > 0 {
						b.Errorf("a replica that lags is not passed over quietly: %v", b.got())
					}
					if s := b.of(origin); s.Head.Size != 8 || *s.Next != 8 || s.Conflict != (test.alarm != "") {
						b.Errorf("the log: %+v, want it at 8 as before", s)
					}
					faults.Clear()
					b.until("the log goes on", func() bool { return b.read(origin, 0, 9) })
				})
			})
		}
	}
}

const v2Tail = byFile + "logs: [{api: v2, origin: " + lab.V2Origin + ", start: 0}]\n"

// A frozen log is closed quietly and looked at once a day. If it grows again, that
// is an alarm within the day, and what it has added is read.
func TestFrozenLog(t *testing.T) {
	inBubble(t, v2Tail, func(b *bubble) {
		leaves(b.lab.V2, 3)
		b.start()
		b.until("the log is read", func() bool { return b.read(lab.V2Origin, 0, 3) })
		leaves(b.lab.V2, 2)
		b.lab.V2.Freeze()
		b.until("the log is closed", func() bool { return b.of(lab.V2Origin).ClosedSize != nil })
		if s := b.of(lab.V2Origin); *s.ClosedSize != 5 || !b.read(lab.V2Origin, 0, 5) {
			b.Errorf("the log: %+v, want it read and closed at 5", s)
		}
		asked := b.lab.V2Faults.Requests()
		b.pass(2 * 24 * time.Hour)
		if n := b.lab.V2Faults.Requests() - asked; n < 2 || n > 3 {
			b.Errorf("asked %d times in two days", n)
		}
		if n := len(b.got()); n != 0 {
			b.Fatalf("%d alerts for a log that has ended", n)
		}
		b.lab.V2.Unfreeze()
		leaves(b.lab.V2, 1)
		b.until("the alarm is raised", func() bool { return len(b.got()) > 0 })
		if a := b.only(monitor.ClosedChanged); a.Log.Origin != lab.V2Origin || a.Heads.Ours == "" || a.Heads.Theirs == "" {
			b.Errorf("alert: %+v", a)
		}
		leaves(b.lab.V2, 2)
		b.until("what is added is read", func() bool { return b.read(lab.V2Origin, 0, 8) })
		if b.of(lab.V2Origin).ClosedSize != nil {
			b.Error("the log is still held to be closed")
		}
		b.only(monitor.ClosedChanged)
	})
}

// A head of the same size and root is the same head, whatever lines are added to its
// text, and whoever else has signed it, above or below the log.
func TestHeadInOtherWords(t *testing.T) {
	inBubble(t, v2Tail, func(b *bubble) {
		leaves(b.lab.V2, 3)
		b.start()
		b.until("the log is read", func() bool { return b.read(lab.V2Origin, 0, 3) })
		stranger := must(lab.NewWitness("stranger.lab.test", time.Now))
		other := func(string) string { return "— " + lab.V2Origin + " AAAAAGJ5IGFub3RoZXIga2luZCBvZiBrZXk=" }
		both := []lab.SignatureLine{stranger.Cosign, other}
		for _, lines := range [][]string{{"a line — that means nothing"}, {"one", "— two"}, nil} {
			b.lab.V2.Extend(lines...)
			b.pass(20 * time.Minute)
			b.lab.V2.Cosign(both, nil)
			b.pass(20 * time.Minute)
			b.lab.V2.Cosign(nil, both)
			b.pass(20 * time.Minute)
		}
		if n := len(b.got()); n != 0 || b.of(lab.V2Origin).ClosedSize != nil || b.log.count("cannot follow") > 0 {
			b.Errorf("%d alerts; the log: %+v", n, b.of(lab.V2Origin))
		}
	})
}

// A log that always stands still for a while is not stalled when it does; one that
// stands still for much longer than ever is, once, until it has grown again. To one
// that cannot be reached the same applies.
func TestStalledLog(t *testing.T) {
	inBubble(t, v2Tail, func(b *bubble) {
		b.start()
		for range 12 {
			leaves(b.lab.V2, 1)
			b.pass(time.Hour)
		}
		b.pass(100 * time.Minute)
		if n := len(b.got()); n != 0 {
			b.Fatalf("%d alerts although the log rests as it often does", n)
		}
		b.pass(90 * time.Minute)
		if a := b.only(monitor.Stalled); a.Log.Origin != lab.V2Origin || a.Severity != "medium" || a.Heads.Ours == "" {
			b.Errorf("alert: %+v", a)
		}
		if v := b.metric("sigtrail_log_stalled{origin=\"" + lab.V2Origin + "\"} "); v != "1" {
			b.Errorf("by the metrics: %q", v)
		}
		b.start()
		b.pass(2 * time.Hour)
		b.only(monitor.Stalled)
		leaves(b.lab.V2, 1)
		b.until("it is read again", func() bool { return b.read(lab.V2Origin, 0, 13) })
		b.pass(time.Hour)
		if v := b.metric("sigtrail_log_stalled{origin=\"" + lab.V2Origin + "\"} "); v != "0" {
			b.Errorf("by the metrics, after it has grown: %q", v)
		}
		b.only(monitor.Stalled)

		b.net.Remove(lab.V2Origin)
		b.pass(3 * time.Hour)
		b.only(monitor.Stalled)
		b.until("a log that cannot be reached is stalled", func() bool { return len(b.got()) == 2 })
		b.net.Serve(lab.V2Origin, b.lab.V2)
		leaves(b.lab.V2, 1)
		b.until("it is read again", func() bool { return b.read(lab.V2Origin, 0, 14) })
		if got := b.alerts(lab.V2Origin); !slices.Equal(got, []string{monitor.Stalled, monitor.Stalled}) {
			b.Errorf("alerts: %v", got)
		}
	})
}

// While nobody looks, a gap opens. A tail closes it by itself, or leaves it and says
// so if it may not be so far behind. A gap that is left stays on record.
func TestGaps(t *testing.T) {
	for _, most := range []uint64{0, 10} {
		t.Run(fmt.Sprintf("max_lag %d", most), func(t *testing.T) {
			inBubble(t, fmt.Sprintf("%slogs: [{api: v2, origin: %s, start: 0, max_lag: %d}]\n", byFile, lab.V2Origin, most), func(b *bubble) {
				const origin = lab.V2Origin
				leaves(b.lab.V2, 5)
				b.start()
				b.until("five leaves are read", func() bool { return b.read(origin, 0, 5) })
				b.stop()
				leaves(b.lab.V2, 10) // as many as it may be behind
				b.start()
				b.until("they are read", func() bool { return b.read(origin, 0, 15) })
				b.stop()
				leaves(b.lab.V2, 11)
				b.start()
				b.until("the tail is at the end again", func() bool { return *b.of(origin).Next == 26 })
				leaves(b.lab.V2, 4)
				b.until("what came since is read", func() bool { return *b.of(origin).Next == 30 })
				b.pass(time.Hour)
				if most == 0 {
					if !b.read(origin, 0, 30) || len(b.got()) != 0 {
						b.Errorf("coverage %v, %d alerts; want all of it, and none", b.of(origin).Coverage, len(b.got()))
					}
					return
				}
				if d := cmp.Diff([]monitor.Range{{From: 0, To: 15}, {From: 26, To: 30}}, b.of(origin).Coverage); d != "" {
					b.Errorf("coverage (-want +got):\n%s", d)
				}
				if a := b.only(monitor.CoverageGap); a.Log.Origin != origin || !strings.Contains(a.Reason, "leaves 15 to 25 were not read") {
					b.Errorf("alert: %+v", a)
				}
				b.start()
				b.pass(time.Hour)
				b.only(monitor.CoverageGap)
			})
		})
	}
}
