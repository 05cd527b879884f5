package monitor

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// The key of Rekor v1, which signs the heads of several origins.
const rekorV1Key = "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l+smGNM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc="

const alpha3Key = "log2025-alpha3.rekor.sigstage.dev+d3d3a70c+AZQ93VXPMmj9uZj7U/7CefQ9yy8RgYFv6mKzOseipjqp"

// stagingPolicy names the witnesses of Sigstore's staging log by the keys that
// their operators publish.
const stagingPolicy = `# staging
log ` + alpha3Key + ` https://log2025-alpha3.rekor.sigstage.dev/

witness mullvad witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv
witness trustfabric staging.witness.transparency.goog/ring-any-bells+2e1a8dc9+BG5JTpLc3FJtwzgh1Uv+Qelz9qeOH2bfWjS1s0s+y4rL
witness geomys witness.navigli.sunlight.geomys.org+a3e00fe2+BNy/co4C1Hn1p+INwJrfUlgz7W55dSZReusH/GhUhJ/G https://navigli.sunlight.geomys.org/
group all-three all mullvad trustfabric geomys
quorum all-three
`

// policyWitnesses are six witnesses, a to f, and the lines that define them.
func policyWitnesses() (witnesses []testWitness, lines string) {
	for i, name := range strings.Split("abcdef", "") {
		w := newTestWitness(name+".example", byte(20+i))
		witnesses = append(witnesses, w)
		lines += "witness " + name + " " + w.vkey() + "\n"
	}
	return witnesses, lines
}

func TestPolicyMet(t *testing.T) {
	witnesses, defined := policyWitnesses()
	const nested = "group X 2 a b c\ngroup Y any d e\ngroup XY all X Y\nquorum XY"
	for _, c := range []struct {
		policy string
		met    string // sets of witnesses that are enough
		unmet  string // and that are not
	}{
		{"quorum none", "- a abcdef", ""},
		{"quorum b", "b ab abcdef", "- a acdef"},
		{"group g any a b c\nquorum g", "a b c ad abc", "- d def"},
		{"group g 1 a b c\nquorum g", "a b c ad abc", "- d def"},
		{"group g all a b c\nquorum g", "abc abcd", "- a ab bc abdef"},
		{"group g 3 a b c\nquorum g", "abc abcd", "- a ab bc abdef"},
		{"group g 2 a b c\nquorum g", "ab bc ac abc acdef", "- a b c adef"},
		{"group g any a\nquorum g", "a", "- b"},
		{nested, "abd bce acde abcdef", "- ab abc abf de ade bcf"},
		{"group one any a\ngroup two any one b\ngroup three 2 two c d\nquorum three", "ac bd cd", "- ab c a d abef"},
		// The other groups have no say.
		{"group g all a b\ngroup h all g c\nquorum g", "ab abc", "- ac bc c"},
		{"group g all a b\nquorum c", "c", "ab"},
		// Names are words of the file only, the format's own words among them.
		{"group witness 1 a b\ngroup 2 all witness c\nquorum 2", "ac bc", "ab c"},
	} {
		p, err := ParsePolicy([]byte(defined + c.policy + "\n"))
		if err != nil {
			t.Errorf("%s: %v", c.policy, err)
			continue
		}
		for want, sets := range map[bool]string{true: c.met, false: c.unmet} {
			for set := range strings.FieldsSeq(sets) {
				var cosigned []Cosignature
				for _, w := range witnesses {
					cosigned = append(cosigned, Cosignature{Name: w.name, Hint: w.hint(), Verified: strings.Contains(set, w.name[:1])})
				}
				// A second cosignature by the same witness counts for nothing more.
				cosigned = append(cosigned, cosigned...)
				if got := p.Met(cosigned); got != want {
					t.Errorf("%s\nsigned by %s: met %t, want %t", c.policy, set, got, want)
				}
			}
		}
	}
}

// A quorum is of keys: neither a name alone nor an id alone counts.
func TestPolicyMetByKey(t *testing.T) {
	w := newTestWitness("witness.example", 10)
	p, err := ParsePolicy([]byte("witness w " + w.vkey() + "\nquorum w\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cosigned Cosignature
		want     bool
	}{
		{Cosignature{Name: w.name, Hint: w.hint(), Verified: true}, true},
		{Cosignature{Name: w.name, Hint: w.hint()}, false},
		{Cosignature{Name: w.name, Hint: w.hint() + 1, Verified: true}, false},
		{Cosignature{Name: "w", Hint: w.hint(), Verified: true}, false},
	} {
		if got := p.Met([]Cosignature{c.cosigned}); got != c.want {
			t.Errorf("%+v: met %t", c.cosigned, got)
		}
	}
}

// From signed note to verdict, with the keys of the policy alone.
func TestPolicyOfHead(t *testing.T) {
	own, w, other := newTestKey(testOrigin, 1), newTestWitness("witness.example", 10), newTestWitness("other.example", 11)
	p, err := ParsePolicy([]byte("witness w " + w.vkey() + "\nwitness o " + other.vkey() + "\nquorum w\n"))
	if err != nil {
		t.Fatal(err)
	}
	text := headText(testOrigin, "42")
	for lines, want := range map[string]bool{
		"":                                  false,
		w.line(text, 1748031814) + "\n":     true,
		other.line(text, 1748031814) + "\n": false,
		unknownLine(w.name, w.hint()+1, make([]byte, 72)) + "\n": false,
	} {
		keys := []note.Verifier{own.verifier(t)}
		h, err := ParseHead([]byte(text+"\n"+own.line(text)+lines), testOrigin, keys)
		if err != nil {
			t.Fatal(err)
		}
		cosigned, err := Cosignatures(h.Note, h, keys, p.Witnesses())
		if err != nil || p.Met(cosigned) != want {
			t.Errorf("%.40q: met %t, %v; want %t", lines, p.Met(cosigned), err, want)
		}
	}
}

func TestPolicyApplies(t *testing.T) {
	own, other := newTestKey(testOrigin, 1), newTestKey("other.example", 3)
	rotated := newTestKey(testOrigin, 2)
	v1, err := formats.NewVerifier(rekorV1Key)
	if err != nil {
		t.Fatal(err)
	}
	ownLine := "log " + testVkey(own) + "\n"
	for _, c := range []struct {
		logs   string
		origin string
		key    note.Verifier
		want   bool
	}{
		{"", testOrigin, own.verifier(t), true},
		{ownLine, testOrigin, own.verifier(t), true},
		{ownLine, "other.example", other.verifier(t), false},
		{ownLine + "log " + testVkey(other) + " https://other.example/\n", "other.example", other.verifier(t), true},
		{ownLine, testOrigin, rotated.verifier(t), true},
		{"log " + rekorV1Key + "\n", "rekor.sigstore.dev - 1193050959916656506", v1, true},
		{ownLine, "rekor.sigstore.dev - 1193050959916656506", v1, false},
	} {
		p, err := ParsePolicy([]byte(c.logs + "quorum none\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Applies(c.origin, []note.Verifier{c.key}); got != c.want {
			t.Errorf("%q to %s: %t, want %t", c.logs, c.origin, got, c.want)
		}
	}
}

func testVkey(k testKey) string {
	_, key := testWitness{k.name, k.key}.typed(ed25519Note)
	return fmt.Sprintf("%s+%x+%s", k.name, k.id[:4], key)
}

// Without a policy nothing is asked of any log.
func TestNoPolicy(t *testing.T) {
	var p *WitnessPolicy
	if p.Applies(testOrigin, nil) || !p.Met(nil) || p.Witnesses() != nil {
		t.Error("no policy asks for something")
	}
}

func TestParsePolicy(t *testing.T) {
	const spread = "\n \t \n# comment \xff \u00a0\n\t # another\nquorum\tw \t\nwitness caf\xc3\xa9\u00a0x "
	w, x := newTestWitness("witness.example", 10), newTestWitness("w\u00f6tness.example", 11)
	p, err := ParsePolicy([]byte("  witness\t w  " + w.vkey() + "   https://w.example/\xff#here\n" + spread + x.vkey() + "\nlog " + rekorV1Key + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := p.Witnesses()
	if len(got) != 2 || got[0].Name != w.name || got[1].Name != x.name || got[1].Verifier.KeyHash() != x.hint() {
		t.Errorf("witnesses %+v", got)
	}
	if _, err := ParsePolicy([]byte(stagingPolicy)); err != nil {
		t.Error(err)
	}
	_, mldsa, err := formats.GenerateMLDSAKey(testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePolicy([]byte("log " + mldsa + "\nquorum none\n")); err != nil {
		t.Errorf("a log that signs with ML-DSA: %v", err)
	}
}

// The format asks for 32 of each at least; deep nesting is no trouble.
func TestPolicyLarge(t *testing.T) {
	var text strings.Builder
	var cosigned []Cosignature
	for i := range 200 {
		w := newTestWitness(fmt.Sprintf("w%d.example", i), byte(i+1))
		fmt.Fprintf(&text, "log %s\nwitness w%d %s\n", testVkey(newTestKey(w.name, byte(i+1))), i, w.vkey())
		cosigned = append(cosigned, Cosignature{Name: w.name, Hint: w.hint(), Verified: true})
	}
	text.WriteString("group g0 any w0\n")
	for i := range 199 {
		fmt.Fprintf(&text, "group g%d all g%d w%d\n", i+1, i, i+1)
	}
	p, err := ParsePolicy([]byte(text.String() + "quorum g199\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !p.Met(cosigned) || p.Met(cosigned[1:]) || p.Met(cosigned[:199]) {
		t.Error("a chain of 200 groups is not met by exactly all 200 witnesses")
	}
}

func TestPolicyRefused(t *testing.T) {
	w, x := newTestWitness("witness.example", 10), newTestWitness("x.example", 11)
	sameKey := testWitness{"alias.example", w.key}
	defined := "witness w " + w.vkey() + "\nwitness x " + x.vkey() + "\n"
	log := "log " + testVkey(newTestKey(testOrigin, 1)) + "\n"
	_, mldsa, err := formats.GenerateMLDSAKey("witness.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{"", "no quorum line"},
		{"# nothing\n", "no quorum line"},
		{defined, "no quorum line"},
		{"quorum none", "line 1: does not end in a line feed"},
		{"\nquorum none\r\n", "line 2: control character 0x0d"},
		{"# \x00\nquorum none\n", "line 1: control character 0x00"},
		{"# \x7f\nquorum none\n", "line 1: control character 0x7f"},
		{"quorum none\nquorum none\n", "line 2: a second quorum line"},
		{defined + "quorum w\nquorum w\n", "line 4: a second quorum line"},
		{"quorum\n", "line 1: quorum has 0 words"},
		{"quorum none # nobody\n", "line 1: quorum has 3 words"},
		{"quorum w\n" + defined, "line 1: quorum: no witness or group \"w\""},
		{"policy x\n", "line 1: \"policy\" is not"},
		{"Quorum none\n", "line 1: \"Quorum\" is not"},
		{"quorum\u00a0none\n", `line 1: "quorum\u00a0none" is not`},

		{"log\n", "log has 0 words"},
		{strings.TrimSpace(log) + " https://log.example/ # ours\n", "line 1: log has 4 words"},
		{log + log, "line 2: log key \"log.example\" is that of a log above"},
		{log + "log " + testVkey(newTestKey("other.example", 1)) + "\n", "is that of a log above"},
		{"log " + w.vkey() + "\n", "type 0x04"},
		{"log " + strings.Replace(rekorV1Key, "c0d23d6a", "c0d23d6b", 1) + "\n", "invalid keyhash"},
		{"log log.example\n", "NAME+ID+KEY"},
		{"log " + strings.Replace(mldsa, "witness", "other", 1) + "\n", "its name and key give"},

		{"witness w\n", "witness has 1 words"},
		{"witness w " + w.vkey() + " https://w.example/ # north\n", "witness has 5 words"},
		{"witness none " + w.vkey() + "\n", "\"none\" is taken"},
		{"witness w " + testVkey(newTestKey("witness.example", 10)) + "\n", "line 1: witness key \"witness.example\" has type 0x01"},
		{"witness w " + mldsa + "\n", "ML-DSA"},
		{"witness w " + strings.Replace(w.vkey(), "witness", "other", 1) + "\n", "copy all of it again"},
		{defined + "witness w " + newTestWitness("y.example", 12).vkey() + "\n", "line 3: the name \"w\" is defined above"},
		{defined + "witness y " + w.vkey() + "\n", "is that of a witness above"},
		{defined + "witness y " + sameKey.vkey() + "\n", "is that of a witness above"},

		{"group g any\n", "group has 2 words"},
		{"group g any w\n" + defined, "line 1: group \"g\": no witness or group \"w\""},
		{defined + "group g any none\n", "no witness or group \"none\""},
		{defined + "group none any w\n", "\"none\" is taken"},
		{defined + "group w any x\n", "the name \"w\" is defined above"},
		{defined + "group g all g\n", "no witness or group \"g\""},
		{defined + "group g all w w\n", "\"w\" is a member already"},
		{defined + "group g all w\ngroup h all w x\n", "line 4: group \"h\": \"w\" is a member already"},
		{defined + "group g 0 w x\n", "from 1 to 2"},
		{defined + "group g 3 w x\n", "from 1 to 2"},
		{defined + "group g -1 w x\n", "from 1 to 2"},
		{defined + "group g +1 w x\n", "from 1 to 2"},
		{defined + "group g 01 w x\n", "from 1 to 2"},
		{defined + "group g most w x\n", "from 1 to 2"},
		{defined + "group g 99999999999999999999 w x\n", "from 1 to 2"},
		{strings.Repeat("#\n", MaxPolicy), "at most 262144"},
	} {
		p, err := ParsePolicy([]byte(c.text))
		if err == nil || p != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.200q:\n%v, %v\nwant %q", c.text, p, err, c.want)
		}
	}
}

// A policy that is accepted is met when all its witnesses sign, is not met by
// nobody unless it says so, and is never unmet by one signature more.
func FuzzPolicy(f *testing.F) {
	witnesses, defined := policyWitnesses()
	f.Add([]byte(stagingPolicy))
	f.Add([]byte("quorum none\n"))
	f.Add([]byte(defined + "group X 2 a b c\ngroup Y any d e\ngroup XY all X Y\nquorum XY\n"))
	f.Add([]byte(defined + "group g 3 a b c\nquorum f\n"))
	f.Add([]byte("log " + rekorV1Key + "\n\n\t# x\nwitness a " + witnesses[0].vkey() + " https://a.example/\nquorum a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err != nil {
			if p != nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v, %q", p, err)
			}
			return
		}
		if p.Met(nil) != (p.quorum == nil) {
			t.Fatalf("met by nobody: %t", p.Met(nil))
		}
		var cosigned []Cosignature
		met := p.Met(nil)
		for _, w := range p.Witnesses() {
			cosigned = append(cosigned, Cosignature{Name: w.Name, Hint: w.Verifier.KeyHash(), Verified: true})
			if met && !p.Met(cosigned) {
				t.Fatalf("unmet by %s", w.Name)
			}
			met = p.Met(cosigned)
		}
		if !met {
			t.Fatalf("not met by all of %d witnesses", len(cosigned))
		}
		again, err := ParsePolicy(bytes.Clone(text))
		if err != nil || len(again.Witnesses()) != len(cosigned) {
			t.Fatalf("read again: %v", err)
		}
	})
}
