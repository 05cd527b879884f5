package alerts

import (
	"fmt"

	"sigtrail/monitor"
)

var logEquivocation = logRule(monitor.Equivocation, Critical,
	"the log signed two trees of one size with different roots: it shows different histories to different people",
	"export the evidence (monitor evidence), trust nothing new from this log, and tell the log's operator and other monitors")

var logInconsistent = logRule(monitor.Inconsistent, Critical,
	"the log does not prove that its tree extends what it signed before, or serves leaves that are not in its tree",
	"export the evidence (monitor evidence), trust nothing new from this log, and tell the log's operator; sigtrail goes on by itself when the log proves its history again")

var logKeyChanged = logRule(monitor.KeyChanged, Critical,
	"a head of a known log is signed by a key that the trusted root does not name, or by another than the log was begun with",
	"compare with the trusted root that Sigstore publishes; a key that changes without it is an attack or a grave mistake")

var closedShardChanged = logRule(monitor.ClosedChanged, High,
	"a log that had ended has grown again, or its server has stopped listing it",
	"ask the log's operator; read what was added, for nobody expects entries there any more")

var logStalled = logRule(monitor.Stalled, Medium,
	"a log has not shown a larger head for longer than it ever does",
	"look at the log's status page and at the network between; what is signed meanwhile is not seen by anybody")

var coverageGap = logRule(monitor.CoverageGap, Medium,
	"a stretch of a log that is tailed was skipped and will not be read by itself",
	"read it with monitor scan when there is time, or allow the tail more requests")

func logRule(name string, severity Severity, meaning, next string) Rule {
	r := Rule{Name: name, Severity: severity, Meaning: meaning, Next: next}
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
