package gateway

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/access"
	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/factor"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
)

// grant makes the token of a login, and wraps the answer when that was asked.
func (g *Gateway) grant(ctx context.Context, t *turn) error {
	var err error
	switch out := t.output.(type) {
	case auth.Login:
		t.output, err = g.login(ctx, t, out)
	case *factor.Waiting:
		t.output, err = g.complete(ctx, t, out)
	}
	if err != nil {
		return err
	}
	if _, waits := t.output.(*waiting); waits {
		return nil // there is no token to wrap
	}
	if issued := t.issued(); issued != nil {
		if home := t.services.Realms.Of(issued.Token.Namespace); home != nil {
			rights, err := home.Access.Of(ctx, issued.Token)
			if err != nil {
				return err
			}
			issued.Identity = rights.Identity
		}
	}
	if t.wrapTTL == 0 || t.services == nil || t.notes.Status >= 300 {
		return nil
	}
	if _, streams := t.output.(route.Stream); streams {
		return fault.New(fault.Invalid, "this answer is streamed, and cannot be wrapped; ask for it without X-Vault-Wrap-TTL")
	}
	return g.wrap(ctx, t)
}

// login answers a proven identity: with a token, or with what it has to prove besides.
func (g *Gateway) login(ctx context.Context, t *turn, login auth.Login) (any, error) {
	entity, err := g.enter(ctx, t, login)
	if err != nil {
		return nil, err
	}
	wait, err := g.factors(ctx, t, entity, login)
	if err != nil {
		return nil, err
	}
	if wait != nil {
		return wait, nil
	}
	return g.mint(ctx, t, t.mount.Entry, t.Path, entity, login)
}

// mint makes the token of a login that the auth method at e granted.
func (g *Gateway) mint(ctx context.Context, t *turn, e *mount.Entry, path, entity string, login auth.Login) (*token.Issued, error) {
	bounds, err := prefixes(login.BoundCIDRs)
	if err != nil {
		return nil, err
	}
	if !within(bounds, t.Remote.Addr()) {
		return nil, t.deny("the login is bound to networks that the client's address is not in", "log in from one of them")
	}
	granted, err := json.Marshal(login)
	if err != nil {
		return nil, err
	}
	kind, err := tokenType(e.Config.TokenType, login.Type)
	if err != nil {
		return nil, err
	}
	return t.realm.Tokens.Issue(ctx, nil, token.Request{
		Path: path, DisplayName: login.DisplayName, Policies: login.Policies, NoDefaultPolicy: bool(login.NoDefault),
		Meta: login.Metadata, Type: kind, NumUses: int(login.NumUses), BoundCIDRs: bounds,
		EntityID: entity, Mount: e.Accessor, Login: granted,
		Terms: lifetime.Terms{
			TTL: login.TTL.Duration(), MaxTTL: login.MaxTTL.Duration(),
			ExplicitMax: login.ExplicitMax.Duration(), Period: login.Period.Duration(),
			MountDefault: e.Config.DefaultTTL.Duration(), MountMax: e.Config.MaxTTL.Duration(),
		},
	})
}

// enter returns the id of the entity that logs in, "" for a login without a name.
func (g *Gateway) enter(ctx context.Context, t *turn, login auth.Login) (string, error) {
	if login.Alias == "" {
		return "", nil
	}
	about := login.AliasMetadata
	if about == nil {
		about = login.Metadata
	}
	e, err := t.realm.Identities.Enter(ctx, identity.Login{
		Mount: t.mount.Entry.Accessor, Name: login.Alias, Metadata: about, Groups: login.Groups,
	})
	if err != nil {
		return "", err
	}
	if e.Disabled {
		return "", t.deny("the entity is disabled", "ask whoever disabled it")
	}
	return e.ID, nil
}

// tokenType decides between what the mount says and what the login asks for:
// "service" and "batch" of a mount rule, its "default-" forms give way.
func tokenType(mount, login string) (token.Type, error) {
	asked := strings.TrimPrefix(login, "default-")
	ruled, soft := strings.CutPrefix(mount, "default-")
	switch {
	case asked == "" || asked == "default":
		asked = ruled
	case !soft && ruled != "" && ruled != asked:
		return "", fault.New(fault.Invalid, "the mount grants only %s tokens and the login asks for a %s token", ruled, asked)
	}
	if asked == "" {
		asked = string(token.Service)
	}
	return token.Type(asked), nil
}

// prefixes reads networks; a bare address is a network of its own.
func prefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fault.New(fault.Invalid, "%q is neither a network nor an address", text)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

// wrap puts the answer behind a single-use token and answers that token.
func (g *Gateway) wrap(ctx context.Context, t *turn) error {
	answer, err := t.succeeded()
	if err != nil {
		return err
	}
	if len(answer.Body) == 0 {
		return nil // there is nothing to wrap
	}
	info, err := t.realm.Tokens.Wrap(ctx, token.WrapRequest{
		Body: answer.Body, TTL: t.wrapTTL, CreationPath: t.Path, WrappedAccessor: t.wrappedAccessor(),
	})
	if err != nil {
		return err
	}
	t.output, t.warnings, t.notes.Warnings, t.notes.LeaseDuration, t.notes.Lease = info, nil, nil, 0, nil
	return nil
}

// takeBack ends what was lent to a caller who is not told of it.
func (g *Gateway) takeBack(ctx context.Context, t *turn) {
	if err := t.services.Leases.Revoke(ctx, t.lent.Key, false); err != nil {
		g.Log.Warn("what was lent for an answer that failed is taken back when its lease expires", "lease", t.lent.ID, "error", err)
	}
}

func (t *turn) wrappedAccessor() string {
	if issued := t.issued(); issued != nil {
		return issued.Token.Accessor
	}
	return ""
}

// issued returns the token that the request made, or nil.
func (t *turn) issued() *token.Issued {
	issued, _ := t.output.(*token.Issued)
	return issued
}

// authBlock is a new token in Vault's shape.
type authBlock struct {
	ClientToken      string            `json:"client_token"`
	Accessor         string            `json:"accessor"`
	Policies         []string          `json:"policies"`
	TokenPolicies    []string          `json:"token_policies"`
	IdentityPolicies []string          `json:"identity_policies,omitempty"`
	Metadata         map[string]string `json:"metadata"`
	LeaseDuration    int64             `json:"lease_duration"`
	Renewable        bool              `json:"renewable"`
	EntityID         string            `json:"entity_id"`
	TokenType        string            `json:"token_type"`
	Orphan           bool              `json:"orphan"`
	MFARequirement   *mfaRequirement   `json:"mfa_requirement"`
	NumUses          int               `json:"num_uses"`
}

func block(i *token.Issued) authBlock {
	t := i.Token
	return authBlock{
		ClientToken: i.Secret.Reveal(), Accessor: t.Accessor, Policies: access.Union(t.Policies, i.Identity),
		TokenPolicies: t.Policies, IdentityPolicies: i.Identity, Metadata: t.Meta,
		LeaseDuration: int64(i.TTL / time.Second), Renewable: t.Renewable, EntityID: t.EntityID,
		TokenType: t.Type.String(), Orphan: t.Orphan, NumUses: t.NumUses,
	}
}
