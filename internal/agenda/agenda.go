// Package agenda keeps what mounts have to do at a time, such as the rotation of
// an account's password, and has one node do it through the mount's engine. It is
// the jobs (package job) of all mounts; it does not know what engines do.
package agenda

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
)

// Timeout bounds one task.
const Timeout = time.Minute

// Target is the opened mount that has a task.
type Target struct {
	Spec  *engine.Spec
	State any
	// Prefix is what the mount's keys begin with.
	Prefix string
}

// Options are what a Book needs.
type Options struct {
	Engine storage.Engine // the whole of the barrier
	// Find returns an opened mount, by its namespace's id and its UUID; false when
	// it is not open on this node.
	Find func(namespace, uuid string) (Target, bool)
	// Gone reports whether a mount is there no more, on any node, so that its tasks
	// are forgotten.
	Gone func(r storage.Reader, namespace, uuid string) (bool, error)
}

// Book is the agendas of all mounts.
type Book struct {
	Options
	queue *job.Queue
}

// Open returns the book, and has the workers do what is due.
func Open(o Options, workers *job.Workers) (b *Book, err error) {
	b = &Book{Options: o}
	b.queue, err = workers.Add(job.Kind{
		Name: "mounts", Doc: "Does what mounts have to do at a time.", Run: b.run, Timeout: Timeout,
	})
	return b, err
}

// Agenda is one mount's. It implements engine.Agenda.
type Agenda struct {
	Book   *Book
	Mount  engine.Mount
	Prefix string // what the mount's keys begin with
}

// Update implements engine.Agenda.
func (a Agenda) Update(ctx context.Context, fn func(engine.Txn) error) (storage.Revision, error) {
	return a.Book.Engine.Update(ctx, func(t storage.Txn) error {
		return fn(a.Book.txn(t, a.Mount.Namespace, a.Mount.UUID, a.Prefix))
	})
}

// txn is a transaction of one mount.
type txn struct {
	storage.Txn             // the mount's storage
	whole       storage.Txn // the barrier's
	queue       *job.Queue
	id          string // of the mount's tasks, but for their names
}

func (b *Book) txn(t storage.Txn, namespace, uuid, prefix string) txn {
	return txn{storage.SubTxn(t, prefix), t, b.queue, namespace + ":" + uuid + "/"}
}

// Schedule implements engine.Txn.
func (t txn) Schedule(name string, at time.Time) error {
	if err := checkName(name); err != nil {
		return err
	}
	return t.queue.Schedule(t.whole, t.id+name, at)
}

// Cancel implements engine.Txn.
func (t txn) Cancel(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return t.queue.Cancel(t.whole, t.id+name)
}

func checkName(name string) error {
	if name == "" || len(name) > engine.MaxTaskName {
		return fault.New(fault.Invalid, "the name of a task has 1 to %d bytes", engine.MaxTaskName)
	}
	return nil
}

// taskTxn is a transaction that can finish a task.
type taskTxn struct {
	txn
	claim *job.Txn
	job   job.Job
}

// Done implements engine.TaskTxn.
func (t taskTxn) Done() error { return t.claim.Done(t.job) }

// Again implements engine.TaskTxn.
func (t taskTxn) Again(at time.Time) error { return t.claim.Again(t.job, at) }

// errNotOpen is why a task waits.
var errNotOpen = errors.New("the mount is not open on this node; see the server's log")

// run does one task that is due.
func (b *Book) run(ctx context.Context, c *job.Claim, jobs []job.Job) error {
	j := jobs[0]
	namespace, rest, _ := strings.Cut(j.ID, ":")
	uuid, name, _ := strings.Cut(rest, "/")
	m, there := b.Find(namespace, uuid)
	if !there {
		return b.forget(ctx, c, j, namespace, uuid)
	}
	return m.Spec.Due(ctx, m.State, engine.Task{
		Name: name, Due: j.Due, Tries: j.Tries,
		Update: func(ctx context.Context, fn func(engine.TaskTxn) error) error {
			_, err := c.Update(ctx, func(t *job.Txn) error {
				return fn(taskTxn{b.txn(t, namespace, uuid, m.Prefix), t, j})
			})
			return err
		},
	})
}

// forget forgets a task whose mount is gone.
func (b *Book) forget(ctx context.Context, c *job.Claim, j job.Job, namespace, uuid string) error {
	_, err := c.Update(ctx, func(t *job.Txn) error {
		gone, err := b.Gone(t, namespace, uuid)
		if err != nil {
			return err
		}
		if !gone {
			return errNotOpen
		}
		return t.Done(j)
	})
	return err
}
