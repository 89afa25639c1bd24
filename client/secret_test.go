package client

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsAreRedacted(t *testing.T) {
	const value = "hunter2-hunter2"
	answer := &Response{Data: Raw(`{"k":"` + value + `"}`), Body: Raw(value), Auth: &Auth{Token: value}, WrapInfo: &WrapInfo{Token: value}}
	calls, err := New(Config{Token: value})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{
		calls, &struct{ Auth *Auth }{answer.Auth}, struct{ C *Config }{&Config{Token: value}}, struct{ C *Client }{calls}, struct{ T *TokenInfo }{&TokenInfo{ID: value}},
		&TokenRequest{ID: value}, struct{ T *TokenRequest }{&TokenRequest{ID: value}}, struct{ I *InitAnswer }{&InitAnswer{RootToken: value, Keys: []Secret{value}}},
		Secret(value), Raw(`{"k":"` + value + `"}`), answer, *answer, &Version{Data: Raw(value)}, Config{Token: value}, &Config{Token: value},
		Request{Token: value}, &InitAnswer{Keys: []Secret{value}, RootToken: value}, map[string]Secret{"k": value}, []Raw{Raw(value)}, &TokenInfo{ID: value},
	} {
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v, slog.Group("g", "v", v))
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, "in", struct{ V any }{v})
		marshalled, _ := json.Marshal(v)
		for _, text := range []string{
			log.String(), fmt.Sprint(v), fmt.Sprintf("%v %+v %#v %s %q %x %X %d", v, v, v, v, v, v, v, v), fmt.Sprintf("%v %+v", []any{v}, struct{ V any }{v}),
			string(marshalled), fmt.Errorf("%v", v).Error(),
		} {
			for _, form := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), "104 117 110 116"} {
				if strings.Contains(text, form) {
					t.Errorf("%T is printed in %s", v, text)
				}
			}
		}
	}
}

func TestBodiesCarryTheValues(t *testing.T) {
	type inner struct {
		Password Secret `json:"password"`
		Raw      Raw    `json:"raw"`
		Empty    Raw    `json:"empty"`
		Bytes    []byte `json:"bytes"`
		none     Secret
	}
	text, err := marshal(map[string]any{
		"s": Secret(`a"b`), "list": []Secret{"x"}, "in": &inner{"p", Raw(`{"n":1}`), nil, []byte{1, 2}, "q"}, "n": json.Number("12345678901234567890"), "z": nil,
		"own": json.RawMessage(`[1]`),
	})
	const want = `{"in":{"password":"p","raw":{"n":1},"empty":null,"bytes":"AQI="},"list":["x"],"n":12345678901234567890,"own":[1],"s":"a\"b","z":null}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	for _, body := range []any{[]byte(want), Raw(want), json.RawMessage(want)} {
		if text, err := marshal(body); err != nil || string(text) != want {
			t.Errorf("%T: %s, %v", body, text, err)
		}
	}
	if text, err := marshal(nil); err != nil || text != nil {
		t.Errorf("nothing: %s, %v", text, err)
	}
	if _, err := marshal(map[string]any{"k": Secret("hunter2"), "c": make(chan int), "r": Raw("hunter2")}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("what is no JSON: %v", err)
	}
}

func TestDecodeKeepsNumbersAndHidesValues(t *testing.T) {
	var all map[string]any
	if err := (Raw(`{"n":12345678901234567890,"t":"x"}`)).Decode(&all); err != nil || all["n"] != json.Number("12345678901234567890") {
		t.Errorf("%v, %v", all, err)
	}
	text, err := marshal(all)
	if err != nil || string(text) != `{"n":12345678901234567890,"t":"x"}` {
		t.Errorf("back again: %s, %v", text, err)
	}
	var numbers struct {
		In struct {
			N int `json:"n"`
		} `json:"in"`
	}
	for _, in := range []string{`{"in":{"n":"hunter2"}}`, `{"in":{"n":77123.5}}`, `{"in":{"n":7712399999999999999999}}`, `"hunter2"`, `{"in":hunter2}`} {
		err := Raw(in).Decode(&numbers)
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "77123") {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, in := range []Raw{nil, Raw("null")} {
		if err := in.Decode(&all); err == nil {
			t.Errorf("%q: no error", []byte(in))
		}
	}
}
