package aws

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/fault"
)

const (
	maxAnswer = 64 << 10 // bytes of an answer of AWS
	patience  = 20 * time.Second
)

// caller is who STS says signed a request.
type caller struct {
	ARN     string `json:"arn"`
	UserID  string `json:"user_id"` // of an assumed role: the role's, a colon, and the session
	Account string `json:"account"`
}

// uniqueID is the id of the user or role, which another of its name does not have.
func (c caller) uniqueID() string {
	id, _, _ := strings.Cut(c.UserID, ":")
	return id
}

// endpoint is where a request is sent: never where the caller says.
func (s *settings) endpoint(region string) (string, error) {
	switch {
	case s.STSEndpoint != "":
		if s.STSRegion != "" && region != s.STSRegion {
			return "", fmt.Errorf("the request is signed for the region %q, and sts_region is %q", region, s.STSRegion)
		}
		return strings.TrimRight(s.STSEndpoint, "/"), nil
	case s.FromClient && !regionShape.MatchString(region):
		return "", fmt.Errorf("the request is signed for %.40q, which is no region", region)
	case s.FromClient && strings.HasPrefix(region, "cn-"):
		return "https://sts." + region + ".amazonaws.com.cn", nil
	case s.FromClient:
		return "https://sts." + region + ".amazonaws.com", nil
	}
	return "https://sts.amazonaws.com", nil
}

// identify sends a signed request to STS and returns who signed it. Refusals are
// faults of kind Invalid, what is wrong at AWS's end of kind Unavailable.
func (m *Method) identify(ctx context.Context, s *settings, in signed) (caller, error) {
	refuse := func(err error) (caller, error) { return caller{}, fault.New(fault.Invalid, "%s", err) }
	endpoint, err := s.endpoint(in.region)
	if err != nil {
		return refuse(err)
	}
	if err := in.checkHost(endpoint); err != nil {
		return refuse(err)
	}
	if err := in.meantFor(s.ServerID); err != nil {
		return refuse(err)
	}
	header, err := in.forwarded(s.Headers)
	if err != nil {
		return refuse(err)
	}
	target := endpoint + "/"
	if in.url.RawQuery != "" {
		target += "?" + in.url.RawQuery
	}
	client, err := m.clientFor(s)
	if err != nil {
		return caller{}, err
	}
	answer, err := send(ctx, client, s.retries(), "STS", func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, in.method, target, strings.NewReader(in.body))
		if err == nil {
			r.Header, r.Host = header.Clone(), in.url.Host // which is signed
		}
		return r, err
	})
	if err != nil {
		return caller{}, err
	}
	if answer.Status != http.StatusOK {
		return caller{}, fault.New(fault.Invalid, "error making upstream request: received error code %d from STS%s", answer.Status, reason(answer.Body))
	}
	who, err := parseCaller(answer.Body)
	if err != nil {
		return caller{}, fault.Wrap(fault.Unavailable, err, "error making upstream request: error parsing STS response: %s", err)
	}
	return who, nil
}

// send sends a request, and again where AWS fails. Where it goes on to fail that is
// a fault of kind Unavailable; an answer is of another status than 429 and 5xx.
func send(ctx context.Context, client *remote.Client, again int, whom string, build func(ctx context.Context) (*http.Request, error)) (answer remote.Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for try := 0; ; try++ {
		request, err := build(ctx)
		if err != nil {
			return answer, fault.Wrap(fault.Unavailable, err, "the URL of %s is none", whom)
		}
		answer, err = client.Send(request)
		switch {
		case err == nil && answer.Status != http.StatusTooManyRequests && answer.Status < 500:
			return answer, nil
		case err == nil:
			err = fmt.Errorf("it answers %d", answer.Status)
		}
		if try >= again || ctx.Err() != nil {
			return answer, fault.Wrap(fault.Unavailable, err, "AWS's %s cannot be asked: %s", whom, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond << try):
		}
	}
}

var codeShape = regexp.MustCompile(`^[A-Za-z.]{1,64}$`)

// reason is the code that AWS gives for a refusal, for a message; "" when there is
// none.
func reason(body []byte) string {
	var out struct {
		Code string `xml:"Error>Code"`
	}
	if xml.Unmarshal(body, &out) != nil || !codeShape.MatchString(out.Code) {
		return ""
	}
	return ": " + out.Code
}

// decodeXML decodes one document and nothing after it.
func decodeXML(body []byte, into any) error {
	decoder := xml.NewDecoder(bytes.NewReader(body))
	if err := decoder.Decode(into); err != nil {
		return errors.New("it is not the XML that is expected")
	}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if text, ok := token.(xml.CharData); err != nil || !ok || len(bytes.TrimSpace(text)) > 0 {
			return errors.New("there is something after its end")
		}
	}
}

var userIDShape = regexp.MustCompile(`^[A-Z0-9]{4,128}(:[\w+=,.@-]{2,128})?$`)

// parseCaller reads the answer of sts:GetCallerIdentity.
func parseCaller(body []byte) (caller, error) {
	var out struct {
		XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
		Results []struct {
			ARN     []string `xml:"Arn"`
			UserID  []string `xml:"UserId"`
			Account []string `xml:"Account"`
		} `xml:"GetCallerIdentityResult"`
	}
	if err := decodeXML(body, &out); err != nil {
		return caller{}, err
	}
	if len(out.Results) != 1 || len(out.Results[0].ARN) != 1 || len(out.Results[0].UserID) != 1 || len(out.Results[0].Account) != 1 {
		return caller{}, errors.New("it does not have one result")
	}
	r := out.Results[0]
	who := caller{r.ARN[0], r.UserID[0], r.Account[0]}
	if !accountShape.MatchString(who.Account) || !userIDShape.MatchString(who.UserID) || len(who.ARN) > maxARN || strings.ContainsAny(who.ARN, " \r\n\t") {
		return caller{}, errors.New("it names nobody")
	}
	return who, nil
}

// form is a request's body.
func form(fields map[string]string) string {
	values := url.Values{}
	for name, value := range fields {
		values.Set(name, value)
	}
	return values.Encode()
}
