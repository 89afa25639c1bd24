package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/namespace"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Ask is what a caller asks of a role. What is not said is the role's.
type Ask struct {
	Role     string
	Entity   string        // the caller's; "" for none
	Audience []string      // of those that the role allows
	Claims   *[]string     // of those that the role's template has
	TTL      time.Duration // no longer than the role's; 0 is the role's
	// Ends returns when the caller's own token ends, the zero time for never. It is
	// called for roles that are bound to it.
	Ends func(ctx context.Context) (time.Time, error)
}

// Issued is a token that was signed.
type Issued struct {
	Token    wire.Secret
	ClientID string // the role's
	KeyID    string
	Audience []string
	Expires  time.Time
	TTL      time.Duration
}

// order is what a snapshot says of the role that is asked.
type order struct {
	role   *Role
	key    *Key
	issuer string
}

// Issue signs a token for an entity. It reads the rows anew, so that no node signs with
// a pair that another one has withdrawn. Errors are faults.
func (s *Store) Issue(ctx context.Context, ask Ask) (*Issued, error) {
	o, err := s.order(ctx, ask.Role)
	if err != nil {
		return nil, err
	}
	if ask.Entity == "" {
		return nil, invalid("no entity associated with the request's token: identity tokens say who somebody is; log in by an auth method, which gives an entity")
	}
	out := &Issued{ClientID: o.role.ClientID, KeyID: o.key.Signing.ID}
	if out.Audience, err = o.audience(ask.Audience); err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	if out.TTL, err = o.ttl(ctx, ask, now); err != nil {
		return nil, err
	}
	out.Expires = now.Add(out.TTL)
	who, err := s.Identities.Who(ctx, ask.Entity)
	switch {
	case err != nil:
		return nil, err
	case who == nil:
		return nil, invalid("the entity of the request's token is not of this namespace; log in to it")
	case who.Entity.Disabled:
		return nil, fault.New(fault.Denied, "permission denied: the entity is disabled")
	}
	template, err := ParseTemplate(o.role.Template)
	if err != nil {
		return nil, err
	}
	only, err := o.claims(template, ask.Claims)
	if err != nil {
		return nil, err
	}
	payload, err := payload(template.Render(who, now, only), standard{
		Issuer: o.issuer, Subject: who.Entity.ID, Audience: out.Audience, Expires: out.Expires.Unix(), Issued: now.Unix(),
		Namespace: namespace.Name(s.Namespace),
	})
	if err != nil {
		return nil, err
	}
	text, err := o.key.Signing.sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign with the key %s of %s: %w", o.key.Signing.ID, o.key.Name, err)
	}
	out.Token = wire.Secret(text)
	return out, nil
}

func (s *Store) order(ctx context.Context, role string) (o order, err error) {
	if checkName("role", role) != nil {
		return o, invalid("role %q not found", clip(role))
	}
	err = s.storage.View(ctx, func(r storage.Reader) (err error) {
		if o.role, err = storage.Load[Role](r, roleRows+role); err != nil {
			return err
		}
		if o.role == nil {
			return invalid("role %q not found", role)
		}
		if o.key, err = storage.Load[Key](r, keyRows+o.role.Key); err != nil {
			return err
		}
		if o.key == nil {
			return invalid("key %q not found", o.role.Key)
		}
		o.issuer, err = s.issuer(r)
		return err
	})
	if err == nil && !o.key.signs(o.role.ClientID) {
		err = invalid("the key %q does not list the client ID of the role %q as an allowed client ID", o.key.Name, role)
	}
	return o, err
}

// audience returns whom the token is for: the role's client id, or what is asked for
// and allowed.
func (o *order) audience(asked []string) ([]string, error) {
	if len(asked) == 0 {
		return []string{o.role.ClientID}, nil
	}
	allowed := append([]string{o.role.ClientID}, o.role.Audiences...)
	var out []string
	for _, a := range asked {
		switch {
		case !slices.Contains(allowed, a):
			return nil, invalid("the role %q has no audience %q; it has its client_id and its allowed_audiences", o.role.Name, clip(a))
		case !o.key.signs(a):
			return nil, invalid("the key %q does not list the audience %q as an allowed client ID", o.key.Name, clip(a))
		case !slices.Contains(out, a):
			out = append(out, a)
		}
	}
	return out, nil
}

// ttl returns how long the token is to hold: never longer than its key verifies.
func (o *order) ttl(ctx context.Context, ask Ask, now time.Time) (time.Duration, error) {
	ttl := min(o.role.TTL, o.key.Verification)
	switch {
	case ask.TTL < 0 || ask.TTL > 0 && ask.TTL < MinLife:
		return 0, invalid("ttl must be at least a second")
	case ask.TTL > ttl:
		return 0, invalid("ttl is longer than the %v of the role %q", ttl, o.role.Name)
	case ask.TTL > 0:
		ttl = ask.TTL
	}
	if o.role.Bound && ask.Ends != nil {
		ends, err := ask.Ends(ctx)
		if err != nil {
			return 0, err
		}
		if !ends.IsZero() {
			ttl = min(ttl, ends.Sub(now))
		}
	}
	if ttl = ttl.Truncate(time.Second); ttl < MinLife {
		return 0, invalid("the request's token ends at once, and the role %q bounds its tokens to that; renew it or log in again", o.role.Name)
	}
	return ttl, nil
}

// claims returns which claims of the template are wanted, nil for all.
func (o *order) claims(t *Template, asked *[]string) ([]string, error) {
	if asked == nil {
		return nil, nil
	}
	for _, name := range *asked {
		if !slices.Contains(t.Names(), name) {
			return nil, invalid("the template of the role %q has no claim %q; it has: %s", o.role.Name, clip(name), strings.Join(t.Names(), ", "))
		}
	}
	return append([]string{}, *asked...), nil
}

// standard are the claims of every token.
type standard struct {
	Issuer, Subject, Namespace string
	Audience                   []string
	Expires, Issued            int64
}

// payload is what is signed: the template's claims, and over them the standard ones.
func payload(claims map[string]jsontext.Value, s standard) ([]byte, error) {
	var audience any = s.Audience
	if len(s.Audience) == 1 {
		audience = s.Audience[0]
	}
	for name, value := range map[string]any{
		"iss": s.Issuer, "sub": s.Subject, "aud": audience, "exp": s.Expires, "iat": s.Issued, "namespace": s.Namespace,
	} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		claims[name] = text
	}
	out, err := json.Marshal(claims, json.Deterministic(true))
	if err == nil && len(out) > MaxClaims {
		return nil, invalid("the claims take %d bytes, beyond the limit of %d: the entity has much metadata or many groups; ask for fewer claims, or name single values in the role's template", len(out), MaxClaims)
	}
	return out, err
}
