package aws

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/auth/aws/awstest"
	"github.com/cofferhq/coffer/internal/fault"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// changed is a login with its headers changed after they were signed; an empty
// value removes one.
func (s *server) changed(x awstest.Signed, header map[string]string) fields {
	f := s.aws.Login(x)
	said, err := base64.StdEncoding.DecodeString(f["iam_request_headers"].(string))
	if err != nil {
		panic(err)
	}
	all := map[string][]string{}
	if err := json.Unmarshal(said, &all); err != nil {
		panic(err)
	}
	for name, value := range header {
		all[name] = []string{value}
		if value == "" {
			delete(all, name)
		}
	}
	out, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	f["iam_request_headers"] = string(out)
	f["role"] = "deploy"
	return f
}

func TestTampering(t *testing.T) {
	s := newServer(t)
	by := s.deployer()
	good := awstest.Signed{By: by}
	authorization := s.aws.Sign(good).Header.Get("Authorization")
	with := func(more fields) fields {
		f := s.aws.Login(good)
		f["role"] = "deploy"
		maps.Copy(f, more)
		return f
	}
	before := s.aws.Asked()
	for name, c := range map[string]struct {
		f    fields
		want string
	}{
		"no method":          {with(fields{"iam_http_request_method": ""}), "missing iam_http_request_method"},
		"another method":     {with(fields{"iam_http_request_method": "DELETE"}), "invalid iam_http_request_method"},
		"no URL":             {with(fields{"iam_request_url": ""}), "missing iam_request_url"},
		"no base64":          {with(fields{"iam_request_url": "%"}), "failed to base64 decode iam_request_url"},
		"no body":            {with(fields{"iam_request_body": ""}), "missing iam_request_body"},
		"no headers":         {with(fields{"iam_request_headers": ""}), "missing iam_request_headers"},
		"elsewhere":          {with(fields{"iam_request_url": b64("https://evil.example/")}), "is not of STS"},
		"a host like STS":    {with(fields{"iam_request_url": b64("https://sts.amazonaws.com.evil.example/")}), "is not of STS"},
		"a user in the URL":  {with(fields{"iam_request_url": b64("https://sts.amazonaws.com@evil.example/")}), "error parsing iam_request_url"},
		"a path":             {with(fields{"iam_request_url": b64(s.aws.URL + "/x")}), "no such path"},
		"a dotted path":      {with(fields{"iam_request_url": b64(s.aws.URL + "/%2e%2e/")}), "no such path"},
		"a query":            {with(fields{"iam_request_url": b64(s.aws.URL + "/?Action=x")}), "unexpected action in POST url"},
		"no URL at all":      {with(fields{"iam_request_url": b64("sts.amazonaws.com")}), "error parsing iam_request_url"},
		"another action":     {with(fields{"iam_request_body": b64("Action=GetSessionToken&Version=2011-06-15")}), "iam_request_body is not"},
		"two actions":        {with(fields{"iam_request_body": b64(awstest.Body + "&Action=AssumeRole")}), "iam_request_body is not"},
		"a parameter more":   {with(fields{"iam_request_body": b64(awstest.Body + "&x=y")}), "iam_request_body is not"},
		"a line break":       {with(fields{"iam_request_body": b64(awstest.Body + "\n")}), "iam_request_body is not"},
		"a long URL":         {with(fields{"iam_request_url": strings.Repeat("A", 2*maxURL+1)}), "longer than"},
		"a header twice":     {with(fields{"iam_request_headers": `{"X-A":"1","x-a":"2"}`}), "header X-A twice"},
		"the same twice":     {with(fields{"iam_request_headers": `{"X-A":"1","X-A":"2"}`}), "each name once"},
		"two values":         {with(fields{"iam_request_headers": `{"X-A":["1","2"]}`}), "each name once"},
		"an object":          {with(fields{"iam_request_headers": `{"X-A":{}}`}), "each name once"},
		"a line break in it": {with(fields{"iam_request_headers": `{"X-A":"1\r\nHost: x"}`}), "not of ASCII"},
		"a bad name":         {with(fields{"iam_request_headers": `{"X A":"1"}`}), "name that no header has"},
		"a long header":      {with(fields{"iam_request_headers": `{"X-A":"` + strings.Repeat("x", maxValue+1) + `"}`}), "longer than"},
		"long headers":       {with(fields{"iam_request_headers": `{"X-A":"` + strings.Repeat("x", maxSaid) + `"}`}), "longer than"},
		"a list":             {with(fields{"iam_request_headers": `[]`}), "must be an object"},
		"no signature":       {s.changed(good, map[string]string{"Authorization": ""}), "must be signed once"},
		"another scheme":     {s.changed(good, map[string]string{"Authorization": "Bearer x"}), "AWS4-HMAC-SHA256"},
		"another service":    {s.changed(good, map[string]string{"Authorization": strings.Replace(authorization, "/sts/", "/iam/", 1)}), "not signed for sts"},
		"no host":            {s.changed(good, map[string]string{"Authorization": strings.Replace(authorization, "host;", "", 1)}), "host is not signed"},
		"another region":     {s.changed(awstest.Signed{By: by, Region: "eu-west-1"}, nil), `sts_region is "us-east-1"`},
		"another host":       {s.changed(good, map[string]string{"Host": "sts.amazonaws.com"}), "not the host of iam_request_url"},
		"a target":           {s.changed(good, map[string]string{"X-Amz-Target": "x"}), "invalid request header: X-Amz-Target"},
		"a signed stranger":  {s.changed(awstest.Signed{By: by, Headers: map[string]string{"X-K8s-Aws-Id": "cluster"}}, nil), "invalid request header: X-K8s-Aws-Id"},
		"JSON is asked for":  {s.changed(awstest.Signed{By: by, Headers: map[string]string{"Accept": "application/json"}}, nil), "invalid request header: Accept"},
		"a header is gone":   {s.changed(awstest.Signed{By: by, Headers: map[string]string{"X-Amz-User-Agent": "x"}}, map[string]string{"X-Amz-User-Agent": ""}), "is signed and missing"},
		"EC2":                {fields{"role": "deploy", "pkcs7": "x"}, "EC2 instances do not log in"},
		"nothing":            {fields{"role": "deploy"}, "missing iam_http_request_method"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			_, err := s.post(c.f)
			s.isRefused(fault.Invalid, err, c.want)
		})
	}
	s.t = t
	if n := s.aws.Asked() - before; n != 0 {
		t.Errorf("AWS was asked %d times", n)
	}
	// What is not seen here, AWS sees.
	for name, c := range map[string]struct {
		f    fields
		want string
	}{
		"a changed header":   {s.changed(good, map[string]string{"X-Amz-Date": time.Now().Add(time.Minute).UTC().Format("20060102T150405Z")}), "SignatureDoesNotMatch"},
		"another's session":  {s.changed(good, map[string]string{"X-Amz-Security-Token": "x"}), "InvalidClientTokenId"},
		"an old request":     {s.changed(awstest.Signed{By: by, At: time.Now().Add(-16 * time.Minute)}, nil), "SignatureDoesNotMatch"},
		"an unknown key":     {s.changed(awstest.Signed{By: awstest.Identity{AccessKey: "AKIANOBODY", SecretKey: "x"}}, nil), "InvalidClientTokenId"},
		"a guessed key":      {s.changed(awstest.Signed{By: awstest.Identity{AccessKey: by.AccessKey, SecretKey: "x", Session: by.Session}}, nil), "SignatureDoesNotMatch"},
		"signed for another": {with(fields{"iam_request_url": b64("https://sts.amazonaws.com/")}), "SignatureDoesNotMatch"},
		"an old presigned":   {s.changed(awstest.Signed{By: by, Method: "GET", Presign: 60, At: time.Now().Add(-2 * time.Minute)}, nil), "SignatureDoesNotMatch"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			_, err := s.post(c.f)
			s.isRefused(fault.Invalid, err, "received error code 403 from STS: "+c.want)
		})
	}
	s.t = t
	// An unsigned header is of no interest, and is not sent on.
	if _, err := s.post(s.changed(good, map[string]string{"Accept": "application/json", "Cookie": "x"})); err != nil {
		t.Error(err)
	}
	s.settings(fields{"allowed_sts_header_values": "x-k8s-aws-id"})
	s.accepted(awstest.Signed{By: by, Headers: map[string]string{"X-K8s-Aws-Id": "cluster"}})
}

func TestGetURL(t *testing.T) {
	s := newServer(t)
	by := s.deployer()
	for want, query := range map[string]string{
		"unexpected action":           "Action=AssumeRole&Version=2011-06-15",
		"more than once":              awstest.Body + "&Action=GetCallerIdentity",
		"no action found":             "Version=2011-06-15",
		"invalid request query param": awstest.Body + "&X-Amz-Target=x",
		"error parsing":               awstest.Body + "&a;b",
	} {
		f := s.changed(awstest.Signed{By: by, Method: "GET"}, nil)
		f["iam_request_url"] = b64(s.aws.URL + "/?" + query)
		_, err := s.post(f)
		s.isRefused(fault.Invalid, err, want)
	}
	f := s.changed(awstest.Signed{By: by, Method: "GET"}, nil)
	f["iam_request_body"] = b64(awstest.Body)
	_, err := s.post(f)
	s.isRefused(fault.Invalid, err, "a GET has none")
}

// A request that was signed for another server is of no use here.
func TestServerID(t *testing.T) {
	s := newServer(t)
	by := s.deployer()
	const id = "coffer.example.com"
	s.settings(fields{"iam_server_id_header_value": id})
	s.refused(fault.Invalid, awstest.Signed{By: by}, `missing header "X-Vault-AWS-IAM-Server-ID"`)
	s.refused(fault.Invalid, awstest.Signed{By: by, Headers: map[string]string{serverHeader: "other.example.com"}}, "expected")
	_, err := s.post(s.changed(awstest.Signed{By: by}, map[string]string{serverHeader: id}))
	s.isRefused(fault.Invalid, err, "header wasn't signed")
	_, err = s.post(s.changed(awstest.Signed{By: by, Headers: map[string]string{serverHeader: "other.example.com"}}, map[string]string{serverHeader: id}))
	s.isRefused(fault.Invalid, err, "SignatureDoesNotMatch")
	s.accepted(awstest.Signed{By: by, Headers: map[string]string{serverHeader: id}})
	s.settings(fields{"iam_server_id_header_value": ""})
	s.accepted(awstest.Signed{By: by, Headers: map[string]string{serverHeader: "any"}})
}

// An STS that is away or answers nonsense lets nobody in, and denies nobody.
func TestSTSAway(t *testing.T) {
	s := newServer(t)
	by := s.deployer()
	say := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		}
	}
	good := awstest.CallerXML(by.ARN, by.UserID, by.Account)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   fault.Kind
		want   string
	}{
		"500": {say(500, ""), fault.Unavailable, "it answers 500"},
		"429": {say(429, ""), fault.Unavailable, "it answers 429"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
		}, fault.Invalid, "error code 307"},
		"a secret":          {say(403, "<ErrorResponse><Error><Code>a secret: x</Code></Error></ErrorResponse>"), fault.Invalid, "error code 403 from STS"},
		"a bomb":            {say(200, strings.Repeat(" ", maxAnswer+1)), fault.Unavailable, "longer than"},
		"entities":          {say(200, `<!DOCTYPE x [<!ENTITY a "aaaa">]><GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">&a;</GetCallerIdentityResponse>`), fault.Unavailable, "not the XML"},
		"deep":              {say(200, strings.Repeat("<a>", 9000)), fault.Unavailable, "not the XML"},
		"JSON":              {say(200, `{"GetCallerIdentityResponse":{}}`), fault.Unavailable, "not the XML"},
		"another namespace": {say(200, strings.Replace(good, "sts.amazonaws.com", "x.example", 1)), fault.Unavailable, "not the XML"},
		"another action":    {say(200, strings.ReplaceAll(good, "GetCallerIdentityResponse", "AssumeRoleResponse")), fault.Unavailable, "not the XML"},
		"two results":       {say(200, strings.Replace(good, "<ResponseMetadata>", "<GetCallerIdentityResult><Arn>x</Arn></GetCallerIdentityResult><ResponseMetadata>", 1)), fault.Unavailable, "one result"},
		"two names":         {say(200, strings.Replace(good, "<Arn>", "<Arn>x</Arn><Arn>", 1)), fault.Unavailable, "one result"},
		"something after":   {say(200, good+good), fault.Unavailable, "after its end"},
		"nobody":            {say(200, awstest.CallerXML(by.ARN, "", by.Account)), fault.Unavailable, "names nobody"},
		"two accounts":      {say(200, awstest.CallerXML(by.ARN, by.UserID, "999999999999")), fault.Unavailable, "two accounts"},
		"nothing":           {say(200, ""), fault.Unavailable, "not the XML"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.aws.Answer(c.answer)
			s.refused(c.kind, awstest.Signed{By: by}, c.want)
		})
	}
	s.t = t
	n := 0
	s.settings(fields{"max_retries": 2})
	s.aws.Answer(func(w http.ResponseWriter, r *http.Request) {
		if n++; n < 3 {
			w.WriteHeader(503)
			return
		}
		_, _ = w.Write([]byte(good))
	})
	s.accepted(awstest.Signed{By: by})
	s.settings(fields{"max_retries": 0})
	s.aws.Stop()
	s.refused(fault.Unavailable, awstest.Signed{By: by}, "AWS's STS cannot be asked")
}
