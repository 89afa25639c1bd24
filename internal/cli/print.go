package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"github.com/cofferhq/coffer/client"
)

// format returns how answers are printed: "table", "json" or "yaml".
func (s *shell) format() string {
	switch f := s.global.format; {
	case f != "":
		return f
	case s.setting("FORMAT") != "":
		return s.setting("FORMAT")
	}
	return "table"
}

// checkFormat refuses a format that there is not.
func (s *shell) checkFormat() error {
	switch s.format() {
	case "table", "json", "yaml":
		return nil
	}
	return usage("-format is table, json or yaml, not %q", s.format())
}

// show prints an answer of the server: one field, the whole in JSON or YAML, or
// a table for people.
func (s *shell) show(r *client.Response) error {
	fields, order, err := fieldsOf(r)
	if err != nil {
		return err
	}
	if s.global.field != "" {
		return s.showField(fields)
	}
	if s.format() != "table" {
		return s.document(r.Body)
	}
	if keys, ok := fields["keys"]; ok && len(fields) <= 2 {
		return s.names(keys)
	}
	rows := make([][]string, 0, len(order))
	for _, name := range order {
		rows = append(rows, []string{name, scalar(fields[name])})
	}
	return s.table([]string{"Key", "Value"}, rows)
}

// showField prints one field as it is, with no end of line behind a scalar, so
// that it can be piped.
func (s *shell) showField(fields map[string]json.RawMessage) error {
	value, ok := fields[s.global.field]
	if !ok {
		return &exit{exitLocal, fmt.Errorf("the answer has no field %q", s.global.field)}
	}
	if s.format() != "table" {
		return s.document(value)
	}
	text := scalar(value)
	if s.Terminal {
		text += "\n"
	}
	_, err := io.WriteString(s.Stdout, text)
	return err
}

// fieldsOf returns what a table shows of an answer: of a wrapping or a login
// their own fields, else the data's, sorted.
func fieldsOf(r *client.Response) (fields map[string]json.RawMessage, order []string, err error) {
	from := []byte(r.Data)
	prefix := ""
	switch {
	case r.WrapInfo != nil:
		from, prefix = member(r.Body, "wrap_info"), "wrapping_"
	case r.Auth != nil:
		from = member(r.Body, "auth")
	case len(from) == 0 || string(from) == "null":
		from = r.Body
	}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(from, &raw); err != nil {
		return nil, nil, fmt.Errorf("the server's answer is not what was expected: %w", err)
	}
	fields = map[string]json.RawMessage{}
	for name, value := range raw {
		switch {
		case r.Auth != nil && name == "client_token":
			name = "token"
		case r.Auth != nil && (name == "accessor" || strings.HasPrefix(name, "lease_duration") || name == "renewable"):
			name = "token_" + strings.Replace(name, "lease_", "", 1)
		case prefix != "" && !strings.HasPrefix(name, prefix):
			name = prefix + name
		}
		fields[name] = value
		order = append(order, name)
	}
	slices.Sort(order)
	return fields, order, nil
}

func member(body []byte, name string) []byte {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(body, &all)
	return all[name]
}

// names prints a listing.
func (s *shell) names(keys json.RawMessage) error {
	var list []string
	if err := json.Unmarshal(keys, &list); err != nil {
		return err
	}
	rows := make([][]string, len(list))
	for i, name := range list {
		rows[i] = []string{name}
	}
	return s.table([]string{"Keys"}, rows)
}

// document prints JSON in the format that was asked for.
func (s *shell) document(text []byte) error {
	if s.format() == "yaml" {
		var node yaml.Node
		if err := yaml.Unmarshal(text, &node); err != nil { // JSON is YAML
			return err
		}
		plainStyle(&node)
		enc := yaml.NewEncoder(s.Stdout)
		enc.SetIndent(2)
		if err := enc.Encode(&node); err != nil {
			return err
		}
		return enc.Close()
	}
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(text), "", "  "); err != nil {
		return fmt.Errorf("the server's answer is no JSON: %w", err)
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(s.Stdout)
	return err
}

// value prints v in the format that was asked for, and calls people where that
// is a table.
func (s *shell) value(v any, people func() error) error {
	if s.format() == "table" && s.global.field == "" {
		return people()
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if s.global.field != "" {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(text, &fields); err != nil {
			return err
		}
		return s.showField(fields)
	}
	return s.document(text)
}

// plainStyle drops the braces and quotes that JSON had.
func plainStyle(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plainStyle(child)
	}
}

// table prints rows under a header. A cell with several lines goes on below
// itself.
func (s *shell) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(s.Stdout, 0, 0, 4, ' ', 0)
	rules := make([]string, len(header))
	for i, h := range header {
		rules[i] = strings.Repeat("-", len(h))
	}
	for _, row := range append([][]string{header, rules}, rows...) {
		fmt.Fprintln(w, strings.Join(oneLine(row), "\t"))
	}
	return w.Flush()
}

// oneLine keeps what a cell holds from moving other cells, or the terminal's
// cursor.
func oneLine(row []string) []string {
	out := make([]string, len(row))
	for i, cell := range row {
		out[i] = strings.Map(func(r rune) rune {
			switch {
			case r == '\n':
				return '⏎'
			case r < ' ' || r == 0x7f:
				return '�'
			}
			return r
		}, cell)
	}
	return out
}

// scalar prints a JSON value for people: a string without quotes, a list of
// scalars as [a b], anything else as it is.
func scalar(v json.RawMessage) string {
	var text string
	if json.Unmarshal(v, &text) == nil && len(v) > 0 && v[0] == '"' {
		return text
	}
	var list []json.RawMessage
	if len(v) > 0 && v[0] == '[' && json.Unmarshal(v, &list) == nil {
		cells := make([]string, len(list))
		for i, item := range list {
			cells[i] = scalar(item)
		}
		return "[" + strings.Join(cells, " ") + "]"
	}
	if string(v) == "null" {
		return "n/a"
	}
	return string(v)
}
