package alerts

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
)

// Cases is what a Judge needs of the index.
type Cases interface {
	// Cases hands out facts that have not been judged, none when all that it may
	// examine are: what is new, and most projects beside.
	Cases(ctx context.Context, ready func(project string) bool, limit, most int) ([]index.Case, error)
	// Decide writes a verdict and marks the case as judged, in one
	// transaction. It returns the alerts that are new.
	Decide(ctx context.Context, c index.Case, v index.Verdict) (raised []index.Alert, err error)
}

// A Judge runs the rules over what the index has learned. Every field but Policy
// must be set.
type Judge struct {
	Store   Cases
	Policy  *Policy  // nil: pins decide everywhere
	Sinks   []string // names of the receivers of every alert
	Log     *slog.Logger
	Now     func() time.Time
	Metrics *Metrics
}

// caseBatch is how many cases are held in memory at once.
const caseBatch = 100

// Once judges all that can be judged and returns the alerts that it raised. A case
// that cannot be decided holds up no other and is tried again next time. A crash
// between two cases leaves the second unjudged, so the next run judges it.
func (j *Judge) Once(ctx context.Context) (raised []index.Alert, err error) {
	return j.judge(ctx, math.MaxInt)
}

// Round is Once for what is new. Of the rest it looks at so many projects that
// a backlog costs little, at others each time.
func (j *Judge) Round(ctx context.Context) (raised []index.Alert, err error) {
	return j.judge(ctx, index.RoundProjects)
}

func (j *Judge) judge(ctx context.Context, most int) (raised []index.Alert, err error) {
	defer prometheus.NewTimer(j.Metrics.seconds).ObserveDuration()
	for {
		cases, err := j.Store.Cases(ctx, j.Policy.Covers, caseBatch, most)
		if err != nil {
			return raised, fmt.Errorf("loading cases to judge: %w", err)
		}
		if len(cases) == 0 {
			return raised, nil
		}
		decided := 0
		var failed error // the first stands for all: most share one cause
		for _, c := range cases {
			alerts, err := j.decide(ctx, c)
			if err != nil {
				failed = cmp.Or(failed, err)
				continue
			}
			decided++
			raised = append(raised, alerts...)
		}
		if decided == 0 { // no progress: leave them for the next round
			return raised, fmt.Errorf("%d case(s) could not be judged: %w", len(cases), failed)
		}
	}
}

func (j *Judge) decide(ctx context.Context, c index.Case) ([]index.Alert, error) {
	f := Facts{Case: c, Now: j.Now().UTC()}
	if c.File != nil {
		f.Policy = j.Policy.project(index.Qualified(c.File.Index, c.File.Project))
	}
	v := index.Verdict{Pins: learn(f), Sinks: j.Sinks}
	f.Pins = append(f.Pins[:len(f.Pins):len(f.Pins)], v.Pins...)
	for _, r := range Rules {
		for _, a := range r.Check(f) {
			a.Schema, a.Rule, a.Severity, a.Next, a.Raised, a.Lacking = Schema, r.Name, r.Severity, r.Next, f.Now, lacking(c)
			a.on(c.File)
			s, err := a.stored()
			if err != nil {
				return nil, err
			}
			v.Alerts = append(v.Alerts, s)
		}
	}
	raised, err := j.Store.Decide(ctx, c, v)
	if err != nil {
		return nil, fmt.Errorf("writing the verdict on %s: %w", subject(c), err)
	}
	for _, p := range v.Pins {
		j.Log.InfoContext(ctx, "pin learned", "project", index.Qualified(p.Index, p.Project), "publisher", Escape(p.Publisher.String()), "how", Escape(p.How))
	}
	for _, a := range raised {
		j.Metrics.findings.WithLabelValues(a.Rule, a.Severity).Inc()
	}
	return raised, nil
}

// subject names a case in errors.
func subject(c index.Case) string {
	switch {
	case c.Contradiction != nil:
		return c.Contradiction.Kind + " of log " + c.Contradiction.Log.Origin
	case c.File != nil:
		return "file " + index.Qualified(c.File.Index, c.File.Name)
	}
	return "nothing"
}
