package index

import (
	"context"
	"slices"
	"strings"
	"time"
)

// A RoleVerb is what a journal row does to a role, in PyPI's words.
type RoleVerb string

const (
	VerbAdd          RoleVerb = "add"
	VerbRemove       RoleVerb = "remove"
	VerbChange       RoleVerb = "change"
	VerbInvite       RoleVerb = "invite"
	VerbRevokeInvite RoleVerb = "revoke_invite"
	VerbAccepted     RoleVerb = "accepted"
)

// A RoleChange is what a journal row says about who may publish a project. Whether
// Who is a user or a team of an organisation the journal does not tell.
type RoleChange struct {
	Verb RoleVerb
	Role string // Owner or Maintainer
	To   string // the new role; only of a change
	Who  string // verbatim
	Row  JournalRow
}

// ParseRoleChange reads the action of a journal row: "add Owner USER", "remove",
// "invite", "revoke_invite" and "accepted" likewise, "change Owner USER to Maintainer".
// It reports whether the action is one of these.
func ParseRoleChange(r JournalRow) (RoleChange, bool) {
	verb, rest, _ := strings.Cut(r.Action, " ")
	role, who, _ := strings.Cut(rest, " ")
	c := RoleChange{Verb: RoleVerb(verb), Role: role, Who: who, Row: r}
	switch c.Verb {
	case VerbAdd, VerbRemove, VerbInvite, VerbRevokeInvite, VerbAccepted:
	case VerbChange:
		// A team's name may hold " to " itself.
		i := strings.LastIndex(who, " to ")
		if i < 0 {
			return RoleChange{}, false
		}
		c.Who, c.To = who[:i], who[i+len(" to "):]
		if !isRole(c.To) {
			return RoleChange{}, false
		}
	default:
		return RoleChange{}, false
	}
	return c, isRole(c.Role) && c.Who != "" && r.Version == nil
}

func isRole(s string) bool { return s == "Owner" || s == "Maintainer" }

// Roles are who may publish a project, as far as the journal shows.
type Roles struct {
	Holders []Holder
	Invited []Holder // asked, and not accepted yet
	// Whole: the journal is known from the project's creation on. Otherwise there may
	// be others, from before.
	Whole  bool
	Serial int64 // of the last row that counts; 0: none does
}

// A Holder has a role since a journal row.
type Holder struct {
	Role string
	Who  string
	Row  JournalRow
}

// RoleChanges hands out what the journal of an index, "" for PyPI, says about the
// roles of a project, oldest first.
func (s *Store) RoleChanges(ctx context.Context, index, project string, each func(RoleChange) error) error {
	return s.eachJournal(ctx, index, project, func(r JournalRow) error {
		if c, ok := ParseRoleChange(r); ok {
			return each(c)
		}
		return nil
	})
}

// RolesAt returns who had which role in a project at a time of the index's clock,
// which is that of its journal.
func (s *Store) RolesAt(ctx context.Context, index, project string, at time.Time) (Roles, error) {
	var roles Roles
	err := s.eachJournal(ctx, index, project, func(r JournalRow) error {
		if !r.At.After(at) {
			roles.take(r)
		}
		return nil
	})
	return roles, err
}

// take follows one row of the journal.
func (r *Roles) take(row JournalRow) {
	if row.Action == actionCreate || row.Action == actionRemoveProject {
		// Whoever has the name from here on, has it alone.
		*r = Roles{Whole: true, Serial: row.Serial}
		return
	}
	c, ok := ParseRoleChange(row)
	if !ok {
		return
	}
	r.Serial = row.Serial
	holder := Holder{c.Role, c.Who, row}
	switch c.Verb {
	case VerbInvite:
		r.Invited = append(without(r.Invited, c.Role, c.Who), holder)
	case VerbRevokeInvite:
		r.Invited = without(r.Invited, c.Role, c.Who)
	case VerbAdd, VerbAccepted:
		r.Invited = without(r.Invited, c.Role, c.Who)
		r.Holders = append(without(r.Holders, c.Role, c.Who), holder)
	case VerbRemove:
		r.Holders = without(r.Holders, c.Role, c.Who)
	case VerbChange:
		holder.Role = c.To
		r.Holders = append(without(without(r.Holders, c.Role, c.Who), c.To, c.Who), holder)
	}
}

func without(holders []Holder, role, who string) []Holder {
	return slices.DeleteFunc(holders, func(h Holder) bool { return h.Role == role && h.Who == who })
}
