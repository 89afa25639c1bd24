package auth

import (
	"regexp"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

// TokenFields are TokenParams as a request changes them: what is left out stays
// as it is. Embed it in the request of a role or a user.
type TokenFields struct {
	TTL         *wire.Seconds `json:"token_ttl" doc:"How long a token lives before it must be renewed; 0 is the mount's default."`
	MaxTTL      *wire.Seconds `json:"token_max_ttl" doc:"How long a token lives at most, renewals included; 0 is the mount's."`
	ExplicitMax *wire.Seconds `json:"token_explicit_max_ttl" doc:"A hard end that later configuration cannot extend."`
	Period      *wire.Seconds `json:"token_period" doc:"Makes the token periodic: each renewal starts this long anew, without a maximum."`
	NumUses     *wire.Int     `json:"token_num_uses" doc:"How many requests the token may make; 0 is any number."`
	BoundCIDRs  *wire.Strings `json:"token_bound_cidrs" doc:"Networks from which login and token are accepted."`
	Type        *string       `json:"token_type" doc:"default, service, batch, default-service or default-batch."`
	NoDefault   *wire.Bool    `json:"token_no_default_policy" doc:"Leave the policy default out."`
	PolicyNames *wire.Strings `json:"token_policies" doc:"Policies of the token."`
}

// Apply changes p as the request says and checks what comes of it. Errors are
// faults of kind Invalid that name the field.
func (f TokenFields) Apply(p *TokenParams) error {
	assign(&p.TTL, f.TTL)
	assign(&p.MaxTTL, f.MaxTTL)
	assign(&p.ExplicitMax, f.ExplicitMax)
	assign(&p.Period, f.Period)
	assign(&p.NumUses, f.NumUses)
	assign(&p.BoundCIDRs, f.BoundCIDRs)
	assign(&p.Type, f.Type)
	assign(&p.NoDefault, f.NoDefault)
	assign(&p.PolicyNames, f.PolicyNames)
	return p.Check()
}

func assign[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

// Check puts the parameters into their normal form and refuses what cannot be.
func (p *TokenParams) Check() error {
	p.PolicyNames = Policies(p.PolicyNames)
	if p.Type == "" {
		p.Type = "default"
	}
	if _, err := wire.ParseNetworks(p.BoundCIDRs); err != nil {
		return fault.New(fault.Invalid, "token_bound_cidrs: %s", err)
	}
	for _, d := range []struct {
		name  string
		value wire.Seconds
	}{
		{"token_ttl", p.TTL}, {"token_max_ttl", p.MaxTTL}, {"token_explicit_max_ttl", p.ExplicitMax}, {"token_period", p.Period},
	} {
		if d.value < 0 {
			return fault.New(fault.Invalid, "'%s' cannot be negative", d.name)
		}
	}
	batch := false
	switch p.Type {
	case "default", "service", "default-service":
	case "batch", "default-batch":
		batch = true
	default:
		return fault.New(fault.Invalid, "invalid 'token_type' value %q", p.Type)
	}
	switch {
	case p.MaxTTL > 0 && p.TTL > p.MaxTTL:
		return fault.New(fault.Invalid, "'token_ttl' cannot be greater than 'token_max_ttl'")
	case p.NumUses < 0:
		return fault.New(fault.Invalid, "'token_num_uses' cannot be negative")
	case batch && p.Period != 0:
		return fault.New(fault.Invalid, "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens")
	case batch && p.NumUses != 0:
		return fault.New(fault.Invalid, "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count")
	}
	return nil
}

// Renamed lets a parameter's older name count where the newer is not given. old is
// kept in row, for answers that show it, and cleared there by the newer name.
func Renamed[T any](field **T, old, row *T) {
	switch {
	case *field != nil:
		var none T
		*row = none
	case old != nil:
		*field, *row = old, *old
	}
}

// names are what Vault accepts as a name of a user or a role.
var names = regexp.MustCompile(`^\w([\w.-]*\w)?$`)

const maxName = 256

// NameOf returns the name of a user or a role in its one spelling.
func NameOf(what, text string) (string, error) {
	if len(text) > maxName || !names.MatchString(text) {
		return "", fault.New(fault.Invalid, "a %s name has letters, digits, '_', '-' and '.', starts and ends with none of the last two, and has at most %d characters", what, maxName)
	}
	return strings.ToLower(text), nil
}

// Policies returns names of policies trimmed, in lower case, sorted, each once.
func Policies(names []string) wire.Strings {
	out := make(wire.Strings, 0, len(names))
	for _, name := range names {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
