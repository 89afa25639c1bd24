package gateway

import (
	"context"
	"encoding/json"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/quota"
)

// admit asks the quotas that need not know who asks: before anything is spent on a
// token that may be made up.
func (g *Gateway) admit(_ context.Context, t *turn) error { return t.admit(false) }

// admitKnown asks the quotas that count entities.
func (g *Gateway) admitKnown(_ context.Context, t *turn) error { return t.admit(true) }

func (t *turn) admit(known bool) error {
	if t.services == nil || t.services.Quotas == nil || !t.services.Quotas.Any() || t.spec != nil && t.spec.Sealed {
		return nil // what tells of the server is always told
	}
	ask := quota.Ask{
		Namespace: t.Namespace, Below: t.below, Address: t.Remote.Addr().Unmap().String(),
		Entity: t.caller.EntityID, Known: known,
	}
	if t.mount != nil {
		ask.Mount = t.mount.Entry.Path
		if t.spec != nil && t.spec.Public && t.services.Quotas.NeedsRole(ask.Namespace, ask.Mount) {
			ask.Role = t.loginRole()
		}
	}
	pass, err := t.services.Quotas.Admit(ask)
	t.passes = append(t.passes, pass)
	if err != nil {
		t.limited = true
		refused := fault.Wrap(fault.Limited, err, "request path %q: %s", t.Path, err)
		refused.RetryAfter = fault.From(err).RetryAfter
		return refused
	}
	return nil
}

// loginRole is the role that a login asks for, "" when it names none.
func (t *turn) loginRole() string {
	if t.parse() != nil {
		return ""
	}
	text, _ := t.params.Get("role")
	var role string
	if json.Unmarshal(text, &role) != nil {
		return ""
	}
	return role
}

// leave ends what the quotas count of requests under way.
func (t *turn) leave() {
	for i := range t.passes {
		t.passes[i].Done()
	}
}

// left is what the nearest quota still allows, nil where that is not to be told.
func (t *turn) left() (nearest *quota.Left) {
	for _, p := range t.passes {
		if p.Left != nil && (nearest == nil || p.Left.Remaining < nearest.Remaining) {
			nearest = p.Left
		}
	}
	return nearest
}
