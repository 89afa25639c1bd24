package userpass

import (
	"context"

	"github.com/cofferhq/coffer/internal/auth"
)

// Holders implements auth.Lister.
func (u *Users) Holders(ctx context.Context, fn func(auth.Holder) (more bool)) error {
	return auth.StoredHolders(ctx, u.storage, "user/", "users/", fn)
}
