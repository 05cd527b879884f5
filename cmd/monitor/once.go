package main

import (
	"context"
	"errors"

	"sigtrail/monitor"
)

// Exit codes of monitor --once.
const (
	exitFine     = 0
	exitFindings = 1
	exitUsage    = 2
	exitCould    = 3 // could not do it: network, disk
	exitConvicts = 4 // evidence of a misbehaving log
)

// once catches up with the present heads, judges, delivers, and says how it went.
// Evidence against a log outranks findings, findings outrank what could not be
// done: the answer never sounds better than the worst that is known.
func (d *daemon) once(ctx context.Context) (int, error) {
	changed, stale := d.trust.refresh(ctx)
	if stale != nil && (d.trust.current() == nil || d.config.TrustedRoot != "") {
		return exitCould, stale
	}
	if _, err := d.adopt(ctx); err != nil {
		return exitCould, err
	}
	if changed {
		if err := d.store.Reexamine(ctx); err != nil {
			return exitCould, err
		}
	}
	errs := []error{stale, d.readIndexes(ctx)}
	for _, f := range d.followers {
		errs = append(errs, f.Once(ctx))
	}
	errs = append(errs, d.finder.once(ctx), d.verifier.Once(ctx))
	for _, p := range d.peers {
		errs = append(errs, p.once(ctx))
	}
	_, err := d.comparer.Once(ctx)
	errs = append(errs, err)
	raised, err := d.judge.Once(ctx)
	errs = append(errs, err, d.courier.Once(ctx), d.expireOnce(ctx))
	err = errors.Join(errs...)
	contradiction := (*monitor.Contradiction)(nil)
	switch {
	case errors.As(err, &contradiction):
		return exitConvicts, err
	case len(raised) > 0:
		return exitFindings, err
	case err != nil:
		return exitCould, err
	}
	return exitFine, nil
}
