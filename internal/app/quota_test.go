package app_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

func TestQuotas(t *testing.T) {
	s := apptest.Start(t, "")
	token := team(t, s, "web")
	s.Must(t, 204, "POST", "sys/quotas/config", `{"enable_rate_limit_response_headers":true}`)
	s.Must(t, 204, "POST", "sys/quotas/rate-limit/web", `{"path":"web/secret","rate":3,"interval":"1h"}`)
	if a := s.Must(t, 200, "GET", "sys/quotas/rate-limit/web", ""); !strings.Contains(string(a.Data), `"path":"web/secret/"`) || !strings.Contains(string(a.Data), `"interval":3600`) {
		t.Errorf("the quota is %s", a.Data)
	}
	ask := func(headers ...string) *apptest.Answer {
		t.Helper()
		return s.Do(t, "GET", "secret/data/none", token, "", headers...)
	}
	for i := range 3 {
		a := ask(in("web")...)
		if a.Status != 404 || a.Header.Get("X-Ratelimit-Limit") != "3" || a.Header.Get("X-Ratelimit-Remaining") != strconv.Itoa(2-i) {
			t.Errorf("request %d is answered %d %v", i, a.Status, a.Header)
		}
	}
	a := ask(in("web")...)
	if again, err := strconv.Atoi(a.Header.Get("Retry-After")); a.Status != 429 || err != nil || again < 1100 || again > 1200 {
		t.Errorf("over the rate: %d %v %s", a.Status, a.Header, a.Body)
	}
	if !strings.Contains(string(a.Body), `rate limit quota exceeded: quota \"web\"`) {
		t.Errorf("over the rate: %s", a.Body)
	}
	// Neither a token that is none nor another spelling of the path is a way around.
	for _, a := range []*apptest.Answer{
		s.Do(t, "GET", "web/secret/data/none", "hvs.none", ""), s.Do(t, "GET", "web/secret/data/none", "", ""), s.Do(t, "LIST", "web/secret/metadata", s.Root, ""),
	} {
		if a.Status != 429 {
			t.Errorf("past the quota: %d %s", a.Status, a.Body)
		}
	}
	if a := s.Do(t, "GET", "sys/health", "", "", in("web")...); a.Status != 200 {
		t.Errorf("health is counted: %d", a.Status)
	}
	s.Must(t, 404, "GET", "secret/data/none", "")
	metrics := s.Must(t, 200, "GET", "sys/metrics?format=prometheus", "")
	if !strings.Contains(string(metrics.Body), `coffer_quota_refused_total{quota="rate-limit/web"} 4`) {
		t.Error("the refusals are not counted")
	}
	refused := 0
	for _, e := range entries(t, s.Dir+"/audit") {
		if e.Status == 429 {
			refused++
		}
	}
	if refused != 4 {
		t.Errorf("%d refusals are in the audit log", refused)
	}
	// It follows its mount, and ends with it.
	if a := s.Do(t, "POST", "sys/remount", token, `{"from":"secret","to":"moved"}`, in("web")...); a.Status != 200 {
		t.Fatalf("remount: %s", a.Body)
	}
	if a := s.Must(t, 200, "GET", "sys/quotas/rate-limit/web", ""); !strings.Contains(string(a.Data), `"path":"web/moved/"`) {
		t.Errorf("after a move the quota is %s", a.Data)
	}
	if a := s.Do(t, "DELETE", "sys/mounts/moved", token, "", in("web")...); a.Status != 204 {
		t.Fatalf("unmount: %s", a.Body)
	}
	s.Must(t, 404, "GET", "sys/quotas/rate-limit/web", "")
	// A restart keeps quotas; a namespace has no say in them.
	s.Must(t, 204, "POST", "sys/quotas/concurrency/all", `{"max":1}`)
	if a := s.Do(t, "DELETE", "sys/quotas/concurrency/all", token, "", in("web")...); a.Status != 404 {
		t.Errorf("a namespace deletes the server's quota: %d", a.Status)
	}
	s.Stop(t)
	s.Run(t)
	slow := make(chan *apptest.Answer)
	go func() { a, _ := s.Try("GET", "sys/pprof/profile?seconds=1", s.Root, ""); slow <- a }()
	time.Sleep(300 * time.Millisecond)
	if a := s.Do(t, "GET", "secret/data/none", s.Root, ""); a.Status != 429 || !strings.Contains(string(a.Body), "concurrency quota exceeded") {
		t.Errorf("a second request at once: %d %s", a.Status, a.Body)
	}
	if a := <-slow; a == nil || a.Status != 200 {
		t.Errorf("the first: %v", a)
	}
	s.Must(t, 404, "GET", "secret/data/none", "")
	for _, body := range []string{
		`{}`, `{"rate":0}`, `{"rate":-1}`, `{"rate":"NaN"}`, `{"rate":1,"interval":"-1s"}`, `{"rate":1,"path":"nowhere"}`,
		`{"rate":1,"path":"secret","role":"x"}`, `{"rate":1,"role":"x"}`, `{"rate":1,"path":"secret/a*b"}`, `{"rate":1,"group_by":"moon"}`,
		`{"rate":1,"path":"secret","inheritable":true}`, `{"rate":1e300}`,
	} {
		if a := s.Do(t, "POST", "sys/quotas/rate-limit/bad", s.Root, body); a.Status != 400 {
			t.Errorf("%s is answered %d %s", body, a.Status, a.Body)
		}
	}
	s.Must(t, 404, "GET", "sys/quotas/rate-limit/bad", "")
	s.Must(t, 404, "LIST", "sys/quotas/rate-limit", "")
}
