package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/timeline"
)

const badTime = "the log's time does not verify"

// A v1 log, or somebody on the way, gives an entry another time than the log has
// signed, or leaves the signature out. The entry is indexed, bound and judged like
// any other, and marked; its time is used nowhere.
func TestBadSET(t *testing.T) {
	claim := map[string]func(w *world, global uint64){
		"later":   func(w *world, global uint64) { w.lab.V1.BadSET(global, 24*time.Hour) },
		"earlier": func(w *world, global uint64) { w.lab.V1.BadSET(global, -5*365*24*time.Hour) },
		// Within the certificate's life, where nothing else would tell.
		"a second off": func(w *world, global uint64) { w.lab.V1.BadSET(global, time.Second) },
		"no SET": func(w *world, _ uint64) {
			w.lab.V1Faults.Edit("/api/v1/log/entries/retrieve", -1, func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte(`"signedEntryTimestamp"`), []byte(`"somethingElse"`))
			})
		},
	}
	for _, follow := range []string{"follow: lookup", "follow: tail, start: 0"} {
		for name, lie := range claim {
			t.Run(follow+", "+name, func(t *testing.T) {
				w := newWorld(t, follow)
				w.release("1.0", sampleRepo)
				w.once(exitFine)
				w.release("1.1", sampleRepo)
				lie(w, w.lab.V1.Active().Size()-1)

				// No rule takes the claim for a time: it would be outside the
				// certificate's validity, or before its issue.
				if failures := w.onceCounting(exitFine, "sigtrail_set_failures_total"); failures == 0 {
					t.Error("the failure is not counted")
				}
				if got := w.got(); len(got) != 0 {
					t.Errorf("alerts: %+v", got)
				}

				e := w.entryV1("sampleproject-1.1.tar.gz")
				if e.SETValid || e.Trust != "" || e.Leaf.IntegratedTime == 0 || (len(e.Leaf.SET) == 0) != (name == "no SET") {
					t.Errorf("kept as: SET valid %t, trust %q, time %d, SET of %d bytes", e.SETValid, e.Trust, e.Leaf.IntegratedTime, len(e.Leaf.SET))
				}
				good := w.entryV1("sampleproject-1.0.tar.gz")
				if !good.SETValid {
					t.Error("the entry before it is marked too")
				}

				events, table := w.timeline("sampleproject==1.1")
				logged := only(t, events)
				if logged.At != nil || logged.Clock != timeline.ClockNone || !strings.Contains(logged.Note, badTime) ||
					logged.After == nil || !logged.After.Equal(e.Signer.NotBefore) ||
					logged.Before == nil || !logged.Before.Equal(e.Head.Seen.Truncate(time.Millisecond)) {
					t.Errorf("the timeline says %+v", logged)
				}
				if !strings.Contains(table, badTime) {
					t.Errorf("the table does not say so:\n%s", table)
				}
				if name != "a second off" && name != "no SET" {
					day := time.Unix(e.Leaf.IntegratedTime, 0).UTC().Format(time.DateOnly)
					if strings.Contains(table, day) {
						t.Errorf("the table shows the time that was claimed:\n%s", table)
					}
				}
				events, table = w.timeline("sampleproject==1.0")
				if logged = only(t, events); logged.At == nil || logged.At.Unix() != good.Leaf.IntegratedTime || logged.Clock != timeline.ClockLog || strings.Contains(table, badTime) {
					t.Errorf("the timeline says of an entry with a good SET %+v", logged)
				}
			})
		}
	}
}

// An alert does not date an entry by a time that the log did not sign.
func TestBadSETInAlert(t *testing.T) {
	other := sampleRepo
	other.Owner, other.RepoID = "evil", "666"
	for _, bad := range []bool{false, true} {
		w := newWorld(t, "follow: lookup")
		w.release("1.0", sampleRepo)
		w.once(exitFine)
		s, e := w.sign("sampleproject-1.1.tar.gz", other) // in no other log
		w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "1.1", Filename: s.Filename, SHA256: s.SHA256,
			Provenance: lab.Provenance(other.Publisher(), s, e)})
		if bad {
			w.lab.V1.BadSET(e.Global, 24*time.Hour)
		}
		w.once(exitFindings)
		got := w.got()
		if len(got) != 1 || got[0].Rule != "unexpected-signer" {
			t.Fatalf("received %+v, want one unexpected-signer", got)
		}
		if dated := slices.ContainsFunc(got[0].Times, func(x alerts.Time) bool { return x.What == "logged" }); dated == bad {
			t.Errorf("SET bad: %t; times of the alert: %+v", bad, got[0].Times)
		}
	}
}

// onceCounting is once, and returns the sum of a metric after it.
func (w *world) onceCounting(want int, metric string) (sum float64) {
	w.Helper()
	d := must(newDaemon(w.Context(), must(loadConfig(w.config)), slog.New(slog.NewTextHandler(w.Output(), nil))))
	defer d.close()
	if code, err := d.once(w.Context()); code != want {
		w.Fatalf("exit code %d, want %d: %v", code, want, err)
	}
	for _, f := range must(d.registry.Gather()) {
		if f.GetName() == metric {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// entryV1 is the one entry of the v1 log for a file.
func (w *world) entryV1(file string) index.Stored {
	w.Helper()
	s := w.store()
	defer s.Close()
	files := must(s.Files(w.Context(), index.Selection{Filename: file}))
	if len(files) != 1 {
		w.Fatalf("%d files %s", len(files), file)
	}
	var found []index.Stored
	for _, b := range must(s.Signatures(w.Context(), files[0].ID)) {
		if isOf(b[0].Entry.Log.Origin, lab.V1Host) {
			found = append(found, b[0].Entry)
		}
	}
	if len(found) != 1 {
		w.Fatalf("%d entries for %s", len(found), file)
	}
	return found[0]
}

// timeline is what the command shows, as events and as a table.
func (w *world) timeline(selector string) (events []timeline.Event, table string) {
	w.Helper()
	s := w.store()
	defer s.Close()
	var lines, text bytes.Buffer
	must(timeline.Write(w.Context(), &lines, s, selector, timeline.Options{Format: "jsonl"}))
	must(timeline.Write(w.Context(), &text, s, selector, timeline.Options{Format: "table", Wide: true}))
	for d := json.NewDecoder(&lines); d.More(); {
		var e timeline.Event
		if err := d.Decode(&e); err != nil {
			w.Fatal(err)
		}
		events = append(events, e)
	}
	return events, text.String()
}

// only is the one event of being logged to v1.
func only(t *testing.T, events []timeline.Event) (logged timeline.Event) {
	t.Helper()
	n := 0
	for _, e := range events {
		if e.Kind == "logged" && isOf(e.Log, lab.V1Host) {
			logged = e
			n++
		}
	}
	if n != 1 {
		t.Fatalf("logged %d times: %+v", n, events)
	}
	return logged
}
