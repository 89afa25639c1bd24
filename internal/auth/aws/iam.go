package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/cofferhq/coffer/internal/fault"
)

// entity is a user or role as IAM knows it.
type entity struct {
	principal
	id string
}

// asksIAM reports whether the settings let this server ask IAM.
func (s *settings) asksIAM() bool { return s.AccessKey != "" }

// iam returns where IAM of a partition is, and the region it is signed for.
func (s *settings) iam(partition string) (endpoint, region string) {
	endpoint, region = "https://iam.amazonaws.com", "us-east-1"
	switch partition {
	case "aws-cn":
		endpoint, region = "https://iam.cn-north-1.amazonaws.com.cn", "cn-north-1"
	case "aws-us-gov":
		endpoint, region = "https://iam.us-gov.amazonaws.com", "us-gov-west-1"
	}
	if s.IAMEndpoint != "" {
		endpoint = strings.TrimRight(s.IAMEndpoint, "/")
	}
	return endpoint, region
}

// lookUp asks IAM for a user or role. One that is not there, or not in the account
// of the settings' key, is a fault of kind Invalid.
func (m *Method) lookUp(ctx context.Context, s *settings, p principal) (entity, error) {
	endpoint, region := s.iam(p.Partition)
	do, param := "GetUser", "UserName"
	if p.noun() == "role" {
		do, param = "GetRole", "RoleName"
	}
	body := form(map[string]string{"Action": do, "Version": "2010-05-08", param: p.Name})
	client, err := m.clientFor(s)
	if err != nil {
		return entity{}, err
	}
	answer, err := send(ctx, client, s.retries(), "IAM", func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+"/", strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		sum := sha256.Sum256([]byte(body))
		return r, v4.NewSigner().SignHTTP(ctx, aws.Credentials{AccessKeyID: s.AccessKey, SecretAccessKey: s.SecretKey}, r, hex.EncodeToString(sum[:]), "iam", region, time.Now())
	})
	switch {
	case err != nil:
		return entity{}, err
	case answer.Status == http.StatusNotFound:
		return entity{}, fault.New(fault.Invalid, "IAM knows no %s %s", p.noun(), p.Name)
	case answer.Status != http.StatusOK:
		return entity{}, fault.New(fault.Unavailable, "IAM does not tell about the %s %s, and answers %d%s; may the access_key of config/client call iam:%s?", p.noun(), p.Name, answer.Status, reason(answer.Body), do)
	}
	out, err := parseEntity(answer.Body)
	if err != nil {
		return out, fault.Wrap(fault.Unavailable, err, "the answer of IAM cannot be used: %s", err)
	}
	if out.Account != p.Account || out.noun() != p.noun() || out.Name != p.Name || out.Partition != p.Partition {
		return out, fault.New(fault.Invalid, "IAM knows the %s %s as that of another account than %s; only principals of the account of config/client's access_key can be looked up", p.noun(), p.Name, p.Account)
	}
	return out, nil
}

// parseEntity reads the answer of iam:GetUser or iam:GetRole.
func parseEntity(body []byte) (entity, error) {
	type found struct {
		ARN    string `xml:"Arn"`
		RoleID string `xml:"RoleId"`
		UserID string `xml:"UserId"`
	}
	var out struct {
		XMLName xml.Name
		Roles   []found `xml:"GetRoleResult>Role"`
		Users   []found `xml:"GetUserResult>User"`
	}
	if err := decodeXML(body, &out); err != nil {
		return entity{}, err
	}
	all := append(out.Roles, out.Users...)
	if out.XMLName.Space != "https://iam.amazonaws.com/doc/2010-05-08/" || len(all) != 1 {
		return entity{}, errors.New("it does not name one user or role")
	}
	p, err := parseARN(all[0].ARN)
	if err != nil {
		return entity{}, err
	}
	e := entity{p, all[0].RoleID + all[0].UserID}
	if p.Kind == "assumed-role" || !userIDShape.MatchString(e.id) {
		return entity{}, errors.New("it does not name one user or role")
	}
	return e, nil
}
