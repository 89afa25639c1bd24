package kv

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
	strict "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Limits of validators, which keep their cost small.
const (
	maxRules     = 32 << 10 // bytes of all rules of a secret, as JSON
	maxRuleKeys  = 64       // keys named by one rule
	maxRegexSize = 1024     // bytes of one regular expression
	maxCached    = 256      // sets of compiled rules kept
)

// Validators are rules that a secret's data must keep before it is stored or
// made active. They apply to the members of the data's top level.
type Validators struct {
	RequiredKeys []string          `json:"required_keys,omitempty" doc:"Members that must be there and not be null or empty."`
	JSONSchema   jsontext.Value    `json:"json_schema,omitempty" doc:"JSON Schema of the data, without references to elsewhere or to itself in a circle."`
	PEM          []string          `json:"pem,omitempty" doc:"Members that must hold PEM blocks and nothing else."`
	X509         []string          `json:"x509,omitempty" doc:"Members that must hold PEM certificates that can be parsed."`
	Regex        map[string]string `json:"regex,omitempty" doc:"Members that must match a regular expression (RE2)."`
	MaxBytes     int               `json:"max_bytes,omitempty" doc:"Most bytes that the data may have."`
}

// errRules says what validators look like, and nothing of what was sent.
var errRules = errors.New("they are required_keys, json_schema, pem, x509, regex and max_bytes; see the help for the form of each")

// UnmarshalJSON refuses rules it does not know: a misspelt one would check
// nothing.
func (v *Validators) UnmarshalJSON(b []byte) error {
	type known Validators
	var out known
	if strict.Unmarshal(b, &out, strict.RejectUnknownMembers(true)) != nil {
		return errRules
	}
	*v = Validators(out)
	return nil
}

// orNone returns nil for validators without rules.
func (v *Validators) orNone() *Validators {
	if v.text() == "{}" {
		return nil
	}
	return v
}

// text is the rules as JSON, by which compiled ones are found again.
func (v *Validators) text() string {
	b, err := strict.Marshal(v, strict.Deterministic(true))
	if err != nil {
		return "" // only json_schema can be malformed, and it was read from JSON
	}
	return string(b)
}

// merge applies a JSON merge patch; v may be nil.
func (v *Validators) merge(patch wire.Object) (*Validators, error) {
	have := "{}"
	if v != nil {
		have = v.text()
	}
	text, err := mergeText([]byte(have), patch)
	if err != nil {
		return nil, err
	}
	out := &Validators{}
	if err := out.UnmarshalJSON(text); err != nil {
		return nil, fault.New(fault.Invalid, "validators: %v", err)
	}
	return out, nil
}

// rules are compiled validators.
type rules struct {
	Validators
	schema *jsonschema.Schema
	weight int
	regex  map[string]*regexp.Regexp
}

// ruleCache keeps compiled validators by their text.
type ruleCache struct {
	mu       sync.Mutex
	compiled map[string]*rules
}

// check refuses validators that cannot be compiled.
func (c *ruleCache) check(v *Validators) error {
	if v == nil {
		return nil
	}
	_, err := c.get(v)
	return err
}

func (c *ruleCache) get(v *Validators) (*rules, error) {
	text := v.text()
	c.mu.Lock()
	r := c.compiled[text]
	c.mu.Unlock()
	if r != nil {
		return r, nil
	}
	if len(text) > maxRules {
		return nil, fault.New(fault.Invalid, "validators: they are %d bytes of JSON; at most %d are accepted", len(text), maxRules)
	}
	r, err := compile(v)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.compiled == nil || len(c.compiled) >= maxCached {
		c.compiled = map[string]*rules{}
	}
	c.compiled[text] = r
	return r, nil
}

func compile(v *Validators) (*rules, error) {
	r := &rules{Validators: *v, regex: map[string]*regexp.Regexp{}}
	for rule, keys := range map[string]int{"required_keys": len(v.RequiredKeys), "pem": len(v.PEM), "x509": len(v.X509), "regex": len(v.Regex)} {
		if keys > maxRuleKeys {
			return nil, fault.New(fault.Invalid, "validators: %s names %d keys; at most %d are accepted", rule, keys, maxRuleKeys)
		}
	}
	if v.MaxBytes < 0 {
		return nil, errNegative("validators: max_bytes")
	}
	for key, expr := range v.Regex {
		if len(expr) > maxRegexSize {
			return nil, fault.New(fault.Invalid, "validators: regex of %q is longer than %d bytes", key, maxRegexSize)
		}
		compiled, err := regexp.Compile(expr)
		if err != nil {
			return nil, fault.New(fault.Invalid, "validators: regex of %q: %v", key, err)
		}
		r.regex[key] = compiled
	}
	if len(v.JSONSchema) == 0 || v.JSONSchema.Kind() == 'n' {
		return r, nil
	}
	var err error
	r.schema, r.weight, err = compileSchema(v.JSONSchema)
	return r, err
}

// check returns a fault that names the key and the rule that data breaks, and
// never a value.
func (r *rules) check(data []byte) error {
	if r.MaxBytes > 0 && len(data) > r.MaxBytes {
		return fault.New(fault.Invalid, "the data breaks the secret's rule max_bytes: it has %d bytes and may have %d", len(data), r.MaxBytes)
	}
	var top map[string]jsontext.Value
	if err := strict.Unmarshal(data, &top); err != nil {
		return fault.Wrap(fault.Invalid, err, "data: it must be a JSON object")
	}
	for _, key := range r.RequiredKeys {
		if v := top[key]; len(v) == 0 || v.Kind() == 'n' || string(v) == `""` {
			return broken("required_keys", key, "it is missing or empty")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.regex)) {
		text, there := scalarText(top[key])
		if !there || !r.regex[key].MatchString(text) {
			return broken("regex", key, "it does not match")
		}
	}
	for _, key := range r.PEM {
		if why := checkPEM(top[key], false); why != "" {
			return broken("pem", key, why)
		}
	}
	for _, key := range r.X509 {
		if why := checkPEM(top[key], true); why != "" {
			return broken("x509", key, why)
		}
	}
	if r.schema != nil {
		return checkSchema(r.schema, r.weight, data)
	}
	return nil
}

func broken(rule, key, why string) error {
	return fault.New(fault.Invalid, "the data breaks the secret's rule %s for key %q: %s", rule, key, why)
}

// scalarText returns the text of a string, number or boolean.
func scalarText(v jsontext.Value) (string, bool) {
	switch v.Kind() {
	case '"':
		text, err := jsontext.AppendUnquote(nil, v)
		return string(text), err == nil
	case '0', 't', 'f':
		return string(v), true
	}
	return "", false
}

// checkPEM says what is wrong with PEM text, "" for nothing.
func checkPEM(v jsontext.Value, certificates bool) string {
	text, there := scalarText(v)
	if !there {
		return "it is missing or no text"
	}
	rest := []byte(text)
	for blocks := 0; ; blocks++ {
		if strings.TrimSpace(string(rest)) == "" {
			if blocks == 0 {
				return "it is empty"
			}
			return ""
		}
		block, after := pem.Decode(rest)
		if block == nil || !strings.HasPrefix(strings.TrimSpace(string(rest)), "-----BEGIN ") {
			return "it holds something that is no PEM block"
		}
		if certificates {
			if block.Type != "CERTIFICATE" {
				return "it holds a PEM block that is no certificate"
			}
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				return "it holds a certificate that cannot be parsed"
			}
		}
		rest = after
	}
}
