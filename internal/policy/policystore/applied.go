package policystore

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Limits of what is remembered of directories that were applied.
const (
	MaxApplied       = 10_000 // items of one set
	MaxAppliedChange = 40     // items in one change
	maxAppliedID     = 1024   // bytes
	maxAppliedFields = 256
)

// Below the prefix of a namespace: appliedRows + set + "/head" is an appliedHead, + set + "/item/" + the fingerprint
// of the id an AppliedItem.
const appliedRows = "core/applied/"

// AppliedItem is something that was made as a directory says: a policy, a mount, what
// is written to a path. Its Fingerprint is of what the server had right after, so that
// a later change by others shows.
type AppliedItem struct {
	ID          string    `json:"id"`               // "policy:app", "mount:secret/", "path:auth/approle/role/ci"
	Fingerprint string    `json:"fingerprint"`      // SHA-256 in hex
	Fields      []string  `json:"fields,omitempty"` // those that the fingerprint is of
	Time        time.Time `json:"time"`             // UTC
	By          string    `json:"by"`               // display name of the token
}

// Applied is a set of items, in the order of storage. Revision counts its changes.
type Applied struct {
	Revision uint64
	Items    []AppliedItem
}

type appliedHead struct {
	Revision uint64 `json:"revision"`
	Items    int    `json:"items"`
}

var setRE = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

var fingerprintRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// appliedSet returns the prefix of a set's rows.
func (s *Store) appliedSet(set string) (string, error) {
	if !setRE.MatchString(set) {
		return "", fault.New(fault.Invalid, "%q is no name of a set: up to 64 of a-z, 0-9, - and _", set)
	}
	return strings.TrimSuffix(s.rows, rows) + appliedRows + set + "/", nil
}

// Applied returns what was applied of a set; nothing where it never was.
func (s *Store) Applied(ctx context.Context, set string) (out Applied, err error) {
	prefix, err := s.appliedSet(set)
	if err != nil {
		return out, err
	}
	err = s.barrier.View(ctx, func(r storage.Reader) error {
		out = Applied{}
		head, err := readHead(r, prefix)
		if err != nil {
			return err
		}
		out.Revision = head.Revision
		return storage.All(r, prefix+"item/", func(e storage.Entry) error {
			var item AppliedItem
			if err := json.Unmarshal(e.Value, &item); err != nil {
				return err
			}
			out.Items = append(out.Items, item)
			return nil
		})
	})
	return out, err
}

func readHead(r storage.Reader, prefix string) (head appliedHead, err error) {
	row, err := r.Get(prefix + "head")
	if errors.Is(err, storage.ErrNotFound) {
		return head, nil
	}
	if err != nil {
		return head, err
	}
	return head, json.Unmarshal(row, &head)
}

// Record remembers items and forgets those whose ids are in remove, in a set that is
// still at a revision: fault.Conflict where another one was here meanwhile. It returns
// the new revision.
func (s *Store) Record(ctx context.Context, set string, revision uint64, put []AppliedItem, remove []string) (uint64, error) {
	prefix, err := s.appliedSet(set)
	if err != nil {
		return 0, err
	}
	if n := len(put) + len(remove); n == 0 || n > MaxAppliedChange {
		return 0, fault.New(fault.Invalid, "a change has between 1 and %d items, this one %d", MaxAppliedChange, n)
	}
	for _, item := range put {
		if item.ID == "" || len(item.ID) > maxAppliedID || len(item.Fields) > maxAppliedFields || !fingerprintRE.MatchString(item.Fingerprint) {
			return 0, fault.New(fault.Invalid, "an item has an id of at most %d bytes, a SHA-256 in hex and at most %d fields", maxAppliedID, maxAppliedFields)
		}
	}
	_, err = s.barrier.Update(ctx, func(tx storage.Txn) error {
		head, err := readHead(tx, prefix)
		if err != nil {
			return err
		}
		if head.Revision != revision {
			return fault.New(fault.Conflict, "check-and-set parameter did not match: the set %s was applied by another meanwhile; plan anew", set)
		}
		for _, item := range put {
			if err := head.put(tx, prefix+"item/"+Fingerprint(item.ID), item); err != nil {
				return err
			}
		}
		for _, id := range remove {
			if err := head.remove(tx, prefix+"item/"+Fingerprint(id)); err != nil {
				return err
			}
		}
		head.Revision++
		row, err := json.Marshal(head)
		if err != nil {
			return err
		}
		return tx.Put(prefix+"head", row)
	})
	return revision + 1, err
}

func (h *appliedHead) put(tx storage.Txn, key string, item AppliedItem) error {
	switch _, err := tx.Get(key); {
	case errors.Is(err, storage.ErrNotFound):
		if h.Items++; h.Items > MaxApplied {
			return fault.New(fault.Invalid, "a set has at most %d items; use several", MaxApplied)
		}
	case err != nil:
		return err
	}
	row, err := json.Marshal(item)
	if err != nil {
		return err
	}
	return tx.Put(key, row)
}

func (h *appliedHead) remove(tx storage.Txn, key string) error {
	switch _, err := tx.Get(key); {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	h.Items--
	return tx.Delete(key)
}
