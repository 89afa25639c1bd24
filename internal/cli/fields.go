package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/client"
)

// fields are an answer's fields by the names that a table and -field have for
// them, in the order of a table.
type fields struct {
	order  []string
	values map[string]json.RawMessage
}

func (f *fields) add(name string, value json.RawMessage) {
	if _, ok := f.values[name]; !ok {
		f.order = append(f.order, name)
	}
	f.values[name] = value
}

// rows returns a table's rows.
func (f *fields) rows() [][]string {
	out := make([][]string, 0, len(f.order))
	for _, name := range f.order {
		text := scalar(f.values[name])
		if isDuration(name) {
			text = duration(f.values[name])
		}
		out = append(out, []string{name, text})
	}
	return out
}

// errAnswer says nothing of what the answer holds, which may be a secret.
var errAnswer = errors.New("the server's answer is not what this program expects; are they of the same version?")

// fieldsOf returns what a table shows of an answer: of a wrapping or a login
// their own fields, else the lease's and the data's.
func fieldsOf(r *client.Response) (*fields, error) {
	out := &fields{values: map[string]json.RawMessage{}}
	from, rename := []byte(r.Data), plainName
	switch {
	case r.WrapInfo != nil:
		from, rename = member(r.Body, "wrap_info"), wrappingName
	case r.Auth != nil:
		from, rename = member(r.Body, "auth"), authName
	case r.RequestID == "":
		from = r.Body
	}
	if r.LeaseID != "" && r.WrapInfo == nil && r.Auth == nil {
		for _, name := range []string{"lease_id", "lease_duration", "renewable"} {
			out.add(strings.Replace(name, "renewable", "lease_renewable", 1), member(r.Body, name))
		}
	}
	if len(from) == 0 {
		return out, nil
	}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(from, &raw); err != nil {
		return nil, errAnswer
	}
	names := make([]string, 0, len(raw))
	for name := range raw {
		names = append(names, name)
	}
	slices.Sort(names)
	if r.WrapInfo != nil || r.Auth != nil {
		slices.SortStableFunc(names, byWeight)
	}
	for _, name := range names {
		if name == "metadata" && r.Auth != nil && r.WrapInfo == nil {
			out.addMeta(raw[name])
		} else if to := rename(name); to != "" {
			out.add(to, raw[name])
		}
	}
	return out, nil
}

// addMeta adds what is known of who logged in, one name a row.
func (f *fields) addMeta(value json.RawMessage) {
	var meta map[string]json.RawMessage
	if json.Unmarshal(value, &meta) != nil {
		return
	}
	names := make([]string, 0, len(meta))
	for name := range meta {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f.add("token_meta_"+name, meta[name])
	}
}

// byWeight puts what is looked for first in a login or a wrapping in front.
func byWeight(a, b string) int {
	weight := func(name string) int {
		return slices.Index([]string{"metadata", "policies", "identity_policies", "token_policies", "renewable", "lease_duration", "accessor", "client_token", "token"}, name)
	}
	return weight(b) - weight(a)
}

func plainName(name string) string { return name }

// authName returns the name that people know a field of a login by.
func authName(name string) string {
	switch name {
	case "client_token":
		return "token"
	case "accessor", "renewable":
		return "token_" + name
	case "lease_duration":
		return "token_duration"
	case "mfa_requirement", "entity_id":
		return ""
	}
	return name
}

// wrappingName returns the name that people know a field of a wrapping by.
func wrappingName(name string) string {
	switch name {
	case "token", "accessor":
		return "wrapping_" + name
	case "ttl", "creation_time", "creation_path":
		return "wrapping_token_" + name
	}
	return name
}

func member(body []byte, name string) []byte {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(body, &all)
	return all[name]
}

// isDuration reports whether a field's name says that it holds seconds.
func isDuration(name string) bool {
	return slices.ContainsFunc([]string{"ttl", "period", "duration"}, func(word string) bool {
		return name == word || strings.HasSuffix(name, "_"+word)
	})
}

// duration prints seconds as people write them, and anything else as scalar.
func duration(value json.RawMessage) string {
	var seconds int64
	const most = int64(1<<63-1) / int64(time.Second)
	if json.Unmarshal(value, &seconds) != nil || seconds > most || seconds < -most {
		return scalar(value)
	}
	if seconds == 0 {
		return "0s"
	}
	text := (time.Duration(seconds) * time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
