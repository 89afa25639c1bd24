package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cofferhq/coffer/internal/storage"
)

// lockSeconds is how long a lock outlives a node that died with it.
const lockSeconds = 5

// mostAlone is how long an Update may run while it holds all others up. They are
// patient for longer.
func (e *Engine) mostAlone() time.Duration { return 2 * e.o.RequestTimeout }

// alone runs the function while no other commit of any node can succeed. Until
// waiting ends it takes the lock again if that was lost, as after a stop of this
// process.
func (u *update) alone(ctx, waiting context.Context) (storage.Revision, error) {
	for {
		l, err := u.e.takeLock(waiting)
		if err != nil && waiting.Err() != nil {
			err = u.e.gaveUp(ctx)
		}
		if err != nil {
			return 0, err
		}
		rev, err := u.holding(ctx, l)
		if !errors.Is(err, errConflict) {
			return rev, err
		}
	}
}

// holding runs the function under the lock and gives that back, in the end or when
// it takes too long.
func (u *update) holding(ctx context.Context, l *lock) (storage.Revision, error) {
	defer l.release()
	run, cancel := context.WithTimeout(ctx, u.e.mostAlone())
	defer cancel()
	defer context.AfterFunc(run, l.release)()
	l.keep(run)
	rev, err := u.try(run, nil, l.revision)
	late := run.Err() != nil && ctx.Err() == nil
	if late && (errors.Is(err, errConflict) || errors.Is(err, context.DeadlineExceeded)) {
		return 0, fmt.Errorf("%w: etcd: an Update took longer than %v while others waited for it", storage.ErrUnavailable, u.e.mostAlone())
	}
	return rev, err
}

// lock is the right to be the only one whose commit succeeds.
type lock struct {
	e        *Engine
	lease    clientv3.LeaseID
	revision int64 // that the lock's row has as long as it is held
	once     sync.Once
}

// release gives the lock back, also when a commit has deleted it. A node that dies
// leaves it to its lease.
func (l *lock) release() {
	l.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.e.o.RequestTimeout)
		defer cancel()
		_, _ = l.e.client.Revoke(ctx, l.lease) // it would end by itself
	})
}

// keep has the lease go on until ctx ends.
func (l *lock) keep(ctx context.Context) {
	l.e.tasks.Go(func() {
		tick := time.NewTicker(lockSeconds * time.Second / 5)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-l.e.ctx.Done():
				return
			case <-tick.C:
			}
			bound, cancel := l.e.bound(ctx)
			_, _ = l.e.client.KeepAliveOnce(bound, l.lease) // or the commit finds the lock gone
			cancel()
		}
	})
}

// takeLock takes the lock, once nobody has it.
func (e *Engine) takeLock(ctx context.Context) (*lock, error) {
	for {
		l, err := e.grant(ctx)
		if err != nil {
			return nil, err
		}
		put := []clientv3.Op{clientv3.OpPut(e.lock, "", clientv3.WithLease(l.lease))}
		for began := time.Now(); time.Since(began) < lockSeconds*time.Second/2; pause(ctx, 20*time.Millisecond) {
			resp, err := e.write([]clientv3.Cmp{e.unlocked()}, put)
			if err == nil && resp.Succeeded {
				l.revision = resp.Header.Revision
				return l, nil
			}
			if err == nil {
				err = errors.Join(ctx.Err(), e.stopped())
			}
			if errors.Is(err, storage.ErrUncertain) {
				err = fmt.Errorf("%w: %v", storage.ErrUnavailable, err)
			}
			if err != nil {
				l.release()
				return nil, err
			}
		}
		l.release()
	}
}

// grant returns a lock that is not taken yet, with a new lease.
func (e *Engine) grant(ctx context.Context) (*lock, error) {
	l := &lock{e: e}
	bound, cancel := e.bound(ctx)
	defer cancel()
	err := e.read(bound, func(ctx context.Context) error {
		resp, err := e.client.Grant(ctx, lockSeconds)
		if err == nil {
			l.lease = resp.ID
		}
		return err
	})
	if ended := errors.Join(e.stopped(), ctx.Err()); err != nil && ended != nil {
		return nil, ended
	}
	return l, e.explain(err)
}

func (e *Engine) unlocked() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(e.lock), "=", 0)
}
