package identities

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/broker"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// RoleName names a role.
type RoleName struct {
	Name string `path:"name" doc:"The role's name."`
}

// WriteRole is what a role is written with; what is left out stays as it is.
type WriteRole struct {
	RoleName
	Key       *string       `json:"key" doc:"The key that signs; default is one that is there when it is first named."`
	Template  *string       `json:"template" doc:"Further claims, as a JSON object with expressions such as {{identity.entity.name}}, or that in base64."`
	TTL       *wire.Seconds `json:"ttl" doc:"How long tokens hold: no longer than the key's verification_ttl; a day unless given."`
	ClientID  *string       `json:"client_id" doc:"The audience of tokens; one is made where it is empty."`
	Audiences *wire.Strings `json:"allowed_audiences" doc:"Further audiences that callers may ask for in its place."`
	Bound     *wire.Bool    `json:"bound_to_token" doc:"Tokens end with that of the caller at the latest."`
}

func (s *Identities) writeRole(ctx context.Context, _ route.Caller, in WriteRole) (route.Empty, error) {
	return route.Empty{}, s.broker().WriteRole(ctx, in.Name, broker.RoleChange{
		Key: in.Key, Template: in.Template, TTL: (*time.Duration)(in.TTL), ClientID: in.ClientID,
		Audiences: given(in.Audiences, list), Bound: (*bool)(in.Bound),
	})
}

func (s *Identities) roleExists(ctx context.Context, in WriteRole) (bool, error) {
	_, err := s.broker().Role(ctx, in.Name)
	return there(err)
}

// TokenRole is a role on the wire.
type TokenRole struct {
	Key       string       `json:"key"`
	Template  string       `json:"template"`
	TTL       wire.Seconds `json:"ttl"`
	ClientID  string       `json:"client_id"`
	Audiences wire.Strings `json:"allowed_audiences"`
	Bound     bool         `json:"bound_to_token"`
}

func (s *Identities) readRole(ctx context.Context, _ route.Caller, in RoleName) (TokenRole, error) {
	r, err := s.broker().Role(ctx, in.Name)
	if err != nil {
		return TokenRole{}, err
	}
	return TokenRole{r.Key, r.Template, wire.Seconds(r.TTL), r.ClientID, r.Audiences, r.Bound}, nil
}

func (s *Identities) listRoles(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	names, err := s.broker().Roles(ctx, in.After, limit(in))
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: names}.Found()
}

func (s *Identities) deleteRole(ctx context.Context, _ route.Caller, in RoleName) (route.Empty, error) {
	return route.Empty{}, s.broker().DeleteRole(ctx, in.Name)
}

// AskToken asks for a token, of all that the role gives or of less.
type AskToken struct {
	RoleName
	Audience wire.Strings  `query:"audience" doc:"For whom the token is, of the role's client_id and allowed_audiences; the client_id unless given."`
	Claims   *wire.Strings `query:"claims" doc:"Which claims of the role's template it has: all unless given, none where it is empty."`
	TTL      wire.Seconds  `query:"ttl" doc:"How long it holds, no longer than the role's."`
}

// IdentityToken is a token that was signed. It is shown once.
type IdentityToken struct {
	route.Notes
	Token    wire.Secret  `json:"token" doc:"A signed JSON web token."`
	ClientID string       `json:"client_id" doc:"The role's client id."`
	TTL      wire.Seconds `json:"ttl" doc:"How long the token holds."`
}

// MarshalJSON shows the token.
func (t IdentityToken) MarshalJSON() ([]byte, error) {
	return marshal(struct {
		Token    string       `json:"token"`
		ClientID string       `json:"client_id"`
		TTL      wire.Seconds `json:"ttl"`
	}{t.Token.Reveal(), t.ClientID, t.TTL})
}

func (s *Identities) issueToken(ctx context.Context, by route.Caller, in AskToken) (IdentityToken, error) {
	issued, err := s.broker().Issue(ctx, broker.Ask{
		Role: in.Name, Entity: by.EntityID, Audience: in.Audience, Claims: given(in.Claims, list), TTL: in.TTL.Duration(),
		Ends: func(ctx context.Context) (time.Time, error) { return s.Ends(ctx, by) },
	})
	if err != nil {
		return IdentityToken{}, err
	}
	out := IdentityToken{Token: issued.Token, ClientID: issued.ClientID, TTL: wire.Seconds(issued.TTL)}
	out.Subject = route.Subject{
		Path:  "oidc/token/" + in.Name,
		Label: fmt.Sprintf("kid %s, aud %s, exp %s", issued.KeyID, strings.Join(issued.Audience, " "), issued.Expires.Format(time.RFC3339)),
	}
	return out, nil
}

// Introspect names a token to look at.
type Introspect struct {
	Token    wire.Secret `json:"token" doc:"The identity token."`
	ClientID string      `json:"client_id" doc:"An audience that it must be for."`
}

// Introspected says whether a token holds.
type Introspected struct {
	route.Bare
	Active bool   `json:"active" doc:"It holds now."`
	Error  string `json:"error,omitzero" doc:"Why it does not."`
}

func (s *Identities) introspect(ctx context.Context, _ route.Caller, in Introspect) (Introspected, error) {
	why, err := s.broker().Introspect(ctx, in.Token.Reveal(), in.ClientID)
	if err != nil {
		return Introspected{}, err
	}
	return Introspected{Active: why == "", Error: why}, nil
}
