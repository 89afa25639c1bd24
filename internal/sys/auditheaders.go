package sys

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var auditHeaderRoutes = []route.Route[*System]{
	route.New("GET", "config/auditing/request-headers", "Read which request headers are put into the audit log.", (*System).auditHeaders, route.Sudo()),
	route.New("LIST", "config/auditing/request-headers", "List which request headers are put into the audit log.", (*System).listAuditHeaders, route.Sudo()),
	route.New("GET", "config/auditing/request-headers/{name}", "Read how a request header is put into the audit log.", (*System).auditHeader, route.Sudo(),
		route.Shows("config/auditing/request-headers/X-Forwarded-For", "", "")),
	route.New("POST", "config/auditing/request-headers/{name}", "Put a request header into the audit log.", (*System).recordHeader, route.Sudo(),
		route.Shows("config/auditing/request-headers/X-Forwarded-For", `{"hmac":false}`, "")),
	route.New("DELETE", "config/auditing/request-headers/{name}", "Put a request header into the audit log no more.", (*System).forgetHeader, route.Sudo(),
		route.Shows("config/auditing/request-headers/X-Forwarded-For", "", "")),
}

// AuditHeaders are the request headers in the audit log, by name.
type AuditHeaders struct {
	route.Doubled
	Headers map[string]auditstore.Header `json:"headers"`
}

func (s *System) auditHeaders(ctx context.Context, _ route.Caller, _ route.Nothing) (AuditHeaders, error) {
	all, err := s.Open().Devices.Headers(ctx)
	return AuditHeaders{Headers: all}, err
}

func (s *System) listAuditHeaders(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Keys, error) {
	all, err := s.Open().Devices.Headers(ctx)
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: slices.Sorted(maps.Keys(all))}.Found()
}

// HeaderName names a request header.
type HeaderName struct {
	Name string `path:"name" doc:"The header's name; its case does not count."`
}

// AuditHeader is one request header, by the name that was asked for.
type AuditHeader struct {
	route.Doubled
	Header map[string]auditstore.Header `json:",embed"`
}

func (s *System) auditHeader(ctx context.Context, _ route.Caller, in HeaderName) (AuditHeader, error) {
	all, err := s.Open().Devices.Headers(ctx)
	if err != nil {
		return AuditHeader{}, err
	}
	h, ok := all[strings.ToLower(in.Name)]
	if !ok {
		return AuditHeader{}, fault.New(fault.Invalid, "Could not find header in config")
	}
	return AuditHeader{Header: map[string]auditstore.Header{in.Name: h}}, nil
}

// RecordHeader is a request header to record.
type RecordHeader struct {
	HeaderName
	HMAC *wire.Bool `json:"hmac" doc:"Hash its values, unless false. sys/audit-hash hashes a value that is looked for."`
}

func (s *System) recordHeader(ctx context.Context, _ route.Caller, in RecordHeader) (route.Empty, error) {
	return route.Empty{}, s.Open().Devices.RecordHeader(ctx, in.Name, auditstore.Header{HMAC: in.HMAC == nil || bool(*in.HMAC)})
}

func (s *System) forgetHeader(ctx context.Context, _ route.Caller, in HeaderName) (route.Empty, error) {
	return route.Empty{}, s.Open().Devices.ForgetHeader(ctx, in.Name)
}
