// Package enginetest opens an engine on a storage engine and calls it through
// its own route table, as the gateway does: a path is matched, a body decoded,
// and a handler invoked. It is for tests of engines and auth methods. It does
// not authorize; tests that care pass a caller whose Access they wrote.
package enginetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json"
)

// Options say how an engine is opened; the zero value is an engine on an empty
// memory engine at the mount "mount/".
type Options struct {
	Storage    storage.Engine
	Mount      engine.Mount
	MaxPayload int
	Log        *slog.Logger
	// Leases changes how leases are kept, if given.
	Leases func(*lease.Options)
}

// Engine is an opened engine and the table of its routes.
type Engine struct {
	Spec    *engine.Spec
	State   any
	Table   *route.Table
	Storage storage.Engine
	Mount   engine.Mount
	times   times
}

// Answer is what a request came to.
type Answer struct {
	Status   int // as the gateway would answer it
	Output   any // the handler's response, nil after an error
	Data     string
	Warnings []string
	Notes    route.Notes
	Spec     *route.Spec
	Need     policy.Capability // what the gateway would have asked for
	Err      error
}

// Everything is the access of a caller who may do anything.
type Everything struct{}

// Can implements route.Access.
func (Everything) Can(policy.Capability, string) bool { return true }

// Root is a caller who may do anything.
func Root() route.Caller {
	return route.Caller{TokenID: "root-token", DisplayName: "root", Root: true, Access: Everything{}}
}

// Fingerprint is the fingerprint that engines opened here are given.
func Fingerprint(value []byte) string {
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:8])
}

// Open opens spec.
func Open(t testing.TB, spec *engine.Spec, o Options) *Engine {
	t.Helper()
	if o.Storage == nil {
		o.Storage = memory.New()
	}
	if o.Mount.Path == "" {
		o.Mount.Path = "mount/"
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = 1 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Mount.UUID == "" {
		o.Mount.UUID = "4c1e1b4e-6a2c-4d0f-8f5e-3b9a7d2c6e10"
	}
	e := &Engine{Spec: spec, Table: route.NewTable(spec.Routes), Storage: o.Storage, Mount: o.Mount}
	env := engine.Env{
		Mount: o.Mount, Storage: o.Storage, Recent: engine.ReadThrough(o.Storage), Log: o.Log, Fingerprint: Fingerprint, MaxPayload: o.MaxPayload,
	}
	e.times = openTimes(t, &env, spec, e, o)
	var err error
	if e.State, err = spec.Open(context.Background(), env); err != nil {
		t.Fatalf("open %s: %v", spec.Name, err)
	}
	return e
}

// Run starts the engine's background work and returns what stops it and waits.
func (e *Engine) Run(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Spec.Run(ctx, e.State) }()
	return func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run %s: %v", e.Spec.Name, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("run %s: it goes on although its context ended", e.Spec.Name)
		}
	}
}

// Do makes a request as root. path may end in a query; body is JSON or "".
func (e *Engine) Do(method, path, body string) Answer { return e.As(Root(), method, path, body) }

// As makes a request as a caller.
func (e *Engine) As(by route.Caller, method, path, body string) Answer {
	return e.DoContext(context.Background(), by, method, path, body)
}

// DoContext makes a request as a caller under ctx.
func (e *Engine) DoContext(ctx context.Context, by route.Caller, method, path, body string) Answer {
	a := e.call(ctx, by, method, path, body)
	if a.Err != nil {
		a.Status = fault.From(a.Err).Kind.Status()
		return a
	}
	if noted, ok := a.Output.(route.Noted); ok {
		a.Notes = noted.Carried()
		a.Warnings = append(a.Warnings, a.Notes.Warnings...)
	}
	a.Status = a.Notes.Status
	if _, empty := a.Output.(route.Empty); empty {
		if a.Status == 0 && len(a.Warnings) == 0 {
			a.Status = 204
		}
	} else {
		text, err := json.Marshal(a.Output, json.Deterministic(true))
		a.Data, a.Err = string(text), err
	}
	if a.Status == 0 {
		a.Status = 200
	}
	return a
}

func (e *Engine) call(ctx context.Context, by route.Caller, method, path, body string) (a Answer) {
	path, query, _ := strings.Cut(path, "?")
	by.Path = path
	spec, vars, allowed := e.Table.Find(method, path)
	if spec == nil {
		if allowed != nil {
			a.Err = fault.New(fault.Method, "unsupported operation")
		} else {
			a.Err = fault.New(fault.NotFound, "unsupported path")
		}
		return a
	}
	a.Spec = spec
	var params *wire.Params
	if method == "POST" || method == "PATCH" {
		if params, a.Err = wire.ParseBody([]byte(body)); a.Err != nil {
			a.Err = fault.Wrap(fault.Invalid, a.Err, "%v", a.Err)
			return a
		}
	} else {
		values, err := url.ParseQuery(query)
		if err != nil {
			a.Err = fault.Wrap(fault.Invalid, err, "the query cannot be read")
			return a
		}
		params = wire.ParseQuery(values)
	}
	// Vars may be backed by the matcher's array, and handlers keep strings only.
	var input any
	input, a.Warnings, a.Err = spec.Decode(&route.Input{Vars: slices.Clone(vars), Params: params})
	if a.Err != nil {
		return a
	}
	if a.Need, a.Err = spec.Needed(ctx, e.State, input); a.Err != nil {
		return a
	}
	a.Output, a.Err = spec.Invoke(ctx, e.State, by, input)
	return a
}

// Must makes a request as root that has to be answered with the status.
func (e *Engine) Must(t testing.TB, status int, method, path, body string) Answer {
	t.Helper()
	a := e.Do(method, path, body)
	if a.Status != status {
		t.Fatalf("%s %s %s: status %d, want %d (%v) %s", method, path, body, a.Status, status, a.Err, a.Data)
	}
	return a
}
