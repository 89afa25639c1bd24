package sys

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/monitor"
	"github.com/cofferhq/coffer/internal/route"
)

var monitorRoutes = []route.Route[*System]{
	route.New("GET", "monitor", "Follow the server's log, as it is written.", (*System).monitor, route.Sudo(), route.Changes(),
		route.Shows("monitor?log_level=debug&log_format=json", "", "")),
}

const (
	// maxMonitor is how long the log is followed at most.
	maxMonitor = time.Hour
	// monitorPulse is how often it is looked whether the caller may still follow it.
	monitorPulse = 2 * time.Second
)

// logLevels are the levels of the log by Vault's names.
var logLevels = map[string]slog.Level{
	"trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo, "notice": slog.LevelInfo + 2,
	"warn": slog.LevelWarn, "error": slog.LevelError,
}

// dropped tells of lines that were lost, in JSON or not.
var dropped = map[bool]string{
	false: "Monitor dropped %d logs during monitor request\n",
	true:  `{"msg":"Monitor dropped %d logs during monitor request"}` + "\n",
}

// MonitorRequest says how the log is followed.
type MonitorRequest struct {
	Level  string `query:"log_level" doc:"trace, debug, info (unless given), warn or error; it may be lower than that of the server's own log."`
	Format string `query:"log_format" doc:"standard (unless given) or json."`
}

func (s *System) monitor(_ context.Context, by route.Caller, in MonitorRequest) (route.Stream, error) {
	name := strings.ToLower(in.Level)
	if name == "" {
		name = "info"
	}
	level, known := logLevels[name]
	if !known {
		return route.Stream{}, fault.New(fault.Invalid, "unknown log level; there are %s", strings.Join(slices.Sorted(maps.Keys(logLevels)), ", "))
	}
	out := route.Stream{ContentType: "text/plain; charset=utf-8", Live: true}
	asJSON := false
	switch strings.ToLower(in.Format) {
	case "", "standard":
	case "json":
		out.ContentType, asJSON = "application/x-ndjson", true
	default:
		return route.Stream{}, fault.New(fault.Invalid, "unknown log format; there are standard and json")
	}
	out.Write = func(ctx context.Context, w io.Writer) (route.Subject, error) {
		l := s.Log.Listen(level, asJSON)
		if l == nil {
			return route.Subject{}, &fault.Error{Kind: fault.Limited, Message: fmt.Sprintf("the log is followed by %d callers already, or the server stops; try again later", monitor.MaxListeners), RetryAfter: 10 * time.Second}
		}
		defer l.Close()
		sent := s.followLog(ctx, by, l, w, dropped[asJSON])
		return route.Subject{Path: "log", Label: fmt.Sprintf("level %s, %d lines", name, sent)}, nil
	}
	return out, nil
}

// followLog sends lines until the caller goes away or may not see them any more, the
// server stops, or the time is over. It returns how many were sent.
func (s *System) followLog(ctx context.Context, by route.Caller, l *monitor.Listener, w io.Writer, dropped string) (sent int) {
	ctx, cancel := context.WithTimeout(ctx, maxMonitor)
	defer cancel()
	pulse := time.NewTicker(monitorPulse)
	defer pulse.Stop()
	line := []byte{} // nothing: the answer begins before there is a line
	for {
		if _, err := w.Write(line); err != nil {
			return sent // the client is gone
		}
		select {
		case <-ctx.Done():
			return sent
		case <-l.Ended():
			return sent
		case line = <-l.Lines():
			sent++
		case <-pulse.C:
			if !s.mayFollow(ctx, by) {
				return sent
			}
			line = nil
			if n := l.Lost(); n > 0 {
				line = fmt.Appendf(nil, dropped, n)
			}
		}
	}
}

// mayFollow reports whether the caller's token still allows it. While the storage
// engine is away nobody knows better, and the log is wanted most.
func (s *System) mayFollow(ctx context.Context, by route.Caller) bool {
	tok, err := s.Open().Tokens.Lookup(ctx, by.Token)
	if err == nil {
		var rights route.Rights
		if rights, err = s.RightsOf(ctx, tok, ""); err == nil {
			may := rights.Capabilities("sys/monitor", "")
			return slices.Contains(may, "root") || slices.Contains(may, "sudo") && slices.Contains(may, "read")
		}
	}
	return !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Sealed) && !fault.Is(err, fault.Invalid)
}
