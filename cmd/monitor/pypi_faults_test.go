package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sigtrail/index"
	"sigtrail/internal/lab"
)

const simpleKind = "application/vnd.pypi.simple.v1+json"

// A sieve is a bubble in which two projects are watched: one whose answers are
// spoiled, and another that must not suffer from it.
type sieve struct {
	*bubble
	faults   *lab.Faults
	cache    *lab.Cache // in front of the index, behind the faults
	releases int
	alarms   bool // something is to be alerted on
}

const (
	spoiled = "sampleproject"
	steady  = "steady"
)

// throughFaults runs f once both projects are known and their publishers learned.
func throughFaults(t *testing.T, f func(*sieve)) {
	inBubble(t, byFile, func(b *bubble) {
		s := &sieve{bubble: b, faults: b.lab.PyPIFaults, cache: lab.NewCache(b.lab.PyPI)}
		b.net.Serve(lab.PyPIHost, s.faults.Wrap(s.cache))
		config := string(must(os.ReadFile(b.config)))
		b.write("sigtrail.yaml", strings.Replace(config, "projects: [SampleProject], interval: 1h", "projects: [SampleProject, steady], interval: 1m", 1))
		for _, p := range []string{spoiled, steady} {
			s.grow(p)
			s.grow(p)
		}
		b.start()
		b.until("both projects are read", func() bool { return s.present(spoiled) == 2 && s.present(steady) == 2 })
		b.pass(time.Hour)
		f(s)
		if n := len(b.got()); n != 0 && !s.alarms {
			t.Errorf("received %+v, want nothing", b.got())
		}
	})
}

// grow publishes another release of a project, attested as ever, and says which.
func (s *sieve) grow(project string) (version string) {
	s.Helper()
	s.releases++
	version = fmt.Sprintf("1.%d", s.releases)
	s.publish(project, version, sampleRepo)
	return version
}

// files are what is stored of a project.
func (s *sieve) files(project string) []index.File {
	s.Helper()
	return must(s.d.store.Files(s.Context(), index.Selection{Project: project}))
}

// states are what is stored of the provenance of a project's files, in their order.
func (s *sieve) states(project string) (states []index.ProvenanceState) {
	s.Helper()
	for _, f := range s.files(project) {
		states = append(states, s.state(f))
	}
	return states
}

func (s *sieve) state(f index.File) index.ProvenanceState {
	s.Helper()
	state, _, err := s.d.store.ProvenanceOf(s.Context(), f.ID)
	return must(state, err)
}

// journal is what is stored of PyPI's journal about the spoiled project.
func (s *sieve) journal() []index.JournalRow {
	s.Helper()
	return must(s.d.store.Journal(s.Context(), "", spoiled))
}

// present is how many files of a project are there, with their provenance.
func (s *sieve) present(project string) (n int) {
	for _, f := range s.files(project) { // read once: the daemon goes on between two readings
		if f.Gone.IsZero() && s.state(f) == index.ProvenancePresent {
			n++
		}
	}
	return n
}

// asked is how many requests of a kind had an outcome.
func (s *sieve) asked(call string, outcomes ...string) (n int) {
	s.Helper()
	for _, o := range outcomes {
		for line := range strings.Lines(s.metric("sigtrail_pypi_requests_total")) {
			if strings.Contains(line, `call="`+call+`"`) && strings.Contains(line, `outcome="`+o+`"`) {
				fields := strings.Fields(line)
				n += int(must(strconv.ParseFloat(fields[len(fields)-1], 64)))
			}
		}
	}
	return n
}

// A spoiledAnswer is what comes in place of an answer, and how that is counted.
type spoiledAnswer struct {
	name    string
	outcome string
	spoil   func(f *lab.Faults, path string)
}

func replaced(name, outcome, kind, body string) spoiledAnswer {
	return spoiledAnswer{name, outcome, func(f *lab.Faults, path string) { f.Answer(path, -1, http.StatusOK, kind, []byte(body)) }}
}

func withStatus(code int, retry, outcome string) spoiledAnswer {
	return spoiledAnswer{fmt.Sprint(code, " ", retry), outcome, func(f *lab.Faults, path string) { f.Status(path, -1, code, retry) }}
}

// anyAnswer is what may come in place of any answer.
var anyAnswer = []spoiledAnswer{
	{"HTML", "error", func(f *lab.Faults, path string) { f.HTML(path, -1) }},
	{"nothing", "error", func(f *lab.Faults, path string) { f.Cut(path, -1, 0) }},
	{"half", "error", func(f *lab.Faults, path string) { f.Cut(path, -1, 0.5) }},
	{"cut short", "error", func(f *lab.Faults, path string) {
		f.Edit(path, -1, func(b []byte) []byte { return b[:len(b)*2/3] })
	}},
	{"late", "error", func(f *lab.Faults, path string) { f.Drip(path, -1, 10*time.Second) }},
	replaced("empty", "error", simpleKind, ""),
	replaced("not text", "error", simpleKind, "\x00\xff\xfe\x80"),
	replaced("deep", "error", simpleKind, strings.Repeat(`{"a":[`, 200_000)),
	withStatus(http.StatusInternalServerError, "", "error"),
	withStatus(http.StatusBadGateway, "", "error"),
	withStatus(http.StatusServiceUnavailable, "120", "error"),
	withStatus(http.StatusTooManyRequests, "300", "limited"),
	withStatus(http.StatusForbidden, "", "refused"),
}

// A listing that cannot be believed changes nothing that is stored, holds up nobody
// else, and is counted. When it can be believed again, it is read.
func TestPyPISpoiledListing(t *testing.T) {
	with := func(name, files string) spoiledAnswer {
		return replaced(name, "error", simpleKind, `{"meta":{"api-version":"1.4","_last-serial":99999},"name":"sampleproject","versions":[],`+files+`}`)
	}
	answers := append([]spoiledAnswer{
		with("no files", `"x":0`),
		with("files null", `"files":null`),
		with("files an object", `"files":{}`),
		with("files twice", `"files":[],"files":[]`),
		with("status a list", `"files":[],"project-status":[]`),
		replaced("another project", "error", simpleKind, `{"meta":{"api-version":"1.4","_last-serial":99999},"name":"steady","versions":[],"files":[]}`),
		replaced("another version", "error", simpleKind, `{"meta":{"api-version":"2.0","_last-serial":99999},"name":"sampleproject","versions":[],"files":[]}`),
		replaced("a list", "error", simpleKind, `[]`),
		replaced("as HTML", "error", "text/html", `{"meta":{"api-version":"1.4","_last-serial":99999},"name":"sampleproject","versions":[],"files":[]}`),
		{"huge", "too_large", func(f *lab.Faults, path string) { f.Large(path, -1, 65<<20) }},
		{"bomb", "error", func(f *lab.Faults, path string) { f.Bomb(path, -1, 65<<20) }},
	}, anyAnswer...)
	throughFaults(t, func(s *sieve) {
		for _, a := range answers {
			s.listingSpoiled(a)
		}
	})
}

func (s *sieve) listingSpoiled(a spoiledAnswer) {
	s.Helper()
	before, counted, had := s.files(spoiled), s.asked("simple", a.outcome), s.present(steady)
	a.spoil(s.faults, "/simple/"+spoiled+"/")
	s.grow(spoiled)
	s.grow(steady)
	s.until(a.name+": the other project is read", func() bool { return s.present(steady) == had+1 })
	s.pass(10 * time.Minute)
	if n := s.asked("simple", a.outcome) - counted; n == 0 || n > 100 {
		s.Errorf("%s: %d requests counted as %s", a.name, n, a.outcome)
	}
	if after := s.files(spoiled); !slices.EqualFunc(before, after, sameFile) {
		s.Errorf("%s: stored %+v, had %+v", a.name, after, before)
	}
	s.faults.Clear()
	s.until(a.name+" has ended", func() bool { return s.present(spoiled) == len(before)+1 })
}

func sameFile(a, b index.File) bool { return a.ID == b.ID && a.Name == b.Name && a.Gone.Equal(b.Gone) }

// A provenance that cannot be believed is nothing that was lost or is invalid, and is
// fetched when it can be.
func TestPyPISpoiledProvenance(t *testing.T) {
	answers := append([]spoiledAnswer{
		replaced("an array", "ok", simpleKind, `[]`),
		replaced("members twice", "ok", simpleKind, `{"version":1,"version":1,"attestation_bundles":[]}`),
		replaced("wrong types", "ok", simpleKind, `{"version":1,"attestation_bundles":[7]}`),
		withStatus(http.StatusNotFound, "", "not_found"),
	}, anyAnswer...)
	for i, a := range answers {
		if slices.Contains([]string{"cut short", "empty", "not text", "deep"}, a.name) {
			answers[i].outcome = "ok" // a whole answer, kept and read later
		}
	}
	throughFaults(t, func(s *sieve) {
		for _, a := range answers {
			had, counted, others := s.present(spoiled), s.asked("provenance", a.outcome), s.present(steady)
			a.spoil(s.faults, "/integrity/"+spoiled+"/")
			s.grow(spoiled)
			s.grow(steady)
			s.until(a.name+": the other project is read", func() bool { return s.present(steady) == others+1 })
			s.pass(5 * time.Minute)
			if n := s.asked("provenance", a.outcome) - counted; n == 0 || n > 100 {
				s.Errorf("%s: %d requests counted as %s", a.name, n, a.outcome)
			}
			if last := s.states(spoiled); len(last) != had+1 || last[had] == index.ProvenancePresent || last[had] == index.ProvenanceAbsent {
				s.Errorf("%s: states of provenance %s", a.name, last)
			}
			s.faults.Clear()
			s.until(a.name+" has ended", func() bool { return s.present(spoiled) == had+1 })
		}
	})
}

// Without the journal, listings are read directly; when it is back, the rows that
// came meanwhile are read.
func TestPyPISpoiledJournal(t *testing.T) {
	serial := func(n string) string {
		return "<?xml version='1.0'?><methodResponse><params><param><value>" + n + "</value></param></params></methodResponse>"
	}
	answers := append([]spoiledAnswer{
		replaced("no serial", "error", "text/xml", serial("<string>x</string>")),
		replaced("negative", "error", "text/xml", serial("<int>-1</int>")),
		replaced("from before", "ok", "text/xml", serial("<int>5</int>")),
		replaced("fault", "error", "text/xml", "<?xml version='1.0'?><methodResponse><fault><value><struct><member><name>faultCode</name><value><int>-32500</int></value></member><member><name>faultString</name><value><string>RuntimeError: gone</string></value></member></struct></value></fault></methodResponse>"),
		replaced("an entity", "error", "text/xml", `<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><methodResponse>&b;</methodResponse>`),
	}, anyAnswer...)
	throughFaults(t, func(s *sieve) {
		for _, a := range answers {
			if a.name == "late" {
				continue // and yet it comes: the answer is short
			}
			s.journalSpoiled(a)
		}
		s.lab.PyPI.LimitCalls(1, time.Hour)
		had, counted := s.present(spoiled), s.asked("changelog_since_serial", "limited")+s.asked("changelog_last_serial", "limited")
		s.pass(10 * time.Minute)
		s.grow(spoiled)
		s.until("listings are read directly", func() bool { return s.present(spoiled) == had+1 })
		s.pass(time.Hour)
		if n := s.asked("changelog_since_serial", "limited") + s.asked("changelog_last_serial", "limited") - counted; n == 0 || n > 3 {
			s.Errorf("asked %d times beyond PyPI's limit", n)
		}
	})
}

func (s *sieve) journalSpoiled(a spoiledAnswer) {
	s.Helper()
	had, counted, rows := s.present(spoiled), s.asked("changelog_last_serial", a.outcome), len(s.journal())
	a.spoil(s.faults, "/pypi")
	s.grow(spoiled)
	s.until(a.name+": the project is read without the journal", func() bool { return s.present(spoiled) == had+1 })
	if s.asked("changelog_last_serial", a.outcome) == counted {
		s.Errorf("%s: not counted as %s", a.name, a.outcome)
	}
	if s.log.count("level=WARN", "journal") == 0 {
		s.Errorf("%s: not told", a.name)
	}
	s.faults.Clear()
	s.until(a.name+" has ended", func() bool { return len(s.journal()) > rows })
}

// PyPI is away for an hour. What was uploaded meanwhile is found.
func TestPyPIDownForAnHour(t *testing.T) {
	throughFaults(t, func(s *sieve) {
		had, asked := s.present(spoiled), s.asked("changelog_last_serial", "error")
		s.net.Remove(lab.PyPIHost)
		s.pass(30 * time.Minute)
		s.grow(spoiled)
		s.pass(30 * time.Minute)
		if n := s.asked("changelog_last_serial", "error") - asked; n == 0 || n > 120 {
			s.Errorf("asked for the journal %d times in the hour", n)
		}
		if s.log.count("level=WARN", "journal is unavailable") != 1 || s.log.count("level=WARN", "index answers nobody for now", "what=listings") == 0 || s.metric(`sigtrail_pypi_journal_up{index="pypi"}`) != "0" {
			s.Errorf("not told: the journal is up: %s", s.metric(`sigtrail_pypi_journal_up{index="pypi"}`))
		}
		if n := s.present(spoiled); n != had {
			s.Errorf("%d files are present while PyPI is away, there were %d", n, had)
		}
		s.net.Serve(lab.PyPIHost, s.faults.Wrap(s.cache))
		back := time.Now()
		s.until("what was uploaded meanwhile is found", func() bool { return s.present(spoiled) == had+1 })
		if took := time.Since(back); took > 15*time.Minute {
			s.Errorf("found %s after PyPI was back", took)
		}
		s.pass(10 * time.Minute)
		if s.log.count("level=INFO", "journal is available again") != 1 || s.log.count("level=INFO", "index answers again", "what=listings") == 0 || s.metric(`sigtrail_pypi_journal_up{index="pypi"}`) != "1" {
			s.Errorf("its end is not told: the journal is up: %s", s.metric(`sigtrail_pypi_journal_up{index="pypi"}`))
		}
	})
}

// Every answer takes half a minute, which is nothing wrong.
func TestPyPISlow(t *testing.T) {
	throughFaults(t, func(s *sieve) {
		had, failed := s.present(spoiled), s.asked("simple", "error")+s.asked("provenance", "error")
		s.faults.Latency(25 * time.Second)
		for range 5 {
			s.grow(spoiled)
			s.grow(steady)
			s.pass(5 * time.Minute)
		}
		s.until("all is read", func() bool { return s.present(spoiled) == had+5 && s.present(steady) == had+5 })
		if n := s.asked("simple", "error") + s.asked("provenance", "error") - failed; n != 0 {
			s.Errorf("%d errors", n)
		}
	})
}

// A provenance of ten megabytes is read; one beyond the bound is its own state, is
// not fetched again, and nothing that is alerted on.
func TestPyPILargeProvenance(t *testing.T) {
	throughFaults(t, func(s *sieve) {
		had := s.present(spoiled)
		pad := func(n int) func([]byte) []byte {
			return func(b []byte) []byte {
				return append(bytes.TrimSuffix(b, []byte("\n")), bytes.Repeat([]byte(" "), n)...)
			}
		}
		s.faults.Edit("/integrity/"+spoiled+"/", -1, pad(10<<20))
		s.grow(spoiled)
		s.until("ten megabytes are read", func() bool { return s.present(spoiled) == had+1 })
		s.faults.Clear()

		s.faults.Edit("/integrity/"+spoiled+"/", -1, pad(17<<20))
		s.grow(spoiled)
		s.until("what is too large is told", func() bool { return s.asked("provenance", "too_large") > 0 })
		s.pass(6 * time.Hour)
		if n := s.asked("provenance", "too_large"); n != 1 {
			s.Errorf("what is too large was fetched %d times", n)
		}
		if states := s.states(spoiled); states[len(states)-1] != index.ProvenanceUnreadable {
			s.Errorf("states of provenance %s", states)
		}
		s.faults.Clear()
		s.grow(spoiled)
		s.until("later releases are read", func() bool { return s.present(spoiled) == had+2 })
	})
}

// The caches hear of nothing for two hours: they show the list of before, and deny a
// project that has just been made. Nothing is gone, and then everything is there.
func TestPyPIStale(t *testing.T) {
	throughFaults(t, func(s *sieve) {
		had := s.present(spoiled)
		s.cache.Deaf(true)
		s.grow(spoiled)
		s.pass(2 * time.Hour)
		if got := s.metric(`sigtrail_pypi_listings_due{index="pypi",state="stale"}`); got != "1" {
			s.Errorf("stale listings: %s, want 1", got)
		}
		if s.log.count("level=WARN", "listing stays older than the journal", spoiled) != 1 {
			s.Error("not told")
		}
		if n := s.present(spoiled); n != had {
			s.Errorf("%d files are present while the caches are stale, there were %d", n, had)
		}
		s.cache.Deaf(false)
		s.until("the caches have heard", func() bool { return s.present(spoiled) == had+1 })
		if got := s.metric(`sigtrail_pypi_listings_due{index="pypi",state="stale"}`); got != "0" {
			s.Errorf("stale listings: %s, want none", got)
		}
	})
}

// A listing from before comes after a newer one, and changes nothing.
func TestPyPIReordered(t *testing.T) {
	throughFaults(t, func(s *sieve) {
		old := s.page(spoiled)
		s.grow(spoiled)
		s.until("the newer listing is read", func() bool { return s.present(spoiled) == 3 })
		s.faults.Answer("/simple/"+spoiled+"/", -1, http.StatusOK, simpleKind, old)
		s.grow(spoiled)
		s.pass(2 * time.Hour)
		if n := s.present(spoiled); n != 3 {
			s.Errorf("%d files are present after an old listing, want 3", n)
		}
		s.faults.Clear()
		s.until("the newest listing is read", func() bool { return s.present(spoiled) == 4 })
	})
}

// page is a project's page as PyPI has it now.
func (s *sieve) page(project string) []byte {
	s.Helper()
	req := must(http.NewRequestWithContext(s.Context(), http.MethodGet, "https://"+lab.PyPIHost+"/simple/"+project+"/", nil))
	req.Header.Set("Accept", simpleKind)
	resp := must(http.DefaultTransport.RoundTrip(req))
	defer resp.Body.Close()
	return must(io.ReadAll(resp.Body))
}

// A project is deleted after its listing has been read and before the provenance is
// asked for. That is no attestation that was lost.
func TestPyPIDeletedBetween(t *testing.T) {
	throughFaults(t, func(s *sieve) {
		var once sync.Once
		s.net.Serve(lab.PyPIHost, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/integrity/"+spoiled+"/") {
				once.Do(func() { s.lab.PyPI.RemoveProject(spoiled) })
			}
			s.cache.ServeHTTP(w, r)
		}))
		s.grow(spoiled)
		s.until("every file is gone", func() bool {
			files := s.files(spoiled)
			return len(files) == 3 && !slices.ContainsFunc(files, func(f index.File) bool { return f.Gone.IsZero() })
		})
		s.pass(24 * time.Hour)
		if states := s.states(spoiled); states[0] != index.ProvenancePresent || states[1] != index.ProvenancePresent {
			s.Errorf("states of provenance %s; what was fetched before has to stay", states)
		}
	})
}

// A name is deleted and registered by somebody else, between two looks. The files of
// before are gone and remembered, the new ones are nobody's continuation: what they
// are signed with, or that they are not, is alerted on.
func TestPyPIRegisteredAgain(t *testing.T) {
	for _, c := range []struct {
		name, rule string
		upload     func(*sieve)
	}{
		{"signed by another", "unexpected-signer", func(s *sieve) {
			evil := sampleRepo
			evil.Owner, evil.RepoID, evil.OwnerID = "evil", "666", "667"
			s.publish(spoiled, "9.0", evil)
		}},
		{"not signed", "provenance-lost", func(s *sieve) {
			name := spoiled + "-9.0.tar.gz"
			s.lab.PyPI.Upload(lab.Upload{Project: spoiled, Version: "9.0", Filename: name, SHA256: lab.Digest(name), Owner: "evil"})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			throughFaults(t, func(s *sieve) {
				s.alarms = true
				s.lab.PyPI.RemoveProject(spoiled)
				c.upload(s)
				s.until("it is alerted on", func() bool { return len(s.got()) > 0 })
				s.pass(24 * time.Hour)
				if a := s.only(c.rule); a.Project != spoiled || a.Version != "9.0" {
					t.Errorf("alert %s about %s %s", a.Rule, a.Project, a.Version)
				}
				files := s.files(spoiled)
				if len(files) != 3 || files[0].Gone.IsZero() || files[1].Gone.IsZero() || !files[2].Gone.IsZero() {
					t.Errorf("stored %+v, want two that are gone and one that is there", files)
				}
				var actions []string
				for _, r := range s.journal() {
					actions = append(actions, r.Action)
				}
				if !slices.Contains(actions, "remove project") || !slices.Contains(actions, "create") {
					t.Errorf("journal %q", actions)
				}
			})
		})
	}
}
