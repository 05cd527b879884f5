package pypi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
	"sigtrail/monitor"
)

// VerdictStore is what a Verifier asks of the index; *index.Store is one.
type VerdictStore interface {
	// UnverifiedProvenance returns files whose provenance object has not been
	// verified, or whose verdict may be another under this trusted root.
	UnverifiedProvenance(ctx context.Context, root string, limit int) ([]index.File, error)
	// ProvenanceObjects hands out all objects that were served for a file, the first
	// one first.
	ProvenanceObjects(ctx context.Context, id index.FileID, each func(index.ProvenanceObject) error) error
	// SaveVerification replaces what became of a file's objects.
	SaveVerification(ctx context.Context, id index.FileID, v index.Verification) error
	// SettleLeaves looks again for the log entries that were not in their log.
	SettleLeaves(ctx context.Context, now time.Time) (missing int, err error)
}

var _ VerdictStore = (*index.Store)(nil)

// Roots are the trusted roots that verdicts rest on, each with its SHA-256 in hex.
type Roots interface {
	// Current is the newest root; nil as long as there is none.
	Current() (BundleVerifier, string)
	// InUse is the root that was in use at a time; nil if none was, or if it is
	// the current one.
	InUse(ctx context.Context, at time.Time) (BundleVerifier, string, error)
}

// A Verifier verifies the provenance objects that are stored, and looks for their
// entries in the logs as coverage grows. Its work list is in the store. An object
// costs about five milliseconds for each attestation. Every field but Changed must
// be set.
type Verifier struct {
	Store   VerdictStore
	Roots   Roots
	Log     *slog.Logger
	Now     func() time.Time
	Metrics *VerdictMetrics
	Changed func()          // called when there is something new to judge; may be nil
	Wake    <-chan struct{} // there may be something to do
	Every   time.Duration   // between looks without being woken, and at coverage
}

// verifyBatch is how many files are listed at a time; the objects of one are in memory.
const verifyBatch = 100

// Run works until ctx ends, which is no error.
func (v *Verifier) Run(ctx context.Context) error {
	last, settled := "", time.Time{}
	for {
		err := v.verify(ctx)
		if now := v.Now(); now.Sub(settled) >= v.Every { // coverage grows all the time
			settled, err = now, errors.Join(err, v.settle(ctx))
		}
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil:
			last = ""
		case err.Error() != last:
			last = err.Error()
			v.Log.ErrorContext(ctx, "cannot verify provenance; will try again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-v.Wake:
		case <-time.After(v.Every):
		}
	}
}

// Once verifies all that can be verified now, and looks for all log entries.
func (v *Verifier) Once(ctx context.Context) error {
	return errors.Join(v.verify(ctx), v.settle(ctx))
}

func (v *Verifier) settle(ctx context.Context) error {
	missing, err := v.Store.SettleLeaves(ctx, v.Now())
	if missing > 0 && v.Changed != nil {
		v.Changed()
	}
	return err
}

func (v *Verifier) verify(ctx context.Context) error {
	for {
		trust, root := v.Roots.Current()
		if trust == nil {
			return nil // nothing is verified without one
		}
		files, err := v.Store.UnverifiedProvenance(ctx, root, verifyBatch)
		if err != nil || len(files) == 0 {
			return err
		}
		for _, f := range files {
			if err := v.file(ctx, f, trust, root); err != nil {
				return fmt.Errorf("provenance of %s: %w", f.Name, err)
			}
		}
		if v.Changed != nil {
			v.Changed()
		}
	}
}

func (v *Verifier) file(ctx context.Context, f index.File, trust BundleVerifier, root string) error {
	o, unreadable, err := v.served(ctx, f.ID)
	if err != nil {
		return err
	}
	at := v.Now().UTC()
	result := index.Verification{Root: root, At: at}
	if unreadable != nil { // something was readable when it was stored
		result.Verdicts = []index.AttestationVerdict{{State: index.AttestationInvalid, Failed: invalidForm, Error: printable(unreadable.Error(), maxVerdictText), Root: root, At: at}}
	}
	for _, r := range o.Verify(trust, f.Name, f.SHA256) {
		b := o.Bundles[r.Bundle]
		a := b.Attestations[r.Attestation]
		by := root
		if r.Doubt {
			if r, by, err = v.again(ctx, f, b, a, r, root); err != nil {
				return err
			}
		}
		verdict := index.AttestationVerdict{Bundle: r.Bundle, Attestation: r.Attestation, State: r.State(), Failed: r.Failed,
			Predicate: printable(r.Predicate, maxVerdictText), Publisher: string(b.Publisher), Root: by, At: at}
		if r.Err != nil {
			verdict.Error = printable(r.Err.Error(), maxVerdictText)
		}
		for _, e := range a.Entries {
			verdict.Leaves = append(verdict.Leaves, monitor.HashLeaf(e.Body))
		}
		result.Doubt = result.Doubt || r.Doubt
		result.Verdicts = append(result.Verdicts, verdict)
	}
	if err := v.Store.SaveVerification(ctx, f.ID, result); err != nil {
		return err
	}
	for _, r := range result.Verdicts {
		v.Metrics.count(r)
		if r.State == index.AttestationUnknown {
			v.Log.WarnContext(ctx, "an attestation of a kind that is not known; all else of it holds", "file", f.Name, "kind", r.Failed, "why", r.Error)
		}
	}
	return nil
}

// served is what all objects that were served for a file hold, as one: what was put in
// the place of the first object is to be trusted no more than that. Bundles that come
// again come once. unreadable is why, if none of the objects can be read.
func (v *Verifier) served(ctx context.Context, id index.FileID) (all ProvenanceObject, unreadable, err error) {
	read := false
	err = v.Store.ProvenanceObjects(ctx, id, func(o index.ProvenanceObject) error {
		p, err := ParseProvenance(o.Body)
		if err != nil {
			unreadable = err
			return nil
		}
		read = true
		for _, b := range p.Bundles {
			if !slices.ContainsFunc(all.Bundles, func(have Bundle) bool { return reflect.DeepEqual(have, b) }) {
				all.Bundles = append(all.Bundles, b)
			}
		}
		return nil
	})
	if read {
		unreadable = nil
	}
	return all, unreadable, err
}

const maxVerdictText = 500 // bytes of an error that are kept

// again holds what fails under the current root against the one that was in use when
// the certificate was issued: a root of a private instance may have dropped what it
// trusted then. The certificate's time is a claim; whether it is so, the old root says.
func (v *Verifier) again(ctx context.Context, f index.File, b Bundle, a Attestation, r Verdict, root string) (Verdict, string, error) {
	signer, err := index.ParseSigner(a.Certificate)
	if err != nil {
		return r, root, nil
	}
	old, name, err := v.Roots.InUse(ctx, signer.NotBefore)
	if err != nil || old == nil {
		return r, root, err
	}
	failed, why := b.verify(a, old, f.Name, f.SHA256)
	held := Verdict{Bundle: r.Bundle, Attestation: r.Attestation, Predicate: r.Predicate, Failed: failed, Err: why}
	if held.State() == index.AttestationInvalid {
		return r, root, nil
	}
	return held, name, nil
}

// VerdictMetrics count what a Verifier finds. A nil *VerdictMetrics counts nothing.
type VerdictMetrics struct{ verdicts *prometheus.CounterVec }

// NewVerdictMetrics registers the metrics.
func NewVerdictMetrics(reg prometheus.Registerer) *VerdictMetrics {
	m := &VerdictMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sigtrail_provenance_verdicts_total",
		Help: "Attestations of provenance objects verified, by verdict and the condition that failed first."}, []string{"verdict", "condition"})}
	reg.MustRegister(m.verdicts)
	return m
}

func (m *VerdictMetrics) count(v index.AttestationVerdict) {
	if m != nil {
		m.verdicts.WithLabelValues(string(v.State), v.Failed).Inc()
	}
}
