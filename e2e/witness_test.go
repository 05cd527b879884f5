package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"sigtrail/e2e/servers"
)

// TestWitness has a real Rekor v2 server ask a witness for cosignatures, and a
// monitor ask for them by policy. Without the witness the server goes on (it fails
// open) and the monitor does not; with it back, both do.
func TestWitness(t *testing.T) {
	t.Parallel()
	built(t, "monitor")
	fulcio := servers.StartFulcio(t)
	witness := servers.StartWitness(t, "witness.e2e.test")
	log := servers.StartWitnessedRekorV2(t, servers.V2New, "witnessed.rekor.e2e.test", witness)
	d := &deployment{fulcio: fulcio, v2: log, pypi: startIndex(t), root: servers.TrustedRoot(t, fulcio, log.Trusted(t))}
	entry := func(name string) {
		t.Helper()
		w := wheel{name: name + "-1-py3-none-any.whl", content: []byte(name)}
		d.logV2(t, log, d.sign(t, bystand, w))
	}
	entry("one")

	w := &watch{deployment: d, folder: t.TempDir(), alerts: startReceiver(t, []byte("a secret between two"))}
	w.write(t, "witnesses", "log "+log.VKey()+"\nwitness w "+witness.VKey+"\nquorum w\n")
	w.write(t, "hook.key", string(w.alerts.secret)+"\n")
	w.daemon = startMonitor(t, w.folder, fmt.Sprintf(`database: sigtrail.db
trusted_root: %q
interval: %s
witness_policy: witnesses
logs: [{api: v2, origin: %s, url: %q, follow: tail, start: 0}]
pypi: {url: %q, projects: [one], interval: 1s}
webhooks: [{url: %q, secret_file: hook.key}]
`, d.root, interval, log.Origin, log.URL, d.pypi.URL, w.alerts.URL))
	indexed := func(n float64) func() (bool, string) {
		return func() (bool, string) {
			m := w.metrics(t)
			return m.of("sigtrail_indexed_size", "origin", log.Origin) == n, fmt.Sprint(m)
		}
	}
	w.until(t, "level with cosigned heads", indexed(1))

	witness.Leave(true)
	entry("two")
	w.until(t, "waiting for cosignatures", func() (bool, string) {
		m := w.metrics(t)
		return m.sum("sigtrail_heads_uncosigned_total") > 1, fmt.Sprint(m)
	})
	if ok, state := indexed(1)(); !ok {
		t.Errorf("a head without its cosignature counts: %s", state)
	}

	witness.Leave(false)
	entry("three")
	w.until(t, "level with cosigned heads again", indexed(3))

	var status struct {
		Logs []struct {
			Cosignatures []struct {
				Name     string
				Verified bool
				At       string
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), built(t, "monitor"), "--database", filepath.Join(w.folder, "sigtrail.db"), "status", "--json").Output()
	if err == nil {
		err = json.Unmarshal(out, &status)
	}
	if err != nil {
		t.Fatalf("monitor status: %v\n%s", err, out)
	}
	if c := status.Logs[0].Cosignatures; len(c) != 1 || c[0].Name != "witness.e2e.test" || !c[0].Verified || c[0].At == "" {
		t.Errorf("cosignatures in status: %+v, want a verified one of the witness", c)
	}
	if n := len(w.alerts.deliveries()); n != 0 {
		t.Errorf("%d alerts, want none", n)
	}
	if err := w.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}
}
