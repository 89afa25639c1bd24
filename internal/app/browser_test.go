package app_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
)

// TestEveryNodeKnowsWhosePagesMayCall changes it on one node and asks as a browser
// does on another, also on one that slept meanwhile.
func TestEveryNodeKnowsWhosePagesMayCall(t *testing.T) {
	const page = "https://portal.example.com"
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 2, e.block, "")
		here, there := c.nodes[0], c.nodes[1]
		allowed := func() bool {
			a := there.Do(t, "OPTIONS", "secret/data/app", "", "", "Origin", page, "Access-Control-Request-Method", "GET")
			return a.Status == 204 && a.Header.Get("Access-Control-Allow-Origin") == page
		}
		within := func(what string, want bool) {
			t.Helper()
			changed := time.Now()
			for asked := changed; allowed() != want; asked = time.Now() {
				if asked.Sub(changed) > barrier.CacheBound {
					t.Fatalf("%s: not known there for longer than %v", what, barrier.CacheBound)
				}
			}
		}
		for range 3 {
			here.Must(t, 204, "POST", "sys/config/cors", `{"allowed_origins":"`+page+`"}`)
			within("allowed", true)
			here.Must(t, 204, "POST", "sys/config/cors", `{"allowed_origins":"https://elsewhere.example.com"}`)
			within("no longer allowed", false)
		}
		here.Must(t, 204, "POST", "sys/config/cors", `{"allowed_origins":"`+page+`"}`)
		within("allowed", true)
		_ = there.cmd.Process.Signal(syscall.SIGSTOP)
		here.Must(t, 204, "POST", "sys/config/cors", `{"allowed_origins":"https://elsewhere.example.com"}`)
		time.Sleep(barrier.CacheBound + 50*time.Millisecond)
		_ = there.cmd.Process.Signal(syscall.SIGCONT)
		if allowed() {
			t.Error("a node that woke up answered a page from what it remembered")
		}

		here.Must(t, 204, "POST", "sys/config/auditing/request-headers/X-Tenant", `{"hmac":false}`)
		eventually(t, "the other node records the header", func() bool {
			there.Do(t, "GET", "secret/data/app", there.Root, "", "X-Tenant", "seven")
			all := entries(t, there.data()+"/audit")
			return strings.Contains(fmt.Sprint(all[len(all)-1].Request.Headers), "x-tenant:[seven]")
		})
	})
}
