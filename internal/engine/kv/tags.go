package kv

import (
	"maps"
	"strings"

	"github.com/cofferhq/coffer/internal/wire"
)

// maxTagValue is the longest value of a tag, in bytes.
const maxTagValue = 128

// Tags are names with values as they come from a client: an object, in which
// null removes a name from those there are, a list, or a comma-separated text of
// names and name=value.
type Tags map[string]*string

// UnmarshalJSON accepts an object of scalars, a list, or a text.
func (t *Tags) UnmarshalJSON(b []byte) error {
	*t = Tags{}
	if len(b) > 0 && b[0] == '{' {
		parsed, err := parseTree(b)
		if err != nil {
			return err
		}
		for _, m := range parsed.members {
			if m.tree.isNull() {
				(*t)[m.name] = nil
				continue
			}
			var one wire.StringMap
			single := tree{members: []member{m}}
			if err := one.UnmarshalJSON(single.append(nil)); err != nil {
				return err
			}
			text := one[m.name]
			(*t)[m.name] = &text
		}
		return nil
	}
	var list wire.Strings
	if err := list.UnmarshalJSON(b); err != nil {
		return err
	}
	for _, item := range list {
		name, text, _ := strings.Cut(item, "=")
		(*t)[name] = &text
	}
	return nil
}

// over returns have with t merged into it, within the limits.
func (t Tags) over(have map[string]string) (map[string]string, error) {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for name, text := range t {
		if text == nil {
			delete(out, name)
		} else {
			out[name] = *text
		}
	}
	return out, checkPairs("tags", out, maxTagValue)
}
