package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

// A trustKeeper holds the trusted root and keeps it fresh. A root that cannot be
// had again goes on being used: what it named yesterday it names today.
type trustKeeper struct {
	config Config
	store  *index.Store
	log    *slog.Logger
	now    func() time.Time

	mu      sync.RWMutex
	root    *rekor.Trust // newest; nil: none yet
	keys    []rekor.Tlog // of every root, each as the newest that has it says
	success time.Time    // when it was last had from its source
	failed  error        // of the last try; nil: it went well
}

const (
	trustEvery    = 24 * time.Hour     // between refreshes by TUF
	trustRetry    = time.Hour          // after one that failed
	trustFileLook = time.Minute        // between looks at a file
	trustWarn     = 3 * 24 * time.Hour // without a refresh: a warning
	trustAlarm    = 7 * 24 * time.Hour // without a refresh: an error; TUF's timestamp lives as long
)

var errNoTrust = errors.New("there is no trusted root yet")

// Chain and SET pass on to the trusted root; until there is one, nothing holds.
func (t *trustKeeper) Chain(cert *x509.Certificate, at time.Time) error {
	if r := t.current(); r != nil {
		return r.Chain(cert, at)
	}
	return errNoTrust
}

func (t *trustKeeper) SET(l monitor.Log, leaf monitor.Leaf) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return rekor.VerifySET(t.keys, l, leaf)
}

func (t *trustKeeper) current() *rekor.Trust {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.root
}

// tlogs are the log keys of every root that was ever used, and those that the
// configuration names. A log that a new root leaves out goes on being followed.
func (t *trustKeeper) tlogs() []rekor.Tlog {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.keys)
}

// recall takes up the roots that earlier runs kept.
func (t *trustKeeper) recall(ctx context.Context) error {
	kept, err := t.store.TrustedRoots(ctx)
	if err != nil {
		return err
	}
	for _, k := range kept {
		if k.Source != t.source() { // what another configuration trusted is nothing to this one
			continue
		}
		r, err := rekor.ParseTrust([]byte(k.Body))
		if err != nil {
			t.log.WarnContext(ctx, "a kept trusted root cannot be read any more", "sha256", k.SHA256, "error", err)
			continue
		}
		t.adopt(r, k.LastSeen)
	}
	return nil
}

// adopt makes a root the current one and adds its log keys.
func (t *trustKeeper) adopt(r *rekor.Trust, at time.Time) {
	for _, l := range r.Tlogs() {
		t.vouch(l)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root, t.success = r, at
}

// vouch adds a log key.
func (t *trustKeeper) vouch(l rekor.Tlog) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, k := range t.keys {
		if k.API == l.API && k.Host == l.Host && k.KeyID == l.KeyID {
			t.keys[i] = l
			return
		}
	}
	t.keys = append(t.keys, l)
}

func (t *trustKeeper) source() string {
	switch {
	case t.config.TrustedRoot != "":
		return "file " + t.config.TrustedRoot
	case t.config.TUF.URL != "":
		return "TUF " + redact(t.config.TUF.URL)
	}
	return "TUF"
}

// refresh has the root from its source and keeps it. changed: it is another one than
// before.
func (t *trustKeeper) refresh(ctx context.Context) (changed bool, err error) {
	defer func() {
		t.mu.Lock()
		t.failed = err
		t.mu.Unlock()
	}()
	r, err := t.fetch(ctx)
	if err != nil {
		return false, err
	}
	before := t.current()
	changed = before == nil || string(before.RawJSON()) != string(r.RawJSON())
	if changed {
		for _, p := range r.Problems() {
			t.log.WarnContext(ctx, "part of the trusted root is left out", "why", p)
		}
		t.log.InfoContext(ctx, "trusted root", "source", t.source(), "logs", len(r.Tlogs()), "new", before != nil)
	}
	if v2 := r.SignsV2(); len(v2) > 0 && (before == nil || len(before.SignsV2()) == 0) {
		t.log.WarnContext(ctx, "the default signing configuration names v2 logs: what is signed by default moves there from v1", "logs", v2)
	}
	t.adopt(r, t.now())
	return changed, t.store.SaveTrustedRoot(ctx, r.RawJSON(), t.source(), t.now())
}

func (t *trustKeeper) fetch(ctx context.Context) (*rekor.Trust, error) {
	if t.config.TrustedRoot != "" {
		return rekor.LoadTrust(t.config.TrustedRoot)
	}
	o := rekor.TUFOptions{UserAgent: userAgent, Repository: t.config.TUF.URL}
	if t.config.TUF.Root != "" {
		anchor, err := os.ReadFile(t.config.TUF.Root)
		if err != nil {
			return nil, fmt.Errorf("%w: tuf root: %w", errConfig, err)
		}
		o.Root = anchor
	}
	o.CacheDir = cacheDir()
	return rekor.FetchTrust(ctx, o)
}

// cacheDir is where TUF metadata is kept between runs; "" if nothing can be written
// there, as for a service without a home.
func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	dir = filepath.Join(dir, "sigtrail", "tuf")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ""
	}
	f, err := os.CreateTemp(dir, ".writable")
	if err != nil {
		return ""
	}
	f.Close()
	os.Remove(f.Name())
	return dir
}

// await retries until there is a root, if need be the one that an earlier run kept.
// What is wrong with a file does not mend itself: that is an error.
func (t *trustKeeper) await(ctx context.Context) error {
	last := ""
	for pause := 5 * time.Second; ; pause = min(2*pause, 5*time.Minute) {
		_, err := t.refresh(ctx)
		if err == nil || t.config.TrustedRoot != "" || errors.Is(err, errConfig) || ctx.Err() != nil {
			return err
		}
		if t.current() != nil {
			t.log.WarnContext(ctx, "the trusted root cannot be refreshed; going on with the last one", "error", err, "had", t.had())
			return nil
		}
		if err.Error() != last {
			last = err.Error()
			t.log.ErrorContext(ctx, "no trusted root, so no log can be followed yet; will try again", "error", err, "pause", pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (t *trustKeeper) had() time.Time {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.success
}

// run refreshes until ctx ends and calls changed after each root that is another,
// again and again until it has succeeded.
func (t *trustKeeper) run(ctx context.Context, changed func() error) error {
	var told time.Time
	pending := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(t.pause(pending)):
		}
		if t.config.TrustedRoot != "" && !pending && !t.due() {
			continue
		}
		different, err := t.refresh(ctx)
		if err != nil && ctx.Err() == nil && t.now().Sub(told) >= trustRetry {
			told = t.now()
			t.log.Log(ctx, staleLevel(t.now().Sub(t.had())), "the trusted root cannot be refreshed; going on with the last one", "error", err, "had", t.had())
		}
		if pending = pending || different; !pending {
			continue
		}
		if err := changed(); err == nil {
			pending = false
		} else if ctx.Err() == nil {
			t.log.ErrorContext(ctx, "cannot follow all that the new trusted root names; will try again", "error", err, "pause", t.pause(pending))
		}
	}
}

func (t *trustKeeper) pause(pending bool) time.Duration {
	t.mu.RLock()
	defer t.mu.RUnlock()
	switch {
	case t.config.TrustedRoot != "":
		return min(trustFileLook, max(t.config.Interval.Value(), 100*time.Millisecond))
	case t.failed != nil || pending:
		return trustRetry
	}
	return trustEvery
}

// staleLevel is how loudly to speak of a root that was last refreshed so long ago.
func staleLevel(age time.Duration) slog.Level {
	switch {
	case age > trustAlarm:
		return slog.LevelError
	case age > trustWarn:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// due reports whether the file is another than the root, or a day has passed since
// it was last kept that it is not.
func (t *trustKeeper) due() bool {
	b, err := os.ReadFile(t.config.TrustedRoot)
	r := t.current()
	return err != nil || r == nil || string(b) != string(r.RawJSON()) || t.now().Sub(t.had()) >= trustEvery
}

var trustAgeDesc = prometheus.NewDesc("sigtrail_trusted_root_age_seconds", "Seconds since the trusted root was last had from its source.", nil, nil)

var signsV2Desc = prometheus.NewDesc("sigtrail_default_v2_logs", "v2 logs that Sigstore's default signing configuration names.", nil, nil)

// Describe and Collect make the age true at the moment of the scrape.
func (t *trustKeeper) Describe(ch chan<- *prometheus.Desc) {
	ch <- trustAgeDesc
	ch <- signsV2Desc
}

func (t *trustKeeper) Collect(ch chan<- prometheus.Metric) {
	at := t.had()
	if at.IsZero() {
		return
	}
	ch <- prometheus.MustNewConstMetric(trustAgeDesc, prometheus.GaugeValue, t.now().Sub(at).Seconds())
	if r := t.current(); r != nil {
		ch <- prometheus.MustNewConstMetric(signsV2Desc, prometheus.GaugeValue, float64(len(r.SignsV2())))
	}
}
