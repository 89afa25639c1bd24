package engine

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Agenda is what a mount has to do at a time. It is done by one node, through the
// Due of the mount's kind.
type Agenda interface {
	// Update is Storage's Update, in which tasks can be scheduled and cancelled:
	// both are one commit.
	Update(ctx context.Context, fn func(Txn) error) (storage.Revision, error)
}

// Txn is a transaction on a mount's storage and its agenda.
type Txn interface {
	storage.Txn
	// Schedule makes a task due at a time, and takes the place of an earlier time
	// of it. A name has 1 to MaxTaskName bytes. It counts for four keys of what
	// one Update may write.
	Schedule(name string, at time.Time) error
	// Cancel forgets a task; one that is not there is no error.
	Cancel(name string) error
}

// MaxTaskName is the longest name of a task, in bytes.
const MaxTaskName = 768

// Task is a task that is due. Should the node die, another is given it: what was
// done outside of Update must be such that it can be done again. A Due that
// returns an error, or does not finish its task, is called again after a while,
// longer each time, up to five minutes.
type Task struct {
	Name  string
	Due   time.Time // when it was to be done
	Tries int       // how often it failed
	// Update commits only while this node is the one that does the task; else it
	// fails and nothing was written.
	Update func(ctx context.Context, fn func(TaskTxn) error) error
}

// TaskTxn is a transaction that can finish the task.
type TaskTxn interface {
	Txn
	// Done forgets the task, and Again makes it due later. They fail when the task
	// was scheduled anew or cancelled meanwhile.
	Done() error
	Again(at time.Time) error
}
