package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/timeline"
)

// signedInV2 signs a file and logs it where everything is read.
func (b *bubble) signedInV2(name string, id lab.Identity) lab.Signed {
	b.Helper()
	s := must(b.lab.CA.SignPublish(id, name, lab.Digest(name), time.Now()))
	b.lab.V2.Log(s)
	return s
}

// candidates are the lines about candidates in the timeline of the project.
func (b *bubble) candidates() (lines []string) {
	b.Helper()
	var out bytes.Buffer
	if _, err := timeline.Write(b.Context(), &out, b.d.store, "sampleproject", timeline.Options{}); err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "candidate") {
			lines = append(lines, line)
		}
	}
	return lines
}

// What was signed and never published (a failed run, an upload to TestPyPI) is a
// candidate until it is forgotten, and alarms nobody.
func TestNeverPublished(t *testing.T) {
	inBubble(t, byFile+"retention: {unbound: 24h}\n", func(b *bubble) {
		b.start()
		b.pass(time.Hour)
		b.release("1.0", sampleRepo)
		b.pass(3 * time.Hour)
		b.signedInV2("sampleproject-1.1.tar.gz", sampleRepo)
		stranger := sampleRepo
		stranger.Owner, stranger.RepoID = "stranger", "77"
		b.signedInV2("stranger-1.0.tar.gz", stranger)
		b.pass(time.Hour)
		if got := b.candidates(); len(got) != 1 || !strings.Contains(got[0], "over no known file") {
			b.Fatalf("candidates: %q", got)
		}
		if got := b.metric("sigtrail_unbound "); got != "2" {
			b.Errorf("unbound: %q", got)
		}
		b.pass(22 * time.Hour)
		if got := b.candidates(); len(got) != 1 {
			b.Errorf("candidates before the end of the retention: %q", got)
		}
		b.pass(3 * time.Hour)
		if got := b.candidates(); len(got) != 0 {
			b.Errorf("candidates after the retention: %q", got)
		}
		if got := b.metric("sigtrail_unbound_expired_total"); got != "2" {
			b.Errorf("%q leaves forgotten, want 2", got)
		}
		if got := b.got(); len(got) != 0 {
			b.Errorf("alerts: %+v", got)
		}
	})
}

// A candidate whose file appears, days after it was signed, is bound on the
// statement, and no candidate any more.
func TestCandidateIsPublished(t *testing.T) {
	inBubble(t, byFile, func(b *bubble) {
		b.start()
		b.pass(time.Hour)
		b.release("1.0", sampleRepo)
		b.pass(3 * time.Hour)
		s := b.signedInV2("sampleproject-1.1.tar.gz", sampleRepo)
		b.pass(2 * 24 * time.Hour)
		if got := b.candidates(); len(got) != 1 {
			b.Fatalf("candidates: %q", got)
		}
		b.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "1.1", Filename: s.Filename, SHA256: s.SHA256})
		b.pass(3 * time.Hour)
		if got := b.candidates(); len(got) != 0 {
			b.Errorf("candidates after the upload: %q", got)
		}
		files := must(b.d.store.Files(b.Context(), index.Selection{Filename: s.Filename}))
		if len(files) != 1 {
			b.Fatalf("%d files", len(files))
		}
		bound := must(b.d.store.Signatures(b.Context(), files[0].ID))
		if len(bound) != 1 || bound[0][0].Evidence != index.ByStatement || bound[0][0].Signature != "" || bound[0][0].Form != "P1/pae" {
			b.Errorf("bound: %+v", bound)
		}
	})
}
