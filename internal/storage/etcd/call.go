package etcd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/stats"

	"github.com/cofferhq/coffer/internal/storage"
)

// sent tells whether anything of a call has been handed to a connection.
type sent struct{ atomic.Bool }

type sentKey struct{}

// sending is a stats.Handler that keeps the sent of each call's context.
type sending struct{}

func (sending) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sending) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sending) HandleConn(context.Context, stats.ConnStats)                       {}
func (sending) HandleRPC(ctx context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.OutHeader, *stats.OutPayload:
		if mark, ok := ctx.Value(sentKey{}).(*sent); ok {
			mark.Store(true)
		}
	}
}

// reconnect has members that come back found soon: by itself gRPC would wait for
// up to two minutes after a long absence.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// failFast has calls fail when no member can be connected to, with what was wrong;
// the client library would have them wait until their time is up.
func failFast(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return call(ctx, method, req, reply, conn, append(opts, grpc.WaitForReady(false))...)
}

// pause waits for a random time up to most, or until ctx ends.
func pause(ctx context.Context, most time.Duration) {
	t := time.NewTimer(time.Duration(rand.Int64N(int64(most))) + 1)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// patience is how long one attempt of a call may take that can be made again,
// so that a member that is silent leaves time for the next.
func (e *Engine) patience() time.Duration { return e.o.RequestTimeout/3 + 50*time.Millisecond }

// away says that the cluster has not answered for so long that waiting for it
// would only hold callers up. Each call is then made once.
func (e *Engine) away() bool { return e.feed != nil && e.feed.Silence() > e.o.RequestTimeout }

// read makes a call that changes nothing, again and again within the request
// timeout. ctx is the caller's, ended with the engine.
func (e *Engine) read(ctx context.Context, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), e.o.RequestTimeout)
	defer cancel()
	var best error // the one that says most
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 300*time.Millisecond) {
		mark := &sent{}
		attempt, done := context.WithTimeout(context.WithValue(ctx, sentKey{}, mark), e.patience())
		err := call(attempt)
		late := attempt.Err() != nil
		done()
		if err == nil {
			return nil
		}
		if best == nil || !late {
			best = err
		}
		if classify(err, !mark.Load()) == refused || ctx.Err() != nil || e.away() {
			return best
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return best
		}
	}
}

// write sends a transaction that writes, once: again only when the server said
// that it did not run it or when nothing of it was sent. It does not end with
// the caller, whose fate the transaction would not share.
func (e *Engine) write(compare []clientv3.Cmp, then []clientv3.Op, otherwise ...clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(context.Background()), e.o.RequestTimeout)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 300*time.Millisecond) {
		mark := &sent{}
		resp, err := e.client.Txn(context.WithValue(ctx, sentKey{}, mark)).If(compare...).Then(then...).Else(otherwise...).Commit()
		if err == nil {
			return resp, nil
		}
		switch classify(err, !mark.Load()) {
		case lost:
			return nil, fmt.Errorf("%w: etcd at %s: %w", storage.ErrUncertain, e, err)
		case refused:
			return nil, e.explain(err)
		}
		pause(ctx, wait)
		if ctx.Err() != nil || e.away() {
			return nil, e.explain(err)
		}
	}
}

// bound returns a context that also ends with the engine.
func (e *Engine) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	release := context.AfterFunc(e.ctx, cancel)
	return ctx, func() { release(); cancel() }
}
