// Package policystore keeps policies in storage and compiles the ones that a
// token holds into the rules its requests are checked against. The language is
// in package policy.
package policystore

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/storage"
)

const (
	rows = "core/policies/" // below the prefix of a namespace; + name
	// cached is how many parsed policies are kept in memory.
	cached = 20_000
	// compiled is how many combinations of policies are kept compiled.
	compiled = 4096
	// wrapping is the policy of the tokens of wrapped answers.
	wrapping = "response-wrapping"
)

// MaxNameBytes is the longest name of a policy.
const MaxNameBytes = 128

var nameRE = regexp.MustCompile(`^[a-z0-9_][a-z0-9 ._@:+/-]*$`)

// Cache holds parsed policies.
type Cache = barrier.Cache[*policy.Policy]

// NewCache returns a cache for the stores of all prefixes that begin with prefix.
func NewCache(b *barrier.Barrier, prefix string) *Cache {
	if prefix == "" {
		prefix = rows
	}
	return barrier.NewCache(b, prefix, cached, func(key string, value []byte) (*policy.Policy, error) {
		_, name, _ := strings.Cut(key, rows)
		return policy.Parse(name, string(value))
	})
}

// Store keeps the policies of one namespace.
type Store struct {
	barrier *barrier.Barrier
	parsed  *Cache
	rows    string // the prefix of the policies' keys

	mu   sync.RWMutex
	acls map[string]*set // by the names, joined
}

// set is a combination of policies, compiled. It holds for as long as the
// parsed policies are the ones it was made of.
type set struct {
	parts   []*policy.Policy
	subject Subject // nil where no part is templated
	acl     *policy.ACL
}

// Subject is whoever the templates in policies are about.
type Subject interface {
	// Key tells one from another.
	Key() string
	// Resolve returns the value of a template's name.
	Resolve(name string) (value string, ok bool)
}

// New returns the store of the policies that the open barrier has below prefix, ""
// for those of the root namespace.
func New(b *barrier.Barrier, parsed *Cache, prefix string) *Store {
	return &Store{barrier: b, parsed: parsed, rows: prefix + rows, acls: map[string]*set{}}
}

// CacheStats returns what the cache of policies did.
func (s *Store) CacheStats() barrier.CacheStats { return s.parsed.Stats() }

// CleanName returns a policy's name as it is kept, in lower case, or a fault.
func CleanName(name string) (string, error) {
	name = strings.ToLower(strings.TrimSpace(name))
	if len(name) > MaxNameBytes || !nameRE.MatchString(name) {
		return "", fault.New(fault.Invalid, "%q is no name for a policy: use up to %d letters, digits and . _ - @ : + /, starting with a letter, a digit or _", name, MaxNameBytes)
	}
	return name, nil
}

// Get returns a policy, or route.Missing's fault.
func (s *Store) Get(ctx context.Context, name string) (*policy.Policy, error) {
	name, err := CleanName(name)
	if err != nil {
		return nil, err
	}
	if name == "root" {
		return &policy.Policy{Name: "root"}, nil
	}
	p, err := s.parsed.Get(ctx, s.rows+name)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "")
	}
	return p, err
}

// Put stores a policy after reading it, and returns it parsed. The policies that
// Coffer's own tokens hold cannot be changed.
func (s *Store) Put(ctx context.Context, name, text string) (*policy.Policy, error) {
	name, err := CleanName(name)
	if err != nil {
		return nil, err
	}
	if name == "root" || name == wrapping {
		return nil, fault.New(fault.Invalid, "cannot update %q policy", name)
	}
	p, err := policy.Parse(name, text)
	if err != nil {
		return nil, err
	}
	_, err = s.barrier.Update(ctx, func(tx storage.Txn) error { return tx.Put(s.rows+name, []byte(text)) })
	return p, err
}

// Delete removes a policy. Tokens that name it lose what it granted at once.
func (s *Store) Delete(ctx context.Context, name string) error {
	name, err := CleanName(name)
	if err != nil {
		return err
	}
	switch name {
	case "root", "default", wrapping:
		return fault.New(fault.Invalid, "cannot delete %q policy", name)
	}
	_, err = s.barrier.Update(ctx, func(tx storage.Txn) error { return tx.Delete(s.rows + name) })
	return err
}

// List returns the names of the policies that tokens can be given, root
// included, in order.
func (s *Store) List(ctx context.Context) ([]string, error) {
	names := []string{"root"}
	err := s.barrier.View(ctx, func(r storage.Reader) error {
		return storage.All(r, s.rows, func(e storage.Entry) error {
			if name := strings.TrimPrefix(e.Key, s.rows); name != wrapping {
				names = append(names, name)
			}
			return nil
		})
	})
	slices.Sort(names)
	return names, err
}

// ACL returns the rules of the named policies, with the templates in them filled in
// for subject; nil is nobody, for whom they grant nothing. So does a name without a
// policy.
func (s *Store) ACL(ctx context.Context, names []string, subject Subject) (*policy.ACL, error) {
	if slices.Contains(names, "root") {
		return policy.Root(), nil
	}
	var room [16]*policy.Policy
	parts, templated := room[:0], false
	for _, name := range names {
		p, err := s.parsed.Get(ctx, s.rows+name)
		if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrInvalidKey) {
			continue
		}
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
		templated = templated || p.Templated()
	}
	key := strings.Join(names, "\x00")
	if templated && subject != nil {
		key += "\x00\x00" + subject.Key()
	} else {
		subject = nil
	}
	s.mu.RLock()
	have := s.acls[key]
	s.mu.RUnlock()
	if have != nil && have.subject == subject && slices.Equal(have.parts, parts) {
		return have.acl, nil
	}
	have = &set{parts: slices.Clone(parts), subject: subject}
	if subject != nil {
		for i, p := range parts {
			parts[i] = p.Expand(subject.Resolve)
		}
	}
	have.acl = policy.Compile(parts...)
	s.mu.Lock()
	if len(s.acls) >= compiled {
		clear(s.acls)
	}
	s.acls[key] = have
	s.mu.Unlock()
	return have.acl, nil
}

// Seed stores the policies that every server has, where they are missing.
func (s *Store) Seed(ctx context.Context) error {
	builtin := map[string]string{"default": defaultPolicy, wrapping: wrappingPolicy}
	whole := true
	if err := s.barrier.View(ctx, func(r storage.Reader) error {
		for name := range builtin {
			if _, err := r.Get(s.rows + name); errors.Is(err, storage.ErrNotFound) {
				whole = false
			} else if err != nil {
				return err
			}
		}
		return nil
	}); err != nil || whole {
		return err
	}
	_, err := s.barrier.Update(ctx, func(tx storage.Txn) error {
		for name, text := range builtin {
			if _, err := tx.Get(s.rows + name); errors.Is(err, storage.ErrNotFound) {
				if err := tx.Put(s.rows+name, []byte(text)); err != nil {
					return err
				}
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
