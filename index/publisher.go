package index

import "strings"

// A Publisher is the stable part of a signer: what stays the same from release
// to release. Fields that a certificate lacks are empty.
type Publisher struct {
	Issuer       string `json:"issuer"`
	Repository   string `json:"repository,omitempty"`    // .12, URL
	RepositoryID string `json:"repository_id,omitempty"` // .15, unique within an issuer
	Owner        string `json:"owner,omitempty"`         // .16, URL
	OwnerID      string `json:"owner_id,omitempty"`      // .17
	Workflow     string `json:"workflow,omitempty"`      // path in the repository, without @ref
	Environment  string `json:"environment,omitempty"`   // .23
	Identity     string `json:"identity,omitempty"`      // SAN of identities without a repository
}

// Key is a canonical text of the publisher, one for each distinct publisher.
// Fields are separated by a byte that none of them may contain.
func (p Publisher) Key() string {
	fields := []string{p.Issuer, p.Repository, p.RepositoryID, p.Owner, p.OwnerID, p.Workflow, p.Environment, p.Identity}
	for i, f := range fields {
		fields[i] = strings.ReplaceAll(f, "\x1f", "\x1f\x1f")
	}
	return strings.Join(fields, "\x1f|")
}

// Same reports whether two publishers are the same for a pin. Repositories are
// compared by their numeric ids where both have them, because a name can be
// given to somebody else; else by URL, in which GitHub ignores case. The
// environment is no part of it: certificates carry it only since November 2025.
func (p Publisher) Same(o Publisher) bool {
	if p.Issuer != o.Issuer || p.Workflow != o.Workflow || p.Identity != o.Identity {
		return false
	}
	if p.RepositoryID != "" && o.RepositoryID != "" {
		return p.RepositoryID == o.RepositoryID && (p.OwnerID == "" || o.OwnerID == "" || p.OwnerID == o.OwnerID)
	}
	return strings.EqualFold(p.Repository, o.Repository)
}

// String is the publisher for people.
func (p Publisher) String() string {
	if p.Repository == "" {
		if p.Identity == "" {
			return "unnamed identity via " + p.Issuer
		}
		return p.Identity + " via " + strings.TrimPrefix(p.Issuer, "https://")
	}
	s := strings.TrimPrefix(p.Repository, "https://")
	if p.Workflow != "" {
		s += " " + p.Workflow[strings.LastIndexByte(p.Workflow, '/')+1:]
	}
	if p.Environment != "" {
		s += " (env " + p.Environment + ")"
	}
	return s
}

// Publisher takes the stable part from what a certificate says.
func (s Signer) Publisher() Publisher {
	p := Publisher{
		Issuer:       s.Issuer(),
		Repository:   s.Get(ExtSourceRepositoryURI),
		RepositoryID: s.Get(ExtSourceRepositoryID),
		Owner:        s.Get(ExtSourceRepositoryOwnerURI),
		OwnerID:      s.Get(ExtSourceRepositoryOwnerID),
		Environment:  s.Get(ExtDeploymentEnvironment),
	}
	if p.Repository == "" && s.Get(ExtGitHubRepository) != "" { // certificates of 2021 and 2022
		p.Repository = "https://github.com/" + s.Get(ExtGitHubRepository)
	}
	if p.Repository == "" {
		p.Identity = s.SAN
		return p
	}
	p.Workflow = workflow(s.Get(ExtBuildConfigURI), p.Repository)
	if p.Workflow == "" {
		p.Workflow = workflow(s.SAN, p.Repository)
	}
	return p
}

// workflow cuts the path of the workflow file out of "REPOSITORY/PATH@REF" or, on
// GitLab, "REPOSITORY//PATH@REF". The ref may hold @ and / itself, so the path
// ends at the first @ behind the file's extension. A workflow of another
// repository (a reusable one) keeps its whole address.
func workflow(uri, repository string) string {
	end := -1
	for _, ext := range []string{".yml@", ".yaml@"} {
		if i := strings.Index(uri, ext); i >= 0 && (end < 0 || i+len(ext)-1 < end) {
			end = i + len(ext) - 1
		}
	}
	if end < 0 {
		return ""
	}
	path := uri[:end]
	if len(path) > len(repository) && strings.EqualFold(path[:len(repository)], repository) && path[len(repository)] == '/' {
		return strings.TrimLeft(path[len(repository):], "/")
	}
	return path
}
