package tokens

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

var lifeRoutes = []route.Route[*Tokens]{
	route.New("GET", "lookup", "Read about the calling token.", (*Tokens).lookup,
		route.Shows("lookup", "", "")),
	route.New("POST", "lookup", "Read about a token.", (*Tokens).lookup, route.Reads(),
		route.Shows("lookup", `{"token":"hvs.…"}`, "")),
	route.New("GET", "lookup-self", "Read about the calling token.", (*Tokens).lookupSelf,
		route.Shows("lookup-self", "", "")),
	route.New("POST", "lookup-self", "Read about the calling token.", (*Tokens).lookupSelf, route.Reads(),
		route.Shows("lookup-self", "", "")),
	route.New("POST", "lookup-accessor", "Read about the token of an accessor.", (*Tokens).lookupAccessor, route.Reads(),
		route.Shows("lookup-accessor", `{"accessor":"kq7Qe0LsvPZ0bq2v7zN3Jm4x"}`, "")),
	route.New("POST", "renew", "Extend a token's life.", (*Tokens).renew,
		route.Shows("renew", `{"token":"hvs.…","increment":"1h"}`, "")),
	route.New("POST", "renew-self", "Extend the calling token's life.", (*Tokens).renewSelf,
		route.Shows("renew-self", `{"increment":"1h"}`, "")),
	route.New("POST", "renew-accessor", "Extend the life of the token of an accessor.", (*Tokens).renewAccessor,
		route.Shows("renew-accessor", `{"accessor":"kq7Qe0LsvPZ0bq2v7zN3Jm4x","increment":"1h"}`, "")),
	route.New("POST", "revoke", "End a token and everything below it.", (*Tokens).revoke,
		route.Shows("revoke", `{"token":"hvs.…"}`, "")),
	route.New("POST", "revoke-self", "End the calling token and everything below it.", (*Tokens).revokeSelf,
		route.Shows("revoke-self", "", "")),
	route.New("POST", "revoke-accessor", "End the token of an accessor and everything below it.", (*Tokens).revokeAccessor,
		route.Shows("revoke-accessor", `{"accessor":"kq7Qe0LsvPZ0bq2v7zN3Jm4x"}`, "")),
	route.New("POST", "revoke-orphan", "End a token and leave its children, which become orphans.", (*Tokens).revokeOrphan, route.Sudo(),
		route.Shows("revoke-orphan", `{"token":"hvs.…"}`, "")),
	route.New("LIST", "accessors", "List the accessors of all tokens.", (*Tokens).accessors, route.Sudo(),
		route.Shows("accessors", "", `{"keys":["kq7Qe0LsvPZ0bq2v7zN3Jm4x"]}`)),
	route.New("POST", "tidy", "Remove at once what is left of tokens that ended; this happens by itself too.", (*Tokens).tidy,
		route.Shows("tidy", "", "")),
}

// OfToken names a token.
type OfToken struct {
	Token wire.Secret `json:"token" doc:"The token."`
}

// OfAccessor names a token by its accessor.
type OfAccessor struct {
	Accessor string `json:"accessor" doc:"The token's accessor."`
}

// Extension is how much longer a token is to live.
type Extension struct {
	Increment wire.Seconds `json:"increment" doc:"How long it is to live from now on, if it may; left out, as it was created."`
}

// Meta is a token's metadata, answered as null when there is none.
type Meta map[string]string

// MarshalJSON writes an object with its keys in order, or null.
func (m Meta) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]string(m)) }

// Looked is what is known of a token. Its parent is left out: whoever knew it
// could act on more than the token at hand.
type Looked struct {
	ID               wire.Secret  `json:"id" doc:"The token, empty when it was asked for by its accessor."`
	Accessor         string       `json:"accessor" doc:"By which the token is looked up, renewed and revoked without being known."`
	Policies         wire.Strings `json:"policies" doc:"Its policies."`
	IdentityPolicies wire.Strings `json:"identity_policies,omitempty" doc:"Policies that its entity adds."`
	Path             string       `json:"path" doc:"Of the request that created it."`
	Meta             Meta         `json:"meta" doc:"null when there is none."`
	DisplayName      string       `json:"display_name" doc:"For logs."`
	NumUses          int          `json:"num_uses" doc:"Uses left; 0 is any number."`
	Orphan           bool         `json:"orphan" doc:"Whether it has no parent, so that no other revocation ends it."`
	CreationTime     int64        `json:"creation_time" doc:"In seconds since 1970."`
	CreationTTL      wire.Seconds `json:"creation_ttl" doc:"How long it was created for, in seconds."`
	ExpireTime       *wire.Time   `json:"expire_time" doc:"null for a token that never ends."`
	TTL              wire.Seconds `json:"ttl" doc:"What is left; 0 for a token that never ends."`
	ExplicitMaxTTL   wire.Seconds `json:"explicit_max_ttl" doc:"After this many seconds it ends, whatever happens; 0 is no such end."`
	EntityID         string       `json:"entity_id" doc:"The entity that holds it."`
	Type             token.Type   `json:"type" doc:"service or batch."`
	Renewable        bool         `json:"renewable" doc:"Whether it may be renewed."`
	IssueTime        wire.Time    `json:"issue_time" doc:"When it was created."`
	LastRenewalTime  int64        `json:"last_renewal_time,omitzero" doc:"In seconds since 1970."`
	LastRenewal      wire.Time    `json:"last_renewal,omitzero" doc:"When it was last renewed."`
	Role             string       `json:"role,omitzero" doc:"The role that made it."`
	Period           wire.Seconds `json:"period,omitzero" doc:"Each renewal starts this many seconds anew."`
	BoundCIDRs       wire.Strings `json:"bound_cidrs,omitempty" doc:"Networks from which it is accepted."`
}

func (t *Tokens) looked(ctx context.Context, tok *token.Token, secret wire.Secret) (Looked, error) {
	orphan, err := t.Store.Orphaned(ctx, tok)
	if err != nil {
		return Looked{}, err
	}
	added, err := t.IdentityPolicies(ctx, tok)
	if err != nil {
		return Looked{}, err
	}
	out := Looked{
		ID: secret, Accessor: tok.Accessor, Policies: tok.Policies, IdentityPolicies: added, Path: tok.Path,
		Meta: Meta(tok.Meta), DisplayName: tok.DisplayName, NumUses: tok.NumUses, Orphan: orphan,
		CreationTime: tok.CreatedAt.Unix(), CreationTTL: wire.Seconds(tok.TTL), TTL: wire.Seconds(left(tok)),
		ExplicitMaxTTL: wire.Seconds(tok.Terms.ExplicitMax), EntityID: tok.EntityID, Type: tok.Type, Renewable: tok.Renewable,
		IssueTime: wire.Time{Time: tok.CreatedAt}, LastRenewal: wire.Time{Time: tok.RenewedAt}, Role: tok.Role,
		Period: wire.Seconds(tok.Terms.Period),
	}
	if !tok.ExpiresAt.IsZero() {
		out.ExpireTime = &wire.Time{Time: tok.ExpiresAt}
	}
	if !tok.RenewedAt.IsZero() {
		out.LastRenewalTime = tok.RenewedAt.Unix()
	}
	for _, c := range tok.BoundCIDRs {
		out.BoundCIDRs = append(out.BoundCIDRs, c.String())
	}
	return out, nil
}

// left is what a token has to live, rounded so that one of an hour that was made
// a moment ago has an hour.
func left(tok *token.Token) time.Duration { return tok.Remaining().Round(time.Second) }

func (t *Tokens) lookup(ctx context.Context, by route.Caller, in OfToken) (Looked, error) {
	if in.Token == "" {
		return t.lookupSelf(ctx, by, route.Nothing{})
	}
	tok, err := t.Store.Lookup(ctx, in.Token.Reveal())
	if err != nil {
		return Looked{}, err
	}
	return t.looked(ctx, tok, in.Token)
}

func (t *Tokens) lookupSelf(ctx context.Context, by route.Caller, _ route.Nothing) (Looked, error) {
	tok, err := t.Store.Self(ctx, by.Token)
	if err != nil {
		return Looked{}, err
	}
	return t.looked(ctx, tok, wire.Secret(by.Token))
}

func (t *Tokens) lookupAccessor(ctx context.Context, _ route.Caller, in OfAccessor) (Looked, error) {
	tok, err := t.byAccessor(ctx, in)
	if err != nil {
		return Looked{}, err
	}
	return t.looked(ctx, tok, "")
}

func (t *Tokens) byAccessor(ctx context.Context, in OfAccessor) (*token.Token, error) {
	if in.Accessor == "" {
		return nil, fault.New(fault.Invalid, "missing accessor")
	}
	return t.Store.ByAccessor(ctx, in.Accessor)
}

// named returns the token that a request names; what says what for.
func (t *Tokens) named(ctx context.Context, secret wire.Secret, missing string) (*token.Token, error) {
	if secret == "" {
		return nil, fault.New(fault.Invalid, "missing token ID")
	}
	tok, err := t.Store.Lookup(ctx, secret.Reveal())
	if fault.Is(err, fault.Denied) {
		return nil, fault.New(fault.Invalid, "%s", missing)
	}
	return tok, err
}

// Renew asks for more life of a token.
type Renew struct {
	OfToken
	Extension
}

// RenewAccessor asks for more life of the token of an accessor.
type RenewAccessor struct {
	OfAccessor
	Extension
}

func (t *Tokens) renew(ctx context.Context, by route.Caller, in Renew) (*token.Issued, error) {
	tok, err := t.named(ctx, in.Token, "token not found")
	if err != nil {
		return nil, err
	}
	return t.extend(ctx, by, tok, in.Token, in.Extension)
}

func (t *Tokens) renewSelf(ctx context.Context, by route.Caller, in Extension) (*token.Issued, error) {
	tok, err := t.Store.Self(ctx, by.Token)
	if err != nil {
		return nil, err
	}
	return t.extend(ctx, by, tok, wire.Secret(by.Token), in)
}

func (t *Tokens) renewAccessor(ctx context.Context, by route.Caller, in RenewAccessor) (*token.Issued, error) {
	tok, err := t.byAccessor(ctx, in.OfAccessor)
	if err != nil {
		return nil, err
	}
	return t.extend(ctx, by, tok, "", in.Extension)
}

func (t *Tokens) extend(ctx context.Context, by route.Caller, tok *token.Token, secret wire.Secret, in Extension) (*token.Issued, error) {
	if tok.Type == token.Batch {
		return nil, fault.New(fault.Invalid, "batch tokens cannot be renewed")
	}
	terms, err := t.terms(ctx, by, tok)
	if err != nil {
		return nil, err
	}
	out, err := t.Store.Renew(ctx, tok.ID, token.Renewal{Increment: in.Increment.Duration(), Terms: terms})
	if err != nil {
		return nil, err
	}
	out.Secret = secret
	return out, nil
}

func (t *Tokens) revoke(ctx context.Context, _ route.Caller, in OfToken) (route.Empty, error) {
	if in.Token == "" {
		return route.Empty{}, fault.New(fault.Invalid, "missing token ID")
	}
	tok, err := t.Store.Lookup(ctx, in.Token.Reveal())
	if fault.Is(err, fault.Denied) {
		return route.Empty{}, nil // it does not hold, which is what was asked
	}
	if err != nil {
		return route.Empty{}, err
	}
	return t.finish(ctx, tok)
}

func (t *Tokens) revokeSelf(ctx context.Context, by route.Caller, _ route.Nothing) (route.Empty, error) {
	tok, err := t.Store.Self(ctx, by.Token)
	if err != nil {
		return route.Empty{}, err
	}
	return t.finish(ctx, tok)
}

func (t *Tokens) finish(ctx context.Context, tok *token.Token) (route.Empty, error) {
	if tok.Type == token.Batch {
		return route.Empty{}, errBatch()
	}
	return route.Empty{}, t.Store.Revoke(ctx, tok.ID)
}

func errBatch() error { return fault.New(fault.Invalid, "batch tokens cannot be revoked") }

func (t *Tokens) revokeAccessor(ctx context.Context, _ route.Caller, in OfAccessor) (route.Empty, error) {
	var out route.Empty
	if in.Accessor == "" {
		return out, fault.New(fault.Invalid, "missing accessor")
	}
	err := t.Store.RevokeAccessor(ctx, in.Accessor)
	if fault.Is(err, fault.Invalid) {
		out.Warn("No token found with this accessor")
		return out, nil
	}
	return out, err
}

func (t *Tokens) revokeOrphan(ctx context.Context, _ route.Caller, in OfToken) (route.Empty, error) {
	tok, err := t.named(ctx, in.Token, "token to revoke not found")
	if err != nil {
		return route.Empty{}, err
	}
	if tok.Type == token.Batch {
		return route.Empty{}, errBatch()
	}
	return route.Empty{}, t.Store.RevokeOrphan(ctx, tok.ID)
}

func (t *Tokens) accessors(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	names, err := t.Store.Accessors(ctx, in.After, limit(in))
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: names}.Found()
}

// limit is how many names a page has.
func limit(in route.Page) int {
	if in.Limit <= 0 || in.Limit > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(in.Limit)
}

func (t *Tokens) tidy(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	return route.Empty{}, t.Store.Tidy(ctx)
}
