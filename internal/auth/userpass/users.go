package userpass

import (
	"context"
	"math"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/attempts"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

var routes = []route.Route[*Users]{
	route.New("POST", "login/{username}", "Log in.", (*Users).login, route.Public(),
		route.Shows("login/bob", `{"password":"correct horse battery staple"}`, "")),
	route.New("LIST", "users", "List the users.", (*Users).list,
		route.Shows("users", "", `{"keys":["bob"]}`)),
	route.New("GET", "users/{username}", "Read a user.", (*Users).read,
		route.Shows("users/bob", "", "")),
	route.New("POST", "users/{username}", "Create a user, or change one; what is left out stays as it is.", (*Users).write, route.ExistsBy((*Users).exists),
		route.Shows("users/bob", `{"password":"correct horse battery staple","token_policies":"web"}`, "")),
	route.New("DELETE", "users/{username}", "Delete a user. The user's tokens live on until they end, and cannot be renewed.", (*Users).remove,
		route.Shows("users/bob", "", "")),
	route.New("POST", "users/{username}/password", "Change a user's password.", (*Users).setPassword,
		route.Shows("users/bob/password", `{"password":"another horse battery staple"}`, "")),
	route.New("POST", "users/{username}/policies", "Change a user's policies.", (*Users).setPolicies,
		route.Shows("users/bob/policies", `{"token_policies":"web,db"}`, "")),
	route.New("POST", "users/{username}/unlock", "Let a user log in again who was locked after failures.", (*Users).unlock,
		route.Shows("users/bob/unlock", "", "")),
	route.New("LIST", "locked-users", "List the users that are locked now.", (*Users).locked,
		route.Shows("locked-users", "", "")),
}

// Name names a user.
type Name struct {
	Username string `path:"username" doc:"The user's name, in any case."`
}

// NewPassword is a new password.
type NewPassword struct {
	Password wire.Secret `json:"password" doc:"The password."`
	Hash     wire.Secret `json:"password_hash" doc:"A bcrypt hash in the password's place, to bring users from elsewhere; replaced when the user first logs in."`
}

// Write is what changes in a user.
type Write struct {
	Name
	NewPassword
	auth.TokenFields
	OldPolicies   *wire.Strings `json:"policies" doc:"An older name of token_policies."`
	OldTTL        *wire.Seconds `json:"ttl" doc:"An older name of token_ttl."`
	OldMaxTTL     *wire.Seconds `json:"max_ttl" doc:"An older name of token_max_ttl."`
	OldBoundCIDRs *wire.Strings `json:"bound_cidrs" doc:"An older name of token_bound_cidrs."`
}

// Read is a user without the password. The older names are answered where they
// were written.
type Read struct {
	auth.TokenParams
	OldPolicies   wire.Strings `json:"policies,omitempty"`
	OldTTL        wire.Seconds `json:"ttl,omitzero"`
	OldMaxTTL     wire.Seconds `json:"max_ttl,omitzero"`
	OldBoundCIDRs wire.Strings `json:"bound_cidrs,omitempty"`
}

func (u *Users) list(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	limit := math.MaxInt32
	if in.Limit > 0 && in.Limit < math.MaxInt32 {
		limit = int(in.Limit)
	}
	var keys []string
	err := u.storage.View(ctx, func(r storage.Reader) (err error) {
		keys, err = r.List(userKey(""), in.After, limit)
		return err
	})
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: keys}.Found()
}

func (u *Users) read(ctx context.Context, _ route.Caller, in Name) (Read, error) {
	found, err := u.find(ctx, in.Username)
	if err != nil {
		return Read{}, err
	}
	if found == nil {
		return Read{}, route.Missing()
	}
	return Read{found.TokenParams, found.OldPolicies, found.OldTTL, found.OldMaxTTL, found.OldBoundCIDRs}, nil
}

// find returns a user, nil when there is none.
func (u *Users) find(ctx context.Context, username string) (found *user, err error) {
	name, err := auth.NameOf("user", username)
	if err != nil {
		return nil, err
	}
	err = u.storage.View(ctx, func(r storage.Reader) error {
		found, err = get(r, name)
		return err
	})
	return found, err
}

func (u *Users) exists(ctx context.Context, in Write) (bool, error) {
	found, err := u.find(ctx, in.Username)
	return found != nil, err
}

func (u *Users) write(ctx context.Context, _ route.Caller, in Write) (route.Empty, error) {
	return route.Empty{}, u.change(ctx, in.Username, in.NewPassword, func(now *user, exists bool) error {
		if !exists && in.none() {
			return fault.New(fault.Invalid, "missing password")
		}
		return in.apply(now)
	})
}

// apply changes what the request names. A name with token_ wins over its older
// form and clears it.
func (in Write) apply(now *user) error {
	auth.Renamed(&in.TokenFields.PolicyNames, in.OldPolicies, &now.OldPolicies)
	auth.Renamed(&in.TokenFields.TTL, in.OldTTL, &now.OldTTL)
	auth.Renamed(&in.TokenFields.MaxTTL, in.OldMaxTTL, &now.OldMaxTTL)
	auth.Renamed(&in.TokenFields.BoundCIDRs, in.OldBoundCIDRs, &now.OldBoundCIDRs)
	if err := in.TokenFields.Apply(&now.TokenParams); err != nil {
		return err
	}
	if now.OldPolicies != nil {
		now.OldPolicies = now.PolicyNames
	}
	return nil
}

func (p NewPassword) none() bool { return p.Password == "" && p.Hash == "" }

// hash returns the hash of a new password, "" when there is none.
func (u *Users) hash(ctx context.Context, p NewPassword) (hash string, err error) {
	switch {
	case p.Password != "" && p.Hash != "":
		return "", fault.New(fault.Invalid, "%q and %q are mutually exclusive", "password", "password_hash")
	case p.Hash != "":
		return p.Hash.Reveal(), checkHash(p.Hash.Reveal())
	case len(p.Password) > maxPassword:
		return "", fault.New(fault.Invalid, "a password has at most %d bytes", maxPassword)
	case p.Password != "":
		err = u.gate.work(ctx, func() { hash = u.cost.hash(p.Password.Reveal()) })
	}
	return hash, err
}

// change writes what fn makes of a user, with a new password if there is one.
func (u *Users) change(ctx context.Context, username string, p NewPassword, fn func(now *user, exists bool) error) error {
	name, err := auth.NameOf("user", username)
	if err != nil {
		return err
	}
	hash, err := u.hash(ctx, p)
	if err != nil {
		return err
	}
	_, err = u.storage.Update(ctx, func(t storage.Txn) error {
		now, err := get(t, name)
		if err != nil {
			return err
		}
		exists := now != nil
		if !exists {
			now = new(user)
		}
		if err := fn(now, exists); err != nil {
			return err
		}
		if hash != "" {
			now.Password = hash
		}
		return put(t, name, now)
	})
	return err
}

func (u *Users) remove(ctx context.Context, _ route.Caller, in Name) (route.Empty, error) {
	name, err := auth.NameOf("user", in.Username)
	if err != nil {
		return route.Empty{}, err
	}
	_, err = u.storage.Update(ctx, func(t storage.Txn) error {
		if err := attempts.Forget(t, name); err != nil {
			return err
		}
		return t.Delete(userKey(name))
	})
	return route.Empty{}, err
}

// SetPassword is a user's new password.
type SetPassword struct {
	Name
	NewPassword
}

func (u *Users) setPassword(ctx context.Context, _ route.Caller, in SetPassword) (route.Empty, error) {
	if in.none() {
		return route.Empty{}, fault.New(fault.Invalid, "missing password")
	}
	return route.Empty{}, u.change(ctx, in.Username, in.NewPassword, existing)
}

func existing(_ *user, exists bool) error {
	if !exists {
		return fault.New(fault.Invalid, "username does not exist")
	}
	return nil
}

// SetPolicies are a user's new policies.
type SetPolicies struct {
	Name
	Policies *wire.Strings `json:"token_policies" doc:"The policies of the user's tokens."`
	Old      *wire.Strings `json:"policies" doc:"An older name of token_policies."`
}

func (u *Users) setPolicies(ctx context.Context, _ route.Caller, in SetPolicies) (route.Empty, error) {
	return route.Empty{}, u.change(ctx, in.Username, NewPassword{}, func(now *user, exists bool) error {
		if err := existing(now, exists); err != nil {
			return err
		}
		return Write{TokenFields: auth.TokenFields{PolicyNames: in.Policies}, OldPolicies: in.Old}.apply(now)
	})
}

func (u *Users) unlock(ctx context.Context, _ route.Caller, in Name) (route.Empty, error) {
	name, err := auth.NameOf("user", in.Username)
	if err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, u.guard.Unlock(ctx, name)
}

func (u *Users) locked(ctx context.Context, _ route.Caller, _ route.Nothing) (route.KeysInfo[attempts.Locked], error) {
	return u.guard.Locked(ctx)
}
