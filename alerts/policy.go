// Package alerts decides what is worth telling somebody, and tells them: the
// policy and the pins say who is expected, rules judge typed facts from the index,
// an outbox carries each alert to every receiver at least once.
//
// Rules see no SQL and no HTTP. A finding has a stable id, so that judging the
// same facts again changes nothing.
package alerts

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"

	"sigtrail/index"
)

// A Policy says who may sign what: the operator's file. The zero Policy expects
// nothing of anybody, and pins decide.
type Policy struct {
	Projects map[string]ProjectPolicy `yaml:"projects"` // by PEP 503 name
}

// ProjectPolicy is what is expected of one project.
type ProjectPolicy struct {
	Publishers   []Expected  `yaml:"publishers"`   // any of them; none: pins decide
	Attestations Attestation `yaml:"attestations"` // required, optional, or learned from history
}

// Attestation says whether each new file must be attested.
type Attestation string

const (
	AttestationsLearned  Attestation = ""
	AttestationsRequired Attestation = "required"
	AttestationsOptional Attestation = "optional"
)

// Expected describes publishers. A field that is left out matches anything.
type Expected struct {
	Issuer       string `yaml:"issuer" json:"issuer,omitempty"`
	Repository   string `yaml:"repository" json:"repository,omitempty"` // github.com/owner/repo or its URL
	RepositoryID string `yaml:"repository_id" json:"repository_id,omitempty"`
	OwnerID      string `yaml:"owner_id" json:"owner_id,omitempty"`
	Workflow     string `yaml:"workflow" json:"workflow,omitempty"` // file name, or path in the repository
	Environment  string `yaml:"environment" json:"environment,omitempty"`
	Email        string `yaml:"email" json:"email,omitempty"` // identity without a repository
}

// LoadPolicy reads a policy file. Unknown keys and bad values are refused with
// file, line and column.
func LoadPolicy(path string) (*Policy, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	return parsePolicy(path, b)
}

func parsePolicy(path string, b []byte) (*Policy, error) {
	p := new(Policy)
	if err := yaml.UnmarshalWithOptions(b, p, yaml.Strict()); err != nil {
		if e := yaml.Error(nil); errors.As(err, &e) && e.GetToken() != nil && e.GetToken().Position != nil {
			at := e.GetToken().Position
			return nil, fmt.Errorf("policy %s:%d:%d: %s", path, at.Line, at.Column, e.GetMessage())
		}
		return nil, fmt.Errorf("policy %s:1:1: %w", path, err)
	}
	named := make(map[string]ProjectPolicy, len(p.Projects))
	for name, project := range p.Projects {
		if named[normalize(name)].Publishers != nil {
			return nil, fmt.Errorf("policy %s:1:1: project %q stands there twice under two spellings", path, name)
		}
		for i := range project.Publishers {
			project.Publishers[i].complete()
		}
		named[normalize(name)] = project
	}
	p.Projects = named
	return p, nil
}

// UnmarshalYAML refuses other words.
func (a *Attestation) UnmarshalYAML(b []byte) error {
	var text string
	if err := yaml.Unmarshal(b, &text); err != nil {
		return err
	}
	switch *a = Attestation(text); *a {
	case AttestationsRequired, AttestationsOptional:
		return nil
	}
	return fmt.Errorf("attestations is %q; it must be required or optional", text)
}

// complete fills in what follows from the rest.
func (e *Expected) complete() {
	if e.Repository != "" {
		e.Repository = "https://" + strings.TrimSuffix(strings.TrimPrefix(e.Repository, "https://"), "/")
	}
	if e.Issuer == "" {
		switch {
		case strings.HasPrefix(e.Repository, "https://github.com/"):
			e.Issuer = "https://token.actions.githubusercontent.com"
		case strings.HasPrefix(e.Repository, "https://gitlab.com/"):
			e.Issuer = "https://gitlab.com"
		}
	}
}

// Matches reports whether a publisher is one of those that e describes.
func (e Expected) Matches(p index.Publisher) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return is(e.Issuer, p.Issuer) &&
		(e.Repository == "" || strings.EqualFold(e.Repository, p.Repository)) &&
		is(e.RepositoryID, p.RepositoryID) && is(e.OwnerID, p.OwnerID) &&
		(is(e.Workflow, p.Workflow) || strings.HasSuffix(p.Workflow, "/"+e.Workflow)) &&
		is(e.Environment, p.Environment) &&
		(e.Email == "" || p.Repository == "" && strings.EqualFold(e.Email, p.Identity))
}

// Covers reports whether the policy names publishers for a project, so that
// nothing has to be learned about it first.
func (p *Policy) Covers(project string) bool {
	return p != nil && len(p.Projects[project].Publishers) > 0
}

func (p *Policy) project(name string) ProjectPolicy {
	if p == nil {
		return ProjectPolicy{}
	}
	return p.Projects[name]
}

// normalize is the PEP 503 form of a name in a policy file.
func normalize(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' }), "-")
}
