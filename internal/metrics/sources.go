package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are what other packages count by themselves. A nil function leaves
// its metrics out.
type Sources struct {
	Version    string                   // of the server
	Seal       func() Seal              // state of the seal
	Storage    func() Storage           // figures of the storage engine
	Cluster    func() (Cluster, bool)   // false while sealed
	Caches     func() []Cache           // each cache by name
	Jobs       func() []Jobs            // each kind of work that time drives
	Quotas     func() map[string]uint64 // requests that each quota refused on this node, by kind and name
	Leases     func() (Leases, bool)    // of all nodes; false while sealed, and when they cannot be read
	Audit      func() Audit             // figures of the audit log
	Backup     func() Backup            // figures of the scheduled backups
	CertExpiry func() (at time.Time)    // of the listener's TLS certificate; zero when there is none
}

// Seal is the state of the seal.
type Seal struct{ Initialized, Unsealed, Active bool }

// Storage is what a storage engine counted since it was opened.
type Storage struct {
	Commits uint64
	Syncs   Times  // fsyncs, which commits share
	Bytes   uint64 // on disk
}

// Cluster is how this node stands among those that share its storage.
type Cluster struct {
	Live       int           // nodes, this one included
	Behind     time.Duration // how old at most what is answered from memory is
	ClockAhead time.Duration // of the other nodes' clocks
}

// Audit is what the audit log counted since it was opened.
type Audit struct {
	Entries    uint64
	Syncs      Times     // fsyncs, which entries share
	Checkpoint time.Time // of the last signed checkpoint; zero when there is none yet
}

// Jobs are the figures of one kind of work that time drives, on this node. Its
// name is one of a few fixed words.
type Jobs struct {
	Kind               string
	Claims, Due        int           // shards held; jobs found due, at most a batch for each shard
	Lag                time.Duration // since the first of them was due
	Done, Failed, Lost uint64        // jobs, tries, and claims that passed to another node
}

// Leases are how many leases all nodes have lent. How far behind their ends are is told
// by the jobs of the kind "leases".
type Leases struct {
	Held    int // what they are for is there, as far as is known
	Failing int // could not be taken back yet, and are tried again
	Aside   int // were set aside, and wait for people
}

// Backup is how the scheduled backups of this node stand.
type Backup struct {
	Scheduled bool
	Last      time.Time // of the last success; zero when there is none
	Bytes     uint64    // of that
	Took      time.Duration
	Failures  int // since then
}

// send sends the figures, where backups are scheduled.
func (b Backup) send(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	if !b.Scheduled {
		return
	}
	send(backupFailures, prometheus.GaugeValue, float64(b.Failures))
	if !b.Last.IsZero() {
		send(backupLast, prometheus.GaugeValue, float64(b.Last.Unix()))
		send(backupSize, prometheus.GaugeValue, float64(b.Bytes))
		send(backupTook, prometheus.GaugeValue, b.Took.Seconds())
	}
}

// Times counts how often something took how long.
type Times struct {
	Count  uint64
	Sum    float64            // seconds
	Counts map[float64]uint64 // how often it took no longer than each bound, in seconds
}

// sent is the times as Prometheus takes them.
func (t Times) sent(d *prometheus.Desc) prometheus.Metric {
	return prometheus.MustNewConstHistogram(d, t.Count, t.Sum, t.Counts)
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

	commits = desc("storage_commits_total", "Transactions committed.")
	syncs   = desc("storage_sync_duration_seconds", "Time of each sync of the storage's log; commits share them.")
	size    = desc("storage_size_bytes", "Size of the storage on disk.")

	liveNodes  = desc("cluster_live_nodes", "Nodes that share the storage and live, as this one sees it.")
	behind     = desc("storage_behind_seconds", "How old at most what this node answers from memory is; beyond one second it asks the storage.")
	clockAhead = desc("cluster_clock_ahead_seconds", "How far this node's clock is ahead of the others'.")

	jobClaims = desc("job_claims", "Shards of a kind of timed work that this node holds.", "kind")
	jobsDue   = desc("jobs_due", "Timed jobs found due when last looked, at most a batch for each shard.", "kind")
	jobLag    = desc("job_lag_seconds", "How long the first timed job that is due has been so.", "kind")
	jobsDone  = desc("jobs_done_total", "Timed jobs that this node finished.", "kind")
	jobFailed = desc("job_failures_total", "Tries of timed jobs that failed on this node.", "kind")
	jobLost   = desc("job_claims_lost_total", "Shards that passed to another node without being given back.", "kind")

	quotaRefused = desc("quota_refused_total", "Requests that a quota refused on this node.", "quota")

	leasesHeld    = desc("leases", "Leases of all nodes, those that end among them until what they are for is gone.")
	leasesFailing = desc("leases_failing", "Leases that could not be taken back yet, and are tried again.")
	leasesAside   = desc("leases_set_aside", "Leases that could not be taken back, and wait for people.")

	cacheHits    = desc("cache_hits_total", "Lookups that a cache answered.", "cache")
	cacheMisses  = desc("cache_misses_total", "Lookups that a cache could not answer.", "cache")
	cacheEntries = desc("cache_entries", "Entries in a cache.", "cache")

	checkpointAge = desc("audit_checkpoint_age_seconds", "Time since the audit log was last signed.")
	auditEntries  = desc("audit_entries", "Entries in the audit log.")
	auditSyncs    = desc("audit_sync_duration_seconds", "Time of each sync of the audit log; entries share them.")

	backupLast     = desc("backup_last_success_timestamp_seconds", "When the last scheduled backup was made and proven.")
	backupSize     = desc("backup_size_bytes", "Size of the last scheduled backup.")
	backupTook     = desc("backup_duration_seconds", "How long the last scheduled backup took to make and prove.")
	backupFailures = desc("backup_failures", "Failures of scheduled backups since the last success.")

	certExpiry = desc("tls_certificate_expiry_timestamp_seconds", "When the listener's TLS certificate expires.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("coffer_"+name, help, labels, nil)
}

// pulled reads the sources whenever the metrics are shown.
type pulled struct{ sources Sources }

// Describe sends the descriptions of all that Collect may send.
func (p *pulled) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, initialized, unsealed, vaultUnsealed, vaultActive, commits, syncs, size, liveNodes, behind, clockAhead,
		jobClaims, jobsDue, jobLag, jobsDone, jobFailed, jobLost, quotaRefused, leasesHeld, leasesFailing, leasesAside, cacheHits, cacheMisses, cacheEntries, checkpointAge, auditEntries, auditSyncs, certExpiry,
		backupLast, backupSize, backupTook, backupFailures} {
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
		to <- s.Syncs.sent(syncs)
		send(size, gauge, float64(s.Bytes))
	}
	if p.sources.Cluster != nil {
		if c, unsealed := p.sources.Cluster(); unsealed {
			send(liveNodes, gauge, float64(c.Live))
			send(behind, gauge, c.Behind.Seconds())
			send(clockAhead, gauge, c.ClockAhead.Seconds())
		}
	}
	if p.sources.Jobs != nil {
		for _, j := range p.sources.Jobs() {
			send(jobClaims, gauge, float64(j.Claims), j.Kind)
			send(jobsDue, gauge, float64(j.Due), j.Kind)
			send(jobLag, gauge, j.Lag.Seconds(), j.Kind)
			send(jobsDone, counter, float64(j.Done), j.Kind)
			send(jobFailed, counter, float64(j.Failed), j.Kind)
			send(jobLost, counter, float64(j.Lost), j.Kind)
		}
	}
	if p.sources.Quotas != nil {
		for name, n := range p.sources.Quotas() {
			send(quotaRefused, counter, float64(n), name)
		}
	}
	if p.sources.Leases != nil {
		if l, known := p.sources.Leases(); known {
			send(leasesHeld, gauge, float64(l.Held))
			send(leasesFailing, gauge, float64(l.Failing))
			send(leasesAside, gauge, float64(l.Aside))
		}
	}
	if p.sources.Caches != nil {
		for _, c := range p.sources.Caches() {
			send(cacheHits, counter, float64(c.Hits), c.Name)
			send(cacheMisses, counter, float64(c.Misses), c.Name)
			send(cacheEntries, gauge, float64(c.Entries), c.Name)
		}
	}
	if p.sources.Audit != nil {
		a := p.sources.Audit()
		send(auditEntries, gauge, float64(a.Entries))
		to <- a.Syncs.sent(auditSyncs)
		if !a.Checkpoint.IsZero() {
			send(checkpointAge, gauge, time.Since(a.Checkpoint).Seconds())
		}
	}
	if p.sources.Backup != nil {
		p.sources.Backup().send(send)
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
