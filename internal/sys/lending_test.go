package sys_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/cofferhq/coffer/internal/agenda"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/sys"
	"github.com/cofferhq/coffer/internal/token"
)

// openTimes opens what time drives.
func (s *server) openTimes(u *sys.Unsealed, store *token.Store) (err error) {
	log := slog.New(slog.DiscardHandler)
	if u.Jobs, err = job.New(job.Options{Engine: s.barrier, Node: "here", Log: log}); err != nil {
		return err
	}
	if u.Leases, err = lease.Open(lease.Options{
		Engine: s.barrier, Server: store.Lifetimes, Log: log,
		Find: func(namespace, uuid string) (lease.Target, bool) { return u.Realms.Lender(namespace, uuid) },
		Borrower: func(r storage.Reader, by route.Caller) (lease.Borrower, error) {
			id, until, err := store.Borrower(storage.SubReader(r, "core/tokens/"), by.TokenID, by.Token)
			return lease.Borrower{Token: id, Until: until}, err
		},
		Ended: func(r storage.Reader, id string) (bool, error) {
			return token.Ended(storage.SubReader(r, "core/tokens/"), id)
		},
		Bounds:  func(l *lease.Lease) []lease.Bound { return u.Realms.LeaseBounds(u.Quotas, l) },
		MaxHeld: func() int { c := u.Quotas.Config(); return c.Held() },
		Record:  func(context.Context, *lease.Lease, string, error) {},
	}, u.Jobs); err != nil {
		return err
	}
	u.Agenda, err = agenda.Open(agenda.Options{
		Engine: s.barrier, Gone: realm.MountGone,
		Find: func(namespace, uuid string) (agenda.Target, bool) { return u.Realms.Tasked(namespace, uuid) },
	}, u.Jobs)
	return err
}

// bank is a target that engines lend accounts of.
type bank struct {
	mu       sync.Mutex
	accounts map[string]bool
	refuses  string
}

func (b *bank) refuse(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuses = why
}

func (b *bank) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.accounts))
}

type lender struct{ env engine.Env }

type lendAsk struct {
	Name string `path:"name"`
}

type lendAnswer struct {
	route.Notes
	Name string `json:"name"`
}

func bankKind(b *bank) *engine.Spec {
	return engine.Kind[struct{}, *lender]{
		Name: "bank", Class: engine.Secret, Doc: "Lends accounts.",
		Open: func(_ context.Context, env engine.Env, _ struct{}) (*lender, error) { return &lender{env}, nil },
		Routes: []route.Route[*lender]{route.New("GET", "creds/{name}", "Lend an account.",
			func(l *lender, ctx context.Context, by route.Caller, in lendAsk) (out lendAnswer, err error) {
				out.Name = in.Name
				out.Notes, err = l.env.Leases.Lend(ctx, by, engine.Loan{Data: in.Name, Renewable: true}, func(context.Context, engine.Leased) error {
					b.mu.Lock()
					defer b.mu.Unlock()
					if b.accounts == nil {
						b.accounts = map[string]bool{}
					}
					b.accounts[in.Name] = true
					return nil
				})
				return out, err
			}, route.Changes())},
		Lending: &engine.Lending[*lender]{Revoke: func(_ *lender, _ context.Context, l engine.Leased) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.refuses != "" {
				return errors.New(b.refuses)
			}
			var name string
			if err := l.Into(&name); err != nil {
				return err
			}
			delete(b.accounts, name)
			return nil
		}},
	}.Spec()
}
