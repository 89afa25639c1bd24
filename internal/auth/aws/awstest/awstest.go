// Package awstest runs, for tests, as much of AWS's STS and IAM as the auth method
// asks, over real TLS. It knows users and roles by their keys, and believes a
// request only when AWS's own signer makes the same signature of it, within the
// time that AWS allows. It is no AWS.
package awstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Server is STS, and IAM at the same address.
type Server struct {
	URL string
	CA  string // PEM of the authority of its certificate

	server  *httptest.Server
	mu      sync.Mutex
	keys    map[string]Identity // by access key
	roles   map[string]Entity   // by name
	instead http.HandlerFunc
	asked   int
}

// Identity is who holds an access key.
type Identity struct {
	AccessKey, SecretKey, Session string
	ARN, UserID, Account          string
	Admin                         bool // may ask IAM
}

// Entity is a user or role that IAM knows, by its noun and name: "role/deploy".
type Entity struct{ ARN, ID string }

// New starts a server that knows nobody. It ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{keys: map[string]Identity{}, roles: map[string]Entity{}}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.URL = s.server.URL
	s.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}))
	return s
}

// Stop ends the server at once.
func (s *Server) Stop() {
	s.server.CloseClientConnections()
	s.server.Close()
}

// Answer makes fn answer instead, nil the server again.
func (s *Server) Answer(fn http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = fn
}

// Asked is how often the server was asked.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Add makes a key known.
func (s *Server) Add(i Identity) Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[i.AccessKey] = i
	return i
}

// Know tells IAM of a user or role; an empty Entity is forgotten.
func (s *Server) Know(noun string, e Entity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[noun] = e
	if e.ID == "" {
		delete(s.roles, noun)
	}
}

// Role is a key of an assumed role.
func (s *Server) Role(account, name, id string) Identity {
	return s.Add(Identity{
		AccessKey: "ASIA" + strings.ToUpper(hexOf(name + id)[:16]), SecretKey: "secret of " + name, Session: "session token of " + name,
		ARN: "arn:aws:sts::" + account + ":assumed-role/" + name + "/i-0123456789", UserID: id + ":i-0123456789", Account: account,
	})
}

// User is a key of a user with a path and a name.
func (s *Server) User(account, path, name, id string) Identity {
	return s.Add(Identity{
		AccessKey: "AKIA" + strings.ToUpper(hexOf(name + id)[:16]), SecretKey: "secret of " + name,
		ARN: "arn:aws:iam::" + account + ":user" + path + name, UserID: id, Account: account,
	})
}

func hexOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Body is what the request of a login says.
const Body = "Action=GetCallerIdentity&Version=2011-06-15"

// Signed is a request to sign; the zero value of each field is the usual.
type Signed struct {
	By       Identity
	Method   string // POST
	Endpoint string // the server's URL
	Body     string
	Headers  map[string]string // signed along
	Region   string            // us-east-1
	At       time.Time
	Presign  int // seconds, for GET
}

// Login signs a request, and returns the fields of a login with it.
func (s *Server) Login(x Signed) map[string]any {
	r := s.Sign(x)
	header := map[string][]string{}
	for name, values := range r.Header {
		header[name] = values
	}
	text, _ := json.Marshal(header)
	body := ""
	if x.Method == "" {
		body = x.Body
		if body == "" {
			body = Body
		}
	}
	b64 := base64.StdEncoding.EncodeToString
	return map[string]any{
		"iam_http_request_method": r.Method, "iam_request_url": b64([]byte(r.URL.String())),
		"iam_request_body": b64([]byte(body)), "iam_request_headers": b64(text),
	}
}

// Sign signs a request as AWS's SDKs do.
func (s *Server) Sign(x Signed) *http.Request {
	method, endpoint, body, region, at := "POST", s.URL+"/", Body, "us-east-1", time.Now()
	if x.Endpoint != "" {
		endpoint = x.Endpoint
	}
	if x.Body != "" {
		body = x.Body
	}
	if x.Method != "" {
		method, body = x.Method, ""
		endpoint += "?" + Body
		if x.Presign > 0 {
			endpoint += fmt.Sprintf("&X-Amz-Expires=%d", x.Presign)
		}
	}
	if x.Region != "" {
		region = x.Region
	}
	if !x.At.IsZero() {
		at = x.At
	}
	r, err := http.NewRequest(method, endpoint, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	for name, value := range x.Headers {
		r.Header.Set(name, value)
	}
	by := aws.Credentials{AccessKeyID: x.By.AccessKey, SecretAccessKey: x.By.SecretKey, SessionToken: x.By.Session}
	if x.Presign > 0 {
		signed, headers, err := v4.NewSigner().PresignHTTP(context.Background(), by, r, hexOf(body), "sts", region, at)
		if err != nil {
			panic(err)
		}
		r.URL, _ = url.Parse(signed)
		r.Header = headers
		return r
	}
	if err := v4.NewSigner().SignHTTP(context.Background(), by, r, hexOf(body), "sts", region, at); err != nil {
		panic(err)
	}
	return r
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/([0-9]{8})/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]+)$`)

// window is how far a signature's time may be from now.
const window = 5 * time.Minute

// authenticate says who signed a request, by making the signature again.
func (s *Server) authenticate(r *http.Request, body []byte) (Identity, string, error) {
	query := r.URL.Query()
	parts := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	presigned := query.Get("X-Amz-Signature") != ""
	date := r.Header.Get("X-Amz-Date")
	if presigned {
		scope := strings.Split(query.Get("X-Amz-Credential"), "/")
		date = query.Get("X-Amz-Date")
		if len(scope) == 5 {
			parts = []string{"", scope[0], scope[1], scope[2], scope[3], query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature")}
		}
	}
	if parts == nil {
		return Identity{}, "", fmt.Errorf("IncompleteSignature")
	}
	who, ok := s.keys[parts[1]]
	if !ok {
		return who, "", fmt.Errorf("InvalidClientTokenId")
	}
	if token := r.Header.Get("X-Amz-Security-Token") + query.Get("X-Amz-Security-Token"); token != who.Session {
		return who, "", fmt.Errorf("InvalidClientTokenId")
	}
	at, err := time.Parse("20060102T150405Z", date)
	life := window
	if n, _ := time.ParseDuration(query.Get("X-Amz-Expires") + "s"); n > 0 {
		life = n
	}
	if err != nil || time.Since(at) > life || time.Until(at) > window {
		return who, "", fmt.Errorf("SignatureDoesNotMatch")
	}
	again, err := http.NewRequest(r.Method, "https://"+r.Host+"/", bytes.NewReader(body))
	if err != nil {
		return who, "", err
	}
	for name := range strings.SplitSeq(parts[5], ";") {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	by := aws.Credentials{AccessKeyID: who.AccessKey, SecretAccessKey: who.SecretKey, SessionToken: who.Session}
	for _, name := range []string{"X-Amz-Signature", "X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Date", "X-Amz-Algorithm", "X-Amz-Security-Token"} {
		query.Del(name)
	}
	again.URL.RawQuery = query.Encode()
	made := ""
	if presigned {
		text, _, err := v4.NewSigner().PresignHTTP(context.Background(), by, again, hexOf(string(body)), parts[4], parts[3], at)
		if err != nil {
			return who, "", err
		}
		u, _ := url.Parse(text)
		made = u.Query().Get("X-Amz-Signature")
	} else {
		if err := v4.NewSigner().SignHTTP(context.Background(), by, again, hexOf(string(body)), parts[4], parts[3], at); err != nil {
			return who, "", err
		}
		if m := authorization.FindStringSubmatch(again.Header.Get("Authorization")); m != nil && m[5] == parts[5] {
			made = m[6]
		}
	}
	if made != parts[6] {
		return who, "", fmt.Errorf("SignatureDoesNotMatch")
	}
	return who, parts[4], nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	instead := s.instead
	s.mu.Unlock()
	if instead != nil {
		instead(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/xml")
	who, service, err := s.authenticate(r, body)
	if err != nil {
		refuse(w, http.StatusForbidden, err.Error())
		return
	}
	fields, _ := url.ParseQuery(string(body))
	if r.Method == http.MethodGet {
		fields = r.URL.Query()
	}
	switch {
	case service == "sts" && fields.Get("Action") == "GetCallerIdentity":
		fmt.Fprint(w, CallerXML(who.ARN, who.UserID, who.Account))
	case service == "iam" && !who.Admin:
		refuse(w, http.StatusForbidden, "AccessDenied")
	case service == "iam":
		s.iam(w, fields)
	default:
		refuse(w, http.StatusBadRequest, "InvalidAction")
	}
}

func (s *Server) iam(w http.ResponseWriter, fields url.Values) {
	what := strings.TrimPrefix(fields.Get("Action"), "Get")
	e, ok := s.roles[strings.ToLower(what)+"/"+fields.Get(what+"Name")]
	if !ok {
		refuse(w, http.StatusNotFound, "NoSuchEntity")
		return
	}
	fmt.Fprintf(w, `<Get%[1]sResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Get%[1]sResult><%[1]s><Arn>%[2]s</Arn><%[1]sId>%[3]s</%[1]sId></%[1]s></Get%[1]sResult></Get%[1]sResponse>`, what, e.ARN, e.ID)
}

// CallerXML is the answer of sts:GetCallerIdentity.
func CallerXML(arn, id, account string) string {
	return `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <GetCallerIdentityResult>
    <Arn>` + arn + `</Arn>
    <UserId>` + id + `</UserId>
    <Account>` + account + `</Account>
  </GetCallerIdentityResult>
  <ResponseMetadata><RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId></ResponseMetadata>
</GetCallerIdentityResponse>
`
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>no</Message></Error></ErrorResponse>`, code)
}
