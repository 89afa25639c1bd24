package kv

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// FlushInterval is how often the last reads are written, and how often Run
// looks for versions that are due.
const FlushInterval = 3 * time.Second

// run does the mount's background work until ctx ends: it writes last reads,
// destroys what is due and clears away what was deleted. Every step is a
// transaction that can be done again, so several nodes may run it at once.
func run(s *Store, ctx context.Context) error {
	tick := time.NewTicker(FlushInterval)
	defer tick.Stop()
	for {
		s.round(ctx)
		select {
		case <-ctx.Done():
			// The last reads are worth a moment more; a closed store refuses.
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), FlushInterval)
			defer cancel()
			if err := s.flush(end, maxNoted); err != nil && !errors.Is(err, storage.ErrClosed) {
				s.log.Warn("the newest last reads were not written", "mount", s.mount.Path, "error", err)
			}
			return nil
		case <-tick.C:
		case <-s.untidy:
		}
	}
}

func (s *Store) round(ctx context.Context) {
	due, trash, err := s.waiting(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("background work could not be looked for and will be tried again", "mount", s.mount.Path, "error", err)
	}
	for _, step := range []struct {
		name string
		need bool
		do   func(context.Context) error
	}{
		{"write last reads", true, s.flushReads},
		{"destroy versions that are due", due, s.destroyDue},
		{"clear away deleted versions", trash, s.clearTrash},
	} {
		if !step.need {
			continue
		}
		if err := step.do(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("background work failed and will be tried again", "mount", s.mount.Path, "work", step.name, "error", err)
		}
	}
}

// waiting reports whether a version is due and whether there is something to
// clear away, so that an idle mount starts no transactions.
func (s *Store) waiting(ctx context.Context) (due, trash bool, err error) {
	err = s.engine.View(ctx, func(r storage.Reader) error {
		first, err := r.Scan(duePrefix, "", 1)
		if err != nil {
			return err
		}
		if len(first) > 0 {
			at, _, _, err := parseDue(first[0].Key)
			if err != nil {
				return err
			}
			due = !at.After(now())
		}
		cleared, err := r.List(trashPrefix, "", 1)
		trash = len(cleared) > 0
		return err
	})
	return due, trash, err
}

// tidySoon wakes Run.
func (s *Store) tidySoon() {
	select {
	case s.untidy <- struct{}{}:
	default:
	}
}

// clearTrash removes the data of versions that no metadata knows any more, as
// much in one transaction as fits.
func (s *Store) clearTrash(ctx context.Context) error {
	for ctx.Err() == nil {
		more := false
		err := s.update(ctx, func(t storage.Txn) error {
			more = false
			entries, err := t.Scan(trashPrefix, "", 1)
			if err != nil || len(entries) == 0 {
				return err
			}
			more = true
			numbers, err := parseTrash(entries[0].Value)
			if err != nil {
				return err
			}
			id, _, _ := strings.Cut(strings.TrimPrefix(entries[0].Key, trashPrefix), "/")
			now, later := chunk(numbers)
			for _, n := range now {
				if err := t.Delete(dataKey(id, n)); err != nil {
					return err
				}
			}
			if len(later) == 0 {
				return t.Delete(entries[0].Key)
			}
			return t.Put(entries[0].Key, trashRow(later))
		})
		if err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

// destroyDue destroys the versions whose time has come.
func (s *Store) destroyDue(ctx context.Context) error {
	const batch = 20 // each touches at most three rows
	for ctx.Err() == nil {
		done := 0
		err := s.update(ctx, func(t storage.Txn) error {
			done = 0
			entries, err := t.Scan(duePrefix, "", batch)
			if err != nil {
				return err
			}
			for _, e := range entries {
				due, err := s.destroyOne(t, e)
				if err != nil {
					return err
				}
				if !due {
					break
				}
				done++
			}
			return nil
		})
		if err != nil || done < batch {
			return err
		}
	}
	return ctx.Err()
}

// destroyOne handles the earliest entry of the index. It is false when the
// entry's time has not come.
func (s *Store) destroyOne(t storage.Txn, e storage.Entry) (due bool, err error) {
	at, id, number, err := parseDue(e.Key)
	if err != nil {
		return false, err
	}
	present := now()
	if at.After(present) {
		return false, nil
	}
	if err := t.Delete(e.Key); err != nil {
		return false, err
	}
	path := string(e.Value)
	m, err := loadMeta(t, path)
	if err != nil || m == nil || m.id != id {
		return err == nil, err
	}
	v := m.version(number)
	if v == nil || v.destroyed || v.deletion.IsZero() {
		return true, nil // removed, destroyed or undeleted since
	}
	settings, err := loadConfig(t)
	if err != nil {
		return false, err
	}
	a, err := m.describe()
	if err != nil {
		return false, err
	}
	after := settings.destroyAfter(a)
	if after <= 0 {
		return true, nil // no longer wanted
	}
	if v.deletion.Add(after).After(present) {
		return true, schedule(t, path, m.id, v, after) // deleted again later, or kept longer
	}
	v.destroyed = true
	if err := t.Delete(dataKey(id, number)); err != nil {
		return false, err
	}
	return true, m.save(t, path)
}
