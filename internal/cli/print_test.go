package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/cofferhq/coffer/client"
)

// printing returns a shell that prints into a buffer.
func printing(format string) (*shell, *bytes.Buffer) {
	var out bytes.Buffer
	s := &shell{Env: Env{Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }}}
	s.global.format = format
	return s, &out
}

// hostile are texts that move a terminal's cursor, or turn writing around.
var hostile = []string{
	"\x1b[2J", "\x1b]0;title\x07", "a\rb", "a\bb", "\x00", "\x7f", "\u009b31m", "\u0085", "\u202e", "\u2066", "\u2028", "a\tb", "a\vb", "a\fb", "\xff\xfe",
}

func TestTablesHoldNothingThatMovesTheCursor(t *testing.T) {
	for _, text := range hostile {
		s, out := printing("table")
		if err := s.table([]string{"Key", "Value"}, [][]string{{text, "v"}, {"k", text}, {text + "\n" + text, text + "\n" + text}}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(out.String(), moves) {
			t.Errorf("%q is printed as %q", text, out)
		}
	}
}

func TestDocumentsHoldNothingThatMovesTheCursor(t *testing.T) {
	for _, text := range hostile {
		text = strings.ToValidUTF8(text, "")
		body, err := json.Marshal(map[string]string{text: text})
		if err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"json", "yaml"} {
			s, out := printing(format)
			if err := s.document(body); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsFunc(out.String(), moves) {
				t.Errorf("%q is printed in %s as %q", text, format, out)
			}
			back := map[string]string{}
			if format == "json" {
				err = json.Unmarshal(out.Bytes(), &back)
			} else {
				err = yaml.Unmarshal(out.Bytes(), &back)
			}
			if err != nil || back[text] != text {
				t.Errorf("%q comes back from %s as %q: %v", text, format, back, err)
			}
		}
	}
}

func TestErrorsHoldNothingThatMovesTheCursor(t *testing.T) {
	for _, text := range hostile {
		s, out := printing("table")
		s.warn("the server says %s", text)
		explain(out, New(s.Env), &client.Error{Method: "GET", Path: text, Status: 403, Errors: []string{text}, RequestID: text})
		if strings.ContainsFunc(out.String(), moves) {
			t.Errorf("%q is printed as %q", text, out)
		}
	}
}

// What a value holds cannot look like a row of its own.
func TestLinesStayInTheirCell(t *testing.T) {
	s, out := printing("table")
	if err := s.table([]string{"Key", "Value"}, [][]string{{"cert", "one\ntwo\r\nthree\n"}, {"a\nb", ""}}); err != nil {
		t.Fatal(err)
	}
	want := "Key     Value\n---     -----\ncert    one\n        two\n        three\na⏎b     \n"
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out, want)
	}
}

func answer(t *testing.T, body string) *client.Response {
	t.Helper()
	r := &client.Response{RequestID: "r", Body: client.Raw(body)}
	var parts struct {
		Data client.Raw       `json:"data"`
		Auth *client.Auth     `json:"auth"`
		Wrap *client.WrapInfo `json:"wrap_info"`
		ID   string           `json:"lease_id"`
	}
	if err := json.Unmarshal([]byte(body), &parts); err != nil {
		t.Fatal(err)
	}
	r.Data, r.Auth, r.WrapInfo, r.LeaseID = parts.Data, parts.Auth, parts.Wrap, parts.ID
	return r
}

func TestShow(t *testing.T) {
	for name, c := range map[string]struct{ body, field, want string }{
		"data": {`{"data":{"b":[1,"x"],"a":"text","ttl":90,"n":null,"o":{"k":1}}}`, "",
			"Key    Value\n---    -----\na      text\nb      [1 x]\nn      n/a\no      {\"k\":1}\nttl    1m30s\n"},
		"login": {`{"auth":{"client_token":"hvs.x","accessor":"acc","lease_duration":3600,"renewable":true,"policies":["a"],"token_policies":["a"],"metadata":{"username":"ada"},"entity_id":"","mfa_requirement":null}}`, "",
			"Key                    Value\n---                    -----\ntoken                  hvs.x\ntoken_accessor         acc\ntoken_duration         1h\ntoken_renewable        true\ntoken_policies         [a]\npolicies               [a]\ntoken_meta_username    ada\n"},
		"wrapped": {`{"wrap_info":{"token":"hvs.w","accessor":"acc","ttl":300,"creation_path":"secret/data/x"}}`, "",
			"Key                             Value\n---                             -----\nwrapping_token                  hvs.w\nwrapping_accessor               acc\nwrapping_token_creation_path    secret/data/x\nwrapping_token_ttl              5m\n"},
		"lease": {`{"lease_id":"db/creds/x/1","lease_duration":3600,"renewable":true,"data":{"password":"p"}}`, "",
			"Key                Value\n---                -----\nlease_id           db/creds/x/1\nlease_duration     1h\nlease_renewable    true\npassword           p\n"},
		"listing":        {`{"data":{"keys":["a","b/"]}}`, "", "Keys\n----\na\nb/\n"},
		"field":          {`{"data":{"a":"line\n","b":2}}`, "a", "line\n"},
		"field as it is": {`{"data":{"a":"\u001b[2J"}}`, "a", "\x1b[2J"},
		"number":         {`{"data":{"ttl":12345678901234567890}}`, "ttl", "12345678901234567890"},
		"token":          {`{"auth":{"client_token":"hvs.x"}}`, "token", "hvs.x"},
		"whole data":     {`{"data":{"a":1}}`, "data", `{"a":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			s, out := printing("")
			s.global.field = c.field
			if err := s.show(answer(t, c.body)); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("printed\n%s\nwant\n%s", out, c.want)
			}
		})
	}
}

func TestNoSuchField(t *testing.T) {
	s, out := printing("")
	s.global.field = "none"
	err := s.show(answer(t, `{"data":{"password":"hunter2"}}`))
	if err == nil || strings.Contains(err.Error(), "hunter2") || out.Len() > 0 {
		t.Errorf("error %v, printed %q", err, out)
	}
}

func TestDuration(t *testing.T) {
	for value, want := range map[string]string{
		"0": "0s", "59": "59s", "60": "1m", "3600": "1h", "3660": "1h1m", "3661": "1h1m1s", "36000": "10h", "2764800": "768h", "600": "10m",
		"-5": "-5s", "99999999999999999": "99999999999999999", `"12h"`: "12h",
	} {
		if got := duration(json.RawMessage(value)); got != want {
			t.Errorf("%s is printed as %s, want %s", value, got, want)
		}
	}
}

func TestStream(t *testing.T) {
	for name, c := range map[string]struct {
		format, field, want string
		items               []string
	}{
		"table":     {"table", "", "Name\n----\na\nb\n", []string{"a", "b"}},
		"no table":  {"table", "", "", nil},
		"json":      {"json", "", "[\n  {\n    \"name\": \"a\"\n  },\n  {\n    \"name\": \"b\"\n  }\n]\n", []string{"a", "b"}},
		"no json":   {"json", "", "[]\n", nil},
		"yaml":      {"yaml", "", "- name: a\n- name: b\n", []string{"a", "b"}},
		"no yaml":   {"yaml", "", "[]\n", nil},
		"field":     {"table", "name", "a\nb\n", []string{"a", "b"}},
		"no fields": {"table", "name", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, out := printing(c.format)
			s.global.field = c.field
			o := s.stream([]string{"Name"})
			for _, item := range c.items {
				v := struct {
					Name string `json:"name"`
				}{item}
				if err := o.add(v, []string{item}); err != nil {
					t.Fatal(err)
				}
			}
			if err := o.close(); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("printed\n%s\nwant\n%s", out, c.want)
			}
		})
	}
}

// Rows are not kept until the end: a search of a million secrets prints as it
// goes.
func TestStreamGoesOn(t *testing.T) {
	s, out := printing("table")
	o := s.stream([]string{"Name"})
	for range streamBatch {
		if err := o.add("x", []string{"x"}); err != nil {
			t.Fatal(err)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != streamBatch+2 {
		t.Errorf("%d lines are printed, want %d", lines, streamBatch+2)
	}
	for range streamBatch + 1 {
		_ = o.add("x", []string{"x"})
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "----"); n != 1 {
		t.Errorf("the header is printed %d times", n)
	}
}

func TestYAML(t *testing.T) {
	s, out := printing("yaml")
	body := `{"z":1,"a":{"list":[],"of":{},"none":null,"t":true,"big":12345678901234567890,"f":1.50,"e":1e400},"s":["yes","on","1","null","~","- x","a: b","","1:30","😀","two\nlines\n","#","😀"]}`
	if err := s.document([]byte(body)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"z: 1", "  list: []", "  of: {}", "  none: null", "  t: true", "  big: 12345678901234567890", "  f: 1.50", "  e: !!float 1e400", `  - "yes"`, `  - "1"`, `  - "null"`} {
		if !strings.Contains(out.String(), line+"\n") {
			t.Errorf("there is no line %q", line)
		}
	}
	var back struct {
		S []string `yaml:"s"`
	}
	if err := yaml.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	want := "yes|on|1|null|~|- x|a: b||1:30|😀|two\nlines\n|#|😀"
	if got := strings.Join(back.S, "|"); got != want {
		t.Errorf("the strings come back as %q", got)
	}
	if t.Failed() {
		t.Log(out)
	}
}
