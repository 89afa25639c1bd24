package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cofferhq/coffer/internal/storage"
)

// send writes w and commits, in one packet. begin begins a transaction first;
// otherwise there is one. The error is errMoved when the head is not at w.base,
// wraps errUnknown when it cannot be told whether the commit took effect, and
// otherwise says that nothing was written.
func (c *committer) send(ctx context.Context, w *work, begin bool) error {
	b := c.compose(w, begin)
	results := c.conn.SendBatch(ctx, b)
	var tag pgconn.CommandTag
	var err error
	for range b.Len() {
		if tag, err = results.Exec(); err != nil {
			break
		}
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	switch {
	case err == nil && tag.String() != "COMMIT":
		return fmt.Errorf("%w: %s", storage.ErrUnavailable, tag)
	case err == nil:
		return nil
	case hasState(err, stateNoNumber):
		return errMoved
	case classify(err) != lost || pgconn.SafeToRetry(err):
		return err
	}
	// A server that says no before it goes away has not committed, but it says
	// the same when it goes away after.
	return fmt.Errorf("%w: %w", errUnknown, err)
}

func (c *committer) compose(w *work, begin bool) *pgx.Batch {
	var revs []int64
	var keys, values [][]byte
	for _, a := range w.accepted {
		for _, ch := range a.changes {
			revs = append(revs, int64(a.rev))
			keys = append(keys, []byte(ch.Key))
			values = append(values, valueOf(ch))
		}
	}
	var putKeys, putValues, deleted [][]byte
	for _, ch := range w.over.Sorted() {
		if ch.Deleted {
			deleted = append(deleted, []byte(ch.Key))
		} else {
			putKeys, putValues = append(putKeys, []byte(ch.Key)), append(putValues, valueOf(ch))
		}
	}
	texts, b := c.e.sql, &pgx.Batch{}
	if begin {
		b.Queue(beginCommit)
	}
	b.Queue(texts.moveHead, int64(w.base.rev), []byte(w.base.batch), int64(w.end.rev), []byte(w.end.batch), int64(w.bytes))
	if len(putKeys) > 0 {
		b.Queue(texts.putRows, putKeys, putValues)
	}
	if len(deleted) > 0 {
		b.Queue(texts.deleteRows, deleted)
	}
	b.Queue(texts.putChanges, revs, keys, values)
	b.Queue(texts.putCommit, int64(w.base.rev)+1)
	if c.e.notifies {
		b.Queue(texts.notify, texts.channel)
	}
	b.Queue("COMMIT")
	return b
}

// valueOf returns the value as it is stored: null only where the key is deleted.
func valueOf(ch storage.Change) []byte {
	if ch.Deleted {
		return nil
	}
	if ch.Value == nil {
		return []byte{}
	}
	return ch.Value
}
