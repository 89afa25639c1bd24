package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Kubernetes logs a pod in with its service account's token at the method mounted
// at auth/mount; "" is kubernetes. The token is the file
// /var/run/secrets/kubernetes.io/serviceaccount/token, or that of a projected volume
// with the audience that the role demands.
func (l Logins) Kubernetes(ctx context.Context, mount, role string, token Secret) (*Auth, error) {
	return l.withToken(ctx, mountPath(mount, "kubernetes"), role, token)
}

// GCP logs in with a token of Google at the method mounted at auth/mount; "" is gcp:
// the identity token of an instance, or one that a service account signed.
func (l Logins) GCP(ctx context.Context, mount, role string, token Secret) (*Auth, error) {
	return l.withToken(ctx, mountPath(mount, "gcp"), role, token)
}

func (l Logins) withToken(ctx context.Context, mount, role string, token Secret) (*Auth, error) {
	return l.At(ctx, "auth/"+mount+"/login", struct {
		Role string `json:"role"`
		JWT  Secret `json:"jwt"`
	}{role, token})
}

// Azure is what logs in at Azure's method.
type Azure struct {
	Role string `json:"role"`
	JWT  Secret `json:"jwt"` // the access token of a managed identity, for the method's resource
	// Where it runs; needed where the role is bound to one of these.
	SubscriptionID string `json:"subscription_id,omitempty"`
	ResourceGroup  string `json:"resource_group_name,omitempty"`
	VM             string `json:"vm_name,omitempty"`
	ScaleSet       string `json:"vmss_name,omitempty"`
	ResourceID     string `json:"resource_id,omitempty"`
}

// Azure logs in with a token of Azure at the method mounted at auth/mount; "" is
// azure.
func (l Logins) Azure(ctx context.Context, mount string, in Azure) (*Auth, error) {
	return l.At(ctx, "auth/"+mountPath(mount, "azure")+"/login", in)
}

const maxSignedBody = 64 << 10 // bytes

// AWS logs in with a request of sts:GetCallerIdentity at the method mounted at
// auth/mount; "" is aws. The request is signed as any AWS SDK signs it (Signature
// Version 4, service sts), with the header X-Vault-AWS-IAM-Server-ID where the
// server demands it. It is not sent to AWS from here, and its body is read.
func (l Logins) AWS(ctx context.Context, mount, role string, signed *http.Request) (*Auth, error) {
	body, err := AWSLogin(role, signed)
	if err != nil {
		return nil, err
	}
	return l.At(ctx, "auth/"+mountPath(mount, "aws")+"/login", body)
}

// AWSLogin is the body of a login with a signed request, which AWS sends.
func AWSLogin(role string, signed *http.Request) (map[string]Secret, error) {
	if signed == nil || signed.URL == nil {
		return nil, errors.New("a signed request of sts:GetCallerIdentity is needed")
	}
	var body []byte
	if signed.Body != nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(signed.Body, maxSignedBody)); err != nil {
			return nil, fmt.Errorf("read the signed request: %w", err)
		}
	}
	header, err := json.Marshal(signed.Header)
	if err != nil {
		return nil, err
	}
	b64 := func(text []byte) Secret { return Secret(base64.StdEncoding.EncodeToString(text)) }
	return map[string]Secret{
		"role": Secret(role), "iam_http_request_method": Secret(signed.Method), "iam_request_url": b64([]byte(signed.URL.String())),
		"iam_request_body": b64(body), "iam_request_headers": b64(header),
	}, nil
}
