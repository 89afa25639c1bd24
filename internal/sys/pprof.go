package sys

import (
	"bytes"
	"context"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Profiles show what the server does, never what it holds: stacks and counts.
var profileRoutes = []route.Route[*System]{
	route.New("GET", "pprof/profile", "Profile the processor for some seconds, in pprof's format.", (*System).cpuProfile, route.Sudo(), route.Shows("pprof/profile?seconds=5", "", "")),
	route.New("GET", "pprof/trace", "Trace execution for some seconds, for `go tool trace`.", (*System).trace, route.Sudo(), route.Shows("pprof/trace?seconds=1", "", "")),
	route.New("GET", "pprof/{name}", "Read a profile: allocs, block, goroutine, heap, mutex or threadcreate.", (*System).profile, route.Sudo(), route.Shows("pprof/heap", "", "")),
}

// maxProfile bounds how long one profile runs.
const maxProfile = 60 * time.Second

// Span says how long is looked.
type Span struct {
	Seconds wire.Seconds `query:"seconds" doc:"How long; 10s unless given, at most 60s."`
}

// wait looks for as long as was asked, or until the caller went away.
func (in Span) wait(ctx context.Context) error {
	d := in.Seconds.Duration()
	switch {
	case d == 0:
		d = 10 * time.Second
	case d < 0 || d > maxProfile:
		return fault.New(fault.Invalid, "seconds must be between 1 and %d", int(maxProfile.Seconds()))
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *System) cpuProfile(ctx context.Context, _ route.Caller, in Span) (route.Raw, error) {
	var out bytes.Buffer
	if err := pprof.StartCPUProfile(&out); err != nil {
		return route.Raw{}, fault.Wrap(fault.Invalid, err, "a profile is being taken already")
	}
	err := in.wait(ctx)
	pprof.StopCPUProfile()
	return route.Raw{ContentType: "application/octet-stream", Body: out.Bytes()}, err
}

func (s *System) trace(ctx context.Context, _ route.Caller, in Span) (route.Raw, error) {
	var out bytes.Buffer
	if err := trace.Start(&out); err != nil {
		return route.Raw{}, fault.Wrap(fault.Invalid, err, "a trace is being taken already")
	}
	err := in.wait(ctx)
	trace.Stop()
	return route.Raw{ContentType: "application/octet-stream", Body: out.Bytes()}, err
}

// ProfileName names one of Go's profiles.
type ProfileName struct {
	Name  string   `path:"name" doc:"The profile's name."`
	Debug wire.Int `query:"debug" doc:"1 or 2 for text; 0 for pprof's format."`
}

func (s *System) profile(_ context.Context, _ route.Caller, in ProfileName) (route.Raw, error) {
	p := pprof.Lookup(in.Name)
	if p == nil {
		return route.Raw{}, fault.New(fault.NotFound, "there is no profile %q", in.Name)
	}
	if in.Name == "heap" {
		runtime.GC() // so that it shows what is in use now
	}
	var out bytes.Buffer
	contentType := "application/octet-stream"
	if in.Debug > 0 {
		contentType = "text/plain; charset=utf-8"
	}
	err := p.WriteTo(&out, int(in.Debug))
	return route.Raw{ContentType: contentType, Body: out.Bytes()}, err
}
