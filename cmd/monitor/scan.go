package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"sigtrail/index"
	"sigtrail/monitor"
)

// scanOptions are a scan as it was asked for.
type scanOptions struct {
	log      string
	from, to bound
	selector string
	rate     float64
	resume   bool
	asJSON   bool
}

func scanCommand(config *settings, stdout, stderr io.Writer) *cobra.Command {
	var o scanOptions
	var from, to string
	c := &cobra.Command{
		Use:   "scan LOG [--from INDEX|TIME] [--to INDEX|TIME] [--for SELECTOR]",
		Short: "Read a range of a log, prove and index it, and say what in it matches",
		Long: `scan reads the entries of one log from one index or time up to another, proves each
under a verified head, and indexes them as the daemon's tail does. It may run beside
the daemon, or without one. Interrupted in any way, the same command (or --resume)
goes on behind the last batch that it stored. Alerts on what it finds are raised by
the daemon.

LOG is an origin ("rekor.sigstore.dev - 1193050959916656506"), a tree id, a part of
either that only one log has, or the host of its read address.

INDEX is the number that Rekor's search and links use: for v1 it counts over all
shards. TIME is UTC unless it says otherwise: 2026-03-01, 2026-03-01T15:04,
2026-03-01T15:04:05+02:00. --to is the first entry that is not read. Without --from
the scan begins at the log's first entry, without --to it ends at its present head.

Times are found by bisection. v1: by integrated times that the log has signed, which
are not strictly in order (a minute either way is allowed for). v2, which has no
clock: by the validity of trusted certificates, and by heads that the daemon saw. The
range is widened by what is uncertain, and the answer says by how much.

SELECTOR says what to report:
  sampleproject                      a project: files in the database, else on PyPI
  sampleproject==4.0.0               a release
  sampleproject-4.0.0.tar.gz         a file
  0ace7980f82c5815ede4...            the SHA-256 of a file
  github.com/owner/repository        a repository, owner or workflow in certificates
  somebody@example.com               a person

A v1 server is asked no more often than its rate in the configuration (--rate for
less); a daemon beside it has a rate of its own. The public instance, at 5 requests
a second, gives at most 50 entries a second.

Exit codes: 0 done, 2 usage, 3 could not (network, disk, interrupted: run it again),
4 the log has contradicted itself.`,
		Example: `  monitor scan log2025-1.rekor.sigstore.dev --from 2026-03-01 --to 2026-03-02 --for sampleproject
  monitor scan rekor.sigstore.dev --from 1400000000 --to 1400050000 --for github.com/owner --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			o.log = args[0]
			if o.from, err = parseBound("from", from); err != nil {
				return &exit{exitUsage, err}
			}
			if o.to, err = parseBound("to", to); err != nil {
				return &exit{exitUsage, err}
			}
			if !(o.rate >= 0) {
				return &exit{exitUsage, fmt.Errorf("%w: --rate is negative", errUsage)}
			}
			if o.resume && (from != "" || to != "" || o.selector != "") {
				return &exit{exitUsage, fmt.Errorf("%w: --resume goes on with the last scan that is not finished as it was; leave out --from, --to and --for", errUsage)}
			}
			c, err := config.load()
			if err != nil {
				return &exit{exitUsage, err}
			}
			return scanFailed(runScan(cmd.Context(), c, o, stdout, stderr))
		},
	}
	c.Flags().StringVar(&from, "from", "", "first entry: an index or a time (default: the log's first)")
	c.Flags().StringVar(&to, "to", "", "first entry not read: an index or a time (default: the present head)")
	c.Flags().StringVar(&o.selector, "for", "", "what to report: project, project==version, file name, SHA-256 or identity")
	c.Flags().BoolVar(&o.resume, "resume", false, "go on with the log's last scan that is not finished")
	c.Flags().Float64Var(&o.rate, "rate", 0, "requests a second, at most (default: the log's in the configuration)")
	c.Flags().BoolVar(&o.asJSON, "json", false, "JSON (sigtrail.scan/1)")
	return c
}

// scanFailed maps an error to an exit code. Evidence against a log outranks all else.
func scanFailed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(*monitor.Contradiction)):
		return &exit{exitConvicts, err}
	case errors.Is(err, errUsage), errors.Is(err, errConfig):
		return &exit{exitUsage, err}
	}
	return &exit{exitCould, err}
}

// given is what makes two commands the same scan.
type given struct {
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	For  string `json:"for,omitempty"`
}

func runScan(ctx context.Context, c Config, o scanOptions, stdout, stderr io.Writer) (err error) {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	for i := range c.Logs {
		if c.Logs[i].Follow == followNone {
			c.Logs[i].Follow = monitor.FollowHead // what is not followed can be scanned
		}
	}
	d, err := openBeside(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if _, stale := d.trust.refresh(ctx); stale != nil {
		if d.trust.current() == nil || c.TrustedRoot != "" {
			return stale
		}
		log.WarnContext(ctx, "the trusted root cannot be refreshed; going on with the last one", "error", stale, "had", d.trust.had())
	}
	srv, served, err := d.findLog(ctx, o)
	if err != nil {
		return err
	}
	if _, err := d.keeper.Check(ctx, served, served.Note); err != nil {
		return err
	}
	scan, asked, err := d.recallScan(ctx, served.Log, o)
	if err != nil {
		return err
	}
	var q *quarry
	if asked.For != "" {
		if q, err = d.newQuarry(ctx, asked.For); err != nil {
			return err
		}
	}
	if scan.ID == 0 {
		if scan, err = d.newScan(ctx, served, o, scan); err != nil {
			return err
		}
	} else {
		log.InfoContext(ctx, "going on with a scan", "log", served.Log.Origin, "begun", scan.Started, "next", served.Log.Global(scan.Next))
	}
	store := &index.Scanning{Store: d.store, Scan: scan}
	if q != nil {
		store.Match = q.match
	}
	began := time.Now()
	progress := newScanProgress(stderr, log, served.Log, scan)
	err = (&monitor.Scan{Keeper: d.keeper, Store: store, Batch: srv.config.Batch, Log: log, Metrics: d.metrics, Pause: min(time.Second, d.config.Interval.Value()), Advanced: progress.advanced}).Run(ctx, served, scan.Range)
	progress.end()
	if err != nil {
		return d.stopped(ctx, served.Log, store.Scan, err)
	}
	r, err := d.scanReport(ctx, store.Scan, q, time.Since(began))
	if err != nil {
		return err
	}
	if o.asJSON {
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		return out.Encode(r)
	}
	return r.write(stdout)
}

// stopped says where a scan that ended early goes on.
func (d *daemon) stopped(ctx context.Context, l monitor.Log, c index.Scan, err error) error {
	at := "nothing was read"
	if c.ID != 0 {
		at = fmt.Sprintf("the same command, or --resume, goes on at entry %d", l.Global(c.Next))
	}
	switch {
	case errors.Is(err, monitor.ErrConflict):
		return fmt.Errorf("log %q: somebody else runs the same scan; wait for it to end: %w", l.Origin, err)
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted; %s", at)
	case errors.As(err, new(*monitor.Contradiction)):
		return err
	}
	return fmt.Errorf("%w; %s", err, at)
}

// recallScan finds the scan that is to be gone on with; without ID if there is none.
func (d *daemon) recallScan(ctx context.Context, l monitor.Log, o scanOptions) (index.Scan, given, error) {
	asked := given{o.from.text, o.to.text, o.selector}
	text, err := json.Marshal(asked)
	if err != nil {
		return index.Scan{}, asked, err
	}
	scans, err := d.store.Scans(ctx, l)
	if err != nil {
		return index.Scan{}, asked, err
	}
	for _, c := range scans {
		if c.Finished.IsZero() && (o.resume || c.Given == string(text)) {
			err := json.Unmarshal([]byte(c.Given), &asked)
			return c, asked, err
		}
	}
	if o.resume {
		return index.Scan{}, asked, fmt.Errorf("%w: no scan of log %q is unfinished", errUsage, l.Origin)
	}
	return index.Scan{Log: l, Given: string(text)}, asked, nil
}

// newScan works out the range.
func (d *daemon) newScan(ctx context.Context, s monitor.Served, o scanOptions, c index.Scan) (index.Scan, error) {
	head, _, err := d.store.Latest(ctx, s.Log)
	if err != nil {
		return c, err
	}
	c.Range = monitor.Range{From: 0, To: head.Size}
	for _, b := range []struct {
		bound
		into  *uint64
		place func(monitor.Place) uint64
	}{{o.from, &c.Range.From, func(p monitor.Place) uint64 { return p.Below }}, {o.to, &c.Range.To, func(p monitor.Place) uint64 { return p.Above }}} {
		switch {
		case b.open():
		case b.isIndex():
			if b.index < s.Log.FirstGlobal || b.index > s.Log.Global(head.Size) {
				return c, fmt.Errorf("%w: log %q holds the entries %d to %d; %d is none of them", errUsage, s.Log.Origin, s.Log.FirstGlobal, s.Log.Global(head.Size)-1, b.index)
			}
			*b.into = b.index - s.Log.FirstGlobal
		default:
			d.log.InfoContext(ctx, "looking for a time in the log", "log", s.Log.Origin, "time", b.at)
			p, err := d.locator(s.Log).Locate(ctx, s, head, b.at)
			if err != nil {
				return c, err
			}
			*b.into = b.place(p)
			c.Bounds += p.Of(s.Log) + "\n"
			d.log.InfoContext(ctx, p.Of(s.Log), "log", s.Log.Origin)
		}
	}
	if c.Range.From > c.Range.To {
		return c, fmt.Errorf("%w: --from %s is behind --to %s", errUsage, o.from.text, o.to.text)
	}
	return c, nil
}

// integratedSlack is by how much an entry's integrated time may be off, or out of
// order: v1 takes it from the clock of whichever server adds the entry.
const integratedSlack = time.Minute

// locator reads the clock that each generation of logs has: the time that v1 signs
// for each entry, and in v2 the validity of a trusted certificate. Nobody can use a
// certificate before it is issued; after its end nobody should.
func (d *daemon) locator(l monitor.Log) *monitor.Locator {
	w := &monitor.Locator{Keeper: d.keeper, Heads: d.store.HeadsAround}
	if l.API == monitor.V1 {
		w.Clock = func(leaf monitor.Leaf) (from, to time.Time, ok bool) {
			at := time.Unix(leaf.IntegratedTime, 0)
			return at.Add(-integratedSlack), at.Add(integratedSlack), len(leaf.SET) > 0 && d.trust.SET(l, leaf) == nil
		}
		return w
	}
	w.Prove = true
	w.Clock = func(leaf monitor.Leaf) (from, to time.Time, ok bool) {
		e, err := index.Decode(leaf.Data)
		if err != nil || e.Cert == nil {
			return from, to, false
		}
		s, err := index.ParseSigner(e.Cert)
		if err != nil {
			return from, to, false
		}
		cert, err := x509.ParseCertificate(e.Cert)
		return s.NotBefore, s.NotAfter, err == nil && d.trust.Chain(cert, s.NotBefore) == nil
	}
	return w
}
