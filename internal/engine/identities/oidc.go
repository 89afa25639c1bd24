package identities

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/cofferhq/coffer/internal/broker"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var oidcRoutes = []route.Route[*Identities]{
	route.New("GET", "oidc/config", "Read the settings of identity tokens.", (*Identities).readBroker,
		route.Shows("oidc/config", "", `{"issuer":""}`)),
	route.New("POST", "oidc/config", "Change the settings of identity tokens.", (*Identities).writeBroker,
		route.Shows("oidc/config", `{"issuer":"https://coffer.example.com:8200"}`, "")),
	route.New("LIST", "oidc/key", "List the keys of identity tokens.", (*Identities).listKeys,
		route.Shows("oidc/key", "", "")),
	route.New("GET", "oidc/key/{name}", "Read a key of identity tokens, without what is secret.", (*Identities).readKey,
		route.Shows("oidc/key/web", "", "")),
	route.New("POST", "oidc/key/{name}", "Make a key of identity tokens, or change it.", (*Identities).writeKey, route.ExistsBy((*Identities).keyExists),
		route.Shows("oidc/key/web", `{"algorithm":"ES256","rotation_period":"24h","verification_ttl":"24h","allowed_client_ids":["*"]}`, "")),
	route.New("DELETE", "oidc/key/{name}", "Delete a key that no role uses. Tokens that it signed are worth nothing from then on.", (*Identities).deleteKey,
		route.Shows("oidc/key/unused", "", "")),
	route.New("POST", "oidc/key/{name}/rotate", "Have the next pair of a key sign now.", (*Identities).rotateKey,
		route.Shows("oidc/key/web/rotate", `{}`, "")),
	route.New("LIST", "oidc/role", "List the roles of identity tokens.", (*Identities).listRoles,
		route.Shows("oidc/role", "", "")),
	route.New("GET", "oidc/role/{name}", "Read a role of identity tokens.", (*Identities).readRole,
		route.Shows("oidc/role/web", "", "")),
	route.New("POST", "oidc/role/{name}", "Make a role of identity tokens, or change it.", (*Identities).writeRole, route.ExistsBy((*Identities).roleExists),
		route.Shows("oidc/role/web", `{"key":"web","ttl":"10m","client_id":"shop","template":"{\"name\": {{identity.entity.name}}}"}`, "")),
	route.New("DELETE", "oidc/role/{name}", "Delete a role of identity tokens. Tokens that it gave hold on.", (*Identities).deleteRole,
		route.Shows("oidc/role/unused", "", "")),
	route.New("GET", "oidc/token/{name}", "Get an identity token of a role: a signed JSON web token that says who the caller's entity is.", (*Identities).issueToken,
		route.Shows("oidc/token/web", "", "")),
	route.New("POST", "oidc/introspect", "Ask whether an identity token holds, and its entity is there and not disabled.", (*Identities).introspect, route.Reads(),
		route.Shows("oidc/introspect", `{"token":"unknown"}`, "")),
	route.New("GET", "oidc/.well-known/openid-configuration", "Where those who verify identity tokens find the keys.", (*Identities).discovery, route.Public(),
		route.Shows("oidc/.well-known/openid-configuration", "", "")),
	route.New("GET", "oidc/.well-known/keys", "The public keys of identity tokens (JWKS).", (*Identities).publicKeys, route.Public(),
		route.Shows("oidc/.well-known/keys", "", "")),
}

func (s *Identities) broker() *broker.Store { return s.Brokers(s.id) }

// BrokerConfig is the settings of identity tokens.
type BrokerConfig struct {
	route.Notes
	Issuer string `json:"issuer" doc:"Scheme, host and port of the issuer; where it is empty, the server's address (api_addr) is taken if it serves alone."`
}

const (
	issuerWarning  = `If "issuer" is set explicitly, all tokens must be validated against that address, including those issued by secondary clusters. Setting issuer to "" will restore the default behavior of using the cluster's api_addr as the issuer.`
	noIssuer       = `No "issuer" is set and the server has no address that holds for all of its nodes: identity tokens are not issued until it is set.`
	unpublished    = "The pair that signs now was published a short while ago: those who keep keys for up to %v, and do not fetch them again for a key that they do not know, refuse its tokens until then."
	algorithmLater = "A pair of the new algorithm is published now, and signs from %s on, when all who verify can have it. Rotating the key has it sign at once."
)

func (s *Identities) readBroker(ctx context.Context, _ route.Caller, _ route.Nothing) (BrokerConfig, error) {
	c, err := s.broker().Config(ctx)
	if err != nil {
		return BrokerConfig{}, err
	}
	out := BrokerConfig{Issuer: c.Issuer}
	if c.Issuer == "" && s.broker().Address() == "" {
		out.Warn(noIssuer)
	}
	return out, nil
}

// WriteBroker changes the settings of identity tokens.
type WriteBroker struct {
	Issuer *string `json:"issuer" doc:"Scheme, host and port of the issuer, as https://coffer.example.com:8200; empty for the server's own address."`
}

func (s *Identities) writeBroker(ctx context.Context, _ route.Caller, in WriteBroker) (route.Empty, error) {
	var out route.Empty
	if in.Issuer == nil {
		return out, nil
	}
	if *in.Issuer != "" {
		out.Warn(issuerWarning)
	}
	return out, s.broker().WriteConfig(ctx, broker.Config{Issuer: *in.Issuer})
}

// KeyName names a key.
type KeyName struct {
	Name string `path:"name" doc:"The key's name."`
}

// WriteKey is what a key is written with; what is left out stays as it is.
type WriteKey struct {
	KeyName
	Rotation     *wire.Seconds `json:"rotation_period" doc:"How often another pair signs: at least a minute; a day unless given."`
	Verification *wire.Seconds `json:"verification_ttl" doc:"How long a pair that signs no more is published: at most ten rotation periods; a day unless given."`
	Clients      *wire.Strings `json:"allowed_client_ids" doc:"Client ids of roles, and audiences, that the key signs for; * is any, and none is none."`
	Algorithm    *string       `json:"algorithm" doc:"RS256 unless given, RS384, RS512, ES256, ES384, ES512 or EdDSA."`
}

func (s *Identities) writeKey(ctx context.Context, _ route.Caller, in WriteKey) (route.Empty, error) {
	var out route.Empty
	later, err := s.broker().WriteKey(ctx, in.Name, broker.KeyChange{
		Algorithm: in.Algorithm, Rotation: (*time.Duration)(in.Rotation), Verification: (*time.Duration)(in.Verification), Clients: given(in.Clients, list),
	})
	if err == nil && !later.IsZero() {
		out.Warn(fmt.Sprintf(algorithmLater, later.Format(time.RFC3339)))
	}
	return out, err
}

func (s *Identities) keyExists(ctx context.Context, in WriteKey) (bool, error) {
	_, err := s.broker().Key(ctx, in.Name)
	return there(err)
}

// there tells what is not there from what cannot be read.
func there(err error) (bool, error) {
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// SigningKey is a key on the wire.
type SigningKey struct {
	Rotation     wire.Seconds `json:"rotation_period"`
	Verification wire.Seconds `json:"verification_ttl"`
	Algorithm    string       `json:"algorithm"`
	Clients      wire.Strings `json:"allowed_client_ids"`
	KeyID        string       `json:"key_id" doc:"Of the pair that signs."`
	NextID       string       `json:"next_key_id" doc:"Of the pair that signs after it, and is published already."`
	NextRotation wire.Time    `json:"next_rotation" doc:"When it does."`
}

func (s *Identities) readKey(ctx context.Context, _ route.Caller, in KeyName) (SigningKey, error) {
	k, err := s.broker().Key(ctx, in.Name)
	if err != nil {
		return SigningKey{}, err
	}
	return SigningKey{
		Rotation: wire.Seconds(k.Rotation), Verification: wire.Seconds(k.Verification), Algorithm: string(k.Algorithm), Clients: k.Clients,
		KeyID: k.Signing.ID, NextID: k.Next.ID, NextRotation: wire.Time{Time: k.Due()},
	}, nil
}

func (s *Identities) listKeys(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	names, err := s.broker().Keys(ctx, in.After, limit(in))
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: names}.Found()
}

func (s *Identities) deleteKey(ctx context.Context, _ route.Caller, in KeyName) (route.Empty, error) {
	return route.Empty{}, s.broker().DeleteKey(ctx, in.Name)
}

// RotateKey rotates a key.
type RotateKey struct {
	KeyName
	Verification *wire.Seconds `json:"verification_ttl" doc:"How long the pair that signed is published yet; 0 withdraws it, and with it the tokens that it signed. Left out, it is as long as they hold."`
}

func (s *Identities) rotateKey(ctx context.Context, _ route.Caller, in RotateKey) (route.Empty, error) {
	var out route.Empty
	soon, err := s.broker().Rotate(ctx, in.Name, (*time.Duration)(in.Verification))
	if err == nil && soon {
		out.Warn(fmt.Sprintf(unpublished, broker.MaxCached))
	}
	return out, err
}

// Discovery is the discovery document.
type Discovery struct {
	route.Bare
	route.Notes
	broker.Discovery
}

func (s *Identities) discovery(ctx context.Context, _ route.Caller, _ route.Nothing) (Discovery, error) {
	d, err := s.broker().Discovery(ctx)
	if err != nil {
		return Discovery{}, err
	}
	return Discovery{Discovery: *d, Notes: route.Notes{MaxAge: time.Hour}}, nil
}

func (s *Identities) publicKeys(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Raw, error) {
	p, err := s.broker().Published(ctx)
	if err != nil {
		return route.Raw{}, err
	}
	return route.Raw{Notes: route.Notes{Status: http.StatusOK, MaxAge: p.MaxAge}, ContentType: "application/json", Body: p.Keys}, nil
}
