package aws

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/cofferhq/coffer/internal/wire"
)

// Limits of what a caller hands over.
const (
	maxURL   = 8 << 10  // bytes
	maxValue = 8 << 10  // bytes of a header
	maxSaid  = 64 << 10 // bytes of all headers in JSON
	// maxPresigned is for how many seconds a request may be signed whose signature is
	// in its URL. One that is signed by a header is good for 15 minutes.
	maxPresigned = 900
)

// headers are those of the signed request: an object of names and values, as it is,
// in a string or in base64. It prints nothing of them: they are good for a login.
type headers map[string]wire.Secret

// UnmarshalJSON implements json.Unmarshaler.
func (h *headers) UnmarshalJSON(text []byte) error {
	var inside string
	if json.Unmarshal(text, &inside) == nil {
		text = []byte(inside)
		if plain, err := decode64(inside); err == nil {
			text = plain
		}
	}
	if len(text) > maxSaid {
		return fmt.Errorf("it is longer than %d bytes", maxSaid)
	}
	if *h = nil; len(bytes.TrimSpace(text)) == 0 || string(text) == "null" {
		return nil
	}
	var said map[string]value
	if err := json.Unmarshal(text, &said); err != nil || said == nil {
		return errors.New("it must be an object of headers, each name once, in JSON or in base64 of JSON")
	}
	if len(said) > maxHeaders {
		return fmt.Errorf("it holds more than %d headers", maxHeaders)
	}
	out := headers{}
	for name, v := range said {
		key := http.CanonicalHeaderKey(name)
		switch _, twice := out[key]; {
		case !tokenShape.MatchString(name):
			return errors.New("it holds a name that no header has")
		case twice:
			return fmt.Errorf("it holds the header %s twice", key)
		case len(v) > maxValue || !plainShape.MatchString(string(v)):
			return fmt.Errorf("the header %s is longer than %d bytes, or not of ASCII", key, maxValue)
		}
		out[key] = wire.Secret(v)
	}
	*h = out
	return nil
}

// value is a header's value: a string, a number, or a list of one of them.
type value string

// UnmarshalJSON implements json.Unmarshaler.
func (v *value) UnmarshalJSON(text []byte) error {
	var list []value
	if len(text) > 0 && text[0] == '[' {
		if err := json.Unmarshal(text, &list); err != nil || len(list) != 1 {
			return errors.New("a header has one value")
		}
		*v = list[0]
		return nil
	}
	if _, err := strconv.ParseUint(string(text), 10, 32); err == nil { // Content-Length
		*v = value(text)
		return nil
	}
	return json.Unmarshal(text, (*string)(v))
}

func decode64(text string) ([]byte, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	return base64.RawStdEncoding.DecodeString(text)
}

// signed is a request that a caller signed.
type signed struct {
	method  string
	url     *url.URL // as the caller has it; it is never fetched
	body    string
	headers headers
	region  string   // that it is signed for
	names   []string // of the headers that are signed, in lower case
}

// The bodies of the one request that is sent on.
const action, version = "GetCallerIdentity", "2011-06-15"

var bodies = []string{"Action=" + action + "&Version=" + version, "Version=" + version + "&Action=" + action}

// parseSigned checks what a caller hands over: it asks STS who the caller is, and
// can do nothing else. Errors are for the caller.
func parseSigned(in Login) (out signed, err error) {
	out.method, out.headers = in.Method, in.Headers
	switch {
	case in.Method == "":
		return out, errors.New("missing iam_http_request_method")
	case in.Method != http.MethodPost && in.Method != http.MethodGet:
		return out, errors.New("invalid iam_http_request_method; only 'POST' and 'GET' are supported")
	case in.URL.Reveal() == "":
		return out, errors.New("missing iam_request_url")
	case len(in.Headers) == 0:
		return out, errors.New("missing iam_request_headers")
	case len(in.URL.Reveal()) > 2*maxURL || len(in.Body.Reveal()) > maxURL:
		return out, fmt.Errorf("iam_request_url or iam_request_body is longer than %d bytes", maxURL)
	}
	text, err := decode64(in.URL.Reveal())
	if err != nil {
		return out, errors.New("failed to base64 decode iam_request_url")
	}
	if out.url, err = url.Parse(string(text)); err != nil || out.url.Host == "" || out.url.Opaque != "" || out.url.User != nil || out.url.Fragment != "" {
		return out, errors.New("error parsing iam_request_url")
	}
	body, err := decode64(in.Body.Reveal())
	if err != nil {
		return out, errors.New("failed to base64 decode iam_request_body")
	}
	out.body = string(body)
	if path := out.url.EscapedPath(); path != "" && path != "/" {
		return out, errors.New("iam_request_url: STS has no such path")
	}
	if in.Method == http.MethodPost {
		err = out.checkPost()
	} else {
		err = out.checkGet()
	}
	if err == nil {
		err = out.parseSignature()
	}
	return out, err
}

func (s *signed) checkPost() error {
	switch {
	case s.url.RawQuery != "":
		return errors.New("unexpected action in POST url: iam_request_url has a query")
	case s.body == "":
		return errors.New("missing iam_request_body")
	case !slices.Contains(bodies, s.body):
		return fmt.Errorf("iam_request_body is not %s", bodies[0])
	}
	return nil
}

// Parameters of a URL that is signed.
var signingParams = []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Security-Token", "X-Amz-Signature", "X-Amz-SignedHeaders"}

func (s *signed) checkGet() error {
	if s.body != "" {
		return errors.New("iam_request_body: a GET has none")
	}
	query, err := url.ParseQuery(s.url.RawQuery)
	if err != nil {
		return errors.New("error parsing iam_request_url")
	}
	for name, values := range query {
		switch {
		case len(values) != 1:
			return fmt.Errorf("iam_request_url has the parameter %.30q more than once", name)
		case name == "Action" && values[0] != action, name == "Version" && values[0] != version:
			return fmt.Errorf("unexpected action parameter: iam_request_url must have Action=%s and Version=%s", action, version)
		case name == "Action", name == "Version", slices.Contains(signingParams, name):
		default:
			return fmt.Errorf("invalid request query param: %.30q", name)
		}
	}
	if query.Get("Action") == "" || query.Get("Version") == "" {
		return fmt.Errorf("no action found in request: iam_request_url must have Action=%s and Version=%s", action, version)
	}
	if query.Has("X-Amz-Expires") {
		if n, err := strconv.Atoi(query.Get("X-Amz-Expires")); err != nil || n < 1 || n > maxPresigned {
			return fmt.Errorf("X-Amz-Expires must be between 1 and %d seconds", maxPresigned)
		}
	}
	return nil
}

// authorization is a signature of AWS's version 4, as a header carries it.
var (
	authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^ ,]+), ?SignedHeaders=([^ ,]+), ?Signature=([0-9a-f]{64})$`)
	credential    = regexp.MustCompile(`^\w{1,128}/[0-9]{8}/([a-z0-9-]{1,40})/sts/aws4_request$`)
)

// parseSignature reads what is signed, and for which region.
func (s *signed) parseSignature() error {
	query := s.url.Query()
	said, byHeader := s.headers["Authorization"]
	if byHeader == query.Has("X-Amz-Signature") {
		return errors.New("the request must be signed once: by the header Authorization, or, for GET, in the URL")
	}
	scope, names := query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders")
	if byHeader {
		parts := authorization.FindStringSubmatch(said.Reveal())
		if parts == nil {
			return errors.New("the header Authorization is not AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…")
		}
		scope, names = parts[1], parts[2]
	} else if query.Get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" || !query.Has("X-Amz-Expires") {
		return errors.New("iam_request_url must have X-Amz-Algorithm=AWS4-HMAC-SHA256 and X-Amz-Expires")
	}
	region := credential.FindStringSubmatch(scope)
	if region == nil {
		return errors.New("the request is not signed for sts: its credential must be KEY/DATE/REGION/sts/aws4_request")
	}
	s.region, s.names = region[1], strings.Split(names, ";")
	if !slices.Contains(s.names, "host") {
		return errors.New("the request's host is not signed")
	}
	return nil
}

// Headers that may be signed. Others change what is asked, or are for another
// server's eyes.
var usualHeaders = []string{
	"Content-Length", "Content-Type", "Host", "User-Agent", "Accept-Encoding", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", serverHeader,
	"X-Amz-Algorithm", "X-Amz-Content-Sha256", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Signature", "X-Amz-Signedheaders", "X-Amz-User-Agent",
}

// serverHeader names the server that a request is signed for.
const serverHeader = "X-Vault-Aws-Iam-Server-Id"

// forwarded returns the headers that are sent on: those that are signed, and those
// of the signature.
func (s *signed) forwarded(allowed []string) (http.Header, error) {
	out := http.Header{}
	for name, v := range s.headers {
		isSigned := slices.Contains(s.names, strings.ToLower(name))
		known := slices.Contains(usualHeaders, name) || slices.Contains(allowed, name)
		switch {
		case name == "Authorization":
		case isSigned && !known, !known && strings.HasPrefix(name, "X-Amz-"):
			return nil, fmt.Errorf("invalid request header: %s; allowed_sts_header_values may allow it", name)
		case !isSigned && !strings.HasPrefix(name, "X-Amz-") && name != "Content-Type":
			continue // of no interest to STS
		}
		if name != "Host" && name != "Content-Length" { // which are told otherwise
			out.Set(name, v.Reveal())
		}
	}
	for _, name := range s.names {
		if _, ok := s.headers[http.CanonicalHeaderKey(name)]; !ok && name != "host" && name != "content-length" {
			return nil, fmt.Errorf("the header %.50q is signed and missing", name)
		}
	}
	return out, nil
}

// meantFor refuses a request that was signed for another server, where this one has
// a name.
func (s *signed) meantFor(server string) error {
	const shown = "X-Vault-AWS-IAM-Server-ID"
	if server == "" {
		return nil
	}
	got, ok := s.headers[serverHeader]
	switch {
	case !ok:
		return fmt.Errorf("error validating %s header: missing header %q", shown, shown)
	case got.Reveal() != server:
		return fmt.Errorf("error validating %s header: expected %q", shown, server)
	case !slices.Contains(s.names, strings.ToLower(serverHeader)):
		return fmt.Errorf("error validating %s header: header wasn't signed", shown)
	}
	return nil
}

// awsHosts are the names of AWS's STS: global, of a region, and of an endpoint in a
// private network.
var awsHosts = regexp.MustCompile(`^(vpce-[a-z0-9-]+\.)?sts(-fips)?(\.[a-z0-9-]+)?(\.vpce)?\.amazonaws\.com(\.cn)?(:443)?$`)

// checkHost refuses a request that is signed for another host than STS's: what it
// would do there is not known here.
func (s *signed) checkHost(endpoint string) error {
	said, ok := s.headers["Host"]
	if ok && !strings.EqualFold(said.Reveal(), s.url.Host) {
		return errors.New("the header Host is not the host of iam_request_url")
	}
	if own, err := url.Parse(endpoint); err == nil && strings.EqualFold(own.Host, s.url.Host) {
		return nil
	}
	if !awsHosts.MatchString(s.url.Host) {
		return errors.New("iam_request_url is not of STS: neither of AWS's nor of sts_endpoint")
	}
	return nil
}
