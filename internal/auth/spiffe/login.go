package spiffe

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Limits of what is presented.
const (
	maxJWT       = 16 << 10 // bytes
	maxPresented = 16       // certificates
)

// Login asks to log in.
type Login struct {
	Role string      `json:"role" doc:"The role."`
	JWT  wire.Secret `json:"jwt" doc:"A JWT-SVID; it may also come as Authorization: Bearer. Without one, the connection's X.509-SVID counts."`
	Type string      `json:"type" doc:"cert or jwt, where both are presented."`
}

// token returns the JWT-SVID that counts, "" where the X.509-SVID does.
func (in Login) token(by route.Caller) (string, error) {
	jwt := strings.TrimSpace(in.JWT.Reveal())
	if jwt == "" && strings.Count(by.Token, ".") == 2 && strings.HasPrefix(by.Token, "ey") {
		jwt = by.Token
	}
	switch in.Type {
	case "":
		return jwt, nil
	case "cert":
		return "", nil
	case "jwt":
		if jwt == "" {
			return "", fault.New(fault.Invalid, "missing jwt: send a JWT-SVID as jwt or as Authorization: Bearer")
		}
		return jwt, nil
	}
	return "", fault.New(fault.Invalid, "type: it is cert or jwt")
}

func (m *Method) login(ctx context.Context, by route.Caller, in Login) (out auth.Login, err error) {
	if in.Role == "" {
		return out, fault.New(fault.Invalid, "missing role")
	}
	name, err := auth.NameOf("role", in.Role)
	if err != nil {
		return out, err
	}
	t, err := m.trusted(ctx)
	if err != nil {
		return out, err
	}
	o, err := m.lately(ctx, name)
	if err != nil {
		return out, err
	}
	token, err := in.token(by)
	if err != nil {
		return out, err
	}
	var id spiffeid.ID
	kind := "x509"
	if token != "" {
		kind = "jwt"
		id, err = t.byJWT(token, o)
	} else {
		id, err = t.byCertificate(by.Peer)
	}
	if err != nil {
		return out, err
	}
	// Whoever has no SVID of the trust domain learns nothing about roles.
	if o == nil || !o.isFor(id) {
		return out, errNotFor()
	}
	return auth.Login{
		Alias: id.String(), DisplayName: m.name + "-" + o.DisplayName, Policies: o.PolicyNames,
		Metadata: map[string]string{
			"role": name, "spiffe_id": id.String(), "trust_domain": id.TrustDomain().Name(), "workload_id": strings.TrimPrefix(id.Path(), "/"), "svid_type": kind,
		},
		TokenParams: o.TokenParams,
	}, nil
}

func errNotFor() error {
	return fault.New(fault.Denied, "permission denied: the role is not for this workload, or there is none of that name")
}

// byJWT returns the SPIFFE ID of a JWT-SVID that holds now, is meant for this
// server, and is of the trust domain.
func (t *trust) byJWT(token string, o *role) (spiffeid.ID, error) {
	audience := t.audience
	if o != nil && len(o.Audience) > 0 {
		audience = o.Audience
	}
	switch {
	case len(token) > maxJWT:
		return spiffeid.ID{}, fault.New(fault.Invalid, "the JWT-SVID is longer than %d bytes", maxJWT)
	case len(audience) == 0: // which the library takes for any audience
		return spiffeid.ID{}, fault.New(fault.Invalid, "JWT-SVIDs are not accepted here: the method's config has no audience")
	}
	svid, err := jwtsvid.ParseAndValidate(token, t.bundle, audience)
	if err != nil {
		return spiffeid.ID{}, fault.New(fault.Invalid, "the JWT-SVID is refused: %s", bare(err))
	}
	return t.checked(svid.ID)
}

// byCertificate returns the SPIFFE ID of the X.509-SVID that a client connected
// with.
func (t *trust) byCertificate(peer []*x509.Certificate) (spiffeid.ID, error) {
	switch {
	case len(peer) == 0:
		return spiffeid.ID{}, fault.New(fault.Invalid, "no SVID: connect with an X.509-SVID as the client certificate, or send a JWT-SVID as jwt")
	case len(peer) > maxPresented:
		return spiffeid.ID{}, fault.New(fault.Invalid, "the client presents %d certificates, more than %d", len(peer), maxPresented)
	case !allowsClients(peer[0]):
		return spiffeid.ID{}, fault.New(fault.Invalid, "the X.509-SVID is refused: its key usage does not allow clients")
	}
	id, _, err := x509svid.Verify(peer, t.bundle)
	if err != nil {
		return spiffeid.ID{}, fault.New(fault.Invalid, "the X.509-SVID is refused: %s", bare(err))
	}
	return t.checked(id)
}

// checked refuses IDs that are no workload's. The library found the domain in the
// bundle already.
func (t *trust) checked(id spiffeid.ID) (spiffeid.ID, error) {
	switch {
	case id.TrustDomain() != t.domain:
		return id, fault.New(fault.Invalid, "the SVID is of another trust domain")
	case id.Path() == "" || len(id.String()) > maxID:
		return id, fault.New(fault.Invalid, "the SVID is no workload's")
	}
	return id, nil
}

func allowsClients(c *x509.Certificate) bool {
	return len(c.ExtKeyUsage) == 0 || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// isFor reports whether one of the role's patterns fits.
func (o *role) isFor(id spiffeid.ID) bool {
	return slices.ContainsFunc(o.Patterns, func(text string) bool {
		p, err := parsePattern(text)
		return err == nil && p.matches(id.TrustDomain().Name(), id.Path())
	})
}

// Renew implements auth.Renewer: a token is renewed as long as its role is for its
// workload and the trust domain is still the method's. The SVID of its login has
// ended by then, mostly.
func (m *Method) Renew(ctx context.Context, _ route.Caller, granted auth.Login) (auth.Login, error) {
	id, err := spiffeid.FromString(granted.Alias)
	if err != nil {
		return granted, fault.New(fault.Denied, "the login names no workload, not renewing")
	}
	o, err := m.find(ctx, Named{granted.Metadata["role"]})
	if err != nil {
		return granted, err
	}
	t, err := m.trusted(ctx)
	if err != nil {
		return granted, err
	}
	switch {
	case o == nil:
		return granted, fault.New(fault.Denied, "the role was deleted, not renewing")
	case t.domain != id.TrustDomain() || !o.isFor(id):
		return granted, fault.New(fault.Denied, "the role is not for this workload any more, not renewing")
	case !slices.Equal(o.PolicyNames, auth.Policies(granted.Policies)):
		return granted, fault.New(fault.Denied, "policies have changed, not renewing")
	}
	granted.TTL, granted.MaxTTL, granted.Period = o.TTL, o.MaxTTL, o.Period
	return granted, nil
}
