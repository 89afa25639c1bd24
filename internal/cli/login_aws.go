package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/cofferhq/coffer/client"
)

// cloud is what -method=aws takes, by the names that Vault's command line has.
var cloud = []param{
	{name: "role", optional: true}, {name: "header_value", optional: true}, {name: "region", optional: true}, {name: "sts_endpoint", optional: true},
	{name: "aws_access_key_id", optional: true}, {name: "aws_secret_access_key", optional: true, secret: true}, {name: "aws_security_token", optional: true, secret: true},
}

// loginAWS signs a request of sts:GetCallerIdentity with the key that is given, or
// that of the environment.
func (s *shell) loginAWS(ctx context.Context, f *loginFlags, args []string) (*client.Response, error) {
	given, err := s.given("aws", cloud, args)
	if err != nil {
		return nil, err
	}
	or := func(name string, variables ...string) string {
		value := strings.TrimSpace(given[name])
		for _, v := range variables {
			if value == "" {
				value = s.Getenv(v)
			}
		}
		return value
	}
	by := aws.Credentials{
		AccessKeyID: or("aws_access_key_id", "AWS_ACCESS_KEY_ID"), SecretAccessKey: or("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
	}
	if given["aws_access_key_id"] == "" { // a session goes with the key of the same place
		by.SessionToken = or("aws_security_token", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
	} else {
		by.SessionToken = or("aws_security_token")
	}
	if by.AccessKeyID == "" || by.SecretAccessKey == "" {
		return nil, usage("aws wants a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN for one that ends")
	}
	region := or("region", "AWS_REGION", "AWS_DEFAULT_REGION")
	if region == "" {
		region = "us-east-1"
	}
	endpoint := or("sts_endpoint")
	if endpoint == "" {
		endpoint = "https://sts.amazonaws.com"
	}
	const body = "Action=GetCallerIdentity&Version=2011-06-15"
	signed, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(endpoint, "/")+"/", strings.NewReader(body))
	if err != nil {
		return nil, usage("sts_endpoint is no URL")
	}
	signed.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if value := or("header_value"); value != "" {
		signed.Header.Set("X-Vault-AWS-IAM-Server-ID", value)
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, by, signed, hex.EncodeToString(sum[:]), "sts", region, time.Now()); err != nil {
		return nil, err
	}
	login, err := client.AWSLogin(or("role"), signed)
	if err != nil {
		return nil, err
	}
	return s.do(ctx, client.Request{Method: "POST", Path: "auth/" + f.mount() + "/login", Body: login, Anonymous: true})
}
