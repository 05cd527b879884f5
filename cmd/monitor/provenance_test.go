package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/internal/lab"
)

// conditions are those of the alerts received, with the version they are about.
func (w *world) conditions() (all []string) {
	for _, a := range w.got() {
		all = append(all, strings.TrimSpace(a.Rule+" "+a.Version+" "+a.Condition))
	}
	slices.Sort(all) // files are verified several at a time
	return all
}

// show uploads a file with a provenance object.
func (w *world) show(version string, object []byte) {
	name := "sampleproject-" + version + ".tar.gz"
	w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: version, Filename: name, SHA256: lab.Digest(name), Provenance: object})
}

// standing is what became of the attestations of a file.
func (w *world) standing(version string) (all []string) {
	w.Helper()
	s := w.store()
	defer s.Close()
	files := must(s.Files(w.Context(), index.Selection{Filename: "sampleproject-" + version + ".tar.gz"}))
	if len(files) != 1 {
		w.Fatalf("%d files of %s", len(files), version)
	}
	verdicts, verified, err := s.Verdicts(w.Context(), files[0].ID)
	if err != nil || !verified {
		w.Fatalf("verified %t, %v", verified, err)
	}
	for _, v := range verdicts {
		if v.Root == "" || v.At.IsZero() || (v.Error == "") != (v.Failed == "") {
			w.Errorf("%s: verdict %+v", version, v)
		}
		all = append(all, strings.TrimSpace(string(v.State)+" "+v.Failed))
	}
	return all
}

// together puts the attestations of two provenance objects into one bundle.
func together(a, b []byte) []byte {
	type object struct {
		Version int `json:"version"`
		Bundles []struct {
			Publisher    json.RawMessage   `json:"publisher"`
			Attestations []json.RawMessage `json:"attestations"`
		} `json:"attestation_bundles"`
	}
	var one, other object
	for to, from := range map[*object][]byte{&one: a, &other: b} {
		if err := json.Unmarshal(from, to); err != nil {
			panic(err)
		}
	}
	one.Bundles[0].Attestations = append(one.Bundles[0].Attestations, other.Bundles[0].Attestations...)
	return must(json.Marshal(one))
}

// What PyPI shows that does not hold is said once, with the condition that failed, and
// by nothing else; what is of an unknown kind is no finding.
func TestProvenanceConditions(t *testing.T) {
	t.Parallel()
	other := sampleRepo
	other.Repo = "another"
	for _, c := range []struct {
		name   string
		object func(w *world, file string) []byte
		stands []string
		alert  string
	}{
		{"good", func(w *world, file string) []byte {
			s, e := w.sign(file, sampleRepo)
			return lab.Provenance(sampleRepo.Publisher(), s, e)
		}, []string{"holds"}, ""},
		{"publisher of another repository", func(w *world, file string) []byte {
			s, e := w.sign(file, sampleRepo)
			return lab.Provenance(other.Publisher(), s, e)
		}, []string{"invalid publisher"}, "publisher"},
		{"subject of another file", func(w *world, _ string) []byte {
			s, e := w.sign("sampleproject-0.9.tar.gz", sampleRepo)
			return lab.Provenance(sampleRepo.Publisher(), s, e)
		}, []string{"invalid subject-name"}, "subject-name"},
		{"subject of other bytes", func(w *world, file string) []byte {
			s := must(w.lab.CA.SignPublish(sampleRepo, file, lab.Digest("other bytes"), time.Now()))
			return lab.Provenance(sampleRepo.Publisher(), s, must(w.lab.V1.Log(s)))
		}, []string{"invalid subject-digest"}, "subject-digest"},
		{"signature of another key", func(w *world, file string) []byte {
			s := must(w.lab.CA.SignPublish(sampleRepo, file, lab.Digest(file), time.Now()))
			s.Signature = must(w.lab.CA.SignPublish(sampleRepo, file, lab.Digest(file), time.Now())).Signature
			return lab.Provenance(sampleRepo.Publisher(), s, must(w.lab.V1.Log(s)))
		}, []string{"invalid signature"}, "signature"},
		{"signature that is not the logged one", func(w *world, file string) []byte {
			s, e := w.sign(file, sampleRepo)
			s.Signature = slices.Clone(s.Signature)
			s.Signature[len(s.Signature)-1] ^= 1
			return lab.Provenance(sampleRepo.Publisher(), s, e)
		}, []string{"invalid entry"}, "entry"},
		{"timestamp of another key", func(w *world, file string) []byte {
			s, e := w.sign(file, sampleRepo)
			stranger := must(lab.NewV1(lab.V1Host, time.Now))
			e.SET = must(stranger.Log(s)).SET
			return lab.Provenance(sampleRepo.Publisher(), s, e)
		}, []string{"invalid set"}, "set"},
		{"another log", func(w *world, file string) []byte {
			s, _ := w.sign(file, sampleRepo)
			stranger := must(lab.NewV1(lab.V1Host, time.Now))
			return lab.Provenance(sampleRepo.Publisher(), s, must(stranger.Log(s)))
		}, []string{"invalid log"}, "log"},
		{"inclusion proof broken", func(w *world, file string) []byte {
			s, e := w.sign(file, sampleRepo)
			e.Hashes = append([][]byte{slices.Repeat([]byte{7}, 32)}, e.Hashes[1:]...)
			return lab.Provenance(sampleRepo.Publisher(), s, e)
		}, []string{"invalid inclusion"}, "inclusion"},
		{"certificate of another authority", func(w *world, file string) []byte {
			s := must(lab.SignUntrusted(sampleRepo, file, lab.Digest(file), time.Now()))
			return lab.Provenance(sampleRepo.Publisher(), s, must(w.lab.V1.Log(s)))
		}, []string{"invalid chain"}, "chain"},
		{"SLSA beside publish", func(w *world, file string) []byte {
			s, e := w.sign(file, sampleRepo)
			slsa := must(w.lab.CA.SignStatement(sampleRepo, fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":%q,"digest":{"sha256":"%x"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`, file, s.SHA256), time.Now()))
			return together(lab.Provenance(sampleRepo.Publisher(), s, e), lab.Provenance(sampleRepo.Publisher(), slsa, must(w.lab.V1.Log(slsa))))
		}, []string{"holds", "holds"}, ""},
		{"unknown kind of publisher", func(w *world, file string) []byte {
			s, e := w.sign(file, sampleRepo)
			p := sampleRepo.Publisher()
			p.Kind = "Forge"
			return lab.Provenance(p, s, e)
		}, []string{"unknown publisher-kind"}, ""},
		{"good beside bad", func(w *world, file string) []byte {
			s, e := w.sign(file, sampleRepo)
			bad := e
			bad.SET = must(w.lab.V1.Log(s)).SET
			return together(lab.Provenance(sampleRepo.Publisher(), s, e), lab.Provenance(sampleRepo.Publisher(), s, bad))
		}, []string{"holds", "invalid set"}, "set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "follow: lookup")
			w.release("1.0", sampleRepo)
			w.once(exitFine)
			w.show("1.1", c.object(w, "sampleproject-1.1.tar.gz"))
			want, code := []string(nil), exitFine
			if c.alert != "" {
				want, code = []string{"provenance-invalid 1.1 " + c.alert}, exitFindings
			}
			w.once(code)
			w.once(exitFine) // each is another process
			if got := w.conditions(); !slices.Equal(got, want) {
				t.Errorf("received %q, want %q", got, want)
			}
			if got := w.standing("1.1"); !slices.Equal(got, c.stands) {
				t.Errorf("verdicts %q, want %q", got, c.stands)
			}
			if got := w.standing("1.0"); !slices.Equal(got, []string{"holds"}) {
				t.Errorf("verdicts on the first release %q", got)
			}
		})
	}
}

// The first object of a file stands, and another that is served later is verified like
// it.
func TestLaterProvenance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	w.once(exitFine)
	name := "sampleproject-1.0.tar.gz"
	w.lab.PyPI.RemoveFile("SampleProject", name)
	w.once(exitFine)
	wrong := sampleRepo.Publisher()
	wrong.Repository = "pypa/another"
	s, e := w.sign(name, sampleRepo)
	w.show("1.0", lab.Provenance(wrong, s, e))
	w.once(exitFindings)
	w.once(exitFine)
	if got, want := w.conditions(), []string{"provenance-invalid 1.0 publisher"}; !slices.Equal(got, want) {
		t.Errorf("received %q, want %q", got, want)
	}
	if got, want := w.standing("1.0"), []string{"holds", "invalid publisher"}; !slices.Equal(got, want) {
		t.Errorf("verdicts %q, want %q", got, want)
	}
}

// The log has signed an entry for PyPI's eyes only: it holds in every way, and at its
// place there is another.
func TestProvenanceNotInLog(t *testing.T) {
	t.Parallel()
	for _, follow := range []string{"follow: lookup", "follow: tail, start: 0"} {
		t.Run(follow, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, follow)
			w.release("1.0", sampleRepo)
			w.once(exitFine)
			name := "sampleproject-1.1.tar.gz"
			s := must(w.lab.CA.SignPublish(sampleRepo, name, lab.Digest(name), time.Now()))
			hidden := must(w.lab.V1.LogHidden(s))
			if hidden.Global != w.lab.V1.Active().Size() {
				t.Fatalf("hidden at %d", hidden.Global)
			}
			w.show("1.1", lab.Provenance(sampleRepo.Publisher(), s, hidden))
			w.once(exitFine)
			if rows := w.db(`SELECT state FROM absent_leaves`); !slices.Equal(rows, []string{"not-covered"}) || len(w.got()) != 0 {
				t.Fatalf("entries %q, %d alerts; a place that nobody has read is no finding", rows, len(w.got()))
			}
			v1Leaves{w.lab.V1}.LogLeaf(noise(1))
			for range 3 { // the fork shows in the heads too
				Main(w.Context(), []string{"--config", w.config, "--once"}, io.Discard, w.Output())
			}
			got := slices.DeleteFunc(w.got(), func(a alerts.Alert) bool { return strings.HasPrefix(a.Rule, "log-") })
			if len(got) != 1 || got[0].Rule != "provenance-not-in-log" || *got[0].Log.Global != hidden.Global || got[0].Files[0].Name != name {
				t.Fatalf("received %+v, want one provenance-not-in-log", w.conditions())
			}
			if got := w.standing("1.1"); !slices.Equal(got, []string{"holds"}) {
				t.Errorf("verdicts %q", got)
			}
		})
	}
}

// What fails for want of trust is verified again under the next root, and nothing else
// is. The alert was raised once, whatever the daemon is put through.
func TestNewRootMendsVerdict(t *testing.T) {
	inBubble(t, byTUF+"logs: []\n", func(b *bubble) {
		second := must(lab.NewV1("second.rekor.lab.test", time.Now))
		show := func(version string, p lab.Publisher) {
			name := "sampleproject-" + version + ".tar.gz"
			s := must(b.lab.CA.SignPublish(sampleRepo, name, lab.Digest(name), time.Now()))
			b.show(version, lab.Provenance(p, s, must(second.Log(s))))
		}
		wrong := sampleRepo.Publisher()
		wrong.Repository = "pypa/another"
		show("1.0", sampleRepo.Publisher())
		show("1.1", wrong)
		b.start()
		b.until("both are verified", func() bool { return len(b.got()) == 2 })
		b.start()
		b.pass(time.Hour)
		want := []string{"provenance-invalid 1.0 log", "provenance-invalid 1.1 log"}
		if got := b.conditions(); !slices.Equal(got, want) {
			t.Fatalf("received %q, want %q", got, want)
		}
		before := b.metric(`sigtrail_provenance_verdicts_total`)
		if before != "" {
			t.Errorf("verified again under the same root: %s", before)
		}
		if err := b.tuf.Publish(lab.TrustedRoot(b.lab.CA, b.lab.V1.Trusted(), b.lab.V2.Trusted(), second.Trusted())); err != nil {
			t.Fatal(err)
		}
		b.pass(trustEvery + time.Hour)
		if got := b.conditions(); !slices.Equal(got, append(want, "provenance-invalid 1.1 publisher")) {
			t.Errorf("received %q", got)
		}
		if one, other := b.standing("1.0"), b.standing("1.1"); !slices.Equal(one, []string{"holds"}) || !slices.Equal(other, []string{"invalid publisher"}) {
			t.Errorf("verdicts %q, %q", one, other)
		}
	})
}

// A root that drops what was trusted when an attestation was made does not make it
// invalid; what is made later under what was dropped is.
func TestRootOfItsTime(t *testing.T) {
	inBubble(t, byFile, func(b *bubble) {
		b.start()
		b.pass(time.Hour)
		object := func(version string) []byte {
			s, e := b.sign("sampleproject-"+version+".tar.gz", sampleRepo)
			return lab.Provenance(sampleRepo.Publisher(), s, e)
		}
		early := object("1.0")
		b.pass(time.Hour)
		b.write("trusted_root.json", string(lab.TrustedRoot(must(lab.NewCA()), b.lab.V1.Trusted(), b.lab.V2.Trusted())))
		b.pass(time.Hour)
		b.show("1.0", early)
		b.show("1.1", object("1.1"))
		b.until("both are verified", func() bool { return b.metric("sigtrail_provenance_verdicts_total{condition=\"chain\"") != "" })
		b.pass(time.Hour)
		if one, other := b.standing("1.0"), b.standing("1.1"); !slices.Equal(one, []string{"holds"}) || !slices.Equal(other, []string{"invalid chain"}) {
			t.Errorf("verdicts %q, %q", one, other)
		}
		if roots := b.db(`SELECT DISTINCT root FROM verdicts`); len(roots) != 2 {
			t.Errorf("verdicts rest on %d roots, want each on its own", len(roots))
		}
		if got := b.conditions(); !slices.Equal(got, []string{"provenance-invalid 1.1 chain"}) {
			t.Errorf("received %q", got)
		}
	})
}
