package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

const (
	retrieve = "/api/v1/log/entries/retrieve"
	tailed   = "follow: tail, start: 0, batch: 10, rate: 1000"
	lookedUp = "follow: lookup, rate: 1000"
)

// noise is a leaf that concerns no file.
func noise(n int) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"rekord","spec":{"noise":"%d"}}`, n)
}

// What a server does to answers of retrieve that costs nothing: any order, and
// besides what was asked for anything at all.
func TestHarmlessAnswers(t *testing.T) {
	t.Parallel()
	other := must(lab.NewV1("other.lab.test", time.Now))
	foreign := must(other.LogLeaf(noise(1))).JSON()
	for _, follow := range []string{tailed, lookedUp} {
		t.Run(follow, func(t *testing.T) {
			w := newFaultWorld(t, follow)
			unasked := must(w.lab.V1.LogLeaf(noise(2))).JSON()
			for name, edit := range map[string]func([]byte) []byte{
				"shuffled": lab.Shuffle,
				"foreign":  lab.Add(foreign),
				"unasked":  lab.Add(unasked, unasked),
				"twice":    func(b []byte) []byte { return lab.Add(list(b)...)(b) },
				"empty":    lab.Add(json.RawMessage(`{}`), json.RawMessage(`null`), json.RawMessage(`{"00":{}}`)),
			} {
				w.grow()
				w.lab.V1Faults.Edit(retrieve, -1, edit)
				if o := w.try(); o.code != exitFine {
					t.Errorf("%s: exit code %d, %s", name, o.code, o.err)
				}
				w.lab.V1Faults.Clear()
			}
			w.sameAsWithoutFaults()
		})
	}
}

func list(body []byte) []json.RawMessage {
	var all []json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		panic(err)
	}
	return all
}

type object = map[string]any

// damages are what can be wrong with one entry of an answer. The proof is the
// entry's inclusion proof.
var damages = map[string]func(one map[string]object, id string, entry, proof object){
	"two in one":      func(one map[string]object, id string, e, _ object) { one["x"+id[1:]] = e },
	"no entry in one": func(one map[string]object, id string, _, _ object) { delete(one, id) },
	"id":              func(one map[string]object, id string, e, _ object) { delete(one, id); one["../"+id] = e },
	"other tree": func(one map[string]object, id string, e, _ object) {
		delete(one, id)
		one["00000000000000ff"+id[16:]] = e
	},
	"no body":        func(_ map[string]object, _ string, e, _ object) { delete(e, "body") },
	"body":           func(_ map[string]object, _ string, e, _ object) { e["body"] = "#" },
	"index":          func(_ map[string]object, _ string, e, _ object) { e["logIndex"] = -1 },
	"no proof":       func(_ map[string]object, _ string, e, _ object) { delete(e, "verification") },
	"hash":           func(_ map[string]object, _ string, _, p object) { p["hashes"] = []string{"beef"} },
	"hashes":         func(_ map[string]object, _ string, _, p object) { p["hashes"] = make([]string, 1000) },
	"place in shard": func(_ map[string]object, _ string, _, p object) { p["logIndex"] = 1 << 40 },
	"head":           func(_ map[string]object, _ string, _, p object) { p["checkpoint"] = "x" },
	"size":           func(_ map[string]object, _ string, _, p object) { p["treeSize"] = 1 << 40 },
	"large head": func(_ map[string]object, _ string, _, p object) {
		p["checkpoint"] = p["checkpoint"].(string) + strings.Repeat(" ", monitor.MaxNote)
	},
}

// spoilt damages the entry with that global index wherever it is served.
func spoilt(global uint64, damage func(one map[string]object, id string, entry, proof object)) func([]byte) []byte {
	return func(body []byte) []byte {
		all := list(body)
		for i := range all {
			var one map[string]object
			if err := json.Unmarshal(all[i], &one); err != nil {
				panic(err)
			}
			for id, e := range one {
				if e["logIndex"] == float64(global) {
					damage(one, id, e, e["verification"].(object)["inclusionProof"].(object))
					all[i] = must(json.Marshal(one))
					break
				}
			}
		}
		return must(json.Marshal(all))
	}
}

// One bad entry among good ones stops a tail just before it, and nothing else.
func TestDamagedEntryInTail(t *testing.T) {
	t.Parallel()
	w := newFaultWorld(t, tailed)
	damaged := func(name string, edit func(global uint64) func([]byte) []byte, counted bool) {
		t.Helper()
		want := w.positions()
		w.grow()
		bad := w.lab.V1.Active().Size() - 5
		want[monitor.V1], want[monitor.V2] = bad, w.lab.V2.Size()
		w.lab.V1Faults.Edit(retrieve, -1, edit(bad))
		o := w.try()
		if o.code != exitCould || counted != (sum(o.metrics, "sigtrail_log_unusable_total", "server", w.address(monitor.V1)) > 0) {
			t.Errorf("%s: exit code %d, %s", name, o.code, o.err)
		}
		w.check(name, want)
		w.lab.V1Faults.Clear()
		if o := w.try(); o.code != exitFine {
			t.Errorf("after %s: exit code %d, %s", name, o.code, o.err)
		}
	}
	w.grow()
	w.once(exitFine)
	for name, damage := range damages {
		damaged(name, func(g uint64) func([]byte) []byte { return spoilt(g, damage) }, true)
	}
	damaged("missing", func(g uint64) func([]byte) []byte { return lab.LeaveOut(g) }, false)
	w.sameAsWithoutFaults()
}

// One bad entry spoils the look-up of its file, and of no other one.
func TestDamagedEntryInLookup(t *testing.T) {
	t.Parallel()
	w := newFaultWorld(t, lookedUp)
	for name, damage := range damages {
		bad, good := w.grow()
		at := func(file string) string { return fmt.Sprint(file, " v1 ", w.files[file][monitor.V1]) }
		w.lab.V1Faults.Edit(retrieve, -1, spoilt(w.files[bad][monitor.V1], damage))
		o := w.try()
		if o.code != exitCould || !strings.Contains(o.err, bad) || strings.Contains(o.err, good) {
			t.Errorf("%s: exit code %d, %s", name, o.code, o.err)
		}
		if sum(o.metrics, "sigtrail_log_unusable_total", "server", w.address(monitor.V1)) == 0 {
			t.Errorf("%s: not counted", name)
		}
		if bound := w.bound(); bound[at(bad)] || !bound[at(good)] {
			t.Errorf("%s: bound are the damaged one: %t, the good one: %t", name, bound[at(bad)], bound[at(good)])
		}
		if rows := w.ask(`SELECT f.filename FROM lookups l JOIN files f ON f.id = l.file_id WHERE l.error <> ''`); len(rows) != 1 || rows[0] != bad {
			t.Errorf("%s: failed look-ups on record are %v, want that of %s", name, rows, bad)
		}
		w.lab.V1Faults.Clear()
		w.until(func() bool { return w.try().code == exitFine && w.bound()[at(bad)] })
	}
	w.sameAsWithoutFaults()
}

// An entry that the log does not give today is asked for again.
func TestMissingEntryInLookup(t *testing.T) {
	w := newFaultWorld(t, lookedUp)
	missing, _ := w.grow()
	w.lab.V1Faults.Edit(retrieve, -1, lab.LeaveOut(w.files[missing][monitor.V1]))
	w.try()
	row := fmt.Sprint(missing, " v1 ", w.files[missing][monitor.V1])
	if w.bound()[row] {
		t.Fatal("bound to an entry that was not served")
	}
	w.lab.V1Faults.Clear()
	w.until(func() bool { return w.try().code == exitFine && w.bound()[row] })
	w.sameAsWithoutFaults()
}

// until repeats what has to become true.
func (w *faultWorld) until(done func() bool) {
	w.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatal("it does not come to that")
		}
	}
}
