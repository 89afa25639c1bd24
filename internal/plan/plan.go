// Package plan compares a directory of policies, mounts and roles with a server, and
// makes the server as the directory says, one item after the other. What it made is
// remembered on the server, so that it can tell what others changed since, and what it
// may remove once the directory has it no more.
//
// It speaks to servers through package client, with the rights of whoever runs it. It
// prints nothing, and runs no tests: those who call it do.
package plan

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/policy/directory"
	"github.com/cofferhq/coffer/internal/policy/policystore"
)

// readers is how many items are read from the server at once.
const readers = 8

// Action is what is to be done with an item.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
	// Adopt remembers an item that is as the directory says and that nobody
	// remembers, or not as it is.
	Adopt Action = "adopt"
	// Forget forgets an item that neither the server nor the directory has any more.
	Forget Action = "forget"
	// Keep leaves an item alone that the directory has no more: it is deleted only
	// where that was asked for.
	Keep Action = "keep"
	Same Action = "none"
)

// Change is what is to be done with one item, and why.
type Change struct {
	Action  Action `json:"action"`
	ID      string `json:"id"`             // "policy:app", "mount:secret/", "path:auth/approle/role/ci"
	File    string `json:"file,omitempty"` // that says so
	Drifted bool   `json:"drifted"`        // others changed it since it was applied
	Diff    string `json:"diff,omitempty"` // what changes, for people: lines that begin with - and +
	Note    string `json:"note,omitempty"` // what cannot be seen or done
	Seen    string `json:"seen"`           // fingerprint of what the server has

	item item
	live state
}

// Plan is all changes, in the order in which they are made.
type Plan struct {
	Set       string   `json:"set"`
	Revision  uint64   `json:"revision"` // of what is remembered
	Changes   []Change `json:"changes"`
	Unmanaged []string `json:"unmanaged,omitempty"` // policies that no directory of this set has or had

	remembered map[string]policystore.AppliedItem
}

// Options say what a plan is about.
type Options struct {
	Client *client.Client
	Set    string // names the directory on the server; sets do not know of each other
	// Prune deletes what this set once made and the directory has no more: policies
	// and what was written to paths. PruneMounts does so with mounts, which destroys
	// all that is in them.
	Prune, PruneMounts bool
}

// item is one thing that the directory says, or once said.
type item interface {
	id() string
	file() string
	// read returns what the server has. fields are those that the fingerprint of a
	// remembered one is of.
	read(ctx context.Context, s *server, fields []string) (state, error)
	// compare returns the lines in which the server differs from the directory, ""
	// where it does not, and what cannot be compared.
	compare(live state) (diff, note string)
	// write makes the server as the directory says, where it still has live.
	write(ctx context.Context, s *server, live state) error
	remove(ctx context.Context, s *server, live state) error
	// fields are the names that a fingerprint of it is of.
	fields() []string
}

// state is what the server has of an item.
type state struct {
	there       bool
	text        string                     // of a policy
	values      map[string]json.RawMessage // of what has fields
	fingerprint string                     // of the item's fields; "none" where it is not there
	remembered  string                     // of the remembered fields
}

// Make compares a directory with a server. It changes nothing.
func Make(ctx context.Context, d *directory.Directory, o Options) (*Plan, error) {
	s, err := reach(ctx, o.Client)
	if err != nil {
		return nil, err
	}
	p := &Plan{Set: o.Set, remembered: map[string]policystore.AppliedItem{}}
	if err := p.recall(ctx, s); err != nil {
		return nil, err
	}
	items := itemsOf(d)
	wanted := map[string]bool{}
	for _, it := range items {
		wanted[it.id()] = true
	}
	var gone []item
	for id := range p.remembered {
		if !wanted[id] {
			gone = append(gone, itemNamed(id))
		}
	}
	// What is removed is removed in the other order: roles before policies before
	// mounts.
	slices.SortFunc(gone, func(a, b item) int {
		return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a.id(), b.id()))
	})
	if p.Changes, err = changes(ctx, s, p, items, gone, &o); err != nil {
		return nil, err
	}
	for _, name := range s.policies {
		if id := "policy:" + name; name != "root" && name != "default" && !wanted[id] && p.remembered[id].ID == "" {
			p.Unmanaged = append(p.Unmanaged, name)
		}
	}
	return p, nil
}

// rank is the place of an item's kind among the others.
func rank(it item) int {
	kind, _, _ := strings.Cut(it.id(), ":")
	return slices.Index([]string{"mount", "policy", "path"}, kind)
}

// recall reads what is remembered of the set.
func (p *Plan) recall(ctx context.Context, s *server) error {
	var all struct {
		Revision uint64                    `json:"revision"`
		Items    []policystore.AppliedItem `json:"items"`
	}
	if err := s.get(ctx, "sys/policies/applied/"+p.Set, &all); err != nil {
		return err
	}
	p.Revision = all.Revision
	for _, item := range all.Items {
		if itemNamed(item.ID) != nil {
			p.remembered[item.ID] = item
		}
	}
	return nil
}

func changes(ctx context.Context, s *server, p *Plan, items, gone []item, o *Options) ([]Change, error) {
	all := slices.Concat(items, gone)
	out := make([]Change, len(all))
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(readers)
	for i, it := range all {
		work.Go(func() error {
			was := p.remembered[it.id()]
			live, err := it.read(ctx, s, was.Fields)
			if err != nil {
				return fmt.Errorf("%s: %w", it.id(), err)
			}
			c := Change{ID: it.id(), File: it.file(), Seen: live.fingerprint, item: it, live: live}
			c.Drifted = was.ID != "" && was.Fingerprint != live.remembered
			if i < len(items) {
				c.choose(was.ID != "")
			} else {
				c.chooseGone(o)
			}
			out[i] = c
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// choose says what to do with an item that the directory has.
func (c *Change) choose(remembered bool) {
	diff, note := c.item.compare(c.live)
	c.Note = note
	switch {
	case !c.live.there:
		c.Action, c.Diff = Create, diff
	case diff != "":
		c.Action, c.Diff = Update, diff
	case !remembered || c.Drifted:
		c.Action = Adopt
	default:
		c.Action = Same
	}
}

// chooseGone says what to do with an item that the directory has no more.
func (c *Change) chooseGone(o *Options) {
	prune, flag := o.Prune, "-prune"
	if strings.HasPrefix(c.ID, "mount:") {
		prune, flag = o.PruneMounts, "-prune-mounts"
	}
	switch {
	case !c.live.there:
		c.Action, c.Drifted = Forget, false
	case c.ID == "policy:default":
		c.Action, c.Note = Forget, "the policy default cannot be deleted; it stays as it is"
	case prune:
		c.Action = Delete
	default:
		c.Action, c.Note = Keep, "the directory has it no more; "+flag+" deletes it"
	}
}

// changing reports whether an action changes what the server has, not only what is
// remembered of it.
func (a Action) changing() bool { return a == Create || a == Update || a == Delete }

// Pending reports whether applying the plan would change what the server has.
func (p *Plan) Pending() bool {
	return slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Action.changing() })
}

// Count returns how many changes have an action.
func (p *Plan) Count(a Action) int {
	n := 0
	for i := range p.Changes {
		if p.Changes[i].Action == a {
			n++
		}
	}
	return n
}

// Name tells the plan from others: it is the same for as long as the directory says
// the same and the server has the same. 16 hex digits.
func (p *Plan) Name() string {
	h := sha256.New()
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Action.changing() {
			fmt.Fprintf(h, "%q %q %q %q\n", c.Action, c.ID, c.Seen, c.Diff)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
