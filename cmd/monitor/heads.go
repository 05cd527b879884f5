package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sigtrail/index"
	"sigtrail/monitor"
)

// serveHeads answers GET /heads: the largest verified head of every log, as signed
// notes with all cosignatures that are known. JSON of the form
//
//	{"heads": [{"origin": "…", "size": 1, "root": "hex", "seen": "RFC 3339", "note": "…"}]}
//
// With ?origin= it is the one log's note as it is, or 404.
func (d *daemon) serveHeads(w http.ResponseWriter, r *http.Request) {
	latest, err := d.store.LatestHeads(r.Context())
	if err != nil {
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	type head struct {
		Origin string    `json:"origin"`
		Size   uint64    `json:"size"`
		Root   string    `json:"root"`
		Seen   time.Time `json:"seen"`
		Note   string    `json:"note"`
	}
	heads := []head{}
	for _, h := range latest {
		heads = append(heads, head{h.Origin, h.Size, h.Root.String(), h.Seen.UTC(), cosignedNote(h)})
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !r.URL.Query().Has("origin") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string][]head{"heads": heads})
		return
	}
	for _, h := range heads {
		if h.Origin == r.URL.Query().Get("origin") {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, h.Note)
			return
		}
	}
	http.Error(w, "no head of that origin is known", http.StatusNotFound)
}

// cosignedNote is the note as the log served it, and the cosignatures that were
// seen under the same text at other times.
func cosignedNote(h monitor.Head) string {
	note := string(h.Note)
	for _, c := range h.Cosigned {
		if !strings.Contains(note, "\n"+c.Line+"\n") && len(note)+len(c.Line) < monitor.MaxNote {
			note += c.Line + "\n"
		}
	}
	return note
}

// maxHeadsAnswer bounds, in bytes, what another monitor or a file may show.
const maxHeadsAnswer = 16 << 20

var headsClient = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(req *http.Request, via []*http.Request) error {
	if len(via) > 3 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		return errors.New("redirected to another server")
	}
	return nil
}}

// fetchHeads reads the heads that an address shows.
func fetchHeads(ctx context.Context, u *url.URL) ([][]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("not an address that can be asked")
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := headsClient.Do(req)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // without the address, which may hold a password
		}
		return nil, fmt.Errorf("asking %s for heads: %w", redact(u.String()), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking %s for heads: status %d", redact(u.String()), resp.StatusCode)
	}
	return readHeads(resp.Body, redact(u.String()))
}

func readHeads(r io.Reader, name string) ([][]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxHeadsAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("reading heads from %s: %w", name, err)
	}
	if len(text) > maxHeadsAnswer {
		return nil, fmt.Errorf("%s is longer than %d bytes; give only the heads", name, maxHeadsAnswer)
	}
	heads := monitor.FindHeads(text)
	if len(heads) == 0 {
		return nil, fmt.Errorf("%s holds no signed head (a checkpoint, or JSON with checkpoints in it)", name)
	}
	return heads, nil
}

// A peer is another sigtrail, whose heads are queued to be compared with ours.
type peer struct {
	url   *url.URL
	store *index.Store
	log   *slog.Logger
	every time.Duration
}

func newPeer(address string, store *index.Store, log *slog.Logger, every time.Duration) (*peer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("%w: monitors: not an address", errConfig)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/heads"
	}
	return &peer{url: u, store: store, log: log, every: every}, nil
}

// once queues the heads that the peer shows now.
func (p *peer) once(ctx context.Context) error {
	notes, err := fetchHeads(ctx, p.url)
	if err != nil {
		return err
	}
	return p.store.Show(ctx, shownBy("monitor "+p.url.Host, notes))
}

func shownBy(source string, notes [][]byte) []monitor.Shown {
	var heads []monitor.Shown
	for _, n := range notes {
		heads = append(heads, monitor.Shown{Note: n, Source: source, Seen: time.Now()})
	}
	return heads
}

// run asks the peer until ctx ends.
func (p *peer) run(ctx context.Context) error {
	last := ""
	for {
		err := p.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			last = ""
		} else if err.Error() != last {
			last = err.Error()
			p.log.WarnContext(ctx, "cannot compare heads with another monitor; will try again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(p.every):
		}
	}
}
