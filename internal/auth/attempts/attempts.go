// Package attempts defends logins by name and password against guessing: they are
// tried one at a time for each user, failures are counted durably, and a user is
// locked for a while after too many. A name that nobody has is treated the same.
// How a password is proven is not its concern.
package attempts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Options are a mount's options, in the names of Vault's user_lockout_config.
type Options struct {
	Threshold    string `json:"lockout_threshold" doc:"Failures in a row that lock a user; 5 unless written, 0 never locks."`
	Duration     string `json:"lockout_duration" doc:"How long a user stays locked; 15m unless written."`
	CounterReset string `json:"lockout_counter_reset" doc:"How long after a failure it counts no more; 15m unless written."`
	Disable      string `json:"lockout_disable" doc:"true never locks anybody."`
}

// Guard counts the failures of one mount.
type Guard struct {
	storage     storage.Engine
	fingerprint func([]byte) string
	gate        *Gate
	mount       string
	lockout     lockout
}

// Mount is whose logins are defended: where it keeps rows, its keyed digest, and what
// no other has.
type Mount struct {
	Storage     storage.Engine
	Fingerprint func([]byte) string
	ID          string
}

// New returns the guard of a mount, or a fault of kind Invalid about its options.
func New(m Mount, o Options, g *Gate) (*Guard, error) {
	l, err := o.lockout()
	if err != nil {
		return nil, err
	}
	return &Guard{
		storage: m.Storage, fingerprint: m.Fingerprint, gate: g, mount: m.ID + "/", lockout: l,
	}, nil
}

// Known is whom a name stands for.
type Known struct {
	Name   string // one for all spellings of a name
	Exists bool   // false also where that cannot be known
}

// Try makes one attempt. look finds out whose it is; prove, which runs alone for each
// user, whether the password is theirs, and does the same work for a name that nobody
// has. A false proof is counted and answered with wrong; an error of look or prove is
// neither a success nor a failure. Somebody who is locked is refused with Denied.
func (g *Guard) Try(ctx context.Context, wrong error, look func(context.Context) (Known, error), prove func(context.Context) (bool, error)) error {
	leave, err := g.gate.admit()
	if err != nil {
		return err
	}
	defer leave()
	who, err := look(ctx)
	if err != nil {
		return err
	}
	done, err := g.gate.turn(ctx, g.mount+who.Name)
	if err != nil {
		return err
	}
	defer done()
	key := g.key(who)
	failed, err := storage.LoadFrom[failures](ctx, g.storage, key)
	if err != nil {
		return err
	}
	if failed != nil && g.lockout.locked(*failed, time.Now()) {
		return fault.New(fault.Denied, "permission denied")
	}
	ok, err := prove(ctx)
	if err != nil {
		return err
	}
	if !ok {
		// Giving up on the request does not spare its failure.
		if err := g.fail(context.WithoutCancel(ctx), key); err != nil {
			return err
		}
		return wrong
	}
	if failed != nil {
		return g.forget(ctx, key)
	}
	return nil
}

// Rows: the failures of users, and those of names that nobody has.
const (
	failedUsers  = "failed/user/"  // + name
	failedOthers = "failed/other/" // + bucket
)

// key is where the failures are counted. Those of names that nobody has are counted in
// buckets, few enough that guessing names cannot fill the store.
func (g *Guard) key(who Known) string {
	if who.Exists {
		return failedUsers + who.Name
	}
	sum := sha256.Sum256([]byte(g.fingerprint([]byte("unknown user " + who.Name))))
	return failedOthers + hex.EncodeToString(sum[:2])
}

// fail counts a failed login, durably, so that a restart unlocks nobody.
func (g *Guard) fail(ctx context.Context, key string) error {
	if g.lockout.disabled || g.lockout.threshold == 0 {
		return nil
	}
	_, err := g.storage.Update(ctx, func(t storage.Txn) error {
		f, err := storage.Load[failures](t, key)
		if err != nil {
			return err
		}
		if f == nil {
			f = new(failures)
		}
		return storage.Save(t, key, g.lockout.failed(*f, time.Now()))
	})
	return err
}

func (g *Guard) forget(ctx context.Context, keys ...string) error {
	_, err := g.storage.Update(ctx, func(t storage.Txn) error {
		for _, key := range keys {
			if err := t.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// Unlock forgets the failures of a name, whether it is somebody's or not.
func (g *Guard) Unlock(ctx context.Context, name string) error {
	return g.forget(ctx, g.key(Known{name, true}), g.key(Known{name, false}))
}

// Forget forgets a user's failures together with what else t changes.
func Forget(t storage.Txn, name string) error { return t.Delete(failedUsers + name) }

// Locked is about a user that is locked.
type Locked struct {
	Until wire.Time `json:"locked_until" doc:"When the user may log in again."`
}

// Locked lists the users that are locked now, or is route.Missing.
func (g *Guard) Locked(ctx context.Context) (route.KeysInfo[Locked], error) {
	out := route.KeysInfo[Locked]{Info: map[string]Locked{}}
	now := time.Now()
	err := g.storage.View(ctx, func(r storage.Reader) error {
		return storage.All(r, failedUsers, func(e storage.Entry) error {
			f, err := storage.Decode[failures](e.Key, e.Value, nil)
			if err != nil || !g.lockout.locked(*f, now) {
				return err
			}
			name := strings.TrimPrefix(e.Key, failedUsers)
			out.Keys = append(out.Keys, name)
			out.Info[name] = Locked{Until: wire.Time{Time: f.Locked}}
			return nil
		})
	})
	if err == nil && len(out.Keys) == 0 {
		err = route.Missing()
	}
	return out, err
}

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
func (o Options) lockout() (lockout, error) {
	l := lockout{threshold: 5, duration: 15 * time.Minute, reset: 15 * time.Minute}
	if o.Threshold != "" {
		n, err := strconv.Atoi(o.Threshold)
		if err != nil || n < 0 || n > 1000 {
			return l, fault.New(fault.Invalid, "lockout_threshold: it must be a number from 0 to 1000")
		}
		l.threshold = n
	}
	for _, d := range []struct {
		name, text string
		dst        *time.Duration
	}{{"lockout_duration", o.Duration, &l.duration}, {"lockout_counter_reset", o.CounterReset, &l.reset}} {
		if d.text == "" {
			continue
		}
		v, err := wire.ParseDuration(d.text)
		if err != nil || v < 0 {
			return l, fault.New(fault.Invalid, "%s: it must be a duration such as 15m", d.name)
		}
		*d.dst = v
	}
	if o.Disable != "" {
		off, err := strconv.ParseBool(o.Disable)
		if err != nil {
			return l, fault.New(fault.Invalid, "lockout_disable: it must be true or false")
		}
		l.disabled = off
	}
	return l, nil
}
