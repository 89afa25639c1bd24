package identity

import (
	"context"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

// remains is a row: what is left to do for an entity or a group that ended.
type remains struct {
	Rows   []string `json:"rows,omitempty"`   // to be deleted
	Merged []string `json:"merged,omitempty"` // entities whose rows are to name straight the one that they are
}

// pieceOf is how many members one transaction changes: each takes a few rows of
// the hundred that one may write.
const pieceOf = 40

// finish does what is left to do, a piece at a time. of is "entity" or "group".
func (s *Store) finish(ctx context.Context, of, id string) error {
	for {
		done := false
		err := s.update(ctx, func(t storage.Txn) error {
			key := endingRows + of + "/" + id
			left, err := storage.Load[remains](t, key)
			if done = left == nil; err != nil || done {
				return err
			}
			n, m := min(pieceOf, len(left.Rows)), min(pieceOf, len(left.Merged))
			for _, row := range left.Rows[:n] {
				if err := t.Delete(row); err != nil {
					return err
				}
			}
			for _, merged := range left.Merged[:m] {
				if err := straighten(t, merged); err != nil {
					return err
				}
			}
			left.Rows, left.Merged = left.Rows[n:], left.Merged[m:]
			if done = len(left.Rows)+len(left.Merged) == 0; done {
				return t.Delete(key)
			}
			return storage.Save(t, key, left)
		})
		if err != nil || done {
			return err
		}
	}
}

// straighten makes the row of a merged entity name the one that it is now, so that a
// token finds it in one step however often there was a merge.
func straighten(t storage.Txn, id string) error {
	e, err := storage.Load[Entity](t, entityRows+id)
	if err != nil || e == nil || e.MergedInto == "" {
		return err
	}
	is, err := entity(t, id)
	if err != nil || is == nil || is.ID == e.MergedInto {
		return err
	}
	e.MergedInto = is.ID
	return storage.Save(t, entityRows+id, e)
}

// Sweep ends the deletions and merges that a crash interrupted.
func (s *Store) Sweep(ctx context.Context) error {
	var rows []storage.Entry
	if err := s.view(ctx, func(r storage.Reader) (err error) {
		rows, err = r.Scan(endingRows, "", 256)
		return err
	}); err != nil {
		return err
	}
	for _, row := range rows {
		kind, id, _ := strings.Cut(strings.TrimPrefix(row.Key, endingRows), "/")
		if kind == "group" {
			if err := s.endMembers(ctx, id); err != nil {
				return err
			}
		}
		if err := s.finish(ctx, kind, id); err != nil {
			return err
		}
	}
	return nil
}
