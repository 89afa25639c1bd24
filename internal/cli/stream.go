package cli

import (
	"bytes"
	"encoding/json"
	"io"
)

// stream prints any number of things as they come: rows of a table, the items of
// a JSON or YAML list, or one field of each on a line of its own.
type stream struct {
	shell  *shell
	header []string
	begun  bool
	rows   [][]string // of a table, that wait for their columns' widths
}

// streamBatch is how many rows of a table share their columns' widths.
const streamBatch = 200

func (s *shell) stream(header []string) *stream { return &stream{shell: s, header: header} }

// add prints one thing: v where a format was asked for, else the row.
func (o *stream) add(v any, row []string) error {
	s := o.shell
	switch {
	case s.global.field != "":
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(text, &fields); err != nil {
			return usage("what is listed has no fields")
		}
		if err := s.showField(fields); err != nil || s.Terminal {
			return err
		}
		_, err = io.WriteString(s.Stdout, "\n")
		return err
	case s.format() == "table":
		if o.rows = append(o.rows, row); len(o.rows) >= streamBatch {
			return o.flush()
		}
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if s.format() == "yaml" { // lists one behind the other are one list
		o.begun = true
		return s.document([]byte("[" + string(text) + "]"))
	}
	return o.item(text)
}

// item prints one item of a JSON list.
func (o *stream) item(text []byte) error {
	var out bytes.Buffer
	if o.begun {
		out.WriteByte(',')
	} else {
		out.WriteByte('[')
	}
	o.begun = true
	out.WriteString("\n  ")
	if err := json.Indent(&out, text, "  ", "  "); err != nil {
		return err
	}
	_, err := io.WriteString(o.shell.Stdout, escapeControls(out.String()))
	return err
}

// flush prints the rows that wait.
func (o *stream) flush() error {
	rows := o.rows
	o.rows = nil
	if len(rows) == 0 {
		return nil
	}
	if !o.begun {
		o.begun = true
		return o.shell.table(o.header, rows)
	}
	return o.shell.rows(rows)
}

// close prints what is left.
func (o *stream) close() error {
	s := o.shell
	end := ""
	switch {
	case s.global.field != "":
	case s.format() == "table":
		return o.flush()
	case !o.begun:
		end = "[]\n"
	case s.format() == "json":
		end = "\n]\n"
	}
	_, err := io.WriteString(s.Stdout, end)
	return err
}
