// Package e2e runs sigtrail's real programs against real servers.
package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"sigtrail/e2e/servers"
)

// Who signs.
var (
	expected = servers.Job{Repository: "octo/expected", RepositoryID: "710000001", RepositoryOwnerID: "810000001", Environment: "pypi", RunID: "9100000001"}
	other    = servers.Job{Repository: "mallory/other", RepositoryID: "720000002", RepositoryOwnerID: "820000002", Workflow: "publish.yml", RunID: "9200000002"}
	bystand  = servers.Job{Repository: "some/bystander", RepositoryID: "730000003", RepositoryOwnerID: "830000003"}
)

// A deployment is every server there is, and what signs and who watches it.
type deployment struct {
	fulcio *servers.Fulcio
	v1     *servers.RekorV1
	v2     *servers.RekorV2 // at V2New
	v2old  *servers.RekorV2 // at V2Old
	pypi   *index
	root   string // path of trusted_root.json
}

func deploy(t *testing.T) *deployment {
	t.Helper()
	built(t, "monitor") // before anything is started: it may not compile
	d := &deployment{
		fulcio: servers.StartFulcio(t),
		v1:     servers.StartRekorV1(t, "rekor.e2e.test"),
		v2:     servers.StartRekorV2(t, servers.V2New, "log2026.rekor.e2e.test"),
		v2old:  servers.StartRekorV2(t, servers.V2Old, "log2025.rekor.e2e.test"),
		pypi:   startIndex(t),
	}
	d.root = servers.TrustedRoot(t, d.fulcio, d.v1.Trusted(t), d.v2.Trusted(t), d.v2old.Trusted(t))
	return d
}

// A wheel is a file and its signature by the expected repository.
type wheel struct {
	project, version, name string
	content                []byte
	signed                 servers.Signed
	entry                  servers.V1Entry
}

func (w wheel) sha256() [32]byte { return sha256.Sum256(w.content) }

// makeWheel has a wheel signed by the expected repository and the signature
// logged in all three logs.
func (d *deployment) makeWheel(t *testing.T, project, version string) wheel {
	t.Helper()
	w := wheel{project: project, version: version, name: fmt.Sprintf("%s-%s-py3-none-any.whl", project, version), content: []byte("the wheel of " + project + " " + version)}
	w.signed = d.sign(t, expected, w)
	var g errgroup.Group // a v2 log takes its time: an upload waits for the next head
	g.Go(func() (err error) {
		w.entry, err = d.v1.Upload(t.Context(), w.signed)
		return err
	})
	for _, log := range []*servers.RekorV2{d.v2, d.v2old} {
		g.Go(func() error {
			_, err := log.Upload(t.Context(), w.signed)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (d *deployment) sign(t *testing.T, job servers.Job, w wheel) servers.Signed {
	t.Helper()
	s, err := d.fulcio.Sign(t.Context(), job, w.name, w.sha256())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (d *deployment) logV1(t *testing.T, s servers.Signed) servers.V1Entry {
	t.Helper()
	e, err := d.v1.Upload(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (d *deployment) logV2(t *testing.T, log *servers.RekorV2, s servers.Signed) int64 {
	t.Helper()
	i, err := log.Upload(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// bystander adds entries that concern no file that is watched.
func (d *deployment) bystander(t *testing.T) {
	t.Helper()
	w := wheel{name: "unrelated-1.0.0-py3-none-any.whl", content: []byte("unrelated")}
	s := d.sign(t, bystand, w)
	if _, err := d.v1.UploadHash(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	d.logV2(t, d.v2, s)
	d.logV2(t, d.v2old, s)
}

// A variant is a way of following the v1 log, and where the other repository's
// signature is logged.
type variant struct {
	name    string
	project string
	follow  string // of the v1 log
	policy  bool   // a policy names the publisher; otherwise it is learned
	log     func(*watch) place
}

// A place is a log to put the other signature into.
type place struct {
	origin string
	polls  func() int64
	upload func(*testing.T, servers.Signed) int64 // returns the number that people use
}

func inV1(w *watch) place {
	origins := w.v1.Origins()
	return place{origins[len(origins)-1], w.toV1.Polls, func(t *testing.T, s servers.Signed) int64 { return w.logV1(t, s).LogIndex }}
}

func inNewV2(w *watch) place {
	return place{w.v2.Origin, w.toV2.Polls, func(t *testing.T, s servers.Signed) int64 { return w.logV2(t, w.v2, s) }}
}

func inOldV2(w *watch) place {
	return place{w.v2old.Origin, w.toV2old.Polls, func(t *testing.T, s servers.Signed) int64 { return w.logV2(t, w.v2old, s) }}
}

var variants = []variant{
	{name: "v1 tailed, signed in v1", project: "alpha", follow: "tail", log: inV1},
	{name: "v1 tailed, signed in v2 as hashedrekord", project: "bravo", follow: "tail", policy: true, log: inNewV2},
	{name: "v1 looked up, signed in v2 as dsse", project: "charlie", follow: "lookup", log: inOldV2},
}

// TestScenario is the whole road, once for each variant: a wheel signed by the
// expected repository raises nothing; another repository signs the same wheel,
// and one alert reaches the receiver.
func TestScenario(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	wheels := make(map[string]wheel)
	for _, v := range variants {
		wheels[v.project] = d.makeWheel(t, v.project, "1.0.0")
	}
	late := d.makeWheel(t, "delta", "1.0.0")
	d.bystander(t)
	d.v1.Rotate(t)
	d.bystander(t)
	for _, v := range variants {
		d.pypi.publish(t, wheels[v.project])
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel() // mostly waiting
			d.run(t, v, wheels[v.project])
		})
	}
	t.Run("v1 looked up, signed in v1 before the file appears", func(t *testing.T) {
		t.Parallel()
		d.foundByIndex(t, late)
	})
}

// interval is how often the logs are looked at. It is long enough for a busy
// machine to do one round's work in.
const interval = "4s"

// A watch is one monitor over a deployment, with its receiver of alerts.
type watch struct {
	*deployment
	*daemon
	alerts  *receiver
	folder  string
	follow  string // of the v1 log
	project string
	config  string // without the address to listen on
	v1At    string // another read address than toV1, which leads there

	toV1, toV2, toV2old *servers.View
	live                []*servers.View // of the logs that are asked for a head in every round
}

// watch starts a monitor in a folder of its own that looks at all three logs and
// at one project. It reads the logs at addresses that only it uses.
func (d *deployment) watch(t *testing.T, project, follow string, policy bool) *watch {
	t.Helper()
	return d.watchWith(t, project, follow, policy, func(*watch) {})
}

// watchWith is watch with something changed before the monitor starts.
func (d *deployment) watchWith(t *testing.T, project, follow string, policy bool, change func(*watch)) *watch {
	t.Helper()
	w := &watch{deployment: d, folder: t.TempDir(), follow: follow, project: project,
		toV1: d.v1.View(t), toV2: d.v2.View(t), toV2old: d.v2old.View(t), alerts: startReceiver(t, []byte("a secret between two"))}
	w.live = []*servers.View{w.toV1, w.toV2, w.toV2old}
	w.write(t, "hook.key", string(w.alerts.secret)+"\n")
	w.config = fmt.Sprintf(`database: sigtrail.db
trusted_root: %q
interval: %s
pypi: {url: %q, projects: [%s], interval: 1s}
webhooks: [{url: %q, secret_file: hook.key}]
`, d.root, interval, d.pypi.URL, project, w.alerts.URL)
	if policy {
		w.write(t, "policy.yaml", fmt.Sprintf("projects:\n  %s:\n    publishers: [{repository: github.com/%s, workflow: release.yml, environment: pypi}]\n", project, expected.Repository))
		w.config += "policy: policy.yaml\n"
	}
	w.config += fmt.Sprintf(`logs:
  - {api: v2, origin: %s, url: %q, follow: tail, start: 0}
  - {api: v2, origin: %s, url: %q, follow: tail, start: 0}
`, d.v2.Origin, w.toV2.URL, d.v2old.Origin, w.toV2old.URL)
	v1 := w.toV1.URL
	if change(w); w.v1At != "" {
		v1 = w.v1At
	}
	w.config += fmt.Sprintf("  - {api: v1, origin: %s, url: %q, follow: %s, start: 0}\n", d.v1.Host, v1, follow)
	w.daemon = startMonitor(t, w.folder, w.config)
	return w
}

func (w *watch) database() string { return filepath.Join(w.folder, "sigtrail.db") }

func (w *watch) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d *deployment) run(t *testing.T, v variant, file wheel) {
	w := d.watch(t, v.project, v.follow, v.policy)
	w.until(t, "level with every log and with PyPI", func() (bool, string) { return w.level(t, 3) })
	w.quiet(t)

	at := v.log(w)
	index := at.upload(t, d.sign(t, other, file))
	before := at.polls()
	w.until(t, "alerting", func() (bool, string) { return len(w.alerts.deliveries()) > 0, fmt.Sprint(w.metrics(t)) })
	if rounds := at.polls() - before; rounds > 3 { // one may have been under way
		t.Errorf("the alert took %d rounds of looking at the log, want two at most", rounds-1)
	}
	w.oneAlert(t, file, at.origin, index)
	w.checkTimeline(t, file, at.origin, index)
	if err := w.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}
}

// foundByIndex is about what look-ups find: another repository's signature is in
// the v1 log before PyPI shows the file, and no provenance names it.
func (d *deployment) foundByIndex(t *testing.T, file wheel) {
	index := d.logV1(t, d.sign(t, other, file)).LogIndex
	w := d.watch(t, file.project, "lookup", true)
	w.rounds(t, 1)
	d.pypi.publish(t, file)
	w.until(t, "alerting", func() (bool, string) { return len(w.alerts.deliveries()) > 0, fmt.Sprint(w.metrics(t)) })
	origins := d.v1.Origins()
	w.oneAlert(t, file, origins[len(origins)-1], index)
	if err := w.Stop(); err != nil {
		t.Errorf("monitor, told to end: %v", err)
	}
}

// level says whether the monitor has indexed every log and bound as many entries
// as there are, and has judged them.
func (w *watch) level(t *testing.T, bound float64) (bool, string) {
	t.Helper()
	s := w.metrics(t)
	tailed := []string{w.v2.Origin, w.v2old.Origin}
	if w.follow == "tail" {
		tailed = append(tailed, w.v1.Origins()...)
	}
	var state []string
	ok := true
	for _, o := range tailed {
		verified, indexed := s.of("sigtrail_verified_size", "origin", o), s.of("sigtrail_indexed_size", "origin", o)
		state = append(state, fmt.Sprintf("%s: %v verified, %v indexed", o, verified, indexed))
		ok = ok && verified > 0 && indexed == verified
	}
	for _, o := range w.v1.Origins() {
		ok = ok && s.of("sigtrail_verified_size", "origin", o) > 0
	}
	statements := s.of("sigtrail_bindings_total", "evidence", "statement")
	state = append(state, fmt.Sprintf("%v statements bound, %v entries unjudged, %v look-ups due", statements, s.sum("sigtrail_unjudged"), s.sum("sigtrail_lookups_due")))
	ok = ok && statements >= bound && s.sum("sigtrail_unjudged") == 0 && s.sum("sigtrail_lookups_due") == 0
	return ok, strings.Join(state, "; ")
}

// quiet checks that nothing has been alerted.
func (w *watch) quiet(t *testing.T) {
	t.Helper()
	w.rounds(t, 1)
	if got := w.alerts.deliveries(); len(got) != 0 {
		t.Fatalf("%d alerts about an ordinary release:\n%s", len(got), bodies(got))
	}
	if n := w.metrics(t).sum("sigtrail_findings"); n != 0 {
		t.Fatalf("%v findings about an ordinary release", n)
	}
}

// rounds waits until the monitor has looked at every log n times more.
func (w *watch) rounds(t *testing.T, n int64) {
	t.Helper()
	var before []int64
	for _, v := range w.live {
		before = append(before, v.Polls())
	}
	w.until(t, "some rounds further", func() (bool, string) {
		for i, v := range w.live {
			if v.Polls() < before[i]+n+1 { // one was under way
				return false, fmt.Sprintf("%d heads of %s asked for", v.Polls(), v.URL)
			}
		}
		return true, ""
	})
}

// oneAlert checks that exactly one alert has reached the receiver, also after a
// further round of everything, and that it is the right one.
func (w *watch) oneAlert(t *testing.T, file wheel, origin string, index int64) {
	t.Helper()
	w.rounds(t, 1)
	got := w.alerts.deliveries()
	if len(got) != 1 {
		t.Fatalf("%d deliveries, want one:\n%s", len(got), bodies(got))
	}
	checkAlert(t, w.alerts, got[0], file, origin, index)
	s := w.metrics(t)
	if n := s.of("sigtrail_findings", "rule", "unexpected-signer"); n != 1 || s.sum("sigtrail_findings") != 1 {
		t.Errorf("metrics count %v unexpected signers and %v findings, want one", n, s.sum("sigtrail_findings"))
	}
	if n := s.sum("sigtrail_outbox_depth"); n != 0 {
		t.Errorf("%v alerts wait in the outbox", n)
	}
}

func checkAlert(t *testing.T, r *receiver, got delivery, w wheel, origin string, index int64) {
	t.Helper()
	a := got.Alert
	if !r.signed(got) {
		t.Errorf("the alert's signature %q does not verify", got.Signature)
	}
	if a.Rule != "unexpected-signer" || a.Project != w.project || a.Version != w.version || a.ID == "" || a.ID != got.ID {
		t.Errorf("alert %s (delivered as %s): rule %s, project %s %s", a.ID, got.ID, a.Rule, a.Project, a.Version)
	}
	digest := w.sha256()
	if len(a.Files) != 1 || a.Files[0].Name != w.name || a.Files[0].SHA256 != hex.EncodeToString(digest[:]) {
		t.Errorf("the alert is about %v, want %s", a.Files, w.name)
	}
	if a.Seen.Repository != "https://github.com/"+other.Repository {
		t.Errorf("the alert saw %q, want %s", a.Seen.Repository, other.Repository)
	}
	if len(a.Expected) != 1 || !strings.Contains(a.Expected[0], expected.Repository) {
		t.Errorf("the alert expected %q, want %s", a.Expected, expected.Repository)
	}
	if a.Log.Origin != origin || a.Log.Global != index {
		t.Errorf("the alert's entry is %d of %q, want %d of %q", a.Log.Global, a.Log.Origin, index, origin)
	}
}

func bodies(ds []delivery) string {
	var out strings.Builder
	for _, d := range ds {
		fmt.Fprintf(&out, "%s\n", d.Body)
	}
	return out.String()
}
