package wire

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
)

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		`"1h"`: time.Hour, `3600`: time.Hour, `"3600"`: time.Hour, `"30d"`: 720 * time.Hour,
		`"1h30m"`: 90 * time.Minute, `""`: 0, `null`: 0, `-1`: -time.Second, `1.5`: 1500 * time.Millisecond,
		`"876000h"`: MaxTTL,
	} {
		var s Seconds
		if err := s.UnmarshalJSON([]byte(in)); err != nil || s.Duration() != want {
			t.Errorf("%s: got %v, %v; want %v", in, s.Duration(), err, want)
		}
	}
	for _, in := range []string{`"soon"`, `{}`, `[1]`, `1e300`, `"99999999999h"`, `"-9999999999999999999"`, `"1x"`, `"NaN"`, `"9e99d"`, `876001e5`} {
		var s Seconds
		if err := s.UnmarshalJSON([]byte(in)); err == nil {
			t.Errorf("%s: accepted as %v", in, s.Duration())
		}
	}
}

func TestScalars(t *testing.T) {
	type all struct {
		Int     Int       `json:"int"`
		Bool    Bool      `json:"bool"`
		Strings Strings   `json:"strings"`
		Map     StringMap `json:"map"`
	}
	for in, want := range map[string]all{
		`{"int":"5","bool":"true","strings":"a, b,,c","map":"k=v,x=y=z"}`:  {5, true, Strings{"a", "b", "c"}, StringMap{"k": "v", "x": "y=z"}},
		`{"int":5,"bool":1,"strings":["a","b,c",3],"map":{"k":"v","n":1}}`: {5, true, Strings{"a", "b,c", "3"}, StringMap{"k": "v", "n": "1"}},
		`{"int":null,"bool":"","strings":null,"map":["k=v"]}`:              {0, false, nil, StringMap{"k": "v"}},
		`{"int":9007199254740993,"bool":false,"strings":"","map":null}`:    {9007199254740993, false, nil, nil},
		`{"int":-1,"bool":"0","strings":[],"map":{}}`:                      {-1, false, nil, StringMap{}},
	} {
		var got all
		if err := json.Unmarshal([]byte(in), &got); err != nil {
			t.Errorf("%s: %v", in, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
	for _, in := range []string{`{"int":1.5}`, `{"int":"x"}`, `{"bool":"maybe"}`, `{"strings":{}}`, `{"strings":[[]]}`, `{"map":"k"}`, `{"map":{"k":{}}}`} {
		if err := json.Unmarshal([]byte(in), &all{}); err == nil {
			t.Errorf("%s: accepted", in)
		}
	}
}

func TestSecretsPrintARedaction(t *testing.T) {
	const value = "hunter2-hunter2"
	secrets := []any{Secret(value), Object(`{"k":"` + value + `"}`)}
	for _, s := range secrets {
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "in", struct{ S any }{s})
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s)
		for _, text := range []string{
			fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s),
			fmt.Sprintf("%+v", struct{ S any }{s}), fmt.Sprintf("%v", []any{s}), log.String(),
		} {
			if strings.Contains(text, value) || strings.Contains(text, fmt.Sprintf("%x", value)) {
				t.Errorf("%T is printed in %q", s, text)
			}
		}
	}
	if text, _ := json.Marshal(Secret(value)); string(text) != `"`+value+`"` {
		t.Errorf("on the wire: %s", text)
	}
}

func TestParseBodyRefusals(t *testing.T) {
	deep := func(n int) string {
		return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for name, in := range map[string]string{
		"list": `[1]`, "text": `"a"`, "cut": `{"a":`, "after": `{} {}`, "dup": `{"a":1,"a":2}`,
		"nested dup": `{"a":{"b":1,"b":2}}`, "utf8": "{\"a\":\"\xff\"}", "comma": `{"a":1,}`,
		"deep": deep(MaxDepth), "very deep": deep(1_000_000), "unquoted": `{a:1}`, "nul": "{\"a\":1}\x00",
	} {
		if _, err := ParseBody([]byte(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, in := range []string{``, ` `, `null`, ` null `, `{}`, `{"a":1,"b":{"a":2}}`, deep(MaxDepth - 1)} {
		if _, err := ParseBody([]byte(in)); err != nil {
			t.Errorf("%.40s: %v", in, err)
		}
	}
}

func TestParseErrorsDoNotRepeatTheBody(t *testing.T) {
	const secret = "correct-horse-battery"
	for _, in := range []string{`{"p":"` + secret, `{"` + secret + `":1,"` + secret + `":2}`, `{"p":` + secret + `}`, secret} {
		if _, err := ParseBody([]byte(in)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("error %v", err)
		}
	}
}

func TestParseQuery(t *testing.T) {
	p := ParseQuery(url.Values{"version": {"2"}, "x": {"a", "b"}})
	if v, _ := p.Get("version"); string(v) != `"2"` {
		t.Errorf("version: %s", v)
	}
	if v, _ := p.Value("X"); string(v) != `["a","b"]` {
		t.Errorf("x: %s", v)
	}
}

func FuzzParseBody(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, `{"a":{"b":[1,"\u0000"]}}`, `{"a":1,"a":1}`, "{\"\xff\":1}", `{"a":"\ud800"}`, `  {"a" : null } `} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParseBody(body)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, one := range p.List {
			if seen[one.Name] {
				t.Fatalf("%q stands twice", one.Name)
			}
			seen[one.Name] = true
			if !one.Value.IsValid() {
				t.Fatalf("%q is not valid JSON", one.Name)
			}
			var s Seconds
			var l Strings
			var m StringMap
			var i Int
			var b Bool
			var at Time
			_ = s.UnmarshalJSON(one.Value)
			_ = l.UnmarshalJSON(one.Value)
			_ = m.UnmarshalJSON(one.Value)
			_ = i.UnmarshalJSON(one.Value)
			_ = b.UnmarshalJSON(one.Value)
			_ = at.UnmarshalJSON(one.Value)
			if s.Duration() > MaxTTL || s.Duration() < -MaxTTL {
				t.Fatalf("duration %v", s.Duration())
			}
		}
	})
}

func TestLifetime(t *testing.T) {
	for text, want := range map[string]Lifetime{
		`""`: {}, `null`: {}, `"system"`: {Given: true, Standard: true}, `0`: {Given: true}, `"1h"`: {Given: true, TTL: time.Hour}, `90`: {Given: true, TTL: 90 * time.Second},
	} {
		got := Lifetime{Given: true, TTL: 1}
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %+v %v", text, got, err)
		}
	}
	for _, text := range []string{`"soon"`, `{}`, `[1]`, `"9e99"`} {
		if err := json.Unmarshal([]byte(text), new(Lifetime)); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
	ttl := Seconds(time.Minute)
	Lifetime{}.Into(&ttl)
	if ttl != Seconds(time.Minute) {
		t.Error("nothing given changed something")
	}
	Lifetime{Given: true, Standard: true}.Into(&ttl)
	if ttl != 0 {
		t.Error("system did not return to the standard")
	}
}

// A secret sent under the wrong name must not come back in an error, which is
// also written to the audit log.
func TestErrorsDoNotRepeatWhatWasSent(t *testing.T) {
	for _, to := range []any{new(Seconds), new(Duration), new(Int), new(Bool), new(Time)} {
		for _, sent := range []string{`"canary"`, `"canaryd"`, `["canary"]`, `{"canary":1}`} {
			err := json.Unmarshal([]byte(sent), to)
			if err == nil {
				t.Errorf("%T accepts %s", to, sent)
			} else if inner := (*json.SemanticError)(nil); errors.As(err, &inner) && inner.Err != nil {
				err = inner.Err
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("%T answers %s with %v", to, sent, err)
			}
		}
	}
}

func TestFloat(t *testing.T) {
	for text, want := range map[string]float64{"1.5": 1.5, `"2"`: 2, "1e3": 1000, "null": 0, `""`: 0, "-1": -1} {
		var f Float
		if err := json.Unmarshal([]byte(text), &f); err != nil || float64(f) != want {
			t.Errorf("%s is %v, %v", text, f, err)
		}
	}
	for _, text := range []string{`"NaN"`, `"Inf"`, `"x"`, "1e999", "[]", "{}"} {
		var f Float
		if err := json.Unmarshal([]byte(text), &f); err == nil {
			t.Errorf("%s is %v", text, f)
		}
	}
}
