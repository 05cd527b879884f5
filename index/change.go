package index

import (
	"slices"
	"strings"
)

// A Change is one way in which a publisher differs from another.
type Change string

// The gravest first. Names of repositories and owners can be given to somebody
// else, the provider's numeric ids cannot (fulcio docs/oid-info.md), so that
// the ids tell a repository that moved from one that took its place. They are
// unique within an issuer only.
const (
	IssuerChanged       Change = "issuer-changed"        // another identity provider; nothing else can be compared
	RepositoryRecreated Change = "repository-recreated"  // the same name, another repository: deleted and made again, or taken over
	OwnerRecreated      Change = "owner-recreated"       // the same name, another account
	OtherRepository     Change = "other-repository"      // another name and another id
	IdentityChanged     Change = "identity-changed"      // another e-mail address or service account
	RepositoryUnclear   Change = "repository-unclear"    // another name, and an id is missing: renamed or another one
	Transferred         Change = "repository-transfer"   // the same repository under another owner
	EnvironmentDropped  Change = "environment-dropped"   // deployment rules no longer apply
	EnvironmentChanged  Change = "environment-changed"   // another set of deployment rules
	WorkflowChanged     Change = "workflow-changed"      // another file of the repository
	OwnerRenamed        Change = "owner-renamed"         // the same account under another name
	RepositoryRenamed   Change = "repository-renamed"    // the same repository under another name
	EnvironmentAdded    Change = "environment-added"     // or the issuer began to say it, in November 2025
	IDsAdded            Change = "repository-ids-added"  // the issuer began to say the ids
	IDsDropped          Change = "repository-ids-absent" // a certificate without the ids that there were before
)

// Changes lists how a later publisher differs from an earlier one, the gravest
// first; none where they are the same. Capital letters in names of repositories
// and owners make no difference, as they make none at the providers.
func Changes(before, after Publisher) []Change {
	if before.Issuer != after.Issuer {
		return []Change{IssuerChanged}
	}
	var all []Change
	add := func(c Change, is bool) {
		if is {
			all = append(all, c)
		}
	}
	sameRepository := strings.EqualFold(before.Repository, after.Repository)
	sameOwner := strings.EqualFold(before.owner(), after.owner())
	repositoryID, ownerID := compareIDs(before.RepositoryID, after.RepositoryID), compareIDs(before.OwnerID, after.OwnerID)

	add(RepositoryRecreated, sameRepository && repositoryID == otherID)
	add(OwnerRecreated, sameOwner && ownerID == otherID)
	add(OtherRepository, !sameRepository && repositoryID == otherID)
	add(IdentityChanged, before.Identity != after.Identity)
	add(RepositoryUnclear, !sameRepository && repositoryID == unknownID)
	add(Transferred, !sameOwner && repositoryID == sameID && ownerID != sameID)
	add(EnvironmentDropped, before.Environment != "" && after.Environment == "")
	add(EnvironmentChanged, before.Environment != "" && after.Environment != "" && before.Environment != after.Environment)
	// The workflows of two repositories have nothing to do with each other.
	if repositoryID != otherID && (sameRepository || repositoryID == sameID) {
		add(WorkflowChanged, before.Workflow != after.Workflow)
	}
	add(OwnerRenamed, !sameOwner && ownerID == sameID)
	add(RepositoryRenamed, repositoryID == sameID && !strings.EqualFold(before.repositoryName(), after.repositoryName()))
	add(EnvironmentAdded, before.Environment == "" && after.Environment != "")
	add(IDsAdded, sameRepository && before.RepositoryID == "" && after.RepositoryID != "")
	add(IDsDropped, sameRepository && before.RepositoryID != "" && after.RepositoryID == "")
	return slices.Clip(all)
}

type idComparison int

const (
	unknownID idComparison = iota // one of the two certificates does not say
	sameID
	otherID
)

func compareIDs(a, b string) idComparison {
	switch {
	case a == "" || b == "":
		return unknownID
	case a == b:
		return sameID
	}
	return otherID
}

// owner is the owner's address, which certificates before 2023 give only as part
// of the repository's.
func (p Publisher) owner() string {
	if p.Owner != "" {
		return p.Owner
	}
	if i := strings.LastIndexByte(p.Repository, '/'); i >= 0 {
		return p.Repository[:i]
	}
	return ""
}

func (p Publisher) repositoryName() string {
	return p.Repository[strings.LastIndexByte(p.Repository, '/')+1:]
}
