package factor

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// fixture is a store with one method, an entity and its secret.
type fixture struct {
	*Store
	method Method
	entity string
	key    string
	rule   Rule
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureOver(t, memory.New())
}

func newFixtureOver(t *testing.T, engine storage.Engine) *fixture {
	t.Helper()
	ctx := t.Context()
	b := barrier.New(engine, slog.New(slog.DiscardHandler))
	root, err := barrier.NewRootKey()
	must(t, err)
	must(t, b.Initialize(ctx, root))
	must(t, b.Open(ctx, root))
	ids := identity.New(identity.Options{
		Barrier: b, Caches: identity.NewCaches(b, ""), Log: slog.New(slog.DiscardHandler),
		Mount: func(string) (string, string, bool) { return "auth/userpass/", "userpass", true },
	})
	f := &fixture{Store: New(Options{Barrier: b, Identities: ids, Log: slog.New(slog.DiscardHandler)})}
	t.Cleanup(f.Close)
	e, _, err := ids.WriteEntity(ctx, "", identity.EntityChange{})
	must(t, err)
	f.entity = e.ID
	f.method, err = f.WriteMethod(ctx, "", func(m *Method) error { m.Issuer, m.MaxAttempts = "Coffer", 3; return nil })
	must(t, err)
	f.secret(t)
	must(t, f.WriteRule(ctx, Rule{Name: "r", Methods: []string{f.method.ID}, Types: []string{"userpass"}}))
	rules, err := f.Needed(ctx, f.entity, "x", "userpass")
	must(t, err)
	f.rule = rules[0]
	return f
}

// secret makes a new secret.
func (f *fixture) secret(t *testing.T) {
	t.Helper()
	must(t, f.Destroy(t.Context(), f.method.ID, f.entity))
	made, err := f.Generate(t.Context(), f.method.ID, f.entity)
	must(t, err)
	key, err := otp.NewKeyFromURL(made.URL)
	must(t, err)
	f.key = key.Secret()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) code(t *testing.T, from time.Duration) string {
	t.Helper()
	text, err := totp.GenerateCode(f.key, time.Now().Add(from))
	must(t, err)
	return text
}

func (f *fixture) prove(t *testing.T, passcode string) bool {
	t.Helper()
	err := f.Prove(t.Context(), f.entity, []Rule{f.rule}, map[string][]string{f.method.ID: {passcode}})
	if err != nil && !fault.Is(err, fault.Denied) {
		t.Fatal(err)
	}
	return err == nil
}

// interrupted is an engine that has something done after the next View.
type interrupted struct {
	storage.Engine
	after atomic.Pointer[func()]
}

func (e *interrupted) View(ctx context.Context, fn func(storage.Reader) error) error {
	err := e.Engine.View(ctx, fn)
	if do := e.after.Swap(nil); do != nil {
		(*do)()
	}
	return err
}

// TestRulesReadWhileTheyChange has another node write a rule between the reading of
// the rules and the keeping of what was read.
func TestRulesReadWhileTheyChange(t *testing.T) {
	e := &interrupted{Engine: memory.New()}
	f := newFixtureOver(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	following := make(chan struct{})
	go func() { defer close(following); _ = f.Barrier.Follow(ctx) }()
	defer func() { cancel(); <-following }()
	for !f.Barrier.Fresh() {
		time.Sleep(time.Millisecond)
	}
	other := New(f.Options)
	defer other.Close()
	change := func() {
		if err := other.WriteRule(ctx, Rule{Name: "new", Methods: []string{f.method.ID}, Types: []string{"ldap"}}); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond) // until this one has heard of it
	}
	f.changes.Add(1)
	e.after.Store(&change)
	_, err := f.Rules(t.Context())
	must(t, err)
	if rules, err := f.Rules(t.Context()); err != nil || len(rules) != 2 {
		t.Errorf("the rules are %v (%v)", rules, err)
	}
}

func TestPasscodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		for from, want := range map[time.Duration]bool{-61 * time.Second: false, 61 * time.Second: false, 0: true} {
			f.secret(t)
			if f.prove(t, f.code(t, from)) != want {
				t.Errorf("a passcode of %v from now is not %v", from, want)
			}
		}
		f.secret(t)
		next := f.code(t, 30*time.Second)
		if !f.prove(t, next) || f.prove(t, next) || f.prove(t, f.code(t, 0)) {
			t.Error("a passcode is good twice, or one older than the last that was used is")
		}
		// Guessing: after three wrong ones none counts, and then they count again.
		f.secret(t)
		time.Sleep(5 * time.Minute)
		for range 3 {
			f.prove(t, "000000")
		}
		if f.prove(t, f.code(t, 0)) {
			t.Error("guessing goes on")
		}
		time.Sleep(91 * time.Second)
		if !f.prove(t, f.code(t, 0)) {
			t.Error("the right passcode is refused for good")
		}
		for _, bad := range []string{"", "1", "1234567", "abcdef", "12345\x00", "１２３４５６", " " + f.code(t, time.Minute)} {
			if f.prove(t, bad) {
				t.Errorf("%q proves the factor", bad)
			}
		}
	})
}

func TestLoginsThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		begin := func() string {
			t.Helper()
			id, err := f.Begin(t.Context(), Waiting{Login: []byte(`{}`), Entity: f.entity, Mount: "m", Path: "p", Rules: []Rule{f.rule}})
			must(t, err)
			return id
		}
		complete := func(id, passcode string) error {
			_, err := f.Complete(t.Context(), id, map[string][]string{f.method.ID: {passcode}})
			return err
		}
		first := begin()
		time.Sleep(Waits)
		if err := complete(first, f.code(t, 0)); !fault.Is(err, fault.Invalid) {
			t.Errorf("a login waits for longer than it may: %v", err)
		}
		// As many as may wait do; one more ends the others that are in its way.
		var ids []string
		for range MaxWaiting + 3 {
			ids = append(ids, begin())
		}
		waiting := 0
		must(t, f.storage.View(t.Context(), func(r storage.Reader) error {
			rows, err := r.Scan(waitingRows, "", 100)
			waiting = len(rows)
			return err
		}))
		if waiting != MaxWaiting {
			t.Errorf("%d logins wait", waiting)
		}
		last := ids[len(ids)-1]
		if err := complete(last, f.code(t, 0)); err != nil {
			t.Errorf("the newest: %v", err)
		}
		// So many wrong ones end the login itself.
		id := begin()
		for range maxAttempts {
			if err := complete(id, "000000"); !fault.Is(err, fault.Denied) {
				t.Errorf("a wrong passcode: %v", err)
			}
		}
		time.Sleep(2 * time.Minute)
		if err := complete(id, f.code(t, 0)); !fault.Is(err, fault.Invalid) {
			t.Errorf("a login that failed too often goes on: %v", err)
		}
		begin()
		time.Sleep(Waits)
		must(t, f.Identities.DeleteEntity(t.Context(), f.entity))
		must(t, f.Sweep(t.Context()))
		must(t, f.storage.View(t.Context(), func(r storage.Reader) error {
			for _, prefix := range []string{waitingRows, secretRows} {
				if rows, err := r.Scan(prefix, "", 10); err != nil || len(rows) > 0 {
					t.Errorf("%d rows of %s are left: %v", len(rows), prefix, err)
				}
			}
			return nil
		}))
	})
}

// Of many who prove one login at once, one gets it.
func TestOneLoginIsCompletedOnce(t *testing.T) {
	f := newFixture(t)
	id, err := f.Begin(t.Context(), Waiting{Login: []byte(`{}`), Entity: f.entity, Rules: []Rule{f.rule}})
	must(t, err)
	passcode := f.code(t, 0)
	done := make(chan bool)
	for range 20 {
		go func() {
			_, err := f.Complete(context.Background(), id, map[string][]string{f.method.ID: {passcode}})
			done <- err == nil
		}()
	}
	won := 0
	for range 20 {
		if <-done {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d get the login", won)
	}
}

func TestWhoNeedsAFactor(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	name := "team"
	members := []string{f.entity}
	g, _, err := f.Identities.WriteGroup(ctx, "", identity.GroupChange{Name: &name, Entities: &members})
	must(t, err)
	must(t, f.DeleteRule(ctx, "r"))
	for what, c := range map[string]struct {
		rule Rule
		want bool
	}{
		"accessor": {Rule{Accessors: []string{"acc"}}, true}, "other accessor": {Rule{Accessors: []string{"other"}}, false},
		"type": {Rule{Types: []string{"userpass"}}, true}, "other type": {Rule{Types: []string{"ldap"}}, false},
		"group": {Rule{Groups: []string{g.ID}}, true}, "other group": {Rule{Groups: []string{"other"}}, false},
		"entity": {Rule{Entities: []string{f.entity}}, true}, "other entity": {Rule{Entities: []string{"other"}}, false},
	} {
		c.rule.Name, c.rule.Methods = "r", []string{f.method.ID}
		must(t, f.WriteRule(ctx, c.rule))
		rules, err := f.Needed(ctx, f.entity, "acc", "userpass")
		if err != nil || (len(rules) > 0) != c.want {
			t.Errorf("%s: %v %v", what, rules, err)
		}
		rules, err = f.Needed(ctx, "", "acc", "userpass")
		if nobody := what == "accessor" || what == "type"; nobody != fault.Is(err, fault.Denied) || len(rules) > 0 {
			t.Errorf("%s, for nobody that is known: %v %v", what, rules, err)
		}
	}
	if err := f.DeleteMethod(ctx, f.method.ID); !fault.Is(err, fault.Invalid) {
		t.Errorf("a method that a rule needs is deleted: %v", err)
	}
	must(t, f.DeleteRule(ctx, "r"))
	must(t, f.DeleteMethod(ctx, f.method.ID))
	if _, err := f.Method(ctx, f.method.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted method: %v", err)
	}
	must(t, f.storage.View(ctx, func(r storage.Reader) error {
		rows, err := r.Scan(secretRows, "", 10)
		return errors.Join(err, map[bool]error{true: errors.New("secrets of a deleted method are left")}[len(rows) > 0])
	}))
}
