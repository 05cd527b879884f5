// Package alerts decides what is worth telling somebody, and tells them: the
// policy and the pins say who is expected, rules judge typed facts from the index,
// an outbox carries each alert to every receiver at least once.
//
// Rules see no SQL and no HTTP. A finding has a stable id, so that judging the
// same facts again changes nothing.
package alerts

import (
	"strings"

	"sigtrail/index"
)

// A Policy says who may sign what: the operator's file. The zero Policy expects
// nothing of anybody, and pins decide.
type Policy struct {
	Projects map[string]ProjectPolicy `yaml:"projects"` // by PEP 503 name; on other indexes than PyPI by INDEX/NAME
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
	Issuer       string `yaml:"issuer"`        // default: what github.com and gitlab.com repositories have
	Repository   string `yaml:"repository"`    // github.com/owner/repo or its URL
	RepositoryID string `yaml:"repository_id"` // decimal; stays when a repository is renamed, changes when it is made anew
	OwnerID      string `yaml:"owner_id"`      // decimal
	Workflow     string `yaml:"workflow"`      // path in the repository, or the name of a file in .github/workflows
	Environment  string `yaml:"environment"`   // in certificates since November 2025
	Email        string `yaml:"email"`         // identity without a repository
}

// Matches reports whether a publisher is one of those that e describes.
// Repositories are compared without case, as GitHub and PyPI see them.
func (e Expected) Matches(p index.Publisher) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return is(e.Issuer, p.Issuer) &&
		(e.Repository == "" || strings.EqualFold(e.Repository, p.Repository)) &&
		is(e.RepositoryID, p.RepositoryID) && is(e.OwnerID, p.OwnerID) &&
		e.matchesWorkflow(p.Workflow) &&
		is(e.Environment, p.Environment) &&
		(e.Email == "" || p.Repository == "" && strings.EqualFold(e.Email, p.Identity))
}

// matchesWorkflow compares whole paths: a file of the same name in another folder,
// or in another repository, is another workflow.
func (e Expected) matchesWorkflow(path string) bool {
	return e.Workflow == "" || e.Workflow == path ||
		!strings.Contains(e.Workflow, "/") && path == ".github/workflows/"+e.Workflow
}

// String is the expectation for people.
func (e Expected) String() string {
	p := index.Publisher{Issuer: e.Issuer, Repository: e.Repository, Workflow: e.Workflow, Environment: e.Environment, Identity: e.Email}
	var s string
	switch {
	case e.Repository != "":
		s = p.String()
	case e.Email != "" && e.Issuer != "":
		s = p.String()
	case e.Email != "":
		s = e.Email + " via any issuer"
	default:
		s = "any repository via " + strings.TrimPrefix(e.Issuer, "https://")
		if e.Workflow != "" {
			s += " " + e.Workflow
		}
	}
	if e.RepositoryID != "" {
		s += " (repository id " + e.RepositoryID + ")"
	}
	if e.OwnerID != "" {
		s += " (owner id " + e.OwnerID + ")"
	}
	return s
}

// Covers reports whether the policy names publishers for a project, by its
// index.Qualified name, so that nothing has to be learned about it first.
func (p *Policy) Covers(project string) bool {
	return len(p.project(project).Publishers) > 0
}

func (p *Policy) project(name string) ProjectPolicy {
	if p == nil {
		return ProjectPolicy{}
	}
	return p.Projects[name]
}
