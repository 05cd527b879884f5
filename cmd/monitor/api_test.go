package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"sigtrail/api"
	"sigtrail/index"
	"sigtrail/internal/lab"
)

// A served daemon is asked over HTTP. Every answer is held to the schema that the
// document it serves has for it.
type served struct {
	*world
	base     string
	paths    map[string]any
	compiler *jsonschema.Compiler

	mu    sync.Mutex
	asked map[string]bool // paths of the document that were answered
}

// serve runs the daemon until the test ends.
func (w *world) serve() *served {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	d := must(newDaemon(ctx, must(loadConfig(w.config)), quiet(w.T)))
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, d.close()); err != nil {
			w.Error(err)
		}
	})
	w.wait("the daemon is ready", d.ready.Load)
	s := &served{world: w, base: "http://" + d.address.Load().(string) + api.Root, compiler: jsonschema.NewCompiler(), asked: make(map[string]bool)}
	resp := must(http.Get(s.base + "openapi.json"))
	defer resp.Body.Close()
	doc := must(jsonschema.UnmarshalJSON(resp.Body))
	s.paths = doc.(map[string]any)["paths"].(map[string]any)
	s.compiler.DefaultDraft(jsonschema.Draft2020)
	s.compiler.AssertFormat()
	if err := s.compiler.AddResource("http://document", doc); err != nil {
		w.Fatal(err)
	}
	s.asked[api.Root+"openapi.json"] = true
	return s
}

// wait waits for something that the daemon does in its own time.
func (w *world) wait(what string, so func() bool) {
	w.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not yet: %s", what)
		}
	}
}

// ask gets an address below the root and checks the form of the answer.
func (s *served) ask(address string) (status int, body []byte) {
	s.Helper()
	resp, err := http.Get(s.base + address)
	if err != nil {
		s.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		s.Error(err)
	}
	if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		s.Errorf("%s: headers %v", address, resp.Header)
	}
	pointer := "/components/schemas/Problem"
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode == http.StatusOK {
		path := s.match(address)
		s.mu.Lock()
		s.asked[path] = true
		s.mu.Unlock()
		pointer = "/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/get/responses/200/content/" + strings.ReplaceAll(kind, "/", "~1") + "/schema"
	} else if kind != "application/problem+json" {
		s.Errorf("%s: %d with %s", address, resp.StatusCode, kind)
	}
	s.mu.Lock()
	schema, err := s.compiler.Compile("http://document#" + (&url.URL{Path: pointer}).EscapedPath())
	s.mu.Unlock()
	if err != nil {
		s.Errorf("%s: %v", address, err)
		return 0, nil
	}
	if err := schema.Validate(must(jsonschema.UnmarshalJSON(bytes.NewReader(body)))); err != nil {
		s.Errorf("%s: %v\n%s", address, err, body)
	}
	return resp.StatusCode, body
}

// match finds the path of the document that an address is of.
func (s *served) match(address string) string {
	s.Helper()
	path, _, _ := strings.Cut(api.Root+address, "?")
	have := strings.Split(path, "/")
	for template := range s.paths {
		if want := strings.Split(template, "/"); slices.EqualFunc(want, have, func(w, h string) bool { return w == h || strings.HasPrefix(w, "{") && h != "" }) {
			return template
		}
	}
	s.Errorf("%s is answered, and no path of the document", address)
	return ""
}

// get asks for something that is there.
func get[T any](s *served, address string) (v T) {
	s.Helper()
	status, body := s.ask(address)
	if status != http.StatusOK {
		s.Fatalf("%s: %d %s", address, status, body)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		s.Fatalf("%s: %v", address, err)
	}
	return v
}

// command runs monitor on the same database.
func (w *world) command(want int, args ...string) (stdout, stderr string) {
	w.Helper()
	var out, errs bytes.Buffer
	if code := Main(w.Context(), append([]string{"--config", w.config}, args...), &out, &errs); code != want {
		w.Fatalf("monitor %s: exit code %d, want %d: %s", args, code, want, &errs)
	}
	return out.String(), errs.String()
}

// What an incident leaves behind is told alike by the API and by the commands: the
// project's own releases, one by a stranger, one without provenance, one that was
// removed.
func TestAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "follow: lookup")
	w.once(exitFine) // from here on the journal is read
	first := w.release("1.0", sampleRepo)
	w.release("1.1", sampleRepo)
	w.once(exitFine)
	w.once(exitFine)
	stranger := sampleRepo
	stranger.Owner, stranger.RepoID = "evil", "666"
	w.release("1.2", stranger)
	w.lab.PyPI.Upload(lab.Upload{Project: "SampleProject", Version: "1.3", Filename: "sampleproject-1.3.tar.gz", SHA256: lab.Digest("x")})
	w.lab.PyPI.Yank("SampleProject", "1.1", "broken")
	s := w.serve()
	settled := func(releases int) func() bool {
		return func() bool {
			p := get[api.ProjectDetail](s, "projects/SampleProject").Project
			return p.Releases == releases && p.Unjudged == 0 && p.Missing == (api.Missing{})
		}
	}
	w.wait("four releases are settled", settled(4))
	w.lab.PyPI.RemoveRelease("SampleProject", "1.2")
	w.wait("the removal is seen", func() bool {
		return get[api.Releases](s, "projects/sampleproject/releases?limit=2").Releases[1].Removed
	})

	var states []string
	detail := get[api.ProjectDetail](s, "projects/SAMPLEproject")
	for _, r := range detail.Releases {
		states = append(states, r.Version+" "+stateText(r))
	}
	if want := []string{"1.3 none, lost", "1.2 full, changed, removed", "1.1 full", "1.0 full"}; !slices.Equal(states, want) {
		t.Errorf("releases %q, want %q", states, want)
	}
	p := detail.Project
	if p.Files != 3 || p.Gone != 1 || p.Publishers != 2 || p.Alerts != 2 || p.Pins["learned"] != 1 || len(detail.Publishers) != 2 || len(detail.Pins) != 1 || len(detail.Roles) == 0 || detail.Releases[2].Yanked != 1 {
		t.Errorf("project %+v", detail)
	}
	if len(detail.Extent.Logs) != 2 || detail.Extent.Logs[0].How == detail.Extent.Logs[1].How {
		t.Errorf("coverage %+v, want one log that is read and one that is looked up", detail.Extent)
	}

	sum := hex.EncodeToString(first.SHA256[:])
	file := get[api.FileDetail](s, "files/"+sum)
	if len(file.Files) != 1 || file.Files[0].Provenance.State != "present" || len(file.Entries) != 2 || len(file.Files[0].Leaves) != 1 || file.Files[0].Leaves[0].Presence != index.LeafInLog || len(file.Files[0].Lookups) != 1 {
		t.Errorf("file %+v", file)
	}
	if status, body := s.ask("files/" + sum + "/provenance?index=pypi&filename=sampleproject-1.0.tar.gz"); status != http.StatusOK || !bytes.Contains(body, []byte("attestation_bundles")) {
		t.Errorf("provenance: %d %s", status, body)
	}
	e := file.Entries[0]
	at := get[api.Entries](s, fmt.Sprintf("entries?log=%s&number=%d", url.QueryEscape(e.Origin), e.Index)).Entries
	byLeaf := get[api.Entries](s, "entries?hash="+e.LeafHash).Entries
	if len(at) == 0 || at[0].LeafHash != e.LeafHash || len(byLeaf) != 1 || !e.Trusted || e.Run == "" || len(e.Files) == 0 || e.Files[0].Signature != "verified" || e.Issued == nil {
		t.Errorf("entry %+v, at its place %+v, by its hash %+v", e, at, byLeaf)
	}
	publishers := get[api.Publishers](s, "publishers?selector=PYPA").Publishers
	if len(publishers) != 1 || publishers[0].Projects != 1 || !slices.Equal(publishers[0].Names, []string{"sampleproject"}) || len(publishers[0].Spans) != 2 || publishers[0].Entries != 4 {
		t.Fatalf("publishers %+v", publishers)
	}
	for _, selector := range []string{"666", "sampleproject", "token.actions"} {
		if n := len(get[api.Publishers](s, "publishers?selector="+selector).Publishers); n == 0 {
			t.Errorf("no publisher is found by %q", selector)
		}
	}
	id := publishers[0].ID
	if got := get[api.PublisherDetail](s, "publishers/"+id).Publisher; got.Entries != publishers[0].Entries {
		t.Errorf("publisher %+v, in the list %+v", got, publishers[0])
	}
	if n := len(get[api.Entries](s, "entries?publisher="+id).Entries); n != publishers[0].Entries {
		t.Errorf("%d entries of a publisher that has %d", n, publishers[0].Entries)
	}
	rules := []string{}
	for _, a := range get[api.Alerts](s, "alerts?project=sampleproject").Alerts {
		rules = append(rules, a.Rule)
	}
	slices.Sort(rules)
	if !slices.Equal(rules, []string{"provenance-lost", "unexpected-signer"}) {
		t.Errorf("alerts %q", rules)
	}
	if c := get[api.Coverage](s, "coverage"); len(c.Logs) != 2 || len(c.Lookups) != 1 || c.Logs[0].Covered == 0 || len(c.Indexes) != 1 || c.Indexes[0].Serial == nil {
		t.Errorf("coverage %+v", c)
	}
	s.paged()
	s.alike()
	for path := range s.paths {
		if !s.asked[path] {
			t.Errorf("%s is in the document and was not answered", path)
		}
	}
}

// paged reads lists in pages of one, which together are the list.
func (s *served) paged() {
	s.Helper()
	for _, list := range []string{"projects?", "projects/sampleproject/releases?", "projects/sampleproject/files?", "entries?project=sampleproject&", "publishers?", "alerts?"} {
		path, _, _ := strings.Cut(list, "?")
		member := path[strings.LastIndexByte(path, '/')+1:]
		whole := get[map[string]any](s, list)
		var parts []any
		for next := ""; ; {
			page := get[map[string]any](s, list+"limit=1&after="+next)
			rows := page[member].([]any)
			parts = append(parts, rows...)
			more, ok := page["next"].(string)
			if !ok {
				break
			}
			if len(rows) != 1 || more == next {
				s.Fatalf("%s: a page of %d, then %q", list, len(rows), more)
			}
			next = more
		}
		want, got := must(json.Marshal(whole[member])), must(json.Marshal(parts))
		if len(parts) == 0 || !bytes.Equal(want, got) {
			s.Errorf("%s: in pages %s, whole %s", list, got, want)
		}
	}
}

// alike holds the commands to the API.
func (s *served) alike() {
	s.Helper()
	for address, args := range map[string][]string{
		"projects":                       {"projects", "--json"},
		"projects?index=pypi":            {"projects", "--json", "--index", "pypi"},
		"projects/sampleproject?limit=2": {"projects", "SampleProject", "--json", "--limit", "2"},
		"publishers?selector=evil":       {"publishers", "evil", "--json"},
	} {
		_, body := s.ask(address)
		if out, _ := s.command(exitFine, args...); out != string(body) {
			s.Errorf("%s: the command says\n%s\nthe API\n%s", address, out, body)
		}
	}
	out, _ := s.command(exitFine, "projects", "sampleproject")
	for _, want := range []string{"none, lost", "full, changed, removed", "github.com/evil/sampleproject", "learned", "add Owner maintainer", "1 yanked"} {
		if !strings.Contains(out, want) {
			s.Errorf("monitor projects sampleproject does not say %q:\n%s", want, out)
		}
	}
	fits(s.T, out)
	out, _ = s.command(exitFine, "projects")
	fits(s.T, out)
	out, _ = s.command(exitFine, "publishers")
	fits(s.T, out)
	if _, errs := s.command(exitCould, "projects", "samplprojekt"); !strings.Contains(errs, "not watched; did you mean sampleproject?") {
		s.Errorf("a misspelt name: %s", errs)
	}
	s.command(exitUsage, "projects", "no name")
	s.command(exitUsage, "projects", "--limit", "0")
	s.command(exitUsage, "publishers", "--after", "x")
}

// fits checks text for people.
func fits(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 100 || strings.Contains(line, "\x1b") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}
