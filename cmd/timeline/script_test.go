package main

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/sumdb/note"

	"sigtrail/index"
	"sigtrail/internal/lab"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"timeline": func() { os.Exit(Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

const (
	sdist  = "sampleproject-4.0.0.tar.gz"
	wheel  = "sampleproject-4.0.0-py3-none-any.whl"
	hidden = "sampleproject-4.1.0.tar.gz"
)

func TestScripts(t *testing.T) {
	db := makeDatabase(t)
	digest := lab.Digest(sdist)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SHA256", hex.EncodeToString(digest[:]))
			b, err := os.ReadFile(db)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "sigtrail.db"), b, 0o600)
		},
	})
}

// makeDatabase holds two releases signed by the project, of which one file was
// signed by a person too, and an alert about that.
func makeDatabase(t *testing.T) string {
	t.Helper()
	clock := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l, err := lab.New(lab.Options{Clock: func() time.Time { return clock }})
	check(t, err)
	trust, err := rekor.ParseTrust(l.TrustedRootJSON())
	check(t, err)
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	s, err := index.Open(t.Context(), path, index.Options{Trust: trust})
	check(t, err)

	repo := lab.GitHub{Owner: "pypa", Repo: "sampleproject"}
	signers := []struct {
		file string
		id   lab.Identity
	}{{sdist, repo}, {wheel, repo}, {hidden, repo}, {sdist, lab.Email{Address: "me\x1b[31m@example.org"}}}
	listing := index.Listing{Project: "sampleproject", Serial: 7, Fetched: clock}
	var proven []monitor.Proven
	for i, x := range signers {
		signed, err := l.CA.SignPublish(x.id, x.file, lab.Digest(x.file), clock)
		check(t, err)
		clock = clock.Add(time.Minute)
		e, err := l.V1.Log(signed)
		check(t, err)
		proven = append(proven, prove(t, trust, e))
		if i < 3 {
			version := strings.Split(strings.TrimSuffix(x.file, ".tar.gz"), "-")[1]
			listing.Files = append(listing.Files, index.File{Version: version, Name: x.file, SHA256: signed.SHA256, Uploaded: clock.Add(5 * time.Second), URL: "https://files.example/" + x.file})
		}
	}
	_, err = s.PyPI().SaveListing(t.Context(), listing)
	check(t, err)
	for _, p := range proven {
		check(t, s.CommitFound(t.Context(), p, 0))
	}
	check(t, s.PyPI().SaveJournal(t.Context(), []index.JournalRow{{Serial: 9, Project: "sampleproject", Name: "sampleproject", At: clock, Action: "add Owner mallory"}}, 9))
	reason, version := "broken\x1b[31m", "4.0.0"
	listing.Files[0].Yanked, listing.Serial, listing.Fetched = &reason, 10, clock.Add(time.Minute)
	_, err = s.PyPI().SaveListing(t.Context(), listing)
	check(t, err)
	check(t, s.PyPI().SaveJournal(t.Context(), []index.JournalRow{{Serial: 10, Project: "sampleproject", Name: "sampleproject", Version: &version, At: clock, Action: "yank release"}}, 10))
	raise(t, s)
	check(t, s.Close())
	return path
}

// raise puts an alert on the person's signature.
func raise(t *testing.T, s *index.Store) {
	t.Helper()
	cases, err := s.Cases(t.Context(), func(string) bool { return true }, 100, 100)
	check(t, err)
	for _, c := range cases {
		v := index.Verdict{}
		if len(c.Bindings) > 0 && c.Bindings[0].Entry.Signer.SANType == "email" {
			v.Alerts = []index.Alert{{ID: "sa_1", Rule: "unexpected-signer", Severity: "critical", Project: c.File.Project, Version: c.File.Version, Raised: time.Now(), Body: []byte(`{"title":"signed by somebody else"}`)}}
		}
		if len(c.Bindings) > 0 && c.Bindings[0].Entry.Leaf.Index == 0 {
			v.Pins = []index.Pin{{Project: c.File.Project, Publisher: c.Bindings[0].Entry.Signer.Publisher(), State: index.PinApproved, How: "by hand", Made: time.Now()}}
		}
		_, err := s.Decide(t.Context(), c, v)
		check(t, err)
	}
}

func prove(t *testing.T, trust *rekor.Trust, e lab.Entry) monitor.Proven {
	t.Helper()
	l := monitor.Log{Origin: strings.SplitN(e.Checkpoint, "\n", 2)[0], KeyID: e.KeyID, API: monitor.V1, URL: "https://rekor.lab.test", TreeID: 1}
	head, err := monitor.ParseHead([]byte(e.Checkpoint), l.Origin, nil)
	for _, k := range trust.Tlogs() {
		if k.KeyID == l.KeyID {
			head, err = monitor.ParseHead([]byte(e.Checkpoint), l.Origin, []note.Verifier{k.Verifier})
		}
	}
	check(t, err)
	head.Seen = time.Now()
	p := monitor.Proven{Log: l, Head: head, Leaf: monitor.Leaf{Index: e.Index, Data: e.Body, IntegratedTime: e.IntegratedTime, SET: e.SET}, Hash: monitor.HashLeaf(e.Body)}
	for _, h := range e.Hashes {
		p.Proof = append(p.Proof, monitor.Hash(h))
	}
	check(t, monitor.VerifyInclusion(e.Index, p.Hash, head, p.Proof))
	return p
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
