package postgres

import (
	"context"
	"errors"
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

// pair is two nodes on one store; calls go to the one and the other in turn.
type pair struct {
	nodes [2]storage.Engine
	calls atomic.Int64
}

func (p *pair) next() storage.Engine { return p.nodes[p.calls.Add(1)%2] }

func (p *pair) View(ctx context.Context, fn func(storage.Reader) error) error {
	return p.next().View(ctx, fn)
}

func (p *pair) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	return p.next().Update(ctx, fn)
}

func (p *pair) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	return p.next().Watch(ctx, prefix, from, fn)
}

func (p *pair) Close() error { return errors.Join(p.nodes[0].Close(), p.nodes[1].Close()) }

// TestTwoNodes: what holds on one node holds on two.
func TestTwoNodes(t *testing.T) {
	server := postgrestest.Start(t)
	storagetest.Run(t, storagetest.Options{
		New: func(testing.TB) storagetest.Opener {
			at := location(server)
			return func() (storage.Engine, error) {
				var p pair
				for i := range p.nodes {
					e, err := openAt(at)
					if err != nil {
						return nil, err
					}
					p.nodes[i] = e
				}
				return &p, nil
			}
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
