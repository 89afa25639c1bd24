package sys

import (
	"context"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

// What is leased here are tokens; their leases are named by the path that
// granted them.
var leaseRoutes = []route.Route[*System]{
	route.New("POST", "leases/revoke-prefix/{prefix...}", "End every token that was granted at a path or below it.", (*System).revokePrefix, route.Sudo(),
		route.Shows("leases/revoke-prefix/auth/people/login/ann", "{}", "")),
	route.New("POST", "leases/revoke-force/{prefix...}", "Another spelling of leases/revoke-prefix.", (*System).revokePrefix, route.Sudo(),
		route.Shows("leases/revoke-force/auth/people", "{}", "")),
}

// RevokePrefix names paths that granted something.
type RevokePrefix struct {
	Prefix string    `path:"prefix" doc:"The path, such as auth/people/login/ann or auth/people."`
	Sync   wire.Bool `json:"sync" doc:"Accepted for Vault's clients: it is done when it is answered."`
}

// revokePage is how many tokens are looked at in one read.
const revokePage = 500

// revokePrefix may be asked again when it was interrupted: what has ended stays
// so. Tokens that never expire have no lease, as in Vault, so that nobody ends
// the root token this way.
func (s *System) revokePrefix(ctx context.Context, _ route.Caller, in RevokePrefix) (route.Empty, error) {
	prefix := strings.Trim(in.Prefix, "/")
	if prefix == "" {
		return route.Empty{}, fault.New(fault.Invalid, "a prefix is needed, such as auth/people")
	}
	tokens, after := s.Open().Tokens, ""
	for {
		page, err := tokens.Accessors(ctx, after, revokePage)
		if err != nil || len(page) == 0 {
			return route.Empty{}, err
		}
		for _, accessor := range page {
			tok, err := tokens.ByAccessor(ctx, accessor)
			if fault.Is(err, fault.Invalid) {
				continue // it has ended
			}
			if err != nil {
				return route.Empty{}, err
			}
			if !leasedBelow(tok, prefix) {
				continue
			}
			if err := tokens.Revoke(ctx, tok.ID); err != nil {
				return route.Empty{}, err
			}
		}
		after = page[len(page)-1]
	}
}

func leasedBelow(tok *token.Token, prefix string) bool {
	below, ok := strings.CutPrefix(tok.Path, prefix)
	return ok && (below == "" || below[0] == '/') && !tok.ExpiresAt.IsZero() && tok.Wrapping == nil
}
