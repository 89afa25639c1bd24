package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Request says what token to make. Derive makes one of what a client asked;
// the gateway makes one of what an auth method granted.
type Request struct {
	ID              string // a token chosen by a root caller; "" makes one
	Path            string // of the request that creates it
	DisplayName     string
	EntityID        string
	Policies        []string
	NoDefaultPolicy bool // leave "default" out
	Meta            map[string]string
	Type            Type // "", "default" and "default-service" are Service, "default-batch" is Batch
	Orphan          bool // without a parent although there is one
	NotRenewable    bool
	NumUses         int
	BoundCIDRs      []netip.Prefix
	Role            string
	Mount           string // accessor of the auth mount that grants it
	Login           json.RawMessage
	Terms           lifetime.Terms
	// Initial makes a root token without a parent: the server's own first one,
	// or one made by a quorum of its key holders.
	Initial bool
}

// Create makes a token. parent is nil for a login and for an initial root
// token, which are orphans. Errors are faults of kind Invalid that say which
// rule was broken, or Denied when the parent ended meanwhile.
func (s *Store) Create(ctx context.Context, parent *Token, r Request) (wire.Secret, *Token, error) {
	issued, err := s.Issue(ctx, parent, r)
	if err != nil {
		return "", nil, err
	}
	return issued.Secret, issued.Token, nil
}

// Issue is Create with the warnings that the client is to be shown.
func (s *Store) Issue(ctx context.Context, parent *Token, r Request) (*Issued, error) {
	tok, warnings, err := s.draft(parent, r, time.Now())
	if err != nil {
		return nil, err
	}
	out := &Issued{Token: tok, TTL: tok.TTL}
	out.Warnings = warnings
	if tok.Type == Batch {
		return s.issueBatch(ctx, parent, out)
	}
	secret := r.ID
	if secret == "" {
		secret = newSecret()
	} else if err := checkChosen(secret); err != nil {
		return nil, err
	}
	tok.ID, tok.Accessor = s.hash.id(secret), s.newAccessor()
	if _, err := s.storage.Update(ctx, func(t storage.Txn) error {
		if err := creatorHolds(t, parent); err != nil {
			return err
		}
		return insert(t, tok)
	}); err != nil {
		return nil, err
	}
	out.Secret = wire.Secret(secret)
	return out, nil
}

// insert writes a new token's rows.
func insert(t storage.Txn, tok *Token) error {
	switch _, err := t.Get(idKey(tok.ID)); {
	case err == nil:
		return invalid("cannot create a token with a duplicate ID")
	case !errors.Is(err, storage.ErrNotFound):
		return err
	}
	if _, err := t.Get(endingKey(tok.ID)); err == nil {
		return invalid("a token with this ID was revoked a moment ago and is still being removed; try again")
	}
	if tok.Parent != "" {
		if err := t.Put(childKey(tok.Parent, tok.ID), nil); err != nil {
			return err
		}
	}
	if err := t.Put(accessorKey(tok.Accessor), []byte(tok.ID)); err != nil {
		return err
	}
	return put(t, tok, nil)
}

// creatorHolds returns errBad when the token that creates another one ended
// since its request began. It is asked for orphans too: a revoked token leaves
// nothing behind.
func creatorHolds(r storage.Reader, parent *Token) error {
	if parent == nil {
		return nil
	}
	_, err := readHolding(r, parent.ID)
	return err
}

// draft is the token that is asked for, without id and accessor, once the rules
// were checked that hold whoever asks.
func (s *Store) draft(parent *Token, r Request, now time.Time) (*Token, []string, error) {
	tok := &Token{
		Path: r.Path, Namespace: s.namespace, DisplayName: r.DisplayName, EntityID: r.EntityID,
		Meta: r.Meta, Type: r.Type, NumUses: r.NumUses, BoundCIDRs: r.BoundCIDRs, Role: r.Role, Mount: r.Mount,
		Login: r.Login, Terms: r.Terms, CreatedAt: now, Renewable: !r.NotRenewable,
		Policies: normal(r.Policies, !r.NoDefaultPolicy),
	}
	switch tok.Type {
	case "", "default", defaultService:
		tok.Type = Service
	case defaultBatch:
		tok.Type = Batch
	}
	if r.NoDefaultPolicy {
		tok.Policies = slices.DeleteFunc(tok.Policies, func(p string) bool { return p == DefaultPolicy })
	}
	if err := fromParent(tok, parent, r); err != nil {
		return nil, nil, err
	}
	if err := check(tok, r); err != nil {
		return nil, nil, err
	}
	var warnings []string
	if t := r.Terms; !tok.Root() || t.TTL > 0 || t.Period > 0 {
		var err error
		if tok.TTL, warnings, err = t.Left(s.defaults, 0, now, now); err != nil {
			return nil, nil, err
		}
	} else {
		tok.TTL = t.ExplicitMax // a root token ends only where it was asked to
	}
	if tok.TTL > 0 {
		tok.ExpiresAt = now.Add(tok.TTL)
		return tok, warnings, nil
	}
	if parent != nil && !parent.ExpiresAt.IsZero() {
		return nil, nil, invalid("expiring root tokens cannot create non-expiring root tokens")
	}
	tok.Renewable, tok.BoundCIDRs = false, nil
	return tok, warnings, nil
}

// fromParent checks what a parent allows and hangs the token below it.
func fromParent(tok, parent *Token, r Request) error {
	if parent == nil {
		tok.Orphan = true
		if tok.Root() && !r.Initial {
			return invalid("auth methods cannot create root tokens")
		}
		return nil
	}
	switch {
	case parent.Type == Batch:
		return invalid("batch tokens cannot create more tokens")
	case parent.NumUses > 0 || parent.State == spent:
		return invalid("restricted use token cannot generate child tokens")
	case tok.Root() && !parent.Root():
		return invalid("root tokens may not be created without parent token being root")
	}
	if r.Orphan {
		tok.Orphan = true
		return nil
	}
	tok.Parent, tok.Depth = parent.ID, parent.Depth+1
	if tok.Depth > MaxDepth {
		return invalid("a token has at most %d ancestors; create this one as an orphan, or by a token nearer to the root", MaxDepth)
	}
	return nil
}

// check refuses what no token may be.
func check(tok *Token, r Request) error {
	for _, p := range tok.Policies {
		if p == WrappingPolicy {
			return invalid("cannot assign policy %q", p)
		}
	}
	t := r.Terms
	switch {
	case tok.NumUses < 0:
		return invalid("number of uses cannot be negative")
	case t.TTL < 0 || t.MaxTTL < 0:
		return invalid("ttl must be positive")
	case t.ExplicitMax < 0:
		return invalid("explicit_max_ttl must be positive")
	case t.Period < 0:
		return invalid("period must be positive")
	case tok.Root() && tok.Namespace != "":
		return invalid("root tokens belong to the root namespace")
	case tok.Type != Service && tok.Type != Batch:
		return invalid("invalid 'token_type' value")
	case tok.Type == Service:
		return nil
	case t.ExplicitMax != 0:
		return invalid("batch tokens cannot have %q set", "explicit_max_ttl")
	case tok.NumUses != 0:
		return invalid("batch tokens cannot have %q set", "num_uses")
	case t.Period != 0:
		return invalid("batch tokens cannot have %q set", "period")
	case tok.Root():
		return invalid("batch tokens cannot be root tokens")
	case r.ID != "":
		return invalid("a batch token's ID cannot be chosen")
	}
	tok.Renewable = false
	return nil
}

// normal returns policies as Vault keeps them: trimmed, in lower case, sorted,
// each once, "root" alone, with "default" where it is to be added.
func normal(policies []string, addDefault bool) []string {
	out := make([]string, 0, len(policies)+1)
	for _, p := range policies {
		p = strings.ToLower(strings.TrimSpace(p))
		if p == RootPolicy {
			return []string{RootPolicy}
		}
		if p != "" {
			out = append(out, p)
		}
	}
	if addDefault {
		out = append(out, DefaultPolicy)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// issueBatch seals a token into its own text.
func (s *Store) issueBatch(ctx context.Context, parent *Token, out *Issued) (*Issued, error) {
	tok := out.Token
	if err := s.storage.View(ctx, func(r storage.Reader) error { return creatorHolds(r, parent) }); err != nil {
		return nil, err
	}
	secret, err := s.sealBatch(tok)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, fmt.Errorf("seal a batch token: %w", err), "internal error")
	}
	if len(secret) > maxSecret {
		return nil, invalid("the batch token would have %d characters, beyond the limit of %d; give it fewer policies or less metadata", len(secret), maxSecret)
	}
	tok.ID = s.hash.id(secret)
	out.Secret = wire.Secret(secret)
	return out, nil
}
