package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cofferhq/coffer/internal/storage"
)

// point is a moment in the history of a store. The batch tells two stores apart
// that have the same revision, such as one and its older self restored.
type point struct {
	rev   storage.Revision
	batch string
}

// snapshot is an overlay.Source that reads through a transaction of its own, begun with
// the first read, in the same packet.
type snapshot struct {
	e      *Engine
	caller context.Context
	ctx    context.Context // caller, ended with the engine
	cancel context.CancelFunc

	conn  *pgxpool.Conn // nil before the first read
	point point
}

func (s *snapshot) At() (storage.Revision, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	if s.conn == nil {
		if err := s.read(`SELECT 1`, nil, nil); err != nil {
			return 0, err
		}
	}
	return s.point.rev, nil
}

func (s *snapshot) usable() error {
	if err := s.e.stopped(); err != nil {
		return err
	}
	return s.caller.Err()
}

func (s *snapshot) Get(key string) (value []byte, found bool, err error) {
	err = s.read(s.e.sql.get, []any{[]byte(key)}, func(row pgx.Rows) error {
		found = true
		return row.Scan(&value)
	})
	return value, found, err
}

func (s *snapshot) Scan(from, to string, limit int) ([]storage.Entry, error) {
	return scanWith(s.read, s.e.sql, from, to, limit)
}

func (s *snapshot) Names(prefix, from, to string, limit int) ([]string, error) {
	return namesWith(s.read, s.e.sql, prefix, from, to, limit)
}

// runner runs a statement and calls each for every row.
type runner func(sql string, args []any, each func(pgx.Rows) error) error

func scanWith(run runner, texts statements, from, to string, limit int) (entries []storage.Entry, err error) {
	sql, args := texts.scan, []any{[]byte(from), []byte(to), limit}
	if to == "" {
		sql, args[1] = texts.scanToEnd, nil
	}
	err = run(sql, args, func(row pgx.Rows) error {
		var key, value []byte
		err := row.Scan(&key, &value)
		entries = append(entries, storage.Entry{Key: string(key), Value: value})
		return err
	})
	return entries, err
}

func namesWith(run runner, texts statements, prefix, from, to string, limit int) (keys []string, err error) {
	sql, args := texts.names, []any{[]byte(from), []byte(to), limit, len(prefix)}
	if to == "" {
		sql, args[1] = texts.namesToEnd, nil
	}
	err = run(sql, args, func(row pgx.Rows) error {
		var key []byte
		err := row.Scan(&key)
		keys = append(keys, string(key))
		return err
	})
	return keys, err
}

// read runs one statement in the snapshot and calls each for every row.
func (s *snapshot) read(sql string, args []any, each func(pgx.Rows) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.e.o.RequestTimeout)
	defer cancel()
	if s.conn == nil {
		return s.e.explain(s.caller, s.start(ctx, sql, args, each))
	}
	rows, err := s.conn.Query(ctx, sql, args...)
	if err == nil {
		err = drain(rows, each)
	}
	s.distrust(err)
	return s.e.explain(s.caller, err)
}

// distrust gives up all connections of the pool after one was lost: the others
// led to the same server. A caller that went away says nothing about them.
func (s *snapshot) distrust(err error) {
	if err != nil && classify(err) == lost && s.usable() == nil {
		s.e.pool.Reset()
	}
}

// drain calls each for every row and closes rows.
func drain(rows pgx.Rows, each func(pgx.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if each == nil {
			continue
		}
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// errPoolBusy explains a wait for a connection that took too long.
var errPoolBusy = errors.New("all connections are in use; raise max_parallel")

// start begins the transaction with a first statement. Nothing has been read
// yet, so a connection that turns out to be dead is replaced.
func (s *snapshot) start(ctx context.Context, sql string, args []any, each func(pgx.Rows) error) error {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		conn, err := s.e.pool.Acquire(ctx)
		if err != nil {
			if st := s.e.pool.Stat(); ctx.Err() != nil && st.AcquiredConns() >= st.MaxConns() {
				return fmt.Errorf("%w: %w", storage.ErrUnavailable, errPoolBusy)
			}
		} else {
			read := false
			err = s.first(ctx, conn, sql, args, func(row pgx.Rows) error {
				read = true
				if each == nil {
					return nil
				}
				return each(row)
			})
			if err == nil {
				s.conn = conn
				return nil
			}
			s.e.release(conn)
			if read {
				return err
			}
			s.distrust(err)
		}
		if classify(err) == refused || ctx.Err() != nil || s.e.away() {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// away says that the database has not answered for so long that waiting for it
// would only hold callers up. Each call is then made once.
func (e *Engine) away() bool { return e.feed.Silence() > e.o.RequestTimeout }

func (s *snapshot) first(ctx context.Context, conn *pgxpool.Conn, sql string, args []any, each func(pgx.Rows) error) error {
	var b pgx.Batch
	b.Queue(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`)
	b.Queue(s.e.sql.head)
	b.Queue(sql, args...)
	results := conn.SendBatch(ctx, &b)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return err
	}
	p, err := scanPoint(results.QueryRow())
	if err != nil {
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	if err := drain(rows, each); err != nil {
		return err
	}
	s.point = p
	return results.Close()
}

func scanPoint(row pgx.Row) (point, error) {
	var rev int64
	var batch []byte
	err := row.Scan(&rev, &batch)
	return point{storage.Revision(rev), string(batch)}, err
}

// end gives the connection back. The end of the transaction is not waited for:
// it tells nothing.
func (s *snapshot) end() {
	s.cancel()
	if conn := s.conn; conn != nil {
		s.conn = nil
		s.e.release(conn)
	}
}

// release ends the transaction of conn and gives it back to the pool.
func (e *Engine) release(conn *pgxpool.Conn) {
	if conn.Conn().IsClosed() || conn.Conn().PgConn().TxStatus() == 'I' {
		conn.Release()
		return
	}
	e.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), e.o.RequestTimeout)
		defer cancel()
		_, _ = conn.Exec(ctx, "ROLLBACK") // a connection that cannot is not used again
		conn.Release()
	})
}
