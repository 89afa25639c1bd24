package job_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/job/jobtest"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/etcd"
	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/postgres"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	jobtest.Main(openAt)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := postgrestest.Clean(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}))
}

// openAt opens the store at a location: the engine, its address, and what is in
// front of the store's keys or tables.
func openAt(location string) (storage.Engine, error) {
	words := strings.Fields(location)
	if words[0] == "etcd" {
		return etcd.Open(context.Background(), etcd.Options{Endpoints: strings.Split(words[1], ","), Path: words[2], Logger: slog.New(slog.DiscardHandler)})
	}
	return postgres.Open(context.Background(), postgres.Options{URL: words[1], Table: words[2], MaxParallel: 4, Logger: slog.New(slog.DiscardHandler)})
}

func TestInABubble(t *testing.T) {
	jobtest.Run(t, jobtest.Options{
		New: func(testing.TB) func() storage.Engine {
			e := memory.New()
			return func() storage.Engine { return jobtest.Optimistic(e) }
		},
	})
}

func TestOverEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 3)
	overEngine(t, func() string { return "etcd " + strings.Join(c.Endpoints(), ",") + " " + c.Path() })
}

func TestOverPostgres(t *testing.T) {
	t.Parallel()
	url := postgrestest.Start(t, "max_connections=200").Database(t)
	var n atomic.Int64
	overEngine(t, func() string { return fmt.Sprintf("postgres %s jobs%d", url, n.Add(1)) })
}

// overEngine runs the suite, and nodes that are processes, each cluster on the
// store at a location of its own.
func overEngine(t *testing.T, location func() string) {
	o := jobtest.Options{Beat: 500 * time.Millisecond, Every: 40}
	o.New = func(t testing.TB) func() storage.Engine {
		at := location()
		return func() storage.Engine {
			e, err := openAt(at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
			return e
		}
	}
	jobtest.Run(t, o)
	t.Run("processes", func(t *testing.T) { jobtest.Processes(t, o, location(), openAt) })
}
