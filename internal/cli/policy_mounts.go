package cli

import (
	"github.com/cofferhq/coffer/internal/auth/tokens"
	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/cubbyhole"
	"github.com/cofferhq/coffer/internal/engine/identities"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/policy/question"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/sys"
)

// usualMounts are what a path is looked up in where nobody says more: what every
// server has, secret/ as kv version 2, and each login method where its name says.
func usualMounts() []question.Mount {
	list := []question.Mount{
		{Path: "sys/", Type: "system", Routes: sys.Kind(nil).Spec().Routes},
		{Path: "auth/token/", Type: "token", Routes: tokens.Kind(tokens.Options{}).Spec().Routes},
		{Path: "cubbyhole/", Type: "cubbyhole", Routes: cubbyhole.Kind.Spec().Routes},
		{Path: "identity/", Type: "identity", Routes: identities.Kind(identities.Stores{}).Spec().Routes},
		{Path: "secret/", Type: "kv", Routes: builtin.Engine("kv", "2").Routes},
	}
	for _, kind := range builtin.Engines {
		if kind.Class == engine.Auth {
			list = append(list, question.Mount{Path: "auth/" + kind.Name + "/", Type: kind.Name, Routes: kind.Routes})
		}
	}
	return list
}

// declaredMounts are the usual ones and those that files declare.
func declaredMounts(declared ...[]question.Declared) *question.Mounts {
	list := usualMounts()
	for _, some := range declared {
		for _, d := range some {
			list = append(list, question.Mount{Path: d.Path, Type: d.Type, Routes: routesOf(d.Type, d.Version())})
		}
	}
	return question.New(list)
}

// routesOf returns the routes of a kind, nil where this program has none of the name.
func routesOf(kind, version string) []route.Spec {
	if kind == "kv-v2" {
		kind, version = "kv", "2"
	}
	if spec := builtin.Engine(kind, version); spec != nil {
		return spec.Routes
	}
	return nil
}

// withDefault adds the policy that every server has, where none of its name is there.
func withDefault(policies []*policy.Policy) ([]*policy.Policy, error) {
	for _, p := range policies {
		if p.Name == "default" {
			return policies, nil
		}
	}
	p, err := policy.Parse("default", policystore.Default())
	return append(policies, p), err
}

// recordedRoutes returns the routes of a kind as the audit log names it.
func recordedRoutes(kind, version string) []route.Spec {
	for _, m := range usualMounts() {
		if m.Type == kind && kind != "kv" {
			return m.Routes
		}
	}
	return routesOf(kind, version)
}
