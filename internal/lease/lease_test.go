package lease_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// bank is a target: it has accounts, and troubles.
type bank struct {
	mu       sync.Mutex
	accounts map[string]time.Time // until when they last
	revoked  map[string]int       // how often each was asked for
	asked    int
	trouble  error
	slow     time.Duration
	hold     chan struct{} // what makes an account waits for
	// step is a node's step before and after something is done; nil for none.
	step func() (before, after error)
}

func newBank() *bank { return &bank{accounts: map[string]time.Time{}, revoked: map[string]int{}} }

func (b *bank) set(trouble error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trouble = trouble
}

func (b *bank) takes(long time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow = long
}

func (b *bank) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.accounts))
}

func (b *bank) calls() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

// do has the bank do something, if its caller lives.
func (b *bank) do(fn func() error) error {
	var before, after error
	if b.step != nil {
		before, after = b.step()
	}
	if before != nil {
		return before
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(fn(), after)
}

// call waits as the bank does and returns its trouble.
func (b *bank) call(ctx context.Context) error {
	b.mu.Lock()
	b.asked++
	slow, trouble := b.slow, b.trouble
	b.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	return trouble
}

// lender is the engine of a bank.
type lender struct {
	env  engine.Env
	bank *bank
}

type account struct {
	Name string `json:"name"`
}

type ask struct {
	Name      string `path:"name"`
	TTL       int    `json:"ttl"`
	Max       int    `json:"max"`
	Fixed     bool   `json:"fixed"`
	Break     string `json:"break"`
	BreakLate string `json:"break_late"`
}

type lent struct {
	route.Notes
	Name string `json:"name"`
}

func (l *lender) lend(ctx context.Context, by route.Caller, in ask) (out lent, err error) {
	out.Name = in.Name
	out.Notes, err = l.env.Leases.Lend(ctx, by, engine.Loan{
		Data: account{in.Name}, Renewable: !in.Fixed,
		TTL: time.Duration(in.TTL) * time.Second, MaxTTL: time.Duration(in.Max) * time.Second,
	}, func(ctx context.Context, lease engine.Leased) error {
		if in.Break != "" {
			return engine.NothingMade(errors.New(in.Break))
		}
		if err := l.bank.call(ctx); err != nil {
			return err
		}
		if l.bank.hold != nil {
			<-l.bank.hold
		}
		return l.bank.do(func() error {
			l.bank.accounts[in.Name] = lease.Expires
			if in.BreakLate != "" {
				return errors.New(in.BreakLate)
			}
			return nil
		})
	})
	return out, err
}

func kind(b *bank) *engine.Spec {
	return engine.Kind[struct{}, *lender]{
		Name: "bank", Class: engine.Secret, Doc: "Lends accounts.",
		Open:   func(_ context.Context, env engine.Env, _ struct{}) (*lender, error) { return &lender{env, b}, nil },
		Routes: []route.Route[*lender]{route.New("POST", "creds/{name}", "Lend an account.", (*lender).lend)},
		Lending: &engine.Lending[*lender]{
			Extend: func(l *lender, ctx context.Context, lease engine.Leased) error {
				var a account
				if err := lease.Into(&a); err != nil {
					return err
				}
				if err := l.bank.call(ctx); err != nil {
					return err
				}
				return l.bank.do(func() error {
					if _, there := l.bank.accounts[a.Name]; !there {
						return fault.New(fault.Invalid, "no account %s", a.Name)
					}
					l.bank.accounts[a.Name] = lease.Expires
					return nil
				})
			},
			Revoke: func(l *lender, ctx context.Context, lease engine.Leased) error {
				var a account
				if err := lease.Into(&a); err != nil {
					return err
				}
				if err := l.bank.call(ctx); err != nil {
					return err
				}
				return l.bank.do(func() error {
					l.bank.revoked[a.Name]++
					delete(l.bank.accounts, a.Name)
					return nil
				})
			},
		},
	}.Spec()
}

// place is an engine that lends, its bank, and the workers that end leases.
type place struct {
	*enginetest.Engine
	bank  *bank
	store storage.Engine
}

func open(t *testing.T) place {
	b, store := newBank(), memory.New()
	e := enginetest.Open(t, kind(b), enginetest.Options{Storage: store, Mount: engine.Mount{Path: "bank/"}})
	e.Work(t)
	return place{e, b, store}
}

// lend lends an account and returns the lease.
func (p place) lend(t *testing.T, name, body string) *route.Lease {
	t.Helper()
	return p.Must(t, 200, "POST", "creds/"+name, body).Notes.Lease
}

// rows are the keys of leases and of their jobs.
func (p place) rows(t *testing.T) (keys []string) {
	t.Helper()
	if err := p.store.View(t.Context(), func(r storage.Reader) error {
		for _, prefix := range []string{lease.Prefix, "core/jobs/kind/leases/job/", "core/jobs/kind/leases/due/", "core/jobs/kind/leases/failed/"} {
			if err := storage.All(r, prefix, func(row storage.Entry) error {
				keys = append(keys, row.Key)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return keys
}

// clean expects no account and no row.
func (p place) clean(t *testing.T) {
	t.Helper()
	if names, rows := p.bank.names(), p.rows(t); len(names)+len(rows) > 0 {
		t.Errorf("left are the accounts %q and the rows %q", names, rows)
	}
}

func TestLeaseEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		l := p.lend(t, "ann", `{"ttl":300}`)
		if l.TTL.Round(time.Second) != 5*time.Minute || !l.Renewable || !strings.HasPrefix(l.ID, "bank/creds/ann/") {
			t.Errorf("the lease is %+v", l)
		}
		time.Sleep(5*time.Minute - time.Second)
		if len(p.bank.names()) != 1 {
			t.Error("the account ended too soon")
		}
		time.Sleep(3 * time.Second)
		p.clean(t)
		if n := p.bank.revoked["ann"]; n != 1 {
			t.Errorf("the account was taken back %d times", n)
		}
	})
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ctx := open(t), t.Context()
		l := p.lend(t, "ann", `{"ttl":60,"max":150}`)
		time.Sleep(50 * time.Second)
		out, err := p.Leases().Renew(ctx, l.Key, 0)
		if err != nil || out.Lease.Left().Round(time.Second) != time.Minute || len(out.Warnings) != 0 {
			t.Fatalf("%v, %v, %v", out.Lease, out.Warnings, err)
		}
		if until := p.bank.accounts["ann"]; !until.Equal(out.Lease.Expires) {
			t.Errorf("the account lasts until %v, its lease until %v", until, out.Lease.Expires)
		}
		time.Sleep(50 * time.Second)
		out, err = p.Leases().Renew(ctx, l.Key, time.Hour)
		if err != nil || out.Lease.Left().Round(time.Second) != 50*time.Second || len(out.Warnings) != 1 {
			t.Fatalf("at the end of its terms: %v, %q, %v", out.Lease, out.Warnings, err)
		}
		p.bank.set(errors.New("the bank says no"))
		if _, err := p.Leases().Renew(ctx, l.Key, 0); err == nil || err.Error() != "the bank says no" {
			t.Errorf("a renewal that the target refuses: %v", err)
		}
		p.bank.set(nil)
		if _, err := p.Leases().Renew(ctx, l.Key, -time.Second); !fault.Is(err, fault.Invalid) {
			t.Errorf("a renewal by less than nothing: %v", err)
		}
		time.Sleep(time.Minute)
		p.clean(t)
		if _, err := p.Leases().Renew(ctx, l.Key, 0); !fault.Is(err, fault.Invalid) {
			t.Errorf("a renewal after the end: %v", err)
		}
		fixed := p.lend(t, "bob", `{"ttl":60,"fixed":true}`)
		if _, err := p.Leases().Renew(ctx, fixed.Key, 0); !fault.Is(err, fault.Invalid) || fixed.Renewable {
			t.Errorf("a renewal of what cannot be: %v", err)
		}
	})
}

func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ctx := open(t), t.Context()
		a, b := p.lend(t, "ann", `{}`), p.lend(t, "bob", `{}`)
		if err := p.Leases().Revoke(ctx, a.Key, true); err != nil {
			t.Fatal(err)
		}
		if names := p.bank.names(); !slices.Equal(names, []string{"bob"}) {
			t.Errorf("at once after a revocation that waits there are %q", names)
		}
		if _, err := p.Leases().Get(ctx, a.Key); !fault.Is(err, fault.Invalid) {
			t.Errorf("a revoked lease is found: %v", err)
		}
		if err := p.Leases().Revoke(ctx, b.Key, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if names := p.bank.names(); len(names) != 0 {
			t.Errorf("soon after a revocation there are %q", names)
		}
		for _, key := range []string{a.Key, "no/such/lease", "", strings.Repeat("x", 4000)} {
			if err := p.Leases().Revoke(ctx, key, true); err != nil {
				t.Errorf("revoke %.20s: %v", key, err)
			}
		}
		time.Sleep(lease.Settle)
		p.clean(t)
	})
}

// TestRefused: a target that refuses is asked again, and then left to people.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ctx := open(t), t.Context()
		l := p.lend(t, "ann", `{"ttl":60}`)
		p.bank.set(errors.New("role \"ann\" cannot be dropped because some objects depend on it"))
		time.Sleep(62 * time.Second)
		trouble, err := p.Leases().Troubled(ctx, "", 10)
		if err != nil || len(trouble) != 1 || trouble[0].Ending.Aside || trouble[0].Ending.Error != p.bank.trouble.Error() {
			t.Fatalf("after the first refusal: %+v, %v", trouble, err)
		}
		time.Sleep(time.Hour)
		trouble, _ = p.Leases().Troubled(ctx, "", 10)
		if len(trouble) != 1 || !trouble[0].Ending.Aside || trouble[0].Ending.Refused != lease.MaxRefused {
			t.Fatalf("an hour later: %+v", trouble)
		}
		asked := p.bank.calls()
		time.Sleep(6 * time.Hour)
		if p.bank.calls() != asked {
			t.Error("what was set aside is still asked for")
		}
		if err := p.Leases().Revoke(ctx, l.Key, true); err == nil || !strings.Contains(err.Error(), "objects depend on it") {
			t.Errorf("tried by hand: %v", err)
		}
		p.bank.set(nil)
		if err := p.Leases().Revoke(ctx, l.Key, true); err != nil {
			t.Error(err)
		}
		p.clean(t)
	})
}

// TestAway: what is out of reach is tried for a day, now and then.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ctx := open(t), t.Context()
		for i := range 40 {
			p.lend(t, fmt.Sprint("a", i), `{"ttl":60}`)
		}
		p.bank.set(fault.New(fault.Unavailable, "connection refused"))
		made := p.bank.calls()
		time.Sleep(time.Hour)
		if asked := p.bank.calls() - made; asked > 700 {
			t.Errorf("a bank that is away was asked %d times in an hour for 40 leases", asked)
		}
		trouble, _ := p.Leases().Troubled(ctx, "", 100)
		for _, l := range trouble {
			if l.Ending.Aside {
				t.Fatal("a lease was set aside after an hour")
			}
		}
		p.bank.set(nil)
		time.Sleep(6 * time.Minute)
		p.clean(t)

		p.lend(t, "late", `{"ttl":60}`)
		p.bank.set(fault.New(fault.Unavailable, "connection refused"))
		time.Sleep(25 * time.Hour)
		trouble, _ = p.Leases().Troubled(ctx, "", 10)
		if len(trouble) != 1 || !trouble[0].Ending.Aside {
			t.Fatalf("after a day: %+v", trouble)
		}
	})
}

// TestSlow: a target that does not answer is not waited for.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		l := p.lend(t, "ann", `{}`)
		p.bank.takes(time.Hour)
		began := time.Now()
		err := p.Leases().Revoke(t.Context(), l.Key, true)
		if took := time.Since(began); took > lease.CallTimeout+time.Second || !fault.Is(err, fault.Unavailable) {
			t.Errorf("after %v: %v", took, err)
		}
		p.bank.takes(0)
		time.Sleep(10 * time.Minute)
		p.clean(t)
	})
}

func TestMakingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		if a := p.Do("POST", "creds/ann", `{"break":"no such role"}`); a.Err == nil || !strings.Contains(a.Err.Error(), "no such role") {
			t.Errorf("%+v", a)
		}
		p.clean(t)
		if p.bank.calls() != 0 {
			t.Error("what was not made is taken back")
		}
		if a := p.Do("POST", "creds/bob", `{"break_late":"GRANT failed"}`); a.Err == nil || !strings.Contains(a.Err.Error(), "GRANT failed") {
			t.Errorf("%+v", a)
		}
		time.Sleep(2 * time.Second)
		if names := p.bank.names(); len(names) != 0 {
			t.Errorf("an account that was made in part is left: %q", names)
		}
		time.Sleep(lease.Settle + time.Second)
		p.clean(t)
	})
}

// TestEndsWhileMade: what is made for a lease that ends meanwhile is taken back.
func TestEndsWhileMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ctx := open(t), t.Context()
		p.bank.hold = make(chan struct{})
		answer := make(chan enginetest.Answer)
		go func() { answer <- p.Do("POST", "creds/ann", `{}`) }()
		synctest.Wait()
		if err := p.Leases().EndOf(ctx, enginetest.Root().TokenID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // it is taken back before it is there
		close(p.bank.hold)
		if a := <-answer; !fault.Is(a.Err, fault.Conflict) {
			t.Errorf("%+v", a)
		}
		time.Sleep(2 * time.Second)
		if names := p.bank.names(); len(names) != 0 {
			t.Errorf("there is an account of no lease: %q", names)
		}
		time.Sleep(lease.Settle)
		p.clean(t)
	})
}

func TestTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ctx := open(t), t.Context()
		by := enginetest.Root()
		for i := range 50 {
			by.TokenID = []string{"one", "two"}[i%2]
			if a := p.As(by, "POST", fmt.Sprint("creds/a", i), `{}`); a.Err != nil {
				t.Fatal(a.Err)
			}
		}
		if err := p.Leases().EndOf(ctx, "one"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if n := len(p.bank.names()); n != 25 {
			t.Errorf("%d accounts are left, 25 of another token", n)
		}
	})
}

func TestRevokeBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ctx := open(t), t.Context()
		for i := range 30 {
			p.lend(t, "a", `{}`)
			p.lend(t, fmt.Sprint("b", i), `{}`)
		}
		p.bank.accounts["other"] = time.Time{}
		if n, err := p.Leases().RevokeBelow(ctx, p.Mount.UUID+"/creds/a", lease.How{Now: true}); err != nil || n != 30 {
			t.Fatalf("%d, %v", n, err)
		}
		p.bank.set(errors.New("no"))
		if _, err := p.Leases().RevokeBelow(ctx, p.Mount.UUID, lease.How{Now: true}); err == nil {
			t.Error("a target that refuses goes unseen")
		}
		if err := p.Leases().EndMount(ctx, p.Mount.UUID, "bank/"); err == nil || !strings.Contains(err.Error(), "-force bank") {
			t.Errorf("%v", err)
		}
		if _, err := p.Leases().RevokeBelow(ctx, p.Mount.UUID, lease.How{Force: true}); err != nil {
			t.Error(err)
		}
		if rows := p.rows(t); len(rows) != 0 {
			t.Errorf("after forgetting there are %d rows: %.3q", len(rows), rows)
		}
	})
}

// TestManyAtOnce: leases that end in the same second do, soon.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		const many = 1000
		for i := range many {
			p.lend(t, fmt.Sprint("a", i), `{"ttl":3600}`)
		}
		time.Sleep(time.Hour + 20*time.Second)
		p.clean(t)
	})
}

func TestLimits(t *testing.T) {
	p := open(t)
	if a := p.Do("POST", "creds/"+strings.Repeat("x", lease.MaxPathBytes-len("creds/")), `{"ttl":60}`); a.Err != nil {
		t.Errorf("the longest path: %v", a.Err)
	}
	if a := p.Do("POST", "creds/"+strings.Repeat("x", lease.MaxPathBytes-len("creds/")+1), `{"ttl":60}`); !fault.Is(a.Err, fault.Invalid) {
		t.Errorf("a longer path: %v", a.Err)
	}
}
