package sys_test

import (
	"fmt"
	"testing"
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
