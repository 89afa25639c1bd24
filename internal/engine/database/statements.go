package database

import (
	"encoding/json"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
)

// UnmarshalJSON takes a text, or a list of texts.
func (s *Statements) UnmarshalJSON(b []byte) error {
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return fault.New(fault.Invalid, "statements are a text, or a list of texts")
		}
		list = nil
		if strings.TrimSpace(one) != "" {
			list = []string{one}
		}
	}
	*s = list
	return nil
}

// MarshalJSON gives a list, of nothing where there are none.
func (s Statements) MarshalJSON() ([]byte, error) {
	if s == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]string(s))
}
