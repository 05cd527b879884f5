package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"sigtrail/index"
	"sigtrail/monitor"
)

// A scanReport says what was read and what in it matches (sigtrail.scan/1). Indexes
// count as in Rekor's links: for v1 over all shards.
type scanReport struct {
	Schema  string      `json:"schema"`
	Log     string      `json:"log"`
	API     monitor.API `json:"api"`
	From    uint64      `json:"from"` // first entry
	To      uint64      `json:"to"`   // first entry not read
	Bounds  []string    `json:"bounds,omitempty"`
	Begun   time.Time   `json:"begun"`
	Seconds float64     `json:"seconds"` // of this run
	For     string      `json:"for,omitempty"`
	Note    string      `json:"note,omitempty"`  // what could not be recognised
	Found   uint64      `json:"found"`           // entries that match; those listed are the first of them
	Finds   []scanFind  `json:"finds,omitempty"` // all proven
}

type scanFind struct {
	Index  uint64     `json:"index"`
	Leaf   string     `json:"leaf_hash"`
	Kind   string     `json:"kind"`
	Digest string     `json:"digest,omitempty"`
	Time   *time.Time `json:"time,omitempty"`
	Clock  string     `json:"clock,omitempty"` // of time: "log" is signed by the log, "certificate" when that was issued
	About  []concern  `json:"about,omitempty"`
	Signer string     `json:"signer,omitempty"` // absent: no certificate that can be read
	SAN    string     `json:"san,omitempty"`
	Run    string     `json:"run,omitempty"`
	Trust  string     `json:"untrusted,omitempty"` // why the certificate is not to be believed; absent: it leads to the trusted root
}

func (d *daemon) scanReport(ctx context.Context, c index.Scan, q *quarry, took time.Duration) (scanReport, error) {
	r := scanReport{Schema: "sigtrail.scan/1", Log: c.Log.Origin, API: c.Log.API, From: c.Log.Global(c.Range.From), To: c.Log.Global(c.Range.To),
		Begun: c.Started.UTC(), Seconds: took.Seconds(), Found: c.Found}
	if c.Bounds != "" {
		r.Bounds = strings.Split(strings.TrimSpace(c.Bounds), "\n")
	}
	if q == nil {
		return r, nil
	}
	r.For, r.Note = q.text, q.note
	err := d.store.Finds(ctx, c, func(s index.Stored) error {
		r.Finds = append(r.Finds, newFind(s, q))
		return nil
	})
	return r, err
}

func newFind(s index.Stored, q *quarry) scanFind {
	f := scanFind{Index: s.Log.Global(s.Leaf.Index), Leaf: s.Hash.String(), Kind: s.Entry.Kind, Digest: hex.EncodeToString(s.Entry.Digest),
		About: q.concerns(s), Trust: s.Trust}
	if s.Signer != nil {
		f.Signer, f.SAN, f.Run = s.Signer.Publisher().String(), s.Signer.SAN, s.Signer.Get(index.ExtRunInvocationURI)
		at := s.Signer.NotBefore.UTC()
		f.Time, f.Clock = &at, "certificate"
	}
	if s.SETValid {
		at := time.Unix(s.Leaf.IntegratedTime, 0).UTC()
		f.Time, f.Clock = &at, "log"
	}
	return f
}

// write is the report for people. Whatever comes from the log is escaped.
func (r scanReport) write(w io.Writer) error {
	out := &strings.Builder{}
	what := fmt.Sprintf("%s: %d entries proven and indexed", r.Log, r.To-r.From)
	if r.To > r.From {
		what += fmt.Sprintf(", %d to %d", r.From, r.To-1)
	}
	wrapped(out, "", what)
	for _, b := range r.Bounds {
		wrapped(out, "  ", b)
	}
	if r.For == "" {
		_, err := io.WriteString(w, out.String())
		return err
	}
	wrapped(out, "", fmt.Sprintf("%s: %d of them match", r.For, r.Found))
	if r.Note != "" {
		wrapped(out, "  ", r.Note)
	}
	if len(r.Finds) > 0 {
		fmt.Fprintln(out)
		fmt.Fprintf(out, "%-12s  %-19s  %s\n", "ENTRY", "TIME (UTC)", "CLOCK")
		for _, f := range r.Finds {
			fmt.Fprintf(out, "%-12d  %-19s  %s\n", f.Index, f.time(), f.Clock)
			wrapped(out, "    about   ", f.about())
			wrapped(out, "    signer  ", f.signedBy())
		}
	}
	if n := uint64(len(r.Finds)); n < r.Found {
		fmt.Fprintf(out, "and %d more, which were not kept\n", r.Found-n)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (f scanFind) time() string {
	if f.Time == nil {
		return "-"
	}
	return f.Time.Format("2006-01-02 15:04:05")
}

func (f scanFind) about() string {
	if len(f.About) == 0 {
		return f.Kind + " over " + f.Digest
	}
	var texts []string
	for _, c := range f.About {
		text := c.File
		if text == "" {
			text = "SHA-256 " + c.SHA256
		}
		text += " (" + c.Evidence
		if c.Signature != "" {
			text += ", but: " + c.Signature
		}
		texts = append(texts, text+")")
	}
	return strings.Join(texts, ", ")
}

func (f scanFind) signedBy() string {
	switch {
	case f.Signer == "":
		return f.Trust
	case f.Trust != "":
		return "claims to be " + f.Signer + ", but: " + f.Trust
	}
	return f.Signer
}
