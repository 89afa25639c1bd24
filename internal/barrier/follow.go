package barrier

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Follow keeps what this node holds in memory as the store has it, by one watch
// over everything: its keys, so that those destroyed or replaced by another node
// are forgotten and learnt without waiting for an access that needs them; the
// caches; and what subscribed. It returns nil when ctx ends and fault.Sealed
// when the barrier is shut; other failures are logged and followed by another
// try, while caches read through.
//
// It returns ErrWrongKey when a root rotation ended without this node's
// noticing: the node must unwrap the root key anew.
func (b *Barrier) Follow(ctx context.Context) error {
	for {
		s, err := b.current()
		if err != nil {
			return err
		}
		err = b.followOnce(ctx, s)
		b.pulse.following.Store(false)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, storage.ErrHistoryGone):
			continue
		case errors.Is(err, ErrWrongKey), errors.Is(err, storage.ErrClosed), fault.Is(err, fault.Sealed):
			return err
		case errors.Is(err, storage.ErrUnavailable):
			b.pulse.away.Store(true)
		}
		b.log.Warn("lost the watch on the storage engine; reading through and trying again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-s.ctx.Done():
		case <-time.After(storage.ProgressInterval):
		}
	}
}

// followOnce empties what is kept in memory at the present revision, and keeps
// it from there.
func (b *Barrier) followOnce(ctx context.Context, s *session) error {
	mark, err := b.mark(ctx)
	if err != nil {
		return err
	}
	if err := b.refresh(ctx, s); err != nil {
		return err
	}
	b.destroyed(mark.revision)
	if err := b.tell(ctx, nil); err != nil {
		return err
	}
	return b.watch(ctx, s, "", mark.revision, func(c storage.Commit) error {
		if err := b.follow(ctx, s, c); err != nil {
			return err
		}
		b.pulse.away.Store(false)
		if c.Revision < mark.revision {
			return nil
		}
		b.pulse.right.Store(mark.time)
		b.pulse.following.Store(!s.shut.Load())
		if b.pulse.now()-mark.time < int64(remarkAfter) {
			return nil
		}
		next, err := b.mark(ctx)
		if err == nil {
			mark = next
		}
		return err
	})
}

// follow takes one commit in.
func (b *Barrier) follow(ctx context.Context, s *session, c storage.Commit) error {
	if len(c.Changes) == 0 {
		return nil
	}
	keys, mine := make([]string, len(c.Changes)), false
	for i, ch := range c.Changes {
		keys[i] = ch.Key
		mine = mine || reserved(ch.Key)
		if ch.Key == upgradeRow && !ch.Deleted {
			if err := s.learn(ch.Value); err != nil {
				return err
			}
		}
	}
	if mine {
		if err := b.refresh(ctx, s); err != nil {
			return err
		}
	}
	b.wrote(keys, c.Revision)
	return b.tell(ctx, keys)
}

// subscriber is told when something under a prefix may have changed.
type subscriber struct {
	prefix string
	fn     func(context.Context) error
}

// Subscribe has fn called, while Follow runs, after each commit that touches
// prefix and whenever the watch begins anew, one call at a time. An error of fn
// makes the watch begin anew. end unsubscribes.
func (b *Barrier) Subscribe(prefix string, fn func(context.Context) error) (end func()) {
	s := &subscriber{prefix, fn}
	b.cachesMu.Lock()
	defer b.cachesMu.Unlock()
	b.subscribers = append(b.subscribers, s)
	return func() {
		b.cachesMu.Lock()
		defer b.cachesMu.Unlock()
		b.subscribers = slices.DeleteFunc(b.subscribers, func(o *subscriber) bool { return o == s })
	}
}

// tell calls the subscribers that keys concern; no keys concern all.
func (b *Barrier) tell(ctx context.Context, keys []string) error {
	b.cachesMu.RLock()
	subscribers := slices.Clone(b.subscribers)
	b.cachesMu.RUnlock()
	for _, s := range subscribers {
		if keys != nil && !slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, s.prefix) }) {
			continue
		}
		if err := s.fn(ctx); err != nil {
			return err
		}
	}
	return nil
}

// learn takes the next root keyset from the row as it was watched: it may have
// been deleted since.
func (s *session) learn(row []byte) error {
	root := s.root.Load()
	if root == nil {
		return s.gone()
	}
	plain, err := root.openUpgradeRow(row)
	if plain == nil {
		return err
	}
	defer clear(plain)
	next, err := parseRoot(plain)
	if err == nil {
		s.replaceRoot(root, next)
	}
	return err
}

// refresh compares the keys held with the present snapshot.
func (b *Barrier) refresh(ctx context.Context, s *session) error {
	return b.engine.View(ctx, func(r storage.Reader) error {
		at := r.Revision()
		check, err := r.Get(rootRow)
		if err != nil {
			return err
		}
		if _, err := s.rootFor(r, check); err != nil {
			return err
		}
		for _, scope := range s.held() {
			row, err := r.Get(keysPrefix + scope)
			if errors.Is(err, storage.ErrNotFound) {
				s.install(scope, &scopeKeys{destroyed: true}, at)
				b.destroyed(at)
				continue
			}
			if err != nil {
				return err
			}
			if k := s.cached(scope); k != nil && string(k.row) == string(row) {
				continue
			}
			k, err := s.parse(r, scope, row)
			if errors.Is(err, ErrNoKeys) { // those around it are destroyed
				k, err = &scopeKeys{destroyed: true}, nil
			}
			if err != nil {
				return err
			}
			s.install(scope, k, at)
		}
		return nil
	})
}

// held lists the scopes whose keys are in memory.
func (s *session) held() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	scopes := make([]string, 0, len(s.scopes))
	for scope, k := range s.scopes {
		if !k.destroyed {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}
