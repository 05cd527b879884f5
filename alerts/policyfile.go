package alerts

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"sigtrail/index"
)

// maxPolicy bounds a policy file in bytes: some ten thousand projects.
const maxPolicy = 4 << 20

// LoadPolicy reads a policy file for PyPI and other indexes by their names. Unknown
// keys, other indexes and bad values are refused as "FILE:LINE:COLUMN: what is wrong".
func LoadPolicy(path string, indexes ...string) (*Policy, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	if len(b) > maxPolicy {
		return nil, fmt.Errorf("%s:1:1: the policy is larger than %d bytes", path, maxPolicy)
	}
	return parsePolicy(path, b, indexes...)
}

func parsePolicy(path string, b []byte, indexes ...string) (_ *Policy, err error) {
	// Some malformed files make the YAML library panic (seen by fuzzing).
	defer func() {
		if r := recover(); r != nil {
			err = refused(path, nil, fmt.Sprintf("not readable as YAML (%v)", r))
		}
	}()
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, located(path, err)
	}
	p := new(Policy)
	if len(file.Docs) > 1 {
		return nil, refused(path, file.Docs[1].Start, "a second document; a policy is one")
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return p, nil
	}
	body := file.Docs[0].Body
	if err := yaml.NodeToValue(body, p, yaml.Strict()); err != nil {
		return nil, located(path, err)
	}
	if problem, at := p.complete(indexes); problem != "" {
		return nil, refused(path, find(body, at...), problem)
	}
	return p, nil
}

// located turns the YAML reader's error into file:line:column.
func located(path string, err error) error {
	var e yaml.Error
	if errors.As(err, &e) {
		return refused(path, e.GetToken(), e.GetMessage())
	}
	return refused(path, nil, err.Error())
}

func refused(path string, at *token.Token, problem string) error {
	line, column := 1, 1
	if at != nil && at.Position != nil {
		line, column = at.Position.Line, at.Position.Column
	}
	return fmt.Errorf("%s:%d:%d: %s", path, line, column, problem)
}

// find is where a value stands: the key that leads to it, or the element of a
// list. What lies behind an alias is found as far as the alias.
func find(n ast.Node, path ...any) *token.Token {
	at := n.GetToken()
	for _, step := range path {
		if a, ok := n.(*ast.AnchorNode); ok {
			n = a.Value
		}
		var next ast.Node
		switch v := n.(type) {
		case ast.MapNode:
			for it := v.MapRange(); it.Next(); {
				if key := it.Key(); key.GetToken() != nil && key.GetToken().Value == step {
					at, next = key.GetToken(), it.Value()
				}
			}
		case *ast.SequenceNode:
			if i, ok := step.(int); ok && i < len(v.Values) {
				next = v.Values[i]
				at = start(next)
			}
		}
		if next == nil {
			return at
		}
		n = next
	}
	return at
}

// start is the first key of a mapping, which has no token of its own in block style.
func start(n ast.Node) *token.Token {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return n.GetToken()
}

// complete normalises what was read, fills in what follows from the rest, and
// returns the first value that cannot be meant with the way to it.
func (p *Policy) complete(indexes []string) (problem string, at []any) {
	names := make([]string, 0, len(p.Projects))
	for name := range p.Projects {
		names = append(names, name)
	}
	slices.Sort(names)
	projects := make(map[string]ProjectPolicy, len(names))
	for _, name := range names {
		at := []any{"projects", name}
		project := p.Projects[name]
		canonical, problem := canonicalName(name, indexes)
		if problem != "" {
			return problem, at
		}
		if _, twice := projects[canonical]; twice {
			return fmt.Sprintf("project %q stands there twice, in two spellings", canonical), at
		}
		switch project.Attestations {
		case AttestationsLearned, AttestationsRequired, AttestationsOptional:
		default:
			return fmt.Sprintf("attestations is %q; it must be required or optional", string(project.Attestations)), append(at, "attestations")
		}
		if project.Publishers != nil && len(project.Publishers) == 0 {
			return "publishers is empty; leave it out to judge by what was learned", append(at, "publishers")
		}
		for i := range project.Publishers {
			if problem, key := project.Publishers[i].complete(); problem != "" {
				at = append(at, "publishers", i)
				if key != "" {
					at = append(at, key)
				}
				return problem, at
			}
		}
		projects[canonical] = project
	}
	p.Projects = projects
	return "", nil
}

// complete returns the first problem and the key that has it, "" for the whole.
func (e *Expected) complete() (problem, key string) {
	switch {
	case e.Repository == "" && e.RepositoryID == "" && e.OwnerID == "" && e.Email == "":
		return "a publisher needs a repository, repository_id, owner_id or email; anybody would match this one", ""
	case e.Email != "" && (e.Repository != "" || e.RepositoryID != "" || e.OwnerID != "" || e.Workflow != ""):
		return "an identity by email has no repository and no workflow", "email"
	case e.Email != "" && (strings.Count(e.Email, "@") != 1 || strings.ContainsAny(e.Email, " \t\n<>")):
		return fmt.Sprintf("email is %q; write name@host", e.Email), "email"
	case !digits(e.RepositoryID):
		return fmt.Sprintf("repository_id is %q; it must be the decimal number", e.RepositoryID), "repository_id"
	case !digits(e.OwnerID):
		return fmt.Sprintf("owner_id is %q; it must be the decimal number", e.OwnerID), "owner_id"
	case strings.HasPrefix(e.Workflow, "/") || strings.Contains(e.Workflow, "@"):
		return fmt.Sprintf("workflow is %q; write the file's path in the repository, without a ref", e.Workflow), "workflow"
	}
	if e.Issuer != "" && !isURL(e.Issuer) {
		return fmt.Sprintf("issuer is %q; it must be an https address", e.Issuer), "issuer"
	}
	if e.Repository != "" {
		address, ok := repositoryURL(e.Repository)
		if !ok {
			return fmt.Sprintf("repository is %q; write github.com/owner/repository or its https address", e.Repository), "repository"
		}
		e.Repository = address
	}
	if e.Issuer == "" {
		switch {
		case hasPrefixFold(e.Repository, "https://github.com/"):
			e.Issuer = "https://token.actions.githubusercontent.com"
		case hasPrefixFold(e.Repository, "https://gitlab.com/"):
			e.Issuer = "https://gitlab.com"
		case e.Email == "":
			return "an issuer is needed here: names and numbers of repositories mean something to one issuer only", ""
		}
	}
	return "", ""
}

// repositoryURL is the form that certificates have, "https://HOST/OWNER/REPOSITORY".
func repositoryURL(s string) (string, bool) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	s = strings.TrimSuffix(strings.TrimSuffix(s, "/"), ".git")
	u, err := url.Parse(s)
	if err != nil || !isURL(s) || !strings.Contains(u.Host, ".") && u.Port() == "" {
		return "", false
	}
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	return s, len(parts) >= 2 && !slices.Contains(parts, "")
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// canonicalName is what a project is judged by: NAME on PyPI, INDEX/NAME elsewhere.
func canonicalName(text string, indexes []string) (canonical, problem string) {
	on, name, qualified := strings.Cut(text, "/")
	if !qualified {
		on, name = "", text
	}
	switch canonical = normalize(name); {
	case canonical == "":
		return "", fmt.Sprintf("%q is no name of a project", text)
	case on == index.PyPI:
		return "", fmt.Sprintf("%q: projects on PyPI itself are written without the index: %s", text, canonical)
	case qualified && !slices.Contains(indexes, on):
		return "", fmt.Sprintf("%q: no index of the configuration is named %q", text, on)
	}
	return index.Qualified(on, canonical), ""
}

// normalize is the PEP 503 form of a name, "" for what PyPI takes for no name.
func normalize(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			b.WriteByte(c + 'a' - 'A')
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b.WriteByte(c)
		case c != '-' && c != '_' && c != '.', i == 0, i == len(name)-1:
			return ""
		case !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return b.String()
}
