package sys

import (
	"context"
	"os"
	"runtime"
	"time"

	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json/jsontext"
)

// APILevel is the level of Vault's API that is spoken. Clients switch features
// on by it.
const APILevel = "1.19.0"

// Version is this binary's version.
type Version struct {
	Coffer string    // such as "0.1.0"
	Built  time.Time // zero where it is not known
}

// Wire is the version as clients read it: the API level with Coffer's own as
// build metadata.
func (v Version) Wire() string { return APILevel + "+coffer" }

var infoRoutes = []route.Route[*System]{
	route.New("GET", "metrics", "Read the metrics; format=prometheus for Prometheus.", (*System).metrics,
		route.Shows("metrics?format=prometheus", "", "")),
	route.New("GET", "internal/specs/openapi", "Read the OpenAPI document of everything that is mounted.", (*System).openAPI,
		route.Shows("internal/specs/openapi", "", "")),
	route.New("GET", "config/state/sanitized", "Read the configuration in force, without secrets.", (*System).sanitized),
	route.New("GET", "version-history", "List the versions that this server has run.", (*System).versions, route.Needs(policy.List)),
	route.New("LIST", "version-history", "List the versions that this server has run.", (*System).versions),
	route.New("GET", "host-info", "Read about the machine.", (*System).hostInfo),
	route.New("GET", "in-flight-req", "List the requests under way.", (*System).inFlight),
}

// MetricsRequest asks for metrics.
type MetricsRequest struct {
	Format string `query:"format" doc:"prometheus, or empty for JSON."`
}

func (s *System) metrics(_ context.Context, _ route.Caller, in MetricsRequest) (route.Raw, error) {
	return s.Metrics(in.Format)
}

// OpenAPIRequest takes what Vault's clients send.
type OpenAPIRequest struct {
	Context string    `query:"context" doc:"Accepted for Vault's clients."`
	Generic wire.Bool `query:"generic_mount_paths" doc:"Accepted for Vault's clients."`
}

func (s *System) openAPI(context.Context, route.Caller, OpenAPIRequest) (route.Raw, error) {
	text, err := s.OpenAPI()
	return route.Raw{ContentType: "application/json", Body: text}, err
}

// SanitizedConfig is the configuration in force without anything secret, by
// Vault's names.
type SanitizedConfig struct {
	route.Doubled
	Settings jsontext.Value `json:",embed"`
}

func (s *System) sanitized(context.Context, route.Caller, route.Nothing) (SanitizedConfig, error) {
	return s.Sanitized()
}

// VersionInfo is one version that the server has run.
type VersionInfo struct {
	Previous  string    `json:"previous_version"`
	Installed wire.Time `json:"timestamp_installed"`
	Built     wire.Time `json:"build_date"`
}

func (s *System) versions(context.Context, route.Caller, route.Nothing) (route.KeysInfo[VersionInfo], error) {
	v := s.Version.Wire()
	return route.KeysInfo[VersionInfo]{
		Keys: []string{v},
		Info: map[string]VersionInfo{v: {Installed: wire.Time{Time: started}, Built: wire.Time{Time: s.Version.Built}}},
	}, nil
}

// started is when this process began.
var started = time.Now().UTC()

// HostInfo is about the machine.
type HostInfo struct {
	Timestamp time.Time `json:"timestamp"`
	Host      Host      `json:"host"`
	CPU       []CPU     `json:"cpu"`
	Memory    Memory    `json:"memory"`
}

// Host names the machine.
type Host struct {
	Hostname string `json:"hostname"`
	OS       string `json:"os"`
	Arch     string `json:"kernelArch"`
	Uptime   uint64 `json:"uptime"` // of this process, in seconds
}

// CPU is one processor.
type CPU struct {
	Number int `json:"cpu"`
}

// Memory is this process's memory, in bytes.
type Memory struct {
	Heap uint64 `json:"heap"`
	Sys  uint64 `json:"sys"`
}

func (s *System) hostInfo(context.Context, route.Caller, route.Nothing) (HostInfo, error) {
	name, err := os.Hostname()
	if err != nil {
		return HostInfo{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	out := HostInfo{
		Timestamp: time.Now().UTC(), Memory: Memory{m.HeapAlloc, m.Sys},
		Host: Host{name, runtime.GOOS, runtime.GOARCH, uint64(time.Since(started).Seconds())},
	}
	for i := range runtime.NumCPU() {
		out.CPU = append(out.CPU, CPU{i})
	}
	return out, nil
}

// InFlight is a request under way.
type InFlight struct {
	ID     string    `json:"request_id"`
	Method string    `json:"request_method"`
	Path   string    `json:"request_path"`
	Remote string    `json:"client_remote_address"`
	Start  time.Time `json:"start_time"`
}

// InFlightAnswer lists requests by id.
type InFlightAnswer struct {
	route.Doubled
	Requests map[string]InFlight `json:",embed"`
}

func (s *System) inFlight(context.Context, route.Caller, route.Nothing) (InFlightAnswer, error) {
	out := InFlightAnswer{Requests: map[string]InFlight{}}
	for _, r := range s.InFlight() {
		out.Requests[r.ID] = r
	}
	return out, nil
}
