package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// openAt opens the store at a location: the members' URLs, a space, and a path.
func openAt(location string) (storage.Engine, error) {
	urls, path, _ := strings.Cut(location, " ")
	return open(context.Background(), Options{Endpoints: strings.Split(urls, ","), Path: path, Logger: quiet})
}

func location(c *etcdtest.Cluster) string { return strings.Join(c.Endpoints(), ",") + " " + c.Path() }

func TestMain(m *testing.M) {
	etcdtest.Main()
	storagetest.Main(openAt)
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// node opens an engine that is closed with the test.
func node(t testing.TB, o Options) *Engine {
	t.Helper()
	o.Logger = quiet
	e, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// TestEngine is the suite on three members.
func TestEngine(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 3)
	storagetest.Run(t, storagetest.Options{
		New: func(testing.TB) storagetest.Opener {
			at := location(c)
			return func() (storage.Engine, error) { return openAt(at) }
		},
		Persistent: true,
		Location:   func(testing.TB) string { return location(c) },
		OpenAt:     openAt,
		Keys:       20_000,
	})
}

// TestTwoNodes: what holds on one node holds on two. etcd is Debian's here.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	c := etcdtest.Debian(t)
	storagetest.Run(t, storagetest.Options{
		New: func(testing.TB) storagetest.Opener {
			at := location(c)
			return storagetest.Pair(func() (storage.Engine, error) { return openAt(at) })
		},
		Persistent: true,
		Keys:       20_000,
	})
}

// TestLongUpdate: an Update that reads more than etcd compares in a transaction
// ends although others commit all the time, on this node and another.
func TestLongUpdate(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	o := Options{Endpoints: c.Endpoints(), Path: c.Path()}
	storagetest.Long(t, []storage.Engine{node(t, o), node(t, o)}, 2*maxCompares, time.Minute)
}

// TestSlowAlone: an Update that takes longer than the lease of its lock ends, and
// one that takes longer than others are patient fails and lets them go on.
func TestSlowAlone(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	for name, test := range map[string]struct {
		timeout, sleep time.Duration
		want           error
	}{
		"longer than the lease": {4 * time.Second, (lockSeconds + 2) * time.Second, nil},
		"too long":              {500 * time.Millisecond, 2500 * time.Millisecond, storage.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{Endpoints: c.Endpoints(), Path: c.Path(), RequestTimeout: test.timeout}
			slow, other := node(t, o), node(t, o)
			others := 0
			_, err := slow.Update(t.Context(), func(tx storage.Txn) error {
				if _, err := tx.Get("k"); err != nil && !errors.Is(err, storage.ErrNotFound) {
					return err
				}
				held, err := other.client.Get(t.Context(), other.lock)
				if err != nil {
					return err
				}
				if len(held.Kvs) > 0 {
					time.Sleep(test.sleep)
				} else if _, err := other.Update(t.Context(), func(tx storage.Txn) error { others++; return tx.Put("k", fmt.Append(nil, others)) }); err != nil {
					return err
				}
				return tx.Put("slow", nil)
			})
			if !errors.Is(err, test.want) || others < mostTries {
				t.Errorf("after %d commits of another: %v", others, err)
			}
			start := time.Now()
			if _, err := other.Update(t.Context(), func(tx storage.Txn) error { return tx.Put("k", nil) }); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("the next commit took %v", took)
			}
		})
	}
}

// TestDeadLock: a node that dies with the lock holds the others up for as long as
// the lease lives, and not longer.
func TestDeadLock(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	o := Options{Endpoints: c.Endpoints(), Path: c.Path()}
	dead, other := node(t, o), node(t, o)
	if _, err := dead.takeLock(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := other.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("k", nil) }); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < time.Second || took > 4*lockSeconds*time.Second {
		t.Errorf("it took %v", took)
	}
}
