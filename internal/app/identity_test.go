package app_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// userOf makes a user who can log in, and returns the accessor of the method.
func userOf(t *testing.T, s *apptest.Server, name string, policies ...string) (accessor string) {
	t.Helper()
	s.Do(t, "POST", "sys/auth/userpass", s.Root, `{"type":"userpass"}`)
	body, _ := json.Marshal(map[string]any{"password": "correct horse", "token_policies": policies})
	s.Must(t, 204, "POST", "auth/userpass/users/"+name, string(body))
	var mount struct {
		Data struct {
			Accessor string `json:"accessor"`
		} `json:"data"`
	}
	into(t, s.Must(t, 200, "GET", "sys/auth/userpass", ""), &mount)
	return mount.Data.Accessor
}

func into(t *testing.T, a *apptest.Answer, out any) {
	t.Helper()
	if err := json.Unmarshal(a.Body, out); err != nil {
		t.Fatalf("%s: %v", a.Body, err)
	}
}

// loggedIn is the auth block of a login.
type loggedIn struct {
	Auth struct {
		Token            string   `json:"client_token"`
		EntityID         string   `json:"entity_id"`
		Policies         []string `json:"policies"`
		TokenPolicies    []string `json:"token_policies"`
		IdentityPolicies []string `json:"identity_policies"`
	} `json:"auth"`
}

func login(t *testing.T, s *apptest.Server, name string) (out loggedIn) {
	t.Helper()
	into(t, s.Must(t, 200, "POST", "auth/userpass/login/"+name, `{"password":"correct horse"}`), &out)
	return out
}

func TestAnEntityAndItsGroupsAddTheirPolicies(t *testing.T) {
	s := apptest.Start(t, "")
	userOf(t, s, "ada", "own")
	for name, path := range map[string]string{
		"own": "secret/data/own", "team": "secret/data/team", "company": "secret/data/company",
		"private": `secret/data/users/{{identity.entity.name}}/*`,
	} {
		s.Must(t, 204, "PUT", "sys/policies/acl/"+name, policyBody(t, path))
	}
	ada := login(t, s, "ada")
	if ada.Auth.EntityID == "" || len(ada.Auth.IdentityPolicies) != 0 {
		t.Fatalf("the first login: %+v", ada.Auth)
	}
	if again := login(t, s, "ada"); again.Auth.EntityID != ada.Auth.EntityID {
		t.Errorf("a second login is another entity: %s, %s", again.Auth.EntityID, ada.Auth.EntityID)
	}
	for _, path := range []string{"own", "team", "company", "users/ada/x"} {
		s.Must(t, 200, "POST", "secret/data/"+path, `{"data":{"k":"v"}}`)
	}
	reads := func(path string, status int) {
		t.Helper()
		if a := s.Do(t, "GET", "secret/data/"+path, ada.Auth.Token, ""); a.Status != status {
			t.Errorf("%s is answered %d, want %d: %s", path, a.Status, status, a.Body)
		}
	}
	reads("own", 200)
	reads("team", 403)
	s.Must(t, 204, "POST", "identity/entity/id/"+ada.Auth.EntityID, `{"name":"ada","policies":"private"}`)
	var group struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	into(t, s.Must(t, 200, "POST", "identity/group", `{"name":"team","policies":"team","member_entity_ids":"`+ada.Auth.EntityID+`"}`), &group)
	into(t, s.Must(t, 200, "POST", "identity/group", `{"name":"company","policies":"company","member_group_ids":"`+group.Data.ID+`"}`), &group)
	for _, path := range []string{"own", "team", "company", "users/ada/x"} {
		reads(path, 200)
	}
	reads("users/bob/x", 403)
	ada = login(t, s, "ada")
	if want := []string{"company", "private", "team"}; !slices.Equal(ada.Auth.IdentityPolicies, want) {
		t.Errorf("identity_policies are %v, want %v", ada.Auth.IdentityPolicies, want)
	}
	self := s.Do(t, "GET", "auth/token/lookup-self", ada.Auth.Token, "")
	if !strings.Contains(string(self.Body), `"identity_policies":["company","private","team"]`) {
		t.Errorf("lookup-self says %s", self.Body)
	}
	s.Must(t, 204, "DELETE", "identity/group/name/team", "")
	reads("team", 403)
	reads("company", 403)
	s.Must(t, 204, "POST", "identity/entity/name/ada", `{"disabled":true}`)
	reads("own", 403)
	if a := s.Do(t, "POST", "auth/userpass/login/ada", "", `{"password":"correct horse"}`); a.Status != 403 {
		t.Errorf("a disabled entity logs in: %s", a.Body)
	}
	s.Must(t, 204, "POST", "identity/entity/name/ada", `{"disabled":false}`)
	reads("own", 200)
	s.Must(t, 204, "DELETE", "identity/entity/name/ada", "")
	reads("own", 403)
}

func policyBody(t *testing.T, path string) string {
	t.Helper()
	rules := `path "` + path + `" { capabilities = ["read"] }`
	body, err := json.Marshal(map[string]string{"policy": rules})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
