package e2e

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// An event is the part of a line of the timeline's JSON that the tests look at.
// The last line, on coverage, has other members.
type event struct {
	Schema, Kind, Clock, File, Log string
	Index                          uint64
	Global                         int64 `json:"global_index"`
	Publisher                      struct{ Repository string }
	Severity                       string

	Logs []struct {
		Origin  string
		Size    uint64 `json:"head_size"`
		Covered uint64 `json:"covered_entries"`
	}
}

// checkTimeline runs the real timeline over the database of a monitor that is
// running, with each kind of selector. Both signatures are listed, each log's in
// the order of its indexes, and the other repository's last.
func (w *watch) checkTimeline(t *testing.T, file wheel, origin string, index int64) {
	t.Helper()
	digest := file.sha256()
	database := filepath.Join(w.folder, "sigtrail.db")
	for _, selector := range []string{file.project, file.project + "==" + file.version, file.name, hex.EncodeToString(digest[:])} {
		out, code := timeline(t, "--database", database, selector)
		if code != 1 {
			t.Errorf("timeline %s: exit code %d, want 1:\n%s", selector, code, out)
		}
		at := strings.Index(out, fmt.Sprintf("entry %d, signed by", index))
		first := strings.Index(out, expected.Repository)
		if at < 0 || first < 0 || !strings.Contains(out[at:], other.Repository) || first > at {
			t.Errorf("timeline %s does not list both signatures:\n%s", selector, out)
		}
	}
	out, code := timeline(t, "--database", database, "--format", "jsonl", file.name)
	if code != 1 {
		t.Errorf("timeline as JSON: exit code %d, want 1", code)
	}
	var events []event
	for line := range strings.Lines(out) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("a line of the timeline is no JSON: %v\n%s", err, line)
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		t.Fatal("the timeline is empty")
	}
	w.checkEvents(t, events[:len(events)-1], file, origin, index)
	w.checkCoverage(t, events[len(events)-1])
}

func (w *watch) checkEvents(t *testing.T, events []event, file wheel, origin string, index int64) {
	t.Helper()
	kinds := make(map[string]int)
	newest := make(map[string]uint64) // log → largest index so far
	var signers []string
	var last event
	for _, e := range events {
		kinds[e.Kind]++
		if e.Kind != "logged" {
			continue
		}
		if before, ok := newest[e.Log]; ok && e.Index <= before {
			t.Errorf("entry %d of %s stands after entry %d", e.Index, e.Log, before)
		}
		newest[e.Log] = e.Index
		signers = append(signers, e.Publisher.Repository)
		if strings.HasPrefix(e.Log, w.v1.Host+" ") && e.Clock != "log" {
			t.Errorf("entry %d of %s has the clock %q, want the log's", e.Index, e.Log, e.Clock)
		}
		if e.Log == w.v1.Origins()[0] && e.Global != file.entry.LogIndex {
			t.Errorf("the expected signature is entry %d of the v1 log, want %d", e.Global, file.entry.LogIndex)
		}
		last = e
	}
	ours, theirs := "https://github.com/"+expected.Repository, "https://github.com/"+other.Repository
	if got, want := strings.Join(signers, " "), strings.Join([]string{ours, ours, ours, theirs}, " "); got != want {
		t.Errorf("signers in order: %s; want %s", got, want)
	}
	if last.Log != origin || last.Global != index {
		t.Errorf("the other signature is entry %d of %q, want %d of %q", last.Global, last.Log, index, origin)
	}
	want := map[string]int{"certificate-issued": 2, "logged": 4, "covered": 4, "uploaded": 1, "alert": 1}
	for kind, n := range want {
		if kinds[kind] != n {
			t.Errorf("%d events of kind %s, want %d", kinds[kind], kind, n)
		}
	}
}

// checkCoverage checks that the answer says it has seen whole logs, or not.
func (w *watch) checkCoverage(t *testing.T, c event) {
	t.Helper()
	if len(c.Logs) != 4 {
		t.Fatalf("the coverage (%s) names %d logs, want four", c.Schema, len(c.Logs))
	}
	for _, l := range c.Logs {
		whole := w.follow == "tail" || !strings.HasPrefix(l.Origin, w.v1.Host+" ")
		if l.Size == 0 || (l.Covered == l.Size) != whole {
			t.Errorf("coverage of %s: %d of %d entries", l.Origin, l.Covered, l.Size)
		}
	}
}
