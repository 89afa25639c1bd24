package aws

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Login asks to log in.
type Login struct {
	Role      string      `json:"role" doc:"The role to log in as; the name of the user or role of AWS without."`
	Method    string      `json:"iam_http_request_method" doc:"The signed request's method: POST, or GET."`
	URL       wire.Secret `json:"iam_request_url" doc:"Its URL, in base64. It is not fetched: config/client says where the request is sent."`
	Body      wire.Secret `json:"iam_request_body" doc:"Its body, in base64."`
	Headers   headers     `json:"iam_request_headers" doc:"Its headers, in base64 of JSON, or in JSON: an object of names and values."`
	PKCS7     wire.Secret `json:"pkcs7" doc:"Of the type ec2, which is not supported."`
	Identity  wire.Secret `json:"identity" doc:"Of the type ec2, which is not supported."`
	Signature wire.Secret `json:"signature" doc:"Of the type ec2, which is not supported."`
	Nonce     wire.Secret `json:"nonce" doc:"Of the type ec2, which is not supported."`
}

// granted is what a renewal needs to know the caller again.
type granted struct {
	Role string `json:"role"`
	caller
}

func (m *Method) login(ctx context.Context, _ route.Caller, in Login) (out auth.Login, err error) {
	if in.PKCS7 != "" || in.Identity != "" || in.Signature != "" {
		return out, fault.New(fault.Invalid, "EC2 instances do not log in with their identity document here; log in as the role of the instance profile, with a signed request (iam_…)")
	}
	request, err := parseSigned(in)
	if err != nil {
		return out, fault.New(fault.Invalid, "%s", err)
	}
	s, err := m.lately(ctx)
	if err != nil {
		return out, err
	}
	if in.Role != "" { // nobody is sent to AWS for a role that is not there
		if _, _, err := m.named(ctx, in.Role); err != nil {
			return out, err
		}
	}
	who, err := m.identify(ctx, s, request)
	if err != nil {
		return out, err
	}
	p, err := parseARN(who.ARN)
	if err != nil {
		return out, fault.New(fault.Invalid, "error parsing arn %.100q: %s", who.ARN, err)
	}
	if p.Account != who.Account {
		return out, fault.New(fault.Unavailable, "STS names two accounts for one caller")
	}
	if in.Role == "" {
		in.Role = p.Name
	}
	name, o, err := m.named(ctx, in.Role)
	if err != nil {
		return out, err
	}
	if err := m.admits(ctx, s, o, p, who); err != nil {
		return out, err
	}
	return m.identified(ctx, s, name, o, p, who)
}

// named returns a role by the name that a login has for it.
func (m *Method) named(ctx context.Context, asked string) (string, *role, error) {
	name, err := auth.NameOf("role", asked)
	if err != nil {
		return "", nil, err
	}
	o, err := m.roles.Lately(ctx, name)
	if err == nil && o == nil {
		err = fault.New(fault.Invalid, "entry for role %q not found", name)
	}
	return name, o, err
}

// admits refuses a caller whom the role is not for.
func (m *Method) admits(ctx context.Context, s *settings, o *role, p principal, who caller) error {
	if len(o.Accounts) > 0 && !slices.Contains(o.Accounts, p.Account) {
		return fault.New(fault.Denied, "permission denied: the account %s does not belong to the role", p.Account)
	}
	if len(o.Principals) == 0 {
		return nil
	}
	refusal := fault.New(fault.Denied, "IAM Principal %q does not belong to the role", who.ARN)
	if o.Resolve && slices.Contains(o.UniqueIDs, who.uniqueID()) {
		return nil
	}
	known, needs := []string{p.canonical()}, false
	if p.Path != "" {
		known = append(known, p.full())
	}
	for _, text := range o.Principals {
		b := bound(text)
		switch {
		case o.Resolve && !b.pattern(): // then its id counts
		case p.Kind == "assumed-role" && b.needsPath():
			needs = needs || b.account() == p.Account
		case b.pattern() && p.Kind == "user": // of a user the path is known
			if auth.Glob(text, p.full()) {
				return nil
			}
		case slices.ContainsFunc(known, func(arn string) bool { return auth.Glob(text, arn) }):
			return nil
		}
	}
	if !needs {
		return refusal
	}
	e, err := m.asRole(ctx, s, p, who)
	if err != nil {
		return err
	}
	for _, text := range o.Principals {
		if b := bound(text); b.needsPath() && (b.pattern() || !o.Resolve) && auth.Glob(text, e.full()) {
			return nil
		}
	}
	return refusal
}

// asRole asks IAM for the role that was assumed, of which STS told the name only.
func (m *Method) asRole(ctx context.Context, s *settings, p principal, who caller) (entity, error) {
	if !s.asksIAM() {
		return entity{}, fault.New(fault.Unavailable, "the role's path is needed, which only IAM tells, and config/client has no access_key any more")
	}
	e, err := m.lookUp(ctx, s, p)
	if err == nil && e.id != who.uniqueID() {
		err = fault.New(fault.Denied, "permission denied: the role was deleted, and there is another of its name")
	}
	return e, err
}

// identified makes the login of a caller who is let in.
func (m *Method) identified(ctx context.Context, s *settings, name string, o *role, p principal, who caller) (out auth.Login, err error) {
	naming, err := m.naming(ctx)
	if err != nil {
		return out, err
	}
	alias := o.ID
	switch naming.Alias {
	case byUniqueID:
		alias = who.uniqueID()
	case byARN:
		alias = p.canonical()
	case byFullARN:
		alias = p.full()
		if p.Kind == "assumed-role" {
			e, err := m.asRole(ctx, s, p, who)
			if err != nil {
				return out, err
			}
			alias = e.full()
		}
	}
	all := map[string]string{
		"account_id": p.Account, "auth_type": "iam", "canonical_arn": p.canonical(), "client_arn": who.ARN, "client_user_id": who.uniqueID(),
	}
	metadata := map[string]string{}
	for _, key := range naming.Metadata {
		metadata[key] = all[key]
	}
	binding, err := json.Marshal(granted{name, who})
	return auth.Login{
		Alias: alias, DisplayName: m.method + "-" + p.Name, Policies: o.PolicyNames, Metadata: metadata, AliasMetadata: metadata,
		Binding: string(binding), TokenParams: o.TokenParams,
	}, err
}

// Renew implements auth.Renewer: a token is renewed as long as its role is for its
// caller. AWS is not asked whether it still knows the caller, unless a role's path
// counts: the request of the login is over by then.
func (m *Method) Renew(ctx context.Context, _ route.Caller, login auth.Login) (auth.Login, error) {
	var was granted
	if err := json.Unmarshal([]byte(login.Binding), &was); err != nil {
		return login, fault.New(fault.Denied, "the login names no principal, not renewing")
	}
	o, err := m.find(ctx, Named{was.Role})
	if err != nil {
		return login, err
	}
	if o == nil {
		return login, fault.New(fault.Denied, "the role was deleted, not renewing")
	}
	s, err := m.lately(ctx)
	if err != nil {
		return login, err
	}
	p, err := parseARN(was.ARN)
	if err != nil {
		return login, fault.New(fault.Denied, "the login names no principal, not renewing")
	}
	if err := m.admits(ctx, s, o, p, was.caller); err != nil {
		return login, err
	}
	login.TTL, login.MaxTTL, login.Period = o.TTL, o.MaxTTL, o.Period
	return login, nil
}
