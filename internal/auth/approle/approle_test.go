package approle

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secretID = "a secret of at least twenty characters"
	badLogin = "invalid role or secret ID"
)

type server struct {
	*enginetest.Engine
	t testing.TB
}

// newServer has the role deploy, whose id is that too, with a secret id.
func newServer(t testing.TB) *server {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() { _ = e.Close() })
	s := &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Storage: e, Mount: engine.Mount{Path: "auth/ci/approle/"}}), t}
	s.Must(t, 204, "POST", "role/Deploy", `{"role_id":"deploy","token_policies":"Web,db","token_ttl":"20m"}`)
	s.Must(t, 200, "POST", "role/deploy/custom-secret-id", `{"secret_id":"`+secretID+`","metadata":{"host":"ci-1"}}`)
	return s
}

func body(roleID, secretID string) string {
	text, _ := json.Marshal(map[string]string{"role_id": roleID, "secret_id": secretID})
	return string(text)
}

func (s *server) login(roleID, secretID string) (auth.Login, error) {
	a := s.As(route.Caller{Remote: netip.MustParseAddr("192.0.2.7")}, "POST", "login", body(roleID, secretID))
	out, _ := a.Output.(auth.Login)
	return out, a.Err
}

func (s *server) refused(roleID, secretID, want string) {
	s.t.Helper()
	if _, err := s.login(roleID, secretID); !fault.Is(err, fault.Invalid) || err.Error() != want {
		s.t.Errorf("login with %q and %q: %v, want %q", roleID, secretID, err, want)
	}
}

func (s *server) accepted(roleID, secretID string) auth.Login {
	s.t.Helper()
	out, err := s.login(roleID, secretID)
	if err != nil {
		s.t.Errorf("login with %q and %q: %v", roleID, secretID, err)
	}
	return out
}

// made is a new secret id.
func (s *server) made(path, request string) (secretID, accessor string) {
	s.t.Helper()
	var out struct {
		ID       string `json:"secret_id"`
		Accessor string `json:"secret_id_accessor"`
	}
	if err := json.Unmarshal([]byte(s.Must(s.t, 200, "POST", path, request).Data), &out); err != nil || out.ID == "" || out.Accessor == "" {
		s.t.Fatalf("%+v %v", out, err)
	}
	return out.ID, out.Accessor
}

// rows are the keys below a prefix.
func (s *server) rows(prefix string) (keys []string) {
	s.t.Helper()
	err := s.Storage.View(context.Background(), func(r storage.Reader) error {
		return storage.All(r, prefix, func(e storage.Entry) error { keys = append(keys, e.Key); return nil })
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return keys
}

func TestLogin(t *testing.T) {
	s := newServer(t)
	got := s.accepted(" deploy ", secretID+"\n")
	if got.Alias != "deploy" || got.DisplayName != "ci-approle" || !slices.Equal(got.Policies, []string{"db", "web"}) || got.TTL.Duration() != 20*time.Minute ||
		got.Metadata["role_name"] != "deploy" || got.Metadata["host"] != "ci-1" {
		t.Errorf("%+v", got)
	}
	s.refused("deploy", "wrong", badLogin)
	s.refused("nobody", secretID, badLogin)
	s.refused("nobody", "wrong", badLogin)
	s.refused("", secretID, "missing role_id")
	s.refused("deploy", "", "missing secret_id")
	s.refused("nobody", "", "missing secret_id") // as with a role that is there
	s.refused(strings.Repeat("x", 100_000), strings.Repeat("y", 100_000), badLogin)
	// A secret id of another role is none of this one.
	s.Must(t, 204, "POST", "role/other", `{"role_id":"other"}`)
	s.refused("other", secretID, badLogin)
}

// Neither a secret id nor anything that is not keyed of one is stored.
func TestSecretIDsAreNotStored(t *testing.T) {
	s := newServer(t)
	id, _ := s.made("role/deploy/secret-id", "")
	err := s.Storage.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "", func(e storage.Entry) error {
			for _, text := range []string{id, secretID} {
				if strings.Contains(e.Key+string(e.Value), text) {
					t.Errorf("%s holds a secret id", e.Key)
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

// However many log in at once, a secret id is good for as many as it says.
func TestUses(t *testing.T) {
	s := newServer(t)
	id, accessor := s.made("role/deploy/secret-id", `{"num_uses":10}`)
	var ok atomic.Int32
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if _, err := s.login("deploy", id); err == nil {
				ok.Add(1)
			} else if err.Error() != badLogin {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if ok.Load() != 10 {
		t.Errorf("%d logins", ok.Load())
	}
	s.Must(t, 404, "POST", "role/deploy/secret-id-accessor/lookup", `{"secret_id_accessor":"`+accessor+`"}`)
	if n := len(s.rows(secretPrefix)) + len(s.rows(accessorPrefix)); n != 2 {
		t.Errorf("%d rows are left", n)
	}
}

func TestNetworks(t *testing.T) {
	s := newServer(t)
	s.Must(t, 204, "POST", "role/deploy", `{"secret_id_bound_cidrs":["192.0.2.0/24"],"token_bound_cidrs":["10.0.0.0/8"]}`)
	near, _ := s.made("role/deploy/secret-id", `{"cidr_list":"192.0.2.7","token_bound_cidrs":["10.1.0.0/16"]}`)
	far, _ := s.made("role/deploy/secret-id", `{"cidr_list":"192.0.2.8/32","num_uses":1}`)
	if got := s.accepted("deploy", near); !slices.Equal(got.BoundCIDRs, []string{"10.1.0.0/16"}) {
		t.Errorf("%+v", got)
	}
	if got := s.accepted("deploy", secretID); !slices.Equal(got.BoundCIDRs, []string{"10.0.0.0/8"}) {
		t.Errorf("%+v", got)
	}
	for range 3 { // a refused login uses nothing up
		s.refused("deploy", far, `source address "192.0.2.7" unauthorized through CIDR restrictions on the secret ID`)
	}
	s.Must(t, 204, "POST", "role/deploy", `{"secret_id_bound_cidrs":["192.0.2.8/32"]}`)
	s.refused("deploy", secretID, `source address "192.0.2.7" unauthorized through CIDR restrictions on the role`)
	for _, bad := range []string{`{"cidr_list":"192.0.0.0/16"}`, `{"cidr_list":"nonsense"}`, `{"token_bound_cidrs":"0.0.0.0/0"}`, `{"token_bound_cidrs":"11.0.0.1"}`} {
		s.Must(t, 400, "POST", "role/deploy/secret-id", bad)
	}
}

func TestLimitsOfSecretIDs(t *testing.T) {
	s := newServer(t)
	s.Must(t, 204, "POST", "role/deploy", `{"secret_id_num_uses":5,"secret_id_ttl":"1h"}`)
	for _, bad := range []string{`{"num_uses":6}`, `{"num_uses":0}`, `{"num_uses":-1}`, `{"ttl":"61m"}`, `{"ttl":0}`, `{"ttl":-1}`, `{"metadata":"nonsense"}`} {
		s.Must(t, 400, "POST", "role/deploy/secret-id", bad)
	}
	if data := s.Must(t, 200, "POST", "role/deploy/secret-id", `{"num_uses":5,"ttl":"1h"}`).Data; !strings.Contains(data, `"secret_id_num_uses":5`) || !strings.Contains(data, `"secret_id_ttl":3600`) {
		t.Error(data)
	}
	for id, status := range map[string]int{strings.Repeat("x", minSecret-1): 400, strings.Repeat("x", minSecret): 200, strings.Repeat("x", maxID): 200, strings.Repeat("x", maxID+1): 400, "": 400, secretID: 400} {
		s.Must(t, status, "POST", "role/deploy/custom-secret-id", fmt.Sprintf(`{"secret_id":%q}`, id))
	}
	s.Must(t, 204, "POST", "role/open", `{"bind_secret_id":false,"secret_id_bound_cidrs":"192.0.2.0/24","role_id":"open"}`)
	s.Must(t, 400, "POST", "role/open/secret-id", "")
	s.accepted("open", "")
	s.accepted("open", "whatever it is")
}

func TestBadRoles(t *testing.T) {
	s := newServer(t)
	for _, bad := range []string{
		`{"secret_id_num_uses":-1}`, `{"secret_id_ttl":"-1s"}`, `{"secret_id_bound_cidrs":"x"}`, `{"bind_secret_id":false}`, `{"role_id":""}`, `{"role_id":"deploy"}`,
		`{"local_secret_ids":true}`, `{"token_ttl":"2h","token_max_ttl":"1h"}`, `{"token_type":"x"}`, `{"role_id":"` + strings.Repeat("x", maxID+1) + `"}`,
	} {
		s.Must(t, 400, "POST", "role/new", bad)
	}
	for _, name := range []string{"-x", "x-", "a%20b", strings.Repeat("x", 257), "a..b."} {
		s.Must(t, 400, "POST", "role/"+name, `{}`)
	}
	if rows := s.rows(rolePrefix); len(rows) != 1 {
		t.Errorf("%v", rows)
	}
	if a := s.Must(t, 200, "POST", "role/warned", `{"token_type":"default-batch"}`); len(a.Warnings) != 1 || !strings.Contains(s.Must(t, 200, "GET", "role/warned", "").Data, `"token_type":"batch"`) {
		t.Errorf("%v", a.Warnings)
	}
}

func TestRolesHaveVaultsShape(t *testing.T) {
	s := newServer(t)
	s.Must(t, 204, "POST", "role/old", `{"policies":"a","period":"1h","bound_cidr_list":"10.0.0.0/8"}`)
	const want = `{"bind_secret_id":true,"local_secret_ids":false,"secret_id_bound_cidrs":["10.0.0.0/8"],"secret_id_num_uses":0,"secret_id_ttl":0,` +
		`"token_ttl":0,"token_max_ttl":0,"token_explicit_max_ttl":0,"token_period":3600,"token_num_uses":0,"token_bound_cidrs":[],"token_type":"default",` +
		`"token_no_default_policy":false,"token_policies":["a"],"policies":["a"],"period":3600}`
	if diff := enginetest.Differs(want, s.Must(t, 200, "GET", "role/OLD", "").Data); diff != "" {
		t.Error(diff)
	}
	if data := s.Must(t, 200, "LIST", "role", "").Data; data != `{"keys":["deploy","old"]}` {
		t.Error(data)
	}
	s.Must(t, 404, "GET", "role/none", "")
	s.Must(t, 404, "GET", "role/none/role-id", "")
}

func TestRoleIDs(t *testing.T) {
	s := newServer(t)
	s.Must(t, 204, "POST", "role/other", "")
	s.Must(t, 400, "POST", "role/other/role-id", `{"role_id":"deploy"}`)
	s.Must(t, 400, "POST", "role/other/role-id", `{}`)
	s.Must(t, 404, "POST", "role/none/role-id", `{"role_id":"x"}`)
	s.Must(t, 204, "POST", "role/deploy/role-id", `{"role_id":"deploy"}`)
	s.Must(t, 204, "POST", "role/deploy/role-id", `{"role_id":"renamed"}`)
	s.refused("deploy", secretID, badLogin)
	s.accepted("renamed", secretID)
	s.Must(t, 204, "POST", "role/other/role-id", `{"role_id":"deploy"}`)
	s.refused("deploy", secretID, badLogin)
}

func TestAccessors(t *testing.T) {
	s := newServer(t)
	id, accessor := s.made("role/deploy/secret-id", `{"metadata":"{\"a\":\"b\"}","num_uses":3,"ttl":"1h"}`)
	if data := s.Must(t, 200, "LIST", "role/deploy/secret-id", "").Data; !strings.Contains(data, accessor) || strings.Contains(data, id) {
		t.Error(data)
	}
	want := `{"secret_id_accessor":"` + accessor + `","secret_id_num_uses":2,"secret_id_ttl":3600,"creation_time":"2026-01-01T00:00:00Z","expiration_time":"2026-01-01T00:00:00Z",` +
		`"last_updated_time":"2026-01-01T00:00:00Z","metadata":{"a":"b"},"cidr_list":[],"token_bound_cidrs":[]}`
	s.accepted("deploy", id)
	for path, request := range map[string]string{"secret-id/lookup": `{"secret_id":"` + id + `"}`, "secret-id-accessor/lookup": `{"secret_id_accessor":"` + accessor + `"}`} {
		if diff := enginetest.Differs(want, s.Must(t, 200, "POST", "role/deploy/"+path, request).Data); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	s.Must(t, 204, "POST", "role/deploy/secret-id/lookup", `{"secret_id":"unknown"}`)
	s.Must(t, 400, "POST", "role/deploy/secret-id/lookup", `{}`)
	s.Must(t, 400, "POST", "role/none/secret-id/lookup", `{"secret_id":"unknown"}`)
	s.Must(t, 404, "POST", "role/deploy/secret-id-accessor/lookup", `{"secret_id_accessor":"unknown"}`)
	s.Must(t, 204, "POST", "role/other", "")
	s.Must(t, 404, "POST", "role/other/secret-id-accessor/lookup", `{"secret_id_accessor":"`+accessor+`"}`)
	s.Must(t, 404, "LIST", "role/other/secret-id", "")
	s.Must(t, 204, "POST", "role/other/secret-id/destroy", `{"secret_id":"`+id+`"}`) // which it is not of
	s.accepted("deploy", id)
	s.Must(t, 204, "DELETE", "role/deploy/secret-id-accessor/destroy?secret_id_accessor="+accessor, "")
	s.refused("deploy", id, badLogin)
	s.Must(t, 404, "POST", "role/deploy/secret-id-accessor/destroy", `{"secret_id_accessor":"`+accessor+`"}`)
	s.Must(t, 204, "POST", "role/deploy/secret-id/destroy", `{"secret_id":"`+secretID+`"}`)
	s.refused("deploy", secretID, badLogin)
	if rows := append(s.rows(secretPrefix), s.rows(accessorPrefix)...); len(rows) != 0 {
		t.Errorf("%v", rows)
	}
}

// A secret id ends on time, and its rows are removed.
func TestSecretIDsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		id, accessor := s.made("role/deploy/secret-id", `{"ttl":"10m"}`)
		stop := s.Run(t)
		time.Sleep(10*time.Minute - time.Second)
		s.accepted("deploy", id)
		time.Sleep(2 * time.Second)
		s.refused("deploy", id, badLogin)
		s.Must(t, 204, "POST", "role/deploy/secret-id/lookup", `{"secret_id":"`+id+`"}`)
		s.Must(t, 204, "POST", "role/deploy/secret-id-accessor/lookup", `{"secret_id_accessor":"`+accessor+`"}`)
		if n := len(s.rows(secretPrefix)); n != 2 {
			t.Errorf("%d rows before they are tidied", n)
		}
		a := s.Do("POST", "tidy/secret-id", "")
		synctest.Wait()
		if n := len(s.rows(secretPrefix)) + len(s.rows(accessorPrefix)); a.Status != 202 || n != 2 {
			t.Errorf("%d: %d rows afterwards", a.Status, n)
		}
		s.accepted("deploy", secretID)
		again, _ := s.made("role/deploy/secret-id", `{"ttl":"10m"}`)
		time.Sleep(2 * time.Hour)
		if n := len(s.rows(secretPrefix)); n != 1 {
			t.Errorf("%d rows after two hours", n)
		}
		s.Must(t, 200, "POST", "role/deploy/custom-secret-id", fmt.Sprintf(`{"secret_id":%q}`, again)) // which is free again
		stop()
	})
}

// A role that was deleted, and one that was made in its place, know its secret ids
// no more.
func TestDeletedRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		for i := range 250 {
			s.Must(t, 200, "POST", "role/deploy/custom-secret-id", fmt.Sprintf(`{"secret_id":"the secret with number %04d"}`, i))
		}
		granted := s.accepted("deploy", secretID)
		roles := s.State.(*Roles)
		if renewed, err := roles.Renew(t.Context(), route.Caller{}, granted); err != nil || renewed.TTL != granted.TTL {
			t.Errorf("%+v %v", renewed, err)
		}
		stop := s.Run(t)
		s.Must(t, 204, "DELETE", "role/deploy", "")
		s.Must(t, 204, "DELETE", "role/deploy", "")
		s.refused("deploy", secretID, badLogin)
		if _, err := roles.Renew(t.Context(), route.Caller{}, granted); !fault.Is(err, fault.Denied) {
			t.Errorf("renewed: %v", err)
		}
		s.Must(t, 204, "POST", "role/deploy", `{"role_id":"deploy"}`)
		s.refused("deploy", secretID, badLogin)
		synctest.Wait()
		if rows := s.rows(""); len(rows) != 2 {
			t.Errorf("%d rows are left: %v", len(rows), rows[:min(len(rows), 5)])
		}
		stop()
	})
}

func TestFields(t *testing.T) {
	s := newServer(t)
	initial := s.Must(t, 200, "GET", "role/deploy", "").Data
	s.Must(t, 204, "DELETE", "role/deploy/policies", "")
	s.Must(t, 204, "DELETE", "role/deploy/token-ttl", "")
	plain := s.Must(t, 200, "GET", "role/deploy", "").Data
	if plain == initial {
		t.Error("nothing was reset")
	}
	for _, f := range fields {
		path := "role/deploy/" + f.path
		s.Must(t, 204, "POST", path, fmt.Sprintf(`{%q:%s,"token_explicit_max_ttl":"5s"}`, f.name, f.example))
		if data, want := s.Must(t, 200, "GET", path, "").Data, fmt.Sprintf(`{%q:%s}`, f.name, f.example); data != want {
			t.Errorf("%s is %s, want %s", path, data, want)
		}
		s.Must(t, 400, "POST", path, `{"token_explicit_max_ttl":"5s"}`)
		s.Must(t, 204, "DELETE", path, "")
		if now := s.Must(t, 200, "GET", "role/deploy", "").Data; now != plain {
			t.Errorf("%s leaves %s, want %s", path, now, plain)
		}
		for _, method := range []string{"GET", "POST", "DELETE"} {
			s.Must(t, 404, method, "role/none/"+f.path, fmt.Sprintf(`{%q:%s}`, f.name, f.example))
		}
	}
	s.Must(t, 400, "POST", "role/deploy/bind-secret-id", `{"bind_secret_id":false}`)
	s.Must(t, 400, "POST", "role/deploy/token-bound-cidrs", `{"token_bound_cidrs":"x"}`)
}

// What the reference shows is answered.
func TestExamples(t *testing.T) {
	for _, spec := range Kind.Spec().Routes {
		s := newServer(t)
		_, accessor := s.made("role/deploy/secret-id", "")
		with := strings.NewReplacer("the-accessor", accessor, `"another secret`, `"quite another secret`)
		a := s.Do(spec.Method, with.Replace(spec.Example.Path), with.Replace(spec.Example.Request))
		if a.Err != nil || a.Spec.Pattern != spec.Pattern || len(a.Warnings) > 0 && a.Status != 202 {
			t.Errorf("%s %s: %v, %v", spec.Method, spec.Example.Path, a.Err, a.Warnings)
		}
		for _, f := range spec.Fields() {
			if f.Doc == "" {
				t.Errorf("%s %s: the field %s has no doc", spec.Method, spec.Pattern, f.Name)
			}
		}
	}
}
