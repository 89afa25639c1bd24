package app_test

import (
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

func TestConditionsOfPolicies(t *testing.T) {
	s := apptest.Start(t, "")
	s.Must(t, 200, "POST", "secret/data/a", `{"data":{"k":"v"}}`)
	reads := func(condition string) *apptest.Answer {
		t.Helper()
		token := s.Token(t, map[string]string{"p": "path \"secret/a\" {\n capabilities = [\"read\"]\n condition = \"" + condition + "\"\n}"})
		return s.Do(t, "GET", "secret/data/a", token, "")
	}
	for condition, status := range map[string]int{
		`in_cidr(request.remote_address, \"127.0.0.0/8\")`:                           200,
		`in_cidr(request.remote_address, \"10.0.0.0/8\")`:                            403,
		`now > timestamp(\"2020-01-01T00:00:00Z\") && request.operation == \"read\"`: 200,
		`request.path == \"secret/data/a\" && identity.token_type == \"service\"`:    200,
		`\"p\" in identity.policies && identity.entity.id == \"\"`:                   200,
		`identity.entity.metadata.team == \"web\"`:                                   403,
	} {
		if a := reads(condition); a.Status != status || strings.Contains(string(a.Body), "condition") {
			t.Errorf("%s: %d %s", condition, a.Status, a.Body)
		}
	}
	a := reads(`in_cidr(request.remote_address, \"10.0.0.0/8\")`)
	why := s.Must(t, 200, "POST", "sys/policies/why", `{"request_id":"`+a.ID+`"}`)
	if !strings.Contains(string(why.Data), "the condition of rule secret/a of policy p is not met") {
		t.Errorf("why: %s", why.Data)
	}
	if a := s.Do(t, "POST", "sys/policies/acl/p", s.Root, `{"policy":"path \"a\" { condition = \"nothing\" }"}`); a.Status != 400 || !strings.Contains(string(a.Body), "undeclared reference") {
		t.Errorf("a condition that is none: %d %s", a.Status, a.Body)
	}
	// Of an entity and its groups.
	userOf(t, s, "ada", "p")
	ada := login(t, s, "ada")
	s.Must(t, 204, "POST", "identity/entity/id/"+ada.Auth.EntityID, `{"metadata":{"team":"web"}}`)
	s.Must(t, 200, "POST", "identity/group", `{"name":"oncall","member_entity_ids":"`+ada.Auth.EntityID+`"}`)
	reads(`identity.entity.metadata.team == \"web\" && \"oncall\" in identity.groups`)
	if a := s.Do(t, "GET", "secret/data/a", ada.Auth.Token, ""); a.Status != 200 {
		t.Errorf("of the team and on call: %d %s", a.Status, a.Body)
	}
	s.Must(t, 204, "DELETE", "identity/group/name/oncall", "")
	if a := s.Do(t, "GET", "secret/data/a", ada.Auth.Token, ""); a.Status != 403 {
		t.Errorf("no longer on call: %d", a.Status)
	}
}
