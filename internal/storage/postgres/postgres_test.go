package postgres

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// openAt opens the store at a location: a URL, a space, and what its tables
// begin with.
func openAt(location string) (storage.Engine, error) {
	url, table, _ := strings.Cut(location, " ")
	return open(context.Background(), Options{URL: url, Table: table, HistorySize: 16 << 20, Logger: quiet})
}

func TestMain(m *testing.M) {
	storagetest.Main(openAt)
	code := m.Run()
	if err := postgrestest.Clean(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var stores atomic.Int64

// location names a new, empty store in a database of s.
func location(s *postgrestest.Server) string {
	return fmt.Sprintf("%s store%d", s.URL("postgres"), stores.Add(1))
}

// TestTwoNodes: what holds on one node holds on two.
func TestTwoNodes(t *testing.T) {
	server := postgrestest.Start(t)
	storagetest.Run(t, storagetest.Options{
		New: func(testing.TB) storagetest.Opener {
			at := location(server)
			return storagetest.Pair(func() (storage.Engine, error) { return openAt(at) })
		},
		Persistent: true,
		Keys:       50_000,
	})
}

func TestEngine(t *testing.T) {
	server := postgrestest.Start(t)
	storagetest.Run(t, storagetest.Options{
		New: func(testing.TB) storagetest.Opener {
			at := location(server)
			return func() (storage.Engine, error) { return openAt(at) }
		},
		Persistent: true,
		Location:   func(testing.TB) string { return location(server) },
		OpenAt:     openAt,
		Keys:       50_000,
	})
}
