package kv

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

// Limits of custom_metadata, Vault's, and of the tags' names.
const (
	maxPairs       = 64
	maxPairName    = 128
	maxCustomValue = 512
)

// customMetadata merges what was sent into the text that is there and returns
// the text to keep, nil for none. Null (nil) removes all.
func customMetadata(have, sent wire.Object) (wire.Object, error) {
	if sent == nil {
		return nil, nil
	}
	var pairs map[string]string
	if len(have) > 0 {
		if err := json.Unmarshal(have, &pairs); err != nil {
			return nil, err
		}
	}
	pairs, err := merged(pairs, sent, "custom_metadata")
	if err != nil {
		return nil, err
	}
	if err := checkPairs("custom_metadata", pairs, maxCustomValue); err != nil {
		return nil, err
	}
	if len(pairs) == 0 {
		return nil, nil
	}
	return json.Marshal(pairs)
}

// merged reads an object of scalars into a copy of have; null removes a name.
func merged(have map[string]string, sent wire.Object, field string) (map[string]string, error) {
	t, err := parseTree(sent)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "%s: it must be an object", field)
	}
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for _, m := range t.members {
		if m.tree.leaf != nil && m.tree.isNull() {
			delete(out, m.name)
			continue
		}
		var text wire.StringMap
		single := tree{members: []member{m}}
		if err := text.UnmarshalJSON(single.append(nil)); err != nil {
			return nil, fault.New(fault.Invalid, "%s validation failed: the value for key %q must be a string", field, m.name)
		}
		out[m.name] = text[m.name]
	}
	return out, nil
}

// checkPairs keeps Vault's limits and texts of custom_metadata.
func checkPairs(field string, pairs map[string]string, longest int) error {
	if len(pairs) > maxPairs {
		return fault.New(fault.Invalid, "%s validation failed: payload must contain at most %d keys, provided %d", field, maxPairs, len(pairs))
	}
	var problems []string
	for name, text := range pairs {
		if len(name) == 0 || len(name) > maxPairName {
			problems = append(problems, fmt.Sprintf("length of key %q is %d but must be 0 < len(key) <= %d", name, len(name), maxPairName))
		}
		if len(text) > longest || len(text) == 0 && field == "custom_metadata" {
			problems = append(problems, fmt.Sprintf("length of value for key %q is %d but must be 0 < len(value) <= %d", name, len(text), longest))
		}
		if !printable(name) {
			problems = append(problems, fmt.Sprintf("key %q contains unprintable characters", name))
		}
		if !printable(text) {
			problems = append(problems, fmt.Sprintf("value for key %q contains unprintable characters", name))
		}
	}
	if problems == nil {
		return nil
	}
	slices.Sort(problems)
	return fault.New(fault.Invalid, "%s validation failed: %s", field, strings.Join(problems, "; "))
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
