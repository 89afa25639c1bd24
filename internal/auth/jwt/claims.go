package jwt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/ryanuber/go-glob"

	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/fault"
)

// BoundClaims are the values that claims must have, by the claims' names or JSON
// pointers: a string, a boolean, a number or a list of those, any of which matches.
type BoundClaims map[string]any

// MarshalJSON writes the numbers as numbers, as they stood.
func (b BoundClaims) MarshalJSON() ([]byte, error) {
	if b == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]any(b))
}

// UnmarshalJSON reads an object, or a string that holds one.
func (b *BoundClaims) UnmarshalJSON(text []byte) error {
	var inside string
	if json.Unmarshal(text, &inside) == nil {
		text = []byte(inside)
	}
	if *b = nil; len(bytes.TrimSpace(text)) == 0 || string(text) == "null" {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var out map[string]any
	if err := decoder.Decode(&out); err != nil || decoder.More() {
		return errors.New("it must be an object of claims and their values, in JSON")
	}
	for name, value := range out {
		if _, ok := listed(value); !ok {
			return fmt.Errorf("the value of %q must be a string, a boolean, a number or a list of those", name)
		}
	}
	*b = out
	return nil
}

// texts refuses values that are no strings, since only those can be patterns.
func (b BoundClaims) texts() error {
	for name, value := range b {
		list, _ := listed(value)
		for _, item := range list {
			if _, ok := item.(string); !ok {
				return fault.New(fault.Invalid, "bound_claims: the value of %q is not a string, and only strings can be patterns (bound_claims_type is glob)", name)
			}
		}
	}
	return nil
}

// listed is a claim's value as a list of strings, booleans and numbers; ok is false
// when it is something else.
func listed(value any) (list []any, ok bool) {
	items, several := value.([]any)
	if !several {
		items = []any{value}
	}
	for _, item := range items {
		switch item.(type) {
		case string, bool, json.Number:
		default:
			return nil, false
		}
	}
	return items, true
}

// met refuses claims that lack one that is bound.
func (b BoundClaims) met(claims issuer.Claims, patterns bool) error {
	for name, value := range b {
		got := claims.Find(name)
		if got == nil {
			return fmt.Errorf("claim %q is missing", name)
		}
		have, ok := listed(got)
		if !ok {
			return fmt.Errorf("claim %q is not a string, bool, int or list", name)
		}
		want, _ := listed(value)
		if !meet(want, have, patterns) {
			return fmt.Errorf("claim %q does not match any associated bound claim values", name)
		}
	}
	return nil
}

// meet reports whether any of the values that are had is one of those wanted.
func meet(want, have []any, patterns bool) bool {
	for _, w := range want {
		for _, h := range have {
			if same(w, h) && !patterns {
				return true
			}
			pattern, ok := w.(string)
			text, ok2 := h.(string)
			if patterns && ok && ok2 && glob.Glob(pattern, text) {
				return true
			}
		}
	}
	return false
}

// same compares values of the same type. Numbers are equal by value, where floats
// are exact.
func same(a, b any) bool {
	if a == b {
		return true
	}
	x, ok := a.(json.Number)
	y, ok2 := b.(json.Number)
	if !ok || !ok2 {
		return false
	}
	f, err := strconv.ParseFloat(x.String(), 64)
	g, err2 := strconv.ParseFloat(y.String(), 64)
	return err == nil && err2 == nil && f == g && math.Abs(f) < 1<<53
}

// text is a claim's value as a text, for metadata; ok is false when it has none.
func text(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	}
	return "", false
}
