package audit

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fields lists every field an entry may have. A new one is added here only
// after asking whether a secret, a token or a password could end up in it.
var fields = map[string]string{
	"seq": "uint64", "time": "time.Time", "type": "audit.Type", "event": "string",
	"request.id": "string", "request.operation": "string", "request.path": "string", "request.mount_point": "string",
	"request.mount_type": "string", "request.mount_accessor": "string", "request.namespace": "string",
	"request.remote_address": "string", "request.remote_port": "int", "request.traceparent": "string",
	"request.trace_id": "string", "request.correlation_id": "string", "request.wrap_ttl": "int64",
	// Chosen by an operator: auditstore refuses names that carry secrets, and hashes.
	"request.fields": "[]string", "request.headers": "map[string][]string",
	"principal.display_name": "string", "principal.accessor": "string", "principal.entity_id": "string",
	"principal.policies": "[]string", "principal.identity_policies": "[]string", "principal.namespace": "string", "principal.token_type": "string", "principal.issued": "time.Time",
	"decision.allowed": "bool", "decision.policy": "string", "decision.rule": "string", "decision.missing": "string",
	"subject.path": "string", "subject.version": "int", "subject.label": "string", "subject.fingerprint": "string",
	"status": "int", "error": "string", "duration_us": "int64", "stale_ms": "int64",
}

func walkFields(t *testing.T, typ reflect.Type, prefix string, visit func(path string, typ reflect.Type)) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" || !f.IsExported() {
			t.Errorf("%s%s has no name on disk", prefix, f.Name)
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
			walkFields(t, inner, prefix+name+".", visit)
			continue
		}
		visit(prefix+name, f.Type)
	}
}

func TestEntryCannotHoldASecret(t *testing.T) {
	left := map[string]string{}
	for path, typ := range fields {
		left[path] = typ
	}
	walkFields(t, reflect.TypeFor[Entry](), "", func(path string, typ reflect.Type) {
		if want, ok := fields[path]; !ok || want != typ.String() {
			t.Errorf("field %s of type %s is not in the list of fields that hold no secret", path, typ)
		}
		for _, word := range []string{"value", "secret", "password", "data", "body", "token_id", "client_token"} {
			if last := path[strings.LastIndex(path, ".")+1:]; strings.Contains(last, word) {
				t.Errorf("field %s is named like a value", path)
			}
		}
		delete(left, path)
	})
	if len(left) > 0 {
		t.Errorf("fields that are gone: %v", left)
	}
}

func entryGen() *rapid.Generator[Entry] {
	text := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.Rune(), 0, 8, -1),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8), func(b []byte) string { return string(b) }))
	texts := rapid.Map(rapid.SliceOfN(text, 0, 3), func(list []string) []string {
		if len(list) == 0 {
			return nil // an empty list and none are one on disk, and two to encoding/json
		}
		return list
	})
	headers := rapid.Map(rapid.MapOfN(rapid.StringMatching(`[a-z-]{1,8}`), rapid.SliceOfN(text, 1, 3), 0, 3), func(m map[string][]string) map[string][]string {
		if len(m) == 0 {
			return nil
		}
		return m
	})
	when := rapid.Map(rapid.Int64Range(0, 1<<61), func(n int64) time.Time { return time.Unix(0, n).UTC() })
	return rapid.Custom(func(t *rapid.T) Entry {
		s := func(name string) string { return text.Draw(t, name) }
		e := Entry{
			Time: when.Draw(t, "time"), Type: rapid.SampledFrom([]Type{Intent, Outcome, Event}).Draw(t, "type"), Event: s("event"),
			Request: Request{ID: s("id"), Operation: s("op"), Path: s("path"), MountPoint: s("mp"), MountType: s("mt"),
				MountAccessor: s("ma"), Namespace: s("ns"), RemoteAddress: s("ra"), RemotePort: rapid.Int().Draw(t, "rp"),
				TraceParent: s("tp"), TraceID: s("ti"), CorrelationID: s("ci"), WrapTTL: rapid.Int64().Draw(t, "ttl"),
				Fields: texts.Draw(t, "fields"), Headers: headers.Draw(t, "headers")},
			Principal: Principal{DisplayName: s("dn"), Accessor: s("ac"), EntityID: s("ei"), Policies: texts.Draw(t, "po"), Identity: texts.Draw(t, "ip"), Namespace: s("pn"), TokenType: s("tt")},
			Subject:   Subject{Path: s("sp"), Version: rapid.Int().Draw(t, "v"), Label: s("l"), Fingerprint: s("fp")},
			Status:    rapid.Int().Draw(t, "status"), Error: s("error"), DurationUS: rapid.Int64().Draw(t, "us"), StaleMS: rapid.Int64().Draw(t, "stale"),
		}
		if rapid.Bool().Draw(t, "decided") {
			e.Decision = &Decision{rapid.Bool().Draw(t, "allowed"), s("p"), s("r"), s("m")}
		}
		if rapid.Bool().Draw(t, "issued") {
			e.Principal.Issued = when.Draw(t, "when").Truncate(time.Second)
		}
		return e
	})
}

// TestEncodingIsTheStructs compares the hand-written encoding with what
// encoding/json makes of the same tags.
func TestEncodingIsTheStructs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := entryGen().Draw(t, "entry")
		e.Seq = 7
		line := append([]byte(`{"seq":7`), appendBody(nil, &e)...)
		for _, c := range line {
			if c < ' ' || c == 0x7f {
				t.Fatalf("control character %#x in %s", c, line)
			}
		}
		var got, want map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		plain, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(plain, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("ours %s\nplain %s", line, plain)
		}
	})
}

func TestEntryLine(t *testing.T) {
	e := outcome(1)
	e.Time = time.Date(2026, 3, 4, 5, 6, 7, 89, time.FixedZone("x", 3600))
	line := append([]byte(`{"seq":1`), appendBody(nil, e)...)
	want, err := os.ReadFile("testdata/entry.json")
	if err != nil {
		t.Fatal(err)
	}
	if string(line)+"\n" != string(want) {
		t.Errorf("the format on disk changed:\n%s\nwant\n%s", line, want)
	}
}
