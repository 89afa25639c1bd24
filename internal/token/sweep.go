package token

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// sweepEvery is how long the rows of a token stay at most after it expired. The
// token itself ends on time: Lookup looks at the clock.
const sweepEvery = 10 * time.Second

// Sizes of the pieces in which rows are removed, within what one Update may
// write.
const (
	removePiece = 15 // times removeKeys
	orphanPiece = 30 // a child takes its row, two rows of its due time and its place below the parent
	endingPiece = 64
)

// Run removes the rows of tokens that expired or were revoked, until ctx ends.
// Several nodes may run it at once: every piece is one Update that does nothing
// where another node was first.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.Tidy(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("tokens that ended could not all be removed; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.wake:
		}
	}
}

// Tidy removes the rows of every token that ended until now.
func (s *Store) Tidy(ctx context.Context) error {
	for _, piece := range []func(context.Context) (more bool, err error){s.expire, s.orphan, s.bury} {
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			if more, err = piece(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// expire ends tokens whose time has come, oldest first.
func (s *Store) expire(ctx context.Context) (more bool, err error) {
	if due, err := s.any(ctx, duePrefix+"/"); err != nil || due == "" || due[:len(dueUntil())] > dueUntil() {
		return false, err
	}
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		more = false
		due, err := t.Scan(duePrefix+"/", "", removePiece)
		if err != nil {
			return err
		}
		until := dueUntil()
		for _, row := range due {
			if row.Key[:len(until)] > until {
				return nil
			}
			if err := t.Delete(row.Key); err != nil {
				return err
			}
			tok, err := read(t, row.Key[len(until)+1:])
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if err := remove(t, tok); err != nil {
				return err
			}
		}
		more = len(due) == removePiece
		return nil
	})
	return more, err
}

// dueUntil starts the keys of what is due now, and sorts after those due before.
func dueUntil() string { return duePrefix + "/" + dueTime(time.Now()) }

// any returns the first key below a prefix, "" when there is none. Asking first
// saves the Update that would find nothing to do.
func (s *Store) any(ctx context.Context, prefix string) (key string, err error) {
	err = s.storage.View(ctx, func(r storage.Reader) error {
		rows, err := r.Scan(prefix, "", 1)
		if len(rows) > 0 {
			key = rows[0].Key
		}
		return err
	})
	return key, err
}

// orphan makes orphans of the children that a revoked parent left behind, and
// then removes what is left of the parent.
func (s *Store) orphan(ctx context.Context) (more bool, err error) {
	if first, err := s.any(ctx, orphanPrefix+"/"); err != nil || first == "" {
		return false, err
	}
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		parents, err := t.List(orphanPrefix+"/", "", 1)
		if more = len(parents) > 0; err != nil || !more {
			return err
		}
		id := parents[0]
		children, err := t.List(childPrefix+"/"+id+"/", "", orphanPiece)
		if err != nil {
			return err
		}
		for _, child := range children {
			if err := release(t, id, child); err != nil {
				return err
			}
		}
		if len(children) == orphanPiece {
			return nil
		}
		parent, err := read(t, id)
		if err != nil {
			return err
		}
		if err := t.Delete(orphanKey(id)); err != nil {
			return err
		}
		if err := t.Delete(idKey(id)); err != nil {
			return err
		}
		return t.Put(endingKey(id), []byte(parent.Namespace))
	})
	return more, err
}

// release makes an orphan of a child.
func release(t storage.Txn, parent, id string) error {
	if err := t.Delete(childKey(parent, id)); err != nil {
		return err
	}
	tok, err := read(t, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now := *tok
	now.Parent, now.Orphan = "", true
	return put(t, &now, tok)
}

// bury takes tokens that ended: it ends their children's rows, tells Ended of
// them, and forgets them.
func (s *Store) bury(ctx context.Context) (more bool, err error) {
	var rows []storage.Entry
	err = s.storage.View(ctx, func(r storage.Reader) error {
		var err error
		rows, err = r.Scan(endingPrefix+"/", "", endingPiece)
		return err
	})
	if err != nil || len(rows) == 0 {
		return false, err
	}
	for _, row := range rows {
		id := strings.TrimPrefix(row.Key, endingPrefix+"/")
		for left := true; left; {
			if left, err = s.buryChildren(ctx, id); err != nil {
				return false, err
			}
		}
		if s.ended == nil {
			continue
		}
		if err := s.ended(ctx, string(row.Value), id); err != nil {
			return false, err
		}
	}
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		for _, row := range rows {
			if err := t.Delete(row.Key); err != nil {
				return err
			}
		}
		return nil
	})
	return true, err
}

// buryChildren removes the rows of some children of a token that ended; left
// says that there may be more.
func (s *Store) buryChildren(ctx context.Context, id string) (left bool, err error) {
	prefix := childPrefix + "/" + id + "/"
	if first, err := s.any(ctx, prefix); err != nil || first == "" {
		return false, err
	}
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		left = false
		children, err := t.Scan(prefix, "", removePiece)
		if err != nil {
			return err
		}
		for _, row := range children {
			if err := t.Delete(row.Key); err != nil {
				return err
			}
			tok, err := read(t, strings.TrimPrefix(row.Key, prefix))
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if err := remove(t, tok); err != nil {
				return err
			}
		}
		left = len(children) == removePiece
		return nil
	})
	return left, err
}

// EndAll ends every token of the store's namespace and removes its roles, a piece at
// a time.
func (s *Store) EndAll(ctx context.Context) error {
	for {
		var accessors, roles []string
		if err := s.storage.View(ctx, func(r storage.Reader) (err error) {
			if accessors, err = r.List(accessorsOf(s.namespace), "", endAllPiece); err != nil {
				return err
			}
			roles, err = r.List(s.roleKey(""), "", endAllPiece)
			return err
		}); err != nil || len(accessors)+len(roles) == 0 {
			return err
		}
		if _, err := s.storage.Update(ctx, func(t storage.Txn) error {
			for _, name := range roles {
				if err := t.Delete(s.roleKey(name)); err != nil {
					return err
				}
			}
			for _, accessor := range accessors {
				if err := endListed(t, accessor); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		s.stir(nil)
	}
}

// endAllPiece is how many tokens and roles one transaction of EndAll ends: each
// token has up to seven rows.
const endAllPiece = 10

// endListed ends the token of an accessor, whatever state it is in.
func endListed(t storage.Txn, accessor string) error {
	id, err := t.Get(accessorKey(accessor))
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	tok, err := read(t, string(id))
	if errors.Is(err, storage.ErrNotFound) {
		return t.Delete(accessorKey(accessor))
	}
	if err != nil {
		return err
	}
	return remove(t, tok)
}
