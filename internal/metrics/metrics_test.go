package metrics

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func full() *Metrics {
	m := New(Sources{
		Version: "1.0.0",
		Seal:    func() Seal { return Seal{Initialized: true, Unsealed: true, Active: true} },
		Storage: func() Storage {
			return Storage{Commits: 7, Syncs: Times{3, .2, map[float64]uint64{.001: 1, .01: 2}}, Bytes: 4096}
		},
		Caches: func() []Cache { return []Cache{{"tokens", 10, 2, 5}, {"policies", 1, 1, 1}} },
		Audit: func() Audit {
			return Audit{Entries: 12, Syncs: Times{2, .001, map[float64]uint64{.001: 2}}, Checkpoint: time.Now().Add(-3 * time.Second)}
		},
		CertExpiry: func() time.Time { return time.Unix(2_000_000_000, 0) },
		Leases:     func() (Leases, bool) { return Leases{Held: 9, Failing: 3, Aside: 2}, true },
	})
	m.Begin()
	m.Finish("kv/data/{path...}", "GET", 200, 3*time.Millisecond)
	m.Begin()
	m.Finish("kv/data/{path...}", "GET", 403, time.Millisecond)
	m.Begin() // stays under way
	m.Denied("policy")
	m.Changed("write")
	m.Panicked()
	m.AuditWritten(200*time.Microsecond, nil)
	m.AuditWritten(0, errors.New("disk full"))
	m.TokenCreated("service")
	m.TokenLookedUp()
	m.LoggedIn("userpass", true)
	m.LoggedIn("userpass", false)
	return m
}

func text(t *testing.T, m *Metrics) string {
	t.Helper()
	contentType, body, err := m.Show("prometheus")
	if err != nil || !strings.HasPrefix(contentType, "text/plain; version=0.0.4") {
		t.Fatalf("%q, %v", contentType, err)
	}
	return string(body)
}

func TestEverythingIsShown(t *testing.T) {
	got := text(t, full())
	for _, want := range []string{
		`coffer_requests_total{code="200",method="GET",route="kv/data/{path...}"} 1`,
		`coffer_requests_total{code="403",method="GET",route="kv/data/{path...}"} 1`,
		`coffer_request_duration_seconds_bucket{method="GET",route="kv/data/{path...}",le="0.0025"} 1`,
		`coffer_request_duration_seconds_count{method="GET",route="kv/data/{path...}"} 2`,
		`coffer_requests_in_flight 1`, `coffer_denied_requests_total{reason="policy"} 1`, `coffer_denied_requests_total{reason="bad_token"} 0`,
		`coffer_secret_changes_total{kind="write"} 1`, `coffer_request_panics_total 1`,
		`coffer_audit_write_duration_seconds_count 1`, `coffer_audit_failures_total 1`, `coffer_audit_checkpoint_age_seconds 3`,
		`coffer_audit_entries 12`, `coffer_audit_sync_duration_seconds_count 2`, `coffer_storage_sync_duration_seconds_bucket{le="0.01"} 2`,
		`coffer_storage_commits_total 7`, `coffer_storage_sync_duration_seconds_count 3`, `coffer_storage_size_bytes 4096`,
		`coffer_cache_hits_total{cache="tokens"} 10`, `coffer_cache_misses_total{cache="tokens"} 2`,
		`coffer_cache_entries{cache="policies"} 1`, `coffer_tokens_created_total{type="service"} 1`, `coffer_token_lookups_total 1`,
		`coffer_logins_total{method="userpass",result="failure"} 1`, `coffer_unsealed 1`, `coffer_initialized 1`,
		`coffer_leases 9`, `coffer_leases_failing 3`, `coffer_leases_set_aside 2`,
		`vault_core_unsealed 1`, `vault_core_active 1`, `coffer_build_info{version="1.0.0"} 1`,
		`coffer_tls_certificate_expiry_timestamp_seconds 2e+09`, `go_goroutines`, `process_resident_memory_bytes`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// The checks that "promtool check metrics" makes.
func TestNamesFollowTheConventions(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(text(t, full()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestVaultShape(t *testing.T) {
	contentType, body, err := full().Show("")
	if err != nil || contentType != "application/json" {
		t.Fatalf("%q, %v", contentType, err)
	}
	var s Summary
	if err := json.Unmarshal(body, &s); err != nil {
		t.Fatal(err)
	}
	if s.Points == nil || !strings.Contains(string(body), `"Points":[]`) {
		t.Error("Points is not an empty list")
	}
	if _, err := time.Parse("2006-01-02 15:04:05 -0700 MST", s.Timestamp); err != nil {
		t.Error(err)
	}
	found := map[string]float64{}
	for _, g := range s.Gauges {
		found[g.Name] = g.Value
	}
	for _, c := range append(s.Counters, s.Samples...) {
		found[c.Name] += float64(c.Count)
		if c.Name == "coffer_request_duration_seconds" && (c.Min != .0005 || c.Max != .005 || c.Mean < .0019 || c.Mean > .0021) {
			t.Errorf("the distribution is %+v", c)
		}
	}
	for name, want := range map[string]float64{"vault_core_unsealed": 1, "coffer_requests_total": 2, "coffer_request_duration_seconds": 2, "coffer_storage_commits_total": 7} {
		if found[name] != want {
			t.Errorf("%s is %v, want %v", name, found[name], want)
		}
	}
}

func TestLabelsAreBounded(t *testing.T) {
	m := New(Sources{})
	var work sync.WaitGroup
	for w := range 4 {
		work.Go(func() {
			for i := range 2000 {
				m.Begin()
				m.Finish(fmt.Sprintf("kind/%d", i), "GET", 200, time.Millisecond)
				m.Begin()
				m.Finish("kv/data/{path...}", fmt.Sprintf("METHOD%d-%d", w, i), 200+i, time.Millisecond)
			}
		})
	}
	work.Wait()
	got := text(t, m)
	// Each of two routes, the known one and "other", with every status from 100 on.
	if n := strings.Count(got, "\ncoffer_requests_total{"); n > maxRoutes+2*500 {
		t.Errorf("%d series", n)
	}
	if strings.Contains(got, "METHOD") {
		t.Error("a made-up method became a label")
	}
	if !strings.Contains(got, `method="GET",route="other"`) || !strings.Contains(got, "coffer_requests_in_flight 0\n") {
		t.Error("what is beyond the bound is not counted")
	}
}

func TestServeHTTP(t *testing.T) {
	m := full()
	for query, want := range map[string]string{"?format=prometheus": "# HELP", "?format=openmetrics": "# EOF", "": `{"Timestamp"`, "?format=xml": `{"errors":["the format`} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest("GET", "/v1/sys/metrics"+query, nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%q: %d %.100s", query, w.Code, w.Body)
		}
		if (w.Code == 400) != strings.Contains(query, "xml") {
			t.Errorf("%q: status %d", query, w.Code)
		}
	}
}

// Sources that are not there leave their metrics out, and nothing fails.
func TestNoSources(t *testing.T) {
	if got := text(t, New(Sources{})); strings.Contains(got, "vault_core_unsealed") || !strings.Contains(got, "coffer_build_info") {
		t.Error(got)
	}
}

func BenchmarkFinish(b *testing.B) {
	m := New(Sources{})
	b.ReportAllocs()
	for b.Loop() {
		m.Begin()
		m.Finish("kv/data/{path...}", "GET", 200, time.Millisecond)
	}
}
