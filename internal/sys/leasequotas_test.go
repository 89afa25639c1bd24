package sys_test

import (
	"fmt"
	"testing"
)

// TestLeaseCounts: what is lent counts against the quotas of its path, its mount, its
// namespace and those above, and against what its holder may have.
func TestLeaseCounts(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/bank", `{"type":"bank"}`)
	s.must(t, 204, s.root, "POST", "sys/quotas/lease-count/bank", `{"path":"bank","max_leases":4}`)
	s.must(t, 204, s.root, "POST", "sys/quotas/lease-count/ann", `{"path":"bank/creds/ann","max_leases":1,"type":"lease-count"}`)
	s.must(t, 204, s.root, "POST", "sys/quotas/lease-count/all", `{"max_leases":100}`)
	first := s.borrow(t, s.root, "bank/creds/ann")
	s.refused(t, 429, `lease count quota exceeded: quota \"ann\" allows 1 leases at once, and bank/creds/ann has lent 1`, "GET", "bank/creds/ann", "")
	for i := range 3 {
		s.borrow(t, s.root, fmt.Sprint("bank/creds/b", i))
	}
	s.refused(t, 429, `quota \"bank\" allows 4`, "GET", "bank/creds/c", "")
	for name, want := range map[string]string{
		"ann":  "map[counter:1 inheritable:false max_leases:1 name:ann path:bank/creds/ann role: type:lease-count]",
		"bank": "map[counter:4 inheritable:false max_leases:4 name:bank path:bank/ role: type:lease-count]",
		"all":  "map[counter:4 inheritable:true max_leases:100 name:all path: role: type:lease-count]",
	} {
		if out := s.must(t, 200, s.root, "GET", "sys/quotas/lease-count/"+name, ""); fmt.Sprint(out["data"]) != want {
			t.Errorf("%s is %v", name, out)
		}
	}
	// A lease that ends makes room; a mount that moves keeps what it lent.
	s.must(t, 204, s.root, "POST", "sys/leases/revoke", fmt.Sprintf(`{"lease_id":%q,"sync":true}`, first))
	s.borrow(t, s.root, "bank/creds/ann")
	s.must(t, 200, s.root, "POST", "sys/remount", `{"from":"bank","to":"moved"}`)
	s.refused(t, 429, `quota \"bank\" allows 4 leases at once, and moved/ has lent 4`, "GET", "moved/creds/c", "")
	s.must(t, 204, s.root, "DELETE", "sys/quotas/lease-count/bank", "")
	s.borrow(t, s.root, "moved/creds/c")
	// What one holder may have.
	s.must(t, 204, s.root, "POST", "sys/quotas/config", `{"max_leases_per_entity":5}`)
	s.refused(t, 429, "holds 5 leases, and may hold 5 at once", "GET", "moved/creds/d", "")
	s.must(t, 204, s.root, "POST", "sys/quotas/config", `{"max_leases_per_entity":0}`)
	s.borrow(t, s.root, "moved/creds/d")
	for body, why := range map[string]string{
		`{"path":"moved","max_leases":0}`:                    "max_leases",
		`{"path":"moved"}`:                                   "max_leases",
		`{"path":"none","max_leases":5}`:                     "invalid mount path",
		`{"path":"cubbyhole","max_leases":5}`:                "lends nothing",
		`{"path":"auth/token","max_leases":5}`:               "lends nothing",
		`{"path":"moved","max_leases":5,"group_by":"ip"}`:    "group_by",
		`{"path":"moved","max_leases":5,"role":"x"}`:         "role",
		`{"path":"moved/creds/ann","max_leases":9}`:          "similar properties",
		`{"path":"moved","max_leases":5,"inheritable":true}`: "inheritable",
	} {
		s.refused(t, 400, why, "POST", "sys/quotas/lease-count/bad", body)
	}
	s.refused(t, 400, "max_leases_per_entity", "POST", "sys/quotas/config", `{"max_leases_per_entity":-1}`)
}
