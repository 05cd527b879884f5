package index

import (
	"slices"
	"testing"
)

// What the ids tell apart, and what cannot be told without them.
func TestChanges(t *testing.T) {
	base := Publisher{Issuer: "https://token.actions.githubusercontent.com", Repository: "https://github.com/acme/tool", RepositoryID: "1",
		Owner: "https://github.com/acme", OwnerID: "2", Workflow: ".github/workflows/release.yml", Environment: "pypi"}
	with := func(f func(*Publisher)) Publisher {
		p := base
		f(&p)
		return p
	}
	old := with(func(p *Publisher) { p.RepositoryID, p.Owner, p.OwnerID, p.Environment = "", "", "", "" })
	moved := func(owner, name string) func(*Publisher) {
		return func(p *Publisher) {
			p.Owner, p.Repository = "https://github.com/"+owner, "https://github.com/"+owner+"/"+name
		}
	}
	for _, c := range []struct {
		name          string
		before, after Publisher
		want          []Change
	}{
		{"nothing", base, base, nil},
		{"capital letters", base, with(moved("Acme", "Tool")), nil},
		{"renamed", base, with(moved("acme", "tools")), []Change{RepositoryRenamed}},
		{"owner renamed", base, with(moved("acme-inc", "tool")), []Change{OwnerRenamed}},
		{"both renamed", base, with(moved("acme-inc", "tools")), []Change{OwnerRenamed, RepositoryRenamed}},
		{"transferred", base, with(func(p *Publisher) { moved("other", "tool")(p); p.OwnerID = "3" }), []Change{Transferred}},
		{"transferred and renamed", base, with(func(p *Publisher) { moved("other", "tools")(p); p.OwnerID = "3" }), []Change{Transferred, RepositoryRenamed}},
		{"recreated by its owner", base, with(func(p *Publisher) { p.RepositoryID = "9" }), []Change{RepositoryRecreated}},
		{"taken over with the account's name", base, with(func(p *Publisher) { p.RepositoryID, p.OwnerID = "9", "8" }), []Change{RepositoryRecreated, OwnerRecreated}},
		{"another repository of the owner", base, with(func(p *Publisher) { moved("acme", "fork")(p); p.RepositoryID = "9"; p.Workflow = "x.yml" }), []Change{OtherRepository}},
		{"a stranger", base, with(func(p *Publisher) { moved("mallory", "tool")(p); p.RepositoryID, p.OwnerID = "9", "8" }), []Change{OtherRepository}},
		{"workflow", base, with(func(p *Publisher) { p.Workflow = ".github/workflows/publish.yml" }), []Change{WorkflowChanged}},
		{"workflow and name", base, with(func(p *Publisher) { moved("acme", "tools")(p); p.Workflow = "x.yml" }), []Change{WorkflowChanged, RepositoryRenamed}},
		{"environment lost", base, with(func(p *Publisher) { p.Environment = "" }), []Change{EnvironmentDropped}},
		{"environment other", base, with(func(p *Publisher) { p.Environment = "release" }), []Change{EnvironmentChanged}},
		{"ids begin", old, base, []Change{EnvironmentAdded, IDsAdded}},
		{"ids end", base, old, []Change{EnvironmentDropped, IDsDropped}},
		{"another name without ids", old, with(moved("acme", "tools")), []Change{RepositoryUnclear, EnvironmentAdded}},
		{"issuer", base, with(func(p *Publisher) { p.Issuer = "https://gitlab.com" }), []Change{IssuerChanged}},
		{"to a mailbox", Publisher{Issuer: "i", Identity: "a@example.com"}, Publisher{Issuer: "i", Identity: "b@example.com"}, []Change{IdentityChanged}},
	} {
		if got := Changes(c.before, c.after); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
