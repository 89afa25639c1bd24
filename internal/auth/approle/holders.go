package approle

import (
	"context"

	"github.com/cofferhq/coffer/internal/auth"
)

// Holders implements auth.Lister.
func (r *Roles) Holders(ctx context.Context, fn func(auth.Holder) (more bool)) error {
	return auth.StoredHolders(ctx, r.storage, rolePrefix, "role/", fn)
}
