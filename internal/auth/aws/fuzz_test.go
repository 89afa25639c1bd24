package aws

import (
	"net/http"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/auth/aws/awstest"
	"github.com/cofferhq/coffer/internal/wire"
)

func FuzzARN(f *testing.F) {
	for _, seed := range []string{
		"arn:aws:iam::123456789012:user/a/b/bob", "arn:aws:sts::123456789012:assumed-role/deploy/i-1", "arn:aws-cn:iam::123456789012:role/x", "arn:aws:iam::123456789012:role/*", "arn:aws:iam::123456789012:root", "arn:::::", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_ = bound(text).check()
		p, err := parseARN(text)
		if err != nil {
			return
		}
		if p.Name == "" || len(p.Account) != 12 || strings.ContainsAny(p.canonical(), "* \n") {
			t.Errorf("%q is taken for %+v", text, p)
		}
		if p.Kind != "assumed-role" && p.full() != text {
			t.Errorf("%q is %q", text, p.full())
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(awstest.CallerXML("arn:aws:iam::123456789012:user/bob", "AIDABOB", "123456789012")))
	f.Add([]byte(`<GetRoleResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetRoleResult><Role><Arn>arn:aws:iam::123456789012:role/x</Arn><RoleId>AROAX</RoleId></Role></GetRoleResult></GetRoleResponse>`))
	f.Add([]byte(`<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if strings.ContainsAny(reason(body), "\r\n<> ") && !strings.HasPrefix(reason(body), ": ") {
			t.Errorf("%q is shown", reason(body))
		}
		if who, err := parseCaller(body); err == nil && (who.ARN == "" && who.uniqueID() == "" || len(who.Account) != 12) {
			t.Errorf("%q is taken for %+v", body, who)
		}
		if e, err := parseEntity(body); err == nil && (e.id == "" || e.Path == "") {
			t.Errorf("%q is taken for %+v", body, e)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add("POST", "https://sts.amazonaws.com/", awstest.Body, `{"Authorization":"AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/sts/aws4_request, SignedHeaders=host;x-amz-date, Signature=`+strings.Repeat("0", 64)+`","X-Amz-Date":["20260101T000000Z"]}`)
	f.Add("GET", "https://sts.amazonaws.com/?"+awstest.Body+"&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A/20260101/us-east-1/sts/aws4_request&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=0", "", `{"Host":"sts.amazonaws.com"}`)
	f.Fuzz(func(t *testing.T, method, url, body, said string) {
		var h headers
		if h.UnmarshalJSON([]byte(said)) != nil {
			return
		}
		s, err := parseSigned(Login{Method: method, URL: wire.Secret(b64(url)), Body: wire.Secret(b64(body)), Headers: h})
		if err != nil || s.checkHost("https://sts.amazonaws.com") != nil {
			return
		}
		header, err := s.forwarded(nil)
		if err != nil {
			return
		}
		// What is left can be sent, and asks for nothing else.
		r, err := http.NewRequest(s.method, "https://sts.amazonaws.com/?"+s.url.RawQuery, strings.NewReader(s.body))
		if err != nil {
			t.Fatalf("%q cannot be sent: %v", url, err)
		}
		if r.Header = header; r.Header.Get("X-Amz-Target") != "" || r.Header.Get("Accept") != "" || s.url.Query().Get("Action")+s.body == "" {
			t.Errorf("%q %q %v", url, s.body, header)
		}
		if a := s.url.Query()["Action"]; len(a) > 1 || len(a) == 1 && a[0] != action {
			t.Errorf("%q asks for %q", url, a)
		}
	})
}
