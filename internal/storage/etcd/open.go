package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

// present is the format that this version writes and reads.
const present = "1"

// Open opens the store below the path, and begins one where there is none. It
// refuses an etcd that is too old, a user who lacks a permission, a path that is
// used for something else, and a store of a newer Coffer; the error says which,
// and nothing has been written then.
func Open(ctx context.Context, o Options) (*Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	e := &Engine{o: o, log: o.Logger, turn: make(chan struct{}, 1), recent: overlay.NewRecent()}
	e.format, e.head, e.lock, e.data = o.Path+"format", o.Path+"head", o.Path+"lock", o.Path+"data/"
	_, _ = rand.Read(e.self[:]) // never fails
	if o.exposed() {
		e.log.Warn("the way to etcd is open to whoever is on it; let etcd serve TLS, and put https:// addresses into address", "address", strings.Join(o.Endpoints, ","))
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	if err := e.connect(); err != nil {
		e.stop()
		return nil, fmt.Errorf("etcd at %s: %w", e, err)
	}
	at, err := e.prepare(ctx)
	if err != nil {
		e.stop()
		_ = e.disconnect()
		return nil, fmt.Errorf("etcd at %s: %w", e, err)
	}
	e.feed = newFeed(e, at)
	e.tasks.Go(e.feed.run)
	return e, nil
}

// connect makes the client. Only a user's name and password need an answer.
func (e *Engine) connect() error {
	tls, err := e.o.tlsConfig()
	if err != nil {
		return err
	}
	e.client, err = clientv3.New(clientv3.Config{
		Context: e.ctx, Endpoints: e.o.Endpoints, TLS: tls,
		Username: e.o.Username, Password: e.o.Password,
		DialTimeout: e.o.RequestTimeout,
		// A member that is silent is given up. Servers do not take more frequent
		// pings than one in 5 s.
		DialKeepAliveTime: 6 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		MaxCallSendMsgSize: 4 << 20, // the members' own limit says how much is too much
		DialOptions:        []grpc.DialOption{grpc.WithStatsHandler(sending{}), grpc.WithChainUnaryInterceptor(failFast), grpc.WithConnectParams(reconnect)},
		MaxUnaryRetries:    1, // its own retries would hide what was wrong
		Logger:             zap.NewNop(),
	})
	return e.explain(err)
}

// prepare checks the cluster and the store, and returns where it stands.
func (e *Engine) prepare(ctx context.Context) (*snapshot, error) {
	if err := e.checkVersion(ctx); err != nil {
		return nil, err
	}
	format, others, err := e.look(ctx)
	switch {
	case err != nil:
		return nil, err
	case format == "" && others:
		return nil, fmt.Errorf("there are keys below %q that are not Coffer's; choose another path", e.o.Path)
	case format != "" && format != present:
		return nil, fmt.Errorf("the store has format %q, and this Coffer reads %q; run the newer Coffer", format, present)
	}
	if err := e.found(format == ""); err != nil {
		return nil, err
	}
	s := e.snapshot(ctx)
	defer s.cancel()
	_, err = s.At()
	return s, err
}

// look returns the store's format, "" when there is none, and whether other keys
// are below the path.
func (e *Engine) look(ctx context.Context) (format string, others bool, err error) {
	ctx, cancel := e.bound(ctx)
	defer cancel()
	err = e.read(ctx, func(ctx context.Context) error {
		resp, err := e.client.Txn(ctx).Then(
			clientv3.OpGet(e.format),
			clientv3.OpGet(e.o.Path, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1)),
		).Commit()
		if err != nil {
			return err
		}
		if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			format = string(kvs[0].Value)
		}
		others = len(resp.Responses[1].GetResponseRange().Kvs) > 0
		return nil
	})
	return format, others, e.explain(err)
}

// found begins a store where there is none. It proves the permission to write
// even where there is one. Of nodes that do it at the same time one succeeds.
func (e *Engine) found(missing bool) error {
	want := "="
	if !missing {
		want = "<" // never so: it asks for the permission alone
	}
	_, err := e.write(
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(e.format), want, 0)},
		[]clientv3.Op{clientv3.OpPut(e.format, present), clientv3.OpPut(e.head, ""), clientv3.OpDelete(e.data, clientv3.WithPrefix())},
	)
	if errors.Is(err, storage.ErrUncertain) {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	return err
}

// checkVersion refuses an etcd that is older than 3.4.
func (e *Engine) checkVersion(ctx context.Context) error {
	ctx, cancel := e.bound(ctx)
	defer cancel()
	var version string
	next := 0
	err := e.read(ctx, func(ctx context.Context) error {
		member := e.o.Endpoints[next%len(e.o.Endpoints)]
		next++
		resp, err := e.client.Status(ctx, member)
		if err == nil {
			version = resp.Version
		}
		return err
	})
	if err != nil {
		return e.explain(err)
	}
	return checkVersion(version)
}

func checkVersion(version string) error {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n == 2 && (major < 3 || major == 3 && minor < 4) {
		return fmt.Errorf("its version is %s; etcd 3.4 or later is needed", strings.TrimSpace(version))
	}
	return nil
}

var _ storage.Engine = (*Engine)(nil)
