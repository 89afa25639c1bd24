package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cofferhq/coffer/internal/storage"
)

// oldestServer is the oldest server_version_num that is served.
const oldestServer = 130000

// Open opens the store in the database, and makes its tables when there are
// none. It refuses a server that is too old, that forgets what it acknowledged,
// or on which a right is missing, and a store of a newer Coffer; the error says
// which, and nothing has been written then.
func Open(ctx context.Context, o Options) (_ *Engine, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if !tableName.MatchString(o.Table) {
		return nil, fmt.Errorf("table: %q is no name of a table", o.Table)
	}
	config, err := o.poolConfig()
	if err != nil {
		return nil, err
	}
	e := &Engine{o: o, log: o.Logger, sql: newStatements(o.Table), config: config.ConnConfig.Copy(), prune: make(chan struct{}, 1)}
	if host, how := unproven(e.config); host != "" {
		e.log.Warn("the way to PostgreSQL is open to whoever is on it; put sslmode=verify-full and sslrootcert into connection_url", "host", host, "now", how)
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	head, err := e.prepare(ctx)
	if err != nil {
		e.stop()
		return nil, err
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error { return e.session(ctx, conn, nil) }
	if e.pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		e.stop()
		return nil, explain(err, e.config.User)
	}
	e.committer, e.feed = newCommitter(e, head), newFeed(e, head)
	e.tasks.Go(e.committer.run)
	e.tasks.Go(e.feed.run)
	e.tasks.Go(e.keepPruning)
	return e, nil
}

// unproven returns a host, not on this machine, to which a connection may be made
// that does not prove who it is, and how.
func unproven(c *pgx.ConnConfig) (host, how string) {
	ways := []*pgconn.FallbackConfig{{Host: c.Host, TLSConfig: c.TLSConfig}}
	for _, w := range append(ways, c.Fallbacks...) {
		ip := net.ParseIP(w.Host)
		switch {
		case strings.HasPrefix(w.Host, "/"), w.Host == "localhost", ip != nil && ip.IsLoopback():
		case w.TLSConfig == nil:
			return w.Host, "TLS is not used, or not always"
		case w.TLSConfig.InsecureSkipVerify && w.TLSConfig.VerifyPeerCertificate == nil:
			return w.Host, "its certificate is not verified"
		}
	}
	return "", ""
}

// prepare checks the server and the tables, and returns the head.
func (e *Engine) prepare(ctx context.Context) (point, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*e.o.RequestTimeout)
	defer cancel()
	conn, err := e.connect(ctx, nil)
	if err != nil {
		return point{}, fmt.Errorf("%s: %w", e, explain(err, e.config.User))
	}
	defer hangUp(conn)
	if err := e.checkServer(ctx, conn); err != nil {
		return point{}, fmt.Errorf("%s: %w", e, err)
	}
	if err := e.migrate(ctx, conn); err != nil {
		return point{}, fmt.Errorf("%s: %w", e, explain(err, e.config.User))
	}
	if err := e.checkRights(ctx, conn); err != nil {
		return point{}, fmt.Errorf("%s: %w", e, explain(err, e.config.User))
	}
	_, err = conn.Exec(ctx, "LISTEN "+e.sql.channel)
	e.notifies = err == nil // otherwise there is polling
	head, err := scanPoint(conn.QueryRow(ctx, e.sql.head))
	if err != nil {
		return point{}, fmt.Errorf("%s: %w", e, explain(err, e.config.User))
	}
	return head, nil
}

// connect makes a connection outside the pool, with settings for it.
func (e *Engine) connect(ctx context.Context, settings []string) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, e.config.Copy())
	if err != nil {
		return nil, err
	}
	if err := e.session(ctx, conn, settings); err != nil {
		hangUp(conn)
		return nil, err
	}
	return conn, nil
}

// commitSession are the settings of the connection that commits. A node that
// stops in the middle of a commit must not keep the others waiting for longer
// than they try.
func (e *Engine) commitSession() []string {
	return []string{fmt.Sprintf("SET idle_in_transaction_session_timeout = %d", (e.o.RequestTimeout * 2 / 5).Milliseconds())}
}

// session prepares a connection. Settings that the server does not know are left
// out: they are PostgreSQL's own.
func (e *Engine) session(ctx context.Context, conn *pgx.Conn, settings []string) error {
	seconds := max(1, int(e.o.RequestTimeout/time.Second)/2)
	all := append([]string{
		fmt.Sprintf("SET tcp_keepalives_idle = %d", seconds),
		fmt.Sprintf("SET tcp_keepalives_interval = %d", seconds),
		"SET tcp_keepalives_count = 3",
		fmt.Sprintf("SET tcp_user_timeout = %d", 2*e.o.RequestTimeout.Milliseconds()),
	}, settings...)
	if e.asynchronous {
		all = append(all, "SET synchronous_commit = on")
	}
	_, err := conn.PgConn().Exec(ctx, strings.Join(all, "; ")).ReadAll()
	if err == nil || classify(err) == lost {
		return err
	}
	for _, text := range all {
		if _, err := conn.PgConn().Exec(ctx, text).ReadAll(); err != nil && classify(err) == lost {
			return err
		}
	}
	return nil
}

// checkServer refuses a server that cannot keep what it promises.
func (e *Engine) checkServer(ctx context.Context, conn *pgx.Conn) error {
	show := func(name string) (value string, err error) {
		err = conn.QueryRow(ctx, "SHOW "+name).Scan(&value)
		if err != nil && classify(err) != lost {
			return "", nil // it has no such setting
		}
		return value, err
	}
	version, err := show("server_version_num")
	if err != nil {
		return explain(err, e.config.User)
	}
	if err := checkVersion(version); err != nil {
		return err
	}
	fsync, err := show("fsync")
	if err != nil {
		return explain(err, e.config.User)
	}
	if fsync == "off" {
		return errors.New("fsync is off there, so that it would lose acknowledged writes with the power; set fsync = on")
	}
	commit, err := show("synchronous_commit")
	if err != nil {
		return explain(err, e.config.User)
	}
	if commit == "off" {
		e.log.Warn("synchronous_commit is off there; it is switched on for Coffer's own connections", "database", e.String())
		e.asynchronous = true
		return e.session(ctx, conn, nil)
	}
	return nil
}

// checkVersion refuses an old server_version_num. Other databases may have none.
func checkVersion(version string) error {
	if n, err := strconv.Atoi(version); err == nil && n < oldestServer {
		return fmt.Errorf("its version is %d.%d; PostgreSQL 13 or later is needed", n/10000, n%10000)
	}
	return nil
}

// errNewer says that a newer version of Coffer wrote the store.
func errNewer(have, readable, format int) error {
	return refusal{fmt.Sprintf("the store has format %d, which versions from format %d on can use, and this one writes %d; run the newer Coffer", have, readable, format), nil}
}

// migrate brings the tables to this version's format. Nodes that start at the
// same time wait for each other.
func (e *Engine) migrate(ctx context.Context, conn *pgx.Conn) error {
	format := len(e.o.migrations)
	for {
		have, readable, err := e.readFormat(ctx, conn)
		if err != nil {
			return err
		}
		if readable > format {
			return errNewer(have, readable, format)
		}
		if have >= format {
			return nil
		}
		err = e.step(ctx, conn, have)
		if err == nil || ctx.Err() != nil {
			continue
		}
		taken := hasState(err, stateDuplicateTable) || hasState(err, stateDuplicateType)
		if !taken && !hasState(err, stateUniqueViolation) && classify(err) != again {
			return err
		}
		// Another node did it at the same time, if the next look finds it done.
		after, _, lookErr := e.readFormat(ctx, conn)
		if lookErr == nil && after <= have && taken {
			return notOurs(e.o.Table+"_...", err)
		}
	}
}

// notOurs says that a table's name is taken.
func notOurs(table string, err error) error {
	return refusal{fmt.Sprintf("table %s is there, and is not Coffer's; choose another name with the setting table (%v)", table, err), err}
}

// readFormat returns the format of the store, 0 when there is none.
func (e *Engine) readFormat(ctx context.Context, conn *pgx.Conn) (have, readable int, err error) {
	err = conn.QueryRow(ctx, e.sql.format).Scan(&have, &readable)
	switch {
	case err == nil:
		return have, readable, nil
	case hasState(err, stateUndefinedTable):
		return 0, 0, nil
	case hasState(err, stateUndefinedColumn), errors.Is(err, pgx.ErrNoRows):
		return 0, 0, notOurs(e.o.Table+"_head", err)
	}
	return 0, 0, err
}

// step runs the migration from one format to the next, all of it or nothing.
func (e *Engine) step(ctx context.Context, conn *pgx.Conn, from int) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if from > 0 {
		var now, readable int
		if err := tx.QueryRow(ctx, e.sql.format+` FOR UPDATE`).Scan(&now, &readable); err != nil || now != from {
			return err // another node was faster
		}
	}
	m := e.o.migrations[from]
	for _, text := range m.statements(e.o.Table) {
		if _, err := tx.Exec(ctx, text); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, e.sql.setFormat, from+1, m.readableBy); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// checkRights tries every kind of statement on no row.
func (e *Engine) checkRights(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	for _, text := range append(append([]string(nil), e.sql.mayRead...), e.sql.mayWrite...) {
		if _, err := tx.Exec(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

var _ storage.Engine = (*Engine)(nil)
