package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// reading returns a shell whose standard input holds a text, and what it warns.
func reading(stdin string) (*shell, *bytes.Buffer) {
	var warned bytes.Buffer
	return &shell{Env: Env{Stdin: strings.NewReader(stdin), Stderr: &warned}}, &warned
}

func TestValues(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text, object := file("text", "from a file"), file("object.json", `{"n": 12345678901234567890, "o": {"a": [1]}}`)
	for name, c := range map[string]struct {
		args    []string
		stdin   string
		want    string
		literal []string
	}{
		"a string":           {[]string{"a=b"}, "", `{"a":"b"}`, []string{"a"}},
		"an = in it":         {[]string{"a=b=c=="}, "", `{"a":"b=c=="}`, []string{"a"}},
		"nothing":            {[]string{"a="}, "", `{"a":""}`, nil},
		"a negative number":  {[]string{"a=-1"}, "", `{"a":"-1"}`, []string{"a"}},
		"a dash in front":    {[]string{"a=-x"}, "", `{"a":"-x"}`, []string{"a"}},
		"a name with a dash": {[]string{"-a=b"}, "", `{"-a":"b"}`, []string{"-a"}},
		"a file":             {[]string{"a=@" + text}, "", `{"a":"from a file"}`, nil},
		"standard input":     {[]string{"a=-"}, "typed", `{"a":"typed"}`, nil},
		"an @ as it is":      {[]string{`a=\@x`}, "", `{"a":"@x"}`, []string{"a"}},
		"a - as it is":       {[]string{`a=\-`}, "", `{"a":"-"}`, []string{"a"}},
		"a list":             {[]string{"a=1", "b=x", "a=2"}, "", `{"a":["1","2"],"b":"x"}`, []string{"a", "b"}},
		"an object":          {[]string{"@" + object}, "", `{"n": 12345678901234567890, "o": {"a": [1]}}`, nil},
		"an object, typed":   {[]string{"-"}, `{"a": null}`, `{"a":null}`, nil},
		"both":               {[]string{"@" + object, "n=1"}, "", `{"n": "1", "o": {"a": [1]}}`, []string{"n"}},
		"quotes and lines":   {[]string{"a=\"\n\\"}, "", `{"a":"\"\n\\"}`, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, warned := reading(c.stdin)
			got, literal, err := s.values(c.args)
			if err != nil {
				t.Fatal(err)
			}
			var want map[string]json.RawMessage
			if err := json.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(literal, c.literal) {
				t.Errorf("values %s, literal %q; want %s, %q", got, literal, want, c.literal)
			}
			if warned.Len() > 0 {
				t.Errorf("it warns %q", warned)
			}
		})
	}
}

func TestValuesRefused(t *testing.T) {
	for name, c := range map[string]struct{ arg, stdin string }{
		"no name":           {"=hunter2", ""},
		"only a word":       {"hunter2", ""},
		"no such file":      {"a=@/none/such", ""},
		"no object":         {"-", `["hunter2"]`},
		"no JSON":           {"-", `{"a": "hunter2"`},
		"a name twice":      {"-", `{"a": "hunter2", "a": 1}`},
		"more behind it":    {"-", `{"a": "hunter2"} {}`},
		"no valid UTF-8":    {"-", "{\"a\": \"hunter2\xff\"}"},
		"a whole file gone": {"@/none/such", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := reading(c.stdin)
			got, _, err := s.values([]string{c.arg})
			if err == nil {
				t.Fatalf("it is read as %s", got)
			}
			if c.stdin != "" && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats the secret: %v", err)
			}
		})
	}
}

// Bytes that are no text cannot be sent as JSON; they are refused, not changed.
func TestBinaryIsRefused(t *testing.T) {
	s, _ := reading("\x80\x81")
	if got, _, err := s.values([]string{"a=-"}); err == nil {
		t.Errorf("it is read as %s", got)
	} else if !strings.Contains(err.Error(), "base64") {
		t.Errorf("the error does not say what to do: %v", err)
	}
}

func TestLineBreakWarning(t *testing.T) {
	for text, want := range map[string]bool{"p4\n": true, "p4\r\n": true, "p4": false, "a\nb\n": false, "\n": false, "": false} {
		s, warned := reading(text)
		object, _, err := s.values([]string{"a=-"})
		if err != nil {
			t.Fatal(err)
		}
		s.warnLineBreaks(object, []string{"a"})
		if got := warned.Len() > 0; got != want {
			t.Errorf("%q warns: %v, want %v", text, got, want)
		}
	}
}

func TestLiteralWarning(t *testing.T) {
	s, warned := reading("")
	s.warnLiteral(nil)
	if warned.Len() > 0 {
		t.Errorf("it warns of nothing: %q", warned)
	}
	s.warnLiteral([]string{"a", "b"})
	if !strings.Contains(warned.String(), "a, b") {
		t.Errorf("it warns %q", warned)
	}
	names := []string{"password", "db_password", "client_secret", "Token", "api_key", "unseal_key", "policies", "type", "keyboard", "tokenizer", "credentials", "userpassword"}
	want := []string{"password", "db_password", "client_secret", "Token", "api_key", "unseal_key", "userpassword"}
	if got := secretNames(names); !reflect.DeepEqual(got, want) {
		t.Errorf("secret are %q, want %q", got, want)
	}
}

func TestDoubleDashes(t *testing.T) {
	for in, want := range map[string]string{
		"kv get -mount=secret app":        "kv get --mount=secret app",
		"kv get -mount secret app":        "kv get --mount secret app",
		"kv get --mount=secret app":       "kv get --mount=secret app",
		"kv get -version=-1 app":          "kv get --version=-1 app",
		"kv get -version -1 app":          "kv get --version -1 app",
		"write -f p a=-1 b=-x":            "write -f p a=-1 b=-x",
		"kv put p -":                      "kv put p -",
		"kv put p -stage a=- -cas=1":      "kv put p --stage a=- --cas=1",
		"kv put -cas=1 p -- -weird=1 -xx": "kv put --cas=1 p -- -weird=1 -xx",
		"token renew -i 5m":               "token renew -i 5m",
		"server -dev -dev-root-token-id=": "server --dev --dev-root-token-id=",
		"kv delete -versions=1,2 -- -a":   "kv delete --versions=1,2 -- -a",
	} {
		if got := strings.Join(doubleDashes(strings.Fields(in)), " "); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestPairs(t *testing.T) {
	var p pairs
	for _, text := range []string{"a=b", "c=d,e=f", "a=g=h", "i="} {
		if err := p.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	if want := (pairs{"a": "g=h", "c": "d,e=f", "i": ""}); !reflect.DeepEqual(p, want) {
		t.Errorf("pairs are %q, want %q", p, want)
	}
	for _, text := range []string{"", "a", "=b"} {
		if p.Set(text) == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestVersionNumbers(t *testing.T) {
	got, err := versionNumbers([]string{"1, 2", "30"})
	if err != nil || !reflect.DeepEqual(got, []int64{1, 2, 30}) {
		t.Errorf("numbers are %v, %v", got, err)
	}
	for _, text := range []string{"", "0", "-1", "1,,2", "1.5", "99999999999999999999", "all"} {
		if got, err := versionNumbers([]string{text}); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestExpiryTime(t *testing.T) {
	now := time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"never": "", "": "", "2031-12-31": "2031-12-31T00:00:00Z", "2031-12-31T12:00:00+02:00": "2031-12-31T10:00:00Z", "24h": "2030-02-01T12:00:00Z",
	} {
		at, err := expiryTime(text, now)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, _ := at.MarshalJSON(); string(got) != `"`+want+`"` {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"someday", "-1h", "0", "2031-13-01"} {
		if at, err := expiryTime(text, now); err == nil {
			t.Errorf("%q is read as %v", text, at)
		}
	}
}
