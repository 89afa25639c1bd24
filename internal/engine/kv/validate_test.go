package kv_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
)

func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

const canary = "hunter2-must-not-be-shown"

func TestValidatorsRefuseBeforeAnythingIsStored(t *testing.T) {
	cert := certificate(t)
	for name, c := range map[string]struct{ rules, good, bad, says string }{
		"required key missing": {`{"required_keys":["user"]}`, `{"user":"u"}`, `{"other":"` + canary + `"}`, `required_keys for key "user"`},
		"required key empty":   {`{"required_keys":["user"]}`, `{"user":0}`, `{"user":"","x":"` + canary + `"}`, `required_keys for key "user"`},
		"required key null":    {`{"required_keys":["user"]}`, `{"user":false}`, `{"user":null}`, `required_keys for key "user"`},
		"regex":                {`{"regex":{"user":"^[a-z]+$"}}`, `{"user":"abc"}`, `{"user":"` + canary + `"}`, `regex for key "user"`},
		"regex of a number":    {`{"regex":{"port":"^[0-9]{4}$"}}`, `{"port":5432}`, `{"port":54321}`, `regex for key "port"`},
		"regex of nothing":     {`{"regex":{"port":".*"}}`, `{"port":""}`, `{"x":1}`, `regex for key "port"`},
		"size":                 {`{"max_bytes":20}`, `{"a":"12345678"}`, `{"a":"` + canary + `"}`, `max_bytes`},
		"pem":                  {`{"pem":["key"]}`, `{"key":` + quoted(cert+cert) + `}`, `{"key":` + quoted(canary) + `}`, `pem for key "key"`},
		"pem with rest":        {`{"pem":["key"]}`, `{"key":` + quoted(cert) + `}`, `{"key":` + quoted(cert+canary) + `}`, `pem for key "key"`},
		"pem with beginning":   {`{"pem":["key"]}`, `{"key":` + quoted("\n"+cert) + `}`, `{"key":` + quoted(canary+"\n"+cert) + `}`, `pem for key "key"`},
		"pem cut":              {`{"pem":["key"]}`, `{"key":` + quoted(cert) + `}`, `{"key":` + quoted(cert[:len(cert)/2]) + `}`, `pem for key "key"`},
		"certificate":          {`{"x509":["c"]}`, `{"c":` + quoted(cert) + `}`, `{"c":` + quoted(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(canary)}))) + `}`, `x509 for key "c"`},
		"certificate is a key": {`{"x509":["c"]}`, `{"c":` + quoted(cert) + `}`, `{"c":` + quoted(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(canary)}))) + `}`, `x509 for key "c"`},
		"schema type":          {`{"json_schema":{"type":"object","properties":{"port":{"type":"integer","maximum":65535}}}}`, `{"port":5432}`, `{"port":"` + canary + `"}`, `json_schema for key "/port": type`},
		"schema maximum":       {`{"json_schema":{"properties":{"port":{"$ref":"#/$defs/port"}},"$defs":{"port":{"maximum":65535}}}}`, `{"port":5432}`, `{"port":99999}`, `json_schema for key "/port"`},
		"schema required":      {`{"json_schema":{"required":["host"]}}`, `{"host":1}`, `{"x":"` + canary + `"}`, `json_schema for key "/": required`},
		"schema enum":          {`{"json_schema":{"properties":{"m":{"enum":["a","b"]}}}}`, `{"m":"a"}`, `{"m":"` + canary + `"}`, `enum`},
		"schema pattern":       {`{"json_schema":{"properties":{"m":{"pattern":"^a+$"}}}}`, `{"m":"aa"}`, `{"m":"` + canary + `"}`, `pattern`},
		"schema closed":        {`{"json_schema":{"additionalProperties":false,"properties":{"a":true}}}`, `{"a":1}`, `{"b":"` + canary + `"}`, `additionalProperties`},
	} {
		t.Run(name, func(t *testing.T) {
			e := openV2(t)
			check := func(a enginetest.Answer) {
				t.Helper()
				if a.Err == nil || a.Status != 400 || !strings.Contains(a.Err.Error(), c.says) || strings.Contains(a.Err.Error(), canary) {
					t.Errorf("%d %v, want 400 saying %q and nothing of the value", a.Status, a.Err, c.says)
				}
			}
			// A bad version from before the rules must not become active after.
			e.Must(t, 200, "POST", "data/s", `{"data":`+c.bad+`,"options":{"stage":"pending"}}`)
			e.Must(t, 204, "POST", "metadata/s", `{"validators":`+c.rules+`}`)
			check(e.Do("POST", "data/s", `{"data":`+c.bad+`}`))
			check(e.Do("POST", "data/s", `{"data":`+c.bad+`,"options":{"stage":"blue"}}`))
			check(e.Do("POST", "promote/s", `{}`))
			check(e.Do("POST", "labels/s", `{"label":"active","version":1}`))
			e.Must(t, 200, "POST", "data/s", `{"data":`+c.good+`}`)
			if strings.Contains(name, "missing") || strings.Contains(name, "null") {
				check(e.Do("PATCH", "data/s", `{"data":{"user":null}}`))
			}
			check(e.Do("POST", "rollback/s", `{"version":1}`))
			if out := metadata(t, e, "s"); out.Newest != 2 || out.Labels["active"] != 2 || out.Labels["pending"] != 1 {
				t.Errorf("something was stored: %+v", out)
			}
			if c.good != c.bad {
				e.Must(t, 200, "PATCH", "data/s", `{"data":{}}`)
			}
		})
	}
}

func TestMountValidatorsAreDefaults(t *testing.T) {
	e := openV2(t)
	e.Must(t, 204, "POST", "config", `{"validators":{"required_keys":["a"]}}`)
	refused(t, e, 400, "required_keys", "POST", "data/x", `{"data":{"b":1}}`)
	refused(t, e, 404, "", "GET", "metadata/x", "")
	e.Must(t, 204, "POST", "metadata/x", `{"validators":{"required_keys":["b"]}}`)
	e.Must(t, 200, "POST", "data/x", `{"data":{"b":1}}`)
	e.Must(t, 204, "POST", "metadata/y", `{"validators":{}}`)
	e.Must(t, 200, "POST", "data/y", `{"data":{}}`)
	e.Must(t, 204, "PATCH", "metadata/x", `{"validators":{"regex":{"b":"^1$"},"required_keys":null}}`)
	refused(t, e, 400, "regex", "POST", "data/x", `{"data":{"b":2}}`)
	e.Must(t, 204, "PATCH", "metadata/x", `{"validators":{"regex":{"b":null}}}`)
	e.Must(t, 200, "POST", "data/x", `{"data":{"b":2}}`)
	e.Must(t, 204, "POST", "config", `{"validators":{}}`)
	e.Must(t, 200, "POST", "data/z", `{"data":{}}`)
}

func TestValidatorsThatAreRefused(t *testing.T) {
	e := openV2(t)
	bomb := func() string {
		var b strings.Builder
		b.WriteString(`{"$ref":"#/$defs/d0","$defs":{`)
		for i := range 40 {
			fmt.Fprintf(&b, `"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
		}
		return b.String() + `"d40":{"type":"object"}}}`
	}
	for name, c := range map[string]struct{ rules, says string }{
		"regex":           {`{"regex":{"a":"("}}`, "regex"},
		"long regex":      {`{"regex":{"a":"` + strings.Repeat("a", 1025) + `"}}`, "1024"},
		"repeats":         {`{"regex":{"a":"((a{1000}){1000}){1000}"}}`, "regex"},
		"negative size":   {`{"max_bytes":-1}`, "max_bytes"},
		"many keys":       {`{"required_keys":[` + strings.Repeat(`"a",`, 64) + `"a"]}`, "64"},
		"no schema":       {`{"json_schema":{"type":"objekt"}}`, "json_schema"},
		"remote file":     {`{"json_schema":{"$ref":"file:///etc/passwd"}}`, "itself"},
		"remote http":     {`{"json_schema":{"allOf":[{"$ref":"http://localhost/x"}]}}`, "itself"},
		"remote meta":     {`{"json_schema":{"$schema":"http://localhost/x"}}`, "json_schema"},
		"circle":          {`{"json_schema":{"properties":{"a":{"$ref":"#/properties/a"}}}}`, "circle"},
		"root":            {`{"json_schema":{"properties":{"a":{"$ref":"#"}}}}`, "itself"},
		"dangling":        {`{"json_schema":{"$ref":"#/$defs/none"}}`, "nothing"},
		"dynamic":         {`{"json_schema":{"$dynamicRef":"#a"}}`, "$dynamicRef"},
		"bomb":            {`{"json_schema":` + bomb() + `}`, "too large"},
		"too much":        {`{"json_schema":{"description":"` + strings.Repeat("x", 33<<10) + `"}}`, "bytes"},
		"misspelt":        {`{"required_key":["a"]}`, "required_keys"},
		"of another kind": {`{"required_keys":"` + canary + `"}`, "validators"},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			refused(t, e, 400, c.says, "POST", "metadata/s", `{"validators":`+c.rules+`}`)
			refused(t, e, 400, c.says, "POST", "config", `{"validators":`+c.rules+`}`)
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("the refusal took %v", took)
			}
		})
	}
	e.Must(t, 204, "POST", "metadata/p", `{"owner":"o"}`)
	refused(t, e, 400, "validators", "PATCH", "metadata/p", `{"validators":{"unknown":1}}`)
	refused(t, e, 400, "regex", "PATCH", "metadata/p", `{"validators":{"regex":{"a":"("}}}`)
	if out := metadata(t, e, "p"); out.Validators != nil {
		t.Errorf("validators %+v were kept", out.Validators)
	}
}

// TestSchemaWorkIsBounded gives a heavy schema large data.
func TestSchemaWorkIsBounded(t *testing.T) {
	e := openV2(t)
	var items []string
	for i := range 1500 {
		items = append(items, fmt.Sprintf(`{"minLength":%d}`, i%3))
	}
	e.Must(t, 204, "POST", "metadata/s", `{"validators":{"json_schema":{"properties":{"a":{"items":{"anyOf":[`+strings.Join(items, ",")+`]}}}}}}`)
	body := `{"data":{"a":[` + strings.TrimSuffix(strings.Repeat(`1,`, 400_000), ",") + `]}}`
	refused(t, e, 400, "too large", "POST", "data/s", body)
}

func TestSearch(t *testing.T) {
	e := openV2(t)
	for i, path := range []string{"app/db", "app/cache", "app/DB/replica", "web/tls", "web/db"} {
		e.Must(t, 200, "POST", "data/"+path, `{"data":{"a":1}}`)
		e.Must(t, 204, "POST", "metadata/"+path, fmt.Sprintf(`{"owner":"team%d","kind":"k%d","tags":{"env":"e%d","hot":""}}`, i%2, i%3, i%2))
	}
	for query, want := range map[string]string{
		"search/":                       "app/DB/replica app/cache app/db web/db web/tls",
		"search":                        "app/DB/replica app/cache app/db web/db web/tls",
		"search/app":                    "app/DB/replica app/cache app/db",
		"search/app/":                   "app/DB/replica app/cache app/db",
		"search/ap":                     "",
		"search/?q=db":                  "app/DB/replica app/db web/db",
		"search/?q=*/db":                "app/db web/db",
		"search/?q=app*a":               "app/DB/replica",
		"search/?q=web/?b":              "web/db",
		"search/?owner=team1":           "app/cache web/tls",
		"search/?kind=k0":               "app/db web/tls",
		"search/?tags=env=e0,hot":       "app/DB/replica app/db web/db",
		"search/?tags=env":              "app/DB/replica app/cache app/db web/db web/tls",
		"search/?tags=none":             "",
		"search/web?q=db&owner=team0":   "web/db",
		"search/?q=db&kind=k2&limit=10": "app/DB/replica",
	} {
		a := e.Must(t, 200, "GET", query, "")
		if got := strings.Join(a.Output.(kv.SearchResponse).Keys, " "); got != want {
			t.Errorf("%s finds %q, want %q", query, got, want)
		}
	}
	refused(t, e, 400, "cursor", "GET", "search/?after=bogus!", "")
	refused(t, e, 400, "cursor", "GET", "search/app?after=d2Vi", "")
	refused(t, e, 400, "limit", "GET", "search/?limit=-1", "")
}
