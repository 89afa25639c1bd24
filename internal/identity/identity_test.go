package identity

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// fixture is a store over a barrier, with what tests ask of it.
type fixture struct {
	*Store
	t *testing.T
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b := barrier.New(memory.New(), log)
	root, err := barrier.NewRootKey()
	must(t, err)
	must(t, b.Initialize(t.Context(), root))
	must(t, b.Open(t.Context(), root))
	return &fixture{New(Options{
		Barrier: b, Caches: NewCaches(b, ""), Log: log,
		Mount: func(accessor string) (string, string, bool) { return "auth/" + accessor + "/", "ldap", true },
	}), t}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused fails unless err is a refusal that says so.
func refused(t *testing.T, err error, kind fault.Kind, says string) {
	t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want a refusal with %q", err, says)
	}
}

func (f *fixture) ctx() context.Context { return f.t.Context() }

func (f *fixture) person(name string) *Entity {
	f.t.Helper()
	e, _, err := f.WriteEntity(f.ctx(), "", EntityChange{Name: &name})
	must(f.t, err)
	return e
}

// groupOf makes or changes an internal group that has these members.
func (f *fixture) groupOf(name string, members ...string) *Group {
	f.t.Helper()
	g, _, err := f.WriteGroup(f.ctx(), "", GroupChange{Name: &name, Entities: &members, Policies: &[]string{"of-" + name}})
	must(f.t, err)
	return g
}

// external makes an external group that the method "m" knows by its name.
func (f *fixture) external(name string) *Group {
	f.t.Helper()
	g, err := f.WriteGroupAlias(f.ctx(), GroupAliasChange{Mount: "m", Name: name})
	must(f.t, err)
	g, _, err = f.WriteGroup(f.ctx(), g.ID, GroupChange{Name: &name, Policies: &[]string{"of-" + name}})
	must(f.t, err)
	return g
}

func (f *fixture) login(name string, groups ...string) *Entity {
	f.t.Helper()
	e, err := f.Enter(f.ctx(), Login{Mount: "m", Name: name, Groups: groups})
	must(f.t, err)
	return e
}

func (f *fixture) policies(id string) []string {
	f.t.Helper()
	who, err := f.Who(f.ctx(), id)
	must(f.t, err)
	if who == nil {
		return nil
	}
	return who.Policies
}

func (f *fixture) members(g *Group) []string {
	f.t.Helper()
	entities, _, err := f.Members(f.ctx(), g.ID)
	must(f.t, err)
	return entities
}

// rowsBelow returns the keys below a prefix.
func (f *fixture) rowsBelow(prefix string) (keys []string) {
	f.t.Helper()
	must(f.t, f.view(f.ctx(), func(r storage.Reader) error {
		keys = nil
		return storage.All(r, prefix, func(e storage.Entry) error {
			keys = append(keys, e.Key)
			return nil
		})
	}))
	return keys
}

// emptyGroups makes groups without members, many at a time.
func (f *fixture) emptyGroups(n int) (ids []string) {
	f.t.Helper()
	for range n {
		ids = append(ids, newID())
	}
	for piece := range slices.Chunk(ids, 100) {
		must(f.t, f.update(f.ctx(), func(t storage.Txn) error {
			for _, id := range piece {
				if err := storage.Save(t, groupRows+id, Group{ID: id, Name: id, Type: Internal, Policies: []string{"of-" + id}}); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	return ids
}

func (f *fixture) mergeInto(to string, from ...string) error { return f.Merge(f.ctx(), to, from, nil) }

func TestAMergeThatCannotEndGrantsNothing(t *testing.T) {
	f := newFixture(t)
	to, from := f.person("to"), f.person("from")
	many := f.emptyGroups(MaxDirectGroups - 1)
	must(t, f.update(f.ctx(), func(t storage.Txn) error {
		e := to.copied()
		e.Groups = many
		return storage.Save(t, entityRows+e.ID, e)
	}))
	f.groupOf("g1000", from.ID)
	f.groupOf("g1001", from.ID)
	before := f.policies(to.ID)
	refused(t, f.mergeInto(to.ID, from.ID), fault.Invalid, "501 groups; at most 500")
	if after := f.policies(to.ID); !slices.Equal(before, after) {
		t.Errorf("a refused merge granted %v", after[len(before):])
	}
	if f.policies(from.ID) == nil {
		t.Error("the other entity is gone")
	}
	third := f.person("third")
	f.groupOf("g1000", third.ID) // the only member now
	f.groupOf("g1001", from.ID, third.ID)
	must(t, f.mergeInto(to.ID, from.ID))
	if got := f.policies(to.ID); len(got) != MaxDirectGroups || !slices.Contains(got, "of-g1001") {
		t.Errorf("after a merge at the limit there are %d policies", len(got))
	}
}

func TestTooManyGroupsBarAndHideNothing(t *testing.T) {
	f := newFixture(t)
	e := f.person("e")
	// Five groups in 400 others each: 2,001 in all.
	var tops []string
	for i := range 5 {
		low := f.groupOf(fmt.Sprintf("low%d", i), e.ID)
		parents := f.emptyGroups(399 + i/4)
		must(t, f.update(f.ctx(), func(t storage.Txn) error {
			low.Parents = parents
			return storage.Save(t, groupRows+low.ID, low)
		}))
		tops = append(tops, parents...)
	}
	who, err := f.Look(f.ctx(), e.ID)
	must(t, err)
	if !who.Cut || len(who.Groups) != MaxAllGroups {
		t.Errorf("%d groups are shown, cut: %v", len(who.Groups), who.Cut)
	}
	_, err = f.Who(f.ctx(), e.ID)
	refused(t, err, fault.Denied, "more than 2000 groups")
	must(t, f.DeleteGroup(f.ctx(), tops[0]))
	who, err = f.Who(f.ctx(), e.ID)
	must(t, err)
	if len(who.Groups) != MaxAllGroups {
		t.Errorf("at the limit there are %d groups", len(who.Groups))
	}
}

func TestMergedMembersAreTheEntityThatStayed(t *testing.T) {
	f := newFixture(t)
	to, from, other := f.person("to"), f.person("from"), f.person("other")
	g := f.groupOf("team", from.ID, other.ID)
	ext := f.external("staff")
	f.login("bob", "staff")
	bob := f.login("bob", "staff")
	must(t, f.mergeInto(to.ID, from.ID, bob.ID))
	for _, id := range []string{from.ID, bob.ID} {
		for _, group := range []*Group{g, ext} {
			if rows := f.rowsBelow(memberEntities + group.ID + "/" + id); len(rows) != 0 {
				t.Errorf("the merged entity is still listed: %v", rows)
			}
		}
	}
	if got := f.members(ext); !slices.Equal(got, []string{to.ID}) {
		t.Errorf("the external group has %v", got)
	}
	f.groupOf("team", from.ID) // by the id that means another one now
	if got := f.members(g); !slices.Equal(got, []string{to.ID}) {
		t.Errorf("the group has %v, want %v", got, to.ID)
	}
	f.groupOf("team", from.ID, to.ID)
	if got := f.members(g); !slices.Equal(got, []string{to.ID}) {
		t.Errorf("the group has %v, want %v", got, to.ID)
	}
	if !slices.Contains(f.policies(to.ID), "of-team") {
		t.Error("the group's policies are lost")
	}
}

func TestDisabledEntitiesAreNotMerged(t *testing.T) {
	f := newFixture(t)
	to, from := f.person("to"), f.login("bob")
	yes, no := true, false
	_, _, err := f.WriteEntity(f.ctx(), from.ID, EntityChange{Disabled: &yes})
	must(t, err)
	refused(t, f.mergeInto(to.ID, from.ID), fault.Invalid, "is disabled")
	if e := f.login("bob"); !e.Disabled || e.ID != from.ID {
		t.Errorf("the disabled entity logs in as %+v", e)
	}
	// The other way round the one that works stops working, which gives nothing.
	_, _, err = f.WriteEntity(f.ctx(), from.ID, EntityChange{Disabled: &no})
	must(t, err)
	_, _, err = f.WriteEntity(f.ctx(), to.ID, EntityChange{Disabled: &yes})
	must(t, err)
	must(t, f.mergeInto(to.ID, from.ID))
	if e := f.login("bob"); !e.Disabled {
		t.Error("an entity merged into a disabled one works")
	}
}
