package overlay

import (
	"bytes"
	"hash/maphash"
	"strings"
	"sync"

	"github.com/cofferhq/coffer/internal/storage"
)

// Recent holds rows that transactions have read not long ago, as the commits told
// since have left them, so that a transaction can begin with them instead of
// asking the server. What it holds may be old news, and rows of different
// moments: a commit must be judged by everything that was read, and where it
// fails, or where the function came to an error or to nothing, the function must
// run again on a true snapshot.
type Recent struct {
	seed   maphash.Seed
	shards [64]recentShard
}

// Bounds of one shard: 32 MiB in all, without values that are worth a round trip.
const (
	maxShardBytes  = 512 << 10
	maxRecentValue = 16 << 10
	rowOverhead    = 128
)

type recentShard struct {
	mu    sync.Mutex
	rows  map[string]Row
	bytes int
	floor storage.Revision // newest commit told that touched the shard
}

// Row is what is known of a key.
type Row struct {
	Value    []byte // nil where there is none
	Revision storage.Revision
}

// NewRecent returns an empty Recent.
func NewRecent() *Recent { return &Recent{seed: maphash.MakeSeed()} }

func (r *Recent) shard(key string) *recentShard {
	return &r.shards[maphash.String(r.seed, key)%uint64(len(r.shards))]
}

// Get returns a copy of what is known of key, and whether anything is.
func (r *Recent) Get(key string) (Row, bool) {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	row, known := s.rows[key]
	row.Value = bytes.Clone(row.Value)
	return row, known
}

// Keep remembers a row, read from a snapshot at a revision. The value, nil where
// there is none, is copied.
func (r *Recent) Keep(key string, row Row, at storage.Revision) {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at < s.floor || len(row.Value) > maxRecentValue {
		return
	}
	if held, known := s.rows[key]; known && held.Revision > row.Revision {
		return
	}
	row.Value = bytes.Clone(row.Value)
	s.put(strings.Clone(key), row)
}

func (s *recentShard) put(key string, row Row) {
	s.drop(key)
	size := len(key) + len(row.Value) + rowOverhead
	for victim := range s.rows { // any: iteration starts at random
		if s.bytes+size <= maxShardBytes {
			break
		}
		s.drop(victim)
	}
	if s.rows == nil {
		s.rows = map[string]Row{}
	}
	s.rows[key] = row
	s.bytes += size
}

func (s *recentShard) drop(key string) {
	if row, known := s.rows[key]; known {
		delete(s.rows, key)
		s.bytes -= len(key) + len(row.Value) + rowOverhead
	}
}

// Told brings what is held up to a commit. Commits may be told twice, and those
// of this node before older ones of others.
func (r *Recent) Told(c storage.Commit) {
	for _, ch := range c.Changes {
		s := r.shard(ch.Key)
		s.mu.Lock()
		s.floor = max(s.floor, c.Revision)
		if held, known := s.rows[ch.Key]; known && held.Revision < c.Revision {
			if len(ch.Value) > maxRecentValue {
				s.drop(ch.Key)
			} else {
				row := Row{Value: ch.Value, Revision: c.Revision}
				if !ch.Deleted && row.Value == nil {
					row.Value = []byte{}
				}
				s.put(ch.Key, row)
			}
		}
		s.mu.Unlock()
	}
}

// Forget drops everything: commits were missed.
func (r *Recent) Forget() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		clear(s.rows)
		s.bytes = 0
		s.mu.Unlock()
	}
}
