package sys

import (
	"context"
	"encoding/base64"
	"encoding/json"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var passwordRoutes = []route.Route[*System]{
	route.New("LIST", "policies/password", "List the password policies.", (*System).listPasswords),
	route.New("GET", "policies/password", "List the password policies.", (*System).listPasswords, route.Needs(policy.List)),
	route.New("GET", "policies/password/{name...}", "Read a password policy.", (*System).readPassword,
		route.Shows("policies/password/strong", "", "")),
	route.New("POST", "policies/password/{name...}", "Write a password policy.", (*System).writePassword,
		route.Shows("policies/password/strong", `{"policy":"length = 20\nrule \"charset\" {\n  charset = \"abcdefghij0123456789\"\n  min-chars = 1\n}"}`, "")),
	route.New("DELETE", "policies/password/{name...}", "Delete a password policy.", (*System).deletePassword,
		route.Shows("policies/password/strong", "", "")),
	route.New("GET", "policies/password/{name...}/generate", "Make a password by a policy; it is not kept.", (*System).generatePassword,
		route.Shows("policies/password/strong/generate", "", "")),
}

func (s *System) listPasswords(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Keys, error) {
	names, err := s.Open().Passwords.List(ctx)
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: names}.Found()
}

// PasswordPolicy is a password policy as it was written.
type PasswordPolicy struct {
	Policy string `json:"policy"`
}

func (s *System) readPassword(ctx context.Context, _ route.Caller, in PolicyName) (PasswordPolicy, error) {
	text, err := s.Open().Passwords.Source(ctx, in.Name)
	return PasswordPolicy{text}, err
}

// WritePassword is a password policy to store.
type WritePassword struct {
	Name   string `path:"name" doc:"The policy's name."`
	Policy string `json:"policy" doc:"A length and rules, as HCL or JSON; base64 of them is accepted too."`
}

func (s *System) writePassword(ctx context.Context, _ route.Caller, in WritePassword) (route.Empty, error) {
	if in.Policy == "" {
		return route.Empty{}, fault.New(fault.Invalid, "missing policy: send it as \"policy\"")
	}
	if plain, err := base64.StdEncoding.DecodeString(in.Policy); err == nil {
		in.Policy = string(plain)
	}
	return route.Empty{}, s.Open().Passwords.Put(ctx, in.Name, in.Policy)
}

func (s *System) deletePassword(ctx context.Context, _ route.Caller, in PolicyName) (route.Empty, error) {
	return route.Empty{}, s.Open().Passwords.Delete(ctx, in.Name)
}

// Generated is a password for whoever asked.
type Generated struct {
	Password wire.Secret `json:"password"`
}

// MarshalJSON shows the password, which nobody else ever sees.
func (g Generated) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"password": g.Password.Reveal()})
}

func (s *System) generatePassword(ctx context.Context, _ route.Caller, in PolicyName) (Generated, error) {
	made, err := s.Open().Passwords.Generate(ctx, in.Name)
	return Generated{made}, err
}
