package ldap

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/ldap/ldaptest"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const refusal = "ldap operation failed: failed to bind as user"

type bench struct {
	*enginetest.Engine
	t testing.TB
}

func newBench(t testing.TB) *bench {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() { _ = e.Close() })
	return benchOn(t, e, map[string]string{"lockout_disable": "true"})
}

func benchOn(t testing.TB, e storage.Engine, options map[string]string) *bench {
	return &bench{enginetest.Open(t, Kind().Spec(), enginetest.Options{Storage: e, Mount: engine.Mount{Path: "auth/ldap/", Options: options}}), t}
}

type fields map[string]string

func (f fields) json() string {
	text, _ := json.Marshal(f)
	return string(text)
}

// searching is how most directories are asked.
func searching(d *ldaptest.Directory) fields {
	return fields{
		"url": d.URL, "binddn": ldaptest.BindDN, "bindpass": ldaptest.BindPassword, "userdn": ldaptest.People, "userattr": "uid",
		"groupdn": ldaptest.Groups, "request_timeout": "5s", "connection_timeout": "2s",
	}
}

func (s *bench) configure(f fields) {
	s.t.Helper()
	if a := s.Do("POST", "config", f.json()); a.Err != nil {
		s.t.Fatal(a.Err)
	}
}

func (s *bench) login(name, password string) (auth.Login, error) {
	a := s.As(route.Caller{Remote: netip.MustParseAddr("192.0.2.7")}, "POST", "login/"+name, fields{"password": password}.json())
	out, _ := a.Output.(auth.Login)
	return out, a.Err
}

func (s *bench) accepted(name, password string) auth.Login {
	s.t.Helper()
	out, err := s.login(name, password)
	if err != nil {
		s.t.Errorf("login as %q: %v", name, err)
	}
	return out
}

func (s *bench) refused(name, password string, kind fault.Kind, message string) {
	s.t.Helper()
	if _, err := s.login(name, password); !fault.Is(err, kind) || !strings.Contains(err.Error(), message) {
		s.t.Errorf("login as %.60q: %v, want %q", name, err, message)
	}
}

func TestLogin(t *testing.T) {
	d, s := ldaptest.New(t), newBench(t)
	s.refused("ada", ldaptest.Password, fault.Invalid, "auth method not configured")
	s.configure(searching(d))
	s.Must(t, 204, "POST", "config", `{"token_policies":"everybody","token_ttl":"20m"}`)
	s.Must(t, 204, "POST", "groups/OPERATORS", `{"policies":"Operate,read-all"}`)
	s.Must(t, 204, "POST", "users/Ada", `{"policies":"personal","groups":"local"}`)
	s.Must(t, 204, "POST", "groups/local", `{"policies":"local-policy"}`)
	got := s.accepted(" ADA ", ldaptest.Password)
	if got.Alias != "ada" || !slices.Equal(got.Groups, []string{"Operators", "local", "readers"}) || got.Metadata["username"] != "ada" ||
		!slices.Equal(got.Policies, []string{"everybody", "local-policy", "operate", "personal", "read-all"}) || got.TTL.Duration().Minutes() != 20 {
		t.Errorf("%+v", got)
	}
	got = s.accepted("bob", ldaptest.Password)
	if !slices.Equal(got.Policies, []string{"everybody"}) || !slices.Equal(got.Groups, []string{"readers"}) {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"ada", "nobody", "twin", "coffer", strings.Repeat("x", maxName), strings.Repeat("x", 10_000)} {
		s.refused(name, "wrong", fault.Invalid, refusal)
	}
	s.refused("twin", ldaptest.Password, fault.Invalid, refusal) // two have that name
	s.refused("ada", "", fault.Invalid, "password cannot be of zero length")
	s.configure(fields{"username_as_alias": "true", "token_bound_cidrs": "10.0.0.0/8"})
	s.refused("ada", ldaptest.Password, fault.Denied, "permission denied")
	s.configure(fields{"token_bound_cidrs": "", "userattr": "sn", "userfilter": "(&(objectClass=person)(uid={{ .Username }}))"})
	if got := s.accepted("ADA", ldaptest.Password); got.Alias != "ada" {
		t.Errorf("alias %q", got.Alias)
	}
	s.configure(fields{"username_as_alias": "false"})
	if got := s.accepted("ada", ldaptest.Password); got.Alias != "of ada" {
		t.Errorf("alias %q", got.Alias)
	}
	s.configure(fields{"userattr": "mail"})
	s.refused("ada", ldaptest.Password, fault.Invalid, "mail is missing")
}

// Every way in which users are found takes names for what they are.
func TestHostileNames(t *testing.T) {
	d := ldaptest.New(t)
	ways := map[string]fields{"searching": searching(d)}
	direct := searching(d)
	direct["binddn"], direct["bindpass"] = "", ""
	ways["by DN"] = direct
	anonymous := searching(d)
	anonymous["bindpass"], anonymous["discoverdn"], anonymous["anonymous_group_search"] = "", "true", "true"
	ways["anonymously"] = anonymous
	for way, config := range ways {
		t.Run(way, func(t *testing.T) {
			s := newBench(t)
			s.configure(config)
			for _, name := range []string{"ada", "*", "smith, john", "a)(uid=*", "#1", `back\slash`, "zoë", "ZOË", `plus+quote"`} {
				if got := s.accepted(name, ldaptest.Password); got.Metadata["username"] != strings.ToLower(name) {
					t.Errorf("%q: %+v", name, got)
				}
				s.refused(name, "wrong", fault.Invalid, refusal)
			}
			for _, name := range []string{
				"a*", "ad?", "*)(uid=*", "ada)(|(uid=*", "ada\x00", "\x00", "ada,ou=people", "ada+cn=ADA", "#ada", "\\61da", "a\u200bda",
				" ", "ada\xff", "uid=ada", ldaptest.BindDN, strings.Repeat("*", 500), strings.Repeat("ä", 5000), "(", ")", "&", "|", "!", "=", "~",
			} {
				s.refused(name, ldaptest.Password, fault.Invalid, refusal)
			}
		})
	}
}

// The compatibility forms and spaces that a directory takes for the same name are the
// same name here, so that nobody has two.
func TestOneNameOneUser(t *testing.T) {
	d, s := ldaptest.New(t), newBench(t)
	f := searching(d)
	f["username_as_alias"] = "true"
	s.configure(f)
	for _, name := range []string{"ａｄａ", "Ada", "  ada"} {
		if got := s.accepted(name, ldaptest.Password); got.Alias != "ada" {
			t.Errorf("%q is known as %q", name, got.Alias)
		}
	}
	if got := s.accepted("Smith,   John", ldaptest.Password); got.Alias != "smith, john" {
		t.Errorf("known as %q", got.Alias)
	}
	s.configure(fields{"case_sensitive_names": "true"})
	s.Must(t, 204, "POST", "groups/operators", `{"policies":"lower"}`)
	s.Must(t, 204, "POST", "groups/Operators", `{"policies":"upper"}`)
	if got := s.accepted("ada", ldaptest.Password); !slices.Equal(got.Policies, []string{"upper"}) {
		t.Errorf("policies %q", got.Policies)
	}
}

func TestEncryption(t *testing.T) {
	d, s := ldaptest.New(t), newBench(t)
	f := searching(d)
	f["url"], f["certificate"] = d.TLSURL, d.CA
	s.configure(f)
	s.accepted("ada", ldaptest.Password)
	s.configure(fields{"tls_min_version": "tls13"})
	s.accepted("ada", ldaptest.Password)
	s.configure(fields{"url": d.URL, "starttls": "true"})
	s.accepted("ada", ldaptest.Password)
	s.refused("ada", "wrong", fault.Invalid, refusal)
	for _, address := range []string{d.URL, d.TLSURL, strings.Replace(d.TLSURL, "127.0.0.1", "localhost", 1)} {
		certificate := ""
		if strings.Contains(address, "localhost") { // which the certificate is not of
			certificate = d.CA
		}
		s.configure(fields{"url": address, "certificate": certificate})
		s.refused("ada", ldaptest.Password, fault.Unavailable, "cannot be asked")
	}
	if a := s.Do("POST", "config", `{"insecure_tls":true}`); a.Err != nil || len(a.Warnings) == 0 {
		t.Errorf("no warning: %v", a.Err)
	}
	s.accepted("ada", ldaptest.Password)
	if a := s.Do("POST", "config", `{"url":"ldap://ldap.example.com","insecure_tls":false,"starttls":false}`); a.Err != nil || len(a.Warnings) != 1 {
		t.Errorf("no warning of passwords in clear: %v %q", a.Err, a.Warnings)
	}
}

func TestRenew(t *testing.T) {
	d, s := ldaptest.New(t), newBench(t)
	m := s.State.(*Method)
	s.configure(searching(d))
	s.Must(t, 204, "POST", "groups/operators", `{"policies":"operate"}`)
	ada, bob := s.accepted("ada", ldaptest.Password), s.accepted("bob", ldaptest.Password)
	s.configure(fields{"token_ttl": "3h"})
	now, err := m.Renew(t.Context(), route.Caller{}, ada)
	if err != nil || now.TTL.Duration().Hours() != 3 {
		t.Errorf("%+v %v", now, err)
	}
	denied := func(who auth.Login, kind fault.Kind, why string) {
		t.Helper()
		if _, err := m.Renew(t.Context(), route.Caller{}, who); !fault.Is(err, kind) || !strings.Contains(err.Error(), why) {
			t.Errorf("renewed: %v, want %q", err, why)
		}
	}
	d.Join(t, "bob", "Operators")
	denied(bob, fault.Denied, "policies have changed")
	d.Remove(t, "uid=ada,"+ldaptest.People)
	denied(ada, fault.Denied, "no longer in the directory")
	d.Stop()
	denied(bob, fault.Unavailable, "cannot be asked")
	s.configure(fields{"bindpass": ""})
	denied(bob, fault.Denied, "log in again")
}

func TestConfig(t *testing.T) {
	s := newBench(t)
	a := s.Must(t, 200, "GET", "config", "")
	for _, want := range []string{`"userfilter":"({{.UserAttr}}={{.Username}})"`, `"url":"ldap://127.0.0.1"`, `"request_timeout":90`, `"deny_null_bind":true`} {
		if !strings.Contains(a.Data, want) {
			t.Errorf("config has no %s: %s", want, a.Data)
		}
	}
	s.configure(fields{"url": "LDAPS://a.example.com,ldap://[::1]:3389", "bindpass": "hunter2-hunter2", "binddn": "cn=x"})
	before := s.Must(t, 200, "GET", "config", "").Data
	if strings.Contains(before, "hunter2") || !strings.Contains(before, `"url":"ldaps://a.example.com,ldap://[::1]:3389"`) {
		t.Errorf("config %s", before)
	}
	for field, values := range map[string][]string{
		"url":                          {"", "http://x", "ldap://", "ldap://u:p@x", "ldap://x/dc=y", "ldap://x?y", "x", strings.Repeat("ldap://x,", 16) + "ldap://x"},
		"userdn":                       {"no dn", "ou=x,"},
		"userattr":                     {"", "a b", "uid)(", "uid=*"},
		"groupattr":                    {"", "cn)"},
		"userfilter":                   {"(uid=ada)", "uid={{.Username}}))", "({{.UserDN}}={{.Username}})", "(uid={{printf \"%s\" .Username}})", "(uid={{.Username}}", strings.Repeat("x", maxSetting+1)},
		"groupfilter":                  {"(member={{.UserAttr}})", "(", "(member={{.UserDN}})){{"},
		"tls_min_version":              {"tls11", ""},
		"tls_max_version":              {"tls14"},
		"dereference_aliases":          {"sometimes"},
		"use_token_groups":             {"true"},
		"deny_null_bind":               {"false"},
		"max_page_size":                {"-1", "10001"},
		"request_timeout":              {"0", "999ms", "601s", "-1"},
		"connection_timeout":           {"0", "601"},
		"certificate":                  {"no PEM"},
		"client_tls_cert":              {"alone"},
		"token_ttl":                    {"-1"},
		"use_pre111_group_cn_behavior": {"true"},
	} {
		for _, value := range values {
			if a := s.Do("POST", "config", fields{field: value}.json()); !fault.Is(a.Err, fault.Invalid) {
				t.Errorf("%s=%.60q: %v", field, value, a.Err)
			}
		}
	}
	if a := s.Do("POST", "config", `{"tls_min_version":"tls13","tls_max_version":"tls12"}`); !fault.Is(a.Err, fault.Invalid) {
		t.Error(a.Err)
	}
	if after := s.Must(t, 200, "GET", "config", "").Data; after != before {
		t.Errorf("something was changed: %s", after)
	}
	for _, value := range []string{"1s", "600"} {
		s.configure(fields{"request_timeout": value, "connection_timeout": value, "max_page_size": "10000"})
	}
}

func TestGroupsAndUsers(t *testing.T) {
	s := newBench(t)
	s.Must(t, 204, "POST", "groups/Sales, EU", `{"policies":["B","a","a"]}`)
	if got := s.Must(t, 200, "GET", "groups/sales, eu", "").Data; got != `{"policies":["a","b"]}` {
		t.Error(got)
	}
	s.Must(t, 204, "POST", "users/Ada", `{"policies":"p","groups":"Zoo, apes,apes"}`)
	if got := s.Must(t, 200, "GET", "users/ada", "").Data; !strings.Contains(got, `"groups":"Zoo,apes"`) {
		t.Error(got)
	}
	for _, name := range []string{"a\x00b", " ", strings.Repeat("x", maxName+1)} {
		for _, path := range []string{"users/", "groups/"} {
			if a := s.Do("POST", path+name, `{}`); !fault.Is(a.Err, fault.Invalid) {
				t.Errorf("%s%.20s: %v", path, name, a.Err)
			}
		}
	}
	s.Must(t, 204, "POST", "groups/"+strings.Repeat("x", maxName), `{}`)
	s.configure(fields{"token_policies": "all"})
	var holders []string
	err := s.State.(*Method).Holders(t.Context(), func(h auth.Holder) bool {
		holders = append(holders, h.Path+"="+strings.Join(h.Policies, "+"))
		return true
	})
	slices.Sort(holders)
	if want := []string{"config=all+default", "groups/sales, eu=a+b", "users/ada=p"}; err != nil || !slices.Equal(slices.DeleteFunc(holders, func(h string) bool { return strings.HasPrefix(h, "groups/xx") }), want) {
		t.Errorf("%v %q", err, holders)
	}
	s.Must(t, 204, "DELETE", "users/ada", "")
	s.Must(t, 204, "DELETE", "groups/sales, eu", "")
	s.Must(t, 404, "GET", "users/ada", "")
}

func TestExamples(t *testing.T) {
	d := ldaptest.New(t)
	for _, spec := range Kind().Spec().Routes {
		for _, f := range spec.Fields() {
			if f.Doc == "" {
				t.Errorf("%s %s: the field %s has no doc", spec.Method, spec.Pattern, f.Name)
			}
		}
		s := newBench(t)
		s.configure(searching(d))
		s.Must(t, 204, "POST", "groups/operators", `{}`)
		s.Must(t, 204, "POST", "users/ada", `{}`)
		if spec.Pattern == "locked-users" {
			continue // nobody is; TestLockout looks at it
		}
		a := s.Do(spec.Method, spec.Example.Path, spec.Example.Request)
		if a.Err != nil || a.Spec.Pattern != spec.Pattern || len(a.Warnings) > 0 || spec.Example.Response != "" && spec.Example.Response != a.Data {
			t.Errorf("%s %s: %v, %v %s", spec.Method, spec.Example.Path, a.Err, a.Warnings, a.Data)
		}
	}
}

// Five failures lock a user, in whichever spellings the name came, and a name that
// nobody has; a directory that is away locks nobody.
func TestLockout(t *testing.T) {
	d, e := ldaptest.New(t), memory.New()
	defer e.Close()
	s := benchOn(t, e, nil)
	s.configure(searching(d))
	s.configure(fields{"url": "ldap://127.0.0.1:1"})
	for range 10 {
		s.refused("ada", "wrong", fault.Unavailable, "cannot be asked")
	}
	s.configure(fields{"url": d.URL, "case_sensitive_names": "true"})
	for _, name := range []string{"ada", "ADA", "ａｄａ", " ada", "Ada"} {
		s.refused(name, "wrong", fault.Invalid, refusal)
	}
	for range 5 {
		s.refused("nobody", "wrong", fault.Invalid, refusal)
	}
	s.refused("nobody", "wrong", fault.Denied, "permission denied")
	s.refused("ada", ldaptest.Password, fault.Denied, "permission denied")
	s = benchOn(t, e, nil)
	s.refused("aDa", ldaptest.Password, fault.Denied, "permission denied")
	s.accepted("bob", ldaptest.Password)
	if got := s.Must(t, 200, "LIST", "locked-users", "").Data; !strings.Contains(got, `"keys":["ada"]`) {
		t.Error(got)
	}
	s.Must(t, 204, "POST", "users/Ada/unlock", "")
	s.accepted("ada", ldaptest.Password)
	s.configure(fields{"binddn": "", "bindpass": ""}) // who exists is not known before
	for range 5 {
		s.refused("bob", "wrong", fault.Invalid, refusal)
	}
	s.refused("bob", ldaptest.Password, fault.Denied, "permission denied")
	s.Must(t, 204, "POST", "users/bob/unlock", "")
	s.accepted("bob", ldaptest.Password)
}
