package etcd

import (
	"context"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

// snapshot is the overlay.Source at a revision of etcd, that of the first read.
type snapshot struct {
	e      *Engine
	caller context.Context
	ctx    context.Context // caller, ended with the engine
	cancel context.CancelFunc

	revision int64            // of etcd; 0 before the first read
	head     int64            // ModRevision of head: the newest commit
	began    int64            // CreateRevision of head: the store's first
	seen     map[string]int64 // the ModRevision of each key read, 0 where there is none; nil when nobody asks
	recent   *overlay.Recent  // asked before etcd; nil where the rows must be those of the revision
	guessed  bool             // something came from recent
}

func (e *Engine) snapshot(ctx context.Context) *snapshot {
	inner, cancel := e.bound(ctx)
	return &snapshot{e: e, caller: ctx, ctx: inner, cancel: cancel}
}

func (s *snapshot) usable() error {
	if err := s.e.stopped(); err != nil {
		return err
	}
	return s.caller.Err()
}

// At implements overlay.Source.
func (s *snapshot) At() (storage.Revision, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	if s.revision == 0 {
		if _, err := s.fetch(s.e.head); err != nil {
			return 0, err
		}
	}
	return storage.Revision(s.head), nil
}

// fetch reads keys of etcd, at the snapshot's revision.
func (s *snapshot) fetch(key string, options ...clientv3.OpOption) (kvs []*mvccpb.KeyValue, err error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	gone := false
	err = s.e.read(s.ctx, func(ctx context.Context) error {
		if s.revision > 0 {
			// Any member that has got to the revision knows it as well as the leader.
			at := append(slices.Clone(options), clientv3.WithRev(s.revision))
			resp, err := s.e.client.Get(ctx, key, append(at, clientv3.WithSerializable())...)
			if is(err, rpctypes.ErrFutureRev) {
				resp, err = s.e.client.Get(ctx, key, at...)
			}
			if err == nil {
				kvs = resp.Kvs
			}
			return err
		}
		resp, err := s.e.client.Txn(ctx).Then(clientv3.OpGet(s.e.head), clientv3.OpGet(key, options...)).Commit()
		if err == nil {
			head := resp.Responses[0].GetResponseRange().Kvs
			if gone = len(head) == 0; gone {
				return nil
			}
			s.revision, s.head, s.began = resp.Header.Revision, head[0].ModRevision, head[0].CreateRevision
			kvs = resp.Responses[1].GetResponseRange().Kvs
		}
		return err
	})
	if ended := s.usable(); err != nil && ended != nil {
		return nil, ended
	}
	if gone {
		return nil, s.e.errGone()
	}
	return kvs, s.e.explain(err)
}

// note remembers what a commit depends on.
func (s *snapshot) note(key string, row overlay.Row) {
	switch {
	case s.seen == nil:
	case row.Value == nil:
		s.seen[key] = 0
	default:
		s.seen[key] = int64(row.Revision)
	}
}

// Get implements overlay.Source.
func (s *snapshot) Get(key string) (value []byte, found bool, err error) {
	if s.recent != nil {
		if row, known := s.recent.Get(key); known {
			s.guessed = true
			s.note(key, row)
			return row.Value, row.Value != nil, s.usable()
		}
	}
	kvs, err := s.fetch(s.e.data + key)
	if err != nil {
		return nil, false, err
	}
	var row overlay.Row
	if len(kvs) > 0 {
		row = overlay.Row{Value: notNil(kvs[0].Value), Revision: storage.Revision(kvs[0].ModRevision)}
	}
	s.note(key, row)
	if s.seen != nil {
		s.e.recent.Keep(key, row, storage.Revision(s.revision))
	}
	return row.Value, row.Value != nil, nil
}

// found notes a key of an interval.
func (s *snapshot) found(key string, revision int64) {
	if s.seen != nil {
		s.seen[key] = revision
	}
}

// notNil makes a missing value an empty one.
func notNil(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// between returns what is asked for the keys with from <= key < to.
func (s *snapshot) between(from, to string, limit int, options ...clientv3.OpOption) ([]*mvccpb.KeyValue, error) {
	return s.fetch(s.e.data+from, append(options, clientv3.WithRange(s.e.end(to)), clientv3.WithLimit(int64(limit)))...)
}

// end returns the end of an interval in etcd: an empty one has no bound.
func (e *Engine) end(to string) string {
	if to == "" {
		return overlay.EndOf(e.data)
	}
	return e.data + to
}

// pageRows bounds how many rows are fetched at once.
const pageRows = 1000

// Scan implements overlay.Source.
func (s *snapshot) Scan(from, to string, limit int) ([]storage.Entry, error) {
	var entries []storage.Entry
	for len(entries) < limit {
		n := min(limit-len(entries), pageRows)
		kvs, err := s.between(from, to, n)
		if err != nil {
			return nil, err
		}
		for _, kv := range kvs {
			key := string(kv.Key[len(s.e.data):])
			s.found(key, kv.ModRevision)
			entries = append(entries, storage.Entry{Key: key, Value: notNil(kv.Value)})
		}
		if len(kvs) < n {
			break
		}
		from = entries[len(entries)-1].Key + "\x00"
	}
	return entries, nil
}

// Names implements overlay.Source. It reads keys in pages, the next beyond the
// last name of the one before: a name costs a page at most, however many keys
// are below it.
func (s *snapshot) Names(prefix, from, to string, limit int) (keys []string, err error) {
	last := ""
	for len(keys) < limit && (to == "" || from < to) {
		n := min(limit-len(keys)+1, pageRows)
		kvs, err := s.between(from, to, n, clientv3.WithKeysOnly())
		if err != nil {
			return nil, err
		}
		for _, kv := range kvs {
			key := string(kv.Key[len(s.e.data):])
			name := overlay.NameOf(prefix, key)
			if name == last || len(keys) == limit {
				continue
			}
			s.found(key, kv.ModRevision)
			keys, last = append(keys, key), name
		}
		if len(kvs) < n {
			break
		}
		from = overlay.PastName(prefix, last)
	}
	return keys, nil
}

// Bounds of what one commit compares. etcd takes 128 comparisons unless told
// otherwise, and 1.5 MiB of which the writes may take 1.2.
const (
	maxCompares     = 120
	maxCompareBytes = 256 << 10
)

// compares returns what must hold for a commit: that nothing it read has changed.
func (s *snapshot) compares(reads *overlay.Reads) []clientv3.Cmp {
	var all []clientv3.Cmp
	bytes := 0
	for key, revision := range s.seen {
		all = append(all, clientv3.Compare(clientv3.ModRevision(s.e.data+key), "=", revision))
		bytes += len(s.e.data) + len(key)
	}
	for _, r := range reads.Ranges {
		unchanged := clientv3.Compare(clientv3.ModRevision(s.e.data+r.From), "<", s.revision+1)
		all = append(all, unchanged.WithRange(s.e.end(r.To)))
		bytes += 2*len(s.e.data) + len(r.From) + len(r.To)
	}
	if len(all) <= maxCompares && bytes <= maxCompareBytes {
		return all
	}
	if s.guessed {
		return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.e.head), "<", 0)} // never: run again on a true snapshot
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.e.head), "=", s.head)}
}
