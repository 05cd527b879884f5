package monitor

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// MaxPolicy bounds a policy file in bytes. The format asks for room for 32 logs,
// 32 witnesses and 32 groups; this is several times that.
const MaxPolicy = 256 << 10

// A WitnessPolicy says which witnesses must have cosigned a head before it
// counts, and for which logs. It is read from a file in the C2SP tlog-policy
// format (https://c2sp.org/tlog-policy), which Sigsum and Tessera share in kin:
//
//	# one of the first two, and the third
//	log log.example+8a3f0c11+AUz... https://log.example/
//	witness north witness.example/n+5d2b1e07+BHk...
//	witness south witness.example/s+0c9e44ab+BKd... https://s.example/
//	witness east  east.example+91f7d3c2+BPq...
//	group pair any north south
//	group all-of-it all pair east
//	quorum all-of-it
//
// A line is words separated by spaces and tabs, ended by a line feed; it is
// empty, starts with '#', or is one of:
//
//	log VKEY [URL]            a log the policy is for; its key name is the log's origin
//	witness NAME VKEY [URL]   a witness key, and what this file calls it
//	group NAME K MEMBER...    counts as having signed when K members have: a number, any (1), all
//	quorum NAME               who must have signed: a witness, a group, or "none" for nobody
//
// Names are bytes without meaning outside the file, shared by witnesses and
// groups, and must be defined on a line above their use. Each may be a member
// once in the whole file, so that no witness counts twice; a key may appear once
// among the logs and once among the witnesses, whatever it is called. There is
// exactly one quorum line. There are no comments after a line's words. URLs are
// for those who talk to witnesses; sigtrail does not and ignores them.
//
// What departs from the specification: witness keys are Ed25519 only, as
// ParseWitness says, so a file with an ML-DSA witness is refused as a whole.
type WitnessPolicy struct {
	logs      []vkey
	witnesses []Witness
	quorum    *rule // nil: none
}

// A rule is a witness, or a group of rules of which at least need must be met.
type rule struct {
	key     keyID // of a witness
	need    int   // of a group, at least 1
	members []*rule
}

// A keyID is what signature lines and keys have in common.
type keyID struct {
	name string
	id   uint32
}

func (r *rule) met(by map[keyID]bool) bool {
	if r.need == 0 {
		return by[r.key]
	}
	met := 0
	for _, m := range r.members {
		if m.met(by) {
			met++
		}
	}
	return met >= r.need
}

// Witnesses are the keys to hand to Cosignatures, in the order of the file.
// Their Name is the key name, not what the file calls them.
func (p *WitnessPolicy) Witnesses() []Witness {
	if p == nil {
		return nil
	}
	return append([]Witness(nil), p.witnesses...)
}

// Applies reports whether the policy is for the log with this origin and these
// keys. Without log lines it is for every log. With them it is for a log that
// one names by its origin, or by holding one of its keys: the origin of a Rekor
// v1 shard ("HOST - TREEID") can be no key name, its key is named "HOST". One of
// the two is enough, so that a key that was rotated does not lift the policy.
//
// A log line is no trust anchor: whether the head is signed by the log's own
// key is decided by ParseHead with the keys of the trusted root.
func (p *WitnessPolicy) Applies(origin string, keys []note.Verifier) bool {
	if p == nil {
		return false
	}
	for _, l := range p.logs {
		if l.name == origin || signedBy(note.Signature{Name: l.name, Hash: l.id}, keys) {
			return true
		}
	}
	return len(p.logs) == 0
}

// Met reports whether enough witnesses have cosigned. Only verified cosignatures
// count, so they must come from Cosignatures given the policy's Witnesses.
func (p *WitnessPolicy) Met(cosigned []Cosignature) bool {
	if p == nil || p.quorum == nil {
		return true
	}
	by := make(map[keyID]bool)
	for _, c := range cosigned {
		if c.Verified {
			by[keyID{c.Name, c.Hint}] = true
		}
	}
	return p.quorum.met(by)
}

// ParsePolicy reads a policy file. Errors name the line.
func ParsePolicy(text []byte) (*WitnessPolicy, error) {
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("witness policy: %d bytes, at most %d", len(text), MaxPolicy)
	}
	r := policyReader{
		policy: new(WitnessPolicy), names: make(map[string]*rule), member: make(map[string]bool),
		logKeys: make(map[string]bool), witnessKeys: make(map[string]bool), witnessIDs: make(map[keyID]bool),
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		err := r.line(line)
		if i == len(lines)-1 && line != "" {
			// The last name of a file cut short may be the first half of another.
			err = errors.New("does not end in a line feed: the file may be cut short")
		}
		if err != nil {
			return nil, fmt.Errorf("witness policy line %d: %w", i+1, err)
		}
	}
	if !r.quorum {
		return nil, errors.New(`witness policy: no quorum line; "quorum none" asks for no witness`)
	}
	return r.policy, nil
}

// A policyReader is what the lines above the present one have defined.
type policyReader struct {
	policy      *WitnessPolicy
	names       map[string]*rule
	member      map[string]bool // names that are in a group
	quorum      bool
	logKeys     map[string]bool // public keys
	witnessKeys map[string]bool
	witnessIDs  map[keyID]bool
}

func (r *policyReader) line(line string) error {
	for i := range len(line) {
		if b := line[i]; b < ' ' && b != '\t' || b == 0x7f {
			return fmt.Errorf("control character %#02x; lines end in a line feed alone", b)
		}
	}
	// Not strings.Fields: bytes above ASCII, Unicode spaces among them, are opaque.
	words := strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' })
	if len(words) == 0 || words[0][0] == '#' {
		return nil
	}
	switch keyword, words := words[0], words[1:]; keyword {
	case "log":
		return r.log(words)
	case "witness":
		return r.witness(words)
	case "group":
		return r.group(words)
	case "quorum":
		return r.setQuorum(words)
	default:
		return fmt.Errorf("%.100q is not log, witness, group or quorum", keyword)
	}
}

func (r *policyReader) log(words []string) error {
	if len(words) != 1 && len(words) != 2 {
		return fmt.Errorf("log has %d words after it, want VKEY [URL]", len(words))
	}
	k, err := parseVkey(words[0])
	if err != nil {
		return fmt.Errorf("log key: %w", err)
	}
	if k.kind != ed25519Note && k.kind != ecdsaNote && k.kind != mldsaCosignature {
		return fmt.Errorf("log key %q has type %#02x, which no log signs its heads with", k.name, k.kind)
	}
	v, err := formats.NewVerifier(words[0])
	if err != nil {
		return fmt.Errorf("log key %q: %w", k.name, err)
	}
	if v.KeyHash() != k.id {
		return fmt.Errorf("log key %q has id %08x, but its name and key give %08x", k.name, k.id, v.KeyHash())
	}
	if r.logKeys[string(k.key)] {
		return fmt.Errorf("log key %q is that of a log above", k.name)
	}
	r.logKeys[string(k.key)] = true
	r.policy.logs = append(r.policy.logs, k)
	return nil
}

func (r *policyReader) witness(words []string) error {
	if len(words) != 2 && len(words) != 3 {
		return fmt.Errorf("witness has %d words after it, want NAME VKEY [URL]", len(words))
	}
	w, err := ParseWitness(words[1])
	if err != nil {
		return err
	}
	k, err := parseVkey(words[1])
	if err != nil {
		return err
	}
	// Two keys that share name and id could not be told apart on a head.
	id := keyID{k.name, k.id}
	if r.witnessKeys[string(k.key)] || r.witnessIDs[id] {
		return fmt.Errorf("witness key %q is that of a witness above", k.name)
	}
	r.witnessKeys[string(k.key)], r.witnessIDs[id] = true, true
	r.policy.witnesses = append(r.policy.witnesses, w)
	return r.define(words[0], &rule{key: id})
}

func (r *policyReader) group(words []string) error {
	if len(words) < 3 {
		return fmt.Errorf("group has %d words after it, want NAME, K and at least one MEMBER", len(words))
	}
	name, threshold, members := words[0], words[1], words[2:]
	g := &rule{need: len(members)}
	switch threshold {
	case "all":
	case "any":
		g.need = 1
	default:
		k, err := strconv.Atoi(threshold)
		if err != nil || strconv.Itoa(k) != threshold || k < 1 || k > len(members) {
			return fmt.Errorf("group %.100q: threshold %.100q, want any, all or a number from 1 to %d", name, threshold, len(members))
		}
		g.need = k
	}
	for _, m := range members {
		member, err := r.named(m)
		if err != nil {
			return fmt.Errorf("group %.100q: %w", name, err)
		}
		if r.member[m] {
			return fmt.Errorf("group %.100q: %.100q is a member already, here or of a group above", name, m)
		}
		r.member[m] = true
		g.members = append(g.members, member)
	}
	return r.define(name, g)
}

func (r *policyReader) setQuorum(words []string) error {
	if len(words) != 1 {
		return fmt.Errorf("quorum has %d words after it, want NAME", len(words))
	}
	if r.quorum {
		return errors.New("a second quorum line")
	}
	r.quorum = true
	if words[0] == "none" {
		return nil
	}
	q, err := r.named(words[0])
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	r.policy.quorum = q
	return nil
}

func (r *policyReader) define(name string, d *rule) error {
	if name == "none" {
		return errors.New(`the name "none" is taken: it stands for no witness`)
	}
	if r.names[name] != nil {
		return fmt.Errorf("the name %.100q is defined above", name)
	}
	r.names[name] = d
	return nil
}

func (r *policyReader) named(name string) (*rule, error) {
	if d := r.names[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("no witness or group %.100q is defined above", name)
}
