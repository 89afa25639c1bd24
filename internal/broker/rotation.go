package broker

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/namespace"
	"github.com/cofferhq/coffer/internal/storage"
)

// Rotations rotates the keys of all namespaces when they are due: a job of which the
// nodes of a store do each one once. A rotation is one commit, with the time of the
// next one.
type Rotations struct {
	Barrier *barrier.Barrier
	// Record puts a rotation into the audit log: the key's namespace, by its path, its
	// name, and the id of the pair that signs now. nil: it is in no log.
	Record func(ctx context.Context, namespace, key, id string) error
	Log    *slog.Logger

	queue *job.Queue
}

// Join has w rotate the keys. It is called before w runs, and before any key is
// written.
func (r *Rotations) Join(w *job.Workers) (err error) {
	r.queue, err = w.Add(job.Kind{
		Name: "signing-keys", Doc: "Rotates the keys of identity tokens, and drops those whose time is over.", Run: r.run,
	})
	return err
}

// jobID names the job of a key; names of keys hold no slash.
func jobID(namespaceID, key string) string { return namespaceID + "/" + key }

func (r *Rotations) schedule(whole storage.Txn, namespaceID string, k *Key) error {
	return r.queue.Schedule(whole, jobID(namespaceID, k.Name), k.event())
}

func (r *Rotations) cancel(whole storage.Txn, namespaceID, key string) error {
	return r.queue.Cancel(whole, jobID(namespaceID, key))
}

// run does what is due about one key.
func (r *Rotations) run(ctx context.Context, c *job.Claim, jobs []job.Job) error {
	j := jobs[0]
	id, name, _ := strings.Cut(j.ID, "/")
	var rotated *Key
	var space *namespace.Namespace
	err := new(forge).run(func(f *forge) error {
		_, err := c.Update(ctx, func(t *job.Txn) (err error) {
			f.taken, rotated = 0, nil
			if space, err = spaceOf(t, id); err != nil {
				return err
			}
			if space == nil {
				return t.Done(j) // it was deleted, with its keys
			}
			rows := storage.SubTxn(t, space.Prefix()+rows)
			k, err := storage.Load[Key](rows, keyRows+name)
			if err != nil {
				return err
			}
			if k == nil {
				return t.Done(j)
			}
			// This node's clock may be behind the one by which the job is due.
			now := time.Now().UTC()
			if j.Due.After(now) {
				now = j.Due
			}
			k.drop(now)
			if !now.Before(k.Due()) {
				if err := k.turn(now, k.kept(now), f); err != nil {
					return err
				}
				rotated = k
			}
			if err := storage.Save(rows, keyRows+name, k); err != nil {
				return err
			}
			return t.Again(j, k.event())
		})
		return err
	})
	if err == nil && rotated != nil {
		r.tell(ctx, space.Path, rotated)
	}
	return err
}

// spaceOf returns the namespace of an id, nil when it was deleted.
func spaceOf(r storage.Reader, id string) (*namespace.Namespace, error) {
	if id == "" {
		return namespace.Root, nil
	}
	n, err := storage.Load[namespace.Namespace](r, namespace.Rows+id)
	if err != nil || n == nil || n.Ending {
		return nil, err
	}
	return n, nil
}

// tell says that a key was rotated, which is done: that a log does not take it does
// not undo it.
func (r *Rotations) tell(ctx context.Context, path string, k *Key) {
	r.Log.Info("a key of identity tokens was rotated", "namespace", path, "key", k.Name, "kid", k.Signing.ID, "next", k.Due())
	if r.Record == nil {
		return
	}
	if err := r.Record(context.WithoutCancel(ctx), path, k.Name, k.Signing.ID); err != nil {
		r.Log.Error("the rotation of a key is not in the audit log", "namespace", path, "key", k.Name, "error", err)
	}
}
