package cert

import (
	"context"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Constraints are what a role asks of a certificate. Of each list that is not
// empty, one must fit; of required_extensions, all.
type Constraints struct {
	Names        wire.Strings `json:"allowed_names"`
	CommonNames  wire.Strings `json:"allowed_common_names"`
	DNSNames     wire.Strings `json:"allowed_dns_sans"`
	Emails       wire.Strings `json:"allowed_email_sans"`
	URIs         wire.Strings `json:"allowed_uri_sans"`
	Units        wire.Strings `json:"allowed_organizational_units"`
	Extensions   wire.Strings `json:"required_extensions"`
	MetadataOIDs wire.Strings `json:"allowed_metadata_extensions"`
}

// OCSP says how a role asks whether a certificate was revoked.
type OCSP struct {
	Enabled    wire.Bool    `json:"ocsp_enabled"`
	Responders string       `json:"ocsp_ca_certificates"`
	Servers    wire.Strings `json:"ocsp_servers_override"`
	FailOpen   wire.Bool    `json:"ocsp_fail_open"`
	QueryAll   wire.Bool    `json:"ocsp_query_all_servers"`
	MaxAge     wire.Seconds `json:"ocsp_this_update_max_age"`
	MaxRetries wire.Int     `json:"ocsp_max_retries"`
}

// role is a role's row, and how it is answered. The fields without token_ are
// older names in Vault, answered where they were written.
type role struct {
	Certificate string `json:"certificate"`
	DisplayName string `json:"display_name"`
	Constraints
	OCSP
	auth.TokenParams
	OldPolicies   wire.Strings `json:"policies,omitempty"`
	OldTTL        wire.Seconds `json:"ttl,omitzero"`
	OldMaxTTL     wire.Seconds `json:"max_ttl,omitzero"`
	OldPeriod     wire.Seconds `json:"period,omitzero"`
	OldBoundCIDRs wire.Strings `json:"bound_cidrs,omitempty"`
}

// Named names a role.
type Named struct {
	Name string `path:"name" doc:"The role's name, in any case."`
}

func (n Named) role() (string, error) { return auth.NameOf("role", n.Name) }

// Write creates or changes a role.
type Write struct {
	Named
	Certificate  *string       `json:"certificate" doc:"In PEM: authorities, each of which is trusted, or the one certificate that is accepted."`
	DisplayName  *string       `json:"display_name" doc:"What logs call the tokens; the role's name unless written."`
	Names        *wire.Strings `json:"allowed_names" doc:"Patterns of which one must fit the common name, a DNS name or an email address; an older form of the four that follow."`
	CommonNames  *wire.Strings `json:"allowed_common_names" doc:"Patterns, with * for any text, of which one must fit the common name."`
	DNSNames     *wire.Strings `json:"allowed_dns_sans" doc:"Patterns of which one must fit a DNS name."`
	Emails       *wire.Strings `json:"allowed_email_sans" doc:"Patterns of which one must fit an email address."`
	URIs         *wire.Strings `json:"allowed_uri_sans" doc:"Patterns of which one must fit a URI."`
	Units        *wire.Strings `json:"allowed_organizational_units" doc:"Patterns of which one must fit an organizational unit."`
	Extensions   *wire.Strings `json:"required_extensions" doc:"Extensions that must all be there: oid:pattern for one that holds a string, hex:oid:pattern for any, in hexadecimal."`
	MetadataOIDs *wire.Strings `json:"allowed_metadata_extensions" doc:"OIDs of extensions whose strings become metadata, under the OID with - for its dots."`
	OCSPFields
	auth.TokenFields
	OldPolicies   *wire.Strings `json:"policies" doc:"An older name of token_policies."`
	OldTTL        *wire.Seconds `json:"ttl" doc:"An older name of token_ttl."`
	OldLease      *wire.Seconds `json:"lease" doc:"A still older one."`
	OldMaxTTL     *wire.Seconds `json:"max_ttl" doc:"An older name of token_max_ttl."`
	OldPeriod     *wire.Seconds `json:"period" doc:"An older name of token_period."`
	OldBoundCIDRs *wire.Strings `json:"bound_cidrs" doc:"An older name of token_bound_cidrs."`
}

// OCSPFields change how a role asks whether a certificate was revoked.
type OCSPFields struct {
	Enabled    *wire.Bool    `json:"ocsp_enabled" doc:"Ask the authority's OCSP servers at each login."`
	Responders *string       `json:"ocsp_ca_certificates" doc:"In PEM: certificates that may sign OCSP answers besides the authority."`
	Servers    *wire.Strings `json:"ocsp_servers_override" doc:"URLs to ask in place of those that the certificate names."`
	FailOpen   *wire.Bool    `json:"ocsp_fail_open" doc:"Accept a certificate of which no server says anything; refused otherwise."`
	QueryAll   *wire.Bool    `json:"ocsp_query_all_servers" doc:"All servers must call it good, not the first that answers."`
	MaxAge     *wire.Seconds `json:"ocsp_this_update_max_age" doc:"How old an answer may be; 0 leaves it to the answer."`
	MaxRetries *wire.Int     `json:"ocsp_max_retries" doc:"How often a server is asked again that does not answer; at most 10."`
}

func set[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

// apply changes what the request names.
func (w Write) apply(o *role) error {
	if w.OldTTL == nil {
		w.OldTTL = w.OldLease
	}
	auth.Renamed(&w.PolicyNames, w.OldPolicies, &o.OldPolicies)
	auth.Renamed(&w.TTL, w.OldTTL, &o.OldTTL)
	auth.Renamed(&w.MaxTTL, w.OldMaxTTL, &o.OldMaxTTL)
	auth.Renamed(&w.Period, w.OldPeriod, &o.OldPeriod)
	auth.Renamed(&w.BoundCIDRs, w.OldBoundCIDRs, &o.OldBoundCIDRs)
	set(&o.Certificate, w.Certificate)
	set(&o.DisplayName, w.DisplayName)
	c, s := &o.Constraints, &o.OCSP
	for _, f := range []struct{ dst, src *wire.Strings }{
		{&c.Names, w.Names}, {&c.CommonNames, w.CommonNames}, {&c.DNSNames, w.DNSNames}, {&c.Emails, w.Emails}, {&c.URIs, w.URIs},
		{&c.Units, w.Units}, {&c.Extensions, w.Extensions}, {&c.MetadataOIDs, w.MetadataOIDs}, {&s.Servers, w.Servers},
	} {
		set(f.dst, f.src)
	}
	set(&s.Enabled, w.Enabled)
	set(&s.Responders, w.Responders)
	set(&s.FailOpen, w.FailOpen)
	set(&s.QueryAll, w.QueryAll)
	set(&s.MaxAge, w.MaxAge)
	set(&s.MaxRetries, w.MaxRetries)
	if err := w.TokenFields.Apply(&o.TokenParams); err != nil {
		return err
	}
	if o.OldPolicies != nil {
		o.OldPolicies = o.PolicyNames
	}
	if o.DisplayName == "" {
		o.DisplayName = w.Name
	}
	return nil
}

func (m *Method) list(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return engine.Names(ctx, m.storage, rolePrefix, in)
}

// find returns a role, nil when there is none.
func (m *Method) find(ctx context.Context, n Named) (o *role, err error) {
	name, err := n.role()
	if err != nil {
		return nil, err
	}
	err = m.storage.View(ctx, func(r storage.Reader) error {
		o, err = storage.Load[role](r, rolePrefix+name)
		return err
	})
	return o, err
}

func (m *Method) exists(ctx context.Context, in Write) (bool, error) {
	o, err := m.find(ctx, in.Named)
	return o != nil, err
}

func (m *Method) read(ctx context.Context, _ route.Caller, in Named) (role, error) {
	o, err := m.find(ctx, in)
	if err != nil {
		return role{}, err
	}
	if o == nil {
		return role{}, route.Missing()
	}
	return *o, nil
}

// maxRoles is how many roles a mount has at most: all of them are kept in memory,
// ready for logins.
const maxRoles = 10_000

func (m *Method) write(ctx context.Context, _ route.Caller, in Write) (route.Empty, error) {
	name, err := in.role()
	if err != nil {
		return route.Empty{}, err
	}
	in.Name = name
	_, err = m.storage.Update(ctx, func(t storage.Txn) error {
		o, err := storage.Load[role](t, rolePrefix+name)
		if err != nil {
			return err
		}
		more := 0
		if o == nil {
			o, more = &role{OCSP: OCSP{MaxRetries: 4}}, 1
			n, err := count(t, roleState)
			if err != nil {
				return err
			}
			if n >= maxRoles {
				return fault.New(fault.Invalid, "the method has %d roles, and more it cannot have; enable another at its own path", n)
			}
		}
		if err := in.apply(o); err != nil {
			return err
		}
		if _, err := parseRole(name, *o); err != nil {
			return err
		}
		if err := storage.Save(t, rolePrefix+name, o); err != nil {
			return err
		}
		return changed(t, roleState, more)
	})
	return route.Empty{}, err
}

func (m *Method) remove(ctx context.Context, _ route.Caller, in Named) (route.Empty, error) {
	name, err := in.role()
	if err != nil {
		return route.Empty{}, err
	}
	_, err = m.storage.Update(ctx, func(t storage.Txn) error {
		o, err := storage.Load[role](t, rolePrefix+name)
		if err != nil || o == nil {
			return err
		}
		if err := t.Delete(rolePrefix + name); err != nil {
			return err
		}
		return changed(t, roleState, -1)
	})
	return route.Empty{}, err
}
