package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

// errConflict says that something an Update had read has changed, or that another
// Update has the lock.
var errConflict = errors.New("what was read has changed")

const (
	// mostTries is how often an Update runs again before it takes the lock.
	mostTries = 8
	// lockSeconds is how long a lock outlives a node that died with it.
	lockSeconds = 5
)

// Update implements storage.Engine. Its function runs first on what this node
// remembers, then on snapshots, and in the end alone, so that no Update is kept
// from ending by the others.
func (e *Engine) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if err := e.begin(ctx); err != nil {
		return 0, err
	}
	defer e.calls.Done()
	rev, err := e.try(ctx, fn, e.recent, 0)
	if errors.Is(err, errConflict) {
		rev, err = e.try(ctx, fn, nil, 0)
	}
	if !errors.Is(err, errConflict) {
		return rev, err
	}
	patient, cancel := context.WithTimeout(ctx, 4*e.o.RequestTimeout)
	defer cancel()
	rev, err = e.insist(patient, fn)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return 0, fmt.Errorf("%w: others kept changing what this Update reads, for %v", storage.ErrUnavailable, 4*e.o.RequestTimeout)
	}
	return rev, err
}

// insist runs fn again until its commit succeeds, one Update of a node after the
// other.
func (e *Engine) insist(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-e.ctx.Done():
		return 0, storage.ErrClosed
	}
	wait := time.Millisecond
	for range mostTries {
		rev, err := e.try(ctx, fn, nil, 0)
		if !errors.Is(err, errConflict) {
			return rev, err
		}
		pause(ctx, wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
	return e.alone(ctx, fn)
}

// alone runs fn while no other commit of any node can succeed.
func (e *Engine) alone(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	for {
		lock, release, err := e.takeLock(ctx)
		if err != nil {
			return 0, err
		}
		rev, err := e.try(ctx, fn, nil, lock)
		release()
		if !errors.Is(err, errConflict) {
			return rev, err
		}
	}
}

// takeLock returns the revision of the lock. release gives it back, also when a
// commit has deleted it. A node that dies leaves it to its lease.
func (e *Engine) takeLock(ctx context.Context) (lock int64, release func(), err error) {
	for {
		lease, err := e.grant(ctx)
		if err != nil {
			return 0, nil, err
		}
		release = func() {
			ctx, cancel := context.WithTimeout(context.Background(), e.o.RequestTimeout)
			defer cancel()
			_, _ = e.client.Revoke(ctx, lease) // it would end by itself
		}
		put := []clientv3.Op{clientv3.OpPut(e.lock, "", clientv3.WithLease(lease))}
		for began := time.Now(); time.Since(began) < lockSeconds*time.Second/2; pause(ctx, 20*time.Millisecond) {
			resp, err := e.write([]clientv3.Cmp{e.unlocked()}, put)
			if err == nil && resp.Succeeded {
				return resp.Header.Revision, release, nil
			}
			if err == nil {
				err = errors.Join(ctx.Err(), e.stopped())
			}
			if errors.Is(err, storage.ErrUncertain) {
				err = fmt.Errorf("%w: %v", storage.ErrUnavailable, err)
			}
			if err != nil {
				release()
				return 0, nil, err
			}
		}
		release()
	}
}

// grant returns a new lease for the lock.
func (e *Engine) grant(ctx context.Context) (lease clientv3.LeaseID, err error) {
	bound, cancel := e.bound(ctx)
	defer cancel()
	err = e.read(bound, func(ctx context.Context) error {
		resp, err := e.client.Grant(ctx, lockSeconds)
		if err == nil {
			lease = resp.ID
		}
		return err
	})
	if ended := errors.Join(e.stopped(), ctx.Err()); err != nil && ended != nil {
		return 0, ended
	}
	return lease, e.explain(err)
}

func (e *Engine) unlocked() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(e.lock), "=", 0)
}

// try runs fn on a snapshot and commits what it wrote, once, under the lock when
// that is not 0. What fn comes to without a commit counts only when nothing of it
// came from recent.
func (e *Engine) try(ctx context.Context, fn func(storage.Txn) error, recent *overlay.Recent, lock int64) (storage.Revision, error) {
	s := e.snapshot(ctx)
	defer s.cancel()
	s.seen, s.recent = map[string]int64{}, recent
	t := overlay.NewTxn(s)
	defer t.End()
	err := t.Verdict(ctx, fn(t))
	if ended := s.usable(); err == nil && ended != nil {
		err = ended
	}
	switch {
	case s.guessed && t.Failed() == nil && s.usable() == nil && (err != nil || t.Writes.Len() == 0):
		return 0, errConflict
	case err != nil:
		return 0, err
	case t.Writes.Len() == 0:
		return s.At()
	}
	return e.commit(s, t, lock)
}

func (e *Engine) commit(s *snapshot, t *overlay.Txn, lock int64) (storage.Revision, error) {
	changes := t.Writes.Changes()
	ops := e.puts(changes)
	free := e.unlocked()
	if lock != 0 {
		free = clientv3.Compare(clientv3.ModRevision(e.lock), "=", lock)
		ops = append(ops, clientv3.OpDelete(e.lock))
	}
	// The head goes last: a commit that a watch has told up to it is whole.
	ops = append(ops, clientv3.OpPut(e.head, ""))
	resp, err := e.write(append(s.compares(&t.Reads), free), ops)
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, errConflict
	}
	rev := storage.Revision(resp.Header.Revision)
	e.recent.Told(storage.Commit{Revision: rev, Changes: changes})
	return rev, nil
}

func (e *Engine) puts(changes []storage.Change) []clientv3.Op {
	ops := make([]clientv3.Op, 0, len(changes)+2)
	for _, c := range changes {
		if c.Deleted {
			ops = append(ops, clientv3.OpDelete(e.data+c.Key))
		} else {
			ops = append(ops, clientv3.OpPut(e.data+c.Key, string(c.Value)))
		}
	}
	return ops
}
