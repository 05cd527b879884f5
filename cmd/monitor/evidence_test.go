package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

// Whatever a log does, what is exported of it convicts it on a machine that has
// nothing but the file, or does not, if the lie is not signed.
func TestEvidenceOfLies(t *testing.T) {
	grow := func(w *world) { w.lab.V2.LogLeaf([]byte(`{"one":"more"}`)) }
	lies := []struct {
		name, kind string
		lie        func(*world, liar)
		want       int
		only       monitor.API
	}{
		{"changed leaf", monitor.Inconsistent, func(w *world, l liar) {
			w.sign("other-1.0.tar.gz", sampleRepo)
			grow(w)
			l.FlipLeaf(l.Size() - 1)
		}, exitAccused, ""},
		{"same size, other root", monitor.Equivocation, func(_ *world, l liar) { l.ForkAt(2) }, exitConvicted, ""},
		{"not consistent", monitor.Inconsistent, func(_ *world, l liar) { l.ServeInconsistent() }, exitConvicted, ""},
		{"shrunk", monitor.Inconsistent, func(_ *world, l liar) { l.ShrinkTo(3) }, exitAccused, monitor.V2},
		// A provenance object brought the honest head of size 3.
		{"shrunk to a size that is known", monitor.Equivocation, func(_ *world, l liar) { l.ShrinkTo(3) }, exitConvicted, monitor.V1},
		{"other key", monitor.KeyChanged, func(_ *world, l liar) { l.SignWithOtherKey() }, exitAccused, ""},
		{"more after the end", monitor.ClosedChanged, func(w *world, _ liar) {
			w.lab.V2.Freeze()
			w.once(exitFine)
			w.lab.V2.Unfreeze()
			grow(w)
		}, exitConvicted, monitor.V2},
	}
	for _, api := range []monitor.API{monitor.V1, monitor.V2} {
		for _, lie := range lies {
			if lie.only != "" && lie.only != api {
				continue
			}
			t.Run(fmt.Sprint(api, " ", lie.name), func(t *testing.T) {
				w := newWorld(t, "follow: tail, start: 0")
				for i := range 5 {
					w.release(fmt.Sprintf("1.%d", i), sampleRepo)
				}
				w.once(exitFine)
				bad, host := liar(w.lab.V1.Active()), lab.V1Host
				if api == monitor.V2 {
					bad, host = w.lab.V2, lab.V2Origin
				}
				lie.lie(w, bad)
				Main(t.Context(), []string{"--config", w.config, "--once"}, io.Discard, t.Output())
				testEvidence(t, w, host, lie.kind, lie.want)
			})
		}
	}
}

// An entry that is looked up brings a proof of its own.
func TestEvidenceOfLookup(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	w.lab.V1.Active().FlipLeaf(1)
	w.release("1.1", sampleRepo)
	Main(t.Context(), []string{"--config", w.config, "--once"}, io.Discard, t.Output())
	testEvidence(t, w, lab.V1Host, monitor.Inconsistent, exitAccused)
}

// A head that somebody else was shown convicts as well as one that we were, and the
// file says who showed it.
func TestEvidenceOfShownHead(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	for i := range 5 {
		w.release(fmt.Sprintf("1.%d", i), sampleRepo)
	}
	w.once(exitFine)
	w.lab.V2.ForkAt(2)
	forked := w.head()
	w.lab.V2.Honest()
	if got := w.monitor(io.Discard, "check-head", w.write("theirs.txt", forked)); got != exitConvicts {
		t.Fatalf("check-head: exit code %d", got)
	}
	var out bytes.Buffer
	w.monitor(&out, "evidence", "1")
	e := must(monitor.ParseEvidence(out.Bytes()))
	if v := e.Check(); v.Outcome != monitor.Convicted || e.Theirs.Note != forked || e.Theirs.Source != "check-head theirs.txt" || e.Ours.Source != "" {
		t.Errorf("%s: %s: theirs shown by %q, ours by %q", v.Outcome, v.Shows, e.Theirs.Source, e.Ours.Source)
	}
}

func testEvidence(t *testing.T, w *world, host, kind string, want int) {
	listed := w.evidence()
	if len(listed) != 1 || listed[0].Kind != kind || !isOf(listed[0].Log, host) || listed[0].Ours == nil || listed[0].Theirs == nil || listed[0].Found.IsZero() {
		t.Fatalf("listed %+v, want one %s of %s", listed, kind, host)
	}
	file := filepath.Join(t.TempDir(), "evidence.json")
	if got := w.monitor(io.Discard, "evidence", strconv.FormatInt(listed[0].ID, 10), "-o", file); got != exitFine {
		t.Fatalf("evidence: exit code %d", got)
	}
	must(0, os.WriteFile(filepath.Join(filepath.Dir(file), "trusted_root.json"), w.lab.TrustedRootJSON(), 0o600))
	w.lab.Close()

	code, said := alone(t, filepath.Dir(file), "check-evidence", "evidence.json")
	if code != want || !strings.Contains(said, host) || !strings.Contains(said, "which this file names; compare it") {
		t.Errorf("exit code %d, want %d:\n%s", code, want, said)
	}
	code, said = alone(t, filepath.Dir(file), "check-evidence", "--json", "--trusted-root", "trusted_root.json", "evidence.json")
	var v verdictJSON
	if err := json.Unmarshal([]byte(said), &v); err != nil || code != want || v.Key == nil || v.Key.VouchedBy != "trusted_root.json" || v.File.Kind != kind {
		t.Errorf("with the trusted root: exit code %d, want %d: %v\n%s", code, want, err, said)
	}
	for _, h := range v.Heads {
		if h.Seen.IsZero() || h.Source != "" && !strings.HasPrefix(h.Source, "provenance of sampleproject-") {
			t.Errorf("head of %d leaves: seen %s, source %q", h.Size, h.Seen, h.Source)
		}
	}
}

// monitor runs a command on the world's database and returns its exit code.
func (w *world) monitor(stdout io.Writer, args ...string) int {
	w.Helper()
	return Main(w.Context(), append([]string{"--config", w.config}, args...), stdout, w.Output())
}

func (w *world) evidence() (lines []evidenceLine) {
	w.Helper()
	var out bytes.Buffer
	if got := w.monitor(&out, "evidence", "--json"); got != exitFine {
		w.Fatalf("evidence: exit code %d", got)
	}
	for dec := json.NewDecoder(&out); dec.More(); {
		var l evidenceLine
		must(0, dec.Decode(&l))
		lines = append(lines, l)
	}
	return lines
}

// alone runs the command in a process of its own: in a folder with nothing else in
// it, with no environment, and without a network where the system lets us take it away.
func alone(t *testing.T, dir string, args ...string) (code int, stdout string) {
	t.Helper()
	args = append([]string{must(os.Executable())}, args...)
	if unshare, err := exec.LookPath("unshare"); err == nil && exec.Command(unshare, "-rn", "true").Run() == nil {
		args = append([]string{unshare, "-rn"}, args...)
	} else {
		t.Log("this system does not let us run a process without a network")
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, []string{childVar + "=1"}, t.Output()
	out, err := cmd.Output()
	failed := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// What is done to a file that convicts, and what becomes of its verdict.
func TestSpoiltEvidence(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	for i := range 5 {
		w.release(fmt.Sprintf("1.%d", i), sampleRepo)
	}
	w.once(exitFine)
	w.lab.V2.ServeInconsistent()
	w.once(exitConvicts)
	var out bytes.Buffer
	if got := w.monitor(&out, "evidence", "1"); got != exitFine {
		t.Fatalf("evidence on the standard output: exit code %d", got)
	}
	good := out.Bytes()
	e := must(monitor.ParseEvidence(good))
	notes := strings.Split(e.Ours.Note+"\n"+e.Theirs.Note, "\n")
	otherKey := must(monitor.ParseLogKey(e.Log.VKey))
	stranger := must(lab.New(lab.Options{}))
	w.write("other_root.json", string(stranger.TrustedRootJSON()))
	w.write("other.pem", pemOf(stranger.V2.Trusted().SPKI))
	w.write("own.pem", otherKey.PEM())
	w.write("empty.pem", "")

	changed := func(old, new string) []byte {
		t.Helper()
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("no %q in\n%s", old, good)
		}
		return bytes.ReplaceAll(good, []byte(old), []byte(new))
	}
	for _, c := range []struct {
		name string
		file []byte
		args []string
		want int
	}{
		{"as it is", good, nil, exitConvicted},
		{"the log's trusted root", good, []string{"--trusted-root", filepath.Join(w.dir, "trusted_root.json")}, exitConvicted},
		{"the log's key", good, []string{"--key", filepath.Join(w.dir, "own.pem")}, exitConvicted},
		{"another trusted root", good, []string{"--trusted-root", filepath.Join(w.dir, "other_root.json")}, exitUnfounded},
		{"another key", good, []string{"--key", filepath.Join(w.dir, "other.pem")}, exitUnfounded},
		{"no trusted root", good, []string{"--trusted-root", filepath.Join(w.dir, "none.json")}, exitCould},
		{"no key in the file", good, []string{"--key", filepath.Join(w.dir, "empty.pem")}, exitCould},
		{"both", good, []string{"--key", "a", "--trusted-root", "b"}, exitUsage},
		{"two files", good, []string{"more.json"}, exitUsage},
		{"another kind", changed(`"kind": "log-inconsistent"`, `"kind": "log-equivocation"`), nil, exitConvicted},
		{"another root", changed(notes[2], notes[2][1:]+notes[2][:1]), nil, exitUnfounded},
		{"roots swapped", bytes.ReplaceAll(bytes.ReplaceAll(changed(notes[2], "*"), []byte(notes[8]), []byte(notes[2])), []byte("*"), []byte(notes[8])), nil, exitUnfounded},
		{"another size", changed(`\n7\n`, `\n8\n`), nil, exitUnfounded},
		{"a spoilt proof", changed(e.Proof.Hashes[1].String(), monitor.Hash{}.String()), nil, exitAccused},
		{"another origin", changed(lab.V2Origin, "log2027.rekor.lab.test"), nil, exitUnfounded},
		{"truncated", good[:len(good)-10], nil, exitCould},
		{"empty", nil, nil, exitCould},
		{"huge", append(good[:len(good):len(good)], bytes.Repeat([]byte("\n"), monitor.MaxEvidence)...), nil, exitCould},
		{"a member twice", changed(`"log": {`, `"log": {}, "log": {`), nil, exitCould},
		{"a verdict in it", changed(`"log": {`, `"verdict": "convicted", "log": {`), nil, exitCould},
		{"unknown schema", changed(monitor.EvidenceSchema, "sigtrail.evidence/99"), nil, exitCould},
	} {
		file := w.write("evidence.json", string(c.file))
		var out bytes.Buffer
		if got := Main(t.Context(), append([]string{"check-evidence", file}, c.args...), &out, t.Output()); got != c.want {
			t.Errorf("%s: exit code %d, want %d\n%s", c.name, got, c.want, out.String())
		}
		if answered := c.want == exitConvicted || c.want == exitAccused || c.want == exitUnfounded; answered != (out.Len() > 0) {
			t.Errorf("%s: answered %q", c.name, out.String())
		}
	}
	if got := Main(t.Context(), []string{"check-evidence", filepath.Join(w.dir, "none.json")}, io.Discard, t.Output()); got != exitCould {
		t.Errorf("no file: exit code %d", got)
	}
}

func pemOf(spki []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
}

// What a file says reaches the terminal harmless.
func TestEvidenceIsEscaped(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	w.lab.V2.ForkAt(0)
	w.once(exitConvicts)
	var out bytes.Buffer
	w.monitor(&out, "evidence", "1")
	e := must(monitor.ParseEvidence(out.Bytes()))
	e.Detail, e.Exporter, e.Theirs.Source = "\x1b[2Jclean\nCONVICTED: log x"+strings.Repeat("A", 100_000), "\u202etest", "a\r\u009bb"
	file := w.write("evidence.json", string(must(e.Marshal())))
	out.Reset()
	if got := Main(t.Context(), []string{"check-evidence", file}, &out, t.Output()); got != exitConvicted {
		t.Fatalf("exit code %d", got)
	}
	if strings.ContainsAny(out.String(), "\x1b\r\u009b\u202e") || strings.Count(out.String(), "\nCONVICTED") > 0 || out.Len() > 10_000 {
		t.Errorf("%.5000q", out.String())
	}
}

func TestEvidenceCommand(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	if got := w.monitor(io.Discard, "evidence"); got != exitCould {
		t.Errorf("without a database: exit code %d", got)
	}
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	var out bytes.Buffer
	if got := w.monitor(&out, "evidence"); got != exitFine || out.String() != "no log has contradicted itself\n" {
		t.Errorf("exit code %d: %s", got, out.String())
	}
	for _, id := range []string{"1", "-1", "x", ""} {
		if got := w.monitor(io.Discard, "evidence", "--", id); got != exitUsage {
			t.Errorf("id %q: exit code %d", id, got)
		}
	}
	if got := w.monitor(io.Discard, "evidence", "-o", filepath.Join(w.dir, "all.json")); got != exitUsage {
		t.Errorf("a file and no id: exit code %d", got)
	}
	w.lab.V2.ForkAt(0)
	w.once(exitConvicts)
	out.Reset()
	if got := w.monitor(&out, "evidence"); got != exitFine || !strings.Contains(out.String(), "\n1     log-equivocation      1           1           2") || !strings.Contains(out.String(), "\n      "+lab.V2Origin+": ") {
		t.Errorf("exit code %d:\n%s", got, out.String())
	}
	// Whole or not at all, and over what was there.
	file := w.write("evidence.json", "something else")
	if got := w.monitor(io.Discard, "evidence", "1", "-o", file); got != exitFine {
		t.Errorf("exit code %d", got)
	}
	must(monitor.ParseEvidence(must(os.ReadFile(file))))
	if got := w.monitor(io.Discard, "evidence", "1", "-o", filepath.Join(w.dir, "none", "evidence.json")); got != exitCould {
		t.Errorf("into no folder: exit code %d", got)
	}
	left := must(filepath.Glob(filepath.Join(w.dir, ".evidence*")))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
