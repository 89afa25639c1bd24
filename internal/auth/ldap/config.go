package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"strings"
	"time"

	ldap "github.com/go-ldap/ldap/v3"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Settings say how the directory is asked, in Vault's names.
type Settings struct {
	URL               string       `json:"url"` // separated by commas
	StartTLS          wire.Bool    `json:"starttls"`
	InsecureTLS       wire.Bool    `json:"insecure_tls"`
	Certificate       string       `json:"certificate"`
	TLSMin            string       `json:"tls_min_version"`
	TLSMax            string       `json:"tls_max_version"`
	BindDN            string       `json:"binddn"`
	UserDN            string       `json:"userdn"`
	UserAttr          string       `json:"userattr"`
	UserFilter        string       `json:"userfilter"`
	UPNDomain         string       `json:"upndomain"`
	DiscoverDN        wire.Bool    `json:"discoverdn"`
	DenyNullBind      wire.Bool    `json:"deny_null_bind"`
	GroupDN           string       `json:"groupdn"`
	GroupFilter       string       `json:"groupfilter"`
	GroupAttr         string       `json:"groupattr"`
	AnonymousGroups   wire.Bool    `json:"anonymous_group_search"`
	TokenGroups       wire.Bool    `json:"use_token_groups"`
	Pre111            wire.Bool    `json:"use_pre111_group_cn_behavior"`
	CaseSensitive     wire.Bool    `json:"case_sensitive_names"`
	UsernameAsAlias   wire.Bool    `json:"username_as_alias"`
	Dereference       string       `json:"dereference_aliases"`
	PageSize          wire.Int     `json:"max_page_size"`
	RequestTimeout    wire.Seconds `json:"request_timeout"`
	ConnectionTimeout wire.Seconds `json:"connection_timeout"`
	auth.TokenParams
}

// config is the settings' row.
type config struct {
	Settings
	BindPass   string `json:"bindpass"`
	ClientCert string `json:"client_tls_cert"`
	ClientKey  string `json:"client_tls_key"`
}

// WriteConfig changes the settings.
type WriteConfig struct {
	URL               *wire.Strings `json:"url" doc:"The directory's servers, ldaps:// or ldap://, tried in turn until one can be reached."`
	StartTLS          *wire.Bool    `json:"starttls" doc:"Encrypt connections to ldap:// by StartTLS."`
	InsecureTLS       *wire.Bool    `json:"insecure_tls" doc:"Do not verify the directory's certificate: whoever is in between reads passwords."`
	Certificate       *string       `json:"certificate" doc:"Authorities of the directory's certificate, in PEM; the machine's own list without."`
	ClientCert        *string       `json:"client_tls_cert" doc:"A client certificate to show to the directory, in PEM."`
	ClientKey         *wire.Secret  `json:"client_tls_key" doc:"The client certificate's key, in PEM; never answered."`
	TLSMin            *string       `json:"tls_min_version" doc:"tls12, which is standard, or tls13."`
	TLSMax            *string       `json:"tls_max_version" doc:"tls12 or tls13, which is standard."`
	BindDN            *string       `json:"binddn" doc:"The entry that searches for users and groups."`
	BindPass          *wire.Secret  `json:"bindpass" doc:"Its password; never answered."`
	UserDN            *string       `json:"userdn" doc:"Where the users are: ou=people,dc=example,dc=com."`
	UserAttr          *string       `json:"userattr" doc:"The attribute that is a user's name; cn unless written."`
	UserFilter        *string       `json:"userfilter" doc:"The filter that finds a user, with {{.UserAttr}} and {{.Username}}."`
	UPNDomain         *string       `json:"upndomain" doc:"Users bind as name@domain, as Active Directory allows."`
	DiscoverDN        *wire.Bool    `json:"discoverdn" doc:"Search for users without a binddn, anonymously."`
	DenyNullBind      *wire.Bool    `json:"deny_null_bind" doc:"true: an empty password never logs in."`
	GroupDN           *string       `json:"groupdn" doc:"Where the groups are; without, the directory is not asked for groups."`
	GroupFilter       *string       `json:"groupfilter" doc:"The filter that finds a user's groups, with {{.UserDN}} and {{.Username}}."`
	GroupAttr         *string       `json:"groupattr" doc:"The attribute of what the filter finds that names groups; cn unless written. Of a DN the cn counts."`
	AnonymousGroups   *wire.Bool    `json:"anonymous_group_search" doc:"Search for groups anonymously."`
	TokenGroups       *wire.Bool    `json:"use_token_groups" doc:"Not supported; (member:1.2.840.113556.1.4.1941:={{.UserDN}}) in groupfilter finds nested groups in Active Directory."`
	Pre111            *wire.Bool    `json:"use_pre111_group_cn_behavior" doc:"Not supported: cn in a DN counts in any case."`
	CaseSensitive     *wire.Bool    `json:"case_sensitive_names" doc:"Names of users and groups that differ in case are different."`
	UsernameAsAlias   *wire.Bool    `json:"username_as_alias" doc:"Identity knows users by the name that they log in with, not by userattr."`
	Dereference       *string       `json:"dereference_aliases" doc:"When the directory follows its aliases: never, finding, searching or always."`
	PageSize          *wire.Int     `json:"max_page_size" doc:"Ask for groups in pages of this many; 0 in one."`
	RequestTimeout    *wire.Seconds `json:"request_timeout" doc:"How long a login may take to ask the directory, 1s to 10m; 90s unless written."`
	ConnectionTimeout *wire.Seconds `json:"connection_timeout" doc:"How long a server may take to be connected to, 1s to 10m; 30s unless written."`
	auth.TokenFields
}

const (
	configKey   = "config"
	maxServers  = 16
	maxSetting  = 64 << 10 // bytes
	maxPage     = 10_000
	minTimeout  = time.Second
	mostTimeout = 10 * time.Minute
)

var versions = map[string]uint16{"tls12": tls.VersionTLS12, "tls13": tls.VersionTLS13}

var dereferences = map[string]int{
	"never": ldap.NeverDerefAliases, "finding": ldap.DerefFindingBaseObj, "searching": ldap.DerefInSearching, "always": ldap.DerefAlways,
}

// standard is what holds where nothing was written.
func standard() config {
	return config{Settings: Settings{
		URL: "ldap://127.0.0.1", TLSMin: "tls12", TLSMax: "tls13", UserAttr: "cn", UserFilter: standardUserFilter,
		GroupFilter: standardGroupFilter, GroupAttr: "cn", DenyNullBind: true, Dereference: "never",
		RequestTimeout: wire.Seconds(90 * time.Second), ConnectionTimeout: wire.Seconds(30 * time.Second),
		TokenParams: auth.TokenParams{Type: "default"},
	}}
}

// apply changes what the request names, and checks what comes of it.
func (in WriteConfig) apply(c *config) error {
	if in.URL != nil {
		c.URL = strings.ToLower(strings.Join(*in.URL, ","))
	}
	for _, f := range []struct {
		dst *wire.Bool
		src *wire.Bool
	}{
		{&c.StartTLS, in.StartTLS}, {&c.InsecureTLS, in.InsecureTLS}, {&c.DiscoverDN, in.DiscoverDN}, {&c.DenyNullBind, in.DenyNullBind},
		{&c.AnonymousGroups, in.AnonymousGroups}, {&c.TokenGroups, in.TokenGroups}, {&c.Pre111, in.Pre111},
		{&c.CaseSensitive, in.CaseSensitive}, {&c.UsernameAsAlias, in.UsernameAsAlias},
	} {
		rows.Set(f.dst, f.src)
	}
	for name, f := range map[string]struct {
		dst *string
		src *string
	}{
		"certificate": {&c.Certificate, in.Certificate}, "client_tls_cert": {&c.ClientCert, in.ClientCert},
		"client_tls_key": {&c.ClientKey, (*string)(in.ClientKey)}, "tls_min_version": {&c.TLSMin, in.TLSMin},
		"tls_max_version": {&c.TLSMax, in.TLSMax}, "binddn": {&c.BindDN, in.BindDN}, "bindpass": {&c.BindPass, (*string)(in.BindPass)},
		"userdn": {&c.UserDN, in.UserDN}, "userattr": {&c.UserAttr, in.UserAttr}, "userfilter": {&c.UserFilter, in.UserFilter},
		"upndomain": {&c.UPNDomain, in.UPNDomain}, "groupdn": {&c.GroupDN, in.GroupDN}, "groupfilter": {&c.GroupFilter, in.GroupFilter},
		"groupattr": {&c.GroupAttr, in.GroupAttr}, "dereference_aliases": {&c.Dereference, in.Dereference},
	} {
		if f.src != nil && len(*f.src) > maxSetting {
			return fault.New(fault.Invalid, "%s: it has at most %d bytes", name, maxSetting)
		}
		rows.Set(f.dst, f.src)
	}
	rows.Set(&c.PageSize, in.PageSize)
	rows.Set(&c.RequestTimeout, in.RequestTimeout)
	rows.Set(&c.ConnectionTimeout, in.ConnectionTimeout)
	if c.UserFilter == "" {
		c.UserFilter = standardUserFilter
	}
	if err := c.check(); err != nil {
		return err
	}
	return in.TokenFields.Apply(&c.TokenParams)
}

// check refuses settings that cannot be.
func (c *config) check() error {
	if _, err := c.servers(); err != nil {
		return err
	}
	if _, err := c.tls(""); err != nil {
		return err
	}
	for name, dn := range map[string]string{"userdn": c.UserDN, "groupdn": c.GroupDN} {
		if _, err := ldap.ParseDN(dn); err != nil {
			return fault.New(fault.Invalid, "%s: it is no DN, such as ou=people,dc=example,dc=com", name)
		}
	}
	for name, value := range map[string]string{"userattr": c.UserAttr, "groupattr": c.GroupAttr} {
		if !attribute.MatchString(value) {
			return fault.New(fault.Invalid, "%s: it is no name of an attribute, such as uid", name)
		}
	}
	if err := checkFilter("userfilter", c.UserFilter, "UserAttr", "Username"); err != nil {
		return err
	}
	if c.GroupFilter != "" {
		if err := checkFilter("groupfilter", c.GroupFilter, "UserDN", "Username"); err != nil {
			return err
		}
	}
	_, known := dereferences[c.Dereference]
	switch {
	case !strings.Contains(filled(c.UserFilter, map[string]string{"Username": "\x00"}), `\00`):
		return fault.New(fault.Invalid, "userfilter: without {{.Username}} it finds the same user for every name")
	case !known:
		return fault.New(fault.Invalid, "invalid dereference_aliases %q: it is never, finding, searching or always", c.Dereference)
	case bool(c.TokenGroups):
		return fault.New(fault.Invalid, "use_token_groups is not supported; in Active Directory, groupfilter=(member:1.2.840.113556.1.4.1941:={{.UserDN}}) finds nested groups too")
	case bool(c.Pre111):
		return fault.New(fault.Invalid, "use_pre111_group_cn_behavior is not supported: the cn of a group's DN counts in any case")
	case !bool(c.DenyNullBind):
		return fault.New(fault.Invalid, "deny_null_bind=false is not supported: directories accept any name with an empty password, which proves nothing")
	case c.PageSize < 0 || c.PageSize > maxPage:
		return fault.New(fault.Invalid, "max_page_size: it is a number from 0 to %d", maxPage)
	}
	for name, d := range map[string]wire.Seconds{"request_timeout": c.RequestTimeout, "connection_timeout": c.ConnectionTimeout} {
		if d.Duration() < minTimeout || d.Duration() > mostTimeout {
			return fault.New(fault.Invalid, "%s: it is a duration from %v to %v", name, minTimeout, mostTimeout)
		}
	}
	return nil
}

// server is one of the directory's.
type server struct {
	host, address string // address has the port
	tls           bool   // from the first byte
}

// servers returns the directory's servers in the order in which they are tried.
func (c *config) servers() (list []server, err error) {
	for text := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fault.New(fault.Invalid, "url: each is ldaps://host, ldap://host, or one of these with a port")
		}
		s := server{host: u.Hostname(), tls: u.Scheme == "ldaps"}
		port := u.Port()
		switch {
		case port != "":
		case s.tls:
			port = ldap.DefaultLdapsPort
		default:
			port = ldap.DefaultLdapPort
		}
		s.address = net.JoinHostPort(s.host, port)
		list = append(list, s)
	}
	if len(list) > maxServers {
		return nil, fault.New(fault.Invalid, "url: there are at most %d", maxServers)
	}
	return list, nil
}

// tls is how the connection to a host is encrypted.
func (c *config) tls(host string) (*tls.Config, error) {
	least, known := versions[c.TLSMin]
	if !known {
		return nil, fault.New(fault.Invalid, "invalid 'tls_min_version': it is tls12 or tls13")
	}
	most, known := versions[c.TLSMax]
	if !known {
		return nil, fault.New(fault.Invalid, "invalid 'tls_max_version': it is tls12 or tls13")
	}
	if most < least {
		return nil, fault.New(fault.Invalid, "'tls_max_version' must be greater than or equal to 'tls_min_version'")
	}
	out := &tls.Config{ServerName: host, MinVersion: least, MaxVersion: most, InsecureSkipVerify: bool(c.InsecureTLS)}
	if c.Certificate != "" {
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM([]byte(c.Certificate)) {
			return nil, fault.New(fault.Invalid, "certificate: it has no certificate in PEM")
		}
	}
	switch {
	case c.ClientCert != "" && c.ClientKey != "":
		pair, err := tls.X509KeyPair([]byte(c.ClientCert), []byte(c.ClientKey))
		if err != nil {
			return nil, fault.New(fault.Invalid, "client_tls_cert and client_tls_key: they are no certificate and its key in PEM")
		}
		out.Certificates = []tls.Certificate{pair}
	case c.ClientCert != "" || c.ClientKey != "":
		return nil, fault.New(fault.Invalid, "both client_tls_cert and client_tls_key must be set")
	}
	return out, nil
}

// searches reports whether users are searched for, by the bind user or anonymously;
// otherwise their DNs are made of their names.
func (c *config) searches() bool { return bool(c.DiscoverDN) || c.bound() }

func (c *config) bound() bool { return c.BindDN != "" && c.BindPass != "" }

// clear reports whether passwords cross a network unencrypted.
func (c *config) clear() bool {
	servers, err := c.servers()
	if err != nil || bool(c.StartTLS) {
		return false
	}
	for _, s := range servers {
		if ip := net.ParseIP(s.host); !s.tls && s.host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return true
		}
	}
	return false
}

func (m *Method) writeConfig(ctx context.Context, _ route.Caller, in WriteConfig) (out route.Empty, err error) {
	var kept config
	err = m.config.Change(ctx, configKey, func(c *config) error {
		if c.URL == "" {
			*c = standard()
		}
		err := in.apply(c)
		kept = *c
		return err
	})
	if err == nil && kept.clear() {
		out.Warn("passwords cross the network unencrypted: use ldaps://, or starttls=true")
	}
	if err == nil && bool(kept.InsecureTLS) {
		out.Warn("insecure_tls=true: whoever is between this server and the directory can read passwords")
	}
	return out, err
}

func (m *Method) readConfig(ctx context.Context, _ route.Caller, _ route.Nothing) (Settings, error) {
	c, err := m.config.Find(ctx, configKey)
	if err != nil {
		return Settings{}, err
	}
	if c == nil {
		return standard().Settings, nil
	}
	return c.Settings, nil
}
