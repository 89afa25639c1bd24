package broker

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Role says how tokens are signed that are asked of it.
type Role struct {
	Name     string        `json:"name"`
	Key      string        `json:"key"`
	Template string        `json:"template,omitempty"` // of further claims: see ParseTemplate
	TTL      time.Duration `json:"ttl"`
	ClientID string        `json:"client_id"` // the audience, unless others are asked for
	// Audiences are those that may be asked for besides.
	Audiences []string `json:"audiences,omitempty"`
	// Bound ends a token with that of the caller at the latest.
	Bound bool `json:"bound,omitempty"`
}

// RoleChange says what to change of a role; nil leaves a field as it is.
type RoleChange struct {
	Key       *string
	Template  *string
	TTL       *time.Duration
	ClientID  *string
	Audiences *[]string
	Bound     *bool
}

func (c RoleChange) apply(r *Role) error {
	set(&r.Key, c.Key)
	set(&r.Template, c.Template)
	set(&r.TTL, c.TTL)
	set(&r.ClientID, c.ClientID)
	set(&r.Bound, c.Bound)
	if c.Audiences != nil {
		r.Audiences = slices.Clone(*c.Audiences)
	}
	if r.ClientID == "" {
		r.ClientID = rand.Text()
	}
	if text, err := base64.StdEncoding.DecodeString(r.Template); err == nil {
		r.Template = string(text)
	}
	switch {
	case r.Key == "":
		return invalid("the key parameter is required")
	case checkName("key", r.Key) != nil:
		return invalid("cannot find key %q", clip(r.Key))
	case r.TTL < MinLife:
		return invalid("ttl must be at least a second")
	}
	if _, err := ParseTemplate(r.Template); err != nil {
		return err
	}
	if err := checkClients("client_id", []string{r.ClientID}); err != nil {
		return err
	}
	return checkClients("allowed_audiences", r.Audiences)
}

// errNoDefault says that the default key has to be made first.
var errNoDefault = errors.New("the default key is not there yet")

// WriteRole makes or changes a role.
func (s *Store) WriteRole(ctx context.Context, name string, c RoleChange) error {
	if err := checkName("role", name); err != nil {
		return err
	}
	write := func(t storage.Txn) error { return writeRole(t, name, c) }
	err := s.update(ctx, write)
	if !errors.Is(err, errNoDefault) {
		return err
	}
	err = s.turnKey(ctx, DefaultKey, func(t storage.Txn, k *Key, now time.Time, f *forge) (*Key, error) {
		if k != nil {
			return k, nil
		}
		return s.makeKey(t, DefaultKey, KeyChange{Clients: &[]string{"*"}}, now, f)
	})
	if err != nil {
		return err
	}
	return s.update(ctx, write)
}

func writeRole(t storage.Txn, name string, c RoleChange) error {
	r, err := storage.Load[Role](t, roleRows+name)
	if err != nil {
		return err
	}
	if r == nil {
		all, err := t.List(roleRows, "", MaxRoles)
		if err != nil {
			return err
		}
		if len(all) >= MaxRoles {
			return invalid("there are %d roles, which is the limit", len(all))
		}
		r = &Role{Name: name, TTL: Life}
	} else if err := t.Delete(useRows + r.Key + "/" + name); err != nil {
		return err
	}
	if err := c.apply(r); err != nil {
		return err
	}
	k, err := storage.Load[Key](t, keyRows+r.Key)
	switch {
	case err != nil:
		return err
	case k == nil && r.Key == DefaultKey:
		return errNoDefault
	case k == nil:
		return invalid("cannot find key %q", r.Key)
	case r.TTL > k.Verification:
		return invalid("a role's token ttl cannot be longer than the verification_ttl of the key it references")
	}
	if err := storage.Save(t, useRows+r.Key+"/"+name, r.TTL); err != nil {
		return err
	}
	return storage.Save(t, roleRows+name, r)
}

// Role returns a role, or a NotFound without words.
func (s *Store) Role(ctx context.Context, name string) (*Role, error) {
	if checkName("role", name) != nil {
		return nil, missing()
	}
	r, err := storage.LoadFrom[Role](ctx, s.storage, roleRows+name)
	if err == nil && r == nil {
		err = missing()
	}
	return r, err
}

// Roles lists the names of roles that sort after one, at most limit; 0 is all of them.
func (s *Store) Roles(ctx context.Context, after string, limit int) ([]string, error) {
	return s.list(ctx, roleRows, MaxRoles, after, limit)
}

// DeleteRole removes a role. Tokens that were asked of it hold on. One that is not
// there is no error.
func (s *Store) DeleteRole(ctx context.Context, name string) error {
	if checkName("role", name) != nil {
		return nil
	}
	return s.update(ctx, func(t storage.Txn) error {
		r, err := storage.Load[Role](t, roleRows+name)
		if err != nil || r == nil {
			return err
		}
		if err := t.Delete(useRows + r.Key + "/" + name); err != nil {
			return err
		}
		return t.Delete(roleRows + name)
	})
}
