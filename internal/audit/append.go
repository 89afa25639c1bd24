package audit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// batch is what is written together: the entries that came while the batch
// before was being synced.
type batch struct {
	bodies  []byte // the lines without their numbers, one after the other
	records []record

	written  chan struct{} // closed when the lines are in the file; made when somebody waits for it
	durable  chan struct{} // closed when they are on disk, or never will be
	wantDisk bool          // somebody waits for durable
	syncErr  error         // read after durable
}

// record is one entry of a batch.
type record struct {
	end   int    // of its body in bodies
	class class  // what it may use when space is short
	seq   uint64 // read after written or durable
	err   error  // same
}

// class orders entries by how long they are still written while the disk
// fills up.
type class uint8

const (
	plain    class = iota
	owed           // may use the reserve: a denial, or what was done already
	lifetime       // may use all of it
)

func classOf(e *Entry) class {
	switch {
	case e.Type == Event:
		return lifetime
	case e.Decision != nil && !e.Decision.Allowed:
		return owed
	}
	return plain
}

var bodyPool = sync.Pool{New: func() any { return new([]byte) }}

// Append writes the entry and returns when it is on disk. It sets Seq, and
// Time when that is zero. Entries appended at the same time share one write
// and one sync; a lone one waits for nobody.
//
// An error means that the caller must not answer as if the entry existed,
// although it may yet appear in the log. Where the log cannot be written it is
// a fault of kind Unavailable.
func (l *Log) Append(ctx context.Context, e *Entry) error {
	return l.append(ctx, e, classOf(e), true)
}

// AppendDone is Append of what was done already, after its intent was written:
// while the disk is full it may use the reserve.
func (l *Log) AppendDone(ctx context.Context, e *Entry) error {
	return l.append(ctx, e, max(owed, classOf(e)), true)
}

// AppendRelaxed returns when the entry is written but not yet synced: it
// survives the process and not a power cut, until the next sync at most
// Options.CheckpointEvery later.
func (l *Log) AppendRelaxed(ctx context.Context, e *Entry) error {
	return l.append(ctx, e, classOf(e), false)
}

func (l *Log) append(ctx context.Context, e *Entry, c class, durable bool) error {
	if err := ctx.Err(); err != nil {
		return fault.From(err)
	}
	if e.Type != Intent && e.Type != Outcome && e.Type != Event {
		return fault.New(fault.Internal, "an audit entry has no type")
	}
	start := time.Now()
	if e.Time.IsZero() {
		e.Time = start.UTC()
	}
	body := bodyPool.Get().(*[]byte)
	*body = appendBody((*body)[:0], e)
	if len(*body) > maxLine-64 {
		return fault.New(fault.TooLarge, "the request has too much in its path and parameter names to be recorded")
	}
	b, index := l.join(*body, c, durable)
	bodyPool.Put(body)
	if b == nil {
		return l.unavailable(ErrClosed)
	}
	done := b.written
	if durable {
		done = b.durable
	}
	select {
	case <-done:
	case <-ctx.Done():
		return fault.From(ctx.Err())
	}
	r := &b.records[index]
	e.Seq = r.seq
	err := r.err
	if err == nil && durable {
		err = b.syncErr
	}
	l.stats.appended(time.Since(start), err)
	if err != nil {
		return l.unavailable(err)
	}
	l.devices.offer(e)
	return nil
}

// join adds a body to the batch that the writer takes next, and returns nil
// when the log is closed.
func (l *Log) join(body []byte, c class, durable bool) (*batch, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0
	}
	b := l.pending
	if b == nil {
		b = &batch{durable: make(chan struct{})}
		l.pending = b
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	if durable {
		b.wantDisk = true
	} else if b.written == nil {
		b.written = make(chan struct{})
	}
	b.bodies = append(b.bodies, body...)
	b.records = append(b.records, record{end: len(b.bodies), class: c})
	return b, len(b.records) - 1
}

// unavailable is what a caller of Append gets for err.
func (l *Log) unavailable(err error) error {
	reason := err.Error()
	switch {
	case errors.Is(err, ErrClosed):
		reason = "it is closed"
	case noSpace(err):
		reason = "the disk is full"
	}
	if noSpace(err) {
		return fault.Wrap(fault.Unavailable, err, "audit log cannot be written: %s, free space in %s", reason, l.dir)
	}
	return fault.Wrap(fault.Unavailable, err, "audit log cannot be written: %s", reason)
}
