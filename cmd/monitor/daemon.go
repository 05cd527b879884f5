package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

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
//	watch     PyPI's journal, listings, provenance → store
//	find      entries for files, by look-up → store
//	judge     what is new in the store → pins, alerts, outbox
//	deliver   outbox → terminal, webhooks
type daemon struct {
	config   Config
	log      *slog.Logger
	registry *prometheus.Registry
	policy   *alerts.Policy
	sinks    []alerts.Sink

	trust *lateTrust
	store *index.Store

	followers []*monitor.Follower
	finder    *finder
	watcher   *pypi.Watcher
	judge     *alerts.Judge
	courier   *alerts.Courier

	wakeFinder, wakeJudge chan struct{}
	ready                 atomic.Bool
	address               atomic.Value // string: where metrics are served
}

// lateTrust is a trusted root that may come later: without a network the daemon
// starts all the same, and asks again.
type lateTrust struct{ root atomic.Pointer[rekor.Trust] }

var errNoTrust = errors.New("there is no trusted root yet")

// Chain and SET pass on to the trusted root.
func (t *lateTrust) Chain(cert *x509.Certificate, at time.Time) error {
	if r := t.root.Load(); r != nil {
		return r.Chain(cert, at)
	}
	return errNoTrust
}

func (t *lateTrust) SET(l monitor.Log, leaf monitor.Leaf) error {
	if r := t.root.Load(); r != nil {
		return r.SET(l, leaf)
	}
	return errNoTrust
}

// newDaemon opens what can be opened without a network.
func newDaemon(ctx context.Context, c Config, log *slog.Logger) (*daemon, error) {
	d := &daemon{config: c, log: log, registry: newRegistry(), trust: new(lateTrust),
		wakeFinder: make(chan struct{}, 1), wakeJudge: make(chan struct{}, 1)}
	var err error
	if d.policy, err = loadPolicy(c); err != nil {
		return nil, err
	}
	d.sinks = []alerts.Sink{alerts.Terminal{Log: log}}
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
	d.store, err = index.Open(ctx, c.Database, index.Options{Trust: d.trust, Registerer: d.registry, Log: log})
	return d, err
}

// loadPolicy reads the policy that a configuration names, if any.
func loadPolicy(c Config) (*alerts.Policy, error) {
	if c.Policy == "" {
		return nil, nil
	}
	p, err := alerts.LoadPolicy(c.Policy)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	return p, nil
}

// close releases the database.
func (d *daemon) close() error { return d.store.Close() }

// loadTrust reads the trusted root from its file or by TUF and keeps it.
func (d *daemon) loadTrust(ctx context.Context) (*rekor.Trust, error) {
	var trust *rekor.Trust
	var err error
	if d.config.TrustedRoot != "" {
		trust, err = rekor.LoadTrust(d.config.TrustedRoot)
	} else {
		o := rekor.TUFOptions{UserAgent: userAgent}
		if dir, err := os.UserCacheDir(); err == nil {
			o.CacheDir = filepath.Join(dir, "sigtrail", "tuf")
		}
		trust, err = rekor.FetchTrust(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range trust.Problems() {
		d.log.WarnContext(ctx, "part of the trusted root is left out", "why", p)
	}
	sum := sha256.Sum256(trust.RawJSON())
	return trust, d.store.SetSetting(ctx, "trusted_root:"+hex.EncodeToString(sum[:]), string(trust.RawJSON()))
}

// awaitTrust retries until there is a trusted root. With a file, what is wrong
// with it does not mend itself: that is an error.
func (d *daemon) awaitTrust(ctx context.Context) (*rekor.Trust, error) {
	for pause := 5 * time.Second; ; pause = min(2*pause, 5*time.Minute) {
		trust, err := d.loadTrust(ctx)
		if err == nil || d.config.TrustedRoot != "" || ctx.Err() != nil {
			return trust, err
		}
		d.log.ErrorContext(ctx, "no trusted root, so no log can be followed yet; will try again", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// wire makes the workers, now that it is known which logs there are.
func (d *daemon) wire(ctx context.Context, trust *rekor.Trust) error {
	d.trust.root.Store(trust)
	servers, err := d.servers(trust)
	if err != nil {
		return err
	}
	metrics := monitor.NewMetrics(d.registry, time.Now)
	keeper := &monitor.Keeper{Store: d.store, Log: d.log, Now: time.Now, Metrics: metrics, Patience: time.Second}
	var lookups []string
	for _, s := range servers {
		start, err := s.config.Start.Index()
		if err != nil {
			return fmt.Errorf("%w: log %q: %w", errConfig, s.config.Origin, err)
		}
		d.followers = append(d.followers, &monitor.Follower{Server: s.Server, Keeper: keeper, Store: d.store, Mode: s.config.Follow,
			Start: start, Batch: s.config.Batch, Interval: d.config.Interval.Value(), Log: d.log, Metrics: metrics, Changed: d.wakeAll})
		if s.v1 != nil && s.config.Follow != monitor.FollowHead {
			lookups = append(lookups, s.String())
		}
		d.log.InfoContext(ctx, "following", "server", s.String(), "origin", s.config.Origin, "api", s.config.API, "follow", s.config.Follow)
	}
	if err := d.store.SetLookupServers(ctx, lookups); err != nil {
		return err
	}
	d.finder = &finder{servers: servers, keeper: keeper, store: d.store, log: d.log, every: d.config.Interval.Value(),
		first: min(again[0], d.config.PyPI.Interval.Value()), changed: d.wakeJudgeNow}
	return d.wireRest()
}

func (d *daemon) wireRest() error {
	metrics := pypi.NewMetrics(d.registry)
	client, err := pypi.NewClient(pypi.Options{URL: d.config.PyPI.URL, UserAgent: userAgent, Rate: rate.Limit(d.config.PyPI.Rate), Metrics: metrics})
	if err != nil {
		return fmt.Errorf("%w: pypi: %w", errConfig, err)
	}
	var projects []string
	for _, p := range d.config.PyPI.Projects {
		projects = append(projects, pypi.Normalize(p))
	}
	d.watcher = &pypi.Watcher{Client: client, Store: d.store, Projects: projects, Interval: d.config.PyPI.Interval.Value(),
		Log: d.log, Metrics: metrics, Changed: d.wakeAll}
	judging := alerts.NewMetrics(d.registry)
	d.courier = &alerts.Courier{Outbox: d.store, Sinks: d.sinks, Log: d.log, Now: time.Now, Metrics: judging, Every: 5 * time.Second, Pause: 5 * time.Second}
	for range d.sinks {
		d.courier.Wake = append(d.courier.Wake, make(chan struct{}, 1))
	}
	d.judge = &alerts.Judge{Store: d.store, Policy: d.policy, Sinks: d.courier.Names(), Log: d.log, Now: time.Now, Metrics: judging}
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
	raise(d.wakeJudge)
}

// run works until ctx ends.
func (d *daemon) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := d.listen(ctx, g); err != nil {
		return err
	}
	g.Go(func() error {
		trust, err := d.awaitTrust(ctx)
		if err == nil {
			err = d.wire(ctx, trust)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, f := range d.followers {
			g.Go(func() error { return f.Run(ctx) })
		}
		g.Go(func() error { return d.watcher.Run(ctx) })
		g.Go(func() error { return d.finder.run(ctx, d.wakeFinder) })
		g.Go(func() error { return d.judgeAlways(ctx) })
		g.Go(func() error { return d.courier.Run(ctx) })
		d.ready.Store(true)
		return nil
	})
	return g.Wait()
}

// judgeAlways judges whenever something has changed, and now and then in case a
// wake-up was lost or a judgement failed.
func (d *daemon) judgeAlways(ctx context.Context) error {
	for {
		raised, err := d.judge.Once(ctx)
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
		case <-time.After(10 * time.Second):
		}
	}
}
