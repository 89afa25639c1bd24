package enginetest

import (
	"context"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/agenda"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/password"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// times is what an engine is given that lends, or has things to do at a time. Its
// rows stand in the engine's own storage, below core/.
type times struct {
	workers *job.Workers
	leases  *lease.Book
}

// Lifetimes of the server.
const (
	DefaultTTL = 768 * time.Hour
	MaxTTL     = 768 * time.Hour
)

// openTimes gives env what is needed of time. e is what is opened with it.
func openTimes(t testing.TB, env *engine.Env, spec *engine.Spec, e *Engine, o Options) times {
	t.Helper()
	workers, err := job.New(job.Options{Engine: env.Storage, Node: "one", Beat: 15 * time.Second, Log: o.Log})
	if err != nil {
		t.Fatal(err)
	}
	options := lease.Options{
		Engine: env.Storage, Log: o.Log,
		Server: func() (time.Duration, time.Duration) { return DefaultTTL, MaxTTL },
		Find: func(string, string) (lease.Target, bool) {
			return lease.Target{Path: env.Mount.Path, Spec: spec, State: e.State}, true
		},
		Borrower: func(_ storage.Reader, by route.Caller) (lease.Borrower, error) {
			return lease.Borrower{Token: by.TokenID}, nil
		},
		Ended:  func(storage.Reader, string) (bool, error) { return false, nil },
		Record: func(context.Context, *lease.Lease, string, error) {},
	}
	if o.Leases != nil {
		o.Leases(&options)
	}
	leases, err := lease.Open(options, workers)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := agenda.Open(agenda.Options{
		Engine: env.Storage,
		Find:   func(string, string) (agenda.Target, bool) { return agenda.Target{Spec: spec, State: e.State}, true },
		Gone:   func(storage.Reader, string, string) (bool, error) { return false, nil },
	}, workers)
	if err != nil {
		t.Fatal(err)
	}
	env.Leases = lease.Lender{Book: leases, Mount: env.Mount, Live: func(storage.Reader) error { return nil }}
	env.Agenda = agenda.Agenda{Book: tasks, Mount: env.Mount}
	env.Password = password.NewStore(env.Storage, "").Generate
	return times{workers, leases}
}

// Leases are those of what the engine lent.
func (e *Engine) Leases() *lease.Book { return e.times.leases }

// Work does what is due, leases that end and tasks, until the test ends, and returns
// what stops it and waits.
func (e *Engine) Work(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.times.workers.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}
