package plan

import (
	"encoding/json"
	"testing"
)

func TestSame(t *testing.T) {
	for _, c := range []struct {
		want, is string
		same     bool
	}{
		{`"1h"`, `3600`, true}, {`3600`, `3600`, true}, {`"3600"`, `3600`, true}, {`"1h"`, `"1h0m0s"`, true}, {`"1h"`, `3601`, false},
		{`"2d"`, `172800`, true}, {`0`, `0`, true}, {`""`, `0`, true}, {`"a"`, `"a"`, true}, {`"a"`, `"b"`, false},
		{`["b","a"]`, `["a","b"]`, true}, {`"a, b"`, `["b","a"]`, true}, {`["a"]`, `"a"`, true}, {`["a"]`, `["a","b"]`, false}, {`[]`, `null`, true}, {`""`, `[]`, true},
		{`true`, `true`, true}, {`"true"`, `true`, true}, {`false`, `true`, false}, {`false`, `null`, true}, {`true`, `null`, false},
		{`{"a":"1h"}`, `{"a":3600}`, true}, {`{"a":1}`, `{"a":1,"b":2}`, false}, {`{}`, `null`, true},
		{`[{"a":1}]`, `[{"a":1}]`, true}, {`[{"a":1}]`, `[{"a":2}]`, false}, {`[{"a":1}]`, `["x"]`, false},
		{`"10"`, `"10"`, true}, {`10`, `"10"`, true}, {`"x"`, `-1`, false},
	} {
		if got := same(json.RawMessage(c.want), json.RawMessage(c.is)); got != c.same {
			t.Errorf("%s and %s: %v", c.want, c.is, got)
		}
	}
}
