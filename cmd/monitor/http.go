package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"sigtrail/api"
	"sigtrail/index"
)

// newRegistry holds the process's own metrics and what was built.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sigtrail_build_info", Help: "Always 1; the labels say what is running."}, []string{"version", "go"})
	build.WithLabelValues(version, goVersion()).Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return r
}

func goVersion() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		return b.GoVersion
	}
	return "unknown"
}

// listen serves metrics, health and answers until ctx ends:
//
//	/metrics  Prometheus
//	/healthz  200 while the process works and its database answers
//	/readyz   200 once the logs are known and being followed
//	/heads    the latest verified head of every log, for others to compare
//	/api/v1/  what is indexed (package api), by connections that cannot write
func (d *daemon) listen(ctx context.Context, g *errgroup.Group) error {
	if d.config.Listen == "" {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", d.config.Listen)
	if err != nil {
		return fmt.Errorf("listening for metrics: %w; choose another address with listen", err)
	}
	reading, err := index.OpenReadOnly(ctx, d.config.Database)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	d.address.Store(l.Addr().String())
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if _, _, err := d.store.PyPI().Serial(r.Context()); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if !d.ready.Load() {
			http.Error(w, "no trusted root yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /heads", d.serveHeads)
	mux.Handle(api.Root, api.NewHandler(api.Reader{Store: reading, Now: d.now}, d.log))
	s := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	d.log.InfoContext(ctx, "listening", "metrics", "http://"+l.Addr().String()+"/metrics")
	g.Go(func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if s.Shutdown(end) != nil {
			_ = s.Close() // whoever is still asking is no reason to say that the stop failed
		}
		return reading.Close()
	})
	return nil
}
