package sys

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/cofferhq/coffer/internal/browser"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var browserRoutes = []route.Route[*System]{
	route.New("GET", "config/cors", "Read whose pages may call the API from a browser.", (*System).readCORS, route.Sudo(),
		route.Shows("config/cors", "", "")),
	route.New("POST", "config/cors", "Let pages of some origins call the API from a browser.", (*System).writeCORS, route.Sudo(),
		route.Shows("config/cors", `{"allowed_origins":["https://portal.example.com"],"allowed_headers":["X-Request-Id"]}`, "")),
	route.New("DELETE", "config/cors", "Let no page of another origin call the API.", (*System).deleteCORS, route.Sudo(),
		route.Shows("config/cors", "", "")),
	route.New("LIST", "config/ui/headers", "List the headers that are kept for the console.", (*System).listUIHeaders, route.Sudo()),
	route.New("GET", "config/ui/headers", "List the headers that are kept for the console.", (*System).listUIHeaders, route.Sudo(), route.Needs(policy.List)),
	route.New("GET", "config/ui/headers/{name}", "Read a header that is kept for the console.", (*System).readUIHeader, route.Sudo(),
		route.Shows("config/ui/headers/X-Frame-Options", "", "")),
	route.New("POST", "config/ui/headers/{name}", "Keep a header for the console's answers.", (*System).writeUIHeader, route.Sudo(),
		route.Shows("config/ui/headers/X-Frame-Options", `{"values":["DENY"]}`, "")),
	route.New("DELETE", "config/ui/headers/{name}", "Forget a header of the console.", (*System).deleteUIHeader, route.Sudo(),
		route.Shows("config/ui/headers/X-Frame-Options", "", "")),
}

// CORSInfo says whose pages may call.
type CORSInfo struct {
	route.Doubled
	Enabled bool     `json:"enabled"`
	Origins []string `json:"allowed_origins,omitempty"`
	Headers []string `json:"allowed_headers,omitempty"`
}

func (s *System) readCORS(ctx context.Context, _ route.Caller, _ route.Nothing) (CORSInfo, error) {
	c, err := s.Open().Browsers.CORS(ctx)
	if err != nil || c == nil {
		return CORSInfo{}, err
	}
	return CORSInfo{Enabled: true, Origins: c.Origins, Headers: c.AllowedHeaders()}, nil
}

// WriteCORS lets pages call.
type WriteCORS struct {
	Origins     wire.Strings `json:"allowed_origins" doc:"Origins as browsers send them, such as https://portal.example.com; or only * for all."`
	Headers     wire.Strings `json:"allowed_headers" doc:"Request headers that pages may send, beside those that the API itself knows."`
	Enabled     wire.Bool    `json:"enabled" doc:"Accepted for Vault's clients: writing enables, deleting disables."`
	Enable      wire.Bool    `json:"enable" doc:"Accepted for Vault's clients."`
	Credentials wire.Bool    `json:"allow_credentials" doc:"Only false: a page sends its token as a header, never a cookie."`
}

func (s *System) writeCORS(ctx context.Context, _ route.Caller, in WriteCORS) (route.Empty, error) {
	if in.Credentials {
		return route.Empty{}, fault.New(fault.Invalid, "allow_credentials cannot be true: browsers would send cookies and certificates for any page; a page sends its token as X-Vault-Token")
	}
	return route.Empty{}, s.Open().Browsers.Allow(ctx, browser.CORS{Origins: in.Origins, Headers: in.Headers})
}

func (s *System) deleteCORS(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	return route.Empty{}, s.Open().Browsers.Forbid(ctx)
}

func (s *System) listUIHeaders(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Keys, error) {
	names, err := s.Open().Browsers.Headers(ctx)
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: names}.Found()
}

// UIHeaderName names a header.
type UIHeaderName struct {
	Name  string    `path:"name" doc:"The header's name."`
	Multi wire.Bool `query:"multivalue" doc:"Answer all values, as values; else the first, as value."`
}

// UIHeader is a header's first value, or all of them.
type UIHeader struct {
	Value  string   `json:"value,omitempty"`
	Values []string `json:"values,omitempty"`
}

func (s *System) readUIHeader(ctx context.Context, _ route.Caller, in UIHeaderName) (UIHeader, error) {
	values, err := s.Open().Browsers.Header(ctx, in.Name)
	switch {
	case err != nil:
		return UIHeader{}, err
	case bool(in.Multi):
		return UIHeader{Values: values}, nil
	}
	return UIHeader{Value: values[0]}, nil
}

// WriteUIHeader is a header to keep.
type WriteUIHeader struct {
	Name   string       `path:"name" doc:"The header's name."`
	Values HeaderValues `json:"values" doc:"Its values: a list, or one text."`
	Multi  wire.Bool    `json:"multivalue" doc:"Accepted for Vault's clients."`
}

// HeaderValues are a list of values, or one, in which a comma is a comma.
type HeaderValues []string

// UnmarshalJSON accepts a list of texts or one.
func (v *HeaderValues) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*v = HeaderValues{one}
		return nil
	}
	var list []string
	if json.Unmarshal(b, &list) != nil {
		return errors.New("it must be a list of strings, or one")
	}
	*v = list
	return nil
}

func (s *System) writeUIHeader(ctx context.Context, _ route.Caller, in WriteUIHeader) (route.Empty, error) {
	out := route.Empty{}
	if err := s.Open().Browsers.SetHeader(ctx, in.Name, in.Values); err != nil {
		return out, err
	}
	out.Warn("the header is kept, and sent with nothing yet: this server has no console")
	return out, nil
}

func (s *System) deleteUIHeader(ctx context.Context, _ route.Caller, in UIHeaderName) (route.Empty, error) {
	return route.Empty{}, s.Open().Browsers.DeleteHeader(ctx, in.Name)
}
