package kv_test

import (
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
)

// refused makes a request that has to be refused, saying something.
func refused(t *testing.T, e *enginetest.Engine, status int, says, method, path, body string) {
	t.Helper()
	a := e.Do(method, path, body)
	if a.Err == nil || a.Status != status || !strings.Contains(a.Err.Error(), says) {
		t.Errorf("%s %s %s: %d %v, want %d saying %q", method, path, body, a.Status, a.Err, status, says)
	}
}

// same makes a request whose answer has to be of a shape.
func same(t *testing.T, e *enginetest.Engine, status int, want, method, path, body string) {
	t.Helper()
	a := e.Must(t, status, method, path, body)
	if diff := enginetest.Differs(want, a.Data); diff != "" {
		t.Errorf("%s %s %s: %s\n got %s\nwant %s", method, path, body, diff, a.Data, want)
	}
}

const someTime = `"2030-01-31T12:00:00Z"`

func TestVaultTexts(t *testing.T) {
	e := openV2(t)
	refused(t, e, 404, "", "GET", "data/none", "")
	refused(t, e, 404, "", "GET", "metadata/none", "")
	refused(t, e, 404, "", "LIST", "metadata/", "")
	refused(t, e, 404, "", "LIST", "metadata", "")
	refused(t, e, 404, "", "PATCH", "data/none", `{"data":{}}`)
	refused(t, e, 404, "", "PATCH", "metadata/none", `{"max_versions":1}`)
	refused(t, e, 404, "", "GET", "subkeys/none", "")
	for _, path := range []string{"data/none", "metadata/none"} {
		if a := e.Do("GET", path, ""); a.Err == nil || a.Err.Error() != "" {
			t.Errorf("GET %s says %q; clients expect nothing", path, a.Err)
		}
	}
	refused(t, e, 400, "no data provided", "POST", "data/a", `{}`)
	refused(t, e, 400, "no data provided", "POST", "data/a", `{"data":null}`)
	refused(t, e, 400, "no data provided", "POST", "data/a", ``)
	refused(t, e, 400, "no data provided", "PATCH", "data/a", `{"options":{}}`)
	refused(t, e, 400, "data", "POST", "data/a", `{"data":"x"}`)
	refused(t, e, 400, "did not match the current version", "POST", "data/a", `{"data":{},"options":{"cas":1}}`)
	e.Must(t, 200, "POST", "data/a", `{"data":{},"options":{"cas":0}}`)
	refused(t, e, 400, "check-and-set parameter did not match the current version", "POST", "data/a", `{"data":{},"options":{"cas":0}}`)
	refused(t, e, 400, "check-and-set parameter did not match the current version", "PATCH", "data/a", `{"data":{},"options":{"cas":2}}`)
	refused(t, e, 400, "check-and-set parameter did not match", "POST", "data/a", `{"data":{},"options":{"cas":-1}}`)
	e.Must(t, 200, "POST", "data/a", `{"data":{},"options":{"cas":"1"}}`)
	for _, verb := range []string{"delete", "undelete", "destroy"} {
		refused(t, e, 400, "no version number provided", "POST", verb+"/a", `{}`)
		refused(t, e, 400, "no version number provided", "POST", verb+"/none", `{"versions":[]}`)
		e.Must(t, 204, "POST", verb+"/none", `{"versions":[1]}`)
		e.Must(t, 204, "POST", verb+"/a", `{"versions":["99"]}`)
	}
	e.Must(t, 204, "POST", "metadata/a", `{"cas_required":true}`)
	refused(t, e, 400, "check-and-set parameter required for this call", "POST", "data/a", `{"data":{}}`)
	refused(t, e, 400, "check-and-set parameter required for this call", "PATCH", "data/a", `{"data":{}}`)
	e.Must(t, 204, "POST", "metadata/a", `{"cas_required":false}`)
	e.Must(t, 204, "POST", "config", `{"cas_required":true}`)
	refused(t, e, 400, "check-and-set parameter required for this call", "POST", "data/b", `{"data":{}}`)
	a := e.Must(t, 200, "POST", "metadata/a", `{"cas_required":false}`)
	if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "mandated by backend config") {
		t.Errorf("warnings %q", a.Warnings)
	}
	e.Must(t, 204, "DELETE", "data/none", "")
	e.Must(t, 204, "DELETE", "metadata/none", "")
	e.Must(t, 204, "POST", "metadata/nothing-asked", `{}`)
	refused(t, e, 404, "", "GET", "metadata/nothing-asked", "")
}

func TestDeletedAndDestroyedAnswers(t *testing.T) {
	e := openV2(t)
	e.Must(t, 200, "POST", "data/a/b", `{"data":{"k":"v1"}}`)
	e.Must(t, 200, "POST", "data/a/b", `{"data":{"k":"v2"}}`)
	e.Must(t, 204, "DELETE", "data/a/b", "")
	deleted := `{"data":null,"metadata":{"version":2,"created_time":` + someTime + `,"deletion_time":` + someTime + `,"destroyed":false,"custom_metadata":null,"labels":["active"]}}`
	same(t, e, 404, deleted, "GET", "data/a/b", "")
	same(t, e, 404, deleted, "GET", "data/a/b?version=2", "")
	same(t, e, 404, strings.Replace(deleted, "data", "subkeys", 1), "GET", "subkeys/a/b", "")
	same(t, e, 404, `{"version":2,"created_time":`+someTime+`,"deletion_time":`+someTime+`,"destroyed":false,"custom_metadata":null,"labels":["active"]}`, "PATCH", "data/a/b", `{"data":{"x":1}}`)
	same(t, e, 200, `{"data":{"k":"v1"},"metadata":{"version":1,"created_time":`+someTime+`,"deletion_time":"","destroyed":false,"custom_metadata":null,"labels":["previous"]}}`, "GET", "data/a/b?version=1", "")
	e.Must(t, 204, "POST", "undelete/a/b", `{"versions":"2"}`)
	e.Must(t, 200, "GET", "data/a/b", "")
	e.Must(t, 204, "POST", "destroy/a/b", `{"versions":[2]}`)
	same(t, e, 404, `{"data":null,"metadata":{"version":2,"created_time":`+someTime+`,"deletion_time":"","destroyed":true,"custom_metadata":null,"labels":["active"]}}`, "GET", "data/a/b", "")
	e.Must(t, 204, "POST", "undelete/a/b", `{"versions":[2]}`)
	e.Must(t, 404, "GET", "data/a/b", "")
	e.Must(t, 204, "DELETE", "metadata/a/b", "")
	refused(t, e, 404, "", "GET", "data/a/b", "")
	same(t, e, 200, `{"version":1,"created_time":`+someTime+`,"deletion_time":"","destroyed":false,"custom_metadata":null,"labels":["active"]}`, "POST", "data/a/b", `{"data":{}}`)
}

func TestDataIsKeptAsItWasWritten(t *testing.T) {
	e := openV2(t)
	const data = `{"big":123456789012345678901234567890,"exp":1.50e+3,"z":1,"a":{"y":[1, 2.0],"x":null},"s":"é\u0000<&>"}`
	e.Must(t, 200, "POST", "data/n", `{"data": `+data+` }`)
	out := e.Must(t, 200, "GET", "data/n", "").Output.(kv.ReadResponse)
	if got, want := string(out.Data), strings.ReplaceAll(data, ", ", ","); got != want {
		t.Errorf("read %s, want %s", got, want)
	}
	e.Must(t, 200, "PATCH", "data/n", `{"data":{"a":{"x":{"new":1e400},"y":null},"s":null,"none":null}}`)
	out = e.Must(t, 200, "GET", "data/n", "").Output.(kv.ReadResponse)
	if got, want := string(out.Data), `{"big":123456789012345678901234567890,"exp":1.50e+3,"z":1,"a":{"x":{"new":1e400}}}`; got != want {
		t.Errorf("patched to %s, want %s", got, want)
	}
}

func TestListing(t *testing.T) {
	e := openV2(t)
	for _, path := range []string{"b", "a", "a/x", "a/y/z", "c"} {
		e.Must(t, 200, "POST", "data/"+path, `{"data":{}}`)
	}
	for path, want := range map[string]string{
		"metadata":                  `{"keys":["a","a/","b","c"]}`,
		"metadata/":                 `{"keys":["a","a/","b","c"]}`,
		"metadata/a":                `{"keys":["x","y/"]}`,
		"metadata/a/":               `{"keys":["x","y/"]}`,
		"metadata/?limit=2":         `{"keys":["a","a/"]}`,
		"metadata/?after=a/":        `{"keys":["b","c"]}`,
		"metadata/?after=a&limit=2": `{"keys":["a/","b"]}`,
	} {
		same(t, e, 200, want, "LIST", path, "")
	}
	refused(t, e, 404, "", "LIST", "metadata/b", "")
	refused(t, e, 400, "limit", "LIST", "metadata/?limit=-1", "")
	refused(t, e, 400, "slash", "LIST", "metadata/a//", "")
}

func TestStagedVersionsAreInvisibleUntilPromoted(t *testing.T) {
	e := openV2(t)
	e.Must(t, 200, "POST", "data/a", `{"data":{"n":1},"options":{"stage":"pending","cas":0}}`)
	refused(t, e, 404, "", "GET", "data/a", "")
	refused(t, e, 404, "", "PATCH", "data/a", `{"data":{"n":2}}`)
	refused(t, e, 400, "did not match", "POST", "data/a", `{"data":{"n":2},"options":{"cas":0}}`)
	e.Must(t, 204, "DELETE", "data/a", "")
	e.Must(t, 200, "GET", "data/a?label=pending", "")
	e.Must(t, 200, "GET", "data/a?version=1", "")
	same(t, e, 200, `{"labels":{"active":1},"deprecated":[]}`, "POST", "promote/a", `{}`)
	e.Must(t, 200, "GET", "data/a", "")
	refused(t, e, 400, "nothing is labelled pending", "POST", "promote/a", `{}`)
	refused(t, e, 400, "nothing is labelled previous", "POST", "rollback/a", ``)
	e.Must(t, 200, "POST", "data/a", `{"data":{"n":2},"options":{"stage":"pending"}}`)
	// A client that read the active version may write on that ground; one that
	// stages may not.
	refused(t, e, 400, "did not match", "POST", "data/a", `{"data":{"n":3},"options":{"cas":1,"stage":"blue"}}`)
	e.Must(t, 200, "POST", "data/a", `{"data":{"n":3},"options":{"cas":1}}`)
	refused(t, e, 400, "did not match", "POST", "data/a", `{"data":{"n":4},"options":{"cas":1}}`)
	refused(t, e, 400, "did not match", "POST", "data/a", `{"data":{"n":4},"options":{"cas":2}}`)
	same(t, e, 200, `{"labels":{"active":3,"pending":2,"previous":1},"deprecated":[]}`, "GET", "labels/a", "")
	refused(t, e, 400, "did not match", "POST", "promote/a", `{"cas":1}`)
	same(t, e, 200, `{"labels":{"active":2,"previous":3},"deprecated":[]}`, "POST", "promote/a", `{"cas":3}`)
	same(t, e, 200, `{"labels":{"active":3,"previous":2},"deprecated":[]}`, "POST", "rollback/a", `{}`)
	same(t, e, 200, `{"labels":{"active":3,"previous":2},"deprecated":[]}`, "POST", "promote/a", `{"label":"active"}`)
}

func TestLabelsRefuse(t *testing.T) {
	e := seeded(t)
	for _, c := range []struct{ path, body, says string }{
		{"data/app/db", `{"data":{},"options":{"stage":"previous"}}`, "reserved"},
		{"data/app/db", `{"data":{},"options":{"stage":"deprecated"}}`, "reserved"},
		{"data/app/db", `{"data":{},"options":{"stage":"No"}}`, "a-z"},
		{"data/app/db", `{"data":{},"options":{"stage":"` + strings.Repeat("a", 64) + `"}}`, "63"},
		{"labels/app/db", `{"label":"previous","version":1}`, "reserved"},
		{"labels/app/db", `{"label":"-x","version":1}`, "a-z"},
		{"labels/app/db", `{"label":"","version":1}`, "a-z"},
		{"labels/app/db", `{"label":"x"}`, "version"},
		{"labels/app/db", `{"label":"x","version":9}`, "no version 9"},
		{"labels/app/db", `{"label":"pending","version":2}`, "active"},
		{"labels/app/db", `{"label":"deprecated","version":2}`, "active"},
		{"labels/app/db", `{"label":"deprecated","version":1,"cas":1}`, "cas"},
		{"labels/app/db", `{"label":"x","version":1,"cas":1}`, "did not match"},
		{"promote/app/db", `{"version":9}`, "no version 9"},
		{"promote/app/db", `{"version":-1}`, "negative"},
		{"promote/app/db", `{"version":1,"label":"pending"}`, "not both"},
	} {
		refused(t, e, 400, c.says, "POST", c.path, c.body)
	}
	refused(t, e, 400, "reserved", "DELETE", "labels/app/db?label=active", "")
	refused(t, e, 404, "", "DELETE", "labels/app/db?label=none", "")
	refused(t, e, 404, "", "DELETE", "labels/app/db?label=deprecated&version=1", "")
	refused(t, e, 400, "not both", "GET", "data/app/db?version=1&label=active", "")
	refused(t, e, 400, "number", "GET", "data/app/db?label=deprecated", "")
	refused(t, e, 404, "", "GET", "data/app/db?label=none", "")
	e.Must(t, 204, "POST", "delete/app/db", `{"versions":[1]}`)
	refused(t, e, 400, "version 1 is deleted", "POST", "rollback/app/db", `{}`)
	e.Must(t, 204, "POST", "destroy/app/db", `{"versions":[3]}`)
	refused(t, e, 400, "version 3 is destroyed", "POST", "promote/app/db", `{}`)
	for i := range kv.MaxLabels {
		e.Must(t, 200, "POST", "labels/app/db", `{"label":"x`+strings.Repeat("y", i)+`","version":2}`)
	}
	refused(t, e, 400, "at most 32 labels", "POST", "labels/app/db", `{"label":"more","version":2}`)
	refused(t, e, 400, "at most 32 labels", "POST", "data/app/db", `{"data":{},"options":{"stage":"more"}}`)
	e.Must(t, 200, "POST", "data/app/db", `{"data":{},"options":{"stage":"pending"}}`)
}

func TestDeprecatedVersionsWarnAndAreCounted(t *testing.T) {
	e := seeded(t)
	same(t, e, 200, `{"labels":{"active":2,"pending":3,"previous":1},"deprecated":[1]}`, "POST", "labels/app/db", `{"label":"deprecated","version":1}`)
	a := e.Must(t, 200, "GET", "data/app/db?version=1", "")
	if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "deprecated") {
		t.Errorf("warnings %q", a.Warnings)
	}
	e.Must(t, 200, "GET", "data/app/db", "")
	if out := e.Must(t, 200, "GET", "metadata/app/db", "").Output.(kv.MetadataResponse); out.DeprecatedReads != 1 || !out.Versions["1"].Deprecated {
		t.Errorf("metadata %+v", out)
	}
	refused(t, e, 400, "marked deprecated", "POST", "rollback/app/db", `{}`)
	e.Must(t, 200, "DELETE", "labels/app/db?label=deprecated&version=1", "")
	e.Must(t, 200, "POST", "rollback/app/db", `{}`)
}

func TestCustomMetadata(t *testing.T) {
	e := openV2(t)
	for _, c := range []struct{ body, says string }{
		{`{"custom_metadata":{"k":""}}`, "length of value"},
		{`{"custom_metadata":{"":"v"}}`, "length of key"},
		{`{"custom_metadata":{"k":"` + strings.Repeat("v", 513) + `"}}`, "513"},
		{`{"custom_metadata":{"` + strings.Repeat("k", 129) + `":"v"}}`, "129"},
		{`{"custom_metadata":{"k":"a\u0007"}}`, "unprintable"},
		{`{"custom_metadata":{"k":{"a":1}}}`, "must be a string"},
		{`{"custom_metadata":[]}`, "custom_metadata"},
		{`{"max_versions":-1}`, "max_versions"},
		{`{"max_versions":1001}`, "max_versions"},
		{`{"delete_version_after":"-1s"}`, "delete_version_after"},
		{`{"delete_version_after":"soon"}`, "duration"},
		{`{"expiry":"never"}`, "expiry"},
		{`{"expires_at":"tomorrow"}`, "RFC 3339"},
		{`{"owner":"` + strings.Repeat("o", 257) + `"}`, "owner"},
		{`{"tags":{"":"v"}}`, "tags"},
	} {
		refused(t, e, 400, c.says, "POST", "metadata/a", c.body)
	}
	var many strings.Builder
	for i := range 65 {
		many.WriteString(`,"` + strings.Repeat("k", i+1) + `":"v"`)
	}
	refused(t, e, 400, "at most 64 keys, provided 65", "POST", "metadata/a", `{"custom_metadata":{`+many.String()[1:]+`}}`)
	refused(t, e, 404, "", "GET", "metadata/a", "")

	e.Must(t, 204, "POST", "metadata/a", `{"custom_metadata":{"a":1,"b":true},"tags":"env=prod,hot","owner":"o"}`)
	e.Must(t, 204, "PATCH", "metadata/a", `{"custom_metadata":{"a":null,"c":"x"},"tags":{"hot":null,"tier":"1"},"delete_version_after":"3h25m19s"}`)
	out := e.Must(t, 200, "GET", "metadata/a", "").Output.(kv.MetadataResponse)
	if string(out.Custom) != `{"b":"true","c":"x"}` || out.Tags["env"] != "prod" || out.Tags["tier"] != "1" || len(out.Tags) != 2 || out.Owner != "o" || out.DeleteAfter.Duration().String() != "3h25m19s" {
		t.Errorf("metadata %+v %s", out, []byte(out.Custom))
	}
}

func TestNullInAPatchResets(t *testing.T) {
	e := openV2(t)
	e.Must(t, 204, "POST", "metadata/a", `{"owner":"o","description":"d","kind":"k","max_versions":3,"cas_required":true,"delete_version_after":"1h","destroy_deleted_after":"1h","expires_at":"2031-01-01T00:00:00Z","expiry":"enforce","custom_metadata":{"a":"b"},"tags":["t"],"validators":{"max_bytes":9}}`)
	e.Must(t, 204, "PATCH", "metadata/a", `{"kind":"k2"}`)
	if out := metadata(t, e, "a"); out.Owner != "o" || out.MaxVersions != 3 || !out.CASRequired || out.Kind != "k2" || out.Validators == nil {
		t.Errorf("a patch of one member changed others: %+v", out)
	}
	e.Must(t, 204, "PATCH", "metadata/a", `{"owner":null,"description":null,"kind":null,"max_versions":null,"cas_required":null,"delete_version_after":null,"destroy_deleted_after":null,"expires_at":null,"expiry":null,"custom_metadata":{"a":null},"tags":{"t":null},"validators":{"max_bytes":null}}`)
	out := metadata(t, e, "a")
	if out.Owner+out.Description+out.Kind != "" || out.MaxVersions != 0 || out.CASRequired || out.DeleteAfter != 0 || out.DestroyAfter != 0 ||
		!out.Expires.IsZero() || out.Expiry != "warn" || len(out.Custom) != 0 || len(out.Tags) != 0 {
		t.Errorf("null did not reset everything: %+v", out)
	}
	e.Must(t, 200, "POST", "data/a", `{"data":{"longer":"than nine bytes"}}`)
}

func TestVersion1(t *testing.T) {
	store := enginetest.Open(t, kv.V1.Spec(), enginetest.Options{}).Storage
	e := enginetest.Open(t, kv.V1.Spec(), enginetest.Options{Storage: store})
	for path, seconds := range map[string]int{`{"a":1}`: 2764800, `{"ttl":"1h","a":2}`: 3600, `{"lease":30}`: 30, `{"ttl":"never"}`: 2764800, `{"x":{"ttl":1}}`: 2764800} {
		e.Must(t, 204, "POST", "app/db", path)
		a := e.Must(t, 200, "GET", "app/db", "")
		if a.Data != path || int(a.Notes.LeaseDuration.Seconds()) != seconds {
			t.Errorf("read %s for %v, want %s for %d s", a.Data, a.Notes.LeaseDuration, path, seconds)
		}
	}
	refused(t, e, 400, "missing data fields", "POST", "app/db", ``)
	refused(t, e, 400, "missing data fields", "POST", "app/db", `{ }`)
	refused(t, e, 400, "missing path", "POST", "", `{"a":1}`)
	refused(t, e, 404, "", "GET", "app", "")
	same(t, e, 200, `{"keys":["app/"]}`, "LIST", "", "")
	same(t, e, 200, `{"keys":["db"]}`, "LIST", "app", "")

	e.Must(t, 204, "POST", "app/db", `{"a":3}`)
	up := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: store})
	same(t, up, 200, `{"data":{"a":3},"metadata":{"version":1,"created_time":`+someTime+`,"deletion_time":"","destroyed":false,"custom_metadata":null,"labels":["active"]}}`, "GET", "data/app/db", "")
	up.Must(t, 200, "POST", "data/app/db", `{"data":{"a":4},"options":{"cas":1}}`)
	same(t, up, 200, `{"labels":{"active":2,"previous":1},"deprecated":[]}`, "GET", "labels/app/db", "")

	e.Must(t, 204, "DELETE", "app/none", "")
}

// Vault's clients take all of custom_metadata away with null.
func TestNullRemovesCustomMetadata(t *testing.T) {
	for _, method := range []string{"POST", "PATCH"} {
		e := openV2(t)
		e.Must(t, 204, "POST", "metadata/a", `{"custom_metadata":{"owner":"payments","tier":"1"}}`)
		e.Must(t, 204, "PATCH", "metadata/a", `{"custom_metadata":{"tier":null}}`)
		e.Must(t, 204, method, "metadata/a", `{"max_versions":3}`)
		if data := string(e.Must(t, 200, "GET", "metadata/a", "").Data); !strings.Contains(data, `"custom_metadata":{"owner":"payments"}`) {
			t.Errorf("%s without custom_metadata: %s", method, data)
		}
		e.Must(t, 204, method, "metadata/a", `{"custom_metadata":null}`)
		if data := string(e.Must(t, 200, "GET", "metadata/a", "").Data); !strings.Contains(data, `"custom_metadata":null`) {
			t.Errorf("%s of null: %s", method, data)
		}
	}
}
