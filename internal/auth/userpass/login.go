package userpass

import (
	"context"
	"slices"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/attempts"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Login asks to log in.
type Login struct {
	Username string      `path:"username" doc:"The user's name, in any case."`
	Password wire.Secret `json:"password" doc:"The user's password."`
}

func errLogin() error { return fault.New(fault.Invalid, "invalid username or password") }

func (u *Users) login(ctx context.Context, by route.Caller, in Login) (auth.Login, error) {
	if in.Password == "" {
		return auth.Login{}, fault.New(fault.Invalid, "missing password")
	}
	name, err := auth.NameOf("user", in.Username)
	if err != nil {
		name = "" // which no user has
	}
	found, err := u.prove(ctx, name, in.Password.Reveal())
	if err != nil {
		return auth.Login{}, err
	}
	accepted, err := wire.Accepts(found.BoundCIDRs, by.Remote)
	if err != nil {
		return auth.Login{}, err
	}
	if !accepted {
		return auth.Login{}, fault.New(fault.Denied, "permission denied")
	}
	return auth.Login{
		Alias: name, DisplayName: u.method + "-" + name, Policies: found.PolicyNames,
		Metadata: map[string]string{"username": name}, TokenParams: found.TokenParams,
	}, nil
}

// prove returns the user of that name if the password is theirs. It does the
// same for a name that nobody has: one hash, and one write when it failed.
func (u *Users) prove(ctx context.Context, name, password string) (found *user, err error) {
	look := func(ctx context.Context) (attempts.Known, error) {
		found, err := storage.LoadFrom[user](ctx, u.storage, userKey(name))
		return attempts.Known{Name: name, Exists: found != nil}, err
	}
	hash := u.nobody
	err = u.guard.Try(ctx, errLogin(), look, func(ctx context.Context) (ok bool, err error) {
		// Read in turn: the password may have been changed while others tried.
		if found, err = storage.LoadFrom[user](ctx, u.storage, userKey(name)); err != nil {
			return false, err
		}
		if found != nil {
			hash = found.Password
		}
		err = u.gate.work(ctx, func() { ok = u.cost.matches(hash, password) })
		return ok && found != nil, err
	})
	if err != nil {
		return nil, err
	}
	if !u.cost.current(hash) {
		return found, u.rehash(ctx, name, hash, password)
	}
	return found, nil
}

// rehash brings the hash of a password that was just proven to today's cost,
// unless it was changed meanwhile.
func (u *Users) rehash(ctx context.Context, name, old, password string) error {
	var hash string
	if err := u.gate.work(ctx, func() { hash = u.cost.hash(password) }); err != nil {
		return err
	}
	_, err := u.storage.Update(ctx, func(t storage.Txn) error {
		now, err := get(t, name)
		if err != nil || now == nil || now.Password != old {
			return err
		}
		now.Password = hash
		return put(t, name, now)
	})
	return err
}

// Renew implements auth.Renewer: a deleted user's token is not renewed, nor one
// whose user has other policies now.
func (u *Users) Renew(ctx context.Context, _ route.Caller, granted auth.Login) (auth.Login, error) {
	var found *user
	err := u.storage.View(ctx, func(r storage.Reader) (err error) {
		found, err = get(r, granted.Alias)
		return err
	})
	switch {
	case err != nil:
		return granted, err
	case found == nil:
		return granted, fault.New(fault.Denied, "the user was deleted, not renewing")
	case !slices.Equal(found.PolicyNames, auth.Policies(granted.Policies)):
		return granted, fault.New(fault.Denied, "policies have changed, not renewing")
	}
	granted.TTL, granted.MaxTTL, granted.Period = found.TTL, found.MaxTTL, found.Period
	return granted, nil
}
