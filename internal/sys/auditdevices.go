package sys

import (
	"context"
	"strings"

	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// AuditLog is about Coffer's own log, for those who verify it.
type AuditLog struct {
	Origin     string `json:"origin"`
	PublicKey  string `json:"public_key"`
	Entries    uint64 `json:"entries"`
	Checkpoint string `json:"checkpoint"` // the newest signed one
}

var auditRoutes = []route.Route[*System]{
	route.New("GET", "audit", "List the audit devices.", (*System).listDevices, route.Sudo()),
	route.New("POST", "audit/{path...}", "Enable an audit device beside Coffer's own log.", (*System).enableDevice, route.Sudo(),
		route.Shows("audit/file", `{"type":"file","options":{"file_path":"/var/log/coffer/requests.log"}}`, "")),
	route.New("DELETE", "audit/{path...}", "Disable an audit device.", (*System).disableDevice, route.Sudo(),
		route.Shows("audit/file", "", "")),
	route.New("POST", "audit-hash/{path...}", "Hash a value as an audit device does, to find it there.", (*System).auditHash, route.Reads(),
		route.Shows("audit-hash/file", `{"input":"u1VhIYDK0bXuAJ9gzN0nVfYW"}`, "")),
	// No intent is recorded: a log that needs repair takes none. The outcome and
	// the repair itself are recorded by the repaired log.
	route.New("POST", "audit-log/repair", "Bring a log back that refuses entries because others touched its files; without damage it does nothing.", (*System).repairAuditLog, route.Sudo(), route.Reads(),
		route.Shows("audit-log/repair", "", "")),
	route.New("GET", "audit-log", "Read the public key, size and newest checkpoint of Coffer's own log.", (*System).auditLog,
		route.Shows("audit-log", "", "")),
}

// DeviceInfo is an audit device in Vault's shape.
type DeviceInfo struct {
	Path        string            `json:"path"`
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Options     map[string]string `json:"options"`
	Local       bool              `json:"local"`
}

// DeviceMap lists audit devices by path.
type DeviceMap struct {
	route.Doubled
	Devices map[string]DeviceInfo `json:",embed"`
}

func (s *System) listDevices(ctx context.Context, _ route.Caller, _ route.Nothing) (DeviceMap, error) {
	out := DeviceMap{Devices: map[string]DeviceInfo{}}
	list, err := s.Open().Devices.List(ctx)
	for _, d := range list {
		out.Devices[d.Path] = DeviceInfo(d)
	}
	return out, err
}

// EnableDevice asks for an audit device.
type EnableDevice struct {
	Path        string         `path:"path" doc:"The device's name."`
	Type        string         `json:"type" doc:"The kind of device: file."`
	Description string         `json:"description" doc:"For people."`
	Options     wire.StringMap `json:"options" doc:"Options of the kind: file_path, mode, format, hmac_accessor."`
	Local       wire.Bool      `json:"local" doc:"Accepted for Vault's clients."`
}

func (s *System) enableDevice(ctx context.Context, _ route.Caller, in EnableDevice) (route.Empty, error) {
	path := strings.Trim(in.Path, "/")
	if path == "" || strings.Contains(path, "/") {
		return route.Empty{}, fault.New(fault.Invalid, "an audit device is named by one word")
	}
	return route.Empty{}, s.Open().Devices.Enable(ctx, auditstore.Device{
		Path: path + "/", Type: in.Type, Description: in.Description, Options: in.Options, Local: bool(in.Local),
	})
}

func (s *System) disableDevice(ctx context.Context, _ route.Caller, in MountPath) (route.Empty, error) {
	return route.Empty{}, s.Open().Devices.Disable(ctx, strings.Trim(in.Path, "/")+"/")
}

// AuditHash is a value to hash.
type AuditHash struct {
	Path  string      `path:"path" doc:"The device's name."`
	Input wire.Secret `json:"input" doc:"The value."`
}

// AuditHashed is a value's hash.
type AuditHashed struct {
	route.Doubled
	Hash string `json:"hash"`
}

func (s *System) auditHash(ctx context.Context, _ route.Caller, in AuditHash) (AuditHashed, error) {
	if in.Input == "" {
		return AuditHashed{}, fault.New(fault.Invalid, "the \"input\" parameter is empty")
	}
	hash, err := s.Open().Devices.Hash(ctx, strings.Trim(in.Path, "/")+"/", in.Input.Reveal())
	return AuditHashed{Hash: hash}, err
}

func (s *System) auditLog(context.Context, route.Caller, route.Nothing) (AuditLog, error) {
	return s.AuditLog()
}

func (s *System) repairAuditLog(context.Context, route.Caller, route.Nothing) (route.Empty, error) {
	return route.Empty{}, s.RepairAuditLog()
}
