package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	ldap "github.com/go-ldap/ldap/v3"

	"github.com/cofferhq/coffer/internal/fault"
)

// maxAnswer bounds what the directory may send in one connection, in bytes.
const maxAnswer = 4 << 20

var errTooMuch = fmt.Errorf("the directory sent more than %d bytes", maxAnswer)

// directory is a connection to one of the directory's servers, for one login.
type directory struct {
	c    *config
	conn *ldap.Conn
	stop func() bool
}

// bounded is a connection of which only so much is read.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooMuch
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// away is the fault of a directory that cannot be asked. Who logs in may not learn
// where the directory is, so that the cause is for the log only.
func away(cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "the LDAP directory cannot be asked now; nothing is said about the password. Try again, or see this server's log")
}

// connect connects to the first server that can be reached, until ctx ends.
func (c *config) connect(ctx context.Context) (*directory, error) {
	servers, err := c.servers()
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, s := range servers {
		d, err := c.dial(ctx, s)
		if err == nil {
			return d, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", s.address, err))
	}
	return nil, away(errors.Join(failed...))
}

// dial connects to a server, encrypted if it is to be.
func (c *config) dial(ctx context.Context, s server) (*directory, error) {
	connecting, cancel := context.WithTimeout(ctx, c.ConnectionTimeout.Duration())
	defer cancel()
	settings, err := c.tls(s.host)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	raw, err := dialer.DialContext(connecting, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	until, _ := connecting.Deadline()
	_ = raw.SetDeadline(until)
	var conn net.Conn = &bounded{raw, maxAnswer}
	if s.tls {
		encrypted := tls.Client(conn, settings)
		if err := encrypted.HandshakeContext(connecting); err != nil {
			_ = raw.Close()
			return nil, err
		}
		conn = encrypted
	}
	d := &directory{c: c, conn: ldap.NewConn(conn, s.tls)}
	d.conn.SetTimeout(time.Until(until))
	d.conn.Start()
	if bool(c.StartTLS) && !s.tls {
		if err := d.conn.StartTLS(settings); err != nil {
			_ = raw.Close()
			_ = d.conn.Close()
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
	}
	until, _ = ctx.Deadline()
	_ = raw.SetDeadline(until)
	d.conn.SetTimeout(time.Until(until))
	d.stop = context.AfterFunc(ctx, func() { _ = raw.Close() })
	return d, nil
}

func (d *directory) close() {
	d.stop()
	_ = d.conn.Close()
}

// refuses are the codes (RFC 4511, section 4.1.9) by which a directory says that this
// name and password may not bind. Every other says something about the directory.
var refuses = []uint16{
	ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax,
	ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultConstraintViolation,
	ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultUnwillingToPerform,
}

// proves reports whether the password is the name's. An empty one never is.
func (d *directory) proves(name, password string) (bool, error) {
	if name == "" || password == "" {
		return false, nil
	}
	err := d.conn.Bind(name, password)
	switch {
	case err == nil:
		return true, nil
	case ldap.IsErrorAnyOf(err, refuses...):
		return false, nil
	}
	return false, away(fmt.Errorf("bind: %w", err))
}

// bind makes the connection the bind user's, where there is one.
func (d *directory) bind() error {
	if !d.c.bound() {
		return nil
	}
	if err := d.conn.Bind(d.c.BindDN, d.c.BindPass); err != nil {
		return away(fmt.Errorf("bind as binddn: %w", err))
	}
	return nil
}

// request is a search below base.
func (d *directory) request(base, filter string, most int, attributes ...string) *ldap.SearchRequest {
	return &ldap.SearchRequest{
		BaseDN: base, Scope: ldap.ScopeWholeSubtree, DerefAliases: dereferences[d.c.Dereference],
		SizeLimit: most, Filter: filter, Attributes: attributes,
	}
}

// person is a user of the directory.
type person struct {
	bind  string // what the password is proven with
	dn    string // "" until looked up, where users bind by their principal names
	alias string // by which identity knows them; "" where the directory has none
}

// find returns the user of a name, nil when there is none, or not just one.
func (d *directory) find(name string) (*person, error) {
	c := d.c
	if !c.searches() {
		if c.UPNDomain != "" {
			if !principal(name) {
				return nil, nil
			}
			upn := name + "@" + c.UPNDomain
			return &person{bind: upn, alias: upn}, nil
		}
		dn := c.UserAttr + "=" + ldap.EscapeDN(name) + "," + c.UserDN
		return &person{bind: dn, dn: dn, alias: dn}, nil
	}
	values := map[string]string{"UserAttr": c.UserAttr, "Username": name}
	if c.UPNDomain != "" {
		values = map[string]string{"UserAttr": "userPrincipalName", "Username": name + "@" + c.UPNDomain}
	}
	e, err := d.one(filled(c.UserFilter, values), c.UserAttr)
	if e == nil || err != nil {
		return nil, err
	}
	p := &person{bind: e.DN, dn: e.DN}
	if found := e.GetEqualFoldAttributeValues(c.UserAttr); len(found) == 1 {
		p.alias = found[0]
	}
	return p, nil
}

// one returns the one user that a filter finds.
func (d *directory) one(filter, attribute string) (*ldap.Entry, error) {
	found, err := d.conn.Search(d.request(d.c.UserDN, filter, 2, attribute))
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded):
		return nil, nil
	case err != nil:
		return nil, away(fmt.Errorf("search for the user below %q: %w", d.c.UserDN, err))
	case len(found.Entries) != 1 || found.Entries[0].DN == "":
		return nil, nil
	}
	return found.Entries[0], nil
}

// locate looks the DN up of a user who was bound by their principal name.
func (d *directory) locate(p *person) error {
	if p.dn != "" {
		return nil
	}
	e, err := d.one(filled("(userPrincipalName={{.Name}})", map[string]string{"Name": p.bind}), "1.1")
	if err != nil {
		return err
	}
	if e == nil {
		return fault.New(fault.Invalid, "ldap operation failed: no entry below userdn has the userPrincipalName that was logged in with")
	}
	p.dn = e.DN
	return nil
}

// groups returns the names of a user's groups, each once, in the directory's spelling.
func (d *directory) groups(ctx context.Context, p *person, name string) ([]string, error) {
	c := d.c
	if c.GroupDN == "" || c.GroupFilter == "" {
		return nil, nil
	}
	if bool(c.AnonymousGroups) {
		anonymous, err := c.connect(ctx)
		if err != nil {
			return nil, err
		}
		defer anonymous.close()
		d = anonymous
	}
	filter := filled(c.GroupFilter, map[string]string{"UserDN": p.dn, "Username": name})
	// The page control's limit counts each page; this one all of them.
	ask := d.request(c.GroupDN, filter, maxGroups, c.GroupAttr)
	search := d.conn.Search
	if c.PageSize > 0 {
		search = func(r *ldap.SearchRequest) (*ldap.SearchResult, error) {
			return d.conn.SearchWithPaging(r, uint32(c.PageSize))
		}
	}
	found, err := search(ask)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		return nil, tooManyGroups()
	}
	if err != nil {
		return nil, away(fmt.Errorf("search for groups below %q: %w", c.GroupDN, err))
	}
	return names(found.Entries, c.GroupAttr)
}

// names are those of the groups that a search found.
func names(entries []*ldap.Entry, attribute string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, e := range entries {
		values := e.GetEqualFoldAttributeValues(attribute)
		if len(values) == 0 {
			values = []string{e.DN}
		}
		for _, value := range values {
			name := commonName(value)
			if _, ok := nameOf(name, true); !ok || seen[name] {
				continue
			}
			if len(out) == maxGroups {
				return nil, tooManyGroups()
			}
			seen[name], out = true, append(out, name)
		}
	}
	return out, nil
}

func tooManyGroups() error {
	return fault.New(fault.Invalid, "ldap operation failed: the user is in more groups than %d, or than the directory names at once; narrow groupfilter, or write max_page_size", maxGroups)
}
