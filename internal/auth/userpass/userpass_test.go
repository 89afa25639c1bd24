package userpass

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/attempts"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/wire"
	wirejson "github.com/go-json-experiment/json"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cheap keeps the tests short; TestStandardCost looks at the real one.
var cheap = cost{memory: 64, passes: 1, lanes: 1}

type server struct {
	t     testing.TB
	users *Users
	table *route.Table
}

func newServer(t testing.TB, o Options) *server {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() { _ = e.Close() })
	return serverOn(t, e, o, cheap)
}

func serverOn(t testing.TB, e storage.Engine, o Options, c cost) *server {
	t.Helper()
	users, err := open(engine.Env{
		Mount: engine.Mount{Path: "auth/userpass/"}, Storage: e,
		Fingerprint: func(b []byte) string {
			mac := hmac.New(sha256.New, []byte("key"))
			mac.Write(b)
			return hex.EncodeToString(mac.Sum(nil))
		},
	}, o, attempts.NewGate(), newHashing(), c)
	if err != nil {
		t.Fatal(err)
	}
	return &server{t, users, route.NewTable(Kind().Spec().Routes)}
}

func (s *server) call(method, path, body string) (any, error) {
	s.t.Helper()
	spec, vars, _ := s.table.Find(method, path)
	if spec == nil {
		s.t.Fatalf("no route for %s %s", method, path)
	}
	params, err := wire.ParseBody([]byte(body))
	if err != nil {
		s.t.Fatal(err)
	}
	in, warnings, err := spec.Decode(&route.Input{Vars: vars, Params: params})
	if err != nil {
		return nil, err
	}
	if len(warnings) > 0 {
		s.t.Errorf("%s %s: warnings %q", method, path, warnings)
	}
	return spec.Invoke(s.t.Context(), s.users, route.Caller{Remote: netip.MustParseAddr("192.0.2.7")}, in)
}

func (s *server) must(method, path, body string) any {
	s.t.Helper()
	out, err := s.call(method, path, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return out
}

func (s *server) login(name, password string) error {
	s.t.Helper()
	_, err := s.call("POST", "login/"+name, `{"password":"`+password+`"}`)
	return err
}

func (s *server) wantLogin(name, password string, kind fault.Kind, text string) {
	s.t.Helper()
	if err := s.login(name, password); !fault.Is(err, kind) || err.Error() != text {
		s.t.Fatalf("login as %s: %v, want %q", name, err, text)
	}
}

const wrong = "invalid username or password"

func TestLogin(t *testing.T) {
	s := newServer(t, Options{})
	s.must("POST", "users/Bob", `{"password":"pw","token_policies":"Web, db","token_ttl":"1h","token_type":"service","token_num_uses":3}`)
	got := s.must("POST", "login/BOB", `{"password":"pw"}`).(auth.Login)
	if got.Alias != "bob" || got.DisplayName != "userpass-bob" || !slices.Equal(got.Policies, []string{"db", "web"}) ||
		got.Metadata["username"] != "bob" || got.TTL.Duration() != time.Hour || got.NumUses != 3 || got.Type != "service" {
		t.Errorf("login %+v", got)
	}
	s.wantLogin("bob", "pW", fault.Invalid, wrong)
	s.wantLogin("alice", "pw", fault.Invalid, wrong)
	s.wantLogin("-x", "pw", fault.Invalid, wrong)
	s.wantLogin("bob", "", fault.Invalid, "missing password")
	s.wantLogin("bob", strings.Repeat("x", 100_000), fault.Invalid, wrong)
}

func TestUsersHaveVaultsShape(t *testing.T) {
	s := newServer(t, Options{})
	s.must("POST", "users/bob", `{"password":"pw","policies":"a","ttl":"1h","token_bound_cidrs":["10.0.0.0/8"]}`)
	text, err := wirejson.Marshal(s.must("GET", "users/bob", ""), wirejson.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"token_ttl":3600,"token_max_ttl":0,"token_explicit_max_ttl":0,"token_period":0,"token_num_uses":0,"token_bound_cidrs":["10.0.0.0/8"],` +
		`"token_type":"default","token_no_default_policy":false,"token_policies":["a"],"policies":["a"],"ttl":3600}`
	if string(text) != want {
		t.Errorf("user:\n got %s\nwant %s", text, want)
	}
	s.must("POST", "users/bob", `{"token_policies":"b"}`)
	s.must("POST", "users/bob/policies", `{"token_policies":"c,b"}`)
	s.must("POST", "users/bob/password", `{"password":"other"}`)
	s.must("POST", "users/alice", `{"password":"pw"}`)
	read := s.must("GET", "users/BOB", "").(Read)
	if !slices.Equal(read.PolicyNames, []string{"b", "c"}) || read.OldPolicies != nil || read.TTL.Duration() != time.Hour {
		t.Errorf("after changes: %+v", read)
	}
	if keys := s.must("LIST", "users", "").(route.Keys).Keys; !slices.Equal(keys, []string{"alice", "bob"}) {
		t.Errorf("users %v", keys)
	}
	s.must("POST", "users/bob", `{"token_bound_cidrs":[]}`)
	if err := s.login("bob", "other"); err != nil {
		t.Error(err)
	}
	s.must("DELETE", "users/bob", "")
	s.wantLogin("bob", "other", fault.Invalid, wrong)
	if _, err := s.call("GET", "users/bob", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("after its deletion: %v", err)
	}
}

func TestRefusedUsers(t *testing.T) {
	s := newServer(t, Options{})
	for path, body := range map[string]string{
		"users/a":                           `{}`,
		"users/b":                           `{"password":"x","password_hash":"y"}`,
		"users/c":                           `{"password_hash":"not a hash"}`,
		"users/d":                           `{"password":"x","token_ttl":"2h","token_max_ttl":"1h"}`,
		"users/e":                           `{"password":"x","token_type":"batch","token_num_uses":1}`,
		"users/f":                           `{"password":"x","token_bound_cidrs":"nowhere"}`,
		"users/g":                           `{"password":"x","token_period":-1}`,
		"users/-h":                          `{"password":"x"}`,
		"users/i i":                         `{"password":"x"}`,
		"users/" + strings.Repeat("j", 300): `{"password":"x"}`,
		"users/k":                           `{"password":"` + strings.Repeat("x", maxPassword+1) + `"}`,
		"users/nobody/password":             `{"password":"x"}`,
		"users/nobody/policies":             `{"token_policies":"x"}`,
		"users/l\x01":                       `{"password":"x"}`,
		"users/m":                           `{"password":"x","token_type":"x"}`,
		"users/n":                           `{"password":"x","token_num_uses":-1}`,
		"users/o":                           `{"password_hash":"$2a$31$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}`,
	} {
		if _, err := s.call("POST", path, body); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.30s %.60s: %v", path, body, err)
		}
	}
	if _, err := s.call("LIST", "users", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("something was stored: %v", err)
	}
}

func TestBoundNetworks(t *testing.T) {
	s := newServer(t, Options{})
	s.must("POST", "users/in", `{"password":"pw","token_bound_cidrs":"192.0.2.0/24"}`)
	s.must("POST", "users/out", `{"password":"pw","token_bound_cidrs":"10.0.0.0/8"}`)
	if err := s.login("in", "pw"); err != nil {
		t.Error(err)
	}
	s.wantLogin("out", "pw", fault.Denied, "permission denied")
	s.wantLogin("out", "bad", fault.Invalid, wrong)
}

// Five failures lock a user, and a name nobody has, for a quarter of an hour;
// a restart does not unlock them.
func TestLockout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		defer e.Close()
		s := serverOn(t, e, Options{}, cheap)
		s.must("POST", "users/bob", `{"password":"pw"}`)
		for _, name := range []string{"bob", "nobody"} {
			for range 5 {
				s.wantLogin(name, "bad", fault.Invalid, wrong)
			}
			s.wantLogin(name, "pw", fault.Denied, "permission denied")
			s = serverOn(t, e, Options{}, cheap)
			s.wantLogin(name, "pw", fault.Denied, "permission denied")
		}
		if keys := s.must("LIST", "locked-users", "").(route.KeysInfo[attempts.Locked]).Keys; !slices.Equal(keys, []string{"bob"}) {
			t.Errorf("locked: %v", keys)
		}
		time.Sleep(15*time.Minute - time.Second)
		s.wantLogin("bob", "pw", fault.Denied, "permission denied")
		time.Sleep(time.Second)
		if err := s.login("bob", "pw"); err != nil {
			t.Errorf("after the lock: %v", err)
		}
		s.wantLogin("nobody", "pw", fault.Invalid, wrong)
		if _, err := s.call("LIST", "locked-users", ""); !fault.Is(err, fault.NotFound) {
			t.Errorf("locked-users: %v", err)
		}
	})
}

func TestLockoutCounter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{Threshold: "3", Duration: "1m", CounterReset: "10m"})
		s.must("POST", "users/bob", `{"password":"pw"}`)
		fail := func(n int) {
			t.Helper()
			for range n {
				s.wantLogin("bob", "bad", fault.Invalid, wrong)
			}
		}
		fail(2)
		if err := s.login("bob", "pw"); err != nil { // success starts anew
			t.Fatal(err)
		}
		fail(2)
		time.Sleep(10 * time.Minute) // and so does time
		fail(3)
		s.wantLogin("bob", "pw", fault.Denied, "permission denied")
		s.must("POST", "users/BOB/unlock", "")
		if err := s.login("bob", "pw"); err != nil {
			t.Errorf("after the unlocking: %v", err)
		}
		off := newServer(t, Options{Disable: "true"})
		off.must("POST", "users/bob", `{"password":"pw"}`)
		for range 20 {
			off.wantLogin("bob", "bad", fault.Invalid, wrong)
		}
		if err := off.login("bob", "pw"); err != nil {
			t.Errorf("with lockout off: %v", err)
		}
	})
}

// Guesses made at once are counted like guesses made in turn.
func TestLockoutUnderConcurrency(t *testing.T) {
	s := newServer(t, Options{})
	s.must("POST", "users/bob", `{"password":"pw"}`)
	before := s.users.gate.hashed.Load()
	var tried atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			err := s.login("bob", "bad")
			switch {
			case fault.Is(err, fault.Invalid):
				tried.Add(1)
			case !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Limited):
				t.Errorf("login: %v", err)
			}
		})
	}
	wg.Wait()
	if hashed := s.users.gate.hashed.Load() - before; tried.Load() > 5 || hashed > 5 {
		t.Errorf("%d guesses were answered and %d passwords hashed before the lock; the limit is 5", tried.Load(), hashed)
	}
}

// counting counts the commits of an engine.
type counting struct {
	storage.Engine
	updates atomic.Int64
}

func (c *counting) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	c.updates.Add(1)
	return c.Engine.Update(ctx, fn)
}

// A failed login does the same work whether the name exists or not: one hash of
// the same cost and one write. The medians of the time it takes are close.
func TestUnknownNamesCostTheSame(t *testing.T) {
	e := &counting{Engine: memory.New()}
	defer e.Close()
	s := serverOn(t, e, Options{Threshold: "1000"}, standard)
	s.must("POST", "users/bob", `{"password":"pw"}`)
	const tries = 15
	times := map[string][]time.Duration{}
	for i := range tries { // in turn, so that a busy machine is busy for both
		for _, name := range []string{"bob", fmt.Sprintf("nobody%d", i%3)} {
			hashed, updates := s.users.gate.hashed.Load(), e.updates.Load()
			begun := time.Now()
			s.wantLogin(name, "bad", fault.Invalid, wrong)
			kind := strings.TrimRight(name, "0123456789")
			times[kind] = append(times[kind], time.Since(begun))
			if h, u := s.users.gate.hashed.Load()-hashed, e.updates.Load()-updates; h != 1 || u != 1 {
				t.Fatalf("%s: %d hashes and %d writes", name, h, u)
			}
		}
	}
	median := func(d []time.Duration) time.Duration { slices.Sort(d); return d[len(d)/2] }
	known, unknown := median(times["bob"]), median(times["nobody"])
	if ratio := float64(known) / float64(unknown); ratio < 0.5 || ratio > 2 {
		t.Errorf("median of a known name %v, of an unknown one %v", known, unknown)
	}
	t.Logf("known %v, unknown %v", known, unknown)
}

func TestStandardCost(t *testing.T) {
	hash := standard.hash("pw")
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash %.40s", hash)
	}
	if !standard.matches(hash, "pw") || standard.matches(hash, "pW") || standard.matches("", "pw") || standard.matches("$argon2id$x", "") {
		t.Error("matches")
	}
	if hash == standard.hash("pw") {
		t.Error("two hashes have one salt")
	}
}

// A hash of another cost, and an imported bcrypt one, are replaced at the next
// login; a failed one replaces nothing.
func TestRehash(t *testing.T) {
	e := memory.New()
	defer e.Close()
	s := serverOn(t, e, Options{}, cheap)
	s.must("POST", "users/bob", `{"password":"pw"}`)
	imported, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	s.must("POST", "users/eve", `{"password_hash":"`+string(imported)+`"}`)
	dearer := cost{memory: 128, passes: 2, lanes: 1}
	s = serverOn(t, e, Options{}, dearer)
	for _, name := range []string{"bob", "eve"} {
		s.wantLogin(name, "bad", fault.Invalid, wrong)
		before, _ := s.users.find(t.Context(), name)
		if dearer.current(before.Password) {
			t.Fatalf("%s was hashed anew by a failed login", name)
		}
		for range 2 {
			if err := s.login(name, "pw"); err != nil {
				t.Fatal(err)
			}
		}
		after, _ := s.users.find(t.Context(), name)
		if !dearer.current(after.Password) {
			t.Errorf("%s was not hashed anew", name)
		}
	}
}

func TestRenew(t *testing.T) {
	s := newServer(t, Options{})
	var _ auth.Renewer = s.users
	s.must("POST", "users/bob", `{"password":"pw","token_policies":"a","token_ttl":"1h"}`)
	granted := s.must("POST", "login/bob", `{"password":"pw"}`).(auth.Login)
	s.must("POST", "users/bob", `{"token_ttl":"2h"}`)
	if now, err := s.users.Renew(t.Context(), route.Caller{}, granted); err != nil || now.TTL.Duration() != 2*time.Hour {
		t.Errorf("Renew: %v, %v", now.TTL.Duration(), err)
	}
	s.must("POST", "users/bob", `{"token_policies":"b"}`)
	if _, err := s.users.Renew(t.Context(), route.Caller{}, granted); !fault.Is(err, fault.Denied) {
		t.Errorf("with other policies: %v", err)
	}
	s.must("DELETE", "users/bob", "")
	if _, err := s.users.Renew(t.Context(), route.Caller{}, granted); !fault.Is(err, fault.Denied) {
		t.Errorf("of a deleted user: %v", err)
	}
}

func TestEveryRouteIsDescribed(t *testing.T) {
	s := newServer(t, Options{})
	for _, r := range Kind().Spec().Routes {
		if r.Summary == "" || r.Example == nil {
			t.Errorf("%s %s has no summary or example", r.Method, r.Pattern)
			continue
		}
		spec, vars, _ := s.table.Find(r.Method, r.Example.Path)
		params, err := wire.ParseBody([]byte(r.Example.Request))
		if err != nil || spec == nil || spec.Pattern != r.Pattern {
			t.Errorf("%s %s: its example is of another route, or no JSON: %v", r.Method, r.Pattern, err)
			continue
		}
		if _, warnings, err := spec.Decode(&route.Input{Vars: vars, Params: params}); err != nil || len(warnings) > 0 {
			t.Errorf("%s %s: its example is refused: %v, %q", r.Method, r.Pattern, err, warnings)
		}
		for _, f := range r.Fields() {
			if f.Doc == "" {
				t.Errorf("%s %s: field %s has no doc", r.Method, r.Pattern, f.Name)
			}
		}
	}
}

// What is stored and what is answered hold no password.
func TestNoPasswordIsKept(t *testing.T) {
	s := newServer(t, Options{})
	s.must("POST", "users/bob", `{"password":"hunter2-hunter2"}`)
	err := s.users.storage.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "", func(e storage.Entry) error {
			if strings.Contains(string(e.Value), "hunter2") {
				t.Errorf("row %s holds the password", e.Key)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v %#v", Login{Password: "hunter2-hunter2"}, Write{NewPassword: NewPassword{Password: "hunter2"}}); strings.Contains(text, "hunter2") {
		t.Error("a request prints its password")
	}
}
