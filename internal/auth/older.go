package auth

import "github.com/cofferhq/coffer/internal/wire"

// Older are parameters of tokens under the names that Vault had before token_…,
// answered where they were written. Embed it in a stored record.
type Older struct {
	OldPolicies wire.Strings `json:"policies,omitempty"`
	OldNumUses  wire.Int     `json:"num_uses,omitzero"`
	OldTTL      wire.Seconds `json:"ttl,omitzero"`
	OldMaxTTL   wire.Seconds `json:"max_ttl,omitzero"`
	OldPeriod   wire.Seconds `json:"period,omitzero"`
	OldCIDRs    wire.Strings `json:"bound_cidrs,omitempty"`
}

// OlderFields are Older as a request changes them, next to TokenFields.
type OlderFields struct {
	OldPolicies *wire.Strings `json:"policies" doc:"An older name of token_policies."`
	OldNumUses  *wire.Int     `json:"num_uses" doc:"An older name of token_num_uses."`
	OldTTL      *wire.Seconds `json:"ttl" doc:"An older name of token_ttl."`
	OldMaxTTL   *wire.Seconds `json:"max_ttl" doc:"An older name of token_max_ttl."`
	OldPeriod   *wire.Seconds `json:"period" doc:"An older name of token_period."`
	OldCIDRs    *wire.Strings `json:"bound_cidrs" doc:"An older name of token_bound_cidrs."`
}

// Apply changes p and old as the request says with its fields of either name, of
// which the newer count, and checks what comes of it.
func (f OlderFields) Apply(fields TokenFields, p *TokenParams, old *Older) error {
	Renamed(&fields.PolicyNames, f.OldPolicies, &old.OldPolicies)
	Renamed(&fields.NumUses, f.OldNumUses, &old.OldNumUses)
	Renamed(&fields.TTL, f.OldTTL, &old.OldTTL)
	Renamed(&fields.MaxTTL, f.OldMaxTTL, &old.OldMaxTTL)
	Renamed(&fields.Period, f.OldPeriod, &old.OldPeriod)
	Renamed(&fields.BoundCIDRs, f.OldCIDRs, &old.OldCIDRs)
	if err := fields.Apply(p); err != nil {
		return err
	}
	if old.OldPolicies != nil {
		old.OldPolicies = p.PolicyNames
	}
	return nil
}
