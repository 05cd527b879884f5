package alerts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
)

const goodPolicy = `# who may sign what
projects:
  Sample_Project:
    publishers:
      - {repository: github.com/pypa/sampleproject, repository_id: "123", owner_id: 456, workflow: release.yml, environment: pypi}
      - {email: someone@example.org, issuer: "https://accounts.google.com"}
      - repository: https://gitlab.com/group/sub/project/
        workflow: ci/.gitlab-ci.yml
    attestations: required
  other: {attestations: optional}
  ruamel.yaml:
`

func TestPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	check(t, os.WriteFile(path, []byte(goodPolicy), 0o600))
	got, err := LoadPolicy(path)
	check(t, err)
	want := &Policy{Projects: map[string]ProjectPolicy{
		"sample-project": {Attestations: AttestationsRequired, Publishers: []Expected{
			{Issuer: "https://token.actions.githubusercontent.com", Repository: "https://github.com/pypa/sampleproject", RepositoryID: "123", OwnerID: "456", Workflow: "release.yml", Environment: "pypi"},
			{Issuer: "https://accounts.google.com", Email: "someone@example.org"},
			{Issuer: "https://gitlab.com", Repository: "https://gitlab.com/group/sub/project", Workflow: "ci/.gitlab-ci.yml"},
		}},
		"other":       {Attestations: AttestationsOptional},
		"ruamel-yaml": {},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for project, covered := range map[string]bool{"sample-project": true, "other": false, "ruamel-yaml": false, "absent": false} {
		if got.Covers(project) != covered {
			t.Errorf("Covers(%q) is not %v", project, covered)
		}
	}
	if (*Policy)(nil).Covers("p") {
		t.Error("no policy covers a project")
	}
	if _, err := LoadPolicy(filepath.Join(t.TempDir(), "absent")); err == nil || !strings.HasPrefix(err.Error(), "reading the policy: ") {
		t.Errorf("absent file: %v", err)
	}
	check(t, os.WriteFile(path, make([]byte, maxPolicy+1), 0o600))
	if _, err := LoadPolicy(path); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("huge file: %v", err)
	}
}

func TestEmptyPolicy(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "projects:\n", "{}"} {
		p, err := parsePolicy("policy.yaml", []byte(text))
		if err != nil || len(p.Projects) != 0 {
			t.Errorf("%q: %+v %v", text, p, err)
		}
	}
}

func TestPolicyAnchors(t *testing.T) {
	p := policy(t, "projects:\n  a:\n    publishers: &ours\n      - {repository: github.com/o/r}\n  b:\n    publishers: *ours\n")
	if !p.Covers("a") || !p.Covers("b") {
		t.Errorf("%+v", p)
	}
}

// Each refusal names the place and what is wrong there.
func TestPolicyRefusals(t *testing.T) {
	publisher := func(fields string) string {
		return "projects:\n  p:\n    publishers:\n      - {" + fields + "}\n"
	}
	for name, c := range map[string]struct{ text, want string }{
		"unknown key at the top":     {"project:\n  p: {}\n", `1:1: unknown field "project"`},
		"unknown key of a project":   {"projects:\n  p:\n    publisher: []\n", `3:5: unknown field "publisher"`},
		"unknown key of a publisher": {publisher("repo: github.com/o/r"), `4:10: unknown field "repo"`},
		"not YAML":                   {"projects: [", `1:11: sequence end token ']' not found`},
		"a list for a map":           {"projects: []\n", `1:11: `},
		"a text for a list":          {"projects:\n  p:\n    publishers: all\n", `3:17: `},
		"a list for a text":          {publisher("repository: [a]"), `4:22: `},
		"two documents":              {"projects: {}\n---\nprojects: {}\n", `2:1: a second document`},
		"the same project twice":     {"projects:\n  p: {}\n  p: {}\n", `3:3: mapping key "p" already defined`},
		"two spellings":              {"projects:\n  a-b: {}\n  A.B: {}\n", `2:3: project "a-b" stands there twice`},
		"no name":                    {"projects:\n  p: {}\n  \"a b\": {}\n", `3:3: "a b" is no name of a project`},
		"an unknown index":           {"projects:\n  p: {}\n  other/p: {}\n", `3:3: "other/p": no index of the configuration is named "other"`},
		"PyPI by its name":           {"projects:\n  pypi/p: {}\n", `2:3: "pypi/p": projects on PyPI itself are written without the index: p`},
		"no name on an index":        {"projects:\n  \"testpypi/\": {}\n", `2:3: "testpypi/" is no name of a project`},
		"a path for a name":          {"projects:\n  testpypi/a/b: {}\n", `2:3: "testpypi/a/b" is no name of a project`},
		"attestations":               {"projects:\n  p:\n    attestations: always\n", `3:5: attestations is "always"; it must be required or optional`},
		"no publishers":              {"projects:\n  p:\n    publishers: []\n", `3:5: publishers is empty`},
		"an empty publisher":         {publisher(""), `4:9: a publisher needs`},
		"an issuer alone":            {publisher("issuer: 'https://gitlab.com'"), `4:9: a publisher needs`},
		"an id without issuer":       {publisher("repository_id: 1"), `4:9: an issuer is needed`},
		"a host without issuer":      {publisher("repository: git.example.org/o/r"), `4:9: an issuer is needed`},
		"no host":                    {publisher("repository: pypa/sampleproject"), `4:10: repository is "pypa/sampleproject"`},
		"no repository":              {publisher("repository: github.com/pypa"), `4:10: repository is`},
		"plain http":                 {publisher("repository: 'http://github.com/o/r'"), `4:10: repository is`},
		"a secret in the address":    {publisher("repository: 'https://u:p@github.com/o/r'"), `4:10: repository is`},
		"an id that is none":         {publisher("repository: github.com/o/r, repository_id: 1e5"), `4:38: repository_id is`},
		"an owner id that is none":   {publisher("repository: github.com/o/r, owner_id: o"), `4:38: owner_id is "o"`},
		"a workflow with its ref":    {publisher("repository: github.com/o/r, workflow: a.yml@main"), `4:38: workflow is`},
		"an issuer that is none":     {publisher("repository: github.com/o/r, issuer: github"), `4:38: issuer is "github"`},
		"no e-mail":                  {publisher("email: someone"), `4:10: email is "someone"`},
		"both identities":            {publisher("repository: github.com/o/r, email: a@b"), `4:38: an identity by email`},
		"in block style": {"projects:\n  p:\n    publishers:\n      - repository: github.com/o/r\n      - repository: github.com/o/r\n        owner_id: me\n",
			`6:9: owner_id is "me"`},
		"an empty one in block style": {"projects:\n  p:\n    publishers:\n      - workflow: a.yml\n        environment: b\n", `4:9: a publisher needs`},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := parsePolicy("policy.yaml", []byte(c.text))
			if err == nil {
				t.Fatalf("accepted: %+v", p)
			}
			if !strings.HasPrefix(err.Error(), "policy.yaml:"+c.want) {
				t.Errorf("got  %s\nwant policy.yaml:%s", err, c.want)
			}
		})
	}
}

// A project on another index has a policy of its own.
func TestPolicyOfAnotherIndex(t *testing.T) {
	p, err := parsePolicy("policy.yaml", []byte("projects:\n  TestPyPI: {attestations: optional}\n  testpypi/A.B:\n    publishers: [{repository: github.com/o/r}]\n"), "mirror", "testpypi")
	if err != nil {
		t.Fatal(err)
	}
	if p.Covers("a-b") || !p.Covers(index.Qualified("testpypi", "a-b")) || p.project("testpypi").Attestations != AttestationsOptional {
		t.Errorf("%+v", p)
	}
}

func TestMatches(t *testing.T) {
	github := index.Publisher{Issuer: "https://token.actions.githubusercontent.com", Repository: "https://github.com/PyPA/sampleproject", RepositoryID: "1",
		Owner: "https://github.com/PyPA", OwnerID: "2", Workflow: ".github/workflows/release.yml", Environment: "pypi"}
	mail := index.Publisher{Issuer: "https://accounts.google.com", Identity: "Someone@example.org"}
	for _, c := range []struct {
		expected Expected
		seen     index.Publisher
		want     bool
	}{
		{Expected{}, github, true},
		{Expected{Repository: "https://github.com/pypa/sampleproject"}, github, true},
		{Expected{Repository: "https://github.com/pypa/other"}, github, false},
		{Expected{Issuer: github.Issuer}, github, true},
		{Expected{Issuer: github.Issuer + "/enterprise"}, github, false},
		{Expected{RepositoryID: "1", OwnerID: "2"}, github, true},
		{Expected{RepositoryID: "3"}, github, false},
		{Expected{OwnerID: "3"}, github, false},
		{Expected{Workflow: "release.yml"}, github, true},
		{Expected{Workflow: ".github/workflows/release.yml"}, github, true},
		{Expected{Workflow: "workflows/release.yml"}, github, false},
		{Expected{Workflow: "test.yml"}, github, false},
		{Expected{Workflow: "release.yml"}, index.Publisher{Workflow: "https://github.com/evil/r/.github/workflows/release.yml"}, false},
		{Expected{Workflow: ".gitlab-ci.yml"}, index.Publisher{Workflow: ".gitlab-ci.yml"}, true},
		{Expected{Workflow: ".gitlab-ci.yml"}, index.Publisher{Workflow: "x/.gitlab-ci.yml"}, false},
		{Expected{Environment: "pypi"}, github, true},
		{Expected{Environment: "test"}, github, false},
		{Expected{RepositoryID: "1"}, index.Publisher{}, false},
		{Expected{Email: "someone@example.org", Issuer: mail.Issuer}, mail, true},
		{Expected{Email: "someone@example.org", Issuer: "https://login.microsoftonline.com"}, mail, false},
		{Expected{Email: "other@example.org"}, mail, false},
		{Expected{Email: "someone@example.org"}, index.Publisher{Repository: "r", Identity: "someone@example.org"}, false},
	} {
		if got := c.expected.Matches(c.seen); got != c.want {
			t.Errorf("%+v matches %+v: %v", c.expected, c.seen, got)
		}
	}
}

func TestExpectedString(t *testing.T) {
	for want, e := range map[string]Expected{
		"github.com/o/r release.yml (env pypi) (repository id 1) (owner id 2)": {Repository: "https://github.com/o/r", Workflow: "release.yml", Environment: "pypi", RepositoryID: "1", OwnerID: "2"},
		"a@b via accounts.google.com":                                          {Email: "a@b", Issuer: "https://accounts.google.com"},
		"a@b via any issuer":                                                   {Email: "a@b"},
		"any repository via gitlab.com (owner id 2)":                           {Issuer: "https://gitlab.com", OwnerID: "2"},
	} {
		if got := e.String(); got != want {
			t.Errorf("%+v: %q, want %q", e, got, want)
		}
	}
}

func TestNormalize(t *testing.T) {
	for name, want := range map[string]string{"Sample.Project": "sample-project", "a__.--b": "a-b", "zope.interface": "zope-interface", "0x": "0x",
		"": "", "-a": "", "a-": "", "a b": "", "ä": "", "a/b": ""} {
		if got := normalize(name); got != want {
			t.Errorf("normalize(%q) = %q, want %q", name, got, want)
		}
	}
}

// FuzzPolicy: what is refused says where; what is accepted has canonical names and
// expects nobody by accident.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []string{goodPolicy, "", "projects: {p: {publishers: [{email: a@b}]}}", "projects: &a {p: *a}", "projects:\n  p:\n    publishers:\n      - {repository: x}\n", "---\n---\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePolicy("policy.yaml", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "policy.yaml:") {
				t.Errorf("no place in %q", err)
			}
			return
		}
		for name, project := range p.Projects {
			if normalize(name) != name || name == "" {
				t.Errorf("name %q", name)
			}
			for _, e := range project.Publishers {
				if e.Matches(index.Publisher{Issuer: "x", Repository: "x", RepositoryID: "x", OwnerID: "x"}) {
					t.Errorf("%+v matches anybody", e)
				}
			}
		}
	})
}

// This file makes the YAML library panic; it has to be a refusal.
func TestPolicyThatBreaksTheParser(t *testing.T) {
	text := "4a         \"\xffmetricsloot: th\ntrustn: , healtt.jso#6n000000  1:oorusted_r #64 A ult: Sigstore's own, refreshed 2y TUF\nlogs:      ! "
	if p, err := parsePolicy("policy.yaml", []byte(text)); err == nil {
		t.Errorf("accepted as %+v", p)
	}
}
