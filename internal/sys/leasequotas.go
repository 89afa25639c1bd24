package sys

import (
	"context"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/quota"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// WriteLeaseCount asks for a quota of leases.
type WriteLeaseCount struct {
	QuotaName
	QuotaScope
	Max  wire.Int `json:"max_leases" doc:"Leases at once."`
	Type string   `json:"type" doc:"Accepted for Vault's clients."`
}

func (s *System) writeLeaseCount(ctx context.Context, _ route.Caller, in WriteLeaseCount) (route.Empty, error) {
	q, err := s.quota(quota.LeaseCount, in.Name, in.QuotaScope, quota.Together)
	if err != nil {
		return route.Empty{}, err
	}
	if q.Mount != "" {
		r := s.Open().Realms.At(q.Namespace)
		if m, _ := r.Mounts.Find(q.Mount); m == nil || m.Entry.Class == engine.Auth || !m.Spec.Lends() {
			return route.Empty{}, fault.New(fault.Invalid, "path: %s lends nothing: a lease count is of what an engine lends, such as accounts of databases; logins are bounded by sys/quotas/rate-limit", q.Mount)
		}
	}
	q.Max = int(in.Max)
	return route.Empty{}, s.Open().Quotas.Put(ctx, q)
}

// LeaseCountQuota is a quota of leases.
type LeaseCountQuota struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Path    string `json:"path"`
	Role    string `json:"role"`
	Max     int    `json:"max_leases"`
	Counter int    `json:"counter"` // leases that there are
	Inherit bool   `json:"inheritable"`
}

func (s *System) readLeaseCount(ctx context.Context, _ route.Caller, in QuotaName) (LeaseCountQuota, error) {
	open := s.Open()
	q := open.Quotas.Get(quota.LeaseCount, in.Name)
	if q == nil {
		return LeaseCountQuota{}, route.Missing()
	}
	n, err := open.Leases.Count(ctx, open.Realms.Lent(q.Namespace, q.Mount, q.Below, q.Inherit)...)
	return LeaseCountQuota{
		Type: string(q.Kind), Name: q.Name, Path: q.Path(), Role: q.Role, Max: q.Max, Counter: n, Inherit: q.Inherit,
	}, err
}

func (s *System) listLeaseCounts(context.Context, route.Caller, route.Nothing) (route.Keys, error) {
	return s.listQuotas(quota.LeaseCount)
}

func (s *System) deleteLeaseCount(ctx context.Context, _ route.Caller, in QuotaName) (route.Empty, error) {
	return route.Empty{}, s.Open().Quotas.Delete(ctx, quota.LeaseCount, in.Name)
}
