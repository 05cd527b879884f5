package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/monitor"
	"sigtrail/pypi"
	"sigtrail/rekor"
)

// A daemon is sigtrail's parts, wired. Its workers, a line each; channels only
// wake them sooner, each finds its work in the store:
//
//	follow    heads and leaves of one server → store
//	scope     files of requirements → what is watched
//	watch     journal, listings, provenance of PyPI and of each other index → store
//	find      entries for files, by look-up → store
//	verify    provenance objects, and whether their entries are in the logs → store
//	compare   heads that provenance objects and other monitors show → store
//	judge     what is new in the store → pins, alerts, outbox
//	deliver   outbox → terminal, webhooks
//	expire    what is past its retention
type daemon struct {
	config    Config
	log       *slog.Logger
	now       func() time.Time
	registry  *prometheus.Registry
	policy    *alerts.Policy
	witnesses *monitor.WitnessPolicy
	sinks     []alerts.Sink

	readers rekor.Options // what the configuration does not say: patience, transport
	trust   *trustKeeper
	store   *index.Store

	metrics   *monitor.Metrics
	keeper    *monitor.Keeper
	followers []*monitor.Follower
	told      map[string]bool // logs that are waited for
	subscribe func(ctx context.Context, address string) (monitor.Subscription, error)
	finder    *finder
	comparer  *monitor.Comparer
	peers     []*peer
	indexes   []*packageIndex // PyPI first
	verifier  *pypi.Verifier
	judge     *alerts.Judge
	courier   *alerts.Courier

	wakeFinder, wakeVerifier, wakeJudge chan struct{}
	judgeEvery                          time.Duration // without being woken
	ready                               atomic.Bool
	address                             atomic.Value // string: where metrics are served
}

// newDaemon opens what can be opened without a network. Alerts go to the sinks that
// the configuration names, and to extra ones.
func newDaemon(ctx context.Context, c Config, log *slog.Logger, extra ...alerts.Sink) (*daemon, error) {
	return openDaemon(ctx, c, log, index.Open, time.Now, extra)
}

// openBeside is newDaemon for a command that works on the database of a daemon that
// may be running.
func openBeside(ctx context.Context, c Config, log *slog.Logger) (*daemon, error) {
	return openDaemon(ctx, c, log, makeBeside, time.Now, nil)
}

func openDaemon(ctx context.Context, c Config, log *slog.Logger, open func(context.Context, string, index.Options) (*index.Store, error), now func() time.Time, extra []alerts.Sink) (*daemon, error) {
	d := &daemon{config: c, log: log, now: now, registry: newRegistry(), told: make(map[string]bool), trust: &trustKeeper{config: c, log: log, now: now},
		wakeFinder: make(chan struct{}, 1), wakeVerifier: make(chan struct{}, 1), wakeJudge: make(chan struct{}, 1), judgeEvery: 10 * time.Second, subscribe: openSubscription}
	var err error
	if d.policy, err = loadPolicy(c); err != nil {
		return nil, err
	}
	if d.witnesses, err = loadWitnessPolicy(c); err != nil {
		return nil, err
	}
	d.sinks = append([]alerts.Sink{alerts.Terminal{Log: log}}, extra...)
	for _, w := range c.Webhooks {
		var secret []byte
		if w.SecretFile != "" {
			if secret, err = alerts.ReadSecret(w.SecretFile); err != nil {
				return nil, fmt.Errorf("%w: %w", errConfig, err)
			}
		}
		sink, err := alerts.NewWebhook(w.URL, secret)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errConfig, err)
		}
		d.sinks = append(d.sinks, sink)
	}
	if d.store, err = open(ctx, c.Database, index.Options{Trust: d.trust, Registerer: d.registry, Log: log, Now: now}); err != nil {
		return nil, err
	}
	d.trust.store = d.store
	d.registry.MustRegister(d.trust)
	d.wire()
	if err := errors.Join(d.wireRest(ctx), d.trust.recall(ctx)); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// loadPolicy reads the policy that a configuration names, if any.
func loadPolicy(c Config) (*alerts.Policy, error) {
	if c.Policy == "" {
		return nil, nil
	}
	p, err := alerts.LoadPolicy(c.Policy, c.indexNames()...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	return p, nil
}

// loadWitnessPolicy reads the witness policy that a configuration names, if any.
func loadWitnessPolicy(c Config) (*monitor.WitnessPolicy, error) {
	if c.WitnessPolicy == "" {
		return nil, nil
	}
	f, err := os.Open(c.WitnessPolicy)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, monitor.MaxPolicy+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	p, err := monitor.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errConfig, c.WitnessPolicy, err)
	}
	return p, nil
}

// close releases the database.
func (d *daemon) close() error { return d.store.Close() }

// wire makes what following logs needs before it is known which.
func (d *daemon) wire() {
	d.metrics = monitor.NewMetrics(d.registry, d.now)
	d.keeper = &monitor.Keeper{Store: d.store, Log: d.log, Now: d.now, Metrics: d.metrics, Patience: time.Second, Witnesses: d.witnesses}
	d.finder = &finder{keeper: d.keeper, store: d.store, log: d.log, every: d.config.Interval.Value(), now: d.now,
		first: min(again[0], d.config.PyPI.Interval.Value()), changed: d.wakeJudgeNow}
	d.comparer = &monitor.Comparer{Keeper: d.keeper, Store: d.store, Log: d.log, Metrics: d.metrics, Changed: d.wakeJudgeNow}
}

func (d *daemon) wireRest(ctx context.Context) error {
	for _, c := range d.config.sources() {
		x, err := d.openIndex(ctx, c)
		if err != nil {
			return err
		}
		d.indexes = append(d.indexes, x)
	}
	d.verifier = &pypi.Verifier{Store: d.store, Roots: d.trust, Log: d.log, Now: d.now, Metrics: pypi.NewVerdictMetrics(d.registry),
		Changed: d.wakeJudgeNow, Wake: d.wakeVerifier, Every: d.config.Interval.Value()}
	for _, m := range d.config.Monitors {
		p, err := newPeer(m, d.store, d.log, d.config.Interval.Value())
		if err != nil {
			return err
		}
		d.peers = append(d.peers, p)
	}
	judging := alerts.NewMetrics(d.registry)
	d.courier = &alerts.Courier{Outbox: d.store, Sinks: d.sinks, Log: d.log, Now: d.now, Metrics: judging, Every: 5 * time.Second, Pause: 5 * time.Second}
	for range d.sinks {
		d.courier.Wake = append(d.courier.Wake, make(chan struct{}, 1))
	}
	d.judge = &alerts.Judge{Store: d.store, Policy: d.policy, Sinks: d.courier.Names(), Log: d.log, Now: d.now, Metrics: judging}
	return nil
}

func raise(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (d *daemon) wakeJudgeNow() { raise(d.wakeJudge) }

func (d *daemon) wakeAll() {
	raise(d.wakeFinder)
	raise(d.wakeVerifier)
	raise(d.wakeJudge)
}

// replicaGrace is how long the replicas of a log may be apart. A single round cannot
// wait for it, and has to judge by what it sees.
const replicaGrace = 15 * time.Minute

// run works until ctx ends.
func (d *daemon) run(ctx context.Context) error {
	d.keeper.Grace = replicaGrace
	g, ctx := errgroup.WithContext(ctx)
	if err := d.listen(ctx, g); err != nil {
		return err
	}
	follow := func() error {
		begun, err := d.adopt(ctx)
		for _, f := range begun {
			g.Go(func() error { return f.Run(ctx) })
		}
		return err
	}
	g.Go(func() error {
		err := d.trust.await(ctx)
		if err == nil {
			err = follow()
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		g.Go(func() error {
			return d.trust.run(ctx, func() error {
				raise(d.wakeVerifier)
				return errors.Join(follow(), d.store.Reexamine(ctx))
			})
		})
		for _, x := range d.indexes {
			g.Go(func() error { return x.scope.Run(ctx) })
			g.Go(func() error { return x.watcher.Run(ctx) })
		}
		g.Go(func() error { return d.finder.run(ctx, d.wakeFinder) })
		g.Go(func() error { return d.verifier.Run(ctx) })
		g.Go(func() error { return d.comparer.Run(ctx) })
		for _, p := range d.peers {
			g.Go(func() error { return p.run(ctx) })
		}
		g.Go(func() error { return d.judgeAlways(ctx) })
		g.Go(func() error { return d.courier.Run(ctx) })
		g.Go(func() error { return d.expire(ctx) })
		d.ready.Store(true)
		return nil
	})
	return g.Wait()
}

// judgeAlways judges whenever something has changed, and now and then in case a
// wake-up was lost or a judgement failed.
func (d *daemon) judgeAlways(ctx context.Context) error {
	for {
		raised, err := d.judge.Round(ctx)
		if err != nil && ctx.Err() == nil {
			d.log.ErrorContext(ctx, "cannot judge; will try again", "error", err)
		}
		if len(raised) > 0 {
			for _, w := range d.courier.Wake {
				raise(w)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.wakeJudge:
		case <-time.After(d.judgeEvery):
		}
	}
}
