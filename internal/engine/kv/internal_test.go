package kv

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/wire"
	"pgregory.net/rapid"
)

func TestMetaRowRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		moment := rapid.Custom(func(t *rapid.T) time.Time {
			if rapid.Bool().Draw(t, "zero") {
				return time.Time{}
			}
			return time.Unix(0, rapid.Int64Range(1, 1<<62).Draw(t, "at")).UTC()
		})
		m := &meta{
			id: rapid.String().Draw(t, "id"), expires: moment.Draw(t, "expires"), enforce: rapid.Bool().Draw(t, "enforce"),
			current: rapid.Uint64().Draw(t, "current"), newest: rapid.Uint64().Draw(t, "newest"), oldest: rapid.Uint64().Draw(t, "oldest"),
			custom: rapid.SliceOf(rapid.Byte()).Draw(t, "custom"), about: rapid.SliceOf(rapid.Byte()).Draw(t, "about"),
			created: moment.Draw(t, "created"), updated: moment.Draw(t, "updated"),
			labels: rapid.SliceOf(rapid.Custom(func(t *rapid.T) label {
				return label{rapid.SampledFrom([]string{Active, Pending, Previous, "x", ""}).Draw(t, "name"), rapid.Uint64().Draw(t, "number")}
			})).Draw(t, "labels"),
			versions: rapid.SliceOf(rapid.Custom(func(t *rapid.T) version {
				return version{
					rapid.Uint64().Draw(t, "number"), moment.Draw(t, "created"), moment.Draw(t, "deletion"),
					rapid.Bool().Draw(t, "destroyed"), rapid.Bool().Draw(t, "deprecated"),
				}
			})).Draw(t, "versions"),
		}
		row := m.row()
		got, err := parseMeta(row)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.row(), row) || !reflect.DeepEqual(got.versions, m.versions) || !reflect.DeepEqual(got.labels, m.labels) {
			t.Fatalf("read back %+v, wrote %+v", got, m)
		}
		// A row that was cut is noticed, and never a panic.
		if cut := rapid.IntRange(0, len(row)-1).Draw(t, "cut"); true {
			if _, err := parseMeta(row[:cut]); err == nil {
				t.Fatalf("a row of %d bytes cut to %d was read", len(row), cut)
			}
		}
	})
}

func FuzzRows(f *testing.F) {
	f.Add(newMeta(time.Unix(1, 0)).row())
	f.Add(trashRow([]uint64{1, 2, 3}))
	f.Add(seen{at: time.Unix(5, 0), by: "b", deprecated: 3}.row())
	f.Add([]byte{rowFormat, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, row []byte) {
		if m, err := parseMeta(row); err == nil {
			again, err := parseMeta(m.row())
			if err != nil || !reflect.DeepEqual(again, m) {
				t.Errorf("%+v is read back as %+v, %v", m, again, err)
			}
		}
		_, _ = parseTrash(row)
		_, _, _, _ = parseDue(string(row))
	})
}

// mergeAny is RFC 7396's own procedure on decoded values.
func mergeAny(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for name, v := range p {
		if v == nil {
			delete(t, name)
		} else {
			t[name] = mergeAny(t[name], v)
		}
	}
	return t
}

func decoded(t interface{ Fatalf(string, ...any) }, text []byte) any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

// rfcExamples are those of RFC 7396, appendix A, whose target is an object.
var rfcExamples = []struct{ target, patch, result string }{
	{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
	{`{"a":"b"}`, `{"a":null}`, `{}`},
	{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
	{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
	{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
	{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
	{`{"a":"foo"}`, `null`, `null`},
	{`{"a":"foo"}`, `"bar"`, `"bar"`},
	{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
	{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
	{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
}

func TestMergeExamples(t *testing.T) {
	for _, c := range rfcExamples {
		got, err := mergeText([]byte(c.target), []byte(c.patch))
		if err != nil || string(got) != c.result {
			t.Errorf("%s patched with %s is %s, %v; want %s", c.target, c.patch, got, err, c.result)
		}
	}
}

func FuzzMerge(f *testing.F) {
	for _, c := range rfcExamples {
		f.Add(c.target, c.patch)
	}
	f.Fuzz(func(t *testing.T, target, patch string) {
		// Only what the wire accepts gets here.
		a, err1 := wire.ParseBody([]byte(target))
		b, err2 := wire.ParseBody([]byte(patch))
		if err1 != nil || err2 != nil || a.Body == nil || b.Body == nil {
			return
		}
		got, err := mergeText(a.Body, b.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := mergeAny(decoded(t, a.Body), decoded(t, b.Body))
		if !reflect.DeepEqual(decoded(t, got), want) {
			t.Errorf("%s patched with %s is %s, want %v", target, patch, got, want)
		}
		shape, err := parseTree(got)
		if err != nil {
			t.Fatal(err)
		}
		keys := shape.keys(0)
		if text := string(keys.append(nil)); strings.ContainsAny(leaves(decoded(t, []byte(text))), "0123456789") {
			t.Errorf("the keys of %s show a value: %s", got, text)
		}
	})
}

// leaves is the text of every value that is no object.
func leaves(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var b strings.Builder
		for _, item := range v {
			b.WriteString(leaves(item))
		}
		return b.String()
	case nil:
		return ""
	}
	return "0 a value"
}

func TestKeysDepth(t *testing.T) {
	shape, err := parseTree([]byte(`{"a":{"b":{"c":1},"d":{}},"e":[{"f":1}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for depth, want := range map[int]string{
		0: `{"a":{"b":{"c":null},"d":null},"e":null}`, 1: `{"a":null,"e":null}`,
		2: `{"a":{"b":null,"d":null},"e":null}`, 3: `{"a":{"b":{"c":null},"d":null},"e":null}`,
	} {
		keys := shape.keys(depth)
		if got := string(keys.append(nil)); got != want {
			t.Errorf("depth %d: %s, want %s", depth, got, want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"*", "a/b", true}, {"a*b", "a/x/b", true}, {"a*b", "a/x/bc", false}, {"?", "", false},
		{"?b*", "abc", true}, {"*a*a*", "banana", true}, {"**x**", "x", true}, {"", "a", false},
		{strings.Repeat("*a", 500) + "b", strings.Repeat("a", 1024), false},
	} {
		if got := glob(c.pattern, c.text); got != c.want {
			t.Errorf("glob(%q, %q) is %v", c.pattern, c.text, got)
		}
	}
}
