package kubernetes

import (
	"errors"
	"strings"

	"go.yaml.in/yaml/v3"
)

// selector are labels, all of which a namespace must have.
type selector map[string]string

const maxSelector = 16 << 10 // bytes

// parseSelector reads a label selector in JSON or YAML. Of a selector's two parts it
// has matchLabels; matchExpressions are refused, as they are by Vault.
func parseSelector(text string) (selector, error) {
	if len(text) > maxSelector {
		return nil, errors.New("it is too long")
	}
	var out struct {
		Labels      map[string]string `yaml:"matchLabels"`
		Expressions []any             `yaml:"matchExpressions"`
	}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&out); err != nil {
		return nil, errors.New(`it must be an object like {"matchLabels":{"team":"shop"}}, in JSON or YAML`)
	}
	switch {
	case out.Expressions != nil:
		return nil, errors.New("label selector match expressions are not supported")
	case len(out.Labels) == 0:
		return nil, errors.New("it has no matchLabels, and would fit every namespace; write * as bound_service_account_namespaces if that is meant")
	}
	return out.Labels, nil
}

// fits reports whether labels have all that are selected.
func (s selector) fits(labels map[string]string) bool {
	for name, want := range s {
		if got, ok := labels[name]; !ok || got != want {
			return false
		}
	}
	return true
}
