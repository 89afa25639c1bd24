package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/storage"
)

// NoticeRow is there from the end of a restore until a server has opened the
// store and recorded that it was restored.
const NoticeRow = "seal/restored"

// Restore options.
type Restore struct {
	// RevokeTokens leaves every token behind: who wants in logs in again.
	RevokeTokens bool
	Watch        Watcher
}

// mark is the row that is there while a restore writes.
type mark struct {
	Archive      string    `json:"archive"` // its SHA-256
	Created      time.Time `json:"created"` // when the archive was made
	RevokeTokens bool      `json:"revoke_tokens,omitempty"`
	Begun        time.Time `json:"begun"`
	Run          string    `json:"run"`             // one process's attempt
	Clearing     bool      `json:"clearing"`        // rows of another archive are being removed
	After        string    `json:"after,omitempty"` // every row up to this key is written
}

// Notice tells a server that its store was restored.
type Notice struct {
	Archive      string           `json:"archive"`  // SHA-256
	Created      time.Time        `json:"created"`  // when the archive was made
	Revision     storage.Revision `json:"revision"` // of the engine that it was made from
	RevokeTokens bool             `json:"revoke_tokens,omitempty"`
	Finished     time.Time        `json:"finished"`
	Run          string           `json:"run"`
}

// Pieces of a restore: few rows enough that the mark fits beside them.
const (
	pieceRows  = storage.MaxUpdateKeys - 1
	pieceBytes = storage.MaxUpdateBytes / 2
	together   = 8 // pieces that are written at once, to share the engine's syncs
)

// restore is one run.
type restore struct {
	Restore
	engine storage.Engine
	proof  *Proof
	mark   mark
	row    []byte // of mark, as stored

	piece  []storage.Entry
	bytes  int
	pieces [][]storage.Entry
	record []byte
}

// Into writes a proven archive, which is read from r once more, into an empty
// store. When it fails or the process ends, the store is marked as half restored
// and no server opens it; the same call then goes on where it was, and one with
// another archive starts over.
func (p *Proof) Into(ctx context.Context, e storage.Engine, r io.Reader, o Restore) error {
	w := &restore{Restore: o, engine: e, proof: p}
	a, err := Open(r, o.Watch)
	if err != nil {
		return err
	}
	if err := a.Unlock(p.verifier); err != nil {
		return err
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	if w.mark.Clearing {
		if err := w.clear(ctx); err != nil {
			return err
		}
	}
	sum, err := a.Each(func(e storage.Entry) error { return w.add(ctx, e) })
	if err != nil {
		return err
	}
	if sum.SHA256 != p.SHA256 || w.record == nil {
		return ErrAnother
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	return w.finish(ctx)
}

// begin marks the store, which must be empty or half restored.
func (w *restore) begin(ctx context.Context) error {
	run := make([]byte, 8)
	rand.Read(run)
	fresh := mark{
		Archive: w.proof.SHA256, Created: w.proof.Header.Created, RevokeTokens: w.RevokeTokens,
		Begun: time.Now().UTC().Truncate(time.Second), Run: hex.EncodeToString(run),
	}
	return w.update(ctx, func(t storage.Txn) error {
		w.mark = fresh
		switch row, err := t.Get(seal.RestoreRow); {
		case errors.Is(err, storage.ErrNotFound):
			if err := mustBeEmpty(t); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			var old mark
			_ = json.Unmarshal(row, &old) // one that cannot be read is of no archive
			w.mark.Clearing = true
			if old.Archive == fresh.Archive && old.RevokeTokens == fresh.RevokeTokens {
				w.mark.Clearing, w.mark.After = old.Clearing, old.After
			}
		}
		row, err := json.Marshal(w.mark)
		if err != nil {
			return err
		}
		w.row = row
		return t.Put(seal.RestoreRow, row)
	})
}

func mustBeEmpty(t storage.Txn) error {
	rows, err := t.Scan("", "", 1)
	if err != nil || len(rows) == 0 {
		return err
	}
	what := "it holds rows that are not Coffer's"
	switch rec, err := seal.Load(t); {
	case err == nil:
		what = fmt.Sprintf("it holds the store %s, initialized %s", Fingerprint(rec), rec.Created.Format(time.DateTime))
	case !errors.Is(err, seal.ErrNoRecord):
		return err
	}
	return fmt.Errorf("%w: %s; a restore never replaces anything, so move that away first, or name another place in the configuration", ErrNotEmpty, what)
}

// mine makes sure that no other restore has taken over.
func (w *restore) mine(t storage.Txn) error {
	row, err := t.Get(seal.RestoreRow)
	if errors.Is(err, storage.ErrNotFound) || err == nil && !bytes.Equal(row, w.row) {
		return ErrOvertaken
	}
	return err
}

// clear removes what a restore of another archive left.
func (w *restore) clear(ctx context.Context) error {
	for left := true; left; {
		err := w.update(ctx, func(t storage.Txn) error {
			if err := w.mine(t); err != nil {
				return err
			}
			rows, err := t.Scan("", "", pageRows)
			if err != nil {
				return err
			}
			left = len(rows) > 1
			for _, e := range rows {
				if e.Key == seal.RestoreRow {
					continue
				}
				if err := t.Delete(e.Key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return w.advance(ctx, func(m *mark) { m.Clearing, m.After = false, "" })
}

// advance changes the mark.
func (w *restore) advance(ctx context.Context, change func(*mark)) error {
	change(&w.mark)
	next, err := json.Marshal(w.mark)
	if err != nil {
		return err
	}
	err = w.update(ctx, func(t storage.Txn) error {
		if row, err := t.Get(seal.RestoreRow); err == nil && bytes.Equal(row, next) {
			return nil // the commit before this try took effect after all
		}
		if err := w.mine(t); err != nil {
			return err
		}
		return t.Put(seal.RestoreRow, next)
	})
	w.row = next
	return err
}

// add takes a row. Rows that an earlier run has written are passed over.
func (w *restore) add(ctx context.Context, e storage.Entry) error {
	switch {
	case e.Key == seal.RecordRow:
		w.record = e.Value // it comes last: with it the store is one
		return nil
	case e.Key == NoticeRow: // of an earlier restore, that nobody has read yet
		return nil
	case w.RevokeTokens && strings.HasPrefix(e.Key, tokenRows), e.Key <= w.mark.After:
		return nil
	}
	size := len(e.Key) + len(e.Value)
	if len(w.piece) == pieceRows || len(w.piece) > 0 && w.bytes+size > pieceBytes {
		w.pieces, w.piece, w.bytes = append(w.pieces, w.piece), nil, 0
	}
	if len(w.pieces) == together {
		if err := w.write(ctx); err != nil {
			return err
		}
	}
	w.piece, w.bytes = append(w.piece, e), w.bytes+size
	return nil
}

// flush writes the pieces that wait.
func (w *restore) flush(ctx context.Context) error {
	if len(w.piece) > 0 {
		w.pieces, w.piece, w.bytes = append(w.pieces, w.piece), nil, 0
	}
	return w.write(ctx)
}

// write writes the whole pieces, all at once, and then marks how far it is.
func (w *restore) write(ctx context.Context) error {
	if len(w.pieces) == 0 {
		return nil
	}
	group, all := errgroup.WithContext(ctx)
	for _, piece := range w.pieces {
		group.Go(func() error {
			return w.update(all, func(t storage.Txn) error {
				if err := w.mine(t); err != nil {
					return err
				}
				for _, e := range piece {
					if err := t.Put(e.Key, e.Value); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	last := w.pieces[len(w.pieces)-1]
	w.pieces = w.pieces[:0]
	return w.advance(ctx, func(m *mark) { m.After = last[len(last)-1].Key })
}

// finish makes the store one, in one commit.
func (w *restore) finish(ctx context.Context) error {
	notice, err := json.Marshal(Notice{
		Archive: w.mark.Archive, Created: w.mark.Created, Revision: w.proof.Header.Revision,
		RevokeTokens: w.RevokeTokens, Finished: time.Now().UTC().Truncate(time.Second), Run: w.mark.Run,
	})
	if err != nil {
		return err
	}
	return w.update(ctx, func(t storage.Txn) error {
		if row, err := t.Get(NoticeRow); err == nil && bytes.Equal(row, notice) {
			return nil // the commit before this try took effect after all
		}
		if err := w.mine(t); err != nil {
			return err
		}
		if err := t.Put(NoticeRow, notice); err != nil {
			return err
		}
		if err := t.Put(seal.RecordRow, w.record); err != nil {
			return err
		}
		return t.Delete(seal.RestoreRow)
	})
}

// Patience with an engine that goes away.
const (
	tries = 5
	pause = 500 * time.Millisecond
)

// update is Update that tries again while the engine is away. What a restore
// writes can be written twice.
func (w *restore) update(ctx context.Context, fn func(storage.Txn) error) error {
	for try := 1; ; try++ {
		_, err := w.engine.Update(ctx, fn)
		if try == tries || !errors.Is(err, storage.ErrUnavailable) && !errors.Is(err, storage.ErrUncertain) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause * time.Duration(try)):
		}
	}
}

// Whole returns an error when a store was being restored and is not complete; a
// server must not start on it.
func Whole(ctx context.Context, e storage.Engine) error {
	err := e.View(ctx, func(r storage.Reader) error {
		_, err := seal.Load(r)
		return err
	})
	if errors.Is(err, seal.ErrRestoring) {
		return err
	}
	return nil
}

// TakeNotice calls record when the store was restored and no server has recorded
// that yet, and removes the notice once record returned nil.
func TakeNotice(ctx context.Context, e storage.Engine, record func(Notice) error) error {
	var row []byte
	err := e.View(ctx, func(r storage.Reader) (err error) {
		row, err = r.Get(NoticeRow)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var n Notice
	if err := json.Unmarshal(row, &n); err != nil {
		return fmt.Errorf("the row %s is malformed: %w", NoticeRow, err)
	}
	if err := record(n); err != nil {
		return err
	}
	_, err = e.Update(ctx, func(t storage.Txn) error { return t.Delete(NoticeRow) })
	return err
}
