package kubernetes

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Login asks to log in.
type Login struct {
	Role string      `json:"role" doc:"The role to log in as."`
	JWT  wire.Secret `json:"jwt" doc:"The service account's token."`
}

func (m *Method) login(ctx context.Context, _ route.Caller, in Login) (out auth.Login, err error) {
	token := strings.TrimSpace(in.JWT.Reveal()) // a file's line break
	switch {
	case in.Role == "":
		return out, fault.New(fault.Invalid, "missing role")
	case token == "":
		return out, fault.New(fault.Invalid, "missing jwt")
	}
	name, err := auth.NameOf("role", in.Role)
	if err != nil {
		return out, err
	}
	o, err := m.roles.Lately(ctx, name)
	if err != nil {
		return out, err
	}
	if o == nil {
		return out, fault.New(fault.Invalid, "invalid role name %q", name)
	}
	c, err := m.config.Lately(ctx, configKey)
	if err != nil {
		return out, err
	}
	if c == nil {
		return out, fault.New(fault.Invalid, "could not load backend configuration: nobody has written auth/%s/config yet", m.method)
	}
	who, err := m.prove(ctx, c, o, token)
	if err != nil {
		return out, err
	}
	metadata := map[string]string{
		"role": name, "service_account_uid": who.UID, "service_account_name": who.Name,
		"service_account_namespace": who.Namespace, "service_account_secret_name": who.Secret,
	}
	kept, err := m.kept(ctx, c, who, metadata)
	if err != nil {
		return out, err
	}
	out = auth.Login{
		Alias: who.UID, DisplayName: m.method + "-" + who.Namespace + "-" + who.Name, Policies: o.PolicyNames,
		Metadata: metadata, AliasMetadata: kept, TokenParams: o.TokenParams,
	}
	if o.AliasName == byName {
		out.Alias = who.Namespace + "/" + who.Name
	}
	return out, nil
}

// prove returns the service account of a token that holds, and that the role is
// for.
func (m *Method) prove(ctx context.Context, c *config, o *role, token string) (account, error) {
	claims, err := m.claims(ctx, c, o, token)
	if err != nil {
		return account{}, err
	}
	who, err := accountOf(claims)
	if err != nil {
		return who, fault.New(fault.Denied, "permission denied: the token is not of a service account: %s", err)
	}
	named := slices.ContainsFunc(o.Namespaces, func(pattern string) bool { return auth.Glob(pattern, who.Namespace) })
	switch {
	case !slices.ContainsFunc(o.Accounts, func(pattern string) bool { return auth.Glob(pattern, who.Name) }):
		return who, fault.New(fault.Denied, "service account name not authorized")
	case !named && o.Selector == "":
		return who, errNamespace()
	}
	if !c.Offline {
		if err := m.confirm(ctx, c, o, who, claims, token); err != nil {
			return who, err
		}
	}
	if !named {
		return who, m.selected(ctx, c, o, who)
	}
	return who, nil
}

func errNamespace() error { return fault.New(fault.Denied, "namespace not authorized") }

// claims returns what a token claims: verified where the cluster's keys are known,
// and to be confirmed by the cluster otherwise.
func (m *Method) claims(ctx context.Context, c *config, o *role, token string) (claims issuer.Claims, err error) {
	// The cluster looks at the times, too, and knows of tokens that never end.
	want := issuer.Expect{Timeless: !c.Offline, NeedExpiry: c.Offline, Skew: time.Minute}
	if !c.AnyIssuer {
		want.Issuer = c.Issuer
		if want.Issuer == "" {
			want.Issuer = "kubernetes/serviceaccount" // what clusters called themselves before they had a URL
		}
	}
	if o.Audience != "" {
		want.Audiences = []string{o.Audience}
	}
	switch {
	case c.Offline && o.Audience == "":
		return nil, fault.New(fault.Invalid, "the role has no audience, which offline_validation needs: nothing else tells tokens for this server from those for others")
	case c.ways() == 0:
		claims, err = issuer.Unverified(token, want)
	default:
		var i *issuer.Issuer
		if i, err = m.keys.Of(c.ID, c.source()); err == nil {
			claims, err = i.Verify(ctx, token, want)
		}
	}
	var reason issuer.Reason
	if errors.As(err, &reason) {
		return nil, fault.Wrap(fault.Denied, reason, "permission denied: %s", fault.From(err).Message)
	}
	return claims, err
}

// confirm has the cluster confirm a token, and that it is of whom it claims.
func (m *Method) confirm(ctx context.Context, c *config, o *role, who account, claims issuer.Claims, token string) error {
	// A cluster that is asked for no audience takes its own; a token for another is
	// asked for with that one.
	audiences, ok := claims.Texts("aud")
	if !ok {
		return fault.New(fault.Denied, "permission denied: the token's claim aud is neither a string nor a list of strings")
	}
	if o.Audience != "" {
		audiences = []string{o.Audience}
	}
	api, err := m.cluster(c, token)
	if err != nil {
		return err
	}
	found, err := api.review(ctx, token, audiences)
	switch {
	case err != nil:
		return err
	case found.Name != who.Name || found.Namespace != who.Namespace:
		return fault.New(fault.Denied, "permission denied: the cluster knows the token as another service account's")
	case found.UID != who.UID:
		return fault.New(fault.Denied, "permission denied: the service account was deleted, and there is another of its name")
	}
	return nil
}

// selected refuses service accounts whose namespace lacks labels.
func (m *Method) selected(ctx context.Context, c *config, o *role, who account) error {
	s, err := parseSelector(o.Selector)
	if err != nil {
		return err
	}
	api, err := m.reader(c, "bound_service_account_namespace_selector")
	if err != nil {
		return err
	}
	labels, err := api.labels(ctx, who.Namespace)
	if err != nil {
		return err
	}
	if !s.fits(labels) {
		return errNamespace()
	}
	return nil
}

// reader is the cluster asked with this server's own token, which the setting or
// the parameter of that name needs.
func (m *Method) reader(c *config, needs string) (cluster, error) {
	api, err := m.cluster(c, "")
	switch {
	case err != nil:
		return api, err
	case c.Host == "" || api.bearer == "":
		return api, fault.New(fault.Unavailable, "%s needs the API server, asked with this server's own token: write kubernetes_host and token_reviewer_jwt", needs)
	}
	return api, nil
}

// Annotations of a service account that go into the alias's metadata.
const (
	annotated     = "vault.hashicorp.com/alias-metadata-"
	maxAnnotation = 512 // bytes of a name and of a value
	maxAnnotated  = 64
)

// kept is what identity keeps of the alias.
func (m *Method) kept(ctx context.Context, c *config, who account, metadata map[string]string) (map[string]string, error) {
	if !c.Annotations {
		return metadata, nil
	}
	api, err := m.reader(c, "use_annotations_as_alias_metadata")
	if err != nil {
		return nil, err
	}
	found, err := api.annotations(ctx, who)
	if err != nil {
		return nil, err
	}
	out := maps.Clone(metadata)
	for name, value := range found {
		name, ok := strings.CutPrefix(name, annotated)
		if !ok || out[name] != "" { // what the token says is not written over
			continue
		}
		if name == "" || len(name) > maxAnnotation || len(value) > maxAnnotation || len(out) > maxAnnotated {
			return nil, fault.New(fault.Invalid, "the service account's annotations %s… are more than %d, or longer than %d bytes", annotated, maxAnnotated, maxAnnotation)
		}
		out[name] = value
	}
	return out, nil
}

// Renew implements auth.Renewer: a token whose role was deleted is not renewed.
func (m *Method) Renew(ctx context.Context, _ route.Caller, granted auth.Login) (auth.Login, error) {
	o, err := m.find(ctx, Named{granted.Metadata["role"]})
	switch {
	case err != nil:
		return granted, err
	case o == nil:
		return granted, fault.New(fault.Denied, "the role was deleted, not renewing")
	}
	granted.TTL, granted.MaxTTL, granted.Period = o.TTL, o.MaxTTL, o.Period
	return granted, nil
}
