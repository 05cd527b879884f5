package lab

import (
	"fmt"
	"maps"
	"strings"
)

// Issuers whose identities the lab's authority certifies.
const (
	GitHubActions = "https://token.actions.githubusercontent.com"
	GitHubLogin   = "https://github.com/login/oauth"
	Google        = "https://accounts.google.com"
)

// An Identity is what a signing certificate says about its holder.
type Identity interface {
	// names returns the SAN (a URI or an e-mail address) and the values of
	// the extensions 1.3.6.1.4.1.57264.1.N. A missing N is left out of the
	// certificate; an empty value is written as an empty one.
	names() (uri, email string, fields map[int]string)
}

// A GitHub identity is one job of a GitHub Actions workflow. Its zero fields take
// the values of an ordinary release job; Environment stays out when empty, as
// Fulcio leaves it out.
type GitHub struct {
	Owner, Repo     string
	RepoID, OwnerID string
	Workflow        string // file in .github/workflows; "release.yml"
	Ref             string // "refs/tags/v1.0.0"
	SHA             string // 40 hex digits
	Event           string // "push"
	Runner          string // "github-hosted"
	RunID           string
	Attempt         string // "1"
	Environment     string
	Visibility      string // "public"

	// Called is the SAN's "OWNER/REPO/.github/workflows/FILE@REF" when the
	// job ran in a reusable workflow of another repository.
	Called string
}

func (g GitHub) withDefaults() GitHub {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&g.RepoID, "100000001")
	set(&g.OwnerID, "2000001")
	set(&g.Workflow, "release.yml")
	set(&g.Ref, "refs/tags/v1.0.0")
	set(&g.SHA, "0123456789abcdef0123456789abcdef01234567")
	set(&g.Event, "push")
	set(&g.Runner, "github-hosted")
	set(&g.RunID, "11700000001")
	set(&g.Attempt, "1")
	set(&g.Visibility, "public")
	return g
}

func (g GitHub) names() (string, string, map[int]string) {
	g = g.withDefaults()
	repo := g.Owner + "/" + g.Repo
	config := fmt.Sprintf("https://github.com/%s/.github/workflows/%s@%s", repo, g.Workflow, g.Ref)
	signer := config
	if g.Called != "" {
		signer = "https://github.com/" + g.Called
	}
	subject := "repo:" + repo + ":ref:" + g.Ref
	fields := map[int]string{
		1: GitHubActions, 2: g.Event, 3: g.SHA, 4: strings.TrimSuffix(g.Workflow, ".yml"), 5: repo, 6: g.Ref,
		8: GitHubActions, 9: signer, 10: g.SHA, 11: g.Runner,
		12: "https://github.com/" + repo, 13: g.SHA, 14: g.Ref, 15: g.RepoID,
		16: "https://github.com/" + g.Owner, 17: g.OwnerID, 18: config, 19: g.SHA, 20: g.Event,
		21: fmt.Sprintf("https://github.com/%s/actions/runs/%s/attempts/%s", repo, g.RunID, g.Attempt),
		22: g.Visibility,
	}
	if g.Environment != "" {
		fields[23] = g.Environment
		subject = "repo:" + repo + ":environment:" + g.Environment
	}
	fields[24] = subject
	return signer, "", fields
}

// Publisher is PyPI's trusted publisher for the identity's workflow.
func (g GitHub) Publisher() Publisher {
	g = g.withDefaults()
	return Publisher{Kind: "GitHub", Repository: g.Owner + "/" + g.Repo, Workflow: g.Workflow, Environment: g.Environment}
}

// An Email identity is a person or a service account.
type Email struct {
	Address string
	Issuer  string // "": GitHubLogin
}

func (e Email) names() (string, string, map[int]string) {
	issuer := e.Issuer
	if issuer == "" {
		issuer = GitHubLogin
	}
	return "", e.Address, map[int]string{1: issuer, 8: issuer}
}

// A Custom identity writes exactly what it is told, for oddities that no
// provider issues. Nil Fields makes a certificate without extensions.
type Custom struct {
	URI, Email string
	Fields     map[int]string // N of 1.3.6.1.4.1.57264.1.N
}

func (c Custom) names() (string, string, map[int]string) { return c.URI, c.Email, c.Fields }

// With returns an identity with some extensions changed; an N in drop is left out.
func With(id Identity, change map[int]string, drop ...int) Custom {
	uri, email, fields := id.names()
	fields = maps.Clone(fields)
	maps.Copy(fields, change)
	for _, n := range drop {
		delete(fields, n)
	}
	return Custom{URI: uri, Email: email, Fields: fields}
}
