package e2e

import (
	"fmt"
	"testing"

	"sigtrail/e2e/servers"
)

// TestRollOver closes a v2 log under a running monitor and opens the next one. The
// frozen head has the size of the one before and other bytes, which is no news. The
// next log is named in the configuration from the start and begins when the trusted
// root's file gives it a key. In the end the closed log takes an entry again, which
// no operator may do.
func TestRollOver(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	next := servers.StartRekorV2(t, servers.V2New, "log2027.rekor.e2e.test")
	toNext := next.View(t)
	file := d.makeWheel(t, "foxtrot", "1.0.0")
	d.pypi.publish(t, file)
	w := d.watchWith(t, file.project, "tail", true, func(w *watch) {
		w.config += fmt.Sprintf("  - {api: v2, origin: %s, url: %q, follow: tail, start: 0}\n", next.Origin, toNext.URL)
	})
	w.until(t, "level with every log and with PyPI", func() (bool, string) { return w.level(t, 3) })
	if n := toNext.Polls(); n != 0 {
		t.Errorf("a log without a key was asked for its head %d times", n)
	}

	closed := d.v2
	closed.Freeze(t)
	db := openDatabase(t, w.database())
	heads := fmt.Sprintf(`SELECT size, count(*) AS texts, count(DISTINCT root) AS roots, closed FROM heads h JOIN logs l ON l.id = h.log_id WHERE origin = '%s' AND size = 1 AND verified = 1 GROUP BY size`, closed.Origin)
	w.until(t, "aware of the frozen head", func() (bool, string) {
		got := ask(t, db, heads)
		return len(differences(got, table{"size=1 texts=2 roots=1 closed=1"})) == 0, fmt.Sprint(got)
	})
	w.live = []*servers.View{w.toV1, w.toV2old} // a closed log is asked once a day

	servers.WriteTrustedRoot(t, d.root, d.fulcio, d.v1.Trusted(t), closed.Trusted(t), d.v2old.Trusted(t), next.Trusted(t))
	d.v2 = next
	w.until(t, "following the next log", func() (bool, string) { n := toNext.Polls(); return n > 0, fmt.Sprint(n) })
	w.live = append(w.live, toNext)
	d.logV2(t, next, d.sign(t, expected, file))
	w.until(t, "level with the next log", func() (bool, string) { return w.level(t, 4) })
	w.quiet(t)
	index := d.logV2(t, next, d.sign(t, other, file))
	w.until(t, "alerting", func() (bool, string) { return len(w.alerts.deliveries()) > 0, fmt.Sprint(w.metrics(t)) })
	w.oneAlert(t, file, next.Origin, index)
	if n := w.metrics(t).sum("sigtrail_contradictions_total"); n != 0 {
		t.Errorf("%v contradictions counted, want none", n)
	}

	// A closed log is asked at every start, and then once a day.
	if err := w.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}
	closed.Unfreeze(t)
	if got := d.logV2(t, closed, d.sign(t, expected, file)); got != 1 {
		t.Fatalf("the reopened log's entry has index %d, want 1", got)
	}
	w.daemon = startMonitor(t, w.folder, w.config)
	w.until(t, "alerting about the reopened log", func() (bool, string) { return len(w.alerts.deliveries()) > 1, fmt.Sprint(w.metrics(t)) })
	w.live = append(w.live, w.toV2)
	w.rounds(t, 1)
	got := w.alerts.deliveries()
	if len(got) != 2 || got[1].Alert.Rule != "closed-shard-changed" || got[1].Alert.Severity != "high" || got[1].Alert.Log.Origin != closed.Origin || !w.alerts.signed(got[1]) {
		t.Errorf("deliveries, want a second one about %s:\n%s", closed.Origin, bodies(got))
	}
	// What it has added is read all the same.
	read := fmt.Sprintf(`SELECT past, (SELECT count(*) FROM entries WHERE log_id = l.id) AS entries FROM coverage c JOIN logs l ON l.id = c.log_id WHERE origin = '%s'`, closed.Origin)
	if diff := differences(ask(t, db, read), table{"past=2 entries=2"}); len(diff) > 0 {
		t.Errorf("the reopened log (+ there, - wanted): %q", diff)
	}
	if err := w.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}
}
