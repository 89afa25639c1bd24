package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// growth counts what this node has added to the history since it was pruned.
type growth struct{ bytes atomic.Int64 }

// grown asks for pruning when the history has grown by a part of its bound.
func (e *Engine) grown(bytes int) {
	if e.growth.bytes.Add(int64(bytes)) < e.o.HistorySize/8 {
		return
	}
	e.growth.bytes.Store(0)
	select {
	case e.prune <- struct{}{}:
	default:
	}
}

// keepPruning keeps the history within its bounds until the engine is closed.
// Every node does so; they do not get into each other's way.
func (e *Engine) keepPruning() {
	tick := time.NewTicker(min(max(e.o.History/10, time.Second), time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
		case <-e.prune:
		}
		if err := e.pruneHistory(); err != nil && e.stopped() == nil {
			e.log.Warn("old changes could not be deleted; it is tried again", "error", err)
		}
	}
}

// pruneHistory deletes what is too old or too much, some commits at a time.
func (e *Engine) pruneHistory() error {
	for {
		more, err := e.pruneSome()
		if err != nil || !more {
			return err
		}
	}
}

func (e *Engine) pruneSome() (more bool, err error) {
	ctx, cancel := context.WithTimeout(e.ctx, e.o.RequestTimeout)
	defer cancel()
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer e.release(conn)
	var to, step int64
	if err := conn.QueryRow(ctx, e.sql.pruneTo, e.o.HistorySize, int64(e.o.History/time.Second)).Scan(&to); err != nil || to < 0 {
		return false, err
	}
	if err := conn.QueryRow(ctx, e.sql.pruneStep, to).Scan(&step); err != nil || step < 0 {
		return false, err
	}
	var b pgx.Batch
	b.Queue(`BEGIN`)
	b.Queue(e.sql.pruneChanges, step)
	b.Queue(e.sql.pruneCommits, step)
	b.Queue(`COMMIT`)
	return step < to, conn.SendBatch(ctx, &b).Close()
}
