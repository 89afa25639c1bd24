package sys

import (
	"context"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json/jsontext"
)

// Holding a wrapping token is the permission to unwrap it, so that these routes
// ask for no other: a stolen one shows, because it can be used only once.
var wrappingRoutes = []route.Route[*System]{
	route.New("POST", "wrapping/wrap", "Put what is sent behind a single-use token; needs X-Vault-Wrap-TTL.", (*System).wrap, route.Reads(),
		route.Shows("wrapping/wrap", `{"password":"p4"}`, "")),
	route.New("POST", "wrapping/unwrap", "Take what is behind a wrapping token, once.", (*System).unwrap, route.Public(),
		route.Shows("wrapping/unwrap", `{"token":"hvs.CAESI…"}`, "")),
	route.New("POST", "wrapping/lookup", "Read when and for what a wrapping token was made.", (*System).wrapLookup, route.Public(), route.Reads(),
		route.Shows("wrapping/lookup", `{"token":"hvs.CAESI…"}`, `{"creation_path":"secret/data/app","creation_time":"2030-01-02T15:04:05Z","creation_ttl":300}`)),
	route.New("GET", "wrapping/lookup", "Read when and for what the calling wrapping token was made.", (*System).wrapLookup, route.Public(),
		route.Shows("wrapping/lookup", "", "")),
	route.New("POST", "wrapping/rewrap", "Put what is behind a wrapping token behind a fresh one.", (*System).rewrapToken, route.Public(),
		route.Shows("wrapping/rewrap", `{"token":"hvs.CAESI…"}`, "")),
}

// Wrap is anything.
type Wrap struct {
	Body wire.Object `json:"body" body:"whole" doc:"Any object."`
}

// Wrapped is what was sent, before the gateway wraps it.
type Wrapped struct {
	Body jsontext.Value `json:",embed"`
}

func (s *System) wrap(_ context.Context, by route.Caller, in Wrap) (Wrapped, error) {
	if by.WrapTTL == 0 {
		return Wrapped{}, fault.New(fault.Invalid, "endpoint requires response wrapping to be used: send X-Vault-Wrap-TTL, for example 5m")
	}
	return Wrapped{jsontext.Value(in.Body)}, nil
}

// WrappingToken names a wrapping token; left out, it is the calling one.
type WrappingToken struct {
	Token wire.Secret `json:"token" doc:"The wrapping token; left out, the one that calls."`
}

func (in WrappingToken) or(by route.Caller) string {
	if in.Token == "" {
		return by.Token
	}
	return in.Token.Reveal()
}

func (s *System) unwrap(ctx context.Context, by route.Caller, in WrappingToken) (route.Raw, error) {
	w, err := s.Open().Tokens.Unwrap(ctx, in.or(by))
	if err != nil {
		return route.Raw{}, err
	}
	out := route.Raw{ContentType: "application/json", Body: w.Body}
	out.Subject = route.Subject{Path: w.CreationPath, Label: "wrapping:" + w.Accessor}
	return out, nil
}

// WrapLookup is about a wrapping token.
type WrapLookup struct {
	CreationPath string       `json:"creation_path"`
	CreationTime wire.Time    `json:"creation_time"`
	TTL          wire.Seconds `json:"creation_ttl"`
}

func (s *System) wrapLookup(ctx context.Context, by route.Caller, in WrappingToken) (WrapLookup, error) {
	info, err := s.Open().Tokens.WrapLookup(ctx, in.or(by))
	if err != nil {
		return WrapLookup{}, err
	}
	return WrapLookup{info.CreationPath, info.CreationTime, info.TTL}, nil
}

func (s *System) rewrapToken(ctx context.Context, by route.Caller, in WrappingToken) (*token.WrapInfo, error) {
	return s.Open().Tokens.Rewrap(ctx, in.or(by))
}
