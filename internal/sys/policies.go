package sys

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

var policyRoutes = []route.Route[*System]{
	route.New("LIST", "policies/acl", "List the policies.", (*System).listPolicies),
	route.New("GET", "policies/acl", "List the policies.", (*System).listPolicies, route.Needs(policy.List)),
	route.New("GET", "policies/acl/{name...}", "Read a policy.", (*System).readPolicy,
		route.Shows("policies/acl/default", "", "")),
	route.New("POST", "policies/acl/{name...}", "Write a policy.", (*System).writePolicy,
		route.Shows("policies/acl/app", `{"policy":"path \"secret/app/*\" { capabilities = [\"read\"] }"}`, "")),
	route.New("DELETE", "policies/acl/{name...}", "Delete a policy.", (*System).deletePolicy,
		route.Shows("policies/acl/app", "", "")),
	route.New("GET", "policy", "List the policies, in Vault's older shape.", (*System).oldPolicies),
	route.New("LIST", "policy", "List the policies, in Vault's older shape.", (*System).oldPolicies),
	route.New("GET", "policy/{name...}", "Read a policy, in Vault's older shape.", (*System).oldPolicy,
		route.Shows("policy/app", "", "")),
	route.New("POST", "policy/{name...}", "Write a policy.", (*System).writePolicy,
		route.Shows("policy/app", `{"policy":"path \"secret/app/*\" { capabilities = [\"read\"] }"}`, "")),
	route.New("DELETE", "policy/{name...}", "Delete a policy.", (*System).deletePolicy,
		route.Shows("policy/app", "", "")),
	route.New("POST", "policies/why", "Say why a request was denied, and what would have allowed it.", (*System).why, route.Reads(),
		route.Shows("policies/why", `{"request_id":"7b2f4a7e-31a8-4b8b-8d2f-0c6f1f4f1c55"}`, "")),
	route.New("POST", "policies/lint", "Check a policy against the mounts there are, without storing it.", (*System).lint, route.Reads(),
		route.Shows("policies/lint", `{"policy":"path \"secret/app/*\" { capabilities = [\"read\"] }"}`, `{"findings":[]}`)),
	route.New("POST", "capabilities", "List what a token may do on paths.", (*System).capabilities, route.Reads(),
		route.Shows("capabilities", `{"token":"hvs.CAESI…","paths":["secret/data/app"]}`, "")),
	route.New("POST", "capabilities-self", "List what the calling token may do on paths.", (*System).capabilitiesSelf, route.Reads(),
		route.Shows("capabilities-self", `{"paths":["secret/data/app"]}`, "")),
	route.New("POST", "capabilities-accessor", "List what the token of an accessor may do on paths.", (*System).capabilitiesAccessor, route.Reads(),
		route.Shows("capabilities-accessor", `{"accessor":"u1VhIYDK0bXuAJ9gzN0nVfYW","paths":["secret/data/app"]}`, "")),
	route.New("GET", "internal/ui/resultant-acl", "Read the policies of the calling token, merged.", (*System).resultant),
}

func (s *System) listPolicies(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Keys, error) {
	names, err := s.Open().Policies.List(ctx)
	return route.Keys{Keys: names}, err
}

// OldPolicies lists policies under two names, in the envelope and beside it.
type OldPolicies struct {
	route.Doubled
	Keys     []string `json:"keys"`
	Policies []string `json:"policies"`
}

func (s *System) oldPolicies(ctx context.Context, _ route.Caller, _ route.Nothing) (OldPolicies, error) {
	names, err := s.Open().Policies.List(ctx)
	return OldPolicies{Keys: names, Policies: names}, err
}

// PolicyName names a policy.
type PolicyName struct {
	Name string `path:"name" doc:"The policy's name."`
}

// PolicyText is a policy as it was written.
type PolicyText struct {
	Name   string `json:"name"`
	Policy string `json:"policy"`
}

func (s *System) readPolicy(ctx context.Context, _ route.Caller, in PolicyName) (PolicyText, error) {
	p, err := s.Open().Policies.Get(ctx, in.Name)
	if err != nil {
		return PolicyText{}, err
	}
	return PolicyText{p.Name, p.Source}, nil
}

// OldPolicyText is a policy in Vault's older shape.
type OldPolicyText struct {
	route.Doubled
	Name  string `json:"name"`
	Rules string `json:"rules"`
}

func (s *System) oldPolicy(ctx context.Context, _ route.Caller, in PolicyName) (OldPolicyText, error) {
	p, err := s.Open().Policies.Get(ctx, in.Name)
	if err != nil {
		return OldPolicyText{}, err
	}
	return OldPolicyText{Name: p.Name, Rules: p.Source}, nil
}

// WritePolicy is a policy to store.
type WritePolicy struct {
	Name   string `path:"name" doc:"The policy's name, in lower case."`
	Policy string `json:"policy" doc:"The rules, as HCL or JSON; base64 of them is accepted too."`
	Rules  string `json:"rules" doc:"Older spelling of policy."`
	Seen   string `json:"seen" doc:"SHA-256, in hex, of the text that this replaces, or none: the policy is written only if that is still so."`
}

func (s *System) writePolicy(ctx context.Context, _ route.Caller, in WritePolicy) (route.Empty, error) {
	text := in.Policy
	if text == "" {
		text = in.Rules
	}
	if text == "" {
		return route.Empty{}, fault.New(fault.Invalid, "'policy' parameter not supplied or empty")
	}
	if plain, err := base64.StdEncoding.DecodeString(text); err == nil {
		text = string(plain)
	}
	p, err := s.putPolicy(ctx, in, text)
	if err != nil {
		return route.Empty{}, err
	}
	out := route.Empty{}
	for _, f := range policy.Lint(p, s.mountsForLint()) {
		out.Warn(f.String())
	}
	return out, nil
}

func (s *System) putPolicy(ctx context.Context, in WritePolicy, text string) (*policy.Policy, error) {
	if in.Seen != "" {
		return s.Open().Policies.Replace(ctx, in.Name, text, in.Seen)
	}
	return s.Open().Policies.Put(ctx, in.Name, text)
}

// DeletePolicy names a policy to delete.
type DeletePolicy struct {
	Name string `path:"name" doc:"The policy's name."`
	Seen string `query:"seen" doc:"SHA-256, in hex, of the policy's text: it is deleted only if that is still so."`
}

func (s *System) deletePolicy(ctx context.Context, _ route.Caller, in DeletePolicy) (route.Empty, error) {
	if in.Seen != "" {
		return route.Empty{}, s.Open().Policies.Remove(ctx, in.Name, in.Seen)
	}
	return route.Empty{}, s.Open().Policies.Delete(ctx, in.Name)
}

// mountsForLint tells the lint which mounts are versioned, where a path has
// two spellings.
func (s *System) mountsForLint() []policy.MountInfo {
	var infos []policy.MountInfo
	for _, m := range s.Open().Mounts.List() {
		info := policy.MountInfo{Path: m.Entry.Path}
		for _, r := range m.Spec.Routes {
			info.Versioned = info.Versioned || r.Plain != nil && r.Plain.Pattern != r.Pattern
			if r.Sudo {
				info.Sudo = append(info.Sudo, m.Entry.Path+ruleOf(r.Pattern))
			}
		}
		infos = append(infos, info)
	}
	return append(infos, policy.MountInfo{Path: "auth/token/", Sudo: grantsMore})
}

// grantsMore are the paths where sudo is not needed and allows more.
var grantsMore = []string{"auth/token/create", "auth/token/create/*", "auth/token/create-orphan"}

// ruleOf spells a route's pattern as the path of a rule.
func ruleOf(pattern string) string {
	var segments []string
	for seg := range strings.SplitSeq(pattern, "/") {
		switch {
		case strings.HasSuffix(seg, "...}"):
			return strings.Join(append(segments, "*"), "/")
		case strings.HasPrefix(seg, "{"):
			seg = "+"
		}
		segments = append(segments, seg)
	}
	return strings.Join(segments, "/")
}

// LintPolicy is a policy to check.
type LintPolicy struct {
	Policy string `json:"policy" doc:"The rules, as HCL or JSON."`
}

// LintAnswer is what the lint found.
type LintAnswer struct {
	Findings []policy.Finding `json:"findings"`
}

func (s *System) lint(_ context.Context, _ route.Caller, in LintPolicy) (LintAnswer, error) {
	p, err := policy.Parse("candidate", in.Policy)
	if err != nil {
		return LintAnswer{}, err
	}
	return LintAnswer{policy.Lint(p, s.mountsForLint())}, nil
}

// WhyRequest names a denied request.
type WhyRequest struct {
	RequestID string `json:"request_id" doc:"The request_id that the denial was answered with."`
}

// Why is why a request was denied.
type Why struct {
	RequestID  string    `json:"request_id"`
	Time       time.Time `json:"time"`
	Principal  string    `json:"principal"`
	Accessor   string    `json:"accessor"`
	Policies   []string  `json:"policies"`
	Path       string    `json:"path"`
	Plain      string    `json:"plain_path,omitempty"`
	Need       string    `json:"need"`
	Sudo       bool      `json:"sudo"`
	Allowed    bool      `json:"allowed"`
	Policy     string    `json:"policy,omitempty"`
	Rule       string    `json:"rule,omitempty"`
	Missing    string    `json:"missing"`
	Fix        string    `json:"fix"`
	Considered []string  `json:"considered"`
}

func (s *System) why(_ context.Context, by route.Caller, in WhyRequest) (Why, error) {
	if in.RequestID == "" {
		return Why{}, fault.New(fault.Invalid, "request_id is needed: the one that the denial was answered with")
	}
	return s.Why(in.RequestID, by.Namespace)
}

// Capabilities asks what a token may do.
type Capabilities struct {
	Token    wire.Secret  `json:"token" doc:"The token; left out, the calling one."`
	Accessor string       `json:"accessor" doc:"The token's accessor."`
	Paths    wire.Strings `json:"paths" doc:"The paths asked about."`
	Path     wire.Strings `json:"path" doc:"Older spelling of paths."`
}

// CapabilitiesAnswer lists the capabilities of each path asked about.
type CapabilitiesAnswer struct {
	route.Doubled
	// ByPath has a list under each path, and under "capabilities" where one path
	// was asked about.
	ByPath map[string][]string `json:",embed"`
}

func (s *System) capable(rights route.Rights, in Capabilities) (CapabilitiesAnswer, error) {
	paths := slices.Concat(in.Paths, in.Path)
	if len(paths) == 0 {
		return CapabilitiesAnswer{}, fault.New(fault.Invalid, "paths must be supplied")
	}
	out := CapabilitiesAnswer{ByPath: map[string][]string{}}
	for _, path := range paths {
		out.ByPath[path] = rights.Capabilities(strings.TrimPrefix(path, "/"), s.plainOf(path))
	}
	if len(paths) == 1 {
		out.ByPath["capabilities"] = out.ByPath[paths[0]]
	}
	return out, nil
}

// capableAs answers for the holder of a token.
func (s *System) capableAs(ctx context.Context, tok *token.Token, in Capabilities) (CapabilitiesAnswer, error) {
	rights, err := s.RightsOf(ctx, tok, s.namespace)
	if err != nil {
		return CapabilitiesAnswer{}, err
	}
	return s.capable(rights, in)
}

// plainOf returns the plain spelling of a wire path, "" when it has none.
func (s *System) plainOf(path string) string {
	m, below := s.Open().Mounts.Find(strings.TrimPrefix(path, "/"))
	if m == nil {
		return ""
	}
	for _, method := range []string{"GET", "POST", "LIST"} {
		if spec, vars, _ := m.Routes.Find(method, below); spec != nil && spec.Plain != nil {
			return m.Entry.Path + route.Expand(spec.Plain.Pattern, vars)
		}
	}
	return ""
}

func (s *System) capabilitiesSelf(_ context.Context, by route.Caller, in Capabilities) (CapabilitiesAnswer, error) {
	return s.capable(by.Rights, in)
}

func (s *System) capabilities(ctx context.Context, by route.Caller, in Capabilities) (CapabilitiesAnswer, error) {
	if in.Token == "" {
		return s.capable(by.Rights, in)
	}
	tok, err := s.Open().Tokens.Lookup(ctx, in.Token.Reveal())
	if fault.Is(err, fault.Denied) {
		return CapabilitiesAnswer{}, fault.Wrap(fault.Invalid, err, "invalid token")
	}
	if err != nil {
		return CapabilitiesAnswer{}, err
	}
	return s.capableAs(ctx, tok, in)
}

func (s *System) capabilitiesAccessor(ctx context.Context, _ route.Caller, in Capabilities) (CapabilitiesAnswer, error) {
	tok, err := s.Open().Tokens.ByAccessor(ctx, in.Accessor)
	if err != nil {
		return CapabilitiesAnswer{}, err
	}
	return s.capableAs(ctx, tok, in)
}

// Resultant is what the calling token's policies come to, in the shape that
// Vault's console reads.
type Resultant struct {
	Root       bool                     `json:"root"`
	ExactPaths map[string]ResultantRule `json:"exact_paths"`
	GlobPaths  map[string]ResultantRule `json:"glob_paths"`
}

// ResultantRule is the capabilities of one path.
type ResultantRule struct {
	Capabilities []string `json:"capabilities"`
}

func (s *System) resultant(ctx context.Context, by route.Caller, _ route.Nothing) (Resultant, error) {
	out := Resultant{Root: by.Root, ExactPaths: map[string]ResultantRule{}, GlobPaths: map[string]ResultantRule{}}
	if by.Root {
		return out, nil
	}
	for _, name := range by.Policies {
		p, err := s.Open().Policies.Get(ctx, name)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return out, err
		}
		for _, rule := range p.Rules {
			if path, glob := strings.CutSuffix(rule.Path, "*"); glob {
				out.GlobPaths[path] = ResultantRule{by.Rights.Capabilities(path, "")}
			} else {
				out.ExactPaths[path] = ResultantRule{by.Rights.Capabilities(path, "")}
			}
		}
	}
	return out, nil
}
