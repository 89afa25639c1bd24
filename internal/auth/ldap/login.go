package ldap

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/attempts"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Login asks to log in.
type Login struct {
	Username string      `path:"username" doc:"The user's name; its case does not count unless case_sensitive_names is set."`
	Password wire.Secret `json:"password" doc:"The user's password in the directory."`
}

// errLogin does not tell whether the user exists.
func errLogin() error {
	return fault.New(fault.Invalid, "ldap operation failed: failed to bind as user")
}

func errUnset() error {
	return fault.New(fault.Invalid, "auth method not configured: write its config first")
}

// principal reports whether a name can be the first part of a user principal name of
// Active Directory, which has no escapes.
func principal(name string) bool { return !strings.ContainsAny(name, `"/\[]:;|=,+*?<>@`) }

func (m *Method) login(ctx context.Context, by route.Caller, in Login) (out auth.Login, err error) {
	if in.Password == "" {
		return out, fault.New(fault.Invalid, "password cannot be of zero length when passwordless binds are being denied")
	}
	c, err := m.config.Lately(ctx, configKey)
	switch {
	case err != nil:
		return out, err
	case c == nil:
		return out, errUnset()
	case !c.searches() && c.UPNDomain == "" && c.UserDN == "":
		return out, fault.New(fault.Invalid, "cannot derive UserBindDN: write binddn and bindpass, discoverdn, upndomain or userdn to config")
	}
	accepted, err := wire.Accepts(c.BoundCIDRs, by.Remote)
	if err != nil {
		return out, err
	}
	if !accepted {
		return out, fault.New(fault.Denied, "permission denied")
	}
	name, ok := nameOf(in.Username, bool(c.CaseSensitive))
	if !ok {
		return out, errLogin()
	}
	ctx, cancel := context.WithTimeout(ctx, c.RequestTimeout.Duration())
	defer cancel()
	var d *directory
	var who *person
	look := func(ctx context.Context) (known attempts.Known, err error) {
		if d, err = c.connect(ctx); err != nil {
			return known, err
		}
		who, err = d.seek(name)
		return c.known(who, name), err
	}
	err = m.guard.Try(ctx, errLogin(), look, func(context.Context) (bool, error) { return d.prove(who, in.Password.Reveal()) })
	if d != nil {
		defer d.close()
	}
	if err != nil {
		return out, err
	}
	if err := d.bind(); err != nil { // of now on the connection is the bind user's again
		return out, err
	}
	return m.grant(ctx, d, who, name)
}

// seek returns the user of a name, as the bind user finds them; nil when there is none.
func (d *directory) seek(name string) (*person, error) {
	if d.c.searches() {
		if err := d.bind(); err != nil {
			return nil, err
		}
	}
	return d.find(name)
}

// known is whose failures an attempt is counted among: directories take many spellings
// for one name, so that where they are searched the user's own attribute counts. Where
// they are not, nobody knows before whether the user exists.
func (c *config) known(who *person, name string) attempts.Known {
	out := attempts.Known{Name: strings.ToLower(name), Exists: who != nil && c.searches()}
	if out.Exists {
		if own, ok := nameOf(who.alias, false); ok {
			out.Name = own
		}
	}
	return out
}

// prove reports whether a password is the user's. For nobody it asks the directory as
// many questions.
func (d *directory) prove(who *person, password string) (bool, error) {
	as := "cn=" + rand.Text() + "," + d.c.UserDN // which nobody is
	if who != nil {
		as = who.bind
	}
	ok, err := d.proves(as, password)
	return ok && who != nil, err
}

// grant is the login of a user who was proven.
func (m *Method) grant(ctx context.Context, d *directory, who *person, name string) (out auth.Login, err error) {
	if err := d.locate(who); err != nil {
		return out, err
	}
	found, err := d.groups(ctx, who, name)
	if err != nil {
		return out, err
	}
	out = auth.Login{
		Alias: who.alias, Groups: found, DisplayName: m.method + "-" + name, Binding: who.dn,
		Metadata: map[string]string{"username": name}, AliasMetadata: map[string]string{"name": name},
		TokenParams: d.c.TokenParams,
	}
	if len(found) == 0 && d.c.GroupDN != "" {
		out.Warn("no LDAP groups found in groupDN \"" + d.c.GroupDN + "\"; only policies from locally-defined groups available")
	}
	if bool(d.c.UsernameAsAlias) {
		out.Alias = name
	}
	if out.Alias == "" {
		return auth.Login{}, fault.New(fault.Invalid, "ldap operation failed: the user's attribute %s is missing, or has several values, so that identity cannot know the user by it; write another userattr, or username_as_alias=true", d.c.UserAttr)
	}
	u, err := m.users.Lately(ctx, name)
	if err != nil {
		return auth.Login{}, err
	}
	policies := slices.Clone(d.c.PolicyNames)
	if u != nil {
		policies = append(policies, u.Policies...)
		out.Groups = append(out.Groups, u.Groups...)
	}
	for _, g := range out.Groups {
		key, ok := nameOf(g, bool(d.c.CaseSensitive))
		if !ok {
			continue
		}
		row, err := m.groups.Lately(ctx, key)
		if err != nil {
			return auth.Login{}, err
		}
		if row != nil {
			policies = append(policies, row.Policies...)
		}
	}
	slices.Sort(out.Groups)
	out.Groups = slices.Compact(out.Groups)
	out.Policies = auth.Policies(policies)
	return out, nil
}

// Renew implements auth.Renewer. The bind user looks whether the user is still there,
// since nobody's password is kept; without a bind user nobody can, and tokens are not
// renewed.
func (m *Method) Renew(ctx context.Context, _ route.Caller, granted auth.Login) (auth.Login, error) {
	c, err := m.config.Find(ctx, configKey)
	switch {
	case err != nil:
		return granted, err
	case c == nil:
		return granted, fault.New(fault.Denied, "the method's config is gone, not renewing")
	case !c.searches():
		return granted, fault.New(fault.Denied, "without binddn and bindpass nobody can look whether the user still exists, not renewing; log in again")
	}
	name := granted.Metadata["username"]
	ctx, cancel := context.WithTimeout(ctx, c.RequestTimeout.Duration())
	defer cancel()
	d, err := c.connect(ctx)
	if err != nil {
		return granted, err
	}
	defer d.close()
	who, err := d.seek(name)
	switch {
	case err != nil:
		return granted, err
	case who == nil || who.dn != granted.Binding:
		return granted, fault.New(fault.Denied, "the user is no longer in the directory, or elsewhere in it, not renewing")
	}
	now, err := m.grant(ctx, d, who, name)
	switch {
	case err != nil:
		return granted, err
	case !slices.Equal(now.Policies, auth.Policies(granted.Policies)):
		return granted, fault.New(fault.Denied, "policies have changed, not renewing")
	}
	granted.Groups = now.Groups
	granted.TTL, granted.MaxTTL, granted.Period = now.TTL, now.MaxTTL, now.Period
	return granted, nil
}
