package cert

import (
	"context"

	"github.com/cofferhq/coffer/internal/auth"
)

// Holders implements auth.Lister.
func (m *Method) Holders(ctx context.Context, fn func(auth.Holder) (more bool)) error {
	return auth.StoredHolders(ctx, m.storage, rolePrefix, "certs/", fn)
}
