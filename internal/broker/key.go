package broker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/storage"
)

// DefaultKey is a key that is there as soon as a role names it, and that cannot be
// deleted.
const DefaultKey = "default"

// Life is how often a key rotates, how long it verifies after that, and how long tokens
// hold, where it is not said.
const Life = 24 * time.Hour

// KeyChange says what to change of a key; nil leaves a field as it is.
type KeyChange struct {
	Algorithm    *string
	Rotation     *time.Duration
	Verification *time.Duration
	Clients      *[]string
}

// newKey returns a key without pairs.
func newKey(name string) *Key {
	return &Key{Name: name, Algorithm: jose.RS256, Rotation: Life, Verification: Life}
}

func (c KeyChange) apply(k *Key) error {
	if c.Algorithm != nil {
		k.Algorithm = jose.SignatureAlgorithm(*c.Algorithm)
	}
	set(&k.Rotation, c.Rotation)
	set(&k.Verification, c.Verification)
	if c.Clients != nil {
		k.Clients = slices.Clone(*c.Clients)
	}
	switch {
	case !slices.Contains(Algorithms, k.Algorithm):
		return invalid("unknown signing algorithm %q; there are %s", clip(string(k.Algorithm)), algorithmNames())
	case k.Rotation < MinRotation:
		return invalid("rotation_period must be at least one minute")
	case k.Verification < MinLife:
		return invalid("verification_ttl must be at least a second")
	case k.Verification > RatioOfLives*k.Rotation:
		return invalid("verification_ttl cannot be longer than 10x rotation_period")
	}
	return checkClients("allowed_client_ids", k.Clients)
}

func set[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

func algorithmNames() string {
	var all []string
	for _, a := range Algorithms {
		all = append(all, string(a))
	}
	return strings.Join(all, ", ")
}

// clip shortens what a client sent, for a message.
func clip(text string) string {
	if len(text) > 32 {
		text = text[:32] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// WriteKey makes or changes a key. later says that its pair of another algorithm is
// published now and signs from that time on; it is zero where nothing waits.
func (s *Store) WriteKey(ctx context.Context, name string, c KeyChange) (later time.Time, err error) {
	if err := checkName("key", name); err != nil {
		return later, err
	}
	err = s.turnKey(ctx, name, func(t storage.Txn, k *Key, now time.Time, f *forge) (*Key, error) {
		later = time.Time{}
		if k == nil {
			return s.makeKey(t, name, c, now, f)
		}
		was := *k
		if err := c.apply(k); err != nil {
			return nil, err
		}
		if err := checkUses(t, k); err != nil {
			return nil, err
		}
		if k.Rotation < was.Rotation {
			k.Rotates = earlier(k.Rotates, now.Add(k.Rotation))
		}
		if k.lead() < was.lead() {
			k.Hold = now.Add(was.lead() + slack) // documents are about that may be kept as long
		}
		if k.Verification < was.Verification {
			if promised := now.Add(was.Verification); promised.After(k.Signing.Until) {
				k.Signing.Until = promised // tokens are about that hold as long
			}
		}
		if k.Algorithm != was.Algorithm {
			if err := k.announce(now, f); err != nil {
				return nil, err
			}
			k.Rotates = earlier(k.Rotates, k.Next.From)
			later = k.Due()
		}
		return k, nil
	})
	return later, err
}

// makeKey returns a new key, where there may be one more.
func (s *Store) makeKey(t storage.Txn, name string, c KeyChange, now time.Time, f *forge) (*Key, error) {
	all, err := t.List(keyRows, "", MaxKeys)
	if err != nil {
		return nil, err
	}
	if len(all) >= MaxKeys {
		return nil, invalid("there are %d keys, which is the limit", len(all))
	}
	k := newKey(name)
	if err := c.apply(k); err != nil {
		return nil, err
	}
	return k, k.begin(now, f)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// checkUses refuses a verification that ends before tokens of the key's roles do.
func checkUses(r storage.Reader, k *Key) error {
	prefix := useRows + k.Name + "/"
	return storage.All(r, prefix, func(e storage.Entry) error {
		ttl, err := storage.Decode[time.Duration](e.Key, e.Value, nil)
		if err == nil && *ttl > k.Verification {
			err = invalid("unable to update key %q because it is currently referenced by one or more roles with a token ttl greater than %d seconds", k.Name, k.Verification/time.Second)
		}
		return err
	})
}

// turnKey changes the key of a name through fn, which gets nil where there is none,
// and has it rotated when it is due.
func (s *Store) turnKey(ctx context.Context, name string, fn func(t storage.Txn, k *Key, now time.Time, f *forge) (*Key, error)) error {
	defer s.changes.Add(1)
	return new(forge).run(func(f *forge) error {
		_, err := s.Barrier.Update(ctx, func(whole storage.Txn) error {
			f.taken = 0
			t := storage.SubTxn(whole, s.Prefix+rows)
			k, err := storage.Load[Key](t, keyRows+name)
			if err != nil {
				return err
			}
			if k, err = fn(t, k, time.Now().UTC(), f); err != nil {
				return err
			}
			if err := storage.Save(t, keyRows+name, k); err != nil {
				return err
			}
			return s.Rotations.schedule(whole, s.Namespace, k)
		})
		return err
	})
}

// Rotate makes the next pair of a key sign now. verification is how long the pair that
// signed is published yet; nil is as long as its tokens can hold. soon says that the
// pair that signs now was published so lately that verifiers may not have it.
func (s *Store) Rotate(ctx context.Context, name string, verification *time.Duration) (soon bool, err error) {
	if verification != nil && *verification < 0 {
		return false, invalid("verification_ttl must not be negative")
	}
	none := invalid("no named key found at %q", clip(name))
	if checkName("key", name) != nil {
		return false, none
	}
	err = s.turnKey(ctx, name, func(_ storage.Txn, k *Key, now time.Time, f *forge) (*Key, error) {
		if k == nil {
			return nil, none
		}
		k.drop(now)
		until := k.kept(now)
		if verification != nil {
			if *verification > RatioOfLives*k.Rotation {
				return nil, invalid("verification_ttl cannot be longer than 10x rotation_period")
			}
			until = now.Add(*verification)
		}
		if len(k.Old) >= MaxOld && until.After(now) {
			return nil, invalid("%d pairs of the key verify still, which is the limit; rotate it later, or with verification_ttl=0s, which ends the tokens of the present one", len(k.Old))
		}
		soon = now.Before(k.Next.From)
		return k, k.turn(now, until, f)
	})
	return soon, err
}

// Key returns a key, or a NotFound without words.
func (s *Store) Key(ctx context.Context, name string) (*Key, error) {
	if checkName("key", name) != nil {
		return nil, missing()
	}
	k, err := storage.LoadFrom[Key](ctx, s.storage, keyRows+name)
	if err == nil && k == nil {
		err = missing()
	}
	return k, err
}

// Keys lists the names of keys that sort after one, at most limit; 0 is all of them.
func (s *Store) Keys(ctx context.Context, after string, limit int) ([]string, error) {
	return s.list(ctx, keyRows, MaxKeys, after, limit)
}

func (s *Store) list(ctx context.Context, prefix string, most int, after string, limit int) (all []string, err error) {
	if limit <= 0 {
		limit = most
	}
	err = s.storage.View(ctx, func(r storage.Reader) (err error) {
		all, err = r.List(prefix, after, limit)
		return err
	})
	return all, err
}

// DeleteKey removes a key that no role uses; what it signed is worth nothing from then
// on. One that is not there is no error.
func (s *Store) DeleteKey(ctx context.Context, name string) error {
	if name == DefaultKey {
		return invalid("deletion of key %q not allowed", DefaultKey)
	}
	if checkName("key", name) != nil {
		return nil
	}
	defer s.changes.Add(1)
	_, err := s.Barrier.Update(ctx, func(whole storage.Txn) error {
		t := storage.SubTxn(whole, s.Prefix+rows)
		const shown = 20
		users, err := t.List(useRows+name+"/", "", shown+1)
		if err != nil {
			return err
		}
		if len(users) > shown {
			users = append(users[:shown], "…")
		}
		if len(users) > 0 {
			return invalid("unable to delete key %q because it is currently referenced by these roles: %s", name, strings.Join(users, ", "))
		}
		if err := t.Delete(keyRows + name); err != nil {
			return err
		}
		return s.Rotations.cancel(whole, s.Namespace, name)
	})
	return err
}
