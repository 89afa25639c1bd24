package aws

import (
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/aws/awstest"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type server struct {
	*enginetest.Engine
	t   testing.TB
	aws *awstest.Server
}

type fields = map[string]any

func text(f fields) string {
	out, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// The account, and callers of it.
const account = "123456789012"

func (s *server) deployer() awstest.Identity {
	return s.aws.Role(account, "deploy", "AROADEPLOY0000000001")
}

// newServer asks an AWS of the test's, and has a role for the role deploy.
func newServer(t testing.TB) *server {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() { _ = e.Close() })
	s := &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Storage: e, Mount: engine.Mount{Path: "auth/aws/"}}), t, awstest.New(t)}
	s.settings(fields{"sts_endpoint": s.aws.URL, "iam_endpoint": s.aws.URL, "endpoint_ca_pem": s.aws.CA, "sts_region": "us-east-1", "max_retries": 0})
	s.role(fields{"bound_iam_principal_arn": "arn:aws:iam::" + account + ":role/deploy"})
	return s
}

func (s *server) method() *Method { return s.State.(*Method) }

func (s *server) settings(f fields) {
	s.t.Helper()
	s.Must(s.t, 204, "POST", "config/client", text(f))
}

// admin lets the server ask IAM.
func (s *server) admin() {
	s.t.Helper()
	who := s.aws.User(account, "/", "coffer", "AIDACOFFER0000000001")
	who.Admin = true
	s.aws.Add(who)
	s.settings(fields{"access_key": who.AccessKey, "secret_key": who.SecretKey})
}

func (s *server) role(f fields) {
	s.t.Helper()
	all := fields{"auth_type": "iam", "token_policies": "deploy", "token_ttl": "10m"}
	maps.Copy(all, f)
	s.Must(s.t, 204, "POST", "role/deploy", text(all))
}

func (s *server) post(f fields) (auth.Login, error) {
	a := s.As(route.Caller{}, "POST", "login", text(f))
	out, _ := a.Output.(auth.Login)
	return out, a.Err
}

func (s *server) login(x awstest.Signed) (auth.Login, error) {
	f := s.aws.Login(x)
	f["role"] = "Deploy"
	return s.post(f)
}

func (s *server) accepted(x awstest.Signed) auth.Login {
	s.t.Helper()
	out, err := s.login(x)
	if err != nil {
		s.t.Error(err)
	}
	return out
}

func (s *server) refused(kind fault.Kind, x awstest.Signed, want string) {
	s.t.Helper()
	_, err := s.login(x)
	s.isRefused(kind, err, want)
}

func (s *server) isRefused(kind fault.Kind, err error, want string) {
	s.t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(fault.From(err).Message, want) {
		s.t.Errorf("%v, want %q", err, want)
	}
	if err != nil && regexp.MustCompile("Signature=[0-9a-f]").MatchString(err.Error()) {
		s.t.Error("the error holds the signature")
	}
}

func TestLogin(t *testing.T) {
	s := newServer(t)
	by := s.deployer()
	got := s.accepted(awstest.Signed{By: by})
	o := s.Must(t, 200, "GET", "role/deploy", "").Output.(role)
	if got.Alias != o.ID || o.ID == "" || got.DisplayName != "aws-deploy" || got.TTL.Duration() != 10*time.Minute ||
		!maps.Equal(got.Metadata, map[string]string{"account_id": account, "auth_type": "iam"}) {
		t.Errorf("%+v", got)
	}
	for alias, want := range map[string]string{byUniqueID: "AROADEPLOY0000000001", byARN: "arn:aws:iam::" + account + ":role/deploy", byRoleID: o.ID} {
		s.Must(t, 204, "POST", "config/identity", text(fields{"iam_alias": alias, "iam_metadata": "default,client_arn,client_user_id,canonical_arn"}))
		got := s.accepted(awstest.Signed{By: by})
		if got.Alias != want || got.Metadata["client_arn"] != by.ARN || got.Metadata["client_user_id"] != "AROADEPLOY0000000001" || got.Metadata["canonical_arn"] != "arn:aws:iam::"+account+":role/deploy" {
			t.Errorf("%+v", got)
		}
	}
	// A login that names no role has one by the principal's name.
	if _, err := s.post(s.aws.Login(awstest.Signed{By: by})); err != nil {
		t.Error(err)
	}
	f := s.aws.Login(awstest.Signed{By: by})
	f["role"] = "other"
	before := s.aws.Asked()
	_, err := s.post(f)
	s.isRefused(fault.Invalid, err, `entry for role "other" not found`)
	if s.aws.Asked() != before {
		t.Error("AWS was asked for a role that is not there")
	}
	// By other forms of the same.
	s.accepted(awstest.Signed{By: by, Method: "GET"})
	s.accepted(awstest.Signed{By: by, Method: "GET", Presign: 60})
	s.refused(fault.Invalid, awstest.Signed{By: by, Method: "GET", Presign: maxPresigned + 1}, "X-Amz-Expires must be")
	s.accepted(awstest.Signed{By: by, Endpoint: "https://sts.us-east-1.amazonaws.com/"}) // which the SDKs sign for
	s.accepted(awstest.Signed{By: by, Body: bodies[1]})
	renewed, err := s.method().Renew(t.Context(), route.Caller{}, got)
	if err != nil || renewed.TTL.Duration() != 10*time.Minute {
		t.Errorf("%+v %v", renewed, err)
	}
	s.role(fields{"bound_iam_principal_arn": "arn:aws:iam::" + account + ":role/other"})
	if _, err := s.method().Renew(t.Context(), route.Caller{}, got); !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
	s.refused(fault.Denied, awstest.Signed{By: by}, "does not belong to the role")
	s.Must(t, 204, "DELETE", "role/deploy", "")
	if _, err := s.method().Renew(t.Context(), route.Caller{}, got); !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
}

func TestPrincipals(t *testing.T) {
	s := newServer(t)
	const in = "arn:aws:iam::" + account + ":"
	bob := s.aws.User(account, "/people/", "bob", "AIDABOB0000000000001")
	deployer := s.deployer()
	stranger := s.aws.Role("999999999999", "deploy", "AROASTRANGER00000001")
	for name, c := range map[string]struct {
		bound string
		by    awstest.Identity
		want  bool
	}{
		"a user":                      {in + "user/bob", bob, true},
		"a user by path":              {in + "user/people/bob", bob, true},
		"a user by another path":      {in + "user/x/bob", bob, false},
		"users of a path":             {in + "user/people/*", bob, true},
		"users of another path":       {in + "user/x/*", bob, false},
		"users by a path they lack":   {in + "user/b*", bob, false},
		"all of the account":          {in + "*", bob, true},
		"all roles":                   {in + "role/*", deployer, true},
		"all roles, and a user":       {in + "role/*", bob, false},
		"all of the account, a role":  {in + "*", deployer, true},
		"another account":             {in + "*", stranger, false},
		"another account's role":      {in + "role/deploy", stranger, false},
		"a role of several":           {in + "role/x," + in + "role/deploy", deployer, true},
		"a role is no user":           {in + "user/deploy", deployer, false},
		"another partition":           {"arn:aws-cn:iam::" + account + ":role/deploy", deployer, false},
		"a name's case counts":        {in + "role/Deploy", deployer, false},
		"the beginning is not enough": {in + "role/deplo", deployer, false},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.role(fields{"bound_iam_principal_arn": c.bound})
			if c.want {
				s.accepted(awstest.Signed{By: c.by})
			} else {
				s.refused(fault.Denied, awstest.Signed{By: c.by}, "does not belong to the role")
			}
		})
	}
	s.t = t
	s.role(fields{"bound_iam_principal_arn": "", "bound_account_id": account})
	s.accepted(awstest.Signed{By: bob})
	s.refused(fault.Denied, awstest.Signed{By: stranger}, "account 999999999999")
	s.role(fields{"bound_iam_principal_arn": in + "role/deploy", "bound_account_id": "999999999999"})
	s.refused(fault.Denied, awstest.Signed{By: deployer}, "does not belong")
	for name, arn := range map[string]string{
		"root": "arn:aws:iam::" + account + ":root", "federated": "arn:aws:sts::" + account + ":federated-user/bob", "an instance": "arn:aws:iam::" + account + ":instance-profile/x",
	} {
		by := s.aws.Add(awstest.Identity{AccessKey: "AKIAX" + name[:2], SecretKey: "x", ARN: arn, UserID: "AIDAX", Account: account})
		s.refused(fault.Invalid, awstest.Signed{By: by}, "unrecognized principal type")
	}
}

// With a key for IAM, paths and unique ids count.
func TestIAM(t *testing.T) {
	s := newServer(t)
	const in = "arn:aws:iam::" + account + ":"
	by := s.deployer()
	for _, needs := range []string{in + "role/team/deploy", in + "role/dep*", in + "role/team/*"} {
		if a := s.Do("POST", "role/deploy", text(fields{"bound_iam_principal_arn": needs})); a.Status != 400 || !strings.Contains(a.Err.Error(), "which only IAM tells") {
			t.Errorf("%s: %v", needs, a.Err)
		}
	}
	if a := s.Do("POST", "role/deploy", `{"resolve_aws_unique_ids":true}`); a.Status != 400 || !strings.Contains(a.Err.Error(), "access_key") {
		t.Error(a.Err)
	}
	s.admin()
	s.aws.Know("role/deploy", awstest.Entity{ARN: in + "role/team/deploy", ID: "AROADEPLOY0000000001"})
	for pattern, want := range map[string]bool{in + "role/team/*": true, in + "role/team/deploy": true, in + "role/dep*": false, in + "role/x/*": false} {
		s.role(fields{"bound_iam_principal_arn": pattern})
		_, err := s.login(awstest.Signed{By: by})
		if (err == nil) != want {
			t.Errorf("%s: %v", pattern, err)
		}
	}
	s.Must(t, 204, "POST", "config/identity", `{"iam_alias":"full_arn"}`)
	s.role(fields{"bound_iam_principal_arn": in + "role/team/*"})
	if got := s.accepted(awstest.Signed{By: by}); got.Alias != in+"role/team/deploy" {
		t.Errorf("%+v", got)
	}
	// Another of the name is another.
	s.role(fields{"bound_iam_principal_arn": in + "role/deploy", "resolve_aws_unique_ids": true})
	s.accepted(awstest.Signed{By: by})
	again := s.aws.Role(account, "deploy", "AROADEPLOY0000000002")
	s.refused(fault.Denied, awstest.Signed{By: again}, "does not belong to the role")
	s.role(fields{"bound_iam_principal_arn": in + "role/team/*", "resolve_aws_unique_ids": false})
	s.refused(fault.Denied, awstest.Signed{By: again}, "another of its name")
	for want, bad := range map[string]fields{
		"IAM knows no role nobody":    {"bound_iam_principal_arn": in + "role/nobody", "resolve_aws_unique_ids": true},
		"as that of another account":  {"bound_iam_principal_arn": "arn:aws:iam::999999999999:role/deploy", "resolve_aws_unique_ids": true},
		"IAM knows arn:aws:iam::1234": {"bound_iam_principal_arn": in + "role/x/deploy", "resolve_aws_unique_ids": true},
	} {
		if a := s.Do("POST", "role/deploy", text(bad)); a.Status != 400 || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%v: %v, want %q", bad, a.Err, want)
		}
	}
	s.settings(fields{"secret_key": "wrong"})
	s.refused(fault.Unavailable, awstest.Signed{By: by}, "may the access_key of config/client call iam:GetRole?")
	s.settings(fields{"access_key": "", "secret_key": ""})
	s.refused(fault.Unavailable, awstest.Signed{By: by}, "no access_key any more")
}

func TestSettings(t *testing.T) {
	s := newServer(t)
	s.settings(fields{"access_key": "AKIAX", "secret_key": "the-secret", "iam_server_id_header_value": "coffer.example.com", "allowed_sts_header_values": "x-custom"})
	a := s.Must(t, 200, "GET", "config/client", "")
	if strings.Contains(a.Data, "the-secret") || !strings.Contains(a.Data, `"allowed_sts_header_values":["X-Custom"]`) || !strings.Contains(a.Data, `"max_retries":0`) || !strings.Contains(a.Data, `"sts_region":"us-east-1"`) {
		t.Error(a.Data)
	}
	for want, bad := range map[string]fields{
		"must begin with https":           {"sts_endpoint": "http://sts.example.com"},
		"it has a path or a query":        {"sts_endpoint": "https://sts.example.com/x"},
		"sts_region: it is that of":       {"sts_endpoint": ""},
		"it is no region":                 {"sts_region": "evil.example/"},
		"sts_endpoint says already":       {"use_sts_region_from_client": true},
		"access_key and secret_key must":  {"secret_key": ""},
		"between -1 and 5":                {"max_retries": 6},
		"entry 1 is no name of a header":  {"allowed_sts_header_values": "a b"},
		"endpoint_ca_pem: it holds":       {"endpoint_ca_pem": "x"},
		"EC2 is never asked":              {"endpoint": "https://ec2.example.com"},
		"no role is assumed":              {"role_arn": "arn:aws:iam::123456789012:role/x"},
		"no space around":                 {"iam_server_id_header_value": " x"},
		"have at most 200":                {"secret_key": strings.Repeat("x", 201)},
		"allowed_sts_header_values has a": {"allowed_sts_header_values": strings.Repeat("a,", maxHeaders) + "b"},
	} {
		if a := s.Do("POST", "config/client", text(bad)); a.Status != 400 || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%v: %v, want %q", bad, a.Err, want)
		}
	}
	if again := s.Must(t, 200, "GET", "config/client", ""); again.Data != a.Data {
		t.Error("a refused write changed something")
	}
	s.Must(t, 204, "DELETE", "config/client", "")
	s.Must(t, 404, "GET", "config/client", "")
	for want, bad := range map[string]string{
		"not in set of allowed values": `{"iam_alias":"x"}`, "is not an available field": `{"iam_metadata":"x"}`, "EC2 instances": `{"ec2_alias":"instance_id"}`,
	} {
		if a := s.Do("POST", "config/identity", bad); a.Status != 400 || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%v: %v, want %q", bad, a.Err, want)
		}
	}
	for want, bad := range map[string]fields{
		"at least be one bound parameter": {"bound_iam_principal_arn": ""},
		"is no ARN":                       {"bound_iam_principal_arn": "arn:aws:iam::*:role/x"},
		"unrecognized arn":                {"bound_iam_principal_arn": "arn:aws:iam::123456789012:role/" + strings.Repeat("x", 129)},
		"more than 8 stars":               {"bound_iam_principal_arn": "arn:aws:iam::123456789012:role/" + strings.Repeat("*a", 9)},
		"which has 12 digits":             {"bound_account_id": "x"},
		"bound_ami_id: EC2 instances":     {"bound_ami_id": "ami-1"},
		"auth_type: it is iam":            {"auth_type": "ec2"},
		"inferred_entity_type and":        {"inferred_entity_type": "ec2_instance"},
		"at most 200 entries":             {"bound_account_id": strings.Repeat("123456789012,", maxBound) + "123456789012"},
	} {
		if a := s.Do("POST", "role/deploy", text(bad)); a.Status != 400 || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%v: %v, want %q", bad, a.Err, want)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		s            settings
		region, want string
		ok           bool
	}{
		"usual":             {settings{}, "us-east-1", "https://sts.amazonaws.com", true},
		"usual, elsewhere":  {settings{}, "eu-west-1", "https://sts.amazonaws.com", true},
		"the caller's":      {settings{FromClient: true}, "eu-west-1", "https://sts.eu-west-1.amazonaws.com", true},
		"in China":          {settings{FromClient: true}, "cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn", true},
		"for government":    {settings{FromClient: true}, "us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com", true},
		"no region":         {settings{FromClient: true}, "evil", "", false},
		"set":               {settings{STSEndpoint: "https://x/", STSRegion: "eu-west-1"}, "eu-west-1", "https://x", true},
		"set, not this one": {settings{STSEndpoint: "https://x/", STSRegion: "eu-west-1"}, "us-east-1", "", false},
		"set, any":          {settings{STSEndpoint: "https://x"}, "us-east-1", "https://x", true},
	} {
		if got, err := c.s.endpoint(c.region); got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

func TestExamples(t *testing.T) {
	for _, spec := range Kind.Spec().Routes {
		for _, f := range spec.Fields() {
			if f.Doc == "" {
				t.Errorf("%s %s: the field %s has no doc", spec.Method, spec.Pattern, f.Name)
			}
		}
		s := newServer(t)
		request := spec.Example.Request
		if strings.Contains(request, "iam_request_headers") {
			f := s.aws.Login(awstest.Signed{By: s.deployer()})
			f["role"] = "deploy"
			request = text(f)
		}
		a := s.Do(spec.Method, spec.Example.Path, request)
		if a.Err != nil || a.Spec.Pattern != spec.Pattern || len(a.Warnings) > 0 || spec.Example.Response != "" && spec.Example.Response != a.Data {
			t.Errorf("%s %s: %v, %v %s", spec.Method, spec.Example.Path, a.Err, a.Warnings, a.Data)
		}
	}
}
