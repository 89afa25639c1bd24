package kv

import (
	"context"
	"sync"

	"github.com/cofferhq/coffer/internal/storage"
)

// maxNoted bounds the last reads kept in memory; those of further secrets are
// not noted until the next flush. The audit log has every read.
const maxNoted = 1 << 16

// maxFlushed bounds the last reads that one round writes, so that reading many
// secrets costs few writes however many they are; the others wait in memory.
const maxFlushed = 5 * storage.MaxUpdateKeys

// readLog gathers who read which secret last, so that a read writes nothing.
type readLog struct {
	mu    sync.Mutex
	noted map[string]noted // by the secret's id
}

type noted struct {
	path string
	seen
}

// note remembers a read.
func (l *readLog) note(path, id, by string, deprecated bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, known := l.noted[id]
	if !known && len(l.noted) >= maxNoted {
		return
	}
	if l.noted == nil {
		l.noted = map[string]noted{}
	}
	n.path, n.at, n.by = path, now(), by
	if deprecated {
		n.deprecated++
	}
	l.noted[id] = n
}

// newest returns what was stored together with what was noted since.
func (l *readLog) newest(id string, stored seen) seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	return stored.with(l.noted[id].seen)
}

// with adds later reads.
func (s seen) with(later seen) seen {
	if later.at.After(s.at) {
		s.at, s.by = later.at, later.by
	}
	s.deprecated += later.deprecated
	return s
}

// take removes up to n reads, any, and returns them.
func (l *readLog) take(n int) map[string]noted {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.noted) <= n {
		all := l.noted
		l.noted = nil
		return all
	}
	some := make(map[string]noted, n)
	for id, read := range l.noted {
		if len(some) == n {
			break
		}
		some[id] = read
		delete(l.noted, id)
	}
	return some
}

// restore puts back what could not be written.
func (l *readLog) restore(all map[string]noted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.noted == nil {
		l.noted = make(map[string]noted, len(all))
	}
	for id, n := range all {
		n.seen = n.with(l.noted[id].seen)
		l.noted[id] = n
	}
}

// flushReads writes some of the noted reads.
func (s *Store) flushReads(ctx context.Context) error { return s.flush(ctx, maxFlushed) }

// flush writes up to n of the noted reads, many in one transaction.
func (s *Store) flush(ctx context.Context, n int) error {
	// Each reads two rows; of what reads many more an engine may let nothing else
	// commit meanwhile.
	const batch = storage.MaxUpdateKeys / 2
	all := s.reads.take(n)
	for len(all) > 0 {
		some := make(map[string]noted, batch)
		for id, n := range all {
			if some[id] = n; len(some) == batch {
				break
			}
		}
		if err := s.update(ctx, func(t storage.Txn) error { return writeReads(t, some) }); err != nil {
			s.reads.restore(all)
			return err
		}
		for id := range some {
			delete(all, id)
		}
	}
	return nil
}

func writeReads(t storage.Txn, some map[string]noted) error {
	for id, n := range some {
		// A secret that was deleted since must not leave a row behind.
		m, err := loadMeta(t, n.path)
		if err != nil {
			return err
		}
		if m == nil || m.id != id {
			continue
		}
		stored, err := loadSeen(t, id)
		if err != nil {
			return err
		}
		if err := t.Put(seenPrefix+id, stored.with(n.seen).row()); err != nil {
			return err
		}
	}
	return nil
}
