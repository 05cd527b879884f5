package alerts

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
	"sigtrail/monitor"
)

// signed is a case of one entry and one file.
func signed(t testing.TB, s signing, evidence index.Evidence, trust, signature string) Facts {
	t.Helper()
	f := aFile("1.0")
	e := index.Stored{Log: testLog, Leaf: monitor.Leaf{Index: 7}, Signer: s.signer(t), Trust: trust, Head: monitor.Head{Seen: epoch.Add(time.Minute)}}
	return Facts{Now: epoch, Case: index.Case{File: &f, Provenance: index.ProvenanceAbsent,
		Bindings: []index.Binding{{Entry: e, Evidence: evidence, Signature: signature}}}}
}

func pin(p index.Publisher, state index.PinState) index.Pin {
	return index.Pin{Project: "p", Publisher: p, State: state, How: "test"}
}

// rules lists the rules that fire.
func rules(f Facts) string {
	var names []string
	for _, r := range Rules {
		for range r.Check(f) {
			names = append(names, r.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestUnexpectedSigner(t *testing.T) {
	ours, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	pins := []index.Pin{pin(ours.publisher(t), index.PinLearned)}
	for _, c := range []struct {
		name     string
		facts    Facts
		pins     []index.Pin
		policy   ProjectPolicy
		expected string
	}{
		{"pinned", signed(t, ours, index.ByStatement, "", ""), pins, ProjectPolicy{}, ""},
		{"not pinned", signed(t, thief, index.ByStatement, "", ""), pins, ProjectPolicy{}, "unexpected-signer"},
		{"over the file itself", signed(t, thief, index.ByArtifact, "", ""), pins, ProjectPolicy{}, "unexpected-signer"},
		{"named by PyPI", signed(t, thief, index.ByProvenance, "", ""), pins, ProjectPolicy{}, "unexpected-signer"},
		{"named by PyPI in an attestation that does not hold", signed(t, thief, index.ByProvenance, "", "subject-name: of another file"), pins, ProjectPolicy{}, ""},
		{"named by PyPI, untrusted", signed(t, thief, index.ByProvenance, "unknown authority", "chain: unknown authority"), pins, ProjectPolicy{}, ""},
		{"only named by a search index", signed(t, thief, index.BySubject, "", "not checked"), pins, ProjectPolicy{}, ""},
		{"a copied hash", signed(t, thief, index.ByStatement, "", "does not verify"), pins, ProjectPolicy{}, ""},
		{"untrusted", signed(t, thief, index.ByStatement, "unknown authority", ""), pins, ProjectPolicy{}, "untrusted-certificate"},
		{"untrusted, naming the right publisher", signed(t, ours, index.ByStatement, "unknown authority", ""), pins, ProjectPolicy{}, "untrusted-certificate"},
		{"untrusted, a copied hash", signed(t, thief, index.ByStatement, "unknown authority", "does not verify"), pins, ProjectPolicy{}, ""},
		{"no baseline", signed(t, thief, index.ByStatement, "", ""), nil, ProjectPolicy{}, ""},
		{"approved", signed(t, ours, index.ByStatement, "", ""), []index.Pin{pin(ours.publisher(t), index.PinApproved)}, ProjectPolicy{}, ""},
		{"expired", signed(t, ours, index.ByStatement, "", ""), []index.Pin{pin(ours.publisher(t), index.PinExpired), pin(thief.publisher(t), index.PinApproved)}, ProjectPolicy{}, "unexpected-signer"},
		{"rejected, and no baseline", signed(t, thief, index.ByStatement, "", ""), []index.Pin{pin(thief.publisher(t), index.PinRejected)}, ProjectPolicy{}, "unexpected-signer"},
		{"another, and no baseline", signed(t, ours, index.ByStatement, "", ""), []index.Pin{pin(thief.publisher(t), index.PinRejected)}, ProjectPolicy{}, ""},
		{"policy against pin", signed(t, ours, index.ByStatement, "", ""), pins, ProjectPolicy{Publishers: []Expected{{Repository: "https://github.com/evil/r"}}}, "unexpected-signer"},
		{"policy for a rejected one", signed(t, thief, index.ByStatement, "", ""), []index.Pin{pin(thief.publisher(t), index.PinRejected)}, ProjectPolicy{Publishers: []Expected{{Repository: "https://github.com/evil/r"}}}, ""},
	} {
		c.facts.Pins, c.facts.Policy = c.pins, c.policy
		if got := rules(c.facts); got != c.expected {
			t.Errorf("%s: %q fires, want %q", c.name, got, c.expected)
		}
	}
}

// A bare key is no publisher: it can be held against nobody.
func TestBareKey(t *testing.T) {
	f := signed(t, newSigning(t, "evil/r"), index.ByStatement, "a bare public key, no certificate", "")
	f.Bindings[0].Entry.Signer = nil
	f.Pins = []index.Pin{pin(newSigning(t, "o/r").publisher(t), index.PinLearned)}
	if got := rules(f) + " " + strings.Repeat("learned", len(learn(f))); got != " " {
		t.Error(got)
	}
}

func TestUnexpectedSignerBody(t *testing.T) {
	ours, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	f := signed(t, thief, index.ByStatement, "", "")
	f.Pins = []index.Pin{pin(ours.publisher(t), index.PinLearned)}
	a := checkUnexpectedSigner(f)[0]
	want := Alert{
		ID:      alertID("unexpected-signer", "p", "1.0", thief.publisher(t).Key()),
		Title:   "p 1.0: signed by github.com/evil/r release.yml",
		Reason:  "p-1.0.tar.gz was signed by github.com/evil/r release.yml, which is not among the publishers expected for p.",
		Project: "p", Version: "1.0",
		Files:    []File{file(f.File)},
		Expected: []string{"github.com/o/r release.yml (learned: test)"},
		Evidence: "statement",
		Log:      &LogRef{Origin: "log.example", Index: new(uint64(7)), Global: new(uint64(7)), Link: "https://log.example/api/v2/tile/entries/000#7"},
		Seen: &Seen{Publisher: thief.publisher(t), SAN: "https://github.com/evil/r/.github/workflows/release.yml@refs/tags/v1", Ref: "refs/tags/v1",
			Commit: "0123456789012345678901234567890123456789", Trigger: "release", Runner: "github-hosted", Run: "https://github.com/evil/r/actions/runs/1/attempts/1",
			NotBefore: epoch, NotAfter: epoch.Add(10 * time.Minute)},
		Times: []Time{{"certificate issued", "certificate authority", epoch}, {"covered by a head that we saw", "sigtrail", epoch.Add(time.Minute)}, {"uploaded", "PyPI", epoch}},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Error(diff)
	}
	f.Bindings[0].Evidence = index.ByProvenance
	f.Bindings[0].Entry.SETValid, f.Bindings[0].Entry.Leaf.IntegratedTime = true, epoch.Unix()+5
	again := checkUnexpectedSigner(f)[0]
	if again.ID != a.ID || !strings.Contains(again.Reason, "; PyPI shows it") {
		t.Errorf("another evidence, another alert: %+v", again)
	}
	if diff := cmp.Diff(Time{"logged", "log (signed entry timestamp)", epoch.Add(5 * time.Second)}, again.Times[1]); diff != "" {
		t.Error(diff)
	}
}

// The form that receivers rely on.
func TestAlertJSON(t *testing.T) {
	f := signed(t, newSigning(t, "evil/r"), index.ByStatement, "", "")
	f.Policy.Publishers = []Expected{{Repository: "https://github.com/o/r"}}
	stored, err := checkUnexpectedSigner(f)[0].stored()
	check(t, err)
	var got map[string]any
	check(t, json.Unmarshal(stored.Body, &got))
	for _, key := range []string{"schema", "id", "rule", "severity", "title", "reason", "next", "project", "version", "files", "log", "seen", "expected", "evidence", "times", "raised"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %q in %s", key, stored.Body)
		}
	}
	seen := got["seen"].(map[string]any)
	for key, want := range map[string]string{"repository": "https://github.com/evil/r", "issuer": "https://token.actions.githubusercontent.com", "san": "https://github.com/evil/r/.github/workflows/release.yml@refs/tags/v1"} {
		if seen[key] != want {
			t.Errorf("seen.%s is %v", key, seen[key])
		}
	}
	if log := got["log"].(map[string]any); log["index"] != 7.0 || log["global_index"] != 7.0 {
		t.Errorf("log is %v", log)
	}
}

func TestAlertID(t *testing.T) {
	id := alertID("rule", "p", "1.0", "key")
	if id != "sa_c25e716632dbfd8ffba122f7c98479ef6b29a0d2" { // receivers have seen such ids: they must not change
		t.Errorf("id %q", id)
	}
	for _, other := range [][]string{{"rule", "p", "1.0", "key2"}, {"rule", "p1", ".0", "key"}, {"rule", "p", "1.0key"}, {"rule", "p", "1.0", "key", ""}} {
		if alertID(other...) == id {
			t.Errorf("%q has the same id", other)
		}
	}
}

func TestLink(t *testing.T) {
	public := monitor.Log{Origin: "rekor.sigstore.dev - 1193050959916656506", API: monitor.V1, URL: "https://rekor.sigstore.dev", FirstGlobal: 100}
	private := monitor.Log{Origin: "rekor.internal - 5", API: monitor.V1, URL: "https://u:secret@rekor.internal/?token=secret"}
	for want, got := range map[string]string{
		"https://search.sigstore.dev/?logIndex=107":                      link(public, 7),
		"https://rekor.internal/api/v1/log/entries?logIndex=7":           link(private, 7),
		"https://log.example/api/v2/tile/entries/x001/234#255":           link(testLog, 1234*256+255),
		"https://log.example/api/v2/tile/entries/x001/x234/067#0":        link(testLog, 1234067*256),
		"https://log2025-1.rekor.sigstore.dev/api/v2/tile/entries/000#0": link(monitor.Log{Origin: "log2025-1.rekor.sigstore.dev", API: monitor.V2, URL: "https://log2025-1.rekor.sigstore.dev/api/v2"}, 0),
		"https://mirror.example/api/v2/tile/entries/000#0":               link(monitor.Log{Origin: "rekor.sigstore.dev - 5", API: monitor.V2, URL: "https://mirror.example/api/v2"}, 0),
	} {
		if got != want {
			t.Errorf("link %q, want %q", got, want)
		}
	}
}

func TestLearn(t *testing.T) {
	ours, thief := newSigning(t, "o/r"), newSigning(t, "evil/r")
	named := func(s signing, trust string) Facts { return signed(t, s, index.ByProvenance, trust, "") }
	invalid := named(ours, "")
	invalid.Bindings[0].Signature = "publisher: another one's certificate"
	proven := named(ours, "")
	proven.Bindings = append([]index.Binding{proven.Bindings[0]}, invalid.Bindings...)
	proven.Bindings[0].Evidence = index.ByStatement
	both := named(ours, "")
	both.Bindings = append([]index.Binding{both.Bindings[0]}, both.Bindings...)
	both.Bindings[0].Evidence, both.Bindings[0].Signature = index.ByStatement, ""
	copied := named(ours, "")
	copied.Bindings = append([]index.Binding{copied.Bindings[0]}, copied.Bindings...)
	copied.Bindings[0].Evidence, copied.Bindings[0].Signature = index.ByStatement, "does not verify"
	artifact := named(ours, "")
	artifact.Bindings = append(artifact.Bindings, index.Binding{Entry: artifact.Bindings[0].Entry, Evidence: index.ByArtifact, Signature: "does not verify"})
	for _, c := range []struct {
		name   string
		facts  Facts
		pins   []index.Pin
		first  bool
		policy bool
		want   bool
	}{
		{"PyPI names it", named(ours, ""), nil, false, false, true},
		{"PyPI names it and it is proven", both, nil, false, false, true},
		{"PyPI names it in an attestation that does not hold", invalid, nil, true, false, false},
		{"PyPI names it in an attestation that does not hold, and it is proven", proven, nil, true, false, false},
		{"PyPI names it and the signature does not verify", copied, nil, true, false, false},
		{"PyPI names it and the signature of the file does not verify", artifact, nil, true, false, false},
		{"untrusted", named(ours, "unknown authority"), nil, true, false, false},
		{"PyPI does not name it", signed(t, ours, index.ByStatement, "", ""), nil, true, false, false},
		{"another one, later", named(thief, ""), []index.Pin{pin(ours.publisher(t), index.PinLearned)}, false, false, false},
		{"another one, in the first listing", named(thief, ""), []index.Pin{pin(ours.publisher(t), index.PinLearned)}, true, false, true},
		{"the same one", named(ours, ""), []index.Pin{pin(ours.publisher(t), index.PinLearned)}, true, false, false},
		{"a person has decided", named(thief, ""), []index.Pin{pin(ours.publisher(t), index.PinApproved)}, true, false, false},
		{"a person has rejected it", named(thief, ""), []index.Pin{pin(thief.publisher(t), index.PinRejected)}, true, false, false},
		{"in the policy", named(ours, ""), nil, true, true, false},
	} {
		c.facts.Pins, c.facts.File.FirstListing = c.pins, c.first
		if c.policy {
			c.facts.Policy.Publishers = []Expected{{Repository: "https://github.com/x/y"}}
		}
		got := learn(c.facts)
		if (len(got) == 1) != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
		if len(got) == 1 && got[0].How != "first attested history: p-1.0.tar.gz, PyPI provenance" {
			t.Errorf("%s: %q", c.name, got[0].How)
		}
	}
}

func TestProvenanceLost(t *testing.T) {
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Hour) }
	history := []index.Release{{Version: "1", First: at(0), Files: 2, Attested: 2}, {Version: "2", First: at(1), Files: 2}}
	for n := 3; n <= 7; n++ {
		history = append(history, index.Release{Version: fmt.Sprint(n), First: at(n), Files: 1})
	}
	yanked := "why"
	for _, c := range []struct {
		name   string
		file   index.File
		state  index.ProvenanceState
		policy Attestation
		reason string
	}{
		{"one attested before", aFile("2"), index.ProvenanceAbsent, "", "p-2.tar.gz has no attestation; last attested: 1, 2 of 2 files; this release: 0 of 2."},
		{"five releases back", aFile("6"), index.ProvenanceAbsent, "", "p-6.tar.gz has no attestation; last attested: 1, 2 of 2 files; this release: 0 of 1."},
		{"six releases back", aFile("7"), index.ProvenanceAbsent, "", ""},
		{"the first release", aFile("1"), index.ProvenanceAbsent, "", ""},
		{"a release that is not listed any more", aFile("9"), index.ProvenanceAbsent, "", ""},
		{"attested", aFile("2"), index.ProvenancePresent, "", ""},
		{"not known yet", aFile("2"), index.ProvenanceRefused, "", ""},
		{"unreadable", aFile("2"), index.ProvenanceUnreadable, "", ""},
		{"required", aFile("7"), index.ProvenanceAbsent, AttestationsRequired, "p-7.tar.gz has no attestation, and the policy requires them for p."},
		{"optional", aFile("2"), index.ProvenanceAbsent, AttestationsOptional, ""},
		{"in the first listing", index.File{Project: "p", Version: "2", FirstListing: true}, index.ProvenanceAbsent, AttestationsRequired, ""},
		{"yanked", index.File{Project: "p", Version: "2", Name: "p-2.tar.gz", Yanked: &yanked}, index.ProvenanceAbsent, "", "p-2.tar.gz has no attestation; last attested: 1, 2 of 2 files; this release: 0 of 2."},
	} {
		f := Facts{Case: index.Case{File: &c.file, Provenance: c.state, Releases: history}, Policy: ProjectPolicy{Attestations: c.policy}}
		reason := ""
		for _, a := range checkProvenanceLost(f) {
			reason += a.Reason
		}
		if reason != c.reason {
			t.Errorf("%s: %q, want %q", c.name, reason, c.reason)
		}
	}
	f := signed(t, newSigning(t, "o/r"), index.ByStatement, "", "")
	f.Policy.Attestations = AttestationsRequired
	if got := rules(f); got != "" {
		t.Errorf("an entry is no file alone: %s", got)
	}
}

func TestLogRules(t *testing.T) {
	c := monitor.Contradiction{Log: testLog, Subject: "9", Detail: "two roots of size 9", At: epoch, Proof: []monitor.Hash{{1}},
		Ours: monitor.Head{Size: 9, Note: []byte("ours\n")}, Theirs: monitor.Head{Size: 9, Note: []byte("theirs\n")}}
	ids := make(map[string]bool)
	for _, kind := range []string{monitor.Equivocation, monitor.Inconsistent, monitor.KeyChanged} {
		c.Kind = kind
		f := Facts{Case: index.Case{Contradiction: &c}}
		if got := rules(f); got != kind {
			t.Errorf("%s: %q fires", kind, got)
			continue
		}
		for _, r := range Rules {
			for _, a := range r.Check(f) {
				ids[a.ID] = true
				want := &Heads{KeyID: testLog.KeyID.String(), Ours: "ours\n", Theirs: "theirs\n", Proof: []string{monitor.Hash{1}.String()}}
				if diff := cmp.Diff(want, a.Heads); diff != "" || a.Reason != c.Detail || a.Log.Index != nil || a.Log.Origin != "log.example" {
					t.Errorf("%+v: %s", a, diff)
				}
				c.Theirs.Note = []byte("grown\n")
				if r.Check(f)[0].ID != a.ID {
					t.Error("a fork that grows is another alert")
				}
				c.Theirs.Note = []byte("theirs\n")
			}
		}
	}
	if len(ids) != 3 {
		t.Errorf("%d ids for three rules", len(ids))
	}
}

// A quarantine takes provenance away together with the files, often before anybody
// has asked for it.
func TestQuarantineLosesNoProvenance(t *testing.T) {
	w := newWorld(t)
	w.release(newSigning(t, "o/r"), "1.0")
	f := w.publish(attested(aFile("1.1")))[0]
	w.serial++
	quarantine := index.Listing{Project: "p", Serial: w.serial, Status: "quarantined", Fetched: w.advance(time.Minute)}
	_, err := w.store.PyPI().SaveListing(t.Context(), quarantine)
	check(t, err)
	absent := func() {
		t.Helper()
		check(t, w.store.PyPI().SaveProvenance(t.Context(), f.ID, index.Provenance{State: index.ProvenanceAbsent, Fetched: w.advance(20 * time.Minute)}))
	}
	absent()
	w.log(newSigning(t, "evil/r").attest(t, f))
	expect(t, w.raised(nil), "unexpected-signer 1.1")
	w.publish() // cleared
	due, err := w.store.PyPI().PendingProvenance(t.Context(), w.advance(2*time.Hour), 10)
	check(t, err)
	if len(due) != 1 || due[0].ID != f.ID {
		t.Errorf("due %+v", due)
	}
	absent()
	expect(t, w.raised(nil), "provenance-lost 1.1")
}
