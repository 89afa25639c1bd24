package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/wire"
)

// stateOf returns what the server has, with its fingerprints: of the fields that the
// directory names, and of those that are remembered. Without names it is of all.
func stateOf(live map[string]json.RawMessage, fields, remembered []string) state {
	if len(fields) == 0 {
		fields = slices.Sorted(maps.Keys(live))
	}
	return state{there: true, values: live, fingerprint: fingerprint(live, fields), remembered: fingerprint(live, remembered)}
}

func fingerprint(live map[string]json.RawMessage, fields []string) string {
	var out bytes.Buffer
	for _, name := range fields {
		fmt.Fprintf(&out, "%q ", name)
		value, ok := live[name]
		if ok && json.Compact(&out, value) != nil {
			out.Write(value)
		}
		out.WriteByte('\n')
	}
	return policystore.Fingerprint(out.String())
}

// fieldsDiff returns the fields in which the server differs, and those that it does not
// show. missing is whether a field that is not shown differs.
func fieldsDiff(want map[string]json.RawMessage, live state, missing bool) (diff string, hidden []string) {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(want)) {
		is, shown := live.values[name]
		switch {
		case !live.there:
			fmt.Fprintf(&out, "+%s = %s\n", name, want[name])
		case !shown && !missing:
			hidden = append(hidden, name)
		case !shown && !same(want[name], json.RawMessage(`""`)):
			fmt.Fprintf(&out, "+%s = %s\n", name, want[name])
		case shown && !same(want[name], is):
			fmt.Fprintf(&out, "-%s = %s\n+%s = %s\n", name, is, name, want[name])
		}
	}
	return out.String(), hidden
}

// same reports whether what the directory says means what the server answers: servers
// answer durations as seconds, lists in their own order, and take texts for numbers.
func same(want, is json.RawMessage) bool {
	var a, b any
	if json.Unmarshal(want, &a) != nil || json.Unmarshal(is, &b) != nil {
		return false
	}
	return alike(a, b)
}

func alike(want, is any) bool {
	switch is := is.(type) {
	case nil:
		return empty(want)
	case bool:
		text, isText := want.(string)
		return want == is || isText && text == fmt.Sprint(is)
	case float64, string:
		if list, ok := want.([]any); ok {
			return slices.Equal(words(list), words(is))
		}
		return want == is || fmt.Sprint(want) == fmt.Sprint(is) || seconds(want) == seconds(is) && seconds(is) >= 0
	case []any:
		if slices.Equal(words(want), words(is)) {
			return true
		}
		list, ok := want.([]any)
		return ok && slices.EqualFunc(list, is, alike)
	case map[string]any:
		object, ok := want.(map[string]any)
		if !ok || len(object) != len(is) {
			return false
		}
		for name, value := range object {
			if other, ok := is[name]; !ok || !alike(value, other) {
				return false
			}
		}
		return true
	}
	return false
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// seconds returns a duration in seconds, negative for what is none.
func seconds(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case string:
		if v == "" {
			return 0
		}
		if d, err := wire.ParseDuration(v); err == nil {
			return d.Seconds()
		}
	}
	return -1
}

// words returns a list of scalars, or a text with commas, sorted; one word that cannot
// be a list is itself.
func words(v any) []string {
	var out []string
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			switch item.(type) {
			case map[string]any, []any:
				return []string{fmt.Sprintf("%p", &out)} // no list of words: like nothing
			}
			out = append(out, fmt.Sprint(item))
		}
	case string:
		for word := range strings.SplitSeq(v, ",") {
			if word = strings.TrimSpace(word); word != "" {
				out = append(out, word)
			}
		}
	default:
		out = append(out, fmt.Sprint(v))
	}
	slices.Sort(out)
	return out
}
