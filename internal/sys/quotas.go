package sys

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/quota"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var quotaRoutes = []route.Route[*System]{
	route.New("GET", "quotas/config", "Read what holds for all quotas.", (*System).quotaConfig),
	route.New("POST", "quotas/config", "Change what holds for all quotas.", (*System).setQuotaConfig,
		route.Shows("quotas/config", `{"enable_rate_limit_response_headers":true}`, "")),
	route.New("LIST", "quotas/rate-limit", "List the quotas of requests per interval.", (*System).listRates),
	route.New("GET", "quotas/rate-limit/{name}", "Read a quota of requests per interval.", (*System).readRate,
		route.Shows("quotas/rate-limit/logins", "", "")),
	route.New("POST", "quotas/rate-limit/{name}", "Write a quota of requests per interval.", (*System).writeRate,
		route.Shows("quotas/rate-limit/logins", `{"path":"auth/userpass","rate":5,"interval":"1s"}`, "")),
	route.New("DELETE", "quotas/rate-limit/{name}", "Delete a quota of requests per interval.", (*System).deleteRate,
		route.Shows("quotas/rate-limit/logins", "", "")),
	route.New("LIST", "quotas/concurrency", "List the quotas of requests under way.", (*System).listConcurrencies),
	route.New("GET", "quotas/concurrency/{name}", "Read a quota of requests under way.", (*System).readConcurrency,
		route.Shows("quotas/concurrency/team", "", "")),
	route.New("POST", "quotas/concurrency/{name}", "Write a quota of requests under way.", (*System).writeConcurrency,
		route.Shows("quotas/concurrency/team", `{"path":"secret","max":100}`, "")),
	route.New("DELETE", "quotas/concurrency/{name}", "Delete a quota of requests under way.", (*System).deleteConcurrency,
		route.Shows("quotas/concurrency/team", "", "")),
	route.New("LIST", "quotas/lease-count", "List the quotas of leases.", (*System).listLeaseCounts),
	route.New("GET", "quotas/lease-count/{name}", "Read a quota of leases, and how many there are.", (*System).readLeaseCount,
		route.Shows("quotas/lease-count/databases", "", "")),
	route.New("POST", "quotas/lease-count/{name}", "Write a quota of leases.", (*System).writeLeaseCount,
		route.Shows("quotas/lease-count/databases", `{"path":"database","max_leases":1000}`, "")),
	route.New("DELETE", "quotas/lease-count/{name}", "Delete a quota of leases.", (*System).deleteLeaseCount,
		route.Shows("quotas/lease-count/databases", "", "")),
}

// QuotaConfig is what holds for all quotas.
type QuotaConfig struct {
	Exempt  wire.Strings `json:"rate_limit_exempt_paths"`
	Forever wire.Strings `json:"absolute_rate_limit_exempt_paths"`
	Audit   bool         `json:"enable_rate_limit_audit_logging"`
	Headers bool         `json:"enable_rate_limit_response_headers"`
	MaxHeld int          `json:"max_leases_per_entity"` // 0 for any number
}

func (s *System) quotaConfig(context.Context, route.Caller, route.Nothing) (QuotaConfig, error) {
	c := s.Open().Quotas.Config()
	return QuotaConfig{Exempt: c.Exempt, Forever: wire.Strings{}, Audit: c.Audit, Headers: c.Headers, MaxHeld: c.Held()}, nil
}

// SetQuotaConfig changes what holds for all quotas; what is left out stays as it is.
type SetQuotaConfig struct {
	Exempt  *wire.Strings `json:"rate_limit_exempt_paths" doc:"Paths from the root that no quota counts; a * at the end is any ending. An empty list counts all, but for what tells of the server."`
	Audit   *wire.Bool    `json:"enable_rate_limit_audit_logging" doc:"Sync the entry of a refusal to the audit log before it is answered; without, it is written, and synced a moment later."`
	Headers *wire.Bool    `json:"enable_rate_limit_response_headers" doc:"Say in each answer's headers what is left of the rate."`
	MaxHeld *wire.Int     `json:"max_leases_per_entity" doc:"How many leases one entity, or one token without an entity, may hold at once; 10000 unless given, 0 for any number."`
}

func (s *System) setQuotaConfig(ctx context.Context, _ route.Caller, in SetQuotaConfig) (route.Empty, error) {
	c := s.Open().Quotas.Config()
	if in.Exempt != nil {
		c.Exempt = nil
		for _, p := range *in.Exempt {
			if len(p) > 1024 || strings.Contains(strings.TrimSuffix(p, "*"), "*") {
				return route.Empty{}, fault.New(fault.Invalid, "rate_limit_exempt_paths: %q is no path; a * stands at the end only", p)
			}
			c.Exempt = append(c.Exempt, strings.TrimPrefix(p, "/"))
		}
		if len(c.Exempt) > 1000 {
			return route.Empty{}, fault.New(fault.Invalid, "rate_limit_exempt_paths: at most 1000 paths are accepted")
		}
	}
	if in.Audit != nil {
		c.Audit = bool(*in.Audit)
	}
	if in.Headers != nil {
		c.Headers = bool(*in.Headers)
	}
	if in.MaxHeld != nil {
		n := int(*in.MaxHeld)
		if n < 0 || n > quota.MaxLeases {
			return route.Empty{}, fault.New(fault.Invalid, "max_leases_per_entity must be between 0, which is any number, and %d", quota.MaxLeases)
		}
		c.MaxHeld = &n
	}
	return route.Empty{}, s.Open().Quotas.SetConfig(ctx, c)
}

// QuotaName names a quota.
type QuotaName struct {
	Name string `path:"name" doc:"The quota's name."`
}

// QuotaScope is what a quota counts.
type QuotaScope struct {
	Path    string     `json:"path" doc:"A namespace, a mount or a path in one, from the root; a * at the end is any ending. Empty is the whole server."`
	Role    string     `json:"role" doc:"Count only logins as that role, where path is an auth method whose login names one."`
	Inherit *wire.Bool `json:"inheritable" doc:"Count requests in the namespaces below, too; the default where path is empty."`
	GroupBy string     `json:"group_by" doc:"For whom it counts apart: ip, none (all together), entity_then_ip or entity_then_none."`
}

// WriteRate asks for a quota of requests per interval.
type WriteRate struct {
	QuotaName
	QuotaScope
	Rate     wire.Float   `json:"rate" doc:"Requests in an interval."`
	Interval wire.Seconds `json:"interval" doc:"The interval; a second unless given."`
	Block    wire.Seconds `json:"block_interval" doc:"How long a caller over the rate is refused altogether."`
	Type     string       `json:"type" doc:"Accepted for Vault's clients."`
}

// WriteConcurrency asks for a quota of requests under way.
type WriteConcurrency struct {
	QuotaName
	QuotaScope
	Max wire.Int `json:"max" doc:"Requests under way at once."`
}

// quota is a scope resolved.
func (s *System) quota(kind quota.Kind, name string, in QuotaScope, group quota.Grouping) (quota.Quota, error) {
	q := quota.Quota{Name: name, Kind: kind, Role: in.Role, GroupBy: quota.Grouping(cmp.Or(in.GroupBy, string(group)))}
	path := strings.TrimPrefix(in.Path, "/")
	r, below := s.Open().Realms.Find(strings.TrimSuffix(path, "/") + "/")
	q.Namespace = r.Namespace.Path
	if below = strings.Trim(below, "/"); below != "" {
		m, rest := r.Mounts.Find(below)
		if m == nil {
			return q, fault.New(fault.Invalid, "invalid mount path %q", path)
		}
		q.Mount, q.Below = m.Entry.Path, rest
		if q.Role != "" && (m.Entry.Class != engine.Auth || !namesRole(m.Spec)) {
			return q, fault.New(fault.Invalid, "Mount path %q does not support use with role-based quotas", path)
		}
	} else if q.Role != "" {
		return q, fault.New(fault.Invalid, "Mount path %q is not a valid auth method and therefore unsuitable for use with role-based quotas", path)
	}
	q.Inherit = q.Namespace == "" && q.Mount == ""
	if in.Inherit != nil {
		if q.Inherit = bool(*in.Inherit); q.Inherit && q.Mount != "" {
			return q, fault.New(fault.Invalid, "inheritable: only the quota of a namespace is inherited")
		}
	}
	return q, nil
}

// namesRole reports whether a method's login names a role.
func namesRole(spec *engine.Spec) bool {
	for i := range spec.Routes {
		if !spec.Routes[i].Public {
			continue
		}
		for _, f := range spec.Routes[i].Fields() {
			if f.Name == "role" && f.In == "json" {
				return true
			}
		}
	}
	return false
}

func (s *System) writeRate(ctx context.Context, _ route.Caller, in WriteRate) (route.Empty, error) {
	q, err := s.quota(quota.Rate, in.Name, in.QuotaScope, quota.ByAddress)
	if err != nil {
		return route.Empty{}, err
	}
	q.Rate, q.Interval, q.Block = float64(in.Rate), in.Interval.Duration(), in.Block.Duration()
	if q.Interval == 0 {
		q.Interval = time.Second
	}
	return route.Empty{}, s.Open().Quotas.Put(ctx, q)
}

func (s *System) writeConcurrency(ctx context.Context, _ route.Caller, in WriteConcurrency) (route.Empty, error) {
	q, err := s.quota(quota.Concurrency, in.Name, in.QuotaScope, quota.Together)
	if err != nil {
		return route.Empty{}, err
	}
	q.Max = int(in.Max)
	return route.Empty{}, s.Open().Quotas.Put(ctx, q)
}

// RateQuota is a quota of requests per interval.
type RateQuota struct {
	Type     string       `json:"type"`
	Name     string       `json:"name"`
	Path     string       `json:"path"`
	Role     string       `json:"role"`
	Rate     float64      `json:"rate"`
	Interval wire.Seconds `json:"interval"`
	Block    wire.Seconds `json:"block_interval"`
	Inherit  bool         `json:"inheritable"`
	GroupBy  string       `json:"group_by"`
}

func (s *System) readRate(_ context.Context, _ route.Caller, in QuotaName) (RateQuota, error) {
	q := s.Open().Quotas.Get(quota.Rate, in.Name)
	if q == nil {
		return RateQuota{}, route.Missing()
	}
	return RateQuota{
		Type: string(q.Kind), Name: q.Name, Path: q.Path(), Role: q.Role, Rate: q.Rate, Interval: wire.Seconds(q.Interval),
		Block: wire.Seconds(q.Block), Inherit: q.Inherit, GroupBy: string(q.GroupBy),
	}, nil
}

// ConcurrencyQuota is a quota of requests under way.
type ConcurrencyQuota struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Path    string `json:"path"`
	Role    string `json:"role"`
	Max     int    `json:"max"`
	Inherit bool   `json:"inheritable"`
	GroupBy string `json:"group_by"`
}

func (s *System) readConcurrency(_ context.Context, _ route.Caller, in QuotaName) (ConcurrencyQuota, error) {
	q := s.Open().Quotas.Get(quota.Concurrency, in.Name)
	if q == nil {
		return ConcurrencyQuota{}, route.Missing()
	}
	return ConcurrencyQuota{
		Type: string(q.Kind), Name: q.Name, Path: q.Path(), Role: q.Role, Max: q.Max, Inherit: q.Inherit, GroupBy: string(q.GroupBy),
	}, nil
}

func (s *System) listQuotas(kind quota.Kind) (route.Keys, error) {
	var out route.Keys
	for _, q := range s.Open().Quotas.List(kind) {
		out.Keys = append(out.Keys, q.Name)
	}
	return out.Found()
}

func (s *System) listRates(context.Context, route.Caller, route.Nothing) (route.Keys, error) {
	return s.listQuotas(quota.Rate)
}

func (s *System) listConcurrencies(context.Context, route.Caller, route.Nothing) (route.Keys, error) {
	return s.listQuotas(quota.Concurrency)
}

func (s *System) deleteRate(ctx context.Context, _ route.Caller, in QuotaName) (route.Empty, error) {
	return route.Empty{}, s.Open().Quotas.Delete(ctx, quota.Rate, in.Name)
}

func (s *System) deleteConcurrency(ctx context.Context, _ route.Caller, in QuotaName) (route.Empty, error) {
	return route.Empty{}, s.Open().Quotas.Delete(ctx, quota.Concurrency, in.Name)
}
