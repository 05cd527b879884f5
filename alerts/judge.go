package alerts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sigtrail/index"
)

// Cases is what a Judge needs of the index.
type Cases interface {
	// Cases hands out facts that have not been judged, none when all are.
	Cases(ctx context.Context, ready func(project string) bool, limit int) ([]index.Case, error)
	// Decide writes a verdict and marks the case as judged, in one
	// transaction. It returns the alerts that are new.
	Decide(ctx context.Context, c index.Case, v index.Verdict) (raised []index.Alert, err error)
}

// A Judge runs the rules over what the index has learned.
type Judge struct {
	Store   Cases
	Policy  *Policy
	Sinks   []string // names of the receivers of every alert
	Log     *slog.Logger
	Now     func() time.Time
	Metrics *Metrics
}

// caseBatch is how many cases are held in memory at once.
const caseBatch = 100

// Once judges all that is waiting and returns the alerts that it raised. A case
// that cannot be decided is tried again next time.
func (j *Judge) Once(ctx context.Context) (raised []index.Alert, err error) {
	for {
		cases, err := j.Store.Cases(ctx, j.Policy.Covers, caseBatch)
		if err != nil {
			return raised, fmt.Errorf("loading cases to judge: %w", err)
		}
		if len(cases) == 0 {
			return raised, nil
		}
		decided := 0
		var errs []error
		for _, c := range cases {
			alerts, err := j.decide(ctx, c)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			decided++
			raised = append(raised, alerts...)
		}
		if decided == 0 { // no progress: leave them for the next round
			return raised, errors.Join(errs...)
		}
	}
}

func (j *Judge) decide(ctx context.Context, c index.Case) ([]index.Alert, error) {
	f := Facts{Case: c, Now: j.Now().UTC()}
	if c.File != nil {
		f.Policy = j.Policy.project(c.File.Project)
	}
	v := index.Verdict{Pins: learn(f), Sinks: j.Sinks}
	f.Pins = append(f.Pins[:len(f.Pins):len(f.Pins)], v.Pins...)
	for _, r := range Rules {
		for _, a := range r.Check(f) {
			a.Schema, a.Rule, a.Severity, a.Next, a.Raised = "sigtrail.alert/1", r.Name, r.Severity, r.Next, f.Now
			s, err := a.stored()
			if err != nil {
				return nil, err
			}
			v.Alerts = append(v.Alerts, s)
		}
	}
	raised, err := j.Store.Decide(ctx, c, v)
	if err != nil {
		return nil, fmt.Errorf("writing a verdict: %w", err)
	}
	for _, p := range v.Pins {
		j.Log.InfoContext(ctx, "pin learned", "project", p.Project, "publisher", Escape(p.Publisher.String()), "how", Escape(p.How))
	}
	for _, a := range raised {
		j.Metrics.findings.WithLabelValues(a.Rule, a.Severity).Inc()
	}
	return raised, nil
}
