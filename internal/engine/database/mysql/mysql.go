// Package mysql lends accounts of MySQL and MariaDB. It implements package plugin's
// Server.
package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/cofferhq/coffer/internal/engine/database/plugin"
	"github.com/cofferhq/coffer/internal/fault"
)

// Plugin lends accounts of MySQL and MariaDB.
var Plugin = plugin.Plugin{
	Name: "mysql-database-plugin", Doc: "Accounts of MySQL and MariaDB.",
	Username:    `{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 10) (.RoleName | truncate 10) (random 20) (unix_time) | truncate 32 }}`,
	MaxUsername: 32, NeedsCreation: true, Check: dialect.Check, Open: Open,
}

var dialect = plugin.Dialect{Backslash: true, Backtick: true}

const (
	connectTimeout = 5 * time.Second
	ioTimeout      = 30 * time.Second
)

// Server is a MySQL or MariaDB server.
type Server struct{ db *sql.DB }

// Open implements plugin.Plugin.
func Open(s plugin.Settings) (plugin.Server, error) {
	if s.URL == "" {
		return nil, fault.New(fault.Invalid, "connection_url cannot be empty")
	}
	blank := s
	blank.Username, blank.Password, blank.Unescaped = "u", "p", true
	c, err := driver.ParseDSN(blank.Filled())
	if err != nil {
		return nil, fault.New(fault.Invalid, "connection_url is not of the form {{username}}:{{password}}@tcp(host:3306)/database")
	}
	if c.User == "u" {
		c.User = s.Username
	}
	if c.Passwd == "p" {
		c.Passwd = s.Password // as it is: the driver's form has no escapes
	}
	if s.CA != "" || s.Certificate != "" || s.InsecureTLS {
		host := c.Addr
		if c.TLS, err = s.TLSConfig(hostOf(host)); err != nil {
			return nil, err
		}
	}
	c.Timeout, c.ReadTimeout, c.WriteTimeout = connectTimeout, ioTimeout, ioTimeout
	c.MultiStatements, c.InterpolateParams = false, true
	c.Logger = silent{}
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, fault.New(fault.Invalid, "connection_url cannot be used: %v", err)
	}
	db := sql.OpenDB(connector)
	s.Pool(db)
	return &Server{db}, nil
}

func hostOf(addr string) string {
	for i := len(addr) - 1; i >= 0; i-- {
		if addr[i] == ':' {
			return addr[:i]
		}
	}
	return addr
}

// silent keeps the driver from writing to the server's standard error.
type silent struct{}

func (silent) Print(...any) {}

// Verify implements plugin.Server.
func (s *Server) Verify(ctx context.Context) error { return told(s.db.PingContext(ctx)) }

// Close implements plugin.Server.
func (s *Server) Close() error { return s.db.Close() }

func values(a plugin.Account) plugin.Values {
	v := plugin.Values{"name": a.Name, "username": a.Name, "password": a.Password}
	if !a.Expires.IsZero() {
		v["expiration"] = a.Expires.UTC().Format("2006-01-02 15:04:05-0700")
	}
	return v
}

// exec runs statements with values in them.
func (s *Server) exec(ctx context.Context, statements []string, v plugin.Values) error {
	single, err := dialect.RenderAll(statements, v)
	if err != nil {
		return err
	}
	return told(plugin.Transact(ctx, s.db, single))
}

// Create implements plugin.Server. MySQL commits each statement about accounts by
// itself: what failed half-way is taken back by its lease.
func (s *Server) Create(ctx context.Context, a plugin.Account, statements []string) error {
	return s.exec(ctx, statements, values(a))
}

// Extend implements plugin.Server. MySQL's accounts know no end of their own.
func (s *Server) Extend(ctx context.Context, a plugin.Account, statements []string) error {
	return s.exec(ctx, statements, values(a))
}

// SetPassword implements plugin.Server.
func (s *Server) SetPassword(ctx context.Context, a plugin.Account, statements []string) error {
	if len(statements) > 0 {
		return s.exec(ctx, statements, values(a))
	}
	hosts, err := s.hosts(ctx, a.Name)
	if err != nil {
		return err
	}
	if len(hosts) == 0 {
		return fmt.Errorf("there is no account %q", a.Name)
	}
	for _, host := range hosts {
		v := values(a)
		v["host"] = host
		if err := s.exec(ctx, []string{`ALTER USER '{{username}}'@'{{host}}' IDENTIFIED BY '{{password}}'`}, v); err != nil {
			return err
		}
	}
	return nil
}

// Drop implements plugin.Server: the account of every host it was made for, and its
// sessions.
func (s *Server) Drop(ctx context.Context, name string, statements []string) error {
	hosts, err := s.hosts(ctx, name)
	if err != nil {
		return err
	}
	if len(hosts) > 0 && len(statements) > 0 {
		if err := s.exec(ctx, statements, values(plugin.Account{Name: name})); err != nil {
			return err
		}
	} else {
		for _, host := range hosts {
			v := plugin.Values{"username": name, "host": host}
			if err := s.exec(ctx, []string{`DROP USER IF EXISTS '{{username}}'@'{{host}}'`}, v); err != nil {
				return err
			}
		}
	}
	if hosts, err = s.hosts(ctx, name); err != nil {
		return err
	}
	if len(hosts) > 0 {
		return fmt.Errorf("the revocation statements ran, and account %q is still there for the hosts %q", name, hosts)
	}
	return s.endSessions(ctx, name)
}

// hosts returns the hosts for which there is an account of a name.
func (s *Server) hosts(ctx context.Context, name string) ([]string, error) {
	return s.texts(ctx, "SELECT Host FROM mysql.user WHERE User = ?", name)
}

// endSessions ends what the account has open: MySQL would leave it be.
func (s *Server) endSessions(ctx context.Context, name string) error {
	ids, err := s.texts(ctx, "SELECT id FROM information_schema.processlist WHERE user = ?", name)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.exec(ctx, []string{"KILL {{id}}"}, plugin.Values{"id": id}); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

const noSuchThread = 1094

func gone(err error) bool {
	var m *driver.MySQLError
	return errors.As(err, &m) && m.Number == noSuchThread
}

func (s *Server) texts(ctx context.Context, query, name string) (out []string, err error) {
	rows, err := s.db.QueryContext(ctx, query, name)
	if err != nil {
		return nil, told(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, told(err)
		}
		out = append(out, text)
	}
	return out, told(rows.Err())
}

// told makes of an error of the driver one that holds the server's words, and says
// whether it was reached.
func told(err error) error {
	var m *driver.MySQLError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &m):
		switch m.Number {
		case 1045, 1698:
			return fmt.Errorf("%w: %w", m, plugin.ErrPassword)
		case 1040, 1053, 1203:
			return plugin.Away(m) // too many connections, or it shuts down
		}
		return m
	}
	return plugin.Away(err)
}
