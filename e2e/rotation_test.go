package e2e

import (
	"fmt"
	"testing"
)

// TestRotation closes the v1 log's shard while a monitor tails it: the server goes
// away, comes back with another tree, and numbers go on over both. Nothing is
// alerted about that, and the new shard is read like the old one.
func TestRotation(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	file := d.makeWheel(t, "echo", "1.0.0")
	d.pypi.publish(t, file)
	w := d.watch(t, file.project, "tail", false)
	w.until(t, "level with every log and with PyPI", func() (bool, string) { return w.level(t, 3) })

	d.v1.Rotate(t)
	// The last entry of the old shard has index 0, so this one is the first of
	// the new shard and the second of all.
	if index := d.logV1(t, d.sign(t, expected, file)).LogIndex; index != 1 {
		t.Fatalf("the new shard's first entry has index %d, want 1", index)
	}
	w.until(t, "level with the new shard", func() (bool, string) { return w.level(t, 4) })
	w.quiet(t)

	index := d.logV1(t, d.sign(t, other, file)).LogIndex
	w.until(t, "alerting", func() (bool, string) { return len(w.alerts.deliveries()) > 0, fmt.Sprint(w.metrics(t)) })
	w.oneAlert(t, file, d.v1.Origins()[1], index)
	if n := w.metrics(t).sum("sigtrail_contradictions_total"); n != 0 {
		t.Errorf("%v contradictions counted, want none", n)
	}
	if err := w.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}
}
