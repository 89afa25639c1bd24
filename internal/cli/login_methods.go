package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/client"
)

// method is one by which coffer login proves who somebody is.
type method struct {
	name   string // of -method, and where it is usually enabled
	params []param
	// login gets a token, wrapped if that is asked.
	login func(s *shell, ctx context.Context, f *loginFlags, args []string) (*client.Response, error)
}

// param is what a method takes.
type param struct {
	name     string
	optional bool
	secret   bool   // asked for without showing it, and warned of on the command line
	usually  string // file that it is read from where it is not given
}

// logins are all methods but token. Where the parameters are what the method's login takes,
// a line is all there is to a method.
var logins = []method{
	sent("approle", param{name: "role_id"}, param{name: "secret_id", secret: true, optional: true}),
	{"aws", cloud, (*shell).loginAWS},
	sent("azure", param{name: "role"}, param{name: "jwt", secret: true}, param{name: "subscription_id", optional: true}, param{name: "resource_group_name", optional: true},
		param{name: "vm_name", optional: true}, param{name: "vmss_name", optional: true}, param{name: "resource_id", optional: true}),
	sent("cert", param{name: "name", optional: true}),
	sent("gcp", param{name: "role"}, param{name: "jwt", secret: true}),
	sent("jwt", param{name: "role", optional: true}, param{name: "jwt", secret: true}),
	sent("kubernetes", param{name: "role"}, param{name: "jwt", secret: true, usually: "/var/run/secrets/kubernetes.io/serviceaccount/token"}),
	{"ldap", user, (*shell).loginUser},
	{"oidc", browser, (*shell).loginBrowser},
	{"okta", user, (*shell).loginUser},
	{"radius", user, (*shell).loginUser},
	// Without a token the client's certificate counts.
	sent("spiffe", param{name: "role"}, param{name: "jwt", secret: true, optional: true}),
	{"userpass", user, (*shell).loginUser},
}

var user = []param{{name: "username"}, {name: "password", secret: true}}

// sent is a method whose login takes the parameters as they are.
func sent(name string, params ...param) method {
	return method{name, params, func(s *shell, ctx context.Context, f *loginFlags, args []string) (*client.Response, error) {
		given, err := s.given(name, params, args)
		if err != nil {
			return nil, err
		}
		body := map[string]client.Secret{}
		for name, value := range given {
			// A file ends with a line break, which is part of none of these.
			body[name] = client.Secret(strings.TrimRight(value, "\r\n"))
		}
		return s.do(ctx, client.Request{Method: "POST", Path: "auth/" + f.mount() + "/login", Body: body, Anonymous: true})
	}}
}

// given reads a method's parameters, and asks for those that are missing.
func (s *shell) given(method string, params []param, args []string) (map[string]string, error) {
	data, literal, err := s.values(args)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, value := range data {
		if !slices.ContainsFunc(params, func(p param) bool { return p.name == name }) {
			return nil, usage("%s takes %s, not %q", method, takes(params), name)
		}
		out[name] = scalar(value)
	}
	var open []string
	for _, p := range params {
		if out[p.name] == "" && p.usually != "" {
			if out[p.name], _, err = s.text("@" + p.usually); err != nil {
				return nil, fmt.Errorf("%s is read from %s where it is not given: %w", p.name, p.usually, err)
			}
		}
		if p.secret && slices.Contains(literal, p.name) {
			open = append(open, p.name)
		}
		if out[p.name] != "" || p.optional {
			continue
		}
		if s.Prompt == nil || s.global.nonInteractive {
			return nil, usage("%s wants %s; say %s=…", method, takes(params), p.name)
		}
		if out[p.name], err = s.Prompt(p.name + " (will be hidden): "); err != nil {
			return nil, err
		}
	}
	s.warnLiteral(open)
	return out, nil
}

// takes lists parameters, those that may be left out in brackets.
func takes(params []param) string {
	names := make([]string, len(params))
	for i, p := range params {
		if names[i] = p.name; p.optional || p.usually != "" {
			names[i] = "[" + p.name + "]"
		}
	}
	return strings.Join(names, " ")
}

func methodNamed(name string) *method {
	for i := range logins {
		if logins[i].name == name {
			return &logins[i]
		}
	}
	return nil
}

// methodNames are the names of all logins but token.
func methodNames() []string {
	var names []string
	for _, m := range logins {
		names = append(names, m.name)
	}
	return names
}

// methodsTable shows what each method takes.
func methodsTable() string {
	var out strings.Builder
	for _, m := range logins {
		fmt.Fprintf(&out, "  %-11s %s\n", m.name, takes(m.params))
	}
	return out.String()
}
