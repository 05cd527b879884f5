package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sigtrail/internal/lab"
	"sigtrail/monitor"
)

// Malformed leaves among good ones are covered, counted and on record, and the good
// ones are bound.
func TestMalformedLeaves(t *testing.T) {
	leaves := []string{
		"\x00", "junk", "{}", "[]", `{"apiVersion":"0.0.1","kind":"dsse","spec":{}}`, `{"apiVersion":"0.0.1","kind":"dsse","spec":{"payloadHash":{"algorithm":"sha256","value":"zz"}}}`,
		`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"AA=="},"signature":{"content":"","verifier":{}}}}}`,
		strings.Repeat("[", 60_000), "\xff\xfe" + strings.Repeat("x", 60_000),
	}
	w := newFaultWorld(t, tailed)
	w.grow()
	w.once(exitFine)
	for _, l := range leaves {
		must(w.lab.V1.LogLeaf([]byte(l)))
		w.lab.V2.LogLeaf([]byte(l))
	}
	w.grow()
	o := w.try()
	if o.code != exitFine {
		t.Errorf("exit code %d, %s", o.code, o.err)
	}
	w.check("with malformed leaves", map[monitor.API]uint64{monitor.V1: w.lab.V1.Active().Size(), monitor.V2: w.lab.V2.Size()})
	if n := sum(o.metrics, "sigtrail_entries_total", "kind", "malformed"); n != float64(2*len(leaves)) {
		t.Errorf("%v leaves counted as malformed, want %d", n, 2*len(leaves))
	}
	if rows := w.ask(`SELECT l.api, m.idx FROM malformed m JOIN logs l ON l.id = m.log_id WHERE m.why <> ''`); len(rows) != 2*len(leaves) {
		t.Errorf("malformed on record: %v, want %d of each log", rows, len(leaves))
	}
	w.sameAsWithoutFaults()
}

// A certificate as large as a log takes is read, and shown for what it is.
func TestLargeCertificate(t *testing.T) {
	for _, follow := range []string{tailed, lookedUp} {
		t.Run(follow, func(t *testing.T) {
			w := newFaultWorld(t, follow)
			w.grow()
			w.once(exitFine)
			large := sampleRepo
			large.RepoID = "666"
			large.Repo = strings.Repeat("a", 16<<10)
			s, e := w.sign("sampleproject-9.0.tar.gz", large)
			if len(s.Cert) < 64<<10 {
				t.Fatalf("a certificate of %d bytes", len(s.Cert))
			}
			w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "9.0", Filename: s.Filename, SHA256: s.SHA256, Provenance: lab.Provenance(large.Publisher(), s, e)})
			large.Repo = strings.Repeat("a", 5<<10)
			v2 := must(w.lab.CA.SignPublish(large, s.Filename, s.SHA256, time.Now()))
			w.lab.V2.Log(v2)
			w.grow()
			if o := w.try(); o.code != exitFindings || o.err != "<nil>" {
				t.Errorf("exit code %d, %s", o.code, o.err)
			}
			if !w.bound()[fmt.Sprint(s.Filename, " v1 ", e.Index)] {
				t.Error("the entry is not bound to its file")
			}
			for _, a := range w.got() {
				if a.Rule != "unexpected-signer" || a.Version != "9.0" {
					t.Errorf("alert %s about %s", a.Rule, a.Version)
				}
			}
			if len(w.got()) == 0 {
				t.Error("no alert about the other repository")
			}
		})
	}
}

// A head of a megabyte is refused and nothing else of the log is believed until it
// is gone; one with lines and signatures nobody knows, in any order, is taken.
func TestHeads(t *testing.T) {
	t.Parallel()
	dashes := []string{"— rekor.lab.test AAAA", "Anything — at all", strings.Repeat("x", 64<<10)}
	before := []lab.SignatureLine{lab.UnknownSignature("witness.example", 72), lab.UnknownSignature("ml-dsa.example", 2432)}
	after := []lab.SignatureLine{must(lab.NewWitness("late.example", time.Now)).Cosign, lab.UnknownSignature(lab.V2Origin, 72), lab.UnknownSignature(lab.V1Host, 72)}
	for _, follow := range []string{tailed, lookedUp} {
		t.Run(follow, func(t *testing.T) {
			w := newFaultWorld(t, follow)
			w.grow()
			w.once(exitFine)
			for _, log := range []interface {
				Extend(...string)
				Cosign(before, after []lab.SignatureLine)
			}{w.lab.V1.Active(), w.lab.V2} {
				before := w.bound()
				w.grow()
				log.Extend(strings.Repeat("x", 1<<20))
				o := w.try()
				if o.code != exitCould || sum(o.metrics, "sigtrail_log_unusable_total")+sum(o.metrics, "sigtrail_log_requests_total", "status", "failed") == 0 {
					t.Errorf("a head of a megabyte: exit code %d, %s", o.code, o.err)
				}
				if now := len(w.bound()); now != len(before)+2 {
					t.Errorf("%d bindings after a head of a megabyte, before %d, want 2 more by the other log", now, len(before))
				}
				log.Extend()
				w.until(func() bool { return w.try().code == exitFine })
			}
			w.lab.V1.Active().Extend(dashes...)
			w.lab.V2.Extend(dashes...)
			w.lab.V1.Active().Cosign(before, after)
			w.lab.V2.Cosign(before, after)
			w.grow()
			if o := w.try(); o.code != exitFine {
				t.Errorf("heads with more lines: exit code %d, %s", o.code, o.err)
			}
			if rows := w.ask(`SELECT DISTINCT l.api FROM heads h JOIN logs l ON l.id = h.log_id WHERE h.text LIKE '%' || char(10) || '` + dashes[0] + `' || char(10) || '` + dashes[1] + `' || char(10) || '%'`); len(rows) != 2 {
				t.Errorf("extension lines are kept of heads of %v, want both logs", rows)
			}
			w.sameAsWithoutFaults()
			if n := len(w.got()); n != 0 {
				t.Errorf("%d alerts", n)
			}
		})
	}
}

// While the head is an old one, its partial tiles are gone: the full ones have the
// same leaves and hashes.
func TestPartialTilesVanished(t *testing.T) {
	w := newFaultWorld(t, tailed)
	for n := range 200 {
		w.lab.V2.LogLeaf(noise(n))
	}
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	for n := range 20 {
		w.lab.V2.LogLeaf(noise(n))
	}
	w.release("1.1", sampleRepo)
	old := w.lab.V2.Size()
	w.lab.V2Faults.Cached("/api/v2/checkpoint", -1)
	resp := must(http.Get(w.lab.Addresses().V2 + "checkpoint"))
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	for n := range 400 {
		w.lab.V2.LogLeaf(noise(n))
	}
	w.release("1.2", sampleRepo)
	o := w.try()
	if o.code != exitFine || sum(o.metrics, "sigtrail_log_requests_total", "status", "404") == 0 {
		t.Errorf("exit code %d, %s; nothing was gone: %t", o.code, o.err, sum(o.metrics, "sigtrail_log_requests_total", "status", "404") == 0)
	}
	if at := w.positions()[monitor.V2]; at != old {
		t.Errorf("position %d, want %d, that of the head", at, old)
	}
	w.lab.V2Faults.Clear()
	w.once(exitFine)
	w.sameAsWithoutFaults()
}
