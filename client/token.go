package client

import (
	"context"
	"net/http"
	"time"
)

// Tokens creates, looks up, renews and ends tokens.
type Tokens struct{ client *Client }

// Token returns the token routes.
func (c *Client) Token() Tokens { return Tokens{c} }

// TokenRequest says what token to create. The zero value is one with the
// caller's policies and the server's lifetime.
type TokenRequest struct {
	ID              Secret            `json:"id,omitzero"` // the token itself, chosen by a root caller
	Policies        []string          `json:"policies,omitzero"`
	NoDefaultPolicy bool              `json:"no_default_policy,omitzero"`
	Meta            map[string]string `json:"meta,omitzero"` // shown in lookups and the audit log
	DisplayName     string            `json:"display_name,omitzero"`
	Type            string            `json:"type,omitzero"`      // service or batch
	Renewable       *bool             `json:"renewable,omitzero"` // nil is true
	NumUses         int               `json:"num_uses,omitzero"`  // 0 is any number
	TTL             Seconds           `json:"ttl,omitzero"`
	ExplicitMaxTTL  Seconds           `json:"explicit_max_ttl,omitzero"`
	Period          Seconds           `json:"period,omitzero"`
}

// TokenInfo is what is known of a token.
type TokenInfo struct {
	ID               Secret            `json:"id"` // empty when it was looked up by its accessor
	Accessor         string            `json:"accessor"`
	Policies         []string          `json:"policies"`
	IdentityPolicies []string          `json:"identity_policies"`
	Path             string            `json:"path"` // of the request that created it
	Meta             map[string]string `json:"meta"`
	DisplayName      string            `json:"display_name"`
	NumUses          int               `json:"num_uses"` // left; 0 is any number
	Orphan           bool              `json:"orphan"`
	CreationTTL      Seconds           `json:"creation_ttl"`
	Expires          Time              `json:"expire_time"` // zero for a token that never ends
	TTL              Seconds           `json:"ttl"`         // what is left; 0 for a token that never ends
	ExplicitMaxTTL   Seconds           `json:"explicit_max_ttl"`
	EntityID         string            `json:"entity_id"`
	Type             string            `json:"type"`
	Renewable        bool              `json:"renewable"`
	Issued           Time              `json:"issue_time"`
	Role             string            `json:"role"`
	Period           Seconds           `json:"period"`
	BoundCIDRs       []string          `json:"bound_cidrs"`
}

// Create creates a token below the calling one.
func (t Tokens) Create(ctx context.Context, r TokenRequest) (*Auth, error) {
	return t.client.grant(ctx, post("auth/token/create", r))
}

// CreateOrphan creates a token that has no parent.
func (t Tokens) CreateOrphan(ctx context.Context, r TokenRequest) (*Auth, error) {
	return t.client.grant(ctx, post("auth/token/create-orphan", r))
}

// CreateByRole creates a token by a role.
func (t Tokens) CreateByRole(ctx context.Context, role string, r TokenRequest) (*Auth, error) {
	return t.client.grant(ctx, post("auth/token/create/"+role, r))
}

type ofToken struct {
	Token Secret `json:"token"`
}

type ofAccessor struct {
	Accessor string `json:"accessor"`
}

// LookupSelf returns what is known of the calling token.
func (t Tokens) LookupSelf(ctx context.Context) (*TokenInfo, error) {
	return t.lookup(ctx, get("auth/token/lookup-self"))
}

// Lookup returns what is known of a token.
func (t Tokens) Lookup(ctx context.Context, token Secret) (*TokenInfo, error) {
	return t.lookup(ctx, Request{Method: http.MethodPost, Path: "auth/token/lookup", Body: ofToken{token}, Reads: true})
}

// LookupAccessor returns what is known of the token of an accessor.
func (t Tokens) LookupAccessor(ctx context.Context, accessor string) (*TokenInfo, error) {
	return t.lookup(ctx, Request{Method: http.MethodPost, Path: "auth/token/lookup-accessor", Body: ofAccessor{accessor}, Reads: true})
}

func (t Tokens) lookup(ctx context.Context, r Request) (*TokenInfo, error) {
	out := new(TokenInfo)
	if _, err := t.client.ask(ctx, r, out); err != nil {
		return nil, err
	}
	return out, nil
}

type extension struct {
	Increment Seconds `json:"increment,omitzero"`
}

// RenewSelf extends the life of the calling token, by the lifetime that it was
// created with when increment is 0.
func (t Tokens) RenewSelf(ctx context.Context, increment time.Duration) (*Auth, error) {
	return t.client.grant(ctx, post("auth/token/renew-self", extension{Seconds(increment)}))
}

// Renew extends a token's life.
func (t Tokens) Renew(ctx context.Context, token Secret, increment time.Duration) (*Auth, error) {
	return t.client.grant(ctx, post("auth/token/renew", struct {
		ofToken
		extension
	}{ofToken{token}, extension{Seconds(increment)}}))
}

// RenewAccessor extends the life of the token of an accessor.
func (t Tokens) RenewAccessor(ctx context.Context, accessor string, increment time.Duration) (*Auth, error) {
	return t.client.grant(ctx, post("auth/token/renew-accessor", struct {
		ofAccessor
		extension
	}{ofAccessor{accessor}, extension{Seconds(increment)}}))
}

// RevokeSelf ends the calling token and everything below it.
func (t Tokens) RevokeSelf(ctx context.Context) error {
	return t.revoke(ctx, "revoke-self", struct{}{})
}

// Revoke ends a token and everything below it.
func (t Tokens) Revoke(ctx context.Context, token Secret) error {
	return t.revoke(ctx, "revoke", ofToken{token})
}

// RevokeAccessor ends the token of an accessor and everything below it.
func (t Tokens) RevokeAccessor(ctx context.Context, accessor string) error {
	return t.revoke(ctx, "revoke-accessor", ofAccessor{accessor})
}

// RevokeOrphan ends a token and leaves its children.
func (t Tokens) RevokeOrphan(ctx context.Context, token Secret) error {
	return t.revoke(ctx, "revoke-orphan", ofToken{token})
}

func (t Tokens) revoke(ctx context.Context, verb string, body any) error {
	_, err := t.client.ask(ctx, post("auth/token/"+verb, body), nil)
	return err
}

// Accessors lists the accessors of all tokens.
func (t Tokens) Accessors(ctx context.Context) ([]string, error) {
	return t.client.names(ctx, get("auth/token/accessors"))
}
