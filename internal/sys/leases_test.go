package sys_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRevokePrefix(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/auth/people", `{"type":"userpass"}`)
	s.must(t, 204, s.root, "POST", "sys/auth/people2", `{"type":"userpass"}`)
	login := func(mount, name string) string {
		s.must(t, 204, s.root, "POST", "auth/"+mount+"/users/"+name, `{"password":"correct horse"}`)
		out := s.must(t, 200, "", "POST", "auth/"+mount+"/login/"+name, `{"password":"correct horse"}`)
		return out["auth"].(map[string]any)["client_token"].(string)
	}
	holds := func(tok string) bool {
		status, _, _ := s.ask(t, tok, "GET", "auth/token/lookup-self", "")
		return status == 200
	}
	ann, anna, bob, other := login("people", "ann"), login("people", "anna"), login("people", "bob"), login("people2", "ann")
	made := s.user(t, readApp)
	s.must(t, 403, s.user(t, `path "sys/leases/*" { capabilities = ["update"] }`), "POST", "sys/leases/revoke-prefix/auth/people", "")
	s.refused(t, 400, "prefix is needed", "POST", "sys/leases/revoke-prefix/", `{}`)
	s.must(t, 204, s.root, "PUT", "sys/leases/revoke-prefix/auth/people/login/ann", `{"sync":true}`)
	if holds(ann) || !holds(anna) || !holds(bob) || !holds(other) || !holds(made) {
		t.Errorf("ann %v, anna %v, bob %v, other %v, made %v", holds(ann), holds(anna), holds(bob), holds(other), holds(made))
	}
	s.must(t, 204, s.root, "PUT", "sys/leases/revoke-force/auth/people/", "")
	if holds(anna) || holds(bob) || !holds(other) {
		t.Error("a mount's prefix ends other tokens than its own")
	}
	s.must(t, 204, s.root, "POST", "sys/leases/revoke-prefix/auth/token", "")
	if holds(made) || !holds(s.root) {
		t.Error("the prefix of created tokens leaves one, or ends the root token")
	}
	s.must(t, 204, s.root, "POST", "sys/leases/revoke-prefix/none/x", "")
}

// More tokens than one page holds.
func TestRevokePrefixPages(t *testing.T) {
	s := ready(t)
	var last string
	for i := range 620 {
		out := s.must(t, 200, s.root, "POST", "auth/token/create", fmt.Sprintf(`{"ttl":"1h","display_name":"n%d"}`, i))
		last = out["auth"].(map[string]any)["client_token"].(string)
	}
	s.must(t, 204, s.root, "POST", "sys/leases/revoke-prefix/auth/token/create", "")
	s.must(t, 403, last, "GET", "auth/token/lookup-self", "")
	if left := names(s.data(t, "LIST", "auth/token/accessors", "")["keys"]); len(left) != 1 {
		t.Errorf("%d tokens are left", len(left))
	}
}

// borrow lends an account of the bank mounted at bank/ and returns its lease.
func (s *server) borrow(t *testing.T, tok, path string) string {
	t.Helper()
	out := s.must(t, 200, tok, "GET", path, "")
	if out["lease_duration"] != float64(768*3600) || out["renewable"] != true {
		t.Errorf("lent: %v", out)
	}
	return out["lease_id"].(string)
}

// until waits for what happens in the background.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s did not happen", what)
}

func TestLeases(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/bank", `{"type":"bank"}`)
	id := s.borrow(t, s.root, "bank/creds/ann")
	if !strings.HasPrefix(id, "bank/creds/ann/") {
		t.Errorf("the lease is %s", id)
	}
	out := s.must(t, 200, s.root, "PUT", "sys/leases/lookup", fmt.Sprintf(`{"lease_id":%q}`, id))["data"].(map[string]any)
	if out["id"] != id || out["path"] != "bank/creds/ann" || out["renewable"] != true || out["last_renewal"] != nil || out["ttl"] != float64(768*3600) {
		t.Errorf("looked up: %v", out)
	}
	for list, want := range map[string]string{
		"sys/leases/lookup": "bank/", "sys/leases/lookup/": "bank/", "sys/leases/lookup/bank": "creds/", "sys/leases/lookup/bank/creds/": "ann/",
		"sys/leases/lookup/bank/creds/ann": id[len("bank/creds/ann/"):],
	} {
		if got := names(s.data(t, "LIST", list, "")["keys"]); !slices.Equal(got, []string{want}) {
			t.Errorf("LIST %s: %v", list, got)
		}
	}
	s.must(t, 404, s.root, "LIST", "sys/leases/lookup/none", "")
	s.must(t, 403, s.user(t, `path "sys/leases/*" { capabilities = ["list"] }`), "LIST", "sys/leases/lookup/bank", "")
	for _, path := range []string{"sys/leases/renew", "sys/renew"} {
		answer := s.must(t, 200, s.root, "PUT", path, fmt.Sprintf(`{"lease_id":%q,"increment":60}`, id))
		if answer["lease_id"] != id || answer["lease_duration"] != float64(60) || answer["data"] != nil {
			t.Errorf("%s: %v", path, answer)
		}
	}
	s.must(t, 200, s.root, "PUT", "sys/leases/renew/"+id, "{}")
	if out := s.must(t, 200, s.root, "PUT", "sys/leases/lookup", fmt.Sprintf(`{"lease_id":%q}`, id))["data"].(map[string]any); out["last_renewal"] == nil {
		t.Errorf("after a renewal: %v", out)
	}
	s.refused(t, 400, "lease_id must be specified", "POST", "sys/leases/renew", `{}`)
	s.refused(t, 400, "invalid lease", "POST", "sys/leases/lookup", `{"lease_id":"bank/creds/ann/other"}`)
	s.refused(t, 400, "lease", "POST", "sys/leases/renew", `{"lease_id":"no/such/lease"}`)
	s.must(t, 204, s.root, "POST", "sys/leases/revoke", fmt.Sprintf(`{"lease_id":%q,"sync":true}`, id))
	if left := s.bank.names(); len(left) != 0 {
		t.Errorf("after a revocation there are %q", left)
	}
	s.must(t, 204, s.root, "POST", "sys/leases/revoke", `{"lease_id":"no/such/lease","sync":true}`)

	second := s.borrow(t, s.root, "bank/creds/bob")
	s.must(t, 202, s.root, "PUT", "sys/revoke/"+second, "")
	until(t, "a revocation", func() bool { return len(s.bank.names()) == 0 })
}

// TestLeasesOfTokens: what a token was lent ends with it, and nothing is lent to one
// that ends.
func TestLeasesOfTokens(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/bank", `{"type":"bank"}`)
	parent := s.user(t, `path "bank/creds/*" { capabilities = ["read"] } path "auth/token/create" { capabilities = ["update"] }`)
	child := func(body string) string {
		return s.must(t, 200, parent, "POST", "auth/token/create", body)["auth"].(map[string]any)["client_token"].(string)
	}
	s.borrow(t, parent, "bank/creds/parent")
	s.borrow(t, child(`{}`), "bank/creds/child")
	batch := s.must(t, 200, child(`{"type":"batch","ttl":"1h"}`), "GET", "bank/creds/batch", "")
	if batch["lease_duration"].(float64) > 3600 {
		t.Errorf("a lease outlives the batch token that it was lent to: %v", batch["lease_duration"])
	}
	s.borrow(t, s.root, "bank/creds/other")
	once := child(`{"num_uses":1}`)
	if status, out, _ := s.ask(t, once, "GET", "bank/creds/once", ""); status != 400 || !strings.Contains(fmt.Sprint(out["errors"]), "last use") {
		t.Errorf("lent for the last use of a token: %d %v", status, out)
	}
	s.must(t, 204, s.root, "POST", "auth/token/revoke", fmt.Sprintf(`{"token":%q}`, parent))
	until(t, "the end of the leases", func() bool { return slices.Equal(s.bank.names(), []string{"other"}) })
}

func TestLeasesOfMounts(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/bank", `{"type":"bank"}`)
	for i := range 30 {
		s.borrow(t, s.root, fmt.Sprint("bank/creds/a", i))
	}
	s.bank.refuse("the bank is closed")
	s.refused(t, 400, "the bank is closed", "DELETE", "sys/mounts/bank", "")
	s.borrow(t, s.root, "bank/creds/still")
	trouble := s.data(t, "GET", "sys/leases?type=irrevocable", "")
	if n := trouble["lease_count"].(float64); n == 0 {
		t.Errorf("what the bank refused is not listed: %v", trouble)
	}
	first := trouble["leases"].([]any)[0].(map[string]any)
	if first["error"] != "the bank is closed" || !strings.HasPrefix(first["lease_id"].(string), "bank/creds/a") {
		t.Errorf("listed: %v", first)
	}
	if counts := s.data(t, "GET", "sys/leases/count?type=irrevocable", "")["counts"].(map[string]any); len(counts) != 1 {
		t.Errorf("counted: %v", counts)
	}
	s.refused(t, 400, "limit", "GET", "sys/leases?limit=0", "")
	s.refused(t, 400, "irrevocable", "GET", "sys/leases?type=all", "")
	s.bank.refuse("")
	s.must(t, 204, s.root, "DELETE", "sys/mounts/bank", "")
	if left := s.bank.names(); len(left) != 0 {
		t.Errorf("the mount is gone and left %q", left)
	}

	s.must(t, 204, s.root, "POST", "sys/mounts/other", `{"type":"bank"}`)
	s.borrow(t, s.root, "other/creds/b")
	s.bank.refuse("closed for good")
	s.refused(t, 400, "closed for good", "POST", "sys/leases/revoke-prefix/other/creds", `{"sync":true}`)
	s.must(t, 204, s.root, "POST", "sys/leases/revoke-force/other", "")
	s.must(t, 204, s.root, "DELETE", "sys/mounts/other", "")
	out := s.must(t, 202, s.root, "POST", "sys/leases/tidy", "")
	if !strings.Contains(fmt.Sprint(out["warnings"]), " 0 ended") {
		t.Errorf("tidied: %v", out)
	}
}

func TestLeasesOfNamespaces(t *testing.T) {
	s := ready(t)
	s.must(t, 200, s.root, "POST", "sys/namespaces/team", "")
	s.must(t, 204, s.root, "POST", "team/sys/mounts/bank", `{"type":"bank"}`)
	id := s.borrow(t, s.root, "team/bank/creds/ann")
	if !strings.HasPrefix(id, "team/bank/creds/ann/") {
		t.Fatalf("the lease is %s", id)
	}
	s.must(t, 200, s.root, "POST", "sys/leases/renew", fmt.Sprintf(`{"lease_id":%q}`, id))
	s.must(t, 200, s.root, "POST", "team/sys/leases/renew", fmt.Sprintf(`{"lease_id":%q}`, strings.TrimPrefix(id, "team/")))
	s.bank.refuse("no")
	s.refused(t, 400, "no", "DELETE", "sys/namespaces/team", "")
	if n := s.data(t, "GET", "sys/leases", "")["lease_count"]; n != float64(0) {
		t.Errorf("the root shows %v leases of a namespace", n)
	}
	if n := s.data(t, "GET", "sys/leases?include_child_namespaces=true", "")["lease_count"]; n != float64(1) {
		t.Errorf("with those below it shows %v", n)
	}
	s.bank.refuse("")
	status, out, _ := s.ask(t, s.root, "DELETE", "sys/namespaces/team", "")
	if status >= 300 || len(s.bank.names()) != 0 {
		t.Errorf("%d %v, and left are %q", status, out, s.bank.names())
	}
}
