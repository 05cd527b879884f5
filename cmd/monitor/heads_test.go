package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

// head is the note that the lab's v2 log serves now.
func (w *world) head() string {
	w.Helper()
	resp := must(http.Get(must(w.lab.Config(w.dir)).V2 + "checkpoint"))
	defer resp.Body.Close()
	return string(must(io.ReadAll(resp.Body)))
}

// forkedHead is one of the size that the v2 log has now, signed by it, of another
// history.
func (w *world) forkedHead() string {
	w.lab.V2.ForkAt(1)
	defer w.lab.V2.Honest()
	return w.head()
}

// add appends lines to the configuration.
func (w *world) add(lines string) {
	w.Helper()
	w.config = w.write("sigtrail.yaml", string(must(os.ReadFile(w.config)))+lines+"\n")
}

// waiting are the heads from elsewhere that are not compared yet, and those that
// the log has not signed.
func (w *world) waiting() (waiting, unsigned int) {
	w.Helper()
	s := w.store()
	defer s.Close()
	waiting, unsigned, err := s.ShownCount(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return waiting, unsigned
}

// A head inside a provenance object is compared with what the log shows us.
func TestHeadOfProvenance(t *testing.T) {
	upload := func(w *world, checkpoint string) {
		s, e := w.sign("sampleproject-2.0.tar.gz", sampleRepo)
		e.Checkpoint = checkpoint
		w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "2.0", Filename: s.Filename, SHA256: s.SHA256,
			Provenance: lab.Provenance(sampleRepo.Publisher(), s, e)})
	}
	prepare := func(t *testing.T) *world {
		w := newWorld(t, "follow: lookup")
		for i := range 4 {
			w.release(fmt.Sprintf("1.%d", i), sampleRepo)
		}
		w.once(exitFine)
		return w
	}
	t.Run("fits", func(t *testing.T) {
		w := prepare(t)
		head := w.head()
		w.lab.V2.Log(must(w.lab.CA.SignPublish(sampleRepo, "other-1.tar.gz", lab.Digest("x"), w.lab.Now())))
		upload(w, head)
		w.once(exitFindings) // the attestation does not hold under another head
		if waiting, unsigned := w.waiting(); waiting+unsigned != 0 {
			t.Errorf("%d heads wait, %d are unsigned; want none", waiting, unsigned)
		}
	})
	t.Run("forked", func(t *testing.T) {
		w := prepare(t)
		upload(w, w.forkedHead())
		w.once(exitConvicts)
		w.once(exitFine) // said once; the log itself shows us one history
		got := w.got()
		if len(got) != 2 || got[0].Rule != monitor.Equivocation || got[1].Rule != "provenance-invalid" || got[0].Heads == nil || !strings.Contains(got[0].Reason, "provenance of sampleproject-2.0.tar.gz") {
			t.Fatalf("received %+v, want one log-equivocation that names the provenance", got)
		}
		if len(got[0].Heads.Ours) == 0 || len(got[0].Heads.Theirs) == 0 {
			t.Error("the alert does not hold both notes")
		}
	})
	t.Run("not signed by the log", func(t *testing.T) {
		w := prepare(t)
		w.lab.V2.ForkAt(1)
		w.lab.V2.SignWithOtherKey()
		forged := w.head()
		w.lab.V2.Honest()
		upload(w, forged)
		w.once(exitFindings)
		if waiting, unsigned := w.waiting(); waiting != 0 || unsigned != 1 {
			t.Errorf("%d heads wait, %d are unsigned; want one unsigned", waiting, unsigned)
		}
		if got := w.got(); len(got) != 1 || got[0].Condition != rekor.FailsInclusion {
			t.Errorf("received %+v, want one about the attestation: anybody could have made the head", got)
		}
	})
	t.Run("of a log that nobody follows", func(t *testing.T) {
		w := prepare(t)
		upload(w, strings.Replace(w.head(), lab.V2Origin, "log.example", 1))
		w.once(exitFindings)
		if waiting, _ := w.waiting(); waiting != 1 {
			t.Errorf("%d heads wait, want 1", waiting)
		}
	})
}

// Two monitors compare what the log shows them through /heads.
func TestMonitorsCompareHeads(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	for i := range 4 {
		w.release(fmt.Sprintf("1.%d", i), sampleRepo)
	}
	w.once(exitFine)

	// Another sigtrail, to which the v2 log shows another history.
	w.lab.V2.ForkAt(1)
	theirs := filepath.Join(t.TempDir(), "theirs.db")
	if code := Main(t.Context(), []string{"--config", w.config, "--database", theirs, "--once"}, io.Discard, t.Output()); code != exitFine {
		t.Fatalf("the other monitor: exit code %d", code)
	}
	w.lab.V2.Honest()
	c := must(loadConfig(w.config))
	c.Database = theirs
	other := must(newDaemon(t.Context(), c, slog.New(slog.DiscardHandler)))
	defer other.close()
	served := httptest.NewServer(http.HandlerFunc(other.serveHeads))
	defer served.Close()

	var heads struct {
		Heads []struct{ Origin, Note string }
	}
	resp := must(http.Get(served.URL))
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&heads); err != nil || len(heads.Heads) != 2 {
		t.Fatalf("/heads: %v, %d heads, want 2", err, len(heads.Heads))
	}
	for _, h := range heads.Heads {
		resp := must(http.Get(served.URL + "?origin=" + strings.ReplaceAll(h.Origin, " ", "%20")))
		if got := string(must(io.ReadAll(resp.Body))); got != h.Note {
			t.Errorf("origin=%s: %q, want the note alone", h.Origin, got)
		}
		resp.Body.Close()
	}

	w.add(fmt.Sprintf("monitors: [%q]", served.URL))
	w.once(exitConvicts)
	got := w.got()
	if len(got) != 1 || got[0].Rule != monitor.Equivocation || got[0].Log.Origin != lab.V2Origin {
		t.Fatalf("received %+v, want one log-equivocation of the v2 log", got)
	}
	if waiting, unsigned := w.waiting(); waiting+unsigned != 0 {
		t.Errorf("%d heads wait, %d are unsigned; want none", waiting, unsigned)
	}
	for _, s := range w.statuses() {
		if isOf(s.Head.Origin, lab.V1Host) && s.Conflict {
			t.Error("the v1 log, which showed both the same history, is accused")
		}
	}
}

// With a witness policy a head counts once the witness has cosigned it, and what
// it covers is read then.
func TestWitnessPolicy(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	witness := must(lab.NewWitness("witness.example", w.lab.Now))
	stranger := must(lab.NewWitness("stranger.example", w.lab.Now))
	log := fmt.Sprintf("log %s\n", w.v2Key())
	w.write("witnesses", log+"witness w1 "+witness.VKey()+"\nquorum w1\n")
	w.add("witness_policy: witnesses")
	unknown := lab.UnknownSignature("future.example", 3000)
	cosign := func(after ...lab.SignatureLine) { w.lab.V2.Cosign([]lab.SignatureLine{unknown}, after) }

	cosign(witness.Cosign, stranger.Cosign)
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	before := w.statuses()[lab.V2Origin].Head
	if before.Size != 1 || len(before.Cosigned) != 3 {
		t.Fatalf("head of size %d with %d cosignatures, want 1 with 3", before.Size, len(before.Cosigned))
	}
	for _, c := range before.Cosigned {
		if c.Verified != (c.Name == "witness.example") {
			t.Errorf("cosignature of %s: verified %t", c.Name, c.Verified)
		}
	}

	cosign(stranger.Cosign)
	w.release("1.1", sampleRepo)
	w.once(exitCould)
	if s := w.statuses()[lab.V2Origin]; s.Head.Size != 1 || *s.Next != 1 {
		t.Errorf("a head that the witness has not cosigned counts: size %d, position %d", s.Head.Size, *s.Next)
	}

	cosign(witness.Cosign)
	w.once(exitFine)
	if s := w.statuses()[lab.V2Origin]; s.Head.Size != 2 || *s.Next != 2 {
		t.Errorf("size %d, position %d after the witness came back, want 2", s.Head.Size, *s.Next)
	}
	if n := len(w.got()); n != 0 {
		t.Errorf("%d alerts, want none", n)
	}

	// Whoever is known and signs nonsense spoils the head.
	cosign(func(text string) string { return witness.Cosign(text + "more\n") })
	w.release("1.2", sampleRepo)
	w.once(exitCould)
	// A policy cannot hide a fork.
	cosign()
	w.lab.V2.ForkAt(1)
	w.once(exitConvicts)
}

// v2Key is the v2 log's key as a witness policy names it.
func (w *world) v2Key() string {
	w.Helper()
	for _, l := range must(rekor.ParseTrust(w.lab.TrustedRootJSON())).Tlogs() {
		if l.API == monitor.V2 {
			return l.VKey
		}
	}
	w.Fatal("the lab's trusted root names no v2 log")
	return ""
}

// check-head works beside a daemon's database, on files, standard input and addresses.
func TestCheckHead(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	for i := range 4 {
		w.release(fmt.Sprintf("1.%d", i), sampleRepo)
	}
	w.once(exitFine)
	honest := w.head()
	w.lab.V2.Log(must(w.lab.CA.SignPublish(sampleRepo, "other-1.tar.gz", lab.Digest("x"), w.lab.Now())))
	forked := w.forkedHead()
	w.lab.V2.SignWithOtherKey()
	unsigned := w.head()
	w.lab.V2.Honest()
	v1 := string(must(io.ReadAll(must(http.Get(must(w.lab.Config(w.dir)).V1 + "/api/v1/log")).Body)))

	d := must(newDaemon(t.Context(), must(loadConfig(w.config)), slog.New(slog.DiscardHandler)))
	t.Cleanup(func() { d.close() })
	for _, c := range []struct {
		name, text string
		code       int
		says       string
	}{
		{"a head of before", honest, exitFine, "fits: " + lab.V2Origin + " size 4"},
		{"all heads of a v1 log", v1, exitFine, "fits: " + lab.V1Host},
		{"signed by somebody", unsigned, exitFindings, "not the log's"},
		{"of a log that is not followed", strings.Replace(honest, lab.V2Origin, "log.example", 1), exitCould, "not compared"},
		{"no head", "hello", exitCould, ""},
		{"forked", forked, exitConvicts, "CONTRADICTS: log-equivocation"},
		{"forked, in JSON, beside an honest one", string(must(json.Marshal([]string{honest, forked}))), exitConvicts, "fits: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			code := Main(t.Context(), []string{"--config", w.config, "check-head", w.write("head", c.text)}, &out, t.Output())
			if code != c.code || !strings.Contains(out.String(), c.says) {
				t.Errorf("exit code %d, want %d; said %q, want %q", code, c.code, out.String(), c.says)
			}
		})
	}
	served := httptest.NewServer(http.HandlerFunc(d.serveHeads))
	defer served.Close()
	if code := Main(t.Context(), []string{"--config", w.config, "check-head", served.URL}, io.Discard, t.Output()); code != exitFine {
		t.Errorf("heads at an address: exit code %d, want %d", code, exitFine)
	}
	// The daemon alerts on what the command has kept.
	if _, err := d.judge.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.courier.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.got(); len(got) != 1 || got[0].Rule != monitor.Equivocation || !strings.Contains(got[0].Reason, "check-head head") {
		t.Errorf("received %+v, want one log-equivocation shown by check-head", got)
	}
}

// status and its exit code.
func TestStatus(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	status := func(args ...string) (string, int) {
		var out strings.Builder
		code := Main(t.Context(), append([]string{"--config", w.config, "status"}, args...), &out, t.Output())
		return out.String(), code
	}
	if _, code := status(); code != exitCould {
		t.Errorf("without a database: exit code %d, want %d", code, exitCould)
	}
	for i := range 4 {
		w.release(fmt.Sprintf("1.%d", i), sampleRepo)
	}
	w.once(exitFine)
	text, code := status()
	for _, want := range []string{lab.V2Origin + " (v2, open)", "head      4 leaves", "tail      at 4, the end", "covered   4 leaves, all: 0 to 3", "trusted root: file", "look-ups on http", "PyPI: journal read up to serial", "PyPI: 1 project watched"} {
		if !strings.Contains(text, want) {
			t.Errorf("status does not say %q:\n%s", want, text)
		}
	}
	if code != exitFine {
		t.Errorf("exit code %d, want %d", code, exitFine)
	}
	text, _ = status("--json")
	var r report
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Schema != "sigtrail.status/1" || len(r.Logs) != 2 || r.Logs[0].Covered != 4 || r.Root == nil {
		t.Errorf("--json: %v, %+v", err, r)
	}
	w.lab.V2.ForkAt(1)
	w.once(exitConvicts)
	if text, code = status(); code != exitConvicts || !strings.Contains(text, "CONFLICT") {
		t.Errorf("after a fork: exit code %d, want %d; said\n%s", code, exitConvicts, text)
	}
}

// Where another monitor cannot be asked, its address is shown without what opens it.
func TestPeerPassword(t *testing.T) {
	answer := http.StatusForbidden
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(answer) }))
	address := must(url.Parse(strings.Replace(server.URL, "http://", "http://token-"+secret+":"+secret+"@", 1) + "/heads?key=" + secret))
	ask := func() {
		t.Helper()
		_, err := fetchHeads(t.Context(), address)
		if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), address.Host) {
			t.Errorf("error %v", err)
		}
	}
	ask()
	answer = http.StatusOK // and no head
	ask()
	server.Close()
	ask()
}
