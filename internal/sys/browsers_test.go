package sys_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/gateway"
)

func TestCORS(t *testing.T) {
	s := ready(t)
	out := s.must(t, 200, s.root, "GET", "sys/config/cors", "")
	if out["enabled"] != false || fmt.Sprint(out["data"]) != "map[enabled:false]" {
		t.Errorf("%v", out)
	}
	// As Vault's Go client sends it, which leaves enabled at false.
	s.must(t, 204, s.root, "PUT", "sys/config/cors", `{"allowed_origins":["https://a.example"],"allowed_headers":["X-Page"],"enabled":false}`)
	out = s.must(t, 200, s.root, "GET", "sys/config/cors", "")
	data := out["data"].(map[string]any)
	if out["enabled"] != true || !slices.Equal(names(data["allowed_origins"]), []string{"https://a.example"}) || !slices.Contains(names(data["allowed_headers"]), "X-Page") || !slices.Contains(names(data["allowed_headers"]), "X-Vault-Token") {
		t.Errorf("%v", out)
	}
	s.must(t, 204, s.root, "POST", "sys/config/cors", `{"allowed_origins":"https://a.example,https://b.example"}`)
	if got := names(s.data(t, "GET", "sys/config/cors", "")["allowed_origins"]); len(got) != 2 {
		t.Errorf("%v", got)
	}
	for body, says := range map[string]string{
		`{}`: "at least one origin", `{"allowed_origins":["*","https://a.example"]}`: "'*' must be the only", `{"allowed_origins":["a.example"]}`: "is no origin",
		`{"allowed_origins":"*","allow_credentials":true}`: "allow_credentials cannot be true", `{"allowed_origins":"*","allowed_headers":["a b"]}`: "is no name of a header",
	} {
		s.refused(t, 400, says, "POST", "sys/config/cors", body)
	}
	if got := names(s.data(t, "GET", "sys/config/cors", "")["allowed_origins"]); len(got) != 2 {
		t.Errorf("a refusal changed it: %v", got)
	}
	nearly := s.user(t, `path "sys/config/*" { capabilities = ["create", "read", "update", "delete", "list"] }`)
	for _, try := range [][2]string{
		{"GET", "sys/config/cors"}, {"POST", "sys/config/cors"}, {"DELETE", "sys/config/cors"}, {"LIST", "sys/config/ui/headers"},
		{"GET", "sys/config/ui/headers/x"}, {"POST", "sys/config/ui/headers/x"}, {"DELETE", "sys/config/ui/headers/x"},
	} {
		s.must(t, 403, nearly, try[0], try[1], "")
	}
	s.must(t, 200, s.root, "POST", "sys/namespaces/team", "")
	for _, path := range []string{"sys/config/cors", "sys/config/ui/headers/x"} {
		s.must(t, 404, s.root, "GET", path, "", func(r *gateway.Request) { r.Namespace = "team" })
	}
	s.must(t, 204, s.root, "DELETE", "sys/config/cors", "")
	s.must(t, 204, s.root, "DELETE", "sys/config/cors", "")
	if out := s.data(t, "GET", "sys/config/cors", ""); out["enabled"] != false || len(out) != 1 {
		t.Errorf("%v", out)
	}
}

func TestUIHeaders(t *testing.T) {
	s := ready(t)
	s.refused(t, 404, `"errors":[]`, "LIST", "sys/config/ui/headers", "")
	out := s.must(t, 200, s.root, "POST", "sys/config/ui/headers/x-frame-options", `{"values":["DENY","SAMEORIGIN"]}`)
	if w := names(out["warnings"]); len(w) != 1 || !strings.Contains(w[0], "no console") {
		t.Errorf("it is not said that nothing is sent: %v", out)
	}
	s.must(t, 200, s.root, "PUT", "sys/config/ui/headers/Content-Security-Policy", `{"values":"default-src 'self', 'none'"}`)
	if got := names(s.data(t, "LIST", "sys/config/ui/headers", "")["keys"]); !slices.Equal(got, []string{"Content-Security-Policy", "X-Frame-Options"}) {
		t.Errorf("%v", got)
	}
	if out := s.data(t, "GET", "sys/config/ui/headers/X-Frame-Options", ""); fmt.Sprint(out) != "map[value:DENY]" {
		t.Errorf("%v", out)
	}
	if out := s.data(t, "GET", "sys/config/ui/headers/X-Frame-Options?multivalue=true", ""); fmt.Sprint(out) != "map[values:[DENY SAMEORIGIN]]" {
		t.Errorf("%v", out)
	}
	if out := s.data(t, "GET", "sys/config/ui/headers/content-security-policy", ""); out["value"] != "default-src 'self', 'none'" {
		t.Errorf("%v", out)
	}
	for name, body := range map[string]string{
		"X-Vault-Token": `{"values":["x"]}`, "Transfer-Encoding": `{"values":["x"]}`, "X-Own": `{"values":["a\r\nb"]}`, "X-Own2": `{}`, "X-Own3": `{"values":{"a":1}}`, "X Own": `{"values":["x"]}`,
	} {
		s.refused(t, 400, "", "POST", "sys/config/ui/headers/"+name, body)
	}
	s.must(t, 204, s.root, "DELETE", "sys/config/ui/headers/X-Frame-Options", "")
	s.refused(t, 404, `"errors":[]`, "GET", "sys/config/ui/headers/X-Frame-Options", "")
}
