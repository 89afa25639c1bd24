package ldap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/storage"
)

var errEnough = errors.New("enough holders")

// Holders implements auth.Lister: what every user gets by config, and what groups and
// users get here. Who is in a group only the directory knows.
func (m *Method) Holders(ctx context.Context, fn func(auth.Holder) (more bool)) error {
	err := m.storage.View(ctx, func(r storage.Reader) error {
		c, err := storage.Load[config](r, configKey)
		if err != nil || c == nil {
			return err
		}
		everybody := slices.Clone(c.PolicyNames)
		if !c.NoDefault {
			everybody = append(everybody, "default")
		}
		if !fn(auth.Holder{Path: configKey, Policies: everybody}) {
			return errEnough
		}
		for prefix, path := range map[string]string{groupPrefix: "groups/", userPrefix: "users/"} {
			err := storage.All(r, prefix, func(e storage.Entry) error {
				var g group // as far as a user is one
				if err := json.Unmarshal(e.Value, &g); err != nil {
					return fmt.Errorf("row %q cannot be read: %w", e.Key, err)
				}
				if !fn(auth.Holder{Path: path + strings.TrimPrefix(e.Key, prefix), Policies: g.Policies}) {
					return errEnough
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
