package userpass

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// lockout says when a user is locked.
type lockout struct {
	threshold       int
	duration, reset time.Duration
	disabled        bool
}

// failures is a row: the failed logins of one name in a row.
type failures struct {
	Count  int       `json:"count"`
	Last   time.Time `json:"last"`
	Locked time.Time `json:"locked,omitzero"` // until then
}

const (
	failedUsers  = "failed/user/"  // + name
	failedOthers = "failed/other/" // + bucket
)

// failedKey is where the failures of a name are counted.
func (u *Users) failedKey(name string, exists bool) string {
	if exists {
		return failedUsers + name
	}
	return failedOthers + u.bucket(name)
}

func getFailures(r storage.Reader, key string) (f failures, err error) {
	row, err := r.Get(key)
	if errors.Is(err, storage.ErrNotFound) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(row, &f); err != nil {
		return f, fmt.Errorf("the row %s of failed logins cannot be read: %w", key, err)
	}
	return f, nil
}

// locked reports whether the name is locked now.
func (l lockout) locked(f failures, now time.Time) bool { return !l.disabled && now.Before(f.Locked) }

// failed adds a failure to those there are.
func (l lockout) failed(f failures, now time.Time) failures {
	if now.Sub(f.Last) >= l.reset {
		f.Count = 0
	}
	f.Count++
	f.Last, f.Locked = now, time.Time{}
	if f.Count >= l.threshold {
		f.Count, f.Locked = 0, now.Add(l.duration)
	}
	return f
}

// fail counts a failed login, durably, so that a restart unlocks nobody.
func (u *Users) fail(ctx context.Context, key string) error {
	if u.lockout.disabled || u.lockout.threshold == 0 {
		return nil
	}
	_, err := u.storage.Update(ctx, func(t storage.Txn) error {
		f, err := getFailures(t, key)
		if err != nil {
			return err
		}
		row, err := json.Marshal(u.lockout.failed(f, time.Now()))
		if err != nil {
			return err
		}
		return t.Put(key, row)
	})
	return err
}

// forgive forgets the failures of a name.
func (u *Users) forgive(ctx context.Context, key string) error {
	_, err := u.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(key) })
	return err
}

func errLocked() error { return fault.New(fault.Denied, "permission denied") }
