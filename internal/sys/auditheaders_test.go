package sys_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cofferhq/coffer/internal/gateway"
)

func TestAuditHeaders(t *testing.T) {
	s := ready(t)
	const path = "sys/config/auditing/request-headers"
	if out := s.data(t, "GET", path, ""); fmt.Sprint(out) != "map[headers:map[]]" {
		t.Errorf("%v", out)
	}
	s.refused(t, 404, `"errors":[]`, "LIST", path, "")
	s.refused(t, 400, "Could not find header in config", "GET", path+"/X-Forwarded-For", "")
	s.must(t, 204, s.root, "PUT", path+"/X-Forwarded-For", `{"hmac":false}`)
	s.must(t, 204, s.root, "POST", path+"/user-agent", "")
	s.must(t, 204, s.root, "POST", path+"/X-Other", `{"hmac":"true"}`)
	if out := s.must(t, 200, s.root, "GET", path+"/X-Forwarded-For", ""); fmt.Sprint(out["data"]) != "map[X-Forwarded-For:map[hmac:false]]" || fmt.Sprint(out["X-Forwarded-For"]) != "map[hmac:false]" {
		t.Errorf("%v", out)
	}
	if out := s.data(t, "GET", path, ""); fmt.Sprint(out["headers"]) != "map[user-agent:map[hmac:true] x-forwarded-for:map[hmac:false] x-other:map[hmac:true]]" {
		t.Errorf("%v", out)
	}
	if got := names(s.data(t, "LIST", path, "")["keys"]); !slices.Equal(got, []string{"user-agent", "x-forwarded-for", "x-other"}) {
		t.Errorf("%v", got)
	}
	for name, says := range map[string]string{"X-Vault-Token": "is never recorded", "Authorization": "is never recorded", "Cookie": "is never recorded", "a b": "is no name of a header"} {
		s.refused(t, 400, says, "POST", path+"/"+name, `{"hmac":true}`)
	}
	s.refused(t, 400, "hmac", "POST", path+"/X-Other", `{"hmac":"perhaps"}`)
	nearly := s.user(t, `path "sys/config/*" { capabilities = ["create", "read", "update", "delete", "list"] }`)
	for _, try := range [][2]string{{"GET", path}, {"LIST", path}, {"GET", path + "/user-agent"}, {"POST", path + "/user-agent"}, {"DELETE", path + "/user-agent"}} {
		s.must(t, 403, nearly, try[0], try[1], "")
	}
	s.must(t, 200, s.root, "POST", "sys/namespaces/team", "")
	s.must(t, 404, s.root, "GET", path, "", func(r *gateway.Request) { r.Namespace = "team" })
	s.must(t, 204, s.root, "DELETE", path+"/X-OTHER", "")
	s.must(t, 204, s.root, "DELETE", path+"/X-OTHER", "")
	s.refused(t, 400, "Could not find", "GET", path+"/X-Other", "")
}
