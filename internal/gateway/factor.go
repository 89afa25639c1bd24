package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/factor"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/token"
)

// waiting is the answer to a login that needs a second factor.
type waiting struct {
	id    string
	rules []factor.Rule
	names map[string]string // of methods, by id
}

// mfaRequirement is what a login still has to prove, in Vault's shape.
type mfaRequirement struct {
	RequestID   string                   `json:"mfa_request_id"`
	Constraints map[string]mfaConstraint `json:"mfa_constraints"` // by rule
}

type mfaConstraint struct {
	Any []mfaMethod `json:"any"`
}

type mfaMethod struct {
	Type         string `json:"type"`
	ID           string `json:"id"`
	UsesPasscode bool   `json:"uses_passcode"`
	Name         string `json:"name,omitempty"`
}

func (w *waiting) requirement() *mfaRequirement {
	out := &mfaRequirement{RequestID: w.id, Constraints: map[string]mfaConstraint{}}
	for _, r := range w.rules {
		var any []mfaMethod
		for _, id := range r.Methods {
			any = append(any, mfaMethod{Type: factor.TOTP, ID: id, UsesPasscode: true, Name: w.names[id]})
		}
		out.Constraints[r.Name] = mfaConstraint{any}
	}
	return out
}

// factors asks for the second factors that a login needs: nil where it needs none, or
// where the request's headers prove them.
func (g *Gateway) factors(ctx context.Context, t *turn, entity string, login auth.Login) (*waiting, error) {
	e := t.mount.Entry
	rules, err := t.realm.Factors.Needed(ctx, entity, e.Accessor, e.Type)
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	if len(t.Factors) > 0 {
		given := map[string][]string{}
		for _, text := range t.Factors { // "method:passcode", by the method's id or name
			method, passcode, _ := strings.Cut(text, ":")
			given[method] = append(given[method], passcode)
		}
		return nil, t.realm.Factors.Prove(ctx, entity, rules, given)
	}
	proven, err := json.Marshal(login)
	if err != nil {
		return nil, err
	}
	id, err := t.realm.Factors.Begin(ctx, factor.Waiting{Login: proven, Entity: entity, Mount: e.Accessor, Path: t.Path, Rules: rules})
	if err != nil {
		return nil, err
	}
	w := &waiting{id: id, rules: rules, names: map[string]string{}}
	methods, err := t.realm.Factors.Methods(ctx)
	for _, m := range methods {
		w.names[m.ID] = m.Name
	}
	return w, err
}

// complete mints the token of a login whose factors were proven. What could change
// while it waited is looked at again.
func (g *Gateway) complete(ctx context.Context, t *turn, w *factor.Waiting) (*token.Issued, error) {
	var login auth.Login
	if err := json.Unmarshal(w.Login, &login); err != nil {
		return nil, fmt.Errorf("a login that waited for its second factor cannot be read: %w", err)
	}
	var at *mount.Mounted
	for _, m := range t.realm.Mounts.List() {
		if m.Entry.Accessor == w.Mount {
			at = m
		}
	}
	who, err := t.realm.Identities.Who(ctx, w.Entity)
	switch {
	case err != nil:
		return nil, err
	case at == nil:
		return nil, t.deny("the auth method that the login began with was disabled", "log in by another method")
	case who == nil || who.Entity.Disabled:
		return nil, t.deny("the entity was disabled or deleted", "ask whoever looks after identities")
	}
	return g.mint(ctx, t, at.Entry, w.Path, who.Entity.ID, login)
}
