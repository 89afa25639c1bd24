package etcd

import (
	"cmp"
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

// mostTries is how often an Update runs again before it takes the lock, unless it
// takes the time of firmAfter before.
const mostTries = 8

// firmAfter is how long an Update runs again among the others before it takes the
// lock.
func (e *Engine) firmAfter() time.Duration { return e.o.RequestTimeout / 2 }

// patienceLimit is how long an Update waits for its turn and for the lock. It is
// more than one that is alone can take, and its lease.
func (e *Engine) patienceLimit() time.Duration { return 4 * e.o.RequestTimeout }

// Update implements storage.Engine. Its function runs first on what this node
// remembers, then on snapshots, and in the end alone, so that no Update is kept
// from ending by the others.
func (e *Engine) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if err := e.begin(ctx); err != nil {
		return 0, err
	}
	defer e.calls.Done()
	u := &update{e: e, fn: fn}
	rev, err := u.try(ctx, e.recent, 0)
	if errors.Is(err, errConflict) {
		rev, err = u.try(ctx, nil, 0)
	}
	if errors.Is(err, errConflict) {
		rev, err = u.insist(ctx)
	}
	return rev, err
}

// update is an Update on its way.
type update struct {
	e    *Engine
	fn   func(storage.Txn) error
	keys []string // that the run before read, without those of large rows
}

// insist runs the function again until its commit succeeds, one Update of a node
// after the other.
func (u *update) insist(ctx context.Context) (storage.Revision, error) {
	waiting, cancel := context.WithTimeout(ctx, u.e.patienceLimit())
	defer cancel()
	select {
	case u.e.turn <- struct{}{}:
		defer func() { <-u.e.turn }()
	case <-waiting.Done():
		return 0, u.e.gaveUp(ctx)
	case <-u.e.ctx.Done():
		return 0, storage.ErrClosed
	}
	wait, firm := time.Millisecond, time.Now().Add(u.e.firmAfter())
	for range mostTries {
		rev, err := u.try(ctx, nil, 0)
		if !errors.Is(err, errConflict) {
			return rev, err
		}
		if time.Now().After(firm) {
			break
		}
		pause(ctx, wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
	return u.alone(ctx, waiting)
}

// gaveUp is the error of an Update that waited for others in vain, unless its
// caller went away.
func (e *Engine) gaveUp(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: etcd: others kept this Update from its commit for %v", storage.ErrUnavailable, e.patienceLimit())
}

// try runs the function on a snapshot and commits what it wrote, once, under the
// lock when that is not 0. What the function comes to without a commit counts only when what came from
// recent is confirmed.
func (u *update) try(ctx context.Context, recent *overlay.Recent, lock int64) (storage.Revision, error) {
	s := u.e.snapshot(ctx)
	defer s.cancel()
	s.seen, s.recent = map[string]int64{}, recent
	if recent == nil {
		if err := s.ahead(u.keys); err != nil {
			return 0, err
		}
	}
	t := overlay.NewTxn(s)
	defer t.End()
	err := t.Verdict(ctx, u.fn(t))
	u.keys = s.small
	if ended := s.usable(); err == nil && ended != nil {
		err = ended
	}
	switch {
	case s.guessed && t.Failed() == nil && s.usable() == nil && (err != nil || t.Writes.Len() == 0):
		head, unsure := u.e.confirm(s, t)
		if err = cmp.Or(unsure, err); err != nil {
			return 0, err
		}
		return head, nil
	case err != nil:
		return 0, err
	case t.Writes.Len() == 0:
		return s.At()
	}
	return u.e.commit(s, t, lock)
}

// confirm returns the newest commit if at that revision all was as fn has read it,
// and errConflict if not.
func (e *Engine) confirm(s *snapshot, t *overlay.Txn) (head storage.Revision, err error) {
	var resp *clientv3.TxnResponse
	err = e.read(s.ctx, func(ctx context.Context) error {
		resp, err = e.client.Txn(ctx).If(append(s.compares(&t.Reads), s.same())...).Then(clientv3.OpGet(e.head)).Commit()
		return err
	})
	switch ended := s.usable(); {
	case err != nil && ended != nil:
		return 0, ended
	case err != nil:
		return 0, e.explain(err)
	case !resp.Succeeded:
		return 0, errConflict
	}
	return storage.Revision(resp.Responses[0].GetResponseRange().Kvs[0].ModRevision), nil
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
	id := fmt.Sprintf("%x.%d", e.self, e.commits.Add(1))
	ops = append(ops, clientv3.OpPut(e.head, id))
	before := max(s.head, int64(e.feed.Last()))
	resp, err := e.write(append(s.compares(&t.Reads), free, s.same()), ops, clientv3.OpGet(e.head))
	switch {
	case errors.Is(err, storage.ErrFull):
		return e.judgeFull(id, before, err)
	case err != nil:
		return 0, err
	case !resp.Succeeded && len(resp.Responses[0].GetResponseRange().Kvs) == 0:
		return 0, e.errGone()
	case !resp.Succeeded:
		return 0, errConflict
	}
	rev := storage.Revision(resp.Header.Revision)
	e.recent.Told(storage.Commit{Revision: rev, Changes: changes})
	return rev, nil
}

// judgeFull finds out what became of a commit that etcd answered with NOSPACE: it
// says so both when it refuses a transaction and when it has run the one that used
// the last of the space. The commit's id is looked for in what head has been since
// before, a revision that it had earlier.
func (e *Engine) judgeFull(id string, before int64, full error) (storage.Revision, error) {
	ctx, cancel := e.bound(context.Background())
	defer cancel()
	for at := int64(0); ; { // 0 is now
		var value string
		var found int64
		err := e.read(ctx, func(ctx context.Context) error {
			resp, err := e.client.Get(ctx, e.head, clientv3.WithRev(at))
			if err == nil && len(resp.Kvs) > 0 {
				value, found = string(resp.Kvs[0].Value), resp.Kvs[0].ModRevision
			}
			return err
		})
		switch {
		case err != nil:
			return 0, fmt.Errorf("%w: %v, and what became of it cannot be read: %v", storage.ErrUncertain, full, err)
		case value == id:
			return storage.Revision(found), nil
		case found <= before:
			return 0, full
		}
		at = found - 1
	}
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
