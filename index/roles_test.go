package index

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseRoleChange(t *testing.T) {
	version := "1"
	for action, want := range map[string]RoleChange{
		"add Owner alice":                          {Verb: VerbAdd, Role: "Owner", Who: "alice"},
		"remove Maintainer bob":                    {Verb: VerbRemove, Role: "Maintainer", Who: "bob"},
		"invite Owner carol":                       {Verb: VerbInvite, Role: "Owner", Who: "carol"},
		"revoke_invite Owner carol":                {Verb: VerbRevokeInvite, Role: "Owner", Who: "carol"},
		"accepted Maintainer carol":                {Verb: VerbAccepted, Role: "Maintainer", Who: "carol"},
		"add Maintainer Release Engineers":         {Verb: VerbAdd, Role: "Maintainer", Who: "Release Engineers"},
		"change Owner alice to Maintainer":         {Verb: VerbChange, Role: "Owner", Who: "alice", To: "Maintainer"},
		"change Maintainer from Paris to to Owner": {Verb: VerbChange, Role: "Maintainer", Who: "from Paris to", To: "Owner"},
	} {
		row := JournalRow{Serial: 1, Action: action}
		want.Row = row
		if got, ok := ParseRoleChange(row); !ok || cmp.Diff(want, got) != "" {
			t.Errorf("%q: %v %+v", action, ok, got)
		}
		if _, ok := ParseRoleChange(JournalRow{Action: action, Version: &version}); ok {
			t.Errorf("%q of a release is about a role", action)
		}
	}
	for _, action := range []string{"", "add", "add Owner", "add Owner ", "add source file p-1.tar.gz", "remove file Owner", "remove release", "remove project",
		"change Owner alice", "change Owner alice to Emperor", "Add Owner alice", "add owner alice", "transfer Owner alice"} {
		if c, ok := ParseRoleChange(JournalRow{Action: action}); ok {
			t.Errorf("%q: %+v", action, c)
		}
	}
}

func TestRolesAt(t *testing.T) {
	w := newEventWorld(t)
	roles := func(serial int64) string {
		t.Helper()
		at := storeEpoch.Add(time.Duration(serial) * time.Second)
		r, err := w.s.RolesAt(t.Context(), "", "p", at)
		ok(t, err)
		var all []string
		for _, h := range r.Holders {
			all = append(all, h.Role+" "+h.Who)
		}
		for _, h := range r.Invited {
			all = append(all, "invited "+h.Role+" "+h.Who)
		}
		if !r.Whole {
			all = append(all, "and maybe others")
		}
		return strings.Join(all, ", ")
	}
	w.journal(5, "", "add Maintainer old")
	for i, action := range []string{"create", "add Owner alice", "invite Owner bob", "accepted Owner bob", "change Owner alice to Maintainer", "sing Owner a song",
		"invite Maintainer eve", "revoke_invite Maintainer eve", "remove Maintainer alice", "remove project", "create", "add Owner mallory"} {
		w.journal(int64(10+i), "", action)
	}
	for serial, want := range map[int64]string{
		4: "and maybe others", 5: "Maintainer old, and maybe others", 10: "", 11: "Owner alice", 12: "Owner alice, invited Owner bob", 13: "Owner alice, Owner bob",
		14: "Owner bob, Maintainer alice", 15: "Owner bob, Maintainer alice", 16: "Owner bob, Maintainer alice, invited Maintainer eve",
		17: "Owner bob, Maintainer alice", 18: "Owner bob", 19: "", 20: "", 21: "Owner mallory", 99: "Owner mallory",
	} {
		if got := roles(serial); got != want {
			t.Errorf("at %d: %q, want %q", serial, got, want)
		}
	}
	n := 0
	ok(t, w.s.RoleChanges(t.Context(), "", "p", func(RoleChange) error { n++; return nil }))
	if n != 9 {
		t.Errorf("%d changes of roles", n)
	}
	if kinds := w.events(); len(kinds) != 2 {
		t.Errorf("events: %q", kinds)
	}
}
