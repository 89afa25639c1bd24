package factor

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

func plainID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsAny(id, "/\x00")
}

// Method returns a method, or a fault that says there is none.
func (s *Store) Method(ctx context.Context, id string) (*Method, error) {
	if !plainID(id) {
		return nil, fault.New(fault.NotFound, "")
	}
	m, err := storage.LoadFrom[Method](ctx, s.storage, methodRows+id)
	if err == nil && m == nil {
		err = fault.New(fault.NotFound, "")
	}
	return m, err
}

// Methods returns all methods, in the order of their ids.
func (s *Store) Methods(ctx context.Context) (all []Method, err error) {
	err = s.storage.View(ctx, func(r storage.Reader) error {
		all = nil
		return storage.All(r, methodRows, func(e storage.Entry) error {
			m, err := storage.Decode[Method](e.Key, e.Value, nil)
			if err == nil {
				all = append(all, *m)
			}
			return err
		})
	})
	return all, err
}

// WriteMethod changes the method of an id through fn, or makes one where id is "".
func (s *Store) WriteMethod(ctx context.Context, id string, fn func(*Method) error) (out Method, err error) {
	if id != "" {
		if _, err := s.Method(ctx, id); err != nil {
			return out, err
		}
	}
	all, err := s.Methods(ctx)
	if err != nil {
		return out, err
	}
	if id == "" && len(all) >= MaxMethods {
		return out, invalid("there are %d MFA methods, which is the limit", len(all))
	}
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		out = Method{ID: uuid.NewString(), Skew: 1, QRSize: 200}
		if id != "" {
			m, err := storage.Load[Method](t, methodRows+id)
			if err != nil {
				return err
			}
			if m == nil {
				return fault.New(fault.NotFound, "")
			}
			out = *m
		}
		if err := fn(&out); err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(m Method) bool { return out.Name != "" && m.Name == out.Name && m.ID != out.ID }) {
			return invalid("a method of the name %q exists", out.Name)
		}
		if err := out.check(); err != nil {
			return err
		}
		return storage.Save(t, methodRows+out.ID, out)
	})
	return out, err
}

// DeleteMethod removes a method that no rule needs, and the secrets of it.
func (s *Store) DeleteMethod(ctx context.Context, id string) error {
	if !plainID(id) {
		return nil
	}
	if _, err := s.storage.Update(ctx, func(t storage.Txn) error {
		if err := storage.All(t, ruleRows, func(e storage.Entry) error {
			r, err := storage.Decode[Rule](e.Key, e.Value, nil)
			if err == nil && slices.Contains(r.Methods, id) {
				err = invalid("methodID is still used by an enforcement configuration with ID: %q (%s)", r.ID, r.Name)
			}
			return err
		}); err != nil {
			return err
		}
		return t.Delete(methodRows + id)
	}); err != nil {
		return err
	}
	for {
		var left []string
		if _, err := s.storage.Update(ctx, func(t storage.Txn) (err error) {
			if left, err = t.List(secretRows+id+"/", "", 80); err != nil {
				return err
			}
			for _, entity := range left {
				if err := t.Delete(secretKey(id, entity)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil || len(left) == 0 {
			return err
		}
	}
}

var ruleNames = regexp.MustCompile(`^\w[\w.-]{0,127}$`)

// WriteRule writes a rule.
func (s *Store) WriteRule(ctx context.Context, r Rule) error {
	switch {
	case !ruleNames.MatchString(r.Name):
		return invalid("a login enforcement's name has up to 128 letters, digits, '_', '-' and '.'")
	case len(r.Methods) == 0:
		return invalid("missing method ids")
	case len(r.Accessors)+len(r.Types)+len(r.Groups)+len(r.Entities) == 0:
		return invalid("One of auth_method_accessors, auth_method_types, identity_group_ids, identity_entity_ids must be specified")
	}
	for _, list := range [][]string{r.Methods, r.Accessors, r.Types, r.Groups, r.Entities} {
		if len(list) > MaxList {
			return invalid("a list has %d names; at most %d are accepted", len(list), MaxList)
		}
	}
	rules, err := s.Rules(ctx)
	if err != nil {
		return err
	}
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		for _, id := range r.Methods {
			if !plainID(id) {
				return invalid("invalid method id %q", id)
			}
			if m, err := storage.Load[Method](t, methodRows+id); err != nil {
				return err
			} else if m == nil {
				return invalid("one of the provided method ids doesn't exist: %q", id)
			}
		}
		was, err := storage.Load[Rule](t, ruleRows+r.Name)
		if err != nil {
			return err
		}
		switch {
		case was != nil:
			r.ID = was.ID
		case len(rules) >= MaxRules:
			return invalid("there are %d login enforcements, which is the limit", len(rules))
		default:
			r.ID = uuid.NewString()
		}
		return storage.Save(t, ruleRows+r.Name, r)
	})
	s.changes.Add(1)
	return err
}

// Rule returns a rule, or a fault that says there is none.
func (s *Store) Rule(ctx context.Context, name string) (*Rule, error) {
	rules, err := s.Rules(ctx)
	if err != nil {
		return nil, err
	}
	for i := range rules {
		if rules[i].Name == name {
			return &rules[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "")
}

// DeleteRule removes a rule; one that is not there is no error.
func (s *Store) DeleteRule(ctx context.Context, name string) error {
	if !ruleNames.MatchString(name) {
		return nil
	}
	_, err := s.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(ruleRows + name) })
	s.changes.Add(1)
	return err
}
