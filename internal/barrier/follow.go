package barrier

import (
	"context"
	"errors"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Follow keeps this node's keys as the store has them, so that keys destroyed
// or root keys replaced by another node are forgotten and learnt here without
// waiting for an access that needs them. It returns nil when ctx ends and
// fault.Sealed when the barrier is shut.
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
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, storage.ErrHistoryGone):
		case errors.Is(err, ErrWrongKey), errors.Is(err, storage.ErrClosed), fault.Is(err, fault.Sealed):
			return err
		default:
			b.log.Warn("lost the watch on the barrier's keys; trying again", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-s.ctx.Done():
			case <-time.After(storage.ProgressInterval):
			}
		}
	}
}

func (b *Barrier) followOnce(ctx context.Context, s *session) error {
	from, err := b.refresh(ctx, s)
	if err != nil {
		return err
	}
	return b.watch(ctx, s, "barrier/", from, func(c storage.Commit) error {
		if len(c.Changes) == 0 {
			return nil
		}
		for _, ch := range c.Changes {
			if ch.Key == upgradeRow && !ch.Deleted {
				if err := s.learn(ch.Value); err != nil {
					return err
				}
			}
		}
		_, err := b.refresh(ctx, s)
		return err
	})
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

// refresh compares the keys held with the present snapshot, whose revision it
// returns.
func (b *Barrier) refresh(ctx context.Context, s *session) (at storage.Revision, err error) {
	err = b.engine.View(ctx, func(r storage.Reader) error {
		at = r.Revision()
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
			if err != nil {
				return err
			}
			s.install(scope, k, at)
		}
		return nil
	})
	return at, err
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
