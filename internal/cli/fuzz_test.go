package cli

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Whatever a secret's name and value are, a table has one row for it and holds
// nothing that moves the cursor.
func FuzzTable(f *testing.F) {
	for _, text := range hostile {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		s, out := printing("table")
		if err := s.table(keyValue, [][]string{{name, value}, {"end", "end"}}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(out.String(), moves) {
			t.Errorf("%q, %q is printed as %q", name, value, out)
		}
		lines := strings.Split(out.String(), "\n")
		for _, line := range lines[3 : len(lines)-2] {
			if !strings.HasPrefix(line, " ") {
				t.Errorf("the value %q has a row of its own: %q", value, line)
			}
		}
	})
}

// YAML holds what JSON held.
func FuzzYAML(f *testing.F) {
	for _, text := range append(hostile, "yes", "1", "null", "- x", "a: b", "#", "\n", " \n x", "0x1", "2001-01-01", "=", "<<", "!!str", "|", "'", "\"", "%", "@") {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return
		}
		want := map[string][]string{name: {value, name}}
		body, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		s, out := printing("yaml")
		if err := s.document(body); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(out.String(), moves) {
			t.Errorf("%q is printed as %q", body, out)
		}
		var got map[string][]string
		if err := yaml.Unmarshal(out.Bytes(), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q comes back from %q as %q: %v", body, out, got, err)
		}
	})
}

// A JSON object on standard input is taken as it is, or refused without being
// repeated.
func FuzzObject(f *testing.F) {
	for _, text := range []string{`{}`, `{"a":1}`, `{"a":{"b":[1e400]}}`, `{"a":1,"a":2}`, `[1]`, `{"a":"\ud800"}`, `{"a":1} x`, "\xff", `null`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, _ := reading(text)
		object, _, err := s.values([]string{"-"})
		if err != nil {
			if len(text) > 20 && strings.Contains(err.Error(), text) {
				t.Errorf("the error repeats %q: %v", text, err)
			}
			return
		}
		if _, err := json.Marshal(object); err != nil {
			t.Errorf("%q is taken as %q, which cannot be sent: %v", text, object, err)
		}
	})
}
