package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

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
	if r.RequestID == "" && !bytes.HasPrefix(bytes.TrimSpace(r.Body), []byte("{")) {
		return s.plain(r.Body)
	}
	f, err := fieldsOf(r)
	if err != nil {
		return err
	}
	switch {
	case s.global.field != "":
		return s.showFieldOf(r, f)
	case s.format() != "table":
		return s.document(r.Body)
	}
	if keys, ok := f.values["keys"]; ok && len(f.order) <= 2 {
		return s.names(keys)
	}
	return s.table([]string{"Key", "Value"}, f.rows())
}

// plain prints an answer that is no JSON object, such as a certificate.
func (s *shell) plain(text []byte) error {
	if s.global.field != "" || s.format() != "table" {
		return &exit{exitLocal, fmt.Errorf("the answer is plain text, which has no fields and no other format")}
	}
	if s.Terminal {
		text = []byte(printableLines(string(text)))
	}
	_, err := s.Stdout.Write(text)
	return err
}

// showFieldOf prints the field that was asked for; besides those of the table
// there are the envelope's own.
func (s *shell) showFieldOf(r *client.Response, f *fields) error {
	switch name := s.global.field; name {
	case "data", "request_id", "lease_id", "lease_duration":
		if _, ok := f.values[name]; !ok {
			f.add(name, member(r.Body, name))
		}
	}
	return s.showField(f.values)
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
		out, err := yamlOf(text)
		if err == nil {
			_, err = s.Stdout.Write(out)
		}
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(text), "", "  "); err != nil {
		return errAnswer
	}
	out.WriteByte('\n')
	_, err := io.WriteString(s.Stdout, escapeControls(out.String()))
	return err
}

// escapeControls writes the characters that JSON may hold as they are and that
// could move a terminal's cursor in JSON's other spelling.
func escapeControls(text string) string {
	if !strings.ContainsFunc(text, moves) {
		return text
	}
	var out strings.Builder
	for _, r := range text {
		if moves(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.String()
}

// moves reports whether a character, other than an end of line, could move the
// cursor or turn the direction of writing.
func moves(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029')
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

// table prints rows under a header. Where the last cell has several lines, they
// go on below it.
func (s *shell) table(header []string, rows [][]string) error {
	rules := make([]string, len(header))
	for i, h := range header {
		rules[i] = strings.Repeat("-", len(h))
	}
	return s.rows(append([][]string{header, rules}, rows...))
}

// rows prints cells in columns.
func (s *shell) rows(rows [][]string) error {
	w := tabwriter.NewWriter(s.Stdout, 0, 0, 4, ' ', 0)
	for _, row := range rows {
		last := len(row) - 1
		cells := make([]string, len(row))
		for i, cell := range row[:last] {
			cells[i] = printable(cell)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(row[last], "\n"), "\n") {
			cells[last] = printable(strings.TrimSuffix(line, "\r"))
			fmt.Fprintln(w, strings.Join(cells, "\t"))
			clear(cells)
		}
	}
	return w.Flush()
}

// printable keeps a text of the server's on its line: whatever could move the
// terminal's cursor, or turn the direction of writing, is shown as a mark.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return '⏎'
		case moves(r):
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// printableLines is printable that leaves the ends of lines.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = printable(strings.ReplaceAll(line, "\t", "    "))
	}
	return strings.Join(lines, "\n")
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
