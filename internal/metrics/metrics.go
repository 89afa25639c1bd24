// Package metrics measures the server and shows what it measured: to Prometheus
// as text, and to Vault's clients in Vault's JSON shape.
//
// Labels are bounded: a route is the kind of its mount and its pattern, never a
// path, and no metric names a secret, a token or a caller. What other packages
// count by themselves is read from them when it is asked for, through Sources,
// so this package knows none of them. Alerts and dashboards live in deploy/.
package metrics

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// maxRoutes bounds the routes that are told apart; more, which only a bug would
// bring, are counted as "other".
const maxRoutes = 1000

// requestBuckets are latencies in seconds: from a cached read to the end of a
// request's patience.
var requestBuckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 90}

// syncBuckets are latencies of a disk in seconds.
var syncBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}

// Metrics is what is measured of one server.
type Metrics struct {
	registry *prometheus.Registry

	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	denied   *prometheus.CounterVec
	changes  *prometheus.CounterVec
	panics   prometheus.Counter

	auditWrites   prometheus.Histogram
	auditFailures prometheus.Counter

	tokensCreated *prometheus.CounterVec
	tokenLookups  prometheus.Counter
	logins        *prometheus.CounterVec

	routes sync.Map // seriesKey → *series: what one request adds to, found once
	known  atomic.Int64
}

type seriesKey struct {
	route, method string
	status        int
}

type series struct {
	count   prometheus.Counter
	latency prometheus.Observer
}

// New returns metrics that read the rest from sources.
func New(sources Sources) *Metrics {
	m := &Metrics{
		registry:      prometheus.NewRegistry(),
		requests:      counters("requests_total", "Requests answered, by route, method and status code.", "route", "method", "code"),
		latency:       prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "coffer_request_duration_seconds", Help: "Time from a request's last byte to its answer, by route and method.", Buckets: requestBuckets}, []string{"route", "method"}),
		inFlight:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "coffer_requests_in_flight", Help: "Requests that are being answered."}),
		denied:        counters("denied_requests_total", "Requests refused to their caller, by reason: no token, a bad token, no policy, a lockout.", "reason"),
		changes:       counters("secret_changes_total", "Changes of secrets, by kind: write, promote, rollback, delete, undelete, destroy, metadata.", "kind"),
		panics:        counter("request_panics_total", "Requests that failed by a bug."),
		auditWrites:   histogram("audit_write_duration_seconds", "Time until an audit entry was durable."),
		auditFailures: counter("audit_failures_total", "Audit entries that could not be written; their requests were refused."),
		tokensCreated: counters("tokens_created_total", "Tokens created, by type: service or batch.", "type"),
		tokenLookups:  counter("token_lookups_total", "Tokens looked up to find out who calls."),
		logins:        counters("logins_total", "Logins, by auth method's kind and result: success or failure.", "method", "result"),
	}
	m.registry.MustRegister(
		m.requests, m.latency, m.inFlight, m.denied, m.changes, m.panics,
		m.auditWrites, m.auditFailures, m.tokensCreated, m.tokenLookups, m.logins,
		&pulled{sources}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, reason := range []string{"no_token", "bad_token", "policy", "lockout"} {
		m.denied.WithLabelValues(reason)
	}
	for _, kind := range []string{"write", "promote", "rollback", "delete", "undelete", "destroy", "metadata"} {
		m.changes.WithLabelValues(kind)
	}
	return m
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "coffer_" + name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coffer_" + name, Help: help}, labels)
}

func histogram(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coffer_" + name, Help: help, Buckets: syncBuckets})
}

// Begin notes that a request is under way. Finish must follow.
func (m *Metrics) Begin() { m.inFlight.Inc() }

// Finish counts an answered request. Route is the kind of the mount and the
// route's pattern, such as "kv/data/{path...}", and "none" for what has no route;
// method is one of the API's; status is HTTP's.
func (m *Metrics) Finish(route, method string, status int, took time.Duration) {
	m.inFlight.Dec()
	s := m.find(seriesKey{route, method, status})
	s.count.Inc()
	s.latency.Observe(took.Seconds())
}

// find returns the series of a route, method and status without allocating
// when there is one. Routes beyond the bound share one.
func (m *Metrics) find(k seriesKey) *series {
	if s, ok := m.routes.Load(k); ok {
		return s.(*series)
	}
	clean := k
	switch k.method {
	case "GET", "LIST", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS":
	default:
		clean.method = "other" // what a client made up
	}
	if k.status < 100 || k.status > 599 {
		clean.status = 0
	}
	if m.known.Load() >= maxRoutes {
		clean.route = "other"
	}
	s := &series{
		m.requests.WithLabelValues(clean.route, clean.method, strconv.Itoa(clean.status)),
		m.latency.WithLabelValues(clean.route, clean.method),
	}
	if clean == k {
		if _, there := m.routes.LoadOrStore(k, s); !there {
			m.known.Add(1)
		}
	}
	return s
}

// Denied counts a refusal: "no_token", "bad_token", "policy" or "lockout".
func (m *Metrics) Denied(reason string) { m.denied.WithLabelValues(reason).Inc() }

// Changed counts a change of a secret: "write", "promote", "rollback", "delete",
// "undelete", "destroy" or "metadata".
func (m *Metrics) Changed(kind string) { m.changes.WithLabelValues(kind).Inc() }

// Panicked counts a request that failed by a bug.
func (m *Metrics) Panicked() { m.panics.Inc() }

// AuditWritten takes the time until an entry was durable, or that it failed.
func (m *Metrics) AuditWritten(took time.Duration, err error) {
	if err != nil {
		m.auditFailures.Inc()
		return
	}
	m.auditWrites.Observe(took.Seconds())
}

// TokenCreated counts a new token: "service" or "batch".
func (m *Metrics) TokenCreated(kind string) { m.tokensCreated.WithLabelValues(kind).Inc() }

// TokenLookedUp counts a token that was looked up to find out who calls.
func (m *Metrics) TokenLookedUp() { m.tokenLookups.Inc() }

// LoggedIn counts a login by the auth method's kind.
func (m *Metrics) LoggedIn(method string, ok bool) {
	result := "success"
	if !ok {
		result = "failure"
	}
	m.logins.WithLabelValues(method, result).Inc()
}
