package password

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Rows is where a namespace keeps its policies, below its prefix; names follow.
const Rows = "core/passwords/"

// MaxNameBytes is the longest name of a policy.
const MaxNameBytes = 128

var nameRE = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9 ._@:+/-]*[A-Za-z0-9_])?$`)

// Store keeps the policies of one namespace.
type Store struct{ rows storage.Engine }

// row is a policy in storage.
type row struct {
	Policy string `json:"policy"` // as it was written
}

// NewStore returns the store of the policies that are kept below prefix, "" for
// those of the root namespace.
func NewStore(e storage.Engine, prefix string) *Store { return &Store{storage.Sub(e, prefix+Rows)} }

// checkName refuses what is no name of a policy.
func checkName(name string) error {
	if len(name) > MaxNameBytes || !nameRE.MatchString(name) {
		return fault.New(fault.Invalid, "%q is no name for a password policy: use up to %d letters, digits and . _ - @ : + /, with a letter, a digit or _ at both ends", name, MaxNameBytes)
	}
	return nil
}

// Source returns a policy's text as it was written, or a fault of kind NotFound.
func (s *Store) Source(ctx context.Context, name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	var raw []byte
	err := s.rows.View(ctx, func(r storage.Reader) (err error) {
		raw, err = r.Get(name)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return "", fault.New(fault.NotFound, "policy does not exist: there is no password policy %q", name)
	}
	if err != nil {
		return "", err
	}
	var kept row
	if err := json.Unmarshal(raw, &kept); err != nil {
		return "", fmt.Errorf("password policy %s: %w", name, err)
	}
	return kept.Policy, nil
}

// standard is the policy of passwords for which none is named: twenty characters,
// about 119 bits, that need no quoting in connection strings.
const standard = `length = 20
rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz" min-chars = 1 }
rule "charset" { charset = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" min-chars = 1 }
rule "charset" { charset = "0123456789" min-chars = 1 }
rule "charset" { charset = "-" min-chars = 1 }`

// Generate returns a new password by the named policy, or a fault of kind NotFound
// where there is none. "" names Coffer's own.
func (s *Store) Generate(ctx context.Context, name string) (wire.Secret, error) {
	if name == "" {
		p, err := Parse(standard)
		if err != nil {
			return "", err
		}
		return p.Generate(), nil
	}
	text, err := s.Source(ctx, name)
	if err != nil {
		return "", err
	}
	p, err := Parse(text)
	if err != nil {
		return "", fmt.Errorf("stored password policy %s: %w", name, err)
	}
	return p.Generate(), nil
}

// Put stores a policy after reading it.
func (s *Store) Put(ctx context.Context, name, text string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if _, err := Parse(text); err != nil {
		return err
	}
	raw, err := json.Marshal(row{text})
	if err != nil {
		return err
	}
	_, err = s.rows.Update(ctx, func(tx storage.Txn) error { return tx.Put(name, raw) })
	return err
}

// Delete removes a policy; one that is not there is no error.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	_, err := s.rows.Update(ctx, func(tx storage.Txn) error { return tx.Delete(name) })
	return err
}

// List returns the policies' names in order.
func (s *Store) List(ctx context.Context) ([]string, error) {
	var names []string
	err := s.rows.View(ctx, func(r storage.Reader) error {
		return storage.All(r, "", func(e storage.Entry) error {
			names = append(names, e.Key)
			return nil
		})
	})
	return names, err
}
