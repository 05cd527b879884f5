package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sigtrail/alerts"
	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/monitor"
	"sigtrail/timeline"
)

func demoCommand(stdout io.Writer) *cobra.Command {
	var hold bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Play a compromise against an embedded log, CA and PyPI, and show what is said",
		Long: `demo starts a v1 log, a v2 log, a certificate authority and a PyPI on loopback, runs
the real daemon against them with a database of its own, and plays a compromise
modelled on that of ultralytics in December 2024. No network, no configuration.

Exit codes: 0 fine, 3 it did not go as it should.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failed(playDemo(cmd.Context(), stdout, hold))
		},
	}
	c.Flags().BoolVar(&hold, "hold", false, "keep running at the end, and print where its metrics, API and database are")
	return c
}

// playDemo runs the daemon against a lab and plays the incident.
func playDemo(ctx context.Context, out io.Writer, hold bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "sigtrail-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p := newPlay(out)
	if p.lab, err = lab.Start(ctx, lab.Options{Clock: p.clock}); err != nil {
		return err
	}
	defer p.lab.Close()
	p.history()
	if p.err != nil {
		return p.err
	}
	config, err := demoConfig(p.lab, dir)
	if err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(dir, "monitor.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	d, err := newDaemon(ctx, config, slog.New(slog.NewTextHandler(logFile, nil)), p)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	p.incident(ctx, d, done)
	if p.err == nil {
		p.say("", "")
		p.say(bold, "> What a responder sees: timeline %s==%s", project, foreign)
		p.say("", "")
		_, p.err = timeline.Write(ctx, out, d.store, project+"=="+foreign, timeline.Options{Color: p.color, Width: 100})
	}
	if p.err == nil && hold {
		p.hold(ctx, d)
	}
	cancel()
	if err := <-done; p.err == nil {
		p.err = err
	}
	if err := d.close(); p.err == nil {
		p.err = err
	}
	return p.err
}

// demoConfig is the configuration of a daemon that follows the lab as it would
// follow the public logs, only faster.
func demoConfig(l *lab.Lab, dir string) (Config, error) {
	a, err := l.Config(dir)
	if err != nil {
		return Config{}, err
	}
	c := defaultConfig()
	c.Database = filepath.Join(dir, "sigtrail.db")
	c.Listen = "127.0.0.1:0"
	c.TrustedRoot = a.TrustedRoot
	c.Interval = "200ms"
	c.PyPI = PyPIConfig{URL: a.PyPI, Projects: []string{project}, Interval: "200ms"}
	c.Logs = []LogConfig{
		{API: monitor.V1, Origin: a.V1Host, URL: a.V1, Follow: monitor.FollowLookup},
		{API: monitor.V2, Origin: a.V2Origin, URL: a.V2, Follow: monitor.FollowTail, Start: "0"},
	}
	return c, nil
}

// The releases of the play.
const (
	project  = "ultralytics"
	poisoned = "8.3.41" // through the project's own workflow
	foreign  = "8.3.42" // signed from another repository
	byToken  = "8.3.45" // uploaded with an API token
)

// A play is the scripted incident; it is the receiver of the alerts too.
type play struct {
	out    io.Writer
	color  bool
	lab    *lab.Lab
	past   time.Duration // how far the lab's clock is behind while history is made
	alerts chan alerts.Alert
	err    error
}

func newPlay(out io.Writer) *play {
	return &play{out: out, alerts: make(chan alerts.Alert, 16), color: wantsColor(out)}
}

func (p *play) clock() time.Time { return time.Now().Add(-p.past) }

// Name and Deliver make the play a sink.
func (p *play) Name() string { return "demo" }

func (p *play) Deliver(ctx context.Context, stored index.Alert) error {
	var a alerts.Alert
	if err := json.Unmarshal(stored.Body, &a); err != nil {
		return err
	}
	select {
	case p.alerts <- a:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// say prints a step of the play, in 100 columns.
func (p *play) say(colour, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	text = strings.Join(timeline.Wrap(indent+"  ", text, 100), "\n")[2:] // what goes on is indented a little more
	if p.color && colour != "" {
		text = colour + text + "\x1b[0m"
	}
	fmt.Fprintf(p.out, "%s\n", text)
}

const (
	bold = "\x1b[1m"
	red  = "\x1b[31m"
)

// history makes four attested releases over the last forty days.
func (p *play) history() {
	p.say(bold, "sigtrail demo: a compromise like that of ultralytics in December 2024")
	p.say("", "A v1 log, a v2 log, a certificate authority and a PyPI run on loopback. Nothing leaves this machine.")
	for i, version := range []string{"8.3.37", "8.3.38", "8.3.39", "8.3.40"} {
		p.past = time.Duration(40-i*10) * 24 * time.Hour
		p.publish(version, p.expected(version), true)
	}
	p.past = 0
	p.say("", "The project has 4 attested releases, all signed by its own publish.yml.")
}

// expected is the project's own release job.
func (p *play) expected(version string) lab.GitHub {
	return lab.GitHub{Owner: "ultralytics", Repo: "ultralytics", RepoID: "687420318", OwnerID: "26833451", Workflow: "publish.yml",
		Ref: "refs/heads/main", Event: "push", SHA: sum40(version), RunID: "12168072999", Environment: "pypi"}
}

func sum40(text string) string { return fmt.Sprintf("%040x", []byte(text)) }

// publish signs both files of a release, logs them and uploads them; attested
// says whether PyPI takes the attestation.
func (p *play) publish(version string, id lab.GitHub, attested bool) {
	for _, name := range []string{project + "-" + version + ".tar.gz", project + "-" + version + "-py3-none-any.whl"} {
		if p.err != nil {
			return
		}
		u := lab.Upload{Project: project, Version: version, Filename: name, SHA256: lab.Digest(name), Size: 1 << 20}
		if attested {
			var s lab.Signed
			var e lab.Entry
			if s, p.err = p.lab.CA.SignPublish(id, name, u.SHA256, p.clock()); p.err != nil {
				return
			}
			if e, p.err = p.lab.V1.Log(s); p.err != nil {
				return
			}
			u.Provenance = lab.Provenance(id.Publisher(), s, e)
			if version == foreign { // this signer logs to both logs
				p.lab.V2.Log(s)
			}
		}
		p.lab.PyPI.Upload(u)
	}
}

// incident plays the compromise step by step, each once the daemon has seen the
// one before.
func (p *play) incident(ctx context.Context, d *daemon, done <-chan error) {
	p.step(ctx, d, done, "The monitor reads the history, proves every entry and learns who signs for the project.", 8, 0)
	p.publish(poisoned, p.expected(poisoned), true)
	p.step(ctx, d, done, poisoned+" appears. Its build was poisoned, but the project's own workflow signed it: who signed tells nothing here, so no alert. It is on record all the same.", 10, 0)
	other := p.expected(foreign)
	other.Owner, other.RepoID, other.OwnerID, other.Repo = "openimbot", "899001122", "190001234", "ultralytics"
	p.publish(foreign, other, true)
	p.step(ctx, d, done, foreign+" appears, signed from another repository of the same name.", 12, 1)
	p.publish(byToken, lab.GitHub{}, false)
	p.step(ctx, d, done, byToken+" appears, uploaded with a leaked API token: no attestation at all.", 14, 1)
}

// step waits until the daemon has judged so many files, and prints the alerts.
func (p *play) step(ctx context.Context, d *daemon, done <-chan error, text string, files, expect int) {
	if p.err != nil {
		return
	}
	p.say(bold, "")
	p.say(bold, "> %s", text)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for waiting := true; waiting; {
		select {
		case a := <-p.alerts:
			p.alert(a)
			expect--
		case err := <-done:
			p.err = fmt.Errorf("the daemon stopped: %w", err)
			return
		case <-ctx.Done():
			p.err = fmt.Errorf("waiting for the daemon to judge %d files: %w", files, ctx.Err())
			return
		case <-time.After(100 * time.Millisecond):
		}
		progress, err := d.store.Progress(ctx)
		if err != nil {
			p.err = err
			return
		}
		waiting = expect > 0 || progress.Files < files || progress.Waiting > 0
	}
}

func (p *play) alert(a alerts.Alert) {
	p.say(red, "  ALERT %s (%s): %s", a.Rule, a.Severity, alerts.Escape(a.Title))
	p.say("", "        %s", alerts.Escape(a.Reason))
	for _, e := range a.Expected {
		p.say("", "        expected: %s", alerts.Escape(e))
	}
	if a.Log != nil && a.Log.Global != nil {
		p.say("", "        entry %d of %s", *a.Log.Global, a.Log.Origin)
		p.say("", "        %s", a.Log.Link)
	}
	p.say("", "        next: %s", a.Next)
}

// hold keeps everything running until the user has seen enough.
func (p *play) hold(ctx context.Context, d *daemon) {
	p.say("", "")
	p.say(bold, "Still running. Ctrl-C ends it and removes the database.")
	fmt.Fprintf(p.out, "  metrics    http://%[1]s/metrics\n  API        http://%[1]s/api/v1/projects\n  database   %[2]s\n", d.address.Load(), d.config.Database)
	fmt.Fprintf(p.out, "  try        export SIGTRAIL_DATABASE=%s\n             go run ./cmd/timeline %[2]s\n             go run ./cmd/monitor projects %[2]s\n", d.config.Database, project)
	<-ctx.Done()
}
