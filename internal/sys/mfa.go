package sys

import (
	"context"

	"github.com/cofferhq/coffer/internal/factor"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var mfaRoutes = []route.Route[*System]{
	route.New("POST", "mfa/validate", "Prove the second factor of a login that waits for it, and get its token.", (*System).validateMFA, route.Public(),
		route.Shows("mfa/validate", `{"mfa_request_id":"the id that the login answered","mfa_payload":{"the method's id":["123456"]}}`, "")),
}

// ValidateMFA proves the second factor of a login.
type ValidateMFA struct {
	RequestID wire.Secret             `json:"mfa_request_id" doc:"The mfa_request_id that the login answered."`
	Payload   map[string]wire.Strings `json:"mfa_payload" doc:"For each method, by its id or name, a list with the passcode."`
}

func (s *System) validateMFA(ctx context.Context, _ route.Caller, in ValidateMFA) (*factor.Waiting, error) {
	switch {
	case in.RequestID == "":
		return nil, fault.New(fault.Invalid, "missing request ID")
	case len(in.Payload) == 0:
		return nil, fault.New(fault.Invalid, "missing mfa payload")
	}
	given := map[string][]string{}
	for method, codes := range in.Payload {
		given[method] = codes
	}
	return s.Open().Factors.Complete(ctx, in.RequestID.Reveal(), given)
}
