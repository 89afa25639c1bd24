package sys

import (
	"context"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

// RevokePrefix names paths that granted something.
type RevokePrefix struct {
	Prefix string    `path:"prefix" doc:"The path, such as auth/people/login/ann or database/creds."`
	Sync   wire.Bool `json:"sync" doc:"Answer when what was lent is taken back; tokens have ended in any case."`
}

// revokePage is how many tokens, or leases, are looked at in one read.
const revokePage = 500

// revokePrefix may be asked again when it was interrupted: what has ended stays so.
func (s *System) revokePrefix(ctx context.Context, _ route.Caller, in RevokePrefix) (route.Empty, error) {
	return s.revokeAll(ctx, in, lease.How{Now: bool(in.Sync)})
}

func (s *System) revokeForce(ctx context.Context, _ route.Caller, in RevokePrefix) (route.Empty, error) {
	return s.revokeAll(ctx, in, lease.How{Force: true})
}

func (s *System) revokeAll(ctx context.Context, in RevokePrefix, how lease.How) (route.Empty, error) {
	prefix := strings.Trim(in.Prefix, "/")
	if prefix == "" {
		return route.Empty{}, fault.New(fault.Invalid, "a prefix is needed, such as auth/people")
	}
	if err := s.revokeTokens(ctx, prefix); err != nil {
		return route.Empty{}, err
	}
	n, err := s.revokeLent(ctx, prefix, how)
	if err != nil || n == 0 || how.Now || how.Force {
		return route.Empty{}, err
	}
	return accepted(), nil
}

// revokeLent ends the leases at a path or below it and returns how many there were.
func (s *System) revokeLent(ctx context.Context, prefix string, how lease.How) (n int, err error) {
	open := s.Open()
	realm, rest := open.Realms.Find(open.Namespace.Path + prefix)
	if m, below := realm.Mounts.Find(rest); m != nil {
		return open.Leases.RevokeBelow(ctx, strings.TrimSuffix(m.Entry.UUID+"/"+below, "/"), how)
	}
	for _, m := range realm.Mounts.List() {
		if !strings.HasPrefix(m.Entry.Path, rest+"/") {
			continue
		}
		more, err := open.Leases.RevokeBelow(ctx, m.Entry.UUID, how)
		if n += more; err != nil {
			return n, err
		}
	}
	return n, nil
}

// revokeTokens ends the tokens that were granted at a path or below it. Those that
// never expire have no lease, as in Vault, so that nobody ends the root token this
// way.
func (s *System) revokeTokens(ctx context.Context, prefix string) error {
	if prefix != "auth" && !strings.HasPrefix(prefix, "auth/") {
		return nil
	}
	tokens, after := s.Open().Tokens, ""
	for {
		page, err := tokens.Accessors(ctx, after, revokePage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, accessor := range page {
			tok, err := tokens.ByAccessor(ctx, accessor)
			if fault.Is(err, fault.Invalid) {
				continue // it has ended
			}
			if err != nil {
				return err
			}
			if !leasedBelow(tok, prefix) {
				continue
			}
			if err := tokens.Revoke(ctx, tok.ID); err != nil {
				return err
			}
		}
		after = page[len(page)-1]
	}
}

func leasedBelow(tok *token.Token, prefix string) bool {
	below, ok := strings.CutPrefix(tok.Path, prefix)
	return ok && (below == "" || below[0] == '/') && !tok.ExpiresAt.IsZero() && tok.Wrapping == nil
}
