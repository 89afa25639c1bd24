// Package plugin is what a kind of database has to do to be lent from: a few
// methods that make, extend and drop accounts under an administrator's account. To
// add one, write a package that returns a Plugin, and name it in package database.
//
// The engine decides names, passwords and times; a plugin never makes them up. It
// keeps nothing, and logs nothing.
package plugin

import (
	"context"
	"errors"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

// Settings are how a server is reached and as whom. Which are used is the plugin's.
type Settings struct {
	URL         string        `json:"connection_url,omitempty"` // may hold {{username}} and {{password}}
	Username    string        `json:"username,omitempty"`
	Password    string        `json:"password,omitempty"`
	Host        string        `json:"host,omitempty"`
	Port        int           `json:"port,omitempty"`
	TLS         bool          `json:"tls,omitempty"`
	InsecureTLS bool          `json:"insecure_tls,omitempty"`
	CA          string        `json:"tls_ca,omitempty"`              // PEM
	Certificate string        `json:"tls_certificate_key,omitempty"` // PEM of a certificate and its key
	MaxOpen     wire.Int      `json:"max_open_connections,omitempty"`
	MaxIdle     wire.Int      `json:"max_idle_connections,omitempty"`
	MaxLife     wire.Duration `json:"max_connection_lifetime,omitempty"`
	// Unescaped puts username and password into the URL as they are.
	Unescaped bool `json:"disable_escaping,omitempty"`
}

// Account is an account of a database.
type Account struct {
	Name     string
	Password string
	Expires  time.Time // until when it lasts, where the database knows of that; zero: for ever
}

// Server is a database server under its administrator's account. Its methods may be
// called concurrently, and end when ctx does. A server that cannot be reached is a
// fault.Unavailable, made by Away; any other error holds the server's own words.
type Server interface {
	// Verify connects, and proves the administrator's password.
	Verify(ctx context.Context) error
	// Create makes an account by statements, and where the database can, all of it
	// or nothing.
	Create(ctx context.Context, a Account, statements []string) error
	// Extend makes an account last until a.Expires.
	Extend(ctx context.Context, a Account, statements []string) error
	// Drop ends an account, by statements or in the plugin's own way where there are
	// none, and sees that it is gone. One that is not there is no error.
	Drop(ctx context.Context, name string, statements []string) error
	// SetPassword changes the password of an account that is there.
	SetPassword(ctx context.Context, a Account, statements []string) error
	// Close ends its connections, after what is under way.
	Close() error
}

// Plugin is a kind of database.
type Plugin struct {
	Name string // "postgresql-database-plugin"
	Doc  string
	// Username is the template of names for roles that have none of their own.
	Username string
	// MaxUsername is the longest name of an account, in bytes.
	MaxUsername int
	// NeedsCreation says that accounts cannot be made without statements.
	NeedsCreation bool
	// Check refuses statements of a role that cannot be read, or that do without a
	// placeholder that they need; nil when there is nothing to check.
	Check func(creation, revocation, rollback, renewal []string) error
	// Open returns the server of settings. It connects to nothing yet. Settings that
	// cannot be used are a fault.Invalid.
	Open func(s Settings) (Server, error)
}

// Away is the error for a server that cannot be reached.
func Away(err error) error {
	return fault.Wrap(fault.Unavailable, err, "the database cannot be reached: %v", err)
}

// ErrPassword is wrapped by the error of a server that knows the administrator's
// account but refuses the password.
var ErrPassword = errors.New("the database refuses the administrator's password")
