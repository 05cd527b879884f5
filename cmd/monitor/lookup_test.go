package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/rekor"
	"sigtrail/timeline"
)

// A patient daemon works by a clock that the test moves, round by round.
type patient struct {
	*world
	*daemon
	clock *lab.Clock
}

func (w *world) patient(readers rekor.Options) *patient {
	w.Helper()
	p := &patient{world: w, clock: new(lab.Clock)}
	c := must(loadConfig(w.config))
	c.PyPI.Interval = "1m" // and so the first repetition of a look-up
	p.daemon = must(openDaemon(w.Context(), c, quiet(w.T), index.Open, p.clock.Now, nil))
	p.daemon.readers = readers
	w.Cleanup(func() { p.close() })
	must(p.trust.refresh(w.Context()))
	must(p.adopt(w.Context()))
	return p
}

// round is one of everything; it returns the rules of the alerts raised and what the
// finder failed in.
func (p *patient) round() (rules []string, failed error) {
	p.Helper()
	ctx := p.Context()
	if err := p.readIndexes(ctx); err != nil {
		p.Fatal(err)
	}
	failed = p.finder.once(ctx)
	if err := p.verifier.Once(ctx); err != nil {
		p.Fatal(err)
	}
	for _, a := range must(p.judge.Once(ctx)) {
		rules = append(rules, a.Rule+" "+a.Version)
	}
	return rules, failed
}

// expect makes a round that must not fail.
func (p *patient) expect(want ...string) {
	p.Helper()
	rules, err := p.round()
	if err != nil || fmt.Sprint(rules) != fmt.Sprint(want) {
		p.Errorf("at %s: raised %v, want %v; %v", p.clock.Now().Format(time.TimeOnly), rules, want, err)
	}
}

func (p *patient) file(name string) index.File {
	p.Helper()
	files := must(p.daemon.store.Files(p.Context(), index.Selection{Filename: name}))
	if len(files) != 1 {
		p.Fatalf("%d files named %s", len(files), name)
	}
	return files[0]
}

// upload is a file without provenance, as somebody with an API token uploads it.
func (w *world) upload(version string) (name string) {
	name = "sampleproject-" + version + ".tar.gz"
	w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: version, Filename: name, SHA256: lab.Digest(name)})
	return name
}

func digestKey(name string) string {
	sum := lab.Digest(name)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// The search index is written late: an entry that it does not name at first is found
// by a repetition.
func TestLookupIsRepeated(t *testing.T) {
	for i, pause := range again[1:] {
		t.Run(pause.String(), func(t *testing.T) {
			w := newWorld(t, "follow: lookup")
			w.release("1.0", sampleRepo)
			p := w.patient(rekor.Options{})
			p.expect()
			name := w.upload("1.1")
			evil := sampleRepo
			evil.Owner, evil.RepoID = "evil", "666"
			e := must(w.lab.V1.LogUnder(must(w.lab.CA.SignPublish(evil, name, lab.Digest(name), time.Now()))))
			p.expect("provenance-lost 1.1")
			for _, earlier := range again[:i+1] {
				p.clock.Advance(earlier)
				p.expect()
			}
			w.lab.V1.Index(e.ID, digestKey(name))
			p.expect() // not asked before its time
			asked := w.lab.V1.Searched(digestKey(name))
			p.clock.Advance(pause)
			p.expect("unexpected-signer 1.1")
			if n := w.lab.V1.Searched(digestKey(name)); n != asked+1 || n != i+3 {
				t.Errorf("asked %d times before, %d now, want %d", asked, n, i+3)
			}
		})
	}
}

const sampleSAN = "https://github.com/pypa/sampleproject/.github/workflows/release.yml@refs/tags/v1.0.0"

// identity is how the look-up by the project's name stands.
func (p *patient) identity() index.AskedIdentity {
	p.Helper()
	all := must(p.daemon.store.IdentitiesOf(p.Context(), "", "sampleproject"))
	if len(all) != 1 || all[0].Identity != sampleSAN || all[0].Error != "" {
		p.Fatalf("identities: %+v, want %s", all, sampleSAN)
	}
	return all[0]
}

// An entry that the index lists under none of the file's digests is found by the name
// that signed the project's files before. A busy workflow's many entries are fetched
// once, some at a time, and a release of many files asks once.
func TestLookupByIdentity(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	p := w.patient(rekor.Options{})
	p.expect()
	if n := w.lab.V1.Searched(sampleSAN); n != 1 {
		t.Fatalf("asked %d times for the name that the project has used", n)
	}
	const others = 150
	for i := range others {
		name := fmt.Sprint("other", i)
		must(w.lab.V1.LogUnder(must(w.lab.CA.SignPublish(sampleRepo, name, lab.Digest(name), time.Now())), sampleSAN))
	}
	w.lab.V1.Index(strings.Repeat("ab", 40), sampleSAN) // there is no such entry
	name := w.upload("1.1")
	must(w.lab.V1.LogUnder(must(w.lab.CA.SignPublish(sampleRepo, name, lab.Digest(name), time.Now())), sampleSAN))
	for i := range 20 {
		w.upload(fmt.Sprintf("1.1.%d", i))
	}
	p.clock.Advance(time.Minute)
	for i, want := range []index.AskedIdentity{{Times: 2, Unread: others + 2 - identityEntries}, {Times: 3, Unread: 1}, {Times: 4, Unread: 1}, {Times: 4, Unread: 1}} {
		if _, err := p.round(); err != nil {
			t.Fatal(err)
		}
		if got := p.identity(); got.Times != want.Times || got.Found != others+3 || got.Unread > want.Unread+1 || got.Unread < want.Unread {
			t.Errorf("round %d: %+v, want %+v of %d", i, got, want, others+3)
		}
	}
	signatures := must(p.daemon.store.Signatures(t.Context(), p.file(name).ID))
	if len(signatures) != 1 || signatures[0][0].Evidence != index.ByStatement || signatures[0][0].Signature != "" {
		t.Errorf("signatures of %s: %+v, want the one that the index lists under its signer", name, signatures)
	}
	if n := w.lab.V1.Searched(sampleSAN); n != 4 {
		t.Errorf("asked %d times for one name, want 4", n)
	}
}

// One entry that cannot be read does not hide the others of the same name.
func TestUnusableEntryOfIdentity(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	p := w.patient(rekor.Options{})
	p.expect()
	bad := must(w.lab.V1.LogLeaf([]byte(`{"apiVersion":"0.0.1","kind":"other"}`), sampleSAN))
	w.lab.V1Faults.Edit("/api/v1/log/entries/retrieve", -1, func(body []byte) []byte {
		return bytes.ReplaceAll(body, []byte(base64.StdEncoding.EncodeToString(bad.Body)), []byte("not base64"))
	})
	name := w.upload("1.1")
	must(w.lab.V1.LogUnder(must(w.lab.CA.SignPublish(sampleRepo, name, lab.Digest(name), time.Now())), sampleSAN))
	p.clock.Advance(time.Minute)
	rules, err := p.round()
	if !errors.Is(err, rekor.ErrUnusable) || len(rules) != 1 || rules[0] != "provenance-lost 1.1" {
		t.Errorf("raised %v; the finder: %v, want that one entry is unusable", rules, err)
	}
	if n := len(must(p.daemon.store.Signatures(t.Context(), p.file(name).ID))); n != 1 {
		t.Errorf("%d signatures of %s, want 1", n, name)
	}
	all := must(p.daemon.store.IdentitiesOf(t.Context(), "", "sampleproject"))
	if len(all) != 1 || all[0].Times != 2 || all[0].Found != 3 || all[0].Unread != 1 || all[0].Error == "" {
		t.Errorf("identities: %+v, want one that names an entry that cannot be used", all)
	}
}

// Anybody can have any number of entries listed under the digest of a file. All of
// them are read, in portions, and none of them twice.
func TestManyEntriesForOneFile(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	name := w.upload("1.0")
	for i := range fileEntries + 10 {
		must(w.lab.V1.LogLeaf(fmt.Appendf(nil, `{"apiVersion":"0.0.1","kind":"other","n":%d}`, i), digestKey(name)))
	}
	p := w.patient(rekor.Options{})
	for i, want := range []int{fileEntries, fileEntries + 10, fileEntries + 10} {
		before := w.lab.V1Faults.Requests()
		p.expect()
		asked := must(p.daemon.store.LookupsOf(t.Context(), p.file(name).ID))[0]
		if n := len(must(p.daemon.store.Signatures(t.Context(), p.file(name).ID))); n != want || (asked.Error == "") != (i > 0) || asked.Found != fileEntries+10 {
			t.Errorf("round %d: %d entries, want %d; %+v", i, n, want, asked)
		}
		if n := w.lab.V1Faults.Requests() - before; i == 2 && n > 5 {
			t.Errorf("%d requests for what is known", n)
		}
		p.clock.Advance(time.Hour)
	}
}

// What was asked in vain is on record as just that, and the timeline says so.
func TestEmptyAnswersAreRecorded(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	p := w.patient(rekor.Options{})
	p.expect()
	name := w.upload("1.1")
	p.expect("provenance-lost 1.1")
	p.clock.Advance(10 * time.Minute)
	p.expect()

	asked := must(p.daemon.store.LookupsOf(t.Context(), p.file(name).ID))
	if len(asked) != 1 || asked[0].Answered != 2 || asked[0].Found != 0 || len(asked[0].Kinds) != 2 {
		t.Fatalf("look-ups: %+v, want two empty answers by digest and by payload", asked)
	}
	for _, k := range asked[0].Kinds {
		if k.Kind == index.LookupProvenance || k.Times != 2 || k.Found != 0 || k.Last.Sub(k.First) < 9*time.Minute {
			t.Errorf("answers: %+v", k)
		}
	}
	summary := must(p.daemon.store.LookupSummary(t.Context()))
	if len(summary) != 1 || summary[0].Server != w.lab.Addresses().V1 || summary[0].Files != (index.LookupCounts{Empty: 1, Found: 1}) ||
		summary[0].Identities != (index.LookupCounts{Found: 1}) || summary[0].Answered.IsZero() || !summary[0].Failing.IsZero() {
		t.Errorf("summary: %+v", summary)
	}
	var out bytes.Buffer
	must(timeline.Write(t.Context(), &out, w.store(), name, timeline.Options{Wide: true}))
	for _, want := range []string{
		"by file digest: asked 2 times about 1 file, last " + p.clock.Now().UTC().Format("2006-01-02T15:04"),
		"by digest of the statement: asked 2 times about 1 file, last ",
		"; nothing found, unverifiable\n",
		"by signer " + sampleSAN + ": asked 2 times, last ",
		"look-ups about these files that found nothing, which is no proof that there is nothing: 1",
		"they are best effort, and their silence proves nothing",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the timeline does not say %q:\n%s", want, &out)
		}
	}
}

// A log without a search index is not asked in vain again and again, and what it was
// not asked is on record.
func TestLogWithoutSearchIndex(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	w.lab.V1Faults.Status("/api/v1/index/", -1, http.StatusNotImplemented, "")
	p := w.patient(rekor.Options{})
	p.expect()
	asked := must(p.daemon.store.LookupsOf(t.Context(), p.file("sampleproject-1.0.tar.gz").ID))
	if len(asked) != 1 || asked[0].Answered != 1 || asked[0].Error != "the log has no search index" ||
		len(asked[0].Kinds) != 1 || asked[0].Kinds[0].Kind != index.LookupProvenance || asked[0].Kinds[0].Found != 1 {
		t.Errorf("look-ups: %+v, want the provenance's alone", asked)
	}
	all := must(p.daemon.store.IdentitiesOf(t.Context(), "", "sampleproject"))
	if len(all) != 1 || all[0].Times != 0 || all[0].Error == "" || all[0].Last.IsZero() {
		t.Errorf("identities: %+v, want one that could not be asked for", all)
	}
	before := w.lab.V1Faults.Requests()
	p.expect()
	if n := w.lab.V1Faults.Requests() - before; n != 0 {
		t.Errorf("%d requests before the next step", n)
	}
}

// While one server does not answer, the leaves of others are fetched.
func TestServerThatNeverAnswersHoldsUpNoOther(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.write("policy.yaml", `projects: {sampleproject: {publishers: [{repository: github.com/pypa/sampleproject}]}}`)
	w.config = w.write("sigtrail.yaml", string(must(os.ReadFile(w.config)))+"policy: policy.yaml\n")
	evil := sampleRepo
	evil.Owner = "evil"
	w.upload("1.0")
	signed := must(w.lab.CA.SignPublish(evil, "sampleproject-1.1.tar.gz", lab.Digest("sampleproject-1.1.tar.gz"), time.Now()))
	w.lab.V2.LogDSSE(signed)
	w.once(exitFine)

	w.lab.V1Faults.Latency(time.Hour)
	d := must(newDaemon(t.Context(), must(loadConfig(w.config)), quiet(t)))
	defer d.close()
	d.readers = rekor.Options{Timeout: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	w.upload("1.1")
	for deadline := time.Now().Add(3 * time.Minute); len(w.got()) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no alert")
		}
	}
	if got := w.got(); got[0].Rule != "unexpected-signer" || got[0].Version != "1.1" {
		t.Errorf("received %+v, want one unexpected-signer for 1.1", got)
	}
	for _, a := range must(d.store.LookupsOf(ctx, must(d.store.Files(ctx, index.Selection{SHA256: signed.SHA256[:]}))[0].ID)) {
		if a.Answered != 0 || a.Error != "" {
			t.Errorf("look-up: %+v, want one without any outcome", a)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// Leaves that are to be fetched again from a server that does not answer, be they
// ever so many, do not stand before those of another.
func TestManyLeavesOfDeadServer(t *testing.T) {
	w := newWorld(t, "follow: tail, start: 0")
	w.write("policy.yaml", `projects: {sampleproject: {publishers: [{repository: github.com/pypa/sampleproject}]}}`)
	w.add("policy: policy.yaml")
	evil := sampleRepo
	evil.Owner = "evil"
	w.upload("1.0")
	s := must(w.lab.CA.SignPublish(evil, "sampleproject-1.1.tar.gz", lab.Digest("sampleproject-1.1.tar.gz"), time.Now()))
	for range lookupBatch {
		must(w.lab.V1.Log(s))
	}
	w.lab.V2.LogDSSE(s)
	w.once(exitFine)
	w.upload("1.1")
	p := w.patient(rekor.Options{Timeout: 100 * time.Millisecond, Tries: 1})
	w.lab.V1Faults.Latency(time.Hour)
	if rules, err := p.round(); err == nil || len(rules) != 1 || rules[0] != "unexpected-signer 1.1" {
		t.Errorf("raised %v, want unexpected-signer 1.1; the finder: %v", rules, err)
	}
}

// A v1 server that never answers holds up the rules for ten minutes and no longer.
// What they find then says what they had to do without, and what the server says once
// it answers is judged too: here it tells who is expected.
func TestServerThatNeverAnswers(t *testing.T) {
	w := newWorld(t, "follow: lookup")
	w.release("1.0", sampleRepo)
	p := w.patient(rekor.Options{Timeout: 2 * time.Second, Tries: 1})
	for _, f := range p.followers {
		if err := f.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.lab.V1Faults.Latency(time.Hour)
	silent := func(want ...string) {
		t.Helper()
		rules, err := p.round()
		if err == nil || fmt.Sprint(rules) != fmt.Sprint(want) {
			t.Errorf("at %s: raised %v, want %v; the finder: %v", p.clock.Now().Format(time.TimeOnly), rules, want, err)
		}
	}
	silent()
	name := w.upload("1.1")
	evil := sampleRepo
	evil.Owner, evil.RepoID = "evil", "666"
	s := must(w.lab.CA.SignPublish(evil, name, lab.Digest(name), time.Now()))
	w.lab.V2.Log(s)
	v2 := p.followers[1]
	if err := v2.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	silent()
	p.clock.Advance(11 * time.Minute)
	silent("provenance-lost 1.1")
	found := must(p.daemon.store.Alerts(t.Context(), "", "sampleproject"))
	if len(found) != 1 || !strings.Contains(string(found[0].Body), "look-up on "+w.lab.Addresses().V1) {
		t.Errorf("alerts: %s, want one that says what it lacks", found)
	}
	if s := must(p.daemon.store.LookupSummary(t.Context())); len(s) != 1 || s[0].Failing.IsZero() || s[0].Error == "" || s[0].Files.Unanswered != 2 {
		t.Errorf("summary: %+v", s)
	}
	var out bytes.Buffer
	must(timeline.Write(t.Context(), &out, w.store(), name, timeline.Options{Wide: true}))
	for _, want := range []string{"judged without look-up on ", "it has not answered since "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the timeline does not say %q:\n%s", want, &out)
		}
	}
	silent() // judged once so, not again and again

	w.lab.V1Faults.Clear()
	p.clock.Advance(time.Minute)
	p.expect("unexpected-signer 1.1")
	p.expect()
	if s := must(p.daemon.store.LookupSummary(t.Context())); len(s) != 1 || !s[0].Failing.IsZero() || s[0].Files.Unanswered != 0 {
		t.Errorf("summary: %+v", s)
	}
}
