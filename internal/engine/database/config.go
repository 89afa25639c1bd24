package database

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine/database/plugin"
	"github.com/cofferhq/coffer/internal/engine/database/username"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var configRoutes = []route.Route[*Engine]{
	route.New("LIST", "config", "List the connections.", (*Engine).listConfigs,
		route.Shows("config", "", "")),
	route.New("GET", "config/{name}", "Read a connection, without its password.", (*Engine).readConfig,
		route.Shows("config/orders", "", "")),
	route.New("POST", "config/{name}", "Set up a connection to a database; it is tried first.", (*Engine).writeConfig, route.ExistsBy((*Engine).configExists),
		route.Shows("config/orders", `{"plugin_name":"postgresql-database-plugin","connection_url":"postgresql://{{username}}:{{password}}@db.example:5432/orders","username":"coffer","password":"first-password","allowed_roles":"orders-*"}`, "")),
	route.New("DELETE", "config/{name}", "Forget a connection. What it lent can then not be taken back.", (*Engine).removeConfig,
		route.Shows("config/orders", "", "")),
	route.New("POST", "reset/{name}", "Close a connection's pool, and connect anew.", (*Engine).reset,
		route.Shows("reset/orders", "{}", "")),
	route.New("POST", "rotate-root/{name}", "Change the password of the connection's own account to one that only Coffer knows.", (*Engine).rotateRoot,
		route.Shows("rotate-root/orders", "{}", "")),
}

// config is the row of a connection.
type config struct {
	Plugin       string          `json:"plugin_name"`
	Settings     plugin.Settings `json:"settings"`
	AllowedRoles wire.Strings    `json:"allowed_roles"`
	Rotation     Statements      `json:"root_rotation_statements"`
	Policy       string          `json:"password_policy,omitempty"`
	Template     string          `json:"username_template,omitempty"`
	Verify       bool            `json:"verify_connection"`
	// Pending is the administrator's next password: it is the password already, or
	// Settings.Password still is.
	Pending string    `json:"pending,omitempty"`
	Rotated time.Time `json:"rotated,omitzero"`
	// Generation changes whenever connections have to be made anew.
	Generation string `json:"generation"`
}

// WriteConfig sets up a connection.
type WriteConfig struct {
	Named
	Plugin       *string        `json:"plugin_name" doc:"postgresql-database-plugin or mysql-database-plugin."`
	Version      string         `json:"plugin_version" doc:"Accepted for Vault's clients; plugins are built in."`
	Verify       *wire.Bool     `json:"verify_connection" doc:"Connect before it is kept, true unless given."`
	AllowedRoles *wire.Strings  `json:"allowed_roles" doc:"Roles that may use it, in which * stands for any characters; none unless given."`
	Rotation     *Statements    `json:"root_rotation_statements" doc:"Statements that change its own password; the plugin's own unless given."`
	Rotation2    *Statements    `json:"root_credentials_rotate_statements" doc:"Another spelling of root_rotation_statements."`
	Policy       *string        `json:"password_policy" doc:"Password policy by which passwords are made, see sys/policies/password."`
	URL          *string        `json:"connection_url" doc:"Where the database is, with {{username}} and {{password}}."`
	Username     *string        `json:"username" doc:"The account by which others are made."`
	Password     *wire.Secret   `json:"password" doc:"Its password; it is never answered again."`
	Template     *string        `json:"username_template" doc:"Template of the names of accounts."`
	MaxOpen      *wire.Int      `json:"max_open_connections" doc:"Most connections at once from one node, 4 unless given."`
	MaxIdle      *wire.Int      `json:"max_idle_connections" doc:"Most of them that are kept while unused, as many unless given; below 0 is none."`
	MaxLife      *wire.Duration `json:"max_connection_lifetime" doc:"How long one is used at most; 0 is for ever."`
	Unescaped    *wire.Bool     `json:"disable_escaping" doc:"Put username and password into the URL as they are."`
	CA           *string        `json:"tls_ca" doc:"Certificates in PEM that the database's own is checked by."`
	Certificate  *wire.Secret   `json:"tls_certificate_key" doc:"The client's certificate and key, in PEM."`
	InsecureTLS  *wire.Bool     `json:"insecure_tls" doc:"Do not check the database's certificate."`
	PasswordAuth *string        `json:"password_authentication" doc:"Accepted for Vault's clients: the database hashes passwords."`
}

// ConnectionDetails is how a connection is answered.
type ConnectionDetails struct {
	URL       string        `json:"connection_url"`
	Username  string        `json:"username"`
	MaxOpen   wire.Int      `json:"max_open_connections"`
	MaxIdle   wire.Int      `json:"max_idle_connections"`
	MaxLife   wire.Duration `json:"max_connection_lifetime"`
	Template  string        `json:"username_template,omitempty"`
	Unescaped bool          `json:"disable_escaping,omitempty"`
	CA        string        `json:"tls_ca,omitempty"`
	Insecure  bool          `json:"insecure_tls,omitempty"`
}

// ReadConfig is a connection in Vault's shape.
type ReadConfig struct {
	Plugin       string            `json:"plugin_name"`
	Version      string            `json:"plugin_version"`
	AllowedRoles wire.Strings      `json:"allowed_roles"`
	Details      ConnectionDetails `json:"connection_details"`
	Policy       string            `json:"password_policy"`
	Rotation     Statements        `json:"root_credentials_rotate_statements"`
	Verify       bool              `json:"verify_connection"`
	Rotated      *time.Time        `json:"last_root_rotation,omitempty"`
}

func (in WriteConfig) apply(c *config) error {
	if c.Plugin == "" {
		c.Verify = true
	}
	s := &c.Settings
	rows.Set(&c.Plugin, in.Plugin)
	rows.Set(&c.AllowedRoles, in.AllowedRoles)
	rows.Set(&c.Rotation, cmp.Or(in.Rotation, in.Rotation2))
	rows.Set(&c.Policy, in.Policy)
	rows.Set(&c.Template, in.Template)
	rows.Set(&s.URL, in.URL)
	rows.Set(&s.Username, in.Username)
	rows.Set(&s.CA, in.CA)
	rows.Set(&s.MaxLife, in.MaxLife)
	rows.Set((*wire.Bool)(&c.Verify), in.Verify)
	rows.Set((*wire.Bool)(&s.Unescaped), in.Unescaped)
	rows.Set((*wire.Bool)(&s.InsecureTLS), in.InsecureTLS)
	rows.Set(&s.MaxOpen, in.MaxOpen)
	rows.Set(&s.MaxIdle, in.MaxIdle)
	if in.Password != nil {
		s.Password, c.Pending = in.Password.Reveal(), ""
	}
	if in.Certificate != nil {
		s.Certificate = in.Certificate.Reveal()
	}
	c.Generation = rand.Text()
	return c.check()
}

const maxOpen = 1000

func (c *config) check() error {
	p, err := pluginOf(c.Plugin)
	if err != nil {
		return err
	}
	s := c.Settings
	switch {
	case s.MaxOpen < 0 || s.MaxOpen > maxOpen:
		return fault.New(fault.Invalid, "max_open_connections is 0 to %d", maxOpen)
	case s.MaxLife < 0:
		return fault.New(fault.Invalid, "max_connection_lifetime must not be negative")
	}
	if _, err := c.template(p); err != nil {
		return err
	}
	if srv, err := p.Open(s); err != nil {
		return err
	} else if err := srv.Close(); err != nil {
		return err
	}
	return nil
}

// templated reports whether the password can be changed: it is not part of the URL.
func (c *config) templated() bool {
	return c.Settings.Username != "" && strings.Contains(strings.ReplaceAll(c.Settings.URL, " ", ""), "{{password}}")
}

// template is that of the connection's names.
func (c *config) template(p *plugin.Plugin) (*username.Template, error) {
	return username.Parse(cmp.Or(c.Template, p.Username), p.MaxUsername)
}

// allows reports whether a role may use the connection.
func (c *config) allows(role string) bool {
	return slices.ContainsFunc(c.AllowedRoles, func(glob string) bool {
		ok, err := path.Match(glob, role)
		return glob == "*" || err == nil && ok
	})
}

func (e *Engine) configExists(ctx context.Context, in WriteConfig) (bool, error) {
	c, err := e.configs.Find(ctx, in.Name)
	return c != nil, err
}

func (e *Engine) writeConfig(ctx context.Context, _ route.Caller, in WriteConfig) (out route.Empty, err error) {
	if err := checkName(in.Name); err != nil {
		return out, err
	}
	c, err := e.configs.Find(ctx, in.Name)
	if err != nil {
		return out, err
	}
	if c == nil {
		c = &config{}
	}
	tried := *c
	if err := in.apply(&tried); err != nil {
		return out, err
	}
	if tried.Verify {
		if err := verify(ctx, &tried); err != nil {
			return out, fault.New(kindOf(err), "error creating database object: error verifying connection: %s", scrub(err, &tried))
		}
	}
	if err := e.configs.Change(ctx, in.Name, in.apply); err != nil {
		return out, err
	}
	e.servers.close(in.Name)
	if !tried.templated() {
		out.Warn("Password found in connection_url: write {{username}} and {{password}} in it, so that rotate-root can change the password")
	}
	return out, nil
}

// verify connects with a configuration, as itself and with nothing kept.
func verify(ctx context.Context, c *config) error {
	p, err := pluginOf(c.Plugin)
	if err != nil {
		return err
	}
	srv, err := p.Open(c.Settings)
	if err != nil {
		return err
	}
	defer func() { _ = srv.Close() }()
	return srv.Verify(ctx)
}

// userinfo is a password in a URL.
var userinfo = regexp.MustCompile(`(://[^:/@]*:)[^@/]*@`)

func (e *Engine) readConfig(ctx context.Context, _ route.Caller, in Named) (ReadConfig, error) {
	c, err := e.configs.Find(ctx, in.Name)
	if err != nil {
		return ReadConfig{}, err
	}
	if c == nil {
		return ReadConfig{}, route.Missing()
	}
	s := c.Settings
	out := ReadConfig{
		Plugin: c.Plugin, AllowedRoles: c.AllowedRoles, Policy: c.Policy, Rotation: c.Rotation, Verify: c.Verify,
		Details: ConnectionDetails{
			URL: redacted(s.URL), Username: s.Username, MaxOpen: cmp.Or(s.MaxOpen, plugin.MaxOpen), MaxIdle: s.MaxIdle, MaxLife: s.MaxLife,
			Template: c.Template, Unescaped: s.Unescaped, CA: s.CA, Insecure: s.InsecureTLS,
		},
	}
	if !c.Rotated.IsZero() {
		out.Rotated = &c.Rotated
	}
	return out, nil
}

// redacted is a URL without the password that may stand in it.
func redacted(text string) string {
	if strings.Contains(text, "{{password}}") {
		return text
	}
	if u, err := url.Parse(text); err == nil && u.User != nil {
		return u.Redacted()
	}
	text = userinfo.ReplaceAllString(text, "${1}xxxxx@")
	return regexp.MustCompile(`(?i)(password\s*=\s*)('[^']*'|\S+)`).ReplaceAllString(text, "${1}xxxxx")
}

func (e *Engine) removeConfig(ctx context.Context, _ route.Caller, in Named) (route.Empty, error) {
	e.servers.close(in.Name)
	return route.Empty{}, e.configs.Remove(ctx, in.Name)
}

func (e *Engine) reset(ctx context.Context, _ route.Caller, in Named) (route.Empty, error) {
	if _, err := e.config(ctx, in.Name); err != nil {
		return route.Empty{}, err
	}
	e.servers.close(in.Name)
	_, _, err := e.server(ctx, in.Name)
	return route.Empty{}, err
}
