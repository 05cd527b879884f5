package alerts

import (
	"fmt"

	"sigtrail/monitor"
)

var logEquivocation = logRule(monitor.Equivocation,
	"the log signed two trees of one size with different roots: it shows different histories to different people",
	"keep the evidence, trust nothing new from this log, and tell the log's operator and other monitors")

var logInconsistent = logRule(monitor.Inconsistent,
	"the log does not prove that its tree extends what it signed before, or serves leaves that are not in its tree",
	"keep the evidence, trust nothing new from this log, and tell the log's operator; sigtrail goes on by itself when the log proves its history again")

var logKeyChanged = logRule(monitor.KeyChanged,
	"a head of a known log is signed by a key that the trusted root does not name",
	"compare with the trusted root that Sigstore publishes; a key that changes without it is an attack or a grave mistake")

func logRule(name, meaning, next string) Rule {
	r := Rule{Name: name, Severity: Critical, Meaning: meaning, Next: next}
	r.Check = func(f Facts) []Alert {
		c := f.Contradiction
		if c == nil || c.Kind != name {
			return nil
		}
		return []Alert{{
			ID:     alertID(name, c.Log.Origin, c.Log.KeyID.String(), c.Subject),
			Title:  fmt.Sprintf("log %s: %s", c.Log.Origin, meaning),
			Reason: c.Detail,
			Log:    &LogRef{Origin: c.Log.Origin, Link: address(c.Log)},
			Heads:  heads(c),
			Times:  []Time{{"seen", "sigtrail", c.At.UTC()}},
		}}
	}
	return r
}

func heads(c *monitor.Contradiction) *Heads {
	h := &Heads{KeyID: c.Log.KeyID.String(), Ours: string(c.Ours.Note), Theirs: string(c.Theirs.Note)}
	for _, p := range c.Proof {
		h.Proof = append(h.Proof, p.String())
	}
	return h
}
