package pki

import (
	"bytes"
	"context"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/role"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

var roleRoutes = []route.Route[*Engine]{
	route.New("LIST", "roles", "List the roles.", (*Engine).listRoles,
		route.Shows("roles", "", "")),
	route.New("GET", "roles/{name}", "Read a role.", (*Engine).readRole,
		route.Shows("roles/web", "", "")),
	route.New("POST", "roles/{name}", "Write a role; what is not given is the standard.", (*Engine).writeRole, route.ExistsBy((*Engine).roleExists),
		route.Shows("roles/web", `{"allowed_domains":"example.com","allow_subdomains":true,"key_type":"ec","max_ttl":"720h"}`, "")),
	route.New("PATCH", "roles/{name}", "Change some of a role.", (*Engine).patchRole,
		route.Shows("roles/web", `{"max_ttl":"72h"}`, "")),
	route.New("DELETE", "roles/{name}", "Remove a role. What it signed stays good.", (*Engine).removeRole,
		route.Shows("roles/web", "", "")),
}

// RoleName names a role.
type RoleName struct {
	Name string `path:"name" doc:"The role's name."`
}

// WriteRole writes a role.
type WriteRole struct {
	RoleName
	Issuer            *string       `json:"issuer_ref" doc:"The issuer that signs, by id or name; the default one unless given."`
	TTL               *wire.Seconds `json:"ttl" doc:"How long certificates are good; the mount's unless given."`
	MaxTTL            *wire.Seconds `json:"max_ttl" doc:"How long at most; the mount's unless given."`
	AllowLocalhost    *wire.Bool    `json:"allow_localhost" doc:"Certify localhost, true unless given."`
	Domains           *wire.Strings `json:"allowed_domains" doc:"Domains that are certified, by what the next fields say."`
	DomainsTemplate   *wire.Bool    `json:"allowed_domains_template" doc:"Fill templates such as {{identity.entity.name}} in in allowed_domains."`
	BareDomains       *wire.Bool    `json:"allow_bare_domains" doc:"Certify the domains themselves."`
	Subdomains        *wire.Bool    `json:"allow_subdomains" doc:"Certify what is below the domains."`
	GlobDomains       *wire.Bool    `json:"allow_glob_domains" doc:"Have * stand for any characters in the domains."`
	Wildcards         *wire.Bool    `json:"allow_wildcard_certificates" doc:"Certify names such as *.example.com, true unless given."`
	AnyName           *wire.Bool    `json:"allow_any_name" doc:"Certify every name."`
	TokenDisplayName  *wire.Bool    `json:"allow_token_displayname" doc:"Certify the display name of the caller's token."`
	EnforceHostnames  *wire.Bool    `json:"enforce_hostnames" doc:"Certify only what can be a host name, true unless given."`
	IPSANs            *wire.Bool    `json:"allow_ip_sans" doc:"Certify IP addresses, true unless given."`
	IPRanges          *wire.Strings `json:"allowed_ip_sans_cidr" doc:"Networks that IP addresses have to be in; any unless given."`
	URISANs           *wire.Strings `json:"allowed_uri_sans" doc:"URIs that are certified, in which * stands for any characters; none unless given."`
	URISANsTemplate   *wire.Bool    `json:"allowed_uri_sans_template" doc:"Fill templates in in allowed_uri_sans."`
	OtherSANs         *wire.Strings `json:"allowed_other_sans" doc:"Other names that are certified, as OID;UTF8:value with * for any characters; none unless given."`
	SerialNumbers     *wire.Strings `json:"allowed_serial_numbers" doc:"Serial numbers of subjects that are certified, in which * stands for any characters; none unless given."`
	UserIDs           *wire.Strings `json:"allowed_user_ids" doc:"User ids of subjects that are certified, in which * stands for any characters; none unless given."`
	RequireCN         *wire.Bool    `json:"require_cn" doc:"Refuse requests without a common name, true unless given."`
	CNValidations     *wire.Strings `json:"cn_validations" doc:"What a common name may be: email, hostname, or disabled alone for anything."`
	UseCSRCommonName  *wire.Bool    `json:"use_csr_common_name" doc:"Take the common name of signing requests, true unless given."`
	UseCSRSANs        *wire.Bool    `json:"use_csr_sans" doc:"Take the alternative names of signing requests, true unless given, and not those of the call."`
	ServerFlag        *wire.Bool    `json:"server_flag" doc:"Certify for servers, true unless given."`
	ClientFlag        *wire.Bool    `json:"client_flag" doc:"Certify for clients, true unless given."`
	CodeSigningFlag   *wire.Bool    `json:"code_signing_flag" doc:"Certify for signing code."`
	EmailFlag         *wire.Bool    `json:"email_protection_flag" doc:"Certify for email."`
	KeyType           *string       `json:"key_type" doc:"rsa unless given, ec, ed25519, or any for signing requests only."`
	KeyBits           *wire.Int     `json:"key_bits" doc:"Size of keys: 2048 of RSA and 256 of EC unless given; those of signing requests may be longer."`
	SignatureBits     *wire.Int     `json:"signature_bits" doc:"Bits of the hash that an RSA issuer signs with; what suits its key unless given."`
	PSS               *wire.Bool    `json:"use_pss" doc:"Have an RSA issuer sign by PSS."`
	KeyUsage          *wire.Strings `json:"key_usage" doc:"Usages of keys: DigitalSignature, KeyAgreement and KeyEncipherment unless given."`
	ExtKeyUsage       *wire.Strings `json:"ext_key_usage" doc:"Further usages, such as ServerAuth."`
	ExtKeyUsageOIDs   *wire.Strings `json:"ext_key_usage_oids" doc:"Further usages, as object identifiers."`
	OU                *wire.Strings `json:"ou" doc:"Organizational units of subjects."`
	Organization      *wire.Strings `json:"organization" doc:"Organizations of subjects."`
	Country           *wire.Strings `json:"country" doc:"Countries of subjects."`
	Locality          *wire.Strings `json:"locality" doc:"Localities of subjects."`
	Province          *wire.Strings `json:"province" doc:"Provinces of subjects."`
	StreetAddress     *wire.Strings `json:"street_address" doc:"Street addresses of subjects."`
	PostalCode        *wire.Strings `json:"postal_code" doc:"Postal codes of subjects."`
	GenerateLease     *wire.Bool    `json:"generate_lease" doc:"Lend certificates: they are revoked when their lease is."`
	NoStore           *wire.Bool    `json:"no_store" doc:"Do not keep certificates: they are not listed, and revoked only by those who have them."`
	PolicyIdentifiers *wire.Strings `json:"policy_identifiers" doc:"Policies that certificates name: OIDs, or objects with oid, cps and notice."`
	BasicConstraints  *wire.Bool    `json:"basic_constraints_valid_for_non_ca" doc:"Say of certificates that they are of no authority."`
	NotBefore         *wire.Seconds `json:"not_before_duration" doc:"How long before now certificates begin, 30s unless given."`
	NotAfter          *string       `json:"not_after" doc:"Until when certificates are good, in place of a ttl."`
}

func (in WriteRole) apply(r *role.Role) error {
	rows.Set(&r.Issuer, in.Issuer)
	rows.Set(&r.TTL, in.TTL)
	rows.Set(&r.MaxTTL, in.MaxTTL)
	rows.Set((*wire.Bool)(&r.AllowLocalhost), in.AllowLocalhost)
	rows.Set(&r.Domains, in.Domains)
	rows.Set((*wire.Bool)(&r.DomainsTemplate), in.DomainsTemplate)
	rows.Set((*wire.Bool)(&r.BareDomains), in.BareDomains)
	rows.Set((*wire.Bool)(&r.Subdomains), in.Subdomains)
	rows.Set((*wire.Bool)(&r.GlobDomains), in.GlobDomains)
	rows.Set((*wire.Bool)(&r.Wildcards), in.Wildcards)
	rows.Set((*wire.Bool)(&r.AnyName), in.AnyName)
	rows.Set((*wire.Bool)(&r.TokenDisplayName), in.TokenDisplayName)
	rows.Set((*wire.Bool)(&r.EnforceHostnames), in.EnforceHostnames)
	rows.Set((*wire.Bool)(&r.IPSANs), in.IPSANs)
	rows.Set(&r.IPRanges, in.IPRanges)
	rows.Set(&r.URISANs, in.URISANs)
	rows.Set((*wire.Bool)(&r.URISANsTemplate), in.URISANsTemplate)
	rows.Set(&r.OtherSANs, in.OtherSANs)
	rows.Set(&r.SerialNumbers, in.SerialNumbers)
	rows.Set(&r.UserIDs, in.UserIDs)
	rows.Set((*wire.Bool)(&r.RequireCN), in.RequireCN)
	rows.Set(&r.CNValidations, in.CNValidations)
	rows.Set((*wire.Bool)(&r.UseCSRCommonName), in.UseCSRCommonName)
	rows.Set((*wire.Bool)(&r.UseCSRSANs), in.UseCSRSANs)
	rows.Set((*wire.Bool)(&r.ServerFlag), in.ServerFlag)
	rows.Set((*wire.Bool)(&r.ClientFlag), in.ClientFlag)
	rows.Set((*wire.Bool)(&r.CodeSigningFlag), in.CodeSigningFlag)
	rows.Set((*wire.Bool)(&r.EmailFlag), in.EmailFlag)
	rows.Set(&r.KeyType, in.KeyType)
	rows.Set(&r.KeyBits, in.KeyBits)
	rows.Set(&r.SignatureBits, in.SignatureBits)
	rows.Set((*wire.Bool)(&r.PSS), in.PSS)
	rows.Set(&r.KeyUsage, in.KeyUsage)
	rows.Set(&r.ExtKeyUsage, in.ExtKeyUsage)
	rows.Set(&r.ExtKeyUsageOIDs, in.ExtKeyUsageOIDs)
	rows.Set(&r.OU, in.OU)
	rows.Set(&r.Organization, in.Organization)
	rows.Set(&r.Country, in.Country)
	rows.Set(&r.Locality, in.Locality)
	rows.Set(&r.Province, in.Province)
	rows.Set(&r.StreetAddress, in.StreetAddress)
	rows.Set(&r.PostalCode, in.PostalCode)
	rows.Set((*wire.Bool)(&r.GenerateLease), in.GenerateLease)
	rows.Set((*wire.Bool)(&r.NoStore), in.NoStore)
	rows.Set(&r.PolicyIdentifiers, in.PolicyIdentifiers)
	rows.Set((*wire.Bool)(&r.BasicConstraints), in.BasicConstraints)
	rows.Set(&r.NotBefore, in.NotBefore)
	rows.Set(&r.NotAfter, in.NotAfter)
	if r.Issuer == "" {
		r.Issuer = byDefault
	}
	return r.Check()
}

func checkName(name string) error {
	if len(name) > 256 {
		return fault.New(fault.Invalid, "a name has at most 256 bytes")
	}
	return engine.CheckPath(name)
}

func (e *Engine) roleExists(ctx context.Context, in WriteRole) (bool, error) {
	r, err := e.roles.Find(ctx, in.Name)
	return r != nil, err
}

func (e *Engine) readRole(ctx context.Context, _ route.Caller, in RoleName) (role.Role, error) {
	r, err := e.roles.Find(ctx, in.Name)
	if err != nil {
		return role.Role{}, err
	}
	if r == nil {
		return role.Role{}, route.Missing()
	}
	return *r, nil
}

// RoleAnswer is a role as it was kept.
type RoleAnswer struct {
	route.Notes
	role.Role
}

func (e *Engine) writeRole(ctx context.Context, _ route.Caller, in WriteRole) (out RoleAnswer, err error) {
	if err := checkName(in.Name); err != nil {
		return out, err
	}
	if err := e.roles.Change(ctx, in.Name, func(r *role.Role) error {
		*r = role.New()
		if err := in.apply(r); err != nil {
			return err
		}
		out.Role = *r
		return nil
	}); err != nil {
		return out, err
	}
	return out, e.warnOfIssuer(ctx, &out)
}

// warnOfIssuer says that a role names an issuer that is not there, which may come.
func (e *Engine) warnOfIssuer(ctx context.Context, out *RoleAnswer) error {
	if out.Issuer == byDefault {
		return nil
	}
	b, err := e.lately(ctx)
	if err != nil {
		return err
	}
	if _, err := b.find(out.Issuer); err != nil {
		out.Warn("The issuer " + shown(out.Issuer) + " is not there, and the role signs nothing until it is.")
	}
	return nil
}

func (e *Engine) patchRole(ctx context.Context, _ route.Caller, in WriteRole) (out RoleAnswer, err error) {
	if err := checkName(in.Name); err != nil {
		return out, err
	}
	if err := e.roles.Change(ctx, in.Name, func(r *role.Role) error {
		if r.KeyType == "" {
			return route.Missing()
		}
		if err := in.apply(r); err != nil {
			return err
		}
		out.Role = *r
		return nil
	}); err != nil {
		return out, err
	}
	return out, e.warnOfIssuer(ctx, &out)
}

func (e *Engine) removeRole(ctx context.Context, _ route.Caller, in RoleName) (route.Empty, error) {
	return route.Empty{}, e.roles.Remove(ctx, in.Name)
}

// readBefore is a role, and the row that it was read of.
type readBefore struct {
	row  []byte
	role *role.Role
}

// role returns a role as it was at most a second ago. It is shared, and not to be
// changed.
func (e *Engine) role(ctx context.Context, name string) (*role.Role, error) {
	row, err := e.env.Recent(ctx, roleRows+name)
	if last, ok := e.lastRoles.Load(name); ok && err == nil && bytes.Equal(last.(readBefore).row, row) {
		return last.(readBefore).role, nil
	}
	r, err := storage.Decode[role.Role](roleRows+name, row, err)
	if err != nil {
		return nil, err
	}
	if r == nil {
		e.lastRoles.Delete(name)
		return nil, fault.New(fault.Invalid, "unknown role: %s", shown(name))
	}
	e.lastRoles.Store(name, readBefore{bytes.Clone(row), r})
	return r, nil
}
