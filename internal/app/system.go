package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/docgen"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/metrics"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage/pebble"
	"github.com/cofferhq/coffer/internal/sys"
	"github.com/cofferhq/coffer/internal/token"
)

// systemOptions is what the routes below sys/ ask of the server.
func (s *Server) systemOptions() sys.Options {
	return sys.Options{
		Node: s.node,
		RightsOf: func(ctx context.Context, tok *token.Token, namespace string) (route.Rights, error) {
			return s.gateway.RightsOf(ctx, tok, namespace)
		},
		Opened: func(namespace string) *sys.Unsealed { return s.opened.Load().of(namespace) },
		Why:    s.why, AuditLog: s.auditLog, RepairAuditLog: s.audit.Repair, Metrics: s.showMetrics, OpenAPI: s.openAPI, Sanitized: s.sanitized,
		InFlight: s.inFlight, Log: s.tap, Kinds: func() []*engine.Spec { return builtin.Engines },
		ClusterName: s.clusterName, Backup: s.writeBackup, Backups: s.backups,
		NewPad: newPad, Address: s.cfg.APIAddr, StorageType: s.cfg.Storage.Kind, Shared: s.shared(), Version: s.version,
		Storage: s.storageState,
	}
}

// storageState says whether the storage engine can be reached, which it is asked
// unless it has just answered, and how old at most what this node answers from
// memory is.
func (s *Server) storageState(ctx context.Context, answered bool) sys.Storage {
	ctx, cancel := context.WithTimeout(ctx, barrier.CacheBound)
	defer cancel()
	reached := answered || s.barrier.Reached(ctx) == nil
	behind := s.barrier.Behind()
	return sys.Storage{Reached: reached, Behind: behind, Serving: reached || behind < s.cfg.StaleReads}
}

// clusterName returns the configured name of the cluster, or one made of its id.
func (s *Server) clusterName(id string) string {
	if s.cfg.ClusterName == "" && len(id) >= 8 {
		return "coffer-cluster-" + id[:8]
	}
	return s.cfg.ClusterName
}

// newPad returns a one-time pad of printable characters.
func newPad() string { return (rand.Text() + rand.Text() + rand.Text() + rand.Text())[:tokenLength] }

func (s *Server) why(requestID, namespace string) (sys.Why, error) {
	d, err := s.gateway.Why(requestID, namespace)
	if err != nil {
		return sys.Why{}, err
	}
	return sys.Why{
		RequestID: d.RequestID, Time: d.Time.UTC(), Principal: d.Principal, Accessor: d.Accessor, Policies: d.Policies,
		Path: d.Asked.Path, Plain: d.Asked.Plain, Need: d.Asked.Need.String(), Sudo: d.Asked.Sudo,
		Allowed: d.Decision.Allowed, Policy: d.Decision.Policy, Rule: d.Decision.Rule, Missing: d.Decision.Missing,
		Fix: d.Decision.Fix, Considered: d.Explain().Lines(),
	}, nil
}

func (s *Server) auditLog() (sys.AuditLog, error) {
	r := s.opened.Load()
	c := s.audit.LastCheckpoint()
	return sys.AuditLog{Origin: s.origin, PublicKey: r.Devices.PublicKey(), Entries: c.Size, Checkpoint: string(c.Note)}, nil
}

func (s *Server) showMetrics(format string) (route.Raw, error) {
	contentType, body, err := s.metrics.Show(format)
	if err != nil {
		return route.Raw{}, fault.New(fault.Invalid, "%v", err)
	}
	return route.Raw{ContentType: contentType, Body: body}, nil
}

func (s *Server) openAPI() ([]byte, error) {
	var mounts []docgen.Mount
	for _, m := range s.opened.Load().Mounts.List() {
		mounts = append(mounts, docgen.Mount{Path: m.Entry.Path, Kind: m.Spec.Name, Doc: m.Spec.Doc, Routes: m.Spec.Routes})
	}
	return docgen.OpenAPI(s.version.Wire(), mounts)
}

func (s *Server) sanitized() (sys.SanitizedConfig, error) {
	text, err := json.Marshal(s.cfg.Sanitized())
	return sys.SanitizedConfig{Settings: text}, err
}

func (s *Server) inFlight() []sys.InFlight {
	var out []sys.InFlight
	for _, r := range s.gateway.InFlight() {
		out = append(out, sys.InFlight{ID: r.ID, Method: r.Method, Path: r.Path, Remote: r.Remote.String(), Start: r.Since.UTC()})
	}
	return out
}

// sources is what the metrics read when they are asked.
func (s *Server) sources() metrics.Sources {
	return metrics.Sources{
		Version: s.version.Coffer,
		Seal: func() metrics.Seal {
			initialized, sealed, err := s.Initialized(context.Background())
			return metrics.Seal{Initialized: initialized, Unsealed: err == nil && !sealed, Active: err == nil && !sealed}
		},
		Storage: s.storageFigures,
		Backup:  s.backupFigures,
		Caches:  s.cacheFigures,
		Jobs:    s.jobFigures,
		Quotas:  s.quotaFigures,
		Leases:  s.leaseFigures,
		Cluster: s.clusterFigures,
		Audit: func() metrics.Audit {
			st := s.audit.Stats()
			return metrics.Audit{Entries: st.Size, Syncs: metrics.Times(st.Sync), Checkpoint: st.LastCheckpoint}
		},
		CertExpiry: func() (first time.Time) {
			for _, l := range s.listeners {
				if l.expiry != nil && (first.IsZero() || l.expiry().Before(first)) {
					first = l.expiry()
				}
			}
			return first
		},
	}
}

func (s *Server) storageFigures() metrics.Storage {
	e, ok := s.engine.(*pebble.Engine)
	if !ok {
		return metrics.Storage{}
	}
	st := e.Stats()
	return metrics.Storage{Commits: st.Commits, Syncs: times(st.Syncs), Bytes: st.DiskBytes}
}

func (s *Server) clusterFigures() (c metrics.Cluster, unsealed bool) {
	r := s.getRunning()
	if r == nil || r.Members == nil {
		return c, false
	}
	c.Live = r.Members.Live()
	c.Behind, c.ClockAhead = s.barrier.Behind(), r.Members.Offset()
	return c, true
}

func (s *Server) cacheFigures() []metrics.Cache {
	r := s.getRunning()
	if r == nil || r.tokenCache == nil || r.Realms == nil {
		return nil
	}
	caches := []metrics.Cache{counted("tokens", r.tokenCache.Stats())}
	for name, stats := range r.Realms.CacheStats() {
		caches = append(caches, counted(name, stats))
	}
	return caches
}

// times adds the buckets of a histogram up, as metrics have them.
func times(h pebble.Histogram) metrics.Times {
	t := metrics.Times{Count: h.Count, Sum: h.Sum, Counts: map[float64]uint64{}}
	below := uint64(0)
	for i, bound := range h.Bounds {
		below += h.Counts[i]
		t.Counts[bound] = below
	}
	return t
}

func counted(name string, s barrier.CacheStats) metrics.Cache {
	return metrics.Cache{Name: name, Hits: s.Hits, Misses: s.Misses, Entries: s.Entries}
}

func (s *Server) quotaFigures() map[string]uint64 {
	r := s.opened.Load()
	if r == nil || s.getRunning() == nil {
		return nil
	}
	return r.Quotas.Refused()
}
