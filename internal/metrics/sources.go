package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are what other packages count by themselves. A nil function leaves
// its metrics out.
type Sources struct {
	Version    string                // of the server
	Seal       func() Seal           // state of the seal
	Storage    func() Storage        // figures of the storage engine
	Caches     func() []Cache        // each cache by name
	Checkpoint func() (at time.Time) // the audit log's last signed checkpoint; zero when there is none yet
	AuditSize  func() (entries, bytes uint64)
	CertExpiry func() (at time.Time) // of the listener's TLS certificate; zero when there is none
}

// Seal is the state of the seal.
type Seal struct{ Initialized, Unsealed, Active bool }

// Storage is what a storage engine counted since it was opened.
type Storage struct {
	Commits   uint64
	Conflicts uint64 // commits that had to run again
	Syncs     uint64 // fsyncs, which commits share
	Bytes     uint64 // on disk
	Watchers  int
}

// Cache is what a cache counted. Its name is one of a few fixed words.
type Cache struct {
	Name         string
	Hits, Misses uint64
	Entries      int
}

var (
	buildInfo   = desc("build_info", "The version that runs; always 1.", "version")
	initialized = desc("initialized", "Whether the server is initialized.")
	unsealed    = desc("unsealed", "Whether the server is unsealed.")
	// The two names below are Vault's; known dashboards and alerts use them.
	vaultUnsealed = prometheus.NewDesc("vault_core_unsealed", "Whether the server is unsealed, under Vault's name.", nil, nil)
	vaultActive   = prometheus.NewDesc("vault_core_active", "Whether the server serves requests, under Vault's name.", nil, nil)

	commits   = desc("storage_commits_total", "Transactions committed.")
	conflicts = desc("storage_conflicts_total", "Transactions that ran again because another one was faster.")
	syncs     = desc("storage_syncs_total", "Times the disk was made to sync; commits share them.")
	size      = desc("storage_size_bytes", "Size of the storage on disk.")
	watchers  = desc("storage_watchers", "Watches that are open.")

	cacheHits    = desc("cache_hits_total", "Lookups that a cache answered.", "cache")
	cacheMisses  = desc("cache_misses_total", "Lookups that a cache could not answer.", "cache")
	cacheEntries = desc("cache_entries", "Entries in a cache.", "cache")

	checkpointAge = desc("audit_checkpoint_age_seconds", "Time since the audit log was last signed.")
	auditEntries  = desc("audit_entries", "Entries in the audit log.")
	auditSize     = desc("audit_size_bytes", "Size of the audit log on disk.")
	certExpiry    = desc("tls_certificate_expiry_timestamp_seconds", "When the listener's TLS certificate expires.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("coffer_"+name, help, labels, nil)
}

// pulled reads the sources whenever the metrics are shown.
type pulled struct{ sources Sources }

// Describe sends the descriptions of all that Collect may send.
func (p *pulled) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, initialized, unsealed, vaultUnsealed, vaultActive, commits, conflicts, syncs, size, watchers,
		cacheHits, cacheMisses, cacheEntries, checkpointAge, auditEntries, auditSize, certExpiry} {
		to <- d
	}
}

// Collect sends the current figures.
func (p *pulled) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	send(buildInfo, gauge, 1, p.sources.Version)
	if p.sources.Seal != nil {
		s := p.sources.Seal()
		send(initialized, gauge, one(s.Initialized))
		send(unsealed, gauge, one(s.Unsealed))
		send(vaultUnsealed, gauge, one(s.Unsealed))
		send(vaultActive, gauge, one(s.Active))
	}
	if p.sources.Storage != nil {
		s := p.sources.Storage()
		send(commits, counter, float64(s.Commits))
		send(conflicts, counter, float64(s.Conflicts))
		send(syncs, counter, float64(s.Syncs))
		send(size, gauge, float64(s.Bytes))
		send(watchers, gauge, float64(s.Watchers))
	}
	if p.sources.Caches != nil {
		for _, c := range p.sources.Caches() {
			send(cacheHits, counter, float64(c.Hits), c.Name)
			send(cacheMisses, counter, float64(c.Misses), c.Name)
			send(cacheEntries, gauge, float64(c.Entries), c.Name)
		}
	}
	if p.sources.Checkpoint != nil {
		if at := p.sources.Checkpoint(); !at.IsZero() {
			send(checkpointAge, gauge, time.Since(at).Seconds())
		}
	}
	if p.sources.AuditSize != nil {
		entries, bytes := p.sources.AuditSize()
		send(auditEntries, gauge, float64(entries))
		send(auditSize, gauge, float64(bytes))
	}
	if p.sources.CertExpiry != nil {
		if at := p.sources.CertExpiry(); !at.IsZero() {
			send(certExpiry, gauge, float64(at.Unix()))
		}
	}
}

func one(v bool) float64 {
	if v {
		return 1
	}
	return 0
}
