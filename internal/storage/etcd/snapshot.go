package etcd

import (
	"bytes"
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

	revision int64                  // of etcd; 0 before the first read
	head     int64                  // ModRevision of head: the newest commit
	began    int64                  // CreateRevision of head: the store's first
	seen     map[string]int64       // the ModRevision of each key read, 0 where there is none; nil when nobody asks
	recent   *overlay.Recent        // asked before etcd; nil where the rows must be those of the revision
	guessed  bool                   // something came from recent
	early    map[string]overlay.Row // rows that ahead has fetched
	small    []string               // the keys of small rows that were read one by one
	torn     bool                   // a key was not the same when it was read again
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

// ask is a read of one key of etcd, or with options of an interval.
type ask struct {
	key     string
	options []clientv3.OpOption
}

func (a ask) get(more ...clientv3.OpOption) clientv3.Op {
	return clientv3.OpGet(a.key, slices.Concat(a.options, more)...)
}

// fetch reads keys of etcd, at the snapshot's revision.
func (s *snapshot) fetch(key string, options ...clientv3.OpOption) ([]*mvccpb.KeyValue, error) {
	answers, err := s.fetchAll(ask{key, options})
	if err != nil {
		return nil, err
	}
	return answers[0], nil
}

// fetchAll reads at the snapshot's revision, in one round trip.
func (s *snapshot) fetchAll(asks ...ask) (answers [][]*mvccpb.KeyValue, err error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	gone := false
	err = s.e.read(s.ctx, func(ctx context.Context) (err error) {
		if s.revision > 0 {
			answers, err = s.again(ctx, asks)
			return err
		}
		ops := []clientv3.Op{clientv3.OpGet(s.e.head)}
		for _, a := range asks {
			ops = append(ops, a.get())
		}
		resp, err := s.e.client.Txn(ctx).Then(ops...).Commit()
		if err == nil {
			all := found(resp)
			if gone = len(all[0]) == 0; gone {
				return nil
			}
			s.revision, s.head, s.began = resp.Header.Revision, all[0][0].ModRevision, all[0][0].CreateRevision
			answers = all[1:]
		}
		return err
	})
	if ended := s.usable(); err != nil && ended != nil {
		return nil, ended
	}
	if gone {
		return nil, s.e.errGone()
	}
	return answers, s.e.explain(err)
}

// again reads at the revision of an earlier read. Any member that has got to it
// knows it as well as the leader.
func (s *snapshot) again(ctx context.Context, asks []ask) ([][]*mvccpb.KeyValue, error) {
	read := func(options ...clientv3.OpOption) (*clientv3.TxnResponse, error) {
		var ops []clientv3.Op
		for _, a := range asks {
			ops = append(ops, a.get(options...))
		}
		return s.e.client.Txn(ctx).Then(ops...).Commit()
	}
	at := clientv3.WithRev(s.revision)
	resp, err := read(at, clientv3.WithSerializable())
	if is(err, rpctypes.ErrFutureRev) {
		resp, err = read(at)
	}
	if err != nil {
		return nil, err
	}
	return found(resp), nil
}

// found returns what each read of a transaction has found.
func found(resp *clientv3.TxnResponse) (all [][]*mvccpb.KeyValue) {
	for _, r := range resp.Responses {
		all = append(all, r.GetResponseRange().Kvs)
	}
	return all
}

// Bounds of what is fetched ahead.
const (
	mostAhead      = 1000
	aheadAtOnce    = 100
	mostAheadValue = 16 << 10
)

// ahead fetches rows that are likely to be read, a hundred in a round trip: a run
// that is quick leaves others little time to change what it reads.
func (s *snapshot) ahead(keys []string) error {
	s.early = make(map[string]overlay.Row, len(keys))
	for part := range slices.Chunk(keys[:min(len(keys), mostAhead)], aheadAtOnce) {
		var asks []ask
		for _, key := range part {
			asks = append(asks, ask{key: s.e.data + key})
		}
		answers, err := s.fetchAll(asks...)
		if err != nil {
			return err
		}
		for i, key := range part {
			row := rowOf(answers[i])
			s.early[key] = row
			s.e.recent.Keep(key, row, storage.Revision(s.revision))
		}
	}
	return nil
}

// rowOf returns the row that was found, or that there is none.
func rowOf(kvs []*mvccpb.KeyValue) overlay.Row {
	if len(kvs) == 0 {
		return overlay.Row{}
	}
	return overlay.Row{Value: notNil(kvs[0].Value), Revision: storage.Revision(kvs[0].ModRevision)}
}

// note remembers what a commit depends on: the row, or that there is none. A row
// that recent told may not be that of the snapshot, nor what it tells a moment
// later.
func (s *snapshot) note(key string, row overlay.Row) {
	if s.seen == nil {
		return
	}
	revision := int64(row.Revision)
	if row.Value == nil {
		revision = 0
	}
	if before, again := s.seen[key]; again && before != revision {
		s.torn = true
	}
	s.seen[key] = revision
}

// Get implements overlay.Source.
func (s *snapshot) Get(key string) (value []byte, found bool, err error) {
	row, err := s.row(key)
	if err != nil {
		return nil, false, err
	}
	if _, again := s.seen[key]; s.seen != nil && !again && len(row.Value) <= mostAheadValue {
		s.small = append(s.small, key)
	}
	s.note(key, row)
	return row.Value, row.Value != nil, nil
}

// row returns a row as it is remembered, was fetched ahead, or is.
func (s *snapshot) row(key string) (overlay.Row, error) {
	if s.recent != nil {
		if row, known := s.recent.Get(key); known {
			s.guessed = true
			return row, s.usable()
		}
	}
	if row, known := s.early[key]; known {
		row.Value = bytes.Clone(row.Value)
		return row, s.usable()
	}
	kvs, err := s.fetch(s.e.data + key)
	if err != nil {
		return overlay.Row{}, err
	}
	row := rowOf(kvs)
	if s.seen != nil {
		s.e.recent.Keep(key, row, storage.Revision(s.revision))
	}
	return row, nil
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
			s.note(key, overlay.Row{Value: notNil(kv.Value), Revision: storage.Revision(kv.ModRevision)})
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
			s.note(key, overlay.Row{Value: notNil(kv.Value), Revision: storage.Revision(kv.ModRevision)})
			keys, last = append(keys, key), name
		}
		if len(kvs) < n {
			break
		}
		from = overlay.PastName(prefix, last)
	}
	return keys, nil
}

// same is true as long as the store is the one that was read, or that this node
// follows.
func (s *snapshot) same() clientv3.Cmp {
	began := s.began
	if began == 0 {
		began = s.e.feed.began.Load()
	}
	return clientv3.Compare(clientv3.CreateRevision(s.e.head), "=", began)
}

// Bounds of what one commit compares. etcd takes 128 comparisons unless told
// otherwise, and 1.5 MiB of which the writes may take 1.2.
const (
	maxCompares     = 120
	maxCompareBytes = 256 << 10
)

// compares returns what must hold for a commit: that nothing it read has changed.
func (s *snapshot) compares(reads *overlay.Reads) []clientv3.Cmp {
	never := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.e.head), "<", 0)} // run again on a true snapshot
	if s.torn {
		return never
	}
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
		return never
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.e.head), "=", s.head)}
}
