// Package access works out what the holder of a token may do: by the policies of
// the token, of the entity that holds it and of the groups that the entity is in.
// It is the one place that adds them up. What the policies then say of a request is
// package policy's; that it is asked, the gateway's.
package access

import (
	"context"
	"fmt"
	"slices"

	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/token"
)

// Rights are what the holder of a token may do now.
type Rights struct {
	ACL      *policy.ACL
	Policies []string      // all that count, sorted, each once
	Identity []string      // those that the entity and its groups add
	Who      *identity.Who // nil for a token that no entity holds
	// Barred says why the token may do nothing although it holds; "" when nothing
	// bars it.
	Barred string
}

// Book is where rights are looked up.
type Book struct {
	Policies   *policystore.Store
	Identities *identity.Store
}

// Of returns the rights of a token that holds.
func (b *Book) Of(ctx context.Context, tok *token.Token) (r Rights, err error) {
	r.Policies = tok.Policies
	var subject policystore.Subject
	if tok.EntityID != "" {
		if r.Who, err = b.Identities.Look(ctx, tok.EntityID); err != nil {
			return r, err
		}
		switch {
		case r.Who == nil:
			return barred("the entity that holds the token was deleted"), nil
		case r.Who.Entity.Disabled:
			return barred("the entity that holds the token is disabled"), nil
		case r.Who.Cut:
			return barred(fmt.Sprintf("the entity that holds the token is in more than %d groups, by itself and by other groups", identity.MaxAllGroups)), nil
		}
		r.Identity, subject = r.Who.Policies, r.Who
		r.Policies = Union(tok.Policies, r.Identity)
	}
	r.ACL, err = b.Policies.ACL(ctx, r.Policies, subject)
	return r, err
}

func barred(why string) Rights { return Rights{ACL: policy.Compile(), Barred: why} }

// Union returns the names in either of two sorted lists, sorted, each once.
func Union(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}
