// Package postgresql lends accounts of PostgreSQL, and of databases that speak its
// protocol. It implements package plugin's Server.
package postgresql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cofferhq/coffer/internal/engine/database/plugin"
	"github.com/cofferhq/coffer/internal/fault"
)

// Plugin lends accounts of PostgreSQL.
var Plugin = plugin.Plugin{
	Name: "postgresql-database-plugin", Doc: "Accounts of PostgreSQL.",
	Username:    `{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}`,
	MaxUsername: 63, NeedsCreation: true, Check: dialect.Check, Open: Open,
}

var dialect = plugin.Dialect{Dollar: true}

// connectTimeout bounds one try to connect.
const connectTimeout = 5 * time.Second

// Server is a PostgreSQL server.
type Server struct{ db *sql.DB }

// Open implements plugin.Plugin.
func Open(s plugin.Settings) (plugin.Server, error) {
	if s.URL == "" {
		return nil, fault.New(fault.Invalid, "connection_url cannot be empty")
	}
	c, err := pgx.ParseConfig(s.Filled())
	if err != nil {
		// The error would show the URL, and the password in it.
		return nil, fault.New(fault.Invalid, "connection_url is not a URL or a list of settings that PostgreSQL's clients know; escape the password or write {{username}} and {{password}} in its place")
	}
	if s.CA != "" || s.Certificate != "" {
		t, err := s.TLSConfig(c.Host)
		if err != nil {
			return nil, err
		}
		c.TLSConfig, c.Fallbacks = t, nil
	}
	c.ConnectTimeout = connectTimeout
	// A pooler between may give each statement another connection.
	c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	c.RuntimeParams["application_name"] = "coffer"
	db := stdlib.OpenDB(*c)
	s.Pool(db)
	return &Server{db}, nil
}

// Verify implements plugin.Server.
func (s *Server) Verify(ctx context.Context) error { return told(s.db.PingContext(ctx)) }

// Close implements plugin.Server.
func (s *Server) Close() error { return s.db.Close() }

// expiration is how PostgreSQL writes times.
const expiration = "2006-01-02 15:04:05-0700"

func values(a plugin.Account) plugin.Values {
	v := plugin.Values{"name": a.Name, "username": a.Name, "password": a.Password, "expiration": "infinity"}
	if !a.Expires.IsZero() {
		v["expiration"] = a.Expires.UTC().Format(expiration)
	}
	return v
}

// exec runs statements about an account in one transaction.
func (s *Server) exec(ctx context.Context, statements []string, a plugin.Account) error {
	single, err := dialect.RenderAll(statements, values(a))
	if err != nil {
		return err
	}
	return again(ctx, func() error { return told(plugin.Transact(ctx, s.db, single)) })
}

// tries is how often a transaction is run that met others.
const tries = 12

// again runs what may meet others: GRANTs on one object by several transactions fail
// with "tuple concurrently updated", and nothing was done.
func again(ctx context.Context, run func() error) error {
	for n := 1; ; n++ {
		err := run()
		if n == tries || !met(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return plugin.Away(ctx.Err())
		case <-time.After(rand.N(time.Duration(n) * 20 * time.Millisecond)):
		}
	}
}

// met reports whether a transaction failed because of others.
func met(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40001", "40P01":
		return true
	}
	return pg.Code == "XX000" && strings.HasPrefix(pg.Message, "tuple concurrently")
}

// Create implements plugin.Server.
func (s *Server) Create(ctx context.Context, a plugin.Account, statements []string) error {
	return s.exec(ctx, statements, a)
}

// Extend implements plugin.Server.
func (s *Server) Extend(ctx context.Context, a plugin.Account, statements []string) error {
	if len(statements) == 0 {
		statements = []string{`ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'`}
	}
	return s.exec(ctx, statements, a)
}

// SetPassword implements plugin.Server.
func (s *Server) SetPassword(ctx context.Context, a plugin.Account, statements []string) error {
	if len(statements) == 0 {
		statements = []string{`ALTER ROLE "{{name}}" WITH PASSWORD '{{password}}'`}
	}
	return s.exec(ctx, statements, a)
}

// Drop implements plugin.Server. Sessions of the account are ended, too, where the
// administrator may: PostgreSQL would leave them be.
func (s *Server) Drop(ctx context.Context, name string, statements []string) error {
	there, err := s.there(ctx, name)
	if err != nil || !there {
		return err
	}
	if len(statements) > 0 {
		err = s.exec(ctx, statements, plugin.Account{Name: name})
	} else {
		err = s.drop(ctx, name)
	}
	if err != nil {
		return err
	}
	if there, err = s.there(ctx, name); err == nil && there {
		err = fmt.Errorf("the revocation statements ran, and role %q is still there", name)
	}
	if err == nil {
		s.endSessions(ctx, name)
	}
	return err
}

func (s *Server) there(ctx context.Context, name string) (there bool, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", name).Scan(&there)
	return there, told(err)
}

// drop takes from the account what it was granted in the database of the
// connection, and drops it.
func (s *Server) drop(ctx context.Context, name string) error {
	role := pgx.Identifier{name}.Sanitize()
	if _, err := s.db.ExecContext(ctx, "ALTER ROLE "+role+" NOLOGIN"); err != nil {
		return told(err)
	}
	s.endSessions(ctx, name)
	schemas, err := s.schemas(ctx, name)
	if err != nil {
		return err
	}
	var all []string
	for _, schema := range schemas {
		in := pgx.Identifier{schema}.Sanitize()
		for _, kind := range []string{"TABLES", "SEQUENCES", "FUNCTIONS"} {
			all = append(all, fmt.Sprintf("REVOKE ALL PRIVILEGES ON ALL %s IN SCHEMA %s FROM %s", kind, in, role))
		}
		all = append(all, fmt.Sprintf("REVOKE ALL PRIVILEGES ON SCHEMA %s FROM %s", in, role))
	}
	var database string
	if err := s.db.QueryRowContext(ctx, "SELECT current_database()").Scan(&database); err != nil {
		return told(err)
	}
	all = append(all, fmt.Sprintf("REVOKE ALL PRIVILEGES ON DATABASE %s FROM %s", pgx.Identifier{database}.Sanitize(), role), "DROP ROLE IF EXISTS "+role)
	return again(ctx, func() error { return told(plugin.Transact(ctx, s.db, all)) })
}

// schemas returns those in which the account was granted something.
func (s *Server) schemas(ctx context.Context, name string) (out []string, err error) {
	rows, err := s.db.QueryContext(ctx, `
		SELECT DISTINCT n.nspname
		FROM pg_catalog.pg_shdepend d
		JOIN pg_catalog.pg_roles r ON d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'a'
		LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid
		LEFT JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.objid
		JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, p.pronamespace, CASE WHEN d.classid = 'pg_catalog.pg_namespace'::regclass THEN d.objid END)
		WHERE r.rolname = $1 AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())`, name)
	if err != nil {
		return nil, told(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var schema string
		if err := rows.Scan(&schema); err != nil {
			return nil, told(err)
		}
		out = append(out, schema)
	}
	return out, told(rows.Err())
}

// endSessions ends what the account has open, as far as the administrator may.
func (s *Server) endSessions(ctx context.Context, name string) {
	_, _ = s.db.ExecContext(ctx, "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()", name)
}

// refused is an error of the server, in its words.
type refused struct {
	text string
	*pgconn.PgError
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.PgError }

// told makes of an error of the driver one that holds the server's words, and says
// whether it was reached.
func told(err error) error {
	var pg *pgconn.PgError
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg):
		text := fmt.Sprintf("%s: %s (SQLSTATE %s)", pg.Severity, pg.Message, pg.Code)
		if pg.Detail != "" {
			text += ": " + pg.Detail
		}
		switch {
		case pg.Code == "28P01" || pg.Code == "28000":
			return fmt.Errorf("%s: %w", text, plugin.ErrPassword)
		case pg.Code[:2] == "57" && pg.Code != "57014" || pg.Code[:2] == "53" || pg.Code[:2] == "08":
			return plugin.Away(errors.New(text)) // it shuts down, is full, or broke the connection off
		}
		return &refused{text, pg}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.As(err, &network):
		return plugin.Away(err)
	case pgconn.SafeToRetry(err), pgconn.Timeout(err), errors.Is(err, sql.ErrConnDone), errors.Is(err, net.ErrClosed):
		return plugin.Away(err)
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return plugin.Away(errors.New("connecting to it failed"))
	}
	return plugin.Away(err)
}
