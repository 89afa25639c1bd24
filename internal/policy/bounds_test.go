package policy

import (
	"testing"
	"time"
)

const bounded = `
path "dev/*" {
	policy = "write"
	allowed_parameters = { "zip" = [] }
}
path "foo/bar" {
	policy = "write"
	denied_parameters = { "zap" = [] }
	min_wrapping_ttl = 300
	max_wrapping_ttl = "400"
}
path "foo/baz" {
	policy = "write"
	allowed_parameters = { "hello" = [] }
	denied_parameters = { "zap" = [] }
	min_wrapping_ttl = "5m"
}
path "working/phone" {
	policy = "write"
	max_wrapping_ttl = 400
}
path "broken/phone" {
	policy = "write"
	allowed_parameters = { "steve" = [] }
	denied_parameters = { "steve" = [] }
}
path "hello/world" {
	policy = "write"
	allowed_parameters = { "*" = [] }
	denied_parameters = { "*" = [] }
}
path "tree/fort" {
	policy = "write"
	allowed_parameters = { "*" = [] }
	denied_parameters = { "foo" = [] }
}
path "fruit/apple" {
	policy = "write"
	allowed_parameters = { "pear" = [] }
	denied_parameters = { "*" = [] }
}
path "cold/weather" {
	policy = "write"
	allowed_parameters = {}
	denied_parameters = {}
}
path "var/aws" {
	policy = "write"
	allowed_parameters = { "*" = [] }
	denied_parameters = { "soft" = [] "warm" = [] "kitty" = [] }
}
path "var/req" {
	policy = "write"
	required_parameters = ["Foo"]
}
path "v/glob" {
	policy = "write"
	denied_parameters = { "deny" = ["bad*"] }
}
path "v/both" {
	policy = "write"
	allowed_parameters = { "ALLOW" = ["good"] }
	denied_parameters = { "dEny" = ["bad"] }
}
path "v/multi" {
	policy = "write"
	allowed_parameters = {
		"allow_multi" = ["good", "good1", "good2", "*good3", "*mid*"]
		"allow" = ["good"]
	}
	denied_parameters = { "deny_multi" = ["bad", "bad1", "bad2"] }
}
path "v/types" {
	policy = "write"
	allowed_parameters = {
		"map" = [{"good" = "one"}]
		"int" = [1, 2, 0x10]
		"bool" = [false]
		"star" = ["*"]
	}
}
path "v/star" {
	policy = "write"
	allowed_parameters = { "*" = [] "foo" = [] "bar" = [false] }
}
path "v/fold" {
	policy = "write"
	denied_parameters = { "task" = [] }
}
`

func TestBounds(t *testing.T) {
	acl := compileText(t, bounded)
	for _, c := range []struct {
		path   string
		wrap   int // seconds
		params params
		want   bool
	}{
		{"dev/ops", 0, params{"zip", `""`}, true},
		{"dev/ops", 0, nil, true},
		{"dev/ops", 0, params{"zap", `""`}, false},
		{"foo/bar", 0, params{"zip", `""`}, false},
		{"foo/bar", 50, params{"zip", `""`}, false},
		{"foo/bar", 450, params{"zip", `""`}, false},
		{"foo/bar", 350, params{"zip", `""`}, true},
		{"foo/bar", 350, params{"zap", `""`}, false},
		{"foo/baz", 0, params{"hello", `""`}, false},
		{"foo/baz", 50, params{"hello", `""`}, false},
		{"foo/baz", 450, params{"hello", `""`}, true},
		{"broken/phone", 0, params{"steve", `""`}, false},
		{"working/phone", 0, nil, false},
		{"working/phone", 450, nil, false},
		{"working/phone", 350, nil, true},
		{"hello/world", 0, params{"one", `""`}, false},
		{"hello/world", 0, nil, true},
		{"tree/fort", 0, params{"one", `""`}, true},
		{"tree/fort", 0, params{"foo", `""`}, false},
		{"fruit/apple", 0, params{"pear", `""`}, false},
		{"cold/weather", 0, params{"four", `""`}, true},
		{"var/aws", 0, params{"cold", `1`, "warm", `1`}, false},
		{"var/req", 0, params{"cold", `1`}, false},
		{"var/req", 0, params{"cold", `1`, "foo", `1`}, true},
		{"var/req", 0, params{"FOO", `1`}, true},
		{"var/req", 0, nil, false},
		{"v/glob", 0, params{"deny", `"bad glob"`}, false},
		{"v/glob", 0, params{"deny", `"good"`}, true},
		{"v/glob", 0, params{"deny", `null`}, true},
		{"v/glob", 0, params{"deny", `"b\u0061d"`}, false},
		{"v/both", 0, params{"aLLow", `"good"`}, true},
		{"v/both", 0, params{"aLLow", `"bad"`}, false},
		{"v/both", 0, params{"deNy", `"bad"`, "allow", `"good"`}, false},
		{"v/both", 0, params{"deny", `"good"`}, false},
		{"v/both", 0, params{"neither", `"bad"`}, false},
		{"v/both", 0, params{"allow", `null`}, false},
		{"v/both", 0, params{"allow", `"good"`, "ALLOW", `"bad"`}, false},
		{"v/multi", 0, params{"allow_multi", `"good2"`}, true},
		{"v/multi", 0, params{"allow_multi", `"glob good2"`}, false},
		{"v/multi", 0, params{"allow_multi", `"glob good3"`}, true},
		{"v/multi", 0, params{"allow_multi", `"amidst"`}, true},
		{"v/multi", 0, params{"allow_multi", `"good1"`, "allow", `"good"`}, true},
		{"v/multi", 0, params{"deny_multi", `"good"`, "allow_multi", `"good2"`}, false},
		{"v/types", 0, params{"map", `{"good": "one"}`}, true},
		{"v/types", 0, params{"map", `{"bad": "one"}`}, false},
		{"v/types", 0, params{"int", `1`}, true},
		{"v/types", 0, params{"int", `1.0`}, true},
		{"v/types", 0, params{"int", `16`}, true},
		{"v/types", 0, params{"int", `3`}, false},
		{"v/types", 0, params{"int", `"1"`}, false},
		{"v/types", 0, params{"bool", `false`}, true},
		{"v/types", 0, params{"bool", `true`}, false},
		{"v/types", 0, params{"star", `"*"`}, true},
		{"v/types", 0, params{"star", `"any"`}, false},
		{"v/types", 0, params{"int", `{`}, false},
		{"v/star", 0, params{"anything", `true`}, true},
		{"v/star", 0, params{"foo", `true`}, true},
		{"v/star", 0, params{"bar", `false`}, true},
		{"v/star", 0, params{"bar", `true`}, false},
		{"v/fold", 0, params{"ta\u017fk", `1`}, false}, // a long s, folds to task
	} {
		for _, need := range []Capability{Create, Update} {
			r := Request{Path: c.path, Need: need, WrapTTL: time.Duration(c.wrap) * time.Second}
			if c.params != nil {
				r.Params = c.params
			}
			if d := acl.Check(r); d.Allowed != c.want {
				t.Errorf("%s %s wrap %d %q: allowed %v, missing %q", need, c.path, c.wrap, c.params, d.Allowed, d.Missing)
			}
		}
	}
	if !acl.Allows(Request{Path: "dev/x", Need: Delete, Params: params{"zap", "1"}}) {
		t.Error("parameters bind a delete")
	}
}

func TestMerge(t *testing.T) {
	acl := compileText(t, `
path "p/deny" { capabilities = ["read"] }
path "p/deny" { capabilities = ["deny"] }
path "p/union" {
	capabilities = ["create"]
	required_parameters = ["a"]
	max_wrapping_ttl = 300
	min_wrapping_ttl = 100
}
path "p/any" {
	policy = "write"
	allowed_parameters = { "x" = [1], "y" = [1] }
}
path "p/ttl" {
	policy = "write"
	min_wrapping_ttl = 100
}
`, `
path "p/union" {
	capabilities = ["read"]
	required_parameters = ["b"]
	max_wrapping_ttl = 200
	min_wrapping_ttl = 50
}
path "p/any" {
	policy = "write"
	allowed_parameters = { "x" = [], "y" = [2] }
}
path "p/ttl" {
	policy = "write"
	max_wrapping_ttl = 50
}
`)
	for _, c := range []struct {
		r    Request
		want bool
	}{
		{Request{Path: "p/deny", Need: Read}, false},
		{Request{Path: "p/union", Need: Create, WrapTTL: 60 * time.Second, Params: params{"a", "1", "b", "1"}}, true},
		{Request{Path: "p/union", Need: Read, WrapTTL: 60 * time.Second, Params: params{"a", "1", "b", "1"}}, true},
		{Request{Path: "p/union", Need: Create, WrapTTL: 60 * time.Second, Params: params{"a", "1"}}, false},
		{Request{Path: "p/union", Need: Create, WrapTTL: 250 * time.Second, Params: params{"a", "1", "b", "1"}}, false},
		{Request{Path: "p/any", Need: Create, Params: params{"x", "7", "y", "1"}}, true},
		{Request{Path: "p/any", Need: Create, Params: params{"x", "7", "y", "2"}}, true},
		{Request{Path: "p/any", Need: Create, Params: params{"y", "3"}}, false},
		{Request{Path: "p/ttl", Need: Create, WrapTTL: 50 * time.Second}, false},
		{Request{Path: "p/ttl", Need: Create, WrapTTL: 100 * time.Second}, false},
	} {
		if d := acl.Check(c.r); d.Allowed != c.want {
			t.Errorf("%+v: allowed %v, missing %q", c.r, d.Allowed, d.Missing)
		}
	}
}
