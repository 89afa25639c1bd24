package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

// Holder is a role or a user of a method, and the policies that logging in as it gives,
// those of identity excepted.
type Holder struct {
	Path     string   // below the mount, where it is read: "role/ci"
	Policies []string // "default" included where a login adds it
}

// Lister is a method that can say who would get which policies.
type Lister interface {
	// Holders calls fn with every role or user, by name, until fn says that it has
	// enough.
	Holders(ctx context.Context, fn func(Holder) (more bool)) error
}

// holdersPage is how many rows are read at once.
const holdersPage = 500

// StoredHolders is Lister.Holders for a method that keeps each role or user as a row
// with its TokenParams, its name behind rows, and has it read at path + name.
func StoredHolders(ctx context.Context, s storage.Engine, rows, path string, fn func(Holder) (more bool)) error {
	for after := ""; ; {
		var page []storage.Entry
		err := s.View(ctx, func(r storage.Reader) (err error) {
			page, err = r.Scan(rows, after, holdersPage)
			return err
		})
		if err != nil {
			return err
		}
		for _, row := range page {
			var p TokenParams
			if err := json.Unmarshal(row.Value, &p); err != nil {
				return fmt.Errorf("row %s: %w", row.Key, err)
			}
			h := Holder{Path: path + strings.TrimPrefix(row.Key, rows), Policies: p.PolicyNames}
			if !p.NoDefault {
				h.Policies = append(h.Policies[:len(h.Policies):len(h.Policies)], "default")
			}
			if !fn(h) {
				return nil
			}
			after = row.Key
		}
		if len(page) < holdersPage {
			return nil
		}
	}
}
