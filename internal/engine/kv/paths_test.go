package kv_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
)

func TestBadPathsAreRefusedEverywhere(t *testing.T) {
	e := openV2(t)
	v1 := enginetest.Open(t, kv.V1.Spec(), enginetest.Options{})
	for _, path := range []string{
		"", "a/", "a//b", "/a", ".", "..", "a/../b", "a/./b", "a\x00b", "a\nb", "a\x7fb", "a\u0085b", "a\xffb",
		strings.Repeat("x", engine.MaxPath+1), strings.Repeat("x/", engine.MaxPath/2) + "xx",
	} {
		for _, c := range []struct{ method, verb, body string }{
			{"GET", "data/", ""}, {"POST", "data/", `{"data":{}}`}, {"PATCH", "data/", `{"data":{}}`}, {"DELETE", "data/", ""},
			{"POST", "delete/", `{"versions":[1]}`}, {"POST", "undelete/", `{"versions":[1]}`}, {"POST", "destroy/", `{"versions":[1]}`},
			{"GET", "metadata/", ""}, {"POST", "metadata/", `{"max_versions":1}`}, {"PATCH", "metadata/", `{"max_versions":1}`}, {"DELETE", "metadata/", ""},
			{"GET", "subkeys/", ""}, {"POST", "promote/", `{"version":1}`}, {"POST", "rollback/", `{"version":1}`},
			{"GET", "labels/", ""}, {"POST", "labels/", `{"label":"x","version":1}`}, {"DELETE", "labels/", ""},
		} {
			by := c.verb + path
			if c.method == "DELETE" && c.verb == "labels/" {
				by += "?label=x"
			}
			if a := e.Do(c.method, by, c.body); a.Status != 400 {
				t.Errorf("%s %q: %d %v, want 400", c.method, by, a.Status, a.Err)
			}
		}
		for _, c := range []struct{ method, body string }{{"GET", ""}, {"POST", `{"a":1}`}, {"DELETE", ""}} {
			if a := v1.Do(c.method, path, c.body); a.Status != 400 {
				t.Errorf("version 1: %s %q: %d %v, want 400", c.method, path, a.Status, a.Err)
			}
		}
	}
	if got := countRows(t, e.Storage) + countRows(t, v1.Storage); got != 0 {
		t.Errorf("%d rows were stored", got)
	}
}

func TestOddPathsWork(t *testing.T) {
	e := openV2(t)
	for _, path := range []string{
		"a b", "ü/€", "a+b/*", "...", "..a", "config", "data/data", strings.Repeat("x", engine.MaxPath),
		strings.Repeat("y/", engine.MaxPath/2-1) + "zz", "100%", "a=b&c", "labels",
	} {
		e.Must(t, 200, "POST", "data/"+path, `{"data":{"p":`+quoted(path)+`}}`)
	}
	if a := e.Must(t, 200, "GET", "data/a b", ""); !strings.Contains(a.Data, `{"p":"a b"}`) {
		t.Error(a.Data)
	}
	e.Must(t, 200, "GET", "data/"+strings.Repeat("x", engine.MaxPath), "")
}

func TestPayloadLimit(t *testing.T) {
	e := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{MaxPayload: 100})
	fits := `{"a":"` + strings.Repeat("x", 92) + `"}`
	e.Must(t, 200, "POST", "data/a", `{"data":`+fits+`}`)
	refused(t, e, 413, "100", "POST", "data/a", `{"data":{"a":"`+strings.Repeat("x", 93)+`"}}`)
	refused(t, e, 413, "100", "PATCH", "data/a", `{"data":{"b":1}}`)
	if out := metadata(t, e, "a"); out.Newest != 1 {
		t.Errorf("%d versions", out.Newest)
	}

	// The default limit fits with the largest metadata that is accepted.
	e = openV2(t)
	pairs := make([]string, 64)
	tags := make([]string, 64)
	for i := range pairs {
		name := fmt.Sprintf("%0128d", i)
		pairs[i] = fmt.Sprintf("%q:%q", name, strings.Repeat("v", 512))
		tags[i] = fmt.Sprintf("%q:%q", name, strings.Repeat("t", 128))
	}
	e.Must(t, 204, "POST", "metadata/big", fmt.Sprintf(`{"custom_metadata":{%s},"tags":{%s},"description":%q,"max_versions":1000,"validators":{"regex":{"none":".*"},"json_schema":{"description":%q}}}`,
		strings.Join(pairs, ","), strings.Join(tags, ","), strings.Repeat("d", 4096), strings.Repeat("s", 30<<10)))
	e.Must(t, 204, "PATCH", "metadata/big", `{"validators":{"regex":null}}`)
	for range 999 {
		e.Must(t, 200, "POST", "data/big", `{"data":{}}`)
	}
	most := `{"a":"` + strings.Repeat("x", kv.DefaultMaxPayload-8) + `"}`
	e.Must(t, 200, "POST", "data/big", `{"data":`+most+`}`)
	refused(t, e, 413, "1048576", "POST", "data/big", `{"data":`+strings.Replace(most, "x", "xx", 1)+`}`)
}
