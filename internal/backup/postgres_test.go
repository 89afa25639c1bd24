package backup_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/postgres"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

var tables atomic.Int64

func openPostgres(t *testing.T, s *postgrestest.Server) storage.Engine {
	t.Helper()
	e, err := postgres.Kind.Open(context.Background(), map[string]string{
		"connection_url": s.URL("postgres"), "table": "backup" + strconv.FormatInt(tables.Add(1), 10), "request_timeout": "1s",
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// A store moves to PostgreSQL and back; there it is backed up under writers, also
// by a reader that stands still for longer than the engine waits for its server.
func TestPostgreSQL(t *testing.T) {
	server := postgrestest.Start(t)
	s := newStore(t, engines["pebble"](t))
	want := s.fill(t, 300, 20_000)
	far := openPostgres(t, server)
	s.restore(t, s.archive(t), far, backup.Restore{})
	there := &store{engine: far, barrier: s.reopened(t, far), seals: s.seals}
	same(t, "in PostgreSQL", plain(t, there.barrier), want)

	accounts := there.openAccounts(t)
	stop := atomic.Bool{}
	var moves atomic.Int64
	var work errgroup.Group
	for range 3 {
		work.Go(func() error {
			for !stop.Load() {
				if err := there.move(accounts); err != nil {
					return err
				}
				moves.Add(1)
			}
			return nil
		})
	}
	for _, pause := range []time.Duration{0, 20 * time.Millisecond, -1} {
		var out bytes.Buffer
		w := io.Writer(&slow{w: &out, pause: pause})
		if pause < 0 {
			w = &standstill{w: &out, at: 3, pause: 3 * time.Second}
		}
		before := moves.Load()
		_, err := backup.Write(t.Context(), there.barrier, from, w, nil)
		must(t, err)
		if pause != 0 && moves.Load() == before {
			t.Error("nothing was written meanwhile")
		}
		e := engines["pebble"](t)
		there.restore(t, out.Bytes(), e, backup.Restore{})
		there.checkAccounts(t, plain(t, s.reopened(t, e)), accounts)
	}
	stop.Store(true)
	must(t, work.Wait())
	t.Logf("%d moves", moves.Load())
}

// A restore into PostgreSQL that dies is finished by the next.
func TestRestoreIntoPostgreSQLDies(t *testing.T) {
	server := postgrestest.Start(t)
	s := newStore(t, engines["memory"](t))
	want := s.fill(t, 2500, 40)
	archive := s.archive(t)
	for step := int64(2); step < 30; step += 9 {
		e := openPostgres(t, server)
		p, err := backup.Verify(t.Context(), bytes.NewReader(archive), backup.Seals(s.seals), nil)
		must(t, err)
		d := &dying{Engine: e, after: step%2 == 0}
		d.left.Store(step)
		if err := p.Into(t.Context(), d, bytes.NewReader(archive), backup.Restore{}); err == nil {
			t.Fatal("it did not die")
		}
		must(t, p.Into(t.Context(), e, bytes.NewReader(archive), backup.Restore{}))
		same(t, "finished", plain(t, s.reopened(t, e)), want)
	}
}

// standstill takes nothing for some time, once.
type standstill struct {
	w     io.Writer
	n, at int
	pause time.Duration
}

func (s *standstill) Write(p []byte) (int, error) {
	if s.n++; s.n == s.at {
		time.Sleep(s.pause)
	}
	return s.w.Write(p)
}
